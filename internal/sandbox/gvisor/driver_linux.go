package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/cgroup"
	"kiln/internal/sandbox/egress"
	"kiln/internal/sandbox/first"
	"kiln/internal/sandbox/gvisor/inside"
	"kiln/internal/sandbox/scratch"
	"kiln/internal/sandbox/skeleton"
)

// Driver implements sandbox.Driver.
type Driver struct {
	cfg     Config
	runsc   *os.File
	root    *skeleton.Skeleton
	users   *skeleton.Users
	cgroups cgroup.Hierarchy
	uids    *sandbox.UIDs
	scratch *scratch.Maker // nil: /tmp has no limit
	network *egress.Network
	missing []string

	// tree is held while cgroups are made and removed, or one Create would lose
	// their parents to another's pruning.
	tree sync.Mutex

	mu      sync.Mutex
	closed  bool                // guarded by mu
	live    map[string]*box     // guarded by mu; by id
	starter *first.Starter      // guarded by mu; made by the first Create
	spares  *first.Pool[kernel] // guarded by mu; likewise
	making  sync.WaitGroup      // Creates under way; added to under mu
}

// paths are those for the processes inside.
var paths = sandbox.Paths{Task: skeleton.TaskDir, Opt: skeleton.OptDir, Runtime: skeleton.RuntimeDir, Lang: skeleton.LangDir, Tmp: skeleton.TmpDir}

// New prepares cfg.Dir and looks for runsc; Probe says whether it works. Nothing
// runs until the first Create.
func New(cfg Config) (_ *Driver, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if os.Getenv(inside.OuterMark) != "" || os.Getenv(inside.InnerMark) != "" {
		return nil, fmt.Errorf("gvisor driver: this program must call inside.Init first when its first argument is %s or %s", inside.OuterArg, inside.InnerArg)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("gvisor driver: it works for root only: start the daemon as root")
	}
	d := &Driver{cfg: cfg, live: map[string]*box{}}
	path, err := exec.LookPath(cfg.Runsc)
	if err != nil {
		return nil, fmt.Errorf("gvisor driver: %w: install gVisor's runsc (https://gvisor.dev/docs/user_guide/install/), or say where it is with runsc = \"/path/to/runsc\"", err)
	}
	if d.uids, err = sandbox.NewUIDs(cfg.UIDBase, cfg.UIDCount); err != nil {
		return nil, fmt.Errorf("gvisor driver: %w", err)
	}
	if d.network, err = egress.OpenNetwork(cfg.Dir, cfg.Network, cfg.NAT, cfg.Log); err != nil {
		return nil, fmt.Errorf("gvisor driver: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.network.Close())
		}
	}()
	for _, dir := range []string{d.runs(), d.stage()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("gvisor driver: %w", err)
		}
	}
	if err := d.keepProgram(); err != nil {
		return nil, fmt.Errorf("gvisor driver: keep this program's file: %w", err)
	}
	if d.root, err = skeleton.New(filepath.Join(cfg.Dir, "root"), d.network.Nameservers(), cfg.Files); err != nil {
		return nil, fmt.Errorf("gvisor driver: prepare the root: %w", err)
	}
	if d.users, err = skeleton.NewUsers(filepath.Join(cfg.Dir, "users")); err != nil {
		return nil, fmt.Errorf("gvisor driver: %w", err)
	}
	var lacks []string
	if d.cgroups, lacks, err = cgroup.Find(cfg.Cgroup); err != nil {
		return nil, fmt.Errorf("gvisor driver: %w", err)
	}
	d.missing = append(d.missing, lacks...)
	if d.scratch, err = scratch.New(filepath.Join(cfg.Dir, "scratch")); err != nil {
		d.missing = append(d.missing, "a limit on the size of /tmp: "+err.Error())
	}
	d.missing = append(append(d.missing, d.network.Missing()...), shortPeaks)
	if d.runsc, err = os.Open(path); err != nil {
		return nil, fmt.Errorf("gvisor driver: %w", err)
	}
	return d, nil
}

// shortPeaks is missing because gVisor does not tell a living process's peak.
const shortPeaks = "short peaks in Max Memory Used: it is the most that was seen after an invocation"

