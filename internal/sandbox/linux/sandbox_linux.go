package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
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
	"kiln/internal/sandbox/linux/inside"
	"kiln/internal/sandbox/pid1"
	"kiln/internal/sandbox/scratch"
	"kiln/internal/sandbox/skeleton"
)

var (
	errDestroyed = errors.New("the sandbox is destroyed")
	errFrozen    = errors.New("the sandbox is frozen: thaw it first")
)

// box is one sandbox. It is made by make, lives while its init does, and is
// undone by Destroy in the reverse order:
//
//	uid → directory → cgroup → control socket → init → root entered (ready)
type box struct {
	d    *Driver
	spec sandbox.Spec
	dir  string // its /tmp, where that has no file system of its own
	cg   *cgroup.Cgroup
	uid  int // of the functions

	starter    *first.Starter
	spares     *first.Pool[firstProcess]
	visitor    *first.Thread
	prepared   bool // made by Prepare
	unassigned bool // guarded by lifecycle; it is nobody's yet
	ownUID     bool
	link       *egress.Link // its way out; nil for none
	initPID    int
	control    *control.Control
	init       *os.Process
	waits      sync.WaitGroup // the control reader, the wait for init, the listener's helpers
	closing    atomic.Bool
	frozen     atomic.Bool

	// lifecycle is held for reading by Exec and Usage, so that neither sees
	// init's child before its exec with init's memory, and for writing by KillAll,
	// Freeze and Thaw.
	lifecycle sync.RWMutex
	execs     sync.Mutex    // one Exec or Usage at a time
	meter     *cgroup.Meter // guarded by execs; nil until Usage is asked

	mu        sync.Mutex
	listeners []net.Listener // guarded by mu
	procs     map[int]*proc  // guarded by mu; living, by pid inside
	peak      int64          // guarded by mu

	once      sync.Once
	destroyed chan struct{} // closed once err is final
	err       error
}

func newBox(d *Driver, spec sandbox.Spec) *box {
	return &box{
		d: d, spec: spec,
		dir:       d.runDir(spec),
		cg:        d.cgroups.At(spec.Group, spec.ID),
		uid:       rootlessUID,
		procs:     map[int]*proc{},
		destroyed: make(chan struct{}),
	}
}

// make builds the sandbox. What it made before an error is undone by Destroy.
func (b *box) make(ctx context.Context) error {
	if b.d.uids != nil {
		uid, err := b.d.uids.Take()
		if err != nil {
			return err
		}
		b.uid, b.ownUID = uid, true
	}
	if err := errors.Join(b.describeUser(), b.makeTree()); err != nil {
		return err
	}
	if f := b.spare(); f != nil {
		err := b.enter(ctx, f)
		if !errors.Is(err, control.ErrGone) {
			return err
		}
		// Somebody killed the spare while it waited: start another.
		b.leave()
		if err := b.link.Close(); err != nil {
			return err
		}
		b.link = nil
	}
	f, err := b.d.startFirst(b.starter, b.d.network.Of(b.spec))
	if err != nil {
		return err
	}
	if err := b.enter(ctx, f); errors.Is(err, control.ErrGone) {
		return fmt.Errorf("its first process ended before it was ready: does this program call inside.Init first when its first argument is %s?", inside.Arg)
	} else if err != nil {
		return err
	}
	return nil
}

// spare is a first process that waits and fits, or nil. One that is prepared in time
// leaves them to those that are needed now.
func (b *box) spare() *firstProcess {
	own, theirs := b.d.network.Of(b.spec), b.d.network.Mode
	fits := own == theirs || own == sandbox.NetworkNAT && theirs == sandbox.NetworkNone
	if b.prepared || !fits {
		return nil
	}
	return b.spares.Take()
}

// describeUser makes the sandbox's own /etc/passwd and /etc/group.
func (b *box) describeUser() error {
	if b.spec.Root == "" {
		return b.d.users.Describe(b.uid)
	}
	return b.d.users.DescribeIn(b.spec.Root, b.userName(), b.uid)
}

// userName is what its user files are kept under, where they are its own.
func (b *box) userName() string { return "box-" + b.spec.ID }

// enter makes f the sandbox's first process and has it set up.
func (b *box) enter(ctx context.Context, f *firstProcess) error {
	b.init, b.initPID = f.p, f.p.Pid
	b.control = control.New(f.conn, b.exited)
	b.waits.Go(b.watch)
	b.link = f.link
	tmp, err := b.tmp(f.tmp)
	if err != nil {
		return err
	}
	defer tmp.Close() // init has its own
	out := make(chan error, 1)
	b.waits.Go(func() { out <- b.leadOut(b.spec, !b.prepared) })
	_, err = b.control.CallWith(ctx, tmp.Files(), b.setup(tmp)...)
	if led := <-out; err == nil {
		err = led
	}
	return err
}

