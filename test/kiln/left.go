package kiln

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// leftPatience bounds the wait for the kernel to free what died.
const leftPatience = 10 * time.Second

// Account returns an account id that no other daemon of this machine has. What a
// daemon with an account of its own makes can be told from everybody else's.
func Account() string { return fmt.Sprintf("%012d", 1+rand.Int64N(999_999_999_999)) }

// Living are what a daemon has outside of its data directory, each as one line.
// All of it dies with the daemon.
type Living struct {
	Processes []string // of functions, without the daemon's own
	Mounts    []string // that this test's processes see
	Loops     []string // devices, of files in its data directory
	Sockets   []string
}

// All is everything in one list.
func (l Living) All() []string { return slices.Concat(l.Processes, l.Mounts, l.Loops, l.Sockets) }

// Living looks for what belongs to the daemon: the processes in whose mount
// namespace its data directory appears, or that are in a cgroup of its account.
// It looks at /proc, and finds nothing on systems without one.
func (d *Daemon) Living() (l Living) {
	cgroup := "/kiln/" + d.account() + "/"
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		if filepath.Base(p) == strconv.Itoa(d.Pid()) {
			continue
		}
		mounts, _ := os.ReadFile(p + "/mountinfo")
		cgroups, _ := os.ReadFile(p + "/cgroup")
		environ, _ := os.ReadFile(p + "/environ") // all that tells with the process driver
		if !strings.Contains(string(mounts), d.Data) && !strings.Contains(string(cgroups), cgroup) && !strings.Contains(string(environ), d.Data) {
			continue
		}
		command, _ := os.ReadFile(p + "/cmdline")
		name := strings.ReplaceAll(strings.TrimRight(string(command), "\x00"), "\x00", " ")
		if name == "" {
			continue // it is gone, or waits for its parent to notice
		}
		l.Processes = append(l.Processes, "process "+filepath.Base(p)+" "+name)
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, device := range loops {
		if file, _ := os.ReadFile(device); strings.Contains(string(file), d.Data) {
			l.Loops = append(l.Loops, device+": "+strings.TrimSpace(string(file)))
		}
	}
	for what, to := range map[string]*[]string{"/proc/self/mountinfo": &l.Mounts, "/proc/net/unix": &l.Sockets} {
		text, _ := os.ReadFile(what)
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, d.Data) {
				*to = append(*to, what+": "+strings.TrimSpace(line))
			}
		}
	}
	return l
}

// Cgroups lists those of the daemon's account that hold a sandbox. They outlive
// a killed daemon, until it starts again.
func (d *Daemon) Cgroups() (list []string) {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/kiln/" + d.account())
	for _, root := range append(roots, "/sys/fs/cgroup/kiln/"+d.account()) {
		_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				list = append(list, path)
			}
			return nil
		})
	}
	return list
}

// account is what --account says.
func (d *Daemon) account() string {
	if i := slices.Index(d.args, "--account"); i >= 0 {
		return d.args[i+1]
	}
	return "000000000000"
}

// NothingLives fails the test for everything that a daemon which ended has left.
func (d *Daemon) NothingLives() {
	d.t.Helper()
	select {
	case <-d.done:
	default:
		d.t.Error("the daemon lives")
		return
	}
	Eventually(d.t, leftPatience, func() error {
		if left := d.Living().All(); len(left) > 0 {
			return fmt.Errorf("the daemon left:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
}

// NothingLeft is NothingLives for a daemon that ended in order: its cgroups and
// its sandboxes' directories are gone as well.
func (d *Daemon) NothingLeft() {
	d.t.Helper()
	d.NothingLives()
	left := d.Cgroups()
	for _, pattern := range []string{"run/sandboxes/linux/run/*", "run/sandboxes/process/*/*"} {
		found, _ := filepath.Glob(filepath.Join(d.Data, pattern))
		left = append(left, found...)
	}
	if len(left) > 0 {
		d.t.Errorf("the daemon left:\n%s", strings.Join(left, "\n"))
	}
}

// Eventually asks until there is no error, and fails the test with the last one
// when the patience is over. It is for what has no other way to be waited for.
func Eventually(t testing.TB, patience time.Duration, ask func() error) {
	t.Helper()
	const pause = 10 * time.Millisecond
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("after %v: %v", patience, err)
			return
		}
	}
}
