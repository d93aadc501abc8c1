package gvisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/cgroup"
	"kiln/internal/sandbox/control"
	"kiln/internal/sandbox/egress"
	"kiln/internal/sandbox/first"
	"kiln/internal/sandbox/gvisor/inside"
	"kiln/internal/sandbox/pid1"
)

const (
	// hostProcesses bounds what gVisor itself needs for the processes inside, which
	// it bounds too: some threads of the host for each.
	hostProcesses = 8 * pid1.MaxProcesses
	bootTimeout   = 30 * time.Second
)

// kernel is a booted gVisor, in which a sandbox can be made.
type kernel struct {
	d     *Driver
	id    string
	dir   string
	cg    *cgroup.Cgroup
	p     *os.Process // the outer process
	outer *control.Control
	inner *control.Control
	link  *egress.Link   // its way out; nil for none
	waits sync.WaitGroup // the readers

	ready chan struct{}       // closed once the inner process serves
	box   atomic.Pointer[box] // whose it is; nil for a spare
}

// cgroup names a kernel's. It is not below the function's: a kernel has its own from
// its start, when nobody knows yet whose it will be.
func (d *Driver) cgroup(id string) *cgroup.Cgroup {
	return d.cgroups.At(filepath.Join("gvisor", id), "kernel")
}

// number tells kernels apart; ids also hold the daemon's process id, because two
// daemons may share a cgroup.
var number atomic.Uint64

var networks = map[string]string{
	sandbox.NetworkNone: inside.NoNetwork, sandbox.NetworkNAT: inside.OwnNetwork, sandbox.NetworkHost: inside.HostNetwork,
}

// boot starts a kernel with that network. On error nothing is left behind.
func (d *Driver) boot(ctx context.Context, st *first.Starter, network string) (_ *kernel, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	k := &kernel{d: d, id: fmt.Sprintf("%d-%d", os.Getpid(), number.Add(1)), ready: make(chan struct{})}
	k.dir, k.cg = filepath.Join(d.runs(), k.id), d.cgroup(k.id)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("boot gVisor: %w", err), k.end())
		}
	}()
	if err := k.makeTree(); err != nil {
		return nil, err
	}
	if err := k.start(st, network); err != nil {
		return nil, err
	}
	if network == sandbox.NetworkNAT { // gVisor takes over the interfaces that it finds
		if k.link, err = d.network.Attach(k.p); err != nil {
			return nil, err
		}
	}
	// Before it starts anything itself: what it starts is born in the cgroup.
	if err := k.cg.Add(k.p.Pid); err != nil {
		return nil, err
	}
	request := append([]string{"boot", networks[network], d.stage(), d.program(), d.root.Dir}, d.root.Binds...)
	if _, err := k.outer.Call(ctx, request...); err != nil {
		return nil, explain(err)
	}
	select {
	case <-k.ready:
		return k, k.spare()
	case <-k.inner.Gone():
		return nil, fmt.Errorf("its first process ended before it was ready: does this program call inside.Init first when its first argument is %s?", inside.InnerArg)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// spare makes what is there now the last that a lack of memory kills: the processes of
// the host that hold those of a function come first. They are forked from a stem that
// itself holds nothing of any file. To protect the others instead would take a
// capability that not every root has.
func (k *kernel) spare() error {
	for _, pid := range k.cg.Procs() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !bytes.Contains(status, []byte("RssFile:\t       0 kB")) {
			continue
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("have gVisor outlive its processes when memory runs out: %w", err)
		}
	}
	return nil
}

// explain adds what to do about the usual reason.
func explain(err error) error {
	if errors.Is(err, control.ErrGone) {
		return fmt.Errorf("its first process ended before it was ready: does this program call inside.Init first when its first argument is %s? (%w)", inside.OuterArg, err)
	}
	return err
}

func (k *kernel) makeTree() error {
	k.d.tree.Lock()
	defer k.d.tree.Unlock()
	if err := os.Mkdir(k.dir, 0o700); err != nil {
		return err
	}
	return k.cg.Make(cgroup.Limits{Processes: hostProcesses})
}

// start starts the outer process, to die with the starter.
func (k *kernel) start(st *first.Starter, network string) error {
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	if network != sandbox.NetworkHost {
		flags |= unix.CLONE_NEWNET
	}
	outer, theirOuter, err := control.Pair()
	if err != nil {
		return err
	}
	defer theirOuter.Close() // or its end would never be seen
	inner, theirInner, err := control.Pair()
	if err != nil {
		_ = outer.Close()
		return err
	}
	defer theirInner.Close()
	k.p, err = st.Start(k.d.cfg.Program, []string{pid1.Name, inside.OuterArg}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{inside.OuterMark + "=1"},
		Files: []*os.File{nil, nil, os.Stderr, theirOuter, theirInner, k.d.runsc}, // stderr: only for a crash
		Sys: &syscall.SysProcAttr{
			Cloneflags: flags,
			Pdeathsig:  syscall.SIGKILL,
			Setsid:     true, // the terminal's Ctrl-C is the daemon's
		},
	})
	if err != nil {
		_ = outer.Close()
		_ = inner.Close()
		return fmt.Errorf("start its first process: %w", err)
	}
	k.outer, k.inner = k.speak(outer, func([]string) {}), k.speak(inner, k.event)
	return nil
}

func (k *kernel) speak(conn *net.UnixConn, event func([]string)) *control.Control {
	c := control.New(conn, event)
	k.waits.Go(c.Read)
	return c
}

// event is what the inner process tells.
func (k *kernel) event(fields []string) {
	if fields[0] == "ready" {
		close(k.ready)
		return
	}
	if b := k.box.Load(); b != nil {
		b.event(fields)
	}
}

// kill ends everything of the kernel. Frozen processes die once they are thawed.
func (k *kernel) kill() {
	if k.p != nil {
		_ = k.p.Kill()
	}
}

// end undoes boot: it returns when the kernel has ended every process of the
// namespace, and with the last its mounts.
func (k *kernel) end() error {
	if k.p != nil {
		k.kill()
		_, _ = k.p.Wait()
		k.outer.Close()
		k.inner.Close()
		k.waits.Wait()
	}
	left := k.link.Close()
	k.d.tree.Lock()
	defer k.d.tree.Unlock()
	err := errors.Join(k.cg.Remove(context.Background()), os.Remove(k.dir))
	k.cg.RemoveParents()
	if errors.Is(err, os.ErrNotExist) {
		err = nil // not made yet
	}
	return errors.Join(err, left)
}

// spareDelay is how long after a spare was taken the next is booted: booting one
// takes 100 ms of a processor, which the function that begins now needs more.
const spareDelay = 200 * time.Millisecond