// tmp is the file system for /tmp, the spare one if it fits; nil where /tmp is the
// sandbox's directory.
func (b *box) tmp(spare *scratch.FileSystem) (*scratch.FileSystem, error) {
	bounded := b.d.scratch != nil && b.spec.TmpBytes > 0
	if bounded && spare != nil && spare.Bytes == b.spec.TmpBytes {
		return spare, nil
	}
	spare.Close()
	if !bounded {
		return nil, nil
	}
	return b.d.scratch.Make(b.spec.TmpBytes)
}

// leave ends the first process and everything below it. It returns when the
// kernel has ended every process of the namespace, and with the last its mounts.
func (b *box) leave() {
	if b.init == nil {
		return
	}
	// Killed first and thawed then, or its processes would run once more. The
	// kill also ends an Exec or KillAll that waits for an answer under the lock;
	// a Freeze under way ends by itself, and without the lock would outlive the thaw.
	_ = b.init.Kill()
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	if b.frozen.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), cgroup.Timeout)
		defer cancel()
		_ = b.cg.Freeze(ctx, false)
	}
	_, _ = b.init.Wait()
	b.control.Close()
	b.waits.Wait()
}

// makeTree makes the sandbox's directory, which is its /tmp, and its cgroup.
// Nobody but the daemon reaches the directory on the host, so its mode may be
// that of a /tmp.
func (b *box) makeTree() error {
	b.d.tree.Lock()
	defer b.d.tree.Unlock()
	if err := os.MkdirAll(filepath.Dir(b.dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o777|os.ModeSticky); err != nil {
		return err
	}
	return b.cg.Make(limits(b.spec))
}

func limits(s sandbox.Spec) cgroup.Limits {
	return cgroup.Limits{MemoryBytes: s.MemoryBytes, Processes: pid1.MaxProcesses, MilliCPU: s.MilliCPU}
}

// setup is init's first request; tmp goes along with it.
func (b *box) setup(tmp *scratch.FileSystem) []string {
	s := []string{"setup", "root=" + b.d.root.Dir, "uid=" + strconv.Itoa(b.uid)}
	if b.ownUID {
		s = append(s, "setuid=")
	} else {
		s = append(s, "static=")
		for _, p := range b.d.root.Binds {
			s = append(s, "static="+p)
		}
	}
	users := strconv.Itoa(b.uid)
	binds := []skeleton.BindMount{
		{Src: b.spec.Task, Dst: skeleton.TaskDir, Mode: skeleton.ReadOnly},
		{Src: b.spec.Opt, Dst: skeleton.OptDir, Mode: skeleton.ReadOnly},
		{Src: b.spec.Runtime, Dst: skeleton.RuntimeDir, Mode: skeleton.ReadOnly},
		{Src: b.spec.Lang, Dst: skeleton.LangDir, Mode: skeleton.ReadOnly},
	}
	if tmp == nil {
		binds = append(binds, skeleton.BindMount{Src: b.dir, Dst: skeleton.TmpDir, Mode: skeleton.ReadWrite})
	} else {
		s = append(s, "tmp=")
	}
	if b.spec.Root != "" {
		users = b.userName()
		s = append(s, "image="+b.spec.Root)
		for _, own := range []string{"/dev", "/etc/hosts", "/etc/hostname", egress.ResolvConf} {
			binds = append(binds, skeleton.BindMount{Src: b.d.root.Dir + own, Dst: own, Mode: skeleton.AsItIs})
		}
	}
	if b.d.network.Of(b.spec) == sandbox.NetworkHost && b.d.network.Mode != sandbox.NetworkHost {
		binds = append(binds, skeleton.BindMount{Src: b.d.network.HostResolvConf(), Dst: egress.ResolvConf, Mode: skeleton.ReadOnly})
	}
	for _, file := range skeleton.UserFiles {
		binds = append(binds, skeleton.BindMount{Src: b.d.users.File(users, file), Dst: "/etc/" + file, Mode: skeleton.ReadOnly})
	}
	for _, m := range binds {
		if m.Src != "" {
			s = append(s, m.String())
		}
	}
	tasks, into := b.cg.Entrances()
	for _, t := range tasks {
		s = append(s, "tasks="+t)
	}
	if into != "" {
		s = append(s, "cgroup="+into)
	}
	if b.d.network.Of(b.spec) != sandbox.NetworkHost {
		s = append(s, "loopback=up")
	}
	return s
}

// watch serves init's messages until its end, which ends every process.
func (b *box) watch() {
	b.control.Read()
	b.mu.Lock()
	left := b.procs
	b.procs = map[int]*proc{}
	b.mu.Unlock()
	for _, p := range left {
		p.end(sandbox.Exit{Signal: syscall.SIGKILL, OOM: b.cg.OOMKills() > p.oomBefore})
	}
}

// exited is the news of a process's end.
func (b *box) exited(fields []string) {
	pid, status, ok := control.ParseExit(fields)
	if !ok {
		return
	}
	b.mu.Lock()
	p := b.procs[pid]
	delete(b.procs, pid)
	b.mu.Unlock()
	if p == nil {
		return
	}
	e := sandbox.Exit{OOM: b.cg.OOMKills() > p.oomBefore}
	if status.Signaled() {
		e.Signal = status.Signal()
	} else {
		e.Code = status.ExitStatus()
	}
	p.end(e)
}

// Paths implements sandbox.Sandbox.
func (b *box) Paths() sandbox.Paths { return paths }

// Listen implements sandbox.Sandbox. Init opens the socket and passes it out,
// which works for an unprivileged daemon too; entering the namespace would not.
func (b *box) Listen(ctx context.Context, port int) (net.Listener, error) {
	var l net.Listener
	if b.d.network.Of(b.spec) == sandbox.NetworkHost {
		var err error
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0"); err != nil {
			return nil, err
		}
	} else {
		if err := b.usable(); err != nil {
			return nil, err
		}
		f, err := b.control.Call(ctx, "listen", strconv.Itoa(port))
		if err != nil {
			return nil, b.wrap(err)
		}
		if f == nil {
			return nil, b.wrap(errors.New("init sent no listener"))
		}
		l, err = net.FileListener(f)
		_ = f.Close() // FileListener duplicated it
		if err != nil {
			return nil, b.wrap(err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing.Load() {
		_ = l.Close()
		return nil, errDestroyed
	}
	b.listeners = append(b.listeners, l)
	return l, nil
}

// Dial implements sandbox.Sandbox. Init makes the socket, which belongs to its
// network namespace, and the daemon connects it: what a function lets wait never
// holds up init.
func (b *box) Dial(ctx context.Context, port int) (net.Conn, error) {
	if err := b.usable(); err != nil {
		return nil, err
	}
	if b.d.network.Of(b.spec) == sandbox.NetworkHost {
		return (&net.Dialer{}).DialContext(ctx, "tcp4", sandbox.Loopback(port))
	}
	f, err := b.control.Call(ctx, "socket")
	if err != nil {
		return nil, b.wrap(err)
	}
	if f == nil {
		return nil, b.wrap(errors.New("init sent no socket"))
	}
	defer f.Close() // FileConn duplicates it
	if err := connect(ctx, f, port); err != nil {
		return nil, b.wrap(fmt.Errorf("connect to %s: %w", sandbox.Loopback(port), err))
	}
	return net.FileConn(f)
}

// connect connects a socket that does not block, and waits until it is.
func connect(ctx context.Context, f *os.File, port int) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) }) // wakes the wait below
	defer stop()
	begun := false
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			failed = unix.Connect(int(fd), &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
			return !errors.Is(failed, unix.EINPROGRESS)
		}
		var code int
		if code, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); failed == nil && code != 0 {
			failed = unix.Errno(code)
		}
		return true
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return errors.Join(err, failed)
}

