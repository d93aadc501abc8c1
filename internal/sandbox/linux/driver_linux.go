package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/cgroup"
	"kiln/internal/sandbox/egress"
	"kiln/internal/sandbox/first"
	"kiln/internal/sandbox/linux/inside"
	"kiln/internal/sandbox/linux/seal"
	"kiln/internal/sandbox/scratch"
	"kiln/internal/sandbox/skeleton"
)

// Driver implements sandbox.Driver.
type Driver struct {
	cfg     Config
	root    *skeleton.Skeleton
	users   *skeleton.Users
	cgroups cgroup.Hierarchy
	uids    *sandbox.UIDs  // nil: rootless, functions have the daemon's user
	scratch *scratch.Maker // nil: /tmp is a directory of the host's, without a limit
	network *egress.Network
	missing []string

	// tree is held while directories and cgroups of groups are made and removed,
	// or one Create would lose its parents to another's pruning. Taken after mu.
	tree sync.Mutex

	mu      sync.Mutex
	closed  bool                      // guarded by mu
	live    map[string]*box           // guarded by mu; by id
	idle    map[string]time.Time      // guarded by mu; groups whose last sandbox went, and when
	starter *first.Starter            // guarded by mu; made by the first Create
	visitor *first.Thread             // likewise, where the daemon is root
	spares  *first.Pool[firstProcess] // guarded by mu; likewise
	making  sync.WaitGroup            // Creates under way; added to under mu
}

// paths are those for the processes inside.
var paths = sandbox.Paths{Task: skeleton.TaskDir, Opt: skeleton.OptDir, Runtime: skeleton.RuntimeDir, Lang: skeleton.LangDir, Tmp: skeleton.TmpDir}

// New prepares cfg.Dir and looks at what the kernel and the user allow; Probe
// says whether it is enough. Nothing runs until the first Create.
func New(cfg Config) (_ *Driver, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if os.Getenv(inside.Mark) != "" {
		return nil, fmt.Errorf("linux driver: this program must call inside.Init first when its first argument is %s", inside.Arg)
	}
	d := &Driver{cfg: cfg, live: map[string]*box{}, idle: map[string]time.Time{}}
	if os.Geteuid() == 0 {
		if d.uids, err = sandbox.NewUIDs(cfg.UIDBase, cfg.UIDCount); err != nil {
			return nil, fmt.Errorf("linux driver: %w", err)
		}
	} else {
		d.missing = append(d.missing, "a user of its own for each sandbox: start the daemon as root")
	}
	if d.network, err = egress.OpenNetwork(cfg.Dir, cfg.Network, cfg.NAT, cfg.Log); err != nil {
		return nil, fmt.Errorf("linux driver: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.network.Close())
		}
	}()
	if err := os.MkdirAll(d.runs(), 0o700); err != nil {
		return nil, fmt.Errorf("linux driver: %w", err)
	}
	if d.root, err = skeleton.New(filepath.Join(cfg.Dir, "root"), d.network.Nameservers(), cfg.Files); err != nil {
		return nil, fmt.Errorf("linux driver: prepare the root: %w", err)
	}
	if d.users, err = skeleton.NewUsers(filepath.Join(cfg.Dir, "users")); err != nil {
		return nil, fmt.Errorf("linux driver: %w", err)
	}
	var lacks []string
	if d.cgroups, lacks, err = cgroup.Find(cfg.Cgroup); err != nil {
		return nil, fmt.Errorf("linux driver: %w", err)
	}
	d.missing = append(d.missing, lacks...)
	if !seal.Filters() {
		d.missing = append(d.missing, "a filter of system calls: this kernel is built without seccomp filters")
	}
	if seal.LockVersion() == 0 {
		d.missing = append(d.missing, "a second lock on the file system: this kernel runs without landlock (lsm=landlock on its command line)")
	}
	if d.uids == nil {
		d.missing = append(d.missing, "a limit on the size of /tmp: start the daemon as root")
	} else if d.scratch, err = scratch.New(filepath.Join(cfg.Dir, "scratch")); err != nil {
		d.missing = append(d.missing, "a limit on the size of /tmp: "+err.Error())
	}
	d.missing = append(d.missing, d.network.Missing()...)
	return d, nil
}

