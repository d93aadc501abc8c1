// Package process is the sandbox driver for machines without namespaces: plain
// processes with a clean environment, directories of their own and, where the
// daemon is root, a user of their own. It isolates nothing, and says so. It is
// not a fallback that a function can choose; the daemon does, at start.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/pid1"
)

// marker is the variable by which processes of a sandbox are found again.
const marker = "KILN_SANDBOX"

// Config configures the driver.
type Config struct {
	// Dir holds the sandboxes' directories; it is this driver's alone. Required.
	Dir string
	// KeepUser runs functions as the daemon's user even where the daemon is
	// root. Without it a root daemon gives each sandbox a user id of its own,
	// which must be able to reach Dir and the code.
	KeepUser bool
	// UIDBase and UIDCount are the range of those ids; 0 means the defaults.
	UIDBase, UIDCount int
	// Log gets what Destroy could not clean up. Default: slog.Default.
	Log *slog.Logger
}

// Driver implements sandbox.Driver.
type Driver struct {
	cfg  Config
	uids *sandbox.UIDs // nil: run as the daemon's user

	mu     sync.Mutex
	closed bool            // guarded by mu
	live   map[string]*box // guarded by mu; by id
}

// New returns a driver. It makes cfg.Dir and starts nothing. Descriptors that
// the daemon itself inherited are marked so that functions do not inherit them.
func New(cfg Config) (*Driver, error) {
	if !filepath.IsAbs(cfg.Dir) {
		return nil, fmt.Errorf("process driver: directory %q is not absolute", cfg.Dir)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	d := &Driver{cfg: cfg, live: map[string]*box{}}
	if os.Geteuid() == 0 && !cfg.KeepUser {
		uids, err := sandbox.NewUIDs(cfg.UIDBase, cfg.UIDCount)
		if err != nil {
			return nil, fmt.Errorf("process driver: %w", err)
		}
		d.uids = uids
	}
	if err := os.MkdirAll(cfg.Dir, 0o711); err != nil {
		return nil, fmt.Errorf("process driver: %w", err)
	}
	keepDescriptors()
	return d, nil
}

// Name implements sandbox.Driver.
func (d *Driver) Name() string { return "process" }

// Describe implements sandbox.Driver.
func (d *Driver) Describe() sandbox.Description {
	missing := []string{
		"isolation: use the linux driver, on Linux as root or with user namespaces",
		"memory, process and /tmp limits: use the linux driver",
	}
	if d.uids == nil {
		missing = append(missing, "a user of its own for each sandbox: start the daemon as root")
	}
	return sandbox.Description{
		Summary: "functions run as plain processes: NOTHING IS ISOLATED, they can read this machine's files, reach its network and disturb each other",
		Missing: missing,
	}
}

// Expose implements sandbox.Exposer.
func (d *Driver) Expose(folders ...string) error {
	if d.uids == nil {
		return nil // functions run as the daemon's user
	}
	for _, f := range folders {
		if err := os.Chmod(f, 0o711); err != nil {
			return err
		}
	}
	return nil
}

// Create implements sandbox.Driver.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if err := errors.Join(ctx.Err(), spec.Check()); err != nil {
		return nil, err
	}
	if spec.Root != "" {
		return nil, fmt.Errorf("process driver: create %s: it shows the host's file system and no other: use the linux driver", spec.ID)
	}
	b := &box{
		d:         d,
		spec:      spec,
		dir:       filepath.Join(d.cfg.Dir, spec.Group, spec.ID),
		uid:       -1,
		destroyed: make(chan struct{}),
	}
	d.mu.Lock()
	defer d.mu.Unlock() // making two directories is quick; a half-made box is never seen
	if d.closed {
		return nil, errors.New("process driver: closed")
	}
	if d.live[spec.ID] != nil {
		return nil, fmt.Errorf("process driver: sandbox %s exists", spec.ID)
	}
	if err := b.make(); err != nil {
		_ = b.clean()
		sandbox.RemoveEmptyParents(b.dir, d.cfg.Dir)
		return nil, fmt.Errorf("process driver: create %s: %w", spec.ID, err)
	}
	d.live[spec.ID] = b
	return b, nil
}

// Sweep implements sandbox.Driver.
func (d *Driver) Sweep(ctx context.Context) error {
	// A sandbox's directory is the one that holds "tmp" and "home"; its name is its id.
	var failed error
	homes, err := filepath.Glob(filepath.Join(d.cfg.Dir, "*"))
	if err != nil || len(homes) == 0 {
		return err
	}
	err = filepath.WalkDir(d.cfg.Dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		if _, err := os.Lstat(filepath.Join(path, "home")); err != nil {
			return nil
		}
		if err := killAll(ctx, filepath.Base(path), nil); err != nil {
			failed = errors.Join(failed, err)
			return filepath.SkipDir
		}
		failed = errors.Join(failed, sandbox.RemoveTree(path))
		sandbox.RemoveEmptyParents(path, d.cfg.Dir)
		return filepath.SkipDir
	})
	return errors.Join(failed, err)
}

