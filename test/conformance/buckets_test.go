package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// boto3Program runs a program of testdata.
func boto3Program(t *testing.T, d *kiln.Daemon, env []string, program string, args ...string) string {
	t.Helper()
	interpreter, err := python()
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), interpreter, append([]string{"testdata/" + program}, args...)...)
	cmd.Env = append(d.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return string(out)
}

// TestBuckets uses Kiln's own S3 with boto3, whether keys are required or not.
func TestBuckets(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret of forty characters, or nearly so"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ args, env []string }{
		"open":  {nil, []string{"STYLE=path"}},
		"keyed": {[]string{"--access-key", "AKIDROOT", "--secret-key-file", secret}, []string{"AWS_ACCESS_KEY_ID=AKIDROOT", "AWS_SECRET_ACCESS_KEY=a secret of forty characters, or nearly so"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := kiln.Start(t, append(c.args, "--account", kiln.Account())...)
			if out := boto3Program(t, d, c.env, "s3.py", append([]string{"a-bucket"}, c.args...)...); out != "ok\n" {
				t.Error(out)
			}
			d.Kill()
			d.NothingLives()
		})
	}
}

// TestCopyByCLI copies files as people do.
func TestCopyByCLI(t *testing.T) {
	t.Parallel()
	aws, err := exec.LookPath("aws")
	if err != nil {
		t.Skip(err)
	}
	d := kiln.Start(t)
	dir := t.TempDir()
	for name, content := range map[string]string{"one": "1", "two/three": "23", "ü +&": "odd", "large": strings.Repeat("0123456789abcdef", 1<<20)} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), aws, append([]string{"s3"}, args...)...)
		cmd.Env = d.Environ()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("aws s3 %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("mb", "s3://files")
	run("sync", dir, "s3://files/here", "--no-progress")
	if out := run("sync", dir, "s3://files/here", "--no-progress"); out != "" {
		t.Errorf("what is there was copied again: %s", out)
	}
	back := t.TempDir()
	run("cp", "s3://files/here", back, "--recursive", "--no-progress")
	if out, err := exec.Command("diff", "-r", dir, back).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	run("mv", "s3://files/here/one", "s3://files/moved", "--no-progress")
	run("rm", "s3://files", "--recursive")
	if out := run("ls", "s3://files", "--recursive"); out != "" {
		t.Errorf("left: %s", out)
	}
	run("rb", "s3://files")
}
