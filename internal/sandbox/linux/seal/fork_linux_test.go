package seal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestChild starts a process the way of cgroup v2, which sandboxes here may not
// take: born in another cgroup, with a filter that the thread which forks has not.
func TestChild(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	start := func(path string, cgroup int) (int, error) {
		c, err := NewChild(path, "/", []string{path, "1000"}, nil, []uintptr{null.Fd(), null.Fd(), null.Fd()})
		if err != nil {
			t.Fatal(err)
		}
		c.Cgroup, c.Filter = cgroup, NewFilter()
		return c.Start()
	}
	if _, err := start("/no/such/program", 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program that is missing: %v", err)
	}
	if _, err := start("/etc/passwd", 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that is no program: %v", err)
	}
	dir := ""
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
			dir = filepath.Join(mount, "kiln-child-"+strconv.Itoa(os.Getpid()))
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("no cgroup v2 here: ", err)
	}
	defer os.Remove(dir)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	pid, err := start("/bin/sleep", fd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}()
	for file, want := range map[string]string{
		filepath.Join(dir, "cgroup.procs"):        strconv.Itoa(pid),
		"/proc/" + strconv.Itoa(pid) + "/status":  "Seccomp:\t2\n",
		"/proc/thread-self/status":                "Seccomp:\t0\n",
		"/proc/" + strconv.Itoa(pid) + "/cmdline": "/bin/sleep\x001000\x00",
	} {
		got, err := os.ReadFile(file)
		// The parent goes on when the memory is the child's own, before its arguments are in it.
		for deadline := time.Now().Add(10 * time.Second); err == nil && len(got) == 0 && time.Now().Before(deadline); {
			got, err = os.ReadFile(file)
		}
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: %q, %v; want %q", file, got, err, want)
		}
	}
}