// runs is the directory of sandboxes' directories.
func (d *Driver) runs() string { return filepath.Join(d.cfg.Dir, "run") }

// Name implements sandbox.Driver.
func (d *Driver) Name() string { return "linux" }

// Describe implements sandbox.Driver.
func (d *Driver) Describe() sandbox.Description {
	return sandbox.Description{
		Isolates:  true,
		BoundsTmp: d.scratch != nil,
		Summary:   "each environment has its own file system, processes, network and user, on the host's kernel: for teams that trust each other that far",
		Missing:   slices.Clone(d.missing),
	}
}

// MountPoints implements sandbox.Rooter.
func (d *Driver) MountPoints() []string { return skeleton.MountPoints() }

// Waiting implements sandbox.Waiter.
func (d *Driver) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.spares.Waiting()
}

// Probe makes a sandbox and runs a program in it. Its error says what is missing.
func (d *Driver) Probe(ctx context.Context) error { return sandbox.Probe(ctx, d) }

// explain adds what to do about the usual reasons.
func explain(err error) error {
	advice := ""
	switch {
	case errors.Is(err, unix.EPERM) && os.Geteuid() == 0:
		advice = "root lacks CAP_SYS_ADMIN here, as in a container without --privileged"
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		advice = "start the daemon as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)"
	case errors.Is(err, unix.ENOSPC):
		advice = "too many namespaces: raise the limits in /proc/sys/user"
	case errors.Is(err, unix.ENOSYS):
		advice = "the kernel is older than 5.12"
	case errors.Is(err, unix.EINVAL):
		advice = "the kernel may lack a kind of namespace"
	default:
		return err
	}
	return fmt.Errorf("%w (%s; or use the process driver, which isolates nothing)", err, advice)
}

// Create implements sandbox.Driver.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if err := errors.Join(ctx.Err(), spec.Check()); err != nil {
		return nil, err
	}
	return d.create(ctx, newBox(d, spec))
}

func (d *Driver) create(ctx context.Context, b *box) (sandbox.Prepared, error) {
	if err := d.register(b); err != nil {
		return nil, err
	}
	defer d.making.Done()
	if err := b.make(ctx); err != nil {
		err = fmt.Errorf("create sandbox %s: %w", b.spec.ID, explain(err))
		return nil, errors.Join(err, b.Destroy(context.WithoutCancel(ctx)))
	}
	return b, nil
}

// register reserves the id, and makes what the first Create makes.
func (d *Driver) register(b *box) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("linux driver: closed")
	}
	if d.live[b.spec.ID] != nil {
		return fmt.Errorf("linux driver: sandbox %s exists", b.spec.ID)
	}
	if d.starter == nil {
		st, err := d.newStarter()
		if err != nil {
			return fmt.Errorf("linux driver: %w", explain(err))
		}
		if d.uids != nil {
			if d.visitor, err = newVisitor(); err != nil {
				st.Close()
				return fmt.Errorf("linux driver: %w", err)
			}
		}
		d.starter = st
		d.spares = first.NewPool(d.cfg.Spares, d.cfg.MaxSpares, spareDelay, func() (*firstProcess, error) { return d.startSpare(st) }, (*firstProcess).end)
	}
	d.live[b.spec.ID] = b
	delete(d.idle, b.spec.Group)
	d.making.Add(1)
	b.starter, b.spares, b.visitor = d.starter, d.spares, d.visitor
	return nil
}

// Sweep implements sandbox.Driver. What an earlier daemon started ended with
// it, unless it was frozen; its mounts ended with its processes.
func (d *Driver) Sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cgroup.Timeout)
	defer cancel()
	var failed error
	var groups []string
	err := filepath.WalkDir(d.runs(), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		group, id, ok := splitRun(d.runs(), path)
		if !ok {
			if path != d.runs() {
				groups = append(groups, filepath.Join(group, e.Name()))
			}
			return nil
		}
		c := d.cgroups.At(group, id)
		if err := errors.Join(c.Kill(ctx), c.Remove(ctx), sandbox.RemoveTree(path)); err != nil {
			failed = errors.Join(failed, fmt.Errorf("sweep sandbox %s: %w", id, err))
		}
		return filepath.SkipDir
	})
	// Groups are kept for a while without sandboxes: theirs are swept as well.
	for _, g := range slices.Backward(groups) {
		d.removeGroup(g)
	}
	return errors.Join(failed, err)
}

