package gvisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
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
	"kiln/internal/sandbox/scratch"
	"kiln/internal/sandbox/skeleton"
)

var (
	errDestroyed = errors.New("the sandbox is destroyed")
	errFrozen    = errors.New("the sandbox is frozen: thaw it first")
)

// ownBytes is what gVisor may take for itself beyond what it has once it is booted:
// its tables grow with what a function does. It is added to the function's limit.
const ownBytes = 24 << 20

// box is one sandbox. It is made by make, lives while its kernel does, and is undone
// by Destroy in the reverse order:
//
//	kernel → uid → user files → mounts → root entered → limit (ready)
type box struct {
	d    *Driver
	spec sandbox.Spec

	starter *first.Starter
	spares  *first.Pool[kernel]
	kernel  *kernel
	used    int64 // what the kernel had taken before
	uid     int   // of the functions, inside as on the host; 0: none yet
	closing atomic.Bool
	frozen  atomic.Bool

	// lifecycle is held for reading by Exec and Usage, and for writing by KillAll,
	// Freeze and Thaw.
	lifecycle  sync.RWMutex
	unassigned bool          // guarded by lifecycle; it is nobody's yet
	reads      sync.Mutex    // one Usage at a time
	meter      *cgroup.Meter // guarded by reads; made by make

	streams atomic.Int64   // connections that are relayed
	waits   sync.WaitGroup // what hands connections over

	mu        sync.Mutex
	listeners map[string]*listener // guarded by mu; by port
	shared    []net.Listener       // guarded by mu; of the host's network
	procs     map[int]*proc        // guarded by mu; living, by pid inside
	peak      int64                // guarded by mu

	once      sync.Once
	destroyed chan struct{} // closed once err is final
	err       error
}

func newBox(d *Driver, spec sandbox.Spec) *box {
	return &box{d: d, spec: spec, listeners: map[string]*listener{}, procs: map[int]*proc{}, destroyed: make(chan struct{})}
}

// make builds the sandbox. What it made before an error is undone by Destroy.
func (b *box) make(ctx context.Context) (err error) {
	if b.uid, err = b.d.uids.Take(); err != nil {
		return err
	}
	if b.spec.Root == "" {
		err = b.d.users.Describe(b.uid)
	} else {
		err = b.d.users.DescribeIn(b.spec.Root, b.userName(), b.uid)
	}
	if err != nil {
		return err
	}
	network := b.d.network.Of(b.spec)
	if network == b.d.network.Mode && !b.unassigned { // in time: it leaves them to those that are needed now
		b.kernel = b.spares.Take()
	}
	if b.kernel != nil {
		err := b.enter(ctx)
		if !errors.Is(err, control.ErrGone) {
			return err
		}
		// Somebody killed the spare while it waited: boot another.
		if err := b.kernel.end(); err != nil {
			return err
		}
	}
	if b.kernel, err = b.d.boot(ctx, b.starter, network); err != nil {
		return err
	}
	return b.enter(ctx)
}

// hosted tells that it shares the host's network.
func (b *box) hosted() bool { return b.d.network.Of(b.spec) == sandbox.NetworkHost }

// userName is what its user files are kept under, where they are its own.
func (b *box) userName() string { return "box-" + b.spec.ID }

// enter makes the kernel this sandbox's.
func (b *box) enter(ctx context.Context) error {
	k := b.kernel
	k.box.Store(b)
	b.waits.Go(func() { b.watch(k) })
	var tmp *scratch.FileSystem
	if b.d.scratch != nil && b.spec.TmpBytes > 0 {
		var err error
		if tmp, err = b.d.scratch.Make(b.spec.TmpBytes); err != nil {
			return err
		}
		defer tmp.Close() // the outer process has its own
	}
	mount, err := b.mounts(tmp)
	if err != nil {
		return err
	}
	if _, err := k.outer.CallWith(ctx, tmp.Files(), mount...); err != nil {
		return err
	}
	setup := []string{"setup", strconv.Itoa(b.uid)}
	if b.unassigned {
		setup = append(setup, "assigned later")
	}
	if _, err := k.inner.Call(ctx, setup...); err != nil {
		return err
	}
	b.meter = cgroup.NewSharedMeter(k.cg, k.p.Pid)
	if b.used, err = k.cg.Used(); err != nil || b.unassigned {
		return err
	}
	return b.admit(b.spec)
}

