package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"kiln/test/kiln"
)

// writers make functions at once, each in order.
const writers = 3

func create(d *kiln.Daemon, name string, n int) error {
	code := kiln.Bash(fmt.Sprintf("echo \"log of %s\"; answer=\"\\\"%d $SECRET\\\"\"", name, n))
	_, err := d.Client().CreateFunction(context.Background(), &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: "provided.al2023", Handler: aws.String("x"), Role: aws.String(kiln.Role),
		Code:        &types.FunctionCode{ZipFile: code},
		Environment: &types.Environment{Variables: map[string]string{"SECRET": name}},
	})
	return err
}

// invoke fails unless a function does what create made it do.
func invoke(t *testing.T, d *kiln.Daemon, name string, n int) {
	t.Helper()
	out, err := d.Client().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name})
	if err != nil {
		t.Errorf("invoke %s: %v", name, err)
	} else if want := fmt.Sprintf("%q", fmt.Sprintf("%d %s", n, name)); string(out.Payload) != want {
		t.Errorf("%s answers %s, want %s", name, out.Payload, want)
	}
}

func names(t *testing.T, d *kiln.Daemon) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	pages := lambda.NewListFunctionsPaginator(d.Client(), &lambda.ListFunctionsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range page.Functions {
			all[*f.FunctionName] = true
		}
	}
	return all
}

func save(t *testing.T, d *kiln.Daemon) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "kiln.backup")
	if code, out := kiln.Run(t, "backup", file, "--endpoint", d.URL); code != 0 {
		t.Fatalf("kiln backup ends with %d: %s", code, out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v", info, err)
	}
	return file
}

func TestOneMomentWhileServing(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	if err := create(d, "first", 1); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var made [writers]atomic.Int64
	begun := make(chan struct{}, writers)
	for w := range writers {
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := create(d, fmt.Sprintf("writer-%d-%d", w, n), n); err != nil {
					t.Errorf("create: %v", err)
					return
				}
				if made[w].Store(int64(n + 1)); n == 5 {
					begun <- struct{}{}
				}
			}
		})
	}
	work.Go(func() { // one comes and goes, and its package with it
		for n := 0; ctx.Err() == nil; n++ {
			if err := create(d, "passing", n); err != nil {
				t.Errorf("create: %v", err)
				return
			}
			if _, err := d.Client().DeleteFunction(context.Background(), &lambda.DeleteFunctionInput{FunctionName: aws.String("passing")}); err != nil && !errors.As(err, new(*types.ResourceConflictException)) {
				t.Errorf("delete: %v", err)
				return
			}
		}
	})
	for range writers {
		<-begun
	}
	invoke(t, d, "first", 1)
	var before [writers]int64
	for w := range writers {
		before[w] = made[w].Load()
	}
	file := save(t, d)
	var after [writers]int64
	for w := range writers {
		after[w] = made[w].Load() + 1 // one may be there that is not answered yet
	}
	stop()
	work.Wait()
	invoke(t, d, "first", 1) // it serves on

	data := filepath.Join(t.TempDir(), "restored")
	if code, out := kiln.Run(t, "restore", file, "--data", data); code != 0 {
		t.Fatalf("kiln restore ends with %d: %s", code, out)
	}
	r := kiln.StartIn(t, data, nil)
	there := names(t, r)
	invoke(t, r, "first", 1)
	delete(there, "first")
	for w := range writers {
		n := 0
		for ; there[fmt.Sprintf("writer-%d-%d", w, n)]; n++ {
			name := fmt.Sprintf("writer-%d-%d", w, n)
			delete(there, name)
			if n%5 == 0 {
				invoke(t, r, name, n)
				continue
			}
			f, err := r.Client().GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: &name})
			if err != nil || f.Configuration.Environment.Variables["SECRET"] != name {
				t.Errorf("%s: %v, %v", name, f, err)
			}
		}
		if int64(n) < before[w] || int64(n) > after[w] {
			t.Errorf("%d functions of writer %d are restored; there were %d before and at most %d after", n, w, before[w], after[w])
		}
	}
	if there["passing"] {
		if out, err := r.Client().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("passing")}); err != nil {
			t.Errorf("invoke passing: %v, %v", out, err)
		}
		delete(there, "passing")
	}
	if len(there) > 0 {
		t.Errorf("these have none before them: %v", there)
	}
	if _, out := kiln.Run(t, "logs", "first", "--endpoint", r.URL); strings.Count(out, "log of first") < 2 {
		t.Errorf("the logs of before are not there:\n%s", out)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	if err := create(d, "f", 1); err != nil {
		t.Fatal(err)
	}
	full := kiln.Start(t, "--free-space-floor", "900TiB")
	if code, out := kiln.Run(t, "backup", filepath.Join(t.TempDir(), "backup"), "--endpoint", full.URL); code != 1 || !strings.Contains(out, "not enough free space") {
		t.Errorf("of a full disk: %d %s", code, out)
	}
	file := save(t, d)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if code, out := kiln.Run(t, "backup", file, "--endpoint", d.URL); code == 0 || !strings.Contains(out, "is there already") {
		t.Errorf("over another backup: %d %s", code, out)
	}
	spoiled := bytes.Clone(whole)
	spoiled[bytes.Index(spoiled, []byte("blobs/"))+1000] ^= 1
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "a", "b")
	for _, c := range []struct {
		what, data, want string
		content          []byte
	}{
		{"in use", d.Data, "in use", whole},
		{"not empty", foreign, "thesis.tex", whole},
		{"cut off", empty, "cut off", whole[:len(whole)/2]},
		{"damaged", empty, "damaged: blobs/", spoiled},
		{"no backup", empty, "no backup", []byte("hello")},
	} {
		name := filepath.Join(t.TempDir(), "backup")
		if err := os.WriteFile(name, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out := kiln.Run(t, "restore", name, "--data", c.data); code != 1 || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d %s, want it to say %q", c.what, code, out, c.want)
		}
	}
	if _, err := os.Stat(empty); err == nil {
		t.Error("a restore that was refused leaves a folder")
	}
}

