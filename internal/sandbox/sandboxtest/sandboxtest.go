// Package sandboxtest is the conformance suite of sandbox drivers: what the
// contract promises, tried with real processes. Drivers call Run from their
// tests; a promise that a driver does not make (Description.Isolates) is skipped.
package sandboxtest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kiln/internal/sandbox"
)

// patience bounds every wait of the suite: a fork bomb in a kernel of its own, on a
// machine that is busy with other tests, takes more than a minute to be full.
const patience = 3 * time.Minute

// New makes a driver over a directory of its own; the suite closes it.
type New func(t *testing.T) sandbox.Driver

// Dir makes a directory that users other than root can enter, which
// testing.T.TempDir does not, and removes it after the test.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kiln-sandboxtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sandbox.RemoveTree(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ID makes a sandbox id that tells this test process's sandboxes from those of
// others, which may run at the same time.
func ID(name string) string { return fmt.Sprintf("t-%d-%s", os.Getpid(), name) }

// bench is a driver under test and what its sandboxes are made of.
type bench struct {
	sandbox.Driver
	code, layers, client string
}

func newBench(t *testing.T, newDriver New) *bench {
	t.Helper()
	dir := Dir(t)
	b := &bench{
		code:   filepath.Join(dir, "code"),
		layers: filepath.Join(dir, "layers"),
		client: filepath.Join(dir, "client"),
	}
	for _, d := range []string{b.code, b.layers, b.client} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "file"), []byte(filepath.Base(d)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.Driver = newDriver(t)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// spec is a sandbox of 256 MiB with everything but an interpreter of its own.
func (b *bench) spec() sandbox.Spec {
	return sandbox.Spec{
		ID:    ID(fmt.Sprintf("%08x", rand.Uint32())),
		Group: "000000000000/us-east-1/conformance",
		Task:  b.code, Opt: b.layers, Runtime: b.client,
		MemoryBytes: 256 << 20,
		TmpBytes:    512 << 20,
	}
}

// box is a sandbox under test.
type box struct {
	sandbox.Sandbox
	t *testing.T
}

func (b *bench) create(t *testing.T) *box { return b.createSpec(t, b.spec()) }

func (b *bench) createSpec(t *testing.T, s sandbox.Spec) *box {
	t.Helper()
	sb, err := b.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := sb.Destroy(ctx); err != nil {
			t.Errorf("destroy: %v", err)
		}
	})
	return &box{sb, t}
}

// command is a started process with its output.
type command struct {
	sandbox.Process
	t        *testing.T
	out, err *output
}

// output collects what a process writes; it ends when every writer is gone.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer // guarded by mu
	grew chan struct{}
	eof  chan struct{}
}

func capture(t *testing.T) (*output, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o := &output{grew: make(chan struct{}, 1), eof: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(o.eof)
		b := make([]byte, 32<<10)
		for {
			n, err := r.Read(b)
			o.mu.Lock()
			o.buf.Write(b[:n])
			o.mu.Unlock()
			select {
			case o.grew <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { _ = r.Close(); wg.Wait() })
	return o, w
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start runs a program with its output captured.
func (b *box) start(cmd sandbox.Command) *command {
	b.t.Helper()
	c, err := b.tryStart(cmd)
	if err != nil {
		b.t.Fatalf("exec %q: %v", cmd.Args, err)
	}
	return c
}

func (b *box) tryStart(cmd sandbox.Command) (*command, error) {
	b.t.Helper()
	c := &command{t: b.t}
	c.out, cmd.Stdout = capture(b.t)
	c.err, cmd.Stderr = capture(b.t)
	defer cmd.Stdout.Close()
	defer cmd.Stderr.Close()
	if cmd.Dir == "" {
		cmd.Dir = b.Paths().Task
	}
	if cmd.Args == nil {
		cmd.Args = []string{cmd.Path}
	}
	var err error
	c.Process, err = b.Exec(b.t.Context(), cmd)
	return c, err
}

// sh starts a shell script; its variables TASK, OPT, CLIENT and TMP are the sandbox's paths.
func (b *box) sh(script string) *command {
	b.t.Helper()
	return b.start(b.script("/bin/bash", "-c", script))
}

// python starts a Python program.
func (b *box) python(program string) *command {
	b.t.Helper()
	return b.start(b.script("/usr/bin/python3", "-Ic", program))
}

func (b *box) script(path, flag, text string) sandbox.Command {
	p := b.Paths()
	return sandbox.Command{Path: path, Args: []string{path, flag, text}, Env: []string{
		"PATH=/usr/bin:/bin", "TASK=" + p.Task, "OPT=" + p.Opt, "CLIENT=" + p.Runtime, "TMP=" + p.Tmp,
	}}
}

// wait waits for the end of the process and of its output.
func (c *command) wait() sandbox.Exit {
	c.t.Helper()
	select {
	case <-c.Done():
	case <-time.After(patience):
		c.t.Fatalf("process did not end; it wrote %q %q", c.out, c.err)
	}
	return c.Exit()
}

// text waits for success and returns what was printed.
func (c *command) text() string {
	c.t.Helper()
	if e := c.wait(); e != (sandbox.Exit{}) {
		c.t.Fatalf("process ended with %+v; it wrote %q %q", e, c.out, c.err)
	}
	return c.all()
}

// all waits until nobody can write any more and returns the output.
func (c *command) all() string {
	c.t.Helper()
	for _, o := range []*output{c.out, c.err} {
		select {
		case <-o.eof:
		case <-time.After(patience):
			c.t.Fatalf("output stays open; it holds %q", o)
		}
	}
	return strings.TrimSpace(c.out.String())
}

// expect waits until the output holds text.
func (c *command) expect(text string) {
	c.t.Helper()
	if !c.reaches(text) {
		c.t.Fatalf("output ended without %q: %q %q", text, c.out, c.err)
	}
}

// reaches waits until the output holds text, or has ended without.
func (c *command) reaches(text string) bool {
	c.t.Helper()
	deadline := time.After(patience)
	for !strings.Contains(c.out.String(), text) {
		select {
		case <-c.out.grew:
		case <-c.out.eof:
			return strings.Contains(c.out.String(), text)
		case <-deadline:
			c.t.Fatalf("no %q in %q %q", text, c.out, c.err)
		}
	}
	return true
}
