package sandboxtest

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// State is what a test may leave behind: children of this process, mounts, loop devices,
// cgroups, network namespaces, descriptors.
type State struct {
	what       map[string][]string
	goroutines goleak.Option
}

// Snapshot notes what there is before a test. Tests that use it do not run in
// parallel with others of their process.
func Snapshot(t testing.TB) State {
	t.Helper()
	return State{look(), goleak.IgnoreCurrent()}
}

// Unchanged fails the test for everything that is there now and was not before.
// The kernel frees some of it a moment later, hence the patience.
func (s State) Unchanged(t testing.TB) {
	t.Helper()
	var extra []string
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		extra = nil
		for kind, now := range look() {
			for _, x := range now {
				if !slices.Contains(s.what[kind], x) {
					extra = append(extra, kind+" "+x)
				}
			}
		}
		if len(extra) == 0 || time.Now().After(deadline) {
			break
		}
	}
	for _, x := range extra {
		t.Errorf("left behind: %s", x)
	}
	if err := goleak.Find(s.goroutines); err != nil {
		t.Errorf("left behind: %v", err)
	}
}

// look lists what there is, on systems with /proc.
func look() map[string][]string {
	s := map[string][]string{}
	self := strconv.Itoa(os.Getpid())
	add := func(kind, x string) {
		if !slices.Contains(s[kind], x) {
			s[kind] = append(s[kind], x)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		stat, err := os.ReadFile(p + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		env, _ := os.ReadFile(p + "/environ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == self || strings.Contains(string(env), "KILN_SANDBOX="+ID("")) {
			add("process", string(stat[:min(len(stat), 40)]))
			if ns, err := os.Readlink(p + "/ns/net"); err == nil {
				add("network namespace", ns)
			}
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for l := range strings.Lines(string(mounts)) {
		if !strings.Contains(l, " kiln-test ") { // disks of other tests at the same time
			add("mount", strings.TrimSpace(l))
		}
	}
	cgroups, _ := filepath.Glob("/sys/fs/cgroup/*/kiln/000000000000/*/conformance/*")
	more, _ := filepath.Glob("/sys/fs/cgroup/kiln/000000000000/*/conformance/*")
	for _, c := range append(cgroups, more...) {
		if st, err := os.Stat(c); err == nil && st.IsDir() && strings.HasPrefix(filepath.Base(c), ID("")) {
			add("cgroup", c)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/kiln/gvisor/" + self + "-*", "/sys/fs/cgroup/kiln/gvisor/" + self + "-*"} {
		kernels, _ := filepath.Glob(pattern)
		for _, k := range kernels {
			add("cgroup", k)
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		if file, err := os.ReadFile(l); err == nil && strings.Contains(string(file), "/scratch-"+self+"-") {
			add("loop device", l)
		}
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || strings.HasPrefix(to, "/proc/") || strings.HasPrefix(to, "anon_inode:[event") {
			continue // the listing itself; the runtime's poller
		}
		add("descriptor", fd.Name()+" "+to)
	}
	return s
}
