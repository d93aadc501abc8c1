package cgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestCgroupMounts(t *testing.T) {
	v1, v2 := cgroupMounts("proc /proc proc rw 0 0\n" +
		"cgroup /sys/fs/cgroup/memory cgroup rw,nosuid,memory 0 0\n" +
		"cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n" +
		"cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n")
	if v1["memory"] != "/sys/fs/cgroup/memory" || v1["cpuacct"] != "/sys/fs/cgroup/cpu,cpuacct" || v1["pids"] != "" || v2 != "/sys/fs/cgroup/unified" {
		t.Errorf("got %v, %q", v1, v2)
	}
}

// fakeV2 is a directory tree that looks like cgroup v2. The files of a new
// cgroup are not made by mkdir here, so the tests make them beforehand.
func fakeV2(t *testing.T, dirs ...string) string {
	t.Helper()
	top := t.TempDir()
	for _, d := range append([]string{""}, dirs...) {
		dir := filepath.Join(top, d)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for f, text := range map[string]string{
			"cgroup.controllers": "cpu memory pids\n", "cgroup.subtree_control": "", "cgroup.procs": "",
		} {
			if err := os.WriteFile(filepath.Join(dir, f), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return top
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The fake files keep only the last write, where the kernel would add up.
func TestFindV2(t *testing.T) {
	t.Run("top", func(t *testing.T) {
		top := fakeV2(t, "user.slice", "kiln")
		if err := os.WriteFile(filepath.Join(top, "user.slice/cgroup.procs"), []byte("1\n2\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		h, missing := find("cgroup2 "+top+" cgroup2 rw 0 0\n", "0::/user.slice\n", "kiln")
		want := Hierarchy{v2: true, freezer: top + "/kiln"}
		if diff := cmp.Diff(want, h, cmp.AllowUnexported(Hierarchy{})); diff != "" || len(missing) != 3 {
			t.Errorf("%s, missing %q", diff, missing) // +pids is no list of what is on
		}
		if got := read(t, top, "cgroup.subtree_control"); got != "+pids" {
			t.Errorf("the top passes on %q", got)
		}
	})
	t.Run("delegated", func(t *testing.T) {
		top := fakeV2(t, "kiln.service", "kiln.service/daemon", "kiln.service/kiln")
		self := strconv.Itoa(os.Getpid())
		if err := os.WriteFile(filepath.Join(top, "kiln.service/cgroup.procs"), []byte(self+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		h, _ := find("cgroup2 "+top+" cgroup2 rw 0 0\n", "0::/kiln.service\n", "kiln")
		if want := top + "/kiln.service/kiln"; h.freezer != want {
			t.Errorf("chose %q, want %q", h.freezer, want)
		}
		if got := read(t, top, "kiln.service/daemon/cgroup.procs"); got != self {
			t.Errorf("moved %q into the leaf", got)
		}
		if got := read(t, top, "cgroup.subtree_control"); got != "" {
			t.Errorf("the top was changed: %q", got)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		h, missing := find("proc /proc proc rw 0 0\n", "0::/\n", "kiln")
		if len(h.dirs()) != 0 || len(missing) != 4 {
			t.Errorf("found %+v, missing %q", h, missing)
		}
	})
	t.Run("not writable", func(t *testing.T) {
		h, missing := find("cgroup2 /proc/self cgroup2 rw 0 0\n", "0::/\n", "kiln")
		if len(h.dirs()) != 0 || len(missing) != 1 || !strings.Contains(missing[0], "Delegate=yes") {
			t.Errorf("found %+v, missing %q", h, missing)
		}
	})
}

func TestCgroupLimits(t *testing.T) {
	t.Run("v2", func(t *testing.T) {
		top := fakeV2(t, "kiln", "kiln/a/r/_tasks/one")
		dir := filepath.Join(top, "kiln/a/r/_tasks/one")
		h := Hierarchy{v2: true, memory: top + "/kiln", pids: top + "/kiln", freezer: top + "/kiln", cpu: top + "/kiln"}
		c := h.At("a/r/tasks", "one")
		if diff := cmp.Diff([]string{dir}, c.dirs()); diff != "" {
			t.Fatal(diff)
		}
		if err := c.Make(Limits{64 << 20, 1024, 72}); !errors.Is(err, os.ErrExist) {
			t.Fatalf("an existing cgroup is taken: %v", err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := c.Make(Limits{64 << 20, 1024, 72}); err != nil {
			t.Fatal(err)
		}
		for file, want := range map[string]string{"memory.max": "67108864", "memory.swap.max": "0", "pids.max": "1024", "cpu.weight": "7", "../cpu.weight": "7"} {
			if got := read(t, dir, file); got != want {
				t.Errorf("%s: %q, want %q", file, got, want)
			}
		}
		if err := c.LimitCPU(72); err != nil || read(t, dir, "cpu.max") != "1440 20000" {
			t.Errorf("cpu.max: %q, %v", read(t, dir, "cpu.max"), err)
		}
		for file, text := range map[string]string{
			"memory.stat":   "anon 1000\nfile 5000\nshmem 20\nanon_thp 7\n",
			"memory.peak":   "9999\n",
			"memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\noom_group_kill 0\n",
			"cgroup.procs":  "12\n13\n",
			"cgroup.events": "populated 1\nfrozen 1\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		m := NewMeter(c, 0)
		defer m.Close()
		if u, err := m.Read(); u.CurrentBytes != 1020 || u.PeakBytes > 9999 || err != nil {
			t.Errorf("usage %+v, %v", u, err)
		}
		if n := c.OOMKills(); n != 2 {
			t.Errorf("%d oom kills", n)
		}
		if diff := cmp.Diff([]int{12, 13}, c.Procs()); diff != "" {
			t.Error(diff)
		}
		if err := c.Freeze(context.Background(), true); err != nil || read(t, dir, "cgroup.freeze") != "1" {
			t.Errorf("freeze: %v", err)
		}
		if tasks, into := c.Entrances(); tasks != nil || into != dir {
			t.Errorf("entrances %q %q", tasks, into)
		}
	})
	t.Run("v1 processors", func(t *testing.T) {
		c := Hierarchy{cpu: t.TempDir()}.At("a/r/f", "one")
		if err := errors.Join(c.Make(Limits{MilliCPU: 5788}), c.LimitCPU(5788)); err != nil {
			t.Fatal(err)
		}
		for file, want := range map[string]string{"cpu.shares": "5926", "../cpu.shares": "5926", "cpu.cfs_quota_us": "115760", "cpu.cfs_period_us": "20000"} {
			if got := read(t, c.cpu, file); got != want {
				t.Errorf("%s: %q, want %q", file, got, want)
			}
		}
		if err := (Hierarchy{}).At("a/r/f", "one").LimitCPU(1000); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("without the controller: %v", err)
		}
	})
	t.Run("v1 parsing", func(t *testing.T) {
		if got := anonymous([]byte("cache 1\nrss 2\ntotal_cache 100\ntotal_rss 30\ntotal_rss_huge 9\ntotal_shmem 4\n"), false); got != 34 {
			t.Errorf("anonymous: %d", got)
		}
	})
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"000000000000/us-east-1/hello": "000000000000/us-east-1/hello",
		"a/r/tasks":                    "a/r/_tasks",
		"a/r/notify_on_release":        "a/r/_notify_on_release",
		"a/r/cgroup.procs":             "a/r/_cgroup.procs",
		"a/r/_tasks":                   "a/r/__tasks",
	} {
		if got := escape(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// TestV2Freezer tries the mechanics of cgroup v2 that need no controller, where
// it is mounted beside v1: cloning into a cgroup, freezing, killing.
func TestV2Freezer(t *testing.T) {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	_, v2 := cgroupMounts(string(mounts))
	if v2 == "" {
		t.Skip("no cgroup v2 here")
	}
	top := filepath.Join(v2, "kiln-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Skip(err)
	}
	defer os.Remove(top)
	c := Hierarchy{v2: true, freezer: top}.At("a/r/f", "one")
	if err := c.Make(Limits{MemoryBytes: 1 << 30, Processes: 1024}); err != nil {
		t.Fatal(err)
	}
	_, into := c.Entrances()
	fd, err := unix.Open(into, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{cmd.Process.Pid}, c.Procs()); diff != "" {
		t.Error(diff)
	}
	if err := c.Freeze(t.Context(), true); err != nil {
		t.Error(err)
	}
	if err := c.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if err := c.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	c.RemoveParents()
	if err := os.Remove(top); err != nil {
		t.Error(err)
	}
}