// runSuffix marks a sandbox's directory among those of groups, none of which has a dot.
const runSuffix = ".sandbox"

func (d *Driver) runDir(s sandbox.Spec) string {
	return filepath.Join(d.runs(), s.Group, s.ID+runSuffix)
}

func splitRun(runs, path string) (group, id string, ok bool) {
	rel, err := filepath.Rel(runs, path)
	if err != nil {
		return "", "", false
	}
	id, ok = strings.CutSuffix(filepath.Base(rel), runSuffix)
	return filepath.Dir(rel), id, ok
}

// Close implements sandbox.Driver.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.making.Wait() // after this, live only shrinks
	d.mu.Lock()
	var left []*box
	for _, b := range d.live {
		left = append(left, b)
	}
	d.mu.Unlock()
	var g errgroup.Group
	for _, b := range left {
		g.Go(func() error { return b.Destroy(context.Background()) })
	}
	err := g.Wait()
	d.mu.Lock()
	d.prune(0)
	st, sp, v := d.starter, d.spares, d.visitor
	d.starter, d.spares, d.visitor = nil, nil, nil
	d.mu.Unlock()
	if v != nil {
		v.Close()
	}
	if st != nil {
		sp.Close() // it uses the starter
		st.Close() // last: the inits die with its thread
	}
	if d.scratch != nil {
		d.scratch.Close()
	}
	return errors.Join(err, d.network.Close())
}

// groupIdle is how long the directories and cgroups of a function without
// sandboxes are kept: making its three cgroups anew costs half a millisecond.
const groupIdle = 10 * time.Minute

// forget drops a destroyed sandbox, and removes what is left of functions that
// had none for long. A closed driver keeps nothing.
func (d *Driver) forget(b *box) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.live, b.spec.ID)
	if b.prepared {
		d.removeGroup(b.spec.Group) // no other sandbox is made in it
		return
	}
	d.idle[b.spec.Group] = time.Now()
	for _, other := range d.live {
		delete(d.idle, other.spec.Group)
	}
	d.prune(groupIdle)
}

// prune removes groups that were idle for that long. The caller holds mu.
func (d *Driver) prune(after time.Duration) {
	for group, since := range d.idle {
		if time.Since(since) >= after {
			d.removeGroup(group)
			delete(d.idle, group)
		}
	}
}

// removeGroup removes a group's directory and cgroups, and their parents, where empty.
func (d *Driver) removeGroup(group string) {
	const child = "x" // removal begins at its parent
	d.tree.Lock()
	defer d.tree.Unlock()
	d.cgroups.At(group, child).RemoveParents()
	sandbox.RemoveEmptyParents(filepath.Join(d.runs(), group, child), d.runs())
}

// newStarter makes the thread that inits are started from. It has its own mount
// namespace, in which the skeleton is mounted once: every init begins with a copy
// of it, and the host sees no mount of ours.
func (d *Driver) newStarter() (*first.Starter, error) {
	if d.uids == nil { // an unprivileged thread may not: then each init mounts the skeleton itself
		return first.NewStarter(nil)
	}
	return first.NewStarter(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make a mount namespace: %w", err)
		}
		return d.root.Mount()
	})
}

// initAttr is how an init is started: into new namespaces, to die with the starter.
func (d *Driver) initAttr(control *os.File, network string) *os.ProcAttr {
	sys := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true, // the terminal's Ctrl-C is the daemon's
	}
	if network != sandbox.NetworkHost {
		sys.Cloneflags |= unix.CLONE_NEWNET
	}
	if d.uids == nil {
		// One user is all that an unprivileged daemon can map. It is not 0
		// inside, so what init needs must survive its exec as ambient capabilities.
		sys.Cloneflags |= unix.CLONE_NEWUSER
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: rootlessUID, HostID: os.Geteuid(), Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: rootlessUID, HostID: os.Getegid(), Size: 1}}
		sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE}
	}
	return &os.ProcAttr{
		Dir:   "/",
		Env:   []string{inside.Mark + "=1"},
		Files: []*os.File{nil, nil, os.Stderr, control}, // stderr: only for a crash of init
		Sys:   sys,
	}
}

// rootlessUID is the user inside a sandbox of an unprivileged daemon.
const rootlessUID = 1051
