package linux_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/linux"
	"kiln/internal/sandbox/linux/inside"
	"kiln/internal/sandbox/program"
	"kiln/internal/sandbox/sandboxtest"
)

// daemonDir makes the test binary a daemon over that directory, to be killed.
const (
	daemonDir = "KILN_TEST_DAEMON"
	daemonIDs = "KILN_TEST_DAEMON_IDS" // what the ids of its sandboxes begin with
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == inside.Arg {
		os.Exit(inside.Init())
	}
	if dir := os.Getenv(daemonDir); dir != "" {
		fmt.Println(beDaemon(dir))
		select {}
	}
	_, _ = program.File() // open before a test looks what it leaves open
	os.Exit(m.Run())
}

// newDriver makes a driver, or skips the test where the kernel lacks something.
func newDriver(t testing.TB, change func(*linux.Config)) *linux.Driver {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("not Linux")
	}
	small, err := program.File() // as the daemon does
	if err != nil {
		t.Log(err)
	}
	cfg := linux.Config{Dir: filepath.Join(sandboxtest.Dir(t), "sandboxes"), Program: small}
	if change != nil {
		change(&cfg)
	}
	d, err := linux.New(cfg)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Probe(t.Context()); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSYS) {
		t.Skip(err)
	} else if err != nil {
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

func TestHostile(t *testing.T) {
	sandboxtest.Hostile(t, func(t *testing.T) sandbox.Driver { return newDriver(t, nil) })
}

func TestSoak(t *testing.T) {
	sandboxtest.Soak(t, func(t *testing.T) sandbox.Driver { return newDriver(t, nil) })
}

// TestConformanceOfSelf is of a daemon that has no small program, with spares.
func TestConformanceOfSelf(t *testing.T) {
	sandboxtest.Run(t, func(t *testing.T) sandbox.Driver {
		return newDriver(t, func(c *linux.Config) { c.Program, c.Spares = nil, 3 })
	})
}

// TestRootless runs the suites again as a user without privileges.
func TestRootless(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	dir := sandboxtest.Dir(t)
	binary := filepath.Join(dir, "linux.test")
	copyProgram(t, binary)
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.v", "-test.run=^(TestConformance|TestHostile)$")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + filepath.Join(dir, "tmp")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "missing:") || strings.Contains(line, "SKIP") || strings.Contains(line, "skip") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

func copyProgram(t *testing.T, to string) {
	t.Helper()
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// beDaemon makes two sandboxes with a running process each, one of them frozen.
func beDaemon(dir string) string {
	d, err := linux.New(linux.Config{Dir: dir})
	if err != nil {
		return "skip " + err.Error()
	}
	ctx := context.Background()
	for i, id := range []string{os.Getenv(daemonIDs) + "running", os.Getenv(daemonIDs) + "frozen"} {
		s, err := d.Create(ctx, sandbox.Spec{ID: id, Group: "000000000000/us-east-1/conformance", Task: "/usr"})
		if err != nil {
			return "skip " + err.Error()
		}
		if _, err := s.Exec(ctx, sandbox.Command{
			Path: "/bin/bash", Args: []string{"bash", "-c", "touch /tmp/file; exec sleep 1000"}, Dir: "/",
			Stdout: os.Stderr, Stderr: os.Stderr,
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
	before := sandboxtest.Snapshot(t)
	dir := filepath.Join(sandboxtest.Dir(t), "sandboxes")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{daemonDir + "=" + dir, daemonIDs + "=" + sandboxtest.ID("")}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pids := below(cmd.Process.Pid)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if strings.HasPrefix(line, "skip") {
		t.Skip(line)
	}
	if line != "ready\n" {
		t.Fatal(line)
	}
	if len(pids) < 2 {
		t.Fatalf("processes of the killed daemon: %v", pids)
	}
	d := newDriver(t, func(c *linux.Config) { c.Dir = dir })
	if err := d.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var left []string
		for _, p := range pids {
			if living(p) {
				left = append(left, p)
			}
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes %v outlive their daemon", left)
		}
	}
	if left, _ := filepath.Glob(dir + "/run/000000000000"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := d.Sweep(t.Context()); err != nil {
		t.Errorf("sweeping nothing: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	before.Unchanged(t)
}

// below lists the descendants of a process.
func below(pid int) (list []string) {
	for next := []string{fmt.Sprint(pid)}; len(next) > 0; next = next[1:] {
		files, _ := filepath.Glob("/proc/" + next[0] + "/task/*/children")
		for _, f := range files {
			b, _ := os.ReadFile(f)
			list, next = append(list, strings.Fields(string(b))...), append(next, strings.Fields(string(b))...)
		}
	}
	return list
}

// living reports whether a process runs: a zombie, whose parent is not ours, does not.
func living(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, _ := strings.Cut(string(b), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// TestInitKilled kills a sandbox's first process from outside.
func TestInitKilled(t *testing.T) {
	d := newDriver(t, nil)
	s, err := d.Create(t.Context(), sandbox.Spec{ID: sandboxtest.ID("orphan"), Group: "000000000000/us-east-1/conformance", Task: "/usr"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Exec(t.Context(), sandbox.Command{
		Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Dir: "/", Stdout: os.Stderr, Stderr: os.Stderr,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range below(os.Getpid()) {
		if b, _ := os.ReadFile("/proc/" + pid + "/cmdline"); strings.Contains(string(b), inside.Arg) {
			var n int
			_, _ = fmt.Sscan(pid, &n)
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the process outlives its init")
	}
	if e := p.Exit(); e.Signal != syscall.SIGKILL {
		t.Errorf("ended with %+v", e)
	}
	if _, err := s.Listen(t.Context(), 9001); err == nil {
		t.Error("Listen without an init succeeds")
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal: %v", err)
	}
	if err := s.Destroy(t.Context()); err != nil {
		t.Errorf("destroy: %v", err)
	}
}

func TestHostNetwork(t *testing.T) {
	d := newDriver(t, func(c *linux.Config) { c.Network = sandbox.NetworkHost })
	s, err := d.Create(t.Context(), sandbox.Spec{ID: sandboxtest.ID("host"), Group: "000000000000/us-east-1/conformance", Task: "/usr"})
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
}

func TestNewErrors(t *testing.T) {
	for name, c := range map[string]linux.Config{
		"no directory":     {},
		"relative":         {Dir: "x"},
		"unknown network":  {Dir: "/tmp/x", Network: "bridge"},
		"cgroup elsewhere": {Dir: "/tmp/x", Cgroup: "../x"},
	} {
		if _, err := linux.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// A program that does not call Init is told so, and does not start itself for ever.
	if runtime.GOOS != "linux" {
		return
	}
	other, err := os.Open("/bin/true")
	if err != nil {
		t.Skip(err)
	}
	defer other.Close()
	d, err := linux.New(linux.Config{Dir: filepath.Join(sandboxtest.Dir(t), "s"), Program: other})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Probe(t.Context()); err == nil {
		t.Error("an init that is none is accepted")
	} else {
		t.Log(err)
	}
}