// runs has a directory for each living kernel, by which Sweep finds its cgroup.
func (d *Driver) runs() string { return filepath.Join(d.cfg.Dir, "run") }

// stage is where each outer process mounts a file system of its own.
func (d *Driver) stage() string { return filepath.Join(d.cfg.Dir, "stage") }

// program is the inner process's program, which gVisor opens by a name.
func (d *Driver) program() string { return filepath.Join(d.cfg.Dir, "program") }

// keepProgram makes it. It is not the path of a running program: that may be another
// program's after an upgrade, and one in memory has none.
func (d *Driver) keepProgram() error {
	if err := os.Remove(d.program()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	from := d.cfg.Program
	if from == nil {
		const self = "/proc/self/exe"
		if unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, d.program(), unix.AT_SYMLINK_FOLLOW) == nil {
			return nil
		}
		var err error // it is on another file system
		if from, err = os.Open(self); err != nil {
			return err
		}
		defer from.Close()
	}
	to, err := os.OpenFile(d.program(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.NewSectionReader(from, 0, math.MaxInt64)) // not through its offset, which is its owner's
	return errors.Join(err, to.Close())
}

// Name implements sandbox.Driver.
func (d *Driver) Name() string { return "gvisor" }

// Describe implements sandbox.Driver.
func (d *Driver) Describe() sandbox.Description {
	return sandbox.Description{
		Isolates:  true,
		OwnKernel: true,
		BoundsTmp: d.scratch != nil,
		Summary:   "each environment has a kernel of its own, gVisor's, besides its own file system, processes, network and user: for tenants that do not trust each other",
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
func (d *Driver) Probe(ctx context.Context) error {
	if err := sandbox.Probe(ctx, d); err != nil {
		return fmt.Errorf("%w (does %s work? try: %s --platform=systrap --network=none do /bin/true)", err, d.cfg.Runsc, d.cfg.Runsc)
	}
	return nil
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
		err = fmt.Errorf("create sandbox %s: %w", b.spec.ID, err)
		return nil, errors.Join(err, b.Destroy(context.WithoutCancel(ctx)))
	}
	return b, nil
}

// register reserves the id, and makes what the first Create makes.
func (d *Driver) register(b *box) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("gvisor driver: closed")
	}
	if d.live[b.spec.ID] != nil {
		return fmt.Errorf("gvisor driver: sandbox %s exists", b.spec.ID)
	}
	if d.starter == nil {
		st, err := first.NewStarter(nil)
		if err != nil {
			return fmt.Errorf("gvisor driver: %w", err)
		}
		d.starter = st
		d.spares = first.NewPool(d.cfg.Spares, d.cfg.MaxSpares, spareDelay,
			func() (*kernel, error) { return d.boot(context.Background(), st, d.network.Mode) },
			func(k *kernel) { _ = k.end() }) // Sweep meets what is left
	}
	d.live[b.spec.ID] = b
	d.making.Add(1)
	b.starter, b.spares = d.starter, d.spares
	return nil
}

func (d *Driver) forget(b *box) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.live, b.spec.ID)
}

// Sweep implements sandbox.Driver. What an earlier daemon started ended with it,
// unless it was frozen; its mounts ended with its processes.
func (d *Driver) Sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cgroup.Timeout)
	defer cancel()
	left, err := os.ReadDir(d.runs())
	if err != nil {
		return err
	}
	for _, e := range left {
		c := d.cgroup(e.Name())
		if failed := errors.Join(c.Kill(ctx), c.Remove(ctx), sandbox.RemoveTree(filepath.Join(d.runs(), e.Name()))); failed != nil {
			err = errors.Join(err, fmt.Errorf("sweep gVisor %s: %w", e.Name(), failed))
		}
		c.RemoveParents()
	}
	return err
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
	st, sp := d.starter, d.spares
	d.starter, d.spares = nil, nil
	d.mu.Unlock()
	if st != nil {
		sp.Close() // it uses the starter
		st.Close() // last: the outer processes die with its thread
	}
	if d.scratch != nil {
		d.scratch.Close()
	}
	_ = d.runsc.Close()
	return errors.Join(err, d.network.Close())
}
