package gvisor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/egress"
	"kiln/internal/sandbox/gvisor"
	"kiln/internal/sandbox/gvisor/inside"
	"kiln/internal/sandbox/sandboxtest"
)

// daemonDir makes the test binary a daemon over that directory, to be killed.
const daemonDir = "KILN_TEST_DAEMON"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == inside.OuterArg || os.Args[1] == inside.InnerArg) {
		os.Exit(inside.Init())
	}
	if dir := os.Getenv(daemonDir); dir != "" {
		fmt.Println(beDaemon(dir))
		select {}
	}
	os.Exit(m.Run())
}

// newDriver makes a driver, or skips the test where there is no runsc.
func newDriver(t testing.TB, change func(*gvisor.Config)) *gvisor.Driver {
	t.Helper()
	cfg := gvisor.Config{Dir: filepath.Join(sandboxtest.Dir(t), "sandboxes"), Runsc: os.Getenv("KILN_RUNSC")}
	if change != nil {
		change(&cfg)
	}
	d, err := gvisor.New(cfg)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	sandboxtest.Run(t, func(t *testing.T) sandbox.Driver {
		d := newDriver(t, nil)
		t.Logf("missing: %q", d.Describe().Missing)
		return d
	})
}

func TestSpares(t *testing.T) {
	d := newDriver(t, func(c *gvisor.Config) { c.Spares = 2 })
	for i := range 4 { // more than there are, so that some are booted as they are asked for
		s, err := d.Create(t.Context(), sandbox.Spec{ID: sandboxtest.ID(fmt.Sprint("spare-", i)), Group: group, Task: "/usr", MemoryBytes: 128 << 20, TmpBytes: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(sandboxtest.Dir(t), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		p, err := s.Exec(t.Context(), sandbox.Command{
			Path: "/bin/sh", Args: []string{"sh", "-c", "ls /var/task; touch /tmp/x"}, Dir: "/var/task", Stdout: out, Stderr: out,
		})
		if err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		b, _ := os.ReadFile(out.Name())
		if e := p.Exit(); e != (sandbox.Exit{}) || !strings.Contains(string(b), "bin\n") {
			t.Errorf("sandbox %d: %+v, %q", i, e, b)
		}
		if err := s.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestHostile(t *testing.T) {
	sandboxtest.Hostile(t, func(t *testing.T) sandbox.Driver { return newDriver(t, nil) })
}

// TestHostileNetwork has the cases that a way out makes harder.
func TestHostileNetwork(t *testing.T) {
	sandboxtest.Hostile(t, func(t *testing.T) sandbox.Driver {
		return newDriver(t, func(c *gvisor.Config) { c.Network, c.NAT = sandbox.NetworkNAT, &egress.Config{} })
	}, "connect", "rawSockets", "machine")
}

// TestHostNetwork: sockets are the host's, and gVisor has no right there that a function has not.
func TestHostNetwork(t *testing.T) {
	var dir string
	d := newDriver(t, func(c *gvisor.Config) { c.Network, dir = sandbox.NetworkHost, c.Dir })
	s, err := d.Create(t.Context(), sandbox.Spec{ID: sandboxtest.ID("host"), Group: group, Task: "/usr", TmpBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Listen(t.Context(), 9001)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Exec(t.Context(), sandbox.Command{
		Path: "/bin/bash", Args: []string{"bash", "-c", "exec 5<>/dev/tcp/" + strings.Replace(l.Addr().String(), ":", "/", 1)},
		Dir: "/", Stdout: os.Stderr, Stderr: os.Stderr,
	})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if e := p.Exit(); e != (sandbox.Exit{}) {
		t.Errorf("connecting: %+v", e)
	}
	ours, _ := os.Readlink("/proc/self/ns/user")
	looked := 0
	for _, line := range runscOf(0, dir) {
		if b, _ := os.ReadFile(line); !strings.HasPrefix(string(b), "runsc-") {
			continue
		}
		looked++
		if theirs, err := os.Readlink(filepath.Dir(line) + "/ns/user"); theirs == ours || err != nil {
			t.Errorf("%s is in the user namespace %s of the host, %v", line, theirs, err)
		}
	}
	if looked != 2 {
		t.Errorf("%d processes of gVisor were found", looked)
	}
}

const group = "000000000000/us-east-1/conformance"

// beDaemon makes two sandboxes with a running process each, one of them frozen, and a spare.
func beDaemon(dir string) string {
	d, err := gvisor.New(gvisor.Config{Dir: dir, Runsc: os.Getenv("KILN_RUNSC"), Spares: 1})
	if err != nil {
		return "skip " + err.Error()
	}
	ctx := context.Background()
	for i, id := range []string{"running", "frozen"} {
		s, err := d.Create(ctx, sandbox.Spec{ID: id, Group: group, Task: "/usr", TmpBytes: 64 << 20})
		if err != nil {
			return err.Error()
		}
		if _, err := s.Exec(ctx, sandbox.Command{
			Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Dir: "/", Stdout: os.Stderr, Stderr: os.Stderr,
		}); err != nil {
			return err.Error()
		}
		if i == 1 {
			_ = s.(sandbox.Freezer).Freeze(ctx) // where it can
		}
	}
	return "ready"
}

func TestSweepAfterKill(t *testing.T) {
	newDriver(t, nil) // or it skips
	before := sandboxtest.Snapshot(t)
	dir := filepath.Join(sandboxtest.Dir(t), "sandboxes")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), daemonDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	kernels, _ := filepath.Glob(dir + "/run/*")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if line != "ready\n" || len(kernels) < 2 {
		t.Fatalf("%q with %q", line, kernels)
	}
	d := newDriver(t, func(c *gvisor.Config) { c.Dir = dir })
	if err := errors.Join(d.Sweep(t.Context()), d.Sweep(t.Context())); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(dir + "/run/*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		left := runscOf(cmd.Process.Pid, dir)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes outlive their daemon: %q", left)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	before.Unchanged(t)
}

// runscOf lists what is left of a daemon: processes with its directory among their
// arguments, and its cgroups.
func runscOf(pid int, dir string) (left []string) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		if b, _ := os.ReadFile(l); strings.Contains(string(b), dir) {
			left = append(left, l)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/kiln/gvisor/%d-*", "/sys/fs/cgroup/kiln/gvisor/%d-*"} {
		found, _ := filepath.Glob(fmt.Sprintf(pattern, pid))
		left = append(left, found...)
	}
	return left
}

// TestErrors is what a machine is told that cannot have the driver.
func TestErrors(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("needs root, on Linux")
	}
	dir := filepath.Join(sandboxtest.Dir(t), "s")
	for what, c := range map[string]gvisor.Config{
		"want an absolute path": {},
		"install gVisor's":      {Dir: dir, Runsc: "/no/such/runsc"},
		"spares":                {Dir: dir, Spares: -1},
		"want a relative name":  {Dir: dir, Cgroup: "../x"},
	} {
		if _, err := gvisor.New(c); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%+v: %v, want %q", c, err, what)
		}
	}
	d, err := gvisor.New(gvisor.Config{Dir: dir, Runsc: "/bin/false"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "runsc ended with status 1") {
		t.Errorf("a runsc that is none: %v", err)
	}
}