// Close implements sandbox.Driver.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.closed = true
	var left []*box
	for _, b := range d.live {
		left = append(left, b)
	}
	d.mu.Unlock()
	var g errgroup.Group
	for _, b := range left {
		g.Go(func() error { return b.Destroy(context.Background()) })
	}
	return g.Wait()
}

// box is one sandbox.
type box struct {
	d    *Driver
	spec sandbox.Spec
	dir  string
	uid  int // -1: the daemon's

	// starting is held while a process is started and while all are killed, so
	// that none is missed. It is taken before mu.
	starting sync.Mutex

	mu        sync.Mutex
	closing   bool           // guarded by mu
	listeners []net.Listener // guarded by mu
	procs     []*proc        // guarded by mu
	peak      int64          // guarded by mu
	waits     sync.WaitGroup // one for each process's wait

	destroyed chan struct{} // closed once err is final
	err       error
}

func (b *box) make() error {
	if b.d.uids != nil {
		uid, err := b.d.uids.Take()
		if err != nil {
			return err
		}
		b.uid = uid
	}
	if err := os.MkdirAll(filepath.Dir(b.dir), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(b.dir, 0o711); err != nil {
		return err
	}
	for _, sub := range []string{b.home(), b.tmp()} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		if b.uid >= 0 {
			if err := os.Chown(sub, b.uid, b.uid); err != nil {
				return err
			}
		}
	}
	return b.reachable()
}

// reachable says which directory keeps the sandbox's user out, because all that
// a function would say later is "permission denied".
func (b *box) reachable() error {
	if b.uid < 0 {
		return nil
	}
	for _, p := range []string{b.dir, b.spec.Task, b.spec.Opt, b.spec.Runtime, b.spec.Lang} {
		switch closed, err := closedFolder(p); {
		case err != nil:
			return err
		case closed != "":
			return fmt.Errorf("user %d may not enter %s: chmod o+x it, keep the data directory elsewhere, or keep the daemon's user", b.uid, closed)
		}
	}
	return nil
}

// Usable refuses a program that the users of sandboxes may not reach, such as an
// interpreter in root's home folder.
func (d *Driver) Usable(path string) error {
	if d.uids == nil {
		return nil
	}
	closed, err := closedFolder(path)
	if err == nil && closed != "" {
		err = fmt.Errorf("the users that functions get may not enter %s: chmod o+x it, or install the interpreter elsewhere", closed)
	}
	return err
}

// closedFolder returns the first folder on the way up that is closed to others, or "".
func closedFolder(path string) (string, error) {
	for ; path != "" && path != "/"; path = filepath.Dir(path) {
		st, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		if st.IsDir() && st.Mode()&0o001 == 0 {
			return path, nil
		}
	}
	return "", nil
}

func (b *box) home() string { return filepath.Join(b.dir, "home") }
func (b *box) tmp() string  { return filepath.Join(b.dir, "tmp") }

// Paths implements sandbox.Sandbox.
func (b *box) Paths() sandbox.Paths {
	return sandbox.Paths{
		Task: b.spec.Task, Opt: b.spec.Opt, Runtime: b.spec.Runtime, Lang: b.spec.Lang,
		Tmp: b.tmp(),
		Env: []string{"HOME=" + b.home(), "TMPDIR=" + b.tmp(), marker + "=" + b.spec.ID},
	}
}

var errDestroyed = errors.New("the sandbox is destroyed")

// Listen implements sandbox.Sandbox: the network is the host's, so the port is a free one.
func (b *box) Listen(ctx context.Context, _ int) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		_ = l.Close()
		return nil, errDestroyed
	}
	b.listeners = append(b.listeners, l)
	return l, nil
}