// Whoever is killed in the middle leaves nothing that looks like a backup or a
// data directory.
func TestKilled(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	noise := make([]byte, 24<<20) // more than any pipe between them holds
	rand.Read(noise)
	d.Create("large", "provided.al2023", "x", kiln.Zip(map[string]string{"bootstrap!": kiln.Bootstrap(`answer=1`), "noise": string(noise)}), nil)
	file := save(t, d)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	// The client of a backup: the daemon is soon ready for the next one.
	begin := func() *exec.Cmd {
		t.Helper()
		cmd := exec.Command(kiln.Binary(t), "backup", "-", "--endpoint", d.URL)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err == nil {
			_, err = io.ReadFull(out, make([]byte, 1000))
		}
		if err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	client := begin()
	_ = client.Process.Kill()
	_ = client.Wait()
	again := filepath.Join(t.TempDir(), "again")
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(50 * time.Millisecond) {
		code, out := kiln.Run(t, "backup", again, "--endpoint", d.URL)
		if code == 0 {
			break
		}
		if !strings.Contains(out, "Another backup") || time.Now().After(deadline) {
			t.Fatalf("after a client was killed: %s", out)
		}
	}

	// The daemon.
	client = begin()
	d.Kill()
	if err := client.Wait(); err == nil {
		t.Error("a backup whose daemon was killed succeeds")
	}
	d.Start()
	if _, err := os.Stat(filepath.Join(d.Data, "run", "backup")); err == nil {
		t.Error("what the backup kept stays after a restart")
	}

	// The restore.
	data := filepath.Join(t.TempDir(), "restored")
	cmd := exec.Command(kiln.Binary(t), "restore", "-", "--data", data)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = in.Write(whole[:len(whole)-1<<20])
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if code, out := kiln.Run(t, "up", "--data", data, "--listen", "127.0.0.1:0"); code != 1 || !strings.Contains(out, "cut off") {
		t.Errorf("a half restored directory: %d %s", code, out)
	}
	if code, out := kiln.Run(t, "restore", file, "--data", data); code != 0 {
		t.Fatalf("restoring again: %s", out)
	}
	r := kiln.StartIn(t, data, nil)
	if out, err := r.Client().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("large")}); err != nil || string(out.Payload) != "1" {
		t.Errorf("%v, %v", out, err)
	}
}

func TestMasterKeyElsewhere(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	secret := strings.Repeat("5a", 32)
	if err := os.WriteFile(key, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	d := kiln.Start(t, "--master-key-file", key)
	if err := create(d, "f", 1); err != nil {
		t.Fatal(err)
	}
	file := save(t, d)
	if b, err := os.ReadFile(file); err != nil || bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte("master.key")) {
		t.Errorf("the backup holds the key: %v", err)
	}
	data := filepath.Join(t.TempDir(), strconv.Itoa(1))
	if code, out := kiln.Run(t, "restore", file, "--data", data); code != 0 || !strings.Contains(out, "configure that one") {
		t.Fatalf("%d %s", code, out)
	}
	if code, out := kiln.Run(t, "up", "--data", data, "--listen", "127.0.0.1:0"); code != 1 || !strings.Contains(out, "set master_key_file") {
		t.Errorf("without the key: %d %s", code, out)
	}
	r := kiln.StartIn(t, data, nil, "--master-key-file", key)
	invoke(t, r, "f", 1)

	// And under another key.
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte(strings.Repeat("a5", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"reseal", "--data", data, "--master-key-file", other, "--old-master-key-file", key}
	if code, out := kiln.Run(t, args...); code != 1 || !strings.Contains(out, "in use") {
		t.Errorf("resealed while it serves: %d %s", code, out)
	}
	r.Stop()
	if code, out := kiln.Run(t, args...); code != 0 || !strings.Contains(out, other) {
		t.Fatalf("kiln reseal: %d %s", code, out)
	}
	if code, out := kiln.Run(t, "up", "--data", data, "--listen", "127.0.0.1:0", "--master-key-file", key); code != 1 || !strings.Contains(out, "is not the one") {
		t.Errorf("with the key of before: %d %s", code, out)
	}
	invoke(t, kiln.StartIn(t, data, nil, "--master-key-file", other), "f", 1)
}
