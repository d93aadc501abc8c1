package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/cgroup"
	"kiln/internal/sandbox/first"
	"kiln/internal/sandbox/linux/seal"
	"kiln/internal/sandbox/pid1"
	"kiln/internal/sandbox/program"
	"kiln/internal/sandbox/sandboxtest"
)

// BenchmarkSealing measures what each step of sealing a process costs, in turn with
// the bare start of one, and prints a table of medians for `make bench`.
func BenchmarkSealing(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root for some of the steps")
	}
	small, err := program.File()
	if err != nil {
		b.Fatal(err)
	}
	d, err := New(Config{Dir: filepath.Join(sandboxtest.Dir(b), "sandboxes"), Program: small})
	if err != nil {
		b.Skip(err)
	}
	defer d.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	files := func() []uintptr { return []uintptr{null.Fd(), null.Fd(), null.Fd()} }
	reap := func(pid int, err error) error {
		if err == nil {
			_, err = unix.Wait4(pid, nil, 0, nil)
		}
		return err
	}
	own := func(filter *unix.SockFprog) func(int) error {
		return func(int) error {
			c, err := seal.NewChild("/bin/true", "/", []string{"true"}, nil, files())
			if err != nil {
				return err
			}
			c.Filter = filter
			return reap(c.Start())
		}
	}
	within := func(flags uintptr) func(int) error {
		return func(int) error {
			return reap(syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{Files: files(), Sys: &syscall.SysProcAttr{Cloneflags: flags}}))
		}
	}
	const spaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	const group = "000000000000/us-east-1/benchmark"
	steps := []struct {
		name, less string // less: the step that is part of this one
		run        func(i int) error
	}{
		{"bare start", "", within(0)},
		{"the same by init's own fork", "bare start", own(nil)},
		{"filter of system calls", "the same by init's own fork", own(seal.NewFilter())},
		{"mount, process, ipc and host name spaces", "bare start", within(spaces)},
		{"network namespace", "mount, process, ipc and host name spaces", within(spaces | unix.CLONE_NEWNET)},
		{"landlock", "", func(int) error { return lockOnce() }},
		{"cgroups with limits", "", func(i int) error {
			c := d.cgroups.At(group, fmt.Sprintf("c-%d", i))
			return errors.Join(c.Make(cgroup.Limits{MemoryBytes: 128 << 20, Processes: pid1.MaxProcesses, MilliCPU: 72}), c.Remove(b.Context()))
		}},
		{"/tmp with a limit", "", func(int) error {
			f, err := d.scratch.Make(512 << 20)
			if err == nil {
				f.Close()
			}
			return err
		}},
		{"a sandbox, until its process ended", "", func(i int) error {
			s, err := d.Create(b.Context(), sandbox.Spec{
				ID: fmt.Sprintf("b-%d", i), Group: group, Task: "/usr", MemoryBytes: 128 << 20, TmpBytes: 512 << 20, MilliCPU: 72,
			})
			if err != nil {
				return err
			}
			defer func() { _ = s.Destroy(b.Context()) }()
			p, err := s.Exec(b.Context(), sandbox.Command{Path: "/bin/true", Args: []string{"true"}, Dir: "/", Stdout: null, Stderr: null})
			if err == nil {
				<-p.Done()
			}
			return err
		}},
	}
	took := map[string][]time.Duration{}
	for i := 0; b.Loop(); i++ {
		for _, s := range steps {
			began := time.Now()
			if err := s.run(i); err != nil {
				b.Fatalf("%s: %v", s.name, err)
			}
			took[s.name] = append(took[s.name], time.Since(began))
		}
	}
	median := func(name string) float64 {
		d := took[name]
		if len(d) == 0 {
			return 0
		}
		slices.Sort(d)
		return float64(d[len(d)/2].Microseconds())
	}
	bare := median("bare start")
	fmt.Printf("\n## What sealing costs, %d times\n\n| step | p50 µs | ÷ bare start of a process |\n|---|---|---|\n", b.N)
	for _, s := range steps {
		cost := median(s.name) - median(s.less)
		fmt.Printf("| %s | %.0f | %.2f |\n", s.name, cost, cost/bare)
	}
}

// lockOnce locks a thread that ends with it.
func lockOnce() error {
	t, err := first.NewThread(func() error {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		return seal.Lock(seal.LockVersion())
	})
	if err == nil {
		t.Close()
	}
	return err
}