// admit bounds the function's memory and lets it out, where it may.
func (b *box) admit(spec sandbox.Spec) error {
	if link := b.kernel.link; link != nil {
		if err := link.Allow(spec.Network.Allow); err != nil {
			return err
		}
	}
	limits := cgroup.Limits{Processes: hostProcesses, MilliCPU: spec.MilliCPU}
	if spec.MemoryBytes > 0 {
		limits.MemoryBytes = b.used + ownBytes + spec.MemoryBytes
	}
	return b.kernel.cg.Limit(limits)
}

// mounts is the outer process's request for the root; tmp goes along with it.
func (b *box) mounts(tmp *scratch.FileSystem) ([]string, error) {
	s := []string{"mount", "root=" + b.d.root.Dir}
	users := strconv.Itoa(b.uid)
	var binds []skeleton.BindMount
	bind := func(src, dst, mode string) {
		if src != "" {
			binds = append(binds, skeleton.BindMount{Src: src, Dst: dst, Mode: mode})
		}
	}
	bind(b.spec.Task, skeleton.TaskDir, skeleton.ReadOnly)
	bind(b.spec.Opt, skeleton.OptDir, skeleton.ReadOnly)
	bind(b.spec.Runtime, skeleton.RuntimeDir, skeleton.ReadOnly)
	bind(b.spec.Lang, skeleton.LangDir, skeleton.ReadOnly)
	if tmp != nil {
		s = append(s, "tmp=")
	} else {
		if err := b.makeTmp(); err != nil {
			return nil, err
		}
		bind(b.tmpDir(), skeleton.TmpDir, skeleton.ReadWrite)
	}
	if b.spec.Root != "" {
		users = b.userName()
		s = append(s, "image="+b.spec.Root)
		for _, own := range []string{"/dev", "/etc/hosts", "/etc/hostname", egress.ResolvConf} {
			bind(b.d.root.Dir+own, own, skeleton.AsItIs)
		}
	}
	if b.hosted() && b.d.network.Mode != sandbox.NetworkHost {
		bind(b.d.network.HostResolvConf(), egress.ResolvConf, skeleton.ReadOnly)
	}
	for _, file := range skeleton.UserFiles {
		bind(b.d.users.File(users, file), "/etc/"+file, skeleton.ReadOnly)
	}
	for _, m := range binds {
		s = append(s, m.String())
	}
	return s, nil
}

// tmpDir is /tmp where it has no file system of its own.
func (b *box) tmpDir() string { return b.kernel.dir + "/tmp" }

func (b *box) makeTmp() error {
	if err := os.Mkdir(b.tmpDir(), 0o700); err != nil {
		return err
	}
	return os.Chmod(b.tmpDir(), 0o777|os.ModeSticky)
}

// event is what the inner process tells.
func (b *box) event(fields []string) {
	if pid, status, ok := control.ParseExit(fields); ok {
		b.exited(pid, status)
	} else if fields[0] == "accept" && len(fields) == 4 {
		b.accepted(fields[1], fields[2], fields[3])
	}
}

// exited is the news of a process's end.
func (b *box) exited(pid int, status syscall.WaitStatus) {
	b.mu.Lock()
	p := b.procs[pid]
	delete(b.procs, pid)
	b.mu.Unlock()
	if p == nil {
		return
	}
	e := sandbox.Exit{OOM: b.kernel.cg.OOMKills() > p.oomBefore}
	if status.Signaled() {
		e.Signal = status.Signal()
	} else {
		e.Code = status.ExitStatus()
	}
	p.end(e)
}

// watch waits for the end of the kernel, which is that of every process.
func (b *box) watch(k *kernel) {
	<-k.inner.Gone()
	b.mu.Lock()
	left := b.procs
	b.procs = map[int]*proc{}
	b.mu.Unlock()
	for _, p := range left {
		p.end(sandbox.Exit{Signal: syscall.SIGKILL, OOM: k.cg.OOMKills() > p.oomBefore})
	}
}

// Paths implements sandbox.Sandbox.
func (b *box) Paths() sandbox.Paths { return paths }

func (b *box) wrap(err error) error {
	if b.closing.Load() {
		return errDestroyed
	}
	return fmt.Errorf("sandbox %s: %w", b.spec.ID, err)
}