func (b *box) wrap(err error) error {
	if b.closing.Load() {
		return errDestroyed
	}
	return fmt.Errorf("sandbox %s: %w", b.spec.ID, err)
}

// usable says why init would not answer.
func (b *box) usable() error {
	if b.closing.Load() {
		return errDestroyed
	}
	if b.frozen.Load() {
		return errFrozen
	}
	return nil
}

// Exec implements sandbox.Sandbox.
func (b *box) Exec(ctx context.Context, cmd sandbox.Command) (sandbox.Process, error) {
	b.lifecycle.RLock()
	defer b.lifecycle.RUnlock()
	b.execs.Lock()
	defer b.execs.Unlock()
	if err := errors.Join(ctx.Err(), b.usable()); err != nil {
		return nil, err
	}
	if b.ownUID {
		if err := sandbox.GiveOutputs(cmd, b.uid); err != nil {
			return nil, b.wrap(err)
		}
	}
	request := append([]string{"exec", cmd.Path, cmd.Dir, strconv.Itoa(len(cmd.Args))}, cmd.Args...)
	request = append(request, cmd.Env...)
	files := []*os.File{cmd.Stdout, cmd.Stderr}
	if cmd.Telemetry != nil {
		files = append(files, cmd.Telemetry)
	}
	p := &proc{b: b, oomBefore: b.cg.OOMKills(), done: make(chan struct{})}
	started := make(chan error, 1)
	// The reader knows the process before it can read of its end.
	err := b.control.Send(request, files, func(a control.Answer, _ *os.File) {
		if a.Err == nil {
			if p.pid, a.Err = strconv.Atoi(a.Fields[0]); a.Err == nil {
				b.mu.Lock()
				b.procs[p.pid] = p
				b.mu.Unlock()
			}
		}
		started <- a.Err
	})
	if err != nil {
		return nil, b.wrap(err)
	}
	// Not cut short by ctx: init answers, or ends, within a fork and an exec,
	// and a process that nobody waits for would be worse.
	if err := <-started; err != nil {
		return nil, b.wrap(err)
	}
	return p, nil
}

