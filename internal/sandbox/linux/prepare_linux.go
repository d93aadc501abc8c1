package linux

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/first"
	"kiln/internal/sandbox/skeleton"
)

// PreparedPaths implements sandbox.Preparer.
func (d *Driver) PreparedPaths() sandbox.Paths { return paths }

// Prepare implements sandbox.Preparer. Entering a sandbox's mounts afterwards takes
// a daemon that is root.
func (d *Driver) Prepare(ctx context.Context, spec sandbox.Spec) (sandbox.Prepared, error) {
	if d.uids == nil {
		return nil, fmt.Errorf("prepare a sandbox: start the daemon as root: %w", errors.ErrUnsupported)
	}
	if err := errors.Join(ctx.Err(), spec.CheckUnassigned()); err != nil {
		return nil, err
	}
	spec.MemoryBytes = 0 // Assign's
	b := newBox(d, spec)
	b.prepared, b.unassigned = true, true
	return d.create(ctx, b)
}

// Assign implements sandbox.Prepared.
func (b *box) Assign(ctx context.Context, spec sandbox.Spec) error {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	if err := errors.Join(ctx.Err(), spec.Check(), b.usable()); err != nil {
		return err
	}
	if !b.unassigned || spec.Root != "" || spec.TmpBytes != b.spec.TmpBytes || b.d.network.Of(spec) != b.d.network.Of(b.spec) {
		return b.wrap(errors.New("it is not made for such a function, or it is another's"))
	}
	b.unassigned = false
	err := b.cg.Limit(limits(spec))
	if err == nil {
		err = b.mountLate(spec)
	}
	if err == nil {
		err = b.leadOut(spec, true)
	}
	if err != nil {
		return b.wrap(fmt.Errorf("assign it: %w", err))
	}
	b.spec.Task, b.spec.Opt, b.spec.MemoryBytes, b.spec.MilliCPU = spec.Task, spec.Opt, spec.MemoryBytes, spec.MilliCPU
	return nil
}

// mountLate mounts what setup could not know.
func (b *box) mountLate(spec sandbox.Spec) error {
	var late []lateMount
	defer func() {
		for _, m := range late {
			_ = unix.Close(m.tree)
		}
	}()
	for _, m := range []skeleton.BindMount{
		{Src: spec.Task, Dst: skeleton.TaskDir, Mode: skeleton.ReadOnly},
		{Src: spec.Opt, Dst: skeleton.OptDir, Mode: skeleton.ReadOnly},
	} {
		if m.Src == "" {
			continue
		}
		tree, err := skeleton.Clone(m.Src, m.Mode)
		if err != nil {
			return err
		}
		late = append(late, lateMount{tree: tree, dst: m.Dst})
		// Within setup the whole root is made private at once.
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
			return fmt.Errorf("make the mount of %s private: %w", m.Src, err)
		}
	}
	return b.attach(late)
}

// lateMount is a mount for a sandbox that has its root already.
type lateMount struct {
	tree int
	dst  string
}

// newVisitor makes the thread that enters sandboxes' mount namespaces, and returns
// to the daemon's: what is mounted in a namespace lives for as long as a thread is there.
func newVisitor() (*first.Thread, error) {
	// Without it the kernel refuses to change the mount namespace.
	t, err := first.NewThread(func() error { return unix.Unshare(unix.CLONE_FS) })
	if err != nil {
		return nil, fmt.Errorf("make a thread that enters sandboxes: %w", err)
	}
	return t, nil
}

// attach mounts in the namespace of init, which is our child and not
// waited for: its number is nobody else's.
func (b *box) attach(mounts []lateMount) (err error) {
	theirs, err := openNamespace(strconv.Itoa(b.initPID))
	if err != nil {
		return err
	}
	defer unix.Close(theirs)
	b.visitor.Do(func() {
		err = inNamespace(theirs, func() error {
			root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open the root: %w", err)
			}
			defer unix.Close(root)
			for _, m := range mounts {
				if err := skeleton.Place(root, m.tree, m.dst); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return err
}

func openNamespace(of string) (int, error) {
	fd, err := unix.Open("/proc/"+of+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the mount namespace of a process: %w", err)
	}
	return fd, nil
}

// inNamespace runs f with this thread in another mount namespace, and returns to its own.
func inNamespace(fd int, f func() error) (err error) {
	own, err := openNamespace("thread-self")
	if err != nil {
		return err
	}
	defer unix.Close(own)
	if err := unix.Setns(fd, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter a mount namespace: %w", err)
	}
	defer func() {
		if back := unix.Setns(own, unix.CLONE_NEWNS); back != nil {
			err = errors.Join(err, fmt.Errorf("leave a mount namespace: %w", back))
		}
	}()
	return f()
}
