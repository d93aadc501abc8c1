package sandboxtest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kiln/internal/sandbox"
)

// testRoot runs processes in a root of their own, as an image's is.
func testRoot(t *testing.T, b *bench) {
	spec := b.spec()
	spec.Root, spec.Task, spec.Opt, spec.Runtime = filepath.Join(Dir(t), "root"), "", "", ""
	driver, ok := b.Driver.(sandbox.Rooter)
	if !ok {
		if s, err := b.Create(t.Context(), spec); err == nil {
			_ = s.Destroy(t.Context())
			t.Error("a driver without roots accepts one")
		} else if !strings.Contains(err.Error(), "linux driver") {
			t.Errorf("the refusal does not say what to do: %v", err)
		}
		return
	}
	makeRoot(t, spec.Root, driver.MountPoints())
	s := b.createSpec(t, spec)
	sh := func(s *box, script string) *command {
		return s.start(sandbox.Command{Path: "bash", Args: []string{"bash", "-c", script}, Dir: "/", Env: []string{"PATH=/nowhere:/bin"}})
	}
	for script, want := range map[string]string{
		"echo $(</marker)":                                "image",
		"echo $(</var/task/file)":                         "the image's",
		"[[ ! -e /usr/bin/python3 ]]":                     "",
		"echo x >/tmp/x && echo $(</tmp/x)":               "x",
		"! (echo x >/x) 2>/dev/null":                      "",
		"echo x >/dev/null && [[ -c /dev/null ]]":         "",
		"[[ -d /proc/$$ && ! -e /dev/shm ]]":              "",
		"read -r a b </etc/hosts; echo $a":                "127.0.0.1",
		"echo $(< <(echo x))":                             "x",
		"[[ $(</etc/passwd) == *appuser* ]]":              "",
		"[[ $(</etc/passwd) == *sbx_user1051:x:$UID:* ]]": "",
		"[[ $(</etc/group) == *sbx_user1051* ]]":          "",
		"[[ $(</etc/resolv.conf) == *network* ]]":         "",
		"cd / && echo $PWD ~sbx_user1051":                 "/ /home/sbx_user1051",
	} {
		c := sh(s, script)
		if e := c.wait(); e != (sandbox.Exit{}) || c.all() != want {
			t.Errorf("%s: %q, want %q; %+v %s", script, c.out, want, e, c.err)
		}
	}
	// With a function's code and layers in a root: a zip on a base image.
	spec.ID, spec.Task, spec.Opt = ID("base"), b.code, b.layers
	base := b.createSpec(t, spec)
	if got := sh(base, "echo $(</var/task/file) $(</opt/file) $(</marker)").text(); got != "code layers image" {
		t.Errorf("code and layers in a root: %q", got)
	}
	// What cannot be started says why.
	var dir *sandbox.DirError
	if _, err := s.tryStart(sandbox.Command{Path: "/bin/bash", Dir: "/no/such"}); !errors.As(err, &dir) {
		t.Errorf("missing working directory: %v", err)
	}
	if _, err := s.tryStart(sandbox.Command{Path: "no-such-program", Dir: "/", Env: []string{"PATH=/bin"}}); err == nil || !strings.Contains(err.Error(), `"no-such-program": executable file not found in $PATH`) {
		t.Errorf("a program that is on no path: %v", err)
	}
}

// makeRoot makes a root file system of the host's bash. Folders of mount points
// are reached through links that lead to other places on the host.
func makeRoot(t *testing.T, root string, points []string) {
	t.Helper()
	write := func(name, text string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(root+name), 0o755), os.WriteFile(root+name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("/data/var/task/file", "the image's\n")
	write("/marker", "image\n")
	write("/conf/passwd", "root:x:0:0::/root:/bin/sh\nappuser:x:100:100::/:/bin/sh\n")
	for name, to := range map[string]string{"/etc": "/conf", "/var": "/data/../data/var", "/conf/mtab": "../proc/mounts"} {
		if err := os.Symlink(to, root+name); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range points {
		p = strings.Replace(p, "/etc/", "/conf/", 1)
		p = strings.Replace(p, "/var/", "/data/var/", 1)
		if strings.HasSuffix(p, "/") {
			if err := os.MkdirAll(root+p, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if _, err := os.Lstat(root + p); err != nil {
			write(p, "")
		}
	}
	libraries, err := exec.Command("ldd", "/bin/bash").Output()
	if err != nil {
		t.Skip("no dynamically linked bash here: ", err)
	}
	for _, file := range append(regexp.MustCompile(`/[^ )]+`).FindAllString(string(libraries), -1), "/bin/bash") {
		in, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := os.MkdirAll(filepath.Dir(root+file), 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(root+file, os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(out, in)
		if err := errors.Join(err, out.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