// Dial implements sandbox.Sandbox: the network is the host's.
func (b *box) Dial(ctx context.Context, port int) (net.Conn, error) {
	b.mu.Lock()
	closing := b.closing
	b.mu.Unlock()
	if closing {
		return nil, errDestroyed
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp4", sandbox.Loopback(port))
}

// Exec implements sandbox.Sandbox.
func (b *box) Exec(ctx context.Context, cmd sandbox.Command) (sandbox.Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []*os.File{null, cmd.Stdout, cmd.Stderr}
	if cmd.Telemetry != nil {
		files = append(files, cmd.Telemetry)
	}
	// A session of its own, so that the terminal's Ctrl-C reaches only the daemon.
	attr := &syscall.SysProcAttr{Setsid: true}
	if b.uid >= 0 {
		attr.Credential = &syscall.Credential{Uid: uint32(b.uid), Gid: uint32(b.uid)}
		if err := sandbox.GiveOutputs(cmd, b.uid); err != nil {
			return nil, err
		}
	}
	path, err := pid1.Look(cmd.Path, cmd.Dir, cmd.Env)
	if err != nil {
		return nil, fmt.Errorf("exec in sandbox %s: %w", b.spec.ID, err)
	}
	b.starting.Lock()
	defer b.starting.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return nil, errDestroyed
	}
	p, err := os.StartProcess(path, cmd.Args, &os.ProcAttr{
		Dir: cmd.Dir, Env: slices.Concat(b.Paths().Env, cmd.Env), Files: files, Sys: attr,
	})
	if err != nil {
		return nil, fmt.Errorf("exec in sandbox %s: %w", b.spec.ID, err)
	}
	limit(p.Pid)
	pr := &proc{p: p, done: make(chan struct{})}
	b.procs = append(b.procs, pr)
	b.waits.Go(pr.wait)
	return pr, nil
}

// KillAll implements sandbox.Sandbox.
func (b *box) KillAll(ctx context.Context) error {
	b.starting.Lock()
	defer b.starting.Unlock()
	b.mu.Lock()
	procs := slices.Clone(b.procs)
	if b.closing {
		b.mu.Unlock()
		return errDestroyed
	}
	b.mu.Unlock()
	if err := killAll(ctx, b.spec.ID, b.leaders()); err != nil {
		return err
	}
	for _, p := range procs {
		select {
		case <-p.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.mu.Lock()
	b.procs = nil
	b.mu.Unlock()
	return nil
}

// Usage implements sandbox.Sandbox.
func (b *box) Usage(ctx context.Context) (sandbox.Usage, error) {
	pids, err := b.find(ctx)
	if err != nil {
		return sandbox.Usage{}, err
	}
	u, err := memory(ctx, pids)
	if err != nil {
		return sandbox.Usage{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return sandbox.Usage{}, errDestroyed
	}
	b.peak = max(b.peak, u.PeakBytes, u.CurrentBytes)
	u.PeakBytes = b.peak
	return u, nil
}

// find returns the sandbox's living processes.
func (b *box) find(ctx context.Context) ([]int, error) {
	return find(ctx, b.spec.ID, b.leaders())
}

// leaders are the living processes started by Exec. The number of one that was
// reaped may be a stranger's by now, so what it left is found by its marker only.
func (b *box) leaders() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	var pids []int
	for _, p := range b.procs {
		if !p.gone() {
			pids = append(pids, p.p.Pid)
		}
	}
	return pids
}

// Destroy implements sandbox.Sandbox.
func (b *box) Destroy(ctx context.Context) error {
	b.mu.Lock()
	first := !b.closing
	b.closing = true
	b.mu.Unlock()
	if first {
		b.err = b.destroy(ctx)
		close(b.destroyed)
	}
	select {
	case <-b.destroyed:
		return b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *box) destroy(ctx context.Context) error {
	// Nothing new can begin, so what is found now is all there is. The caller
	// may go away; the cleaning does not.
	ctx = context.WithoutCancel(ctx)
	for _, l := range b.listeners {
		_ = l.Close()
	}
	b.starting.Lock()
	err := killAll(ctx, b.spec.ID, b.leaders())
	b.starting.Unlock()
	b.waits.Wait()
	err = errors.Join(err, b.clean())
	b.d.mu.Lock()
	delete(b.d.live, b.spec.ID)
	sandbox.RemoveEmptyParents(b.dir, b.d.cfg.Dir) // under the lock: a Create may be making them
	b.d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", b.spec.ID, err)
	}
	return nil
}

// clean removes what make made.
func (b *box) clean() error {
	err := sandbox.RemoveTree(b.dir)
	if b.uid >= 0 {
		b.d.uids.Put(b.uid)
	}
	return err
}

// proc is one process.
type proc struct {
	p    *os.Process
	done chan struct{}
	exit sandbox.Exit // valid once done is closed
}

func (p *proc) wait() {
	defer close(p.done)
	st, err := p.p.Wait()
	if err != nil {
		p.exit = sandbox.Exit{Signal: syscall.SIGKILL} // reaped by someone else; nothing truer is known
		return
	}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		p.exit = sandbox.Exit{Signal: ws.Signal()}
		return
	}
	p.exit = sandbox.Exit{Code: st.ExitCode()}
}

// Done implements sandbox.Process.
func (p *proc) Done() <-chan struct{} { return p.done }

// Exit implements sandbox.Process.
func (p *proc) Exit() sandbox.Exit { return p.exit }

// Signal implements sandbox.Process.
func (p *proc) Signal(sig syscall.Signal) error {
	if p.gone() {
		return nil
	}
	if err := syscall.Kill(-p.p.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

func (p *proc) gone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