// usable says why the inner process would not answer.
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
	if err := errors.Join(ctx.Err(), b.usable()); err != nil {
		return nil, err
	}
	if err := errors.Join(sandbox.GiveOutputs(cmd, b.uid), openOutputs(cmd)); err != nil {
		return nil, b.wrap(err)
	}
	request := append([]string{"exec", cmd.Path, cmd.Dir, strconv.Itoa(len(cmd.Args))}, cmd.Args...)
	request = append(request, cmd.Env...)
	files := []*os.File{cmd.Stdout, cmd.Stderr}
	if cmd.Telemetry != nil {
		files = append(files, cmd.Telemetry)
	}
	p := &proc{b: b, oomBefore: b.kernel.cg.OOMKills(), done: make(chan struct{})}
	started := make(chan error, 1)
	// The reader knows the process before it can read of its end.
	err := b.kernel.inner.Send(request, files, func(a control.Answer, _ *os.File) {
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
	// Not cut short by ctx: a process that nobody waits for would be worse.
	if err := <-started; err != nil {
		return nil, b.wrap(err)
	}
	return p, nil
}

// openOutputs lets gVisor open a command's pipes anew for those who open /dev/stdout:
// it is nobody on the host. They have no name by which others could.
func openOutputs(c sandbox.Command) error {
	for _, f := range []*os.File{c.Stdout, c.Stderr, c.Telemetry} {
		if f == nil {
			continue
		}
		if st, err := f.Stat(); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
			continue
		}
		if err := f.Chmod(0o666); err != nil {
			return fmt.Errorf("output %s: %w", f.Name(), err)
		}
	}
	return nil
}

// KillAll implements sandbox.Sandbox.
func (b *box) KillAll(ctx context.Context) error {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	if err := b.usable(); err != nil {
		return err
	}
	if _, err := b.kernel.inner.Call(ctx, "killall"); err != nil {
		return b.wrap(err)
	}
	return nil
}

// Usage implements sandbox.Sandbox. Memory of the functions is shared memory of the
// host, because gVisor keeps it in a file; its own is anonymous, and not counted.
func (b *box) Usage(ctx context.Context) (sandbox.Usage, error) {
	b.lifecycle.RLock()
	defer b.lifecycle.RUnlock()
	b.reads.Lock()
	defer b.reads.Unlock()
	if b.closing.Load() {
		return sandbox.Usage{}, errDestroyed
	}
	if err := ctx.Err(); err != nil {
		return sandbox.Usage{}, err
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

// Freeze implements sandbox.Freezer: the host stops gVisor itself.
func (b *box) Freeze(ctx context.Context) error {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	if b.closing.Load() {
		return errDestroyed
	}
	b.frozen.Store(true)
	if err := b.kernel.cg.Freeze(ctx, true); err != nil {
		_ = b.kernel.cg.Freeze(context.WithoutCancel(ctx), false)
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
	if err := b.kernel.cg.Freeze(ctx, false); err != nil {
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
	return b.kernel.cg.LimitCPU(b.spec.MilliCPU)
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

// destroy undoes make.
func (b *box) destroy() (err error) {
	b.mu.Lock()
	listeners, shared := b.listeners, b.shared
	b.listeners, b.shared = nil, nil
	b.mu.Unlock()
	for _, l := range listeners {
		l.shut()
	}
	for _, l := range shared {
		_ = l.Close()
	}
	if k := b.kernel; k != nil {
		err = b.leave(k)
	}
	if b.meter != nil {
		b.meter.Close()
	}
	if b.spec.Root != "" {
		b.d.users.Forget(b.userName())
	}
	if b.uid != 0 {
		b.d.uids.Put(b.uid)
	}
	if err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", b.spec.ID, err)
	}
	return nil
}

// leave ends the kernel. It is killed first and thawed then, or its processes would run
// once more. The kill also ends a KillAll that waits for an answer under the lock; a
// Freeze under way ends by itself, and without the lock would outlive the thaw.
func (b *box) leave(k *kernel) error {
	k.kill()
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	if b.frozen.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), cgroup.Timeout)
		defer cancel()
		_ = k.cg.Freeze(ctx, false)
	}
	var failed error
	if b.d.scratch == nil || b.spec.TmpBytes == 0 {
		_, _ = k.p.Wait() // nobody writes there any more
		failed = sandbox.RemoveTree(b.tmpDir())
	}
	err := errors.Join(failed, k.end())
	b.waits.Wait()
	return err
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

// signalTimeout bounds how long the inner process may take for a kill(2).
const signalTimeout = 10 * time.Second

// Signal implements sandbox.Process. The inner process sends it, because it knows the
// group even when the process itself has ended and left children.
func (p *proc) Signal(sig syscall.Signal) error {
	if p.b.closing.Load() {
		return nil
	}
	if p.b.frozen.Load() {
		return errFrozen
	}
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	_, err := p.b.kernel.inner.Call(ctx, "signal", strconv.Itoa(p.pid), strconv.Itoa(int(sig)))
	if errors.Is(err, control.ErrGone) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