// KillAll implements sandbox.Sandbox.
func (b *box) KillAll(ctx context.Context) error {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	if err := b.usable(); err != nil {
		return err
	}
	if _, err := b.control.Call(ctx, "killall"); err != nil {
		return b.wrap(err)
	}
	return nil
}

// Usage implements sandbox.Sandbox. The peak is the highest of what was read and
// of the processes' own high-water marks.
func (b *box) Usage(ctx context.Context) (sandbox.Usage, error) {
	b.lifecycle.RLock()
	defer b.lifecycle.RUnlock()
	b.execs.Lock()
	defer b.execs.Unlock()
	if b.closing.Load() {
		return sandbox.Usage{}, errDestroyed
	}
	if err := ctx.Err(); err != nil {
		return sandbox.Usage{}, err
	}
	if b.meter == nil {
		b.meter = cgroup.NewMeter(b.cg, b.initPID)
	}
	u, err := b.meter.Read()
	if err != nil {
		return sandbox.Usage{}, b.wrap(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peak = max(b.peak, u.PeakBytes, u.CurrentBytes)
	u.PeakBytes = b.peak
	return u, nil
}

// Freeze implements sandbox.Freezer.
func (b *box) Freeze(ctx context.Context) error {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	if b.closing.Load() {
		return errDestroyed
	}
	b.frozen.Store(true)
	if err := b.cg.Freeze(ctx, true); err != nil {
		_ = b.cg.Freeze(context.WithoutCancel(ctx), false)
		b.frozen.Store(false)
		return b.wrap(err)
	}
	return nil
}

// Thaw implements sandbox.Freezer.
func (b *box) Thaw(ctx context.Context) error {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	if b.closing.Load() {
		return errDestroyed
	}
	if err := b.cg.Freeze(ctx, false); err != nil {
		return b.wrap(err)
	}
	b.frozen.Store(false)
	return nil
}

// LimitCPU implements sandbox.Limiter.
func (b *box) LimitCPU() error {
	b.lifecycle.RLock()
	defer b.lifecycle.RUnlock()
	if b.closing.Load() {
		return errDestroyed
	}
	if b.spec.MilliCPU == 0 {
		return nil
	}
	return b.cg.LimitCPU(b.spec.MilliCPU)
}

// Destroy implements sandbox.Sandbox. The work goes on when ctx ends.
func (b *box) Destroy(ctx context.Context) error {
	b.once.Do(func() {
		b.mu.Lock()
		b.closing.Store(true)
		b.mu.Unlock()
		go func() { // waited for by every Destroy, and by Close
			defer close(b.destroyed)
			b.err = b.destroy()
			b.d.forget(b)
		}()
	})
	select {
	case <-b.destroyed:
		return b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// destroy undoes make. Nothing else is under way: Exec and Listen fail.
func (b *box) destroy() error {
	b.mu.Lock()
	for _, l := range b.listeners {
		_ = l.Close()
	}
	b.listeners = nil
	b.mu.Unlock()

	b.leave()
	if b.meter != nil {
		b.meter.Close()
	}
	err := b.cg.Remove(context.Background())
	err = errors.Join(err, sandbox.RemoveTree(b.dir), b.link.Close())
	if b.spec.Root != "" {
		b.d.users.Forget(b.userName())
	}
	if b.ownUID {
		b.d.uids.Put(b.uid)
	}
	if err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", b.spec.ID, err)
	}
	return nil
}

// proc is one process.
type proc struct {
	b         *box
	pid       int // inside
	oomBefore int64
	done      chan struct{}
	exit      sandbox.Exit // valid once done is closed
}

func (p *proc) end(e sandbox.Exit) {
	p.exit = e
	close(p.done)
}

// Done implements sandbox.Process.
func (p *proc) Done() <-chan struct{} { return p.done }

// Exit implements sandbox.Process.
func (p *proc) Exit() sandbox.Exit { return p.exit }

// Signal implements sandbox.Process. Init sends it, because it knows the group
// even when the process itself has ended and left children.
func (p *proc) Signal(sig syscall.Signal) error {
	if p.b.closing.Load() {
		return nil
	}
	if p.b.frozen.Load() {
		return errFrozen
	}
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	_, err := p.b.control.Call(ctx, "signal", strconv.Itoa(p.pid), strconv.Itoa(int(sig)))
	if errors.Is(err, control.ErrGone) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// signalTimeout bounds how long init may take for a kill(2).
const signalTimeout = 10 * time.Second
