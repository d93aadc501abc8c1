package skeleton

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Layout is what one sandbox adds to the skeleton.
type Layout struct {
	Root   string // the skeleton's directory
	Image  string // the root file system that takes the skeleton's place; "" for none
	Binds  []BindMount
	Static []string // the skeleton's own binds, when it is not mounted yet
	Fresh  bool     // the skeleton is not mounted yet
	Tmp    int      // a mount for /tmp, by its descriptor; 0: it is among the binds
}

// BindMount shows what is at Src at Dst.
type BindMount struct{ Src, Dst, Mode string }

// The modes of a bind mount.
const (
	ReadOnly  = "ro"
	ReadWrite = "rw"
	AsItIs    = "as" // what is of the skeleton has its attributes already
)

// Set takes an argument of a setup request, key=value; known is false for one that is
// not the layout's. A mount for /tmp is the first of the descriptors that came along.
func (l *Layout) Set(argument string, fds []int) (known bool, err error) {
	key, value, _ := strings.Cut(argument, "=")
	switch key {
	case "root":
		l.Root = value
	case "static":
		l.Fresh = true
		if value != "" {
			l.Static = append(l.Static, value)
		}
	case "image":
		l.Image = value
	case ReadOnly, ReadWrite, AsItIs:
		b, ok := parseBind(argument)
		if !ok {
			return true, fmt.Errorf("malformed %q", argument)
		}
		l.Binds = append(l.Binds, b)
	case "tmp":
		if len(fds) == 0 {
			return true, fmt.Errorf("no mount for %s came along: %w", TmpDir, unix.EINVAL)
		}
		l.Tmp = fds[0]
	default:
		return false, nil
	}
	return true, nil
}

// Assemble mounts a sandbox's root at that of the skeleton, in a mount namespace that
// is the sandbox's alone.
func (l *Layout) Assemble() error {
	if l.Fresh {
		if err := (&Skeleton{Dir: l.Root, Binds: l.Static}).Mount(); err != nil {
			return err
		}
	}
	// What is mounted is taken first, because an image covers the
	trees := make([]int, len(l.Binds))
	for i, b := range l.Binds {
		var err error
		if trees[i], err = Clone(b.Src, b.Mode); err != nil {
			return err
		}
		defer unix.Close(trees[i])
	}
	if l.Image != "" {
		image, err := Clone(l.Image, ReadOnly)
		if err != nil {
			return err
		}
		defer unix.Close(image)
		if err := unix.MoveMount(image, "", unix.AT_FDCWD, l.Root, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount the image: %w", err)
		}
	}
	root, err := unix.Open(l.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the root: %w", err)
	}
	defer unix.Close(root)
	for i, b := range l.Binds {
		if err := Place(root, trees[i], b.Dst); err != nil {
			return err
		}
	}
	if l.Tmp != 0 {
		return Place(root, l.Tmp, TmpDir)
	}
	return nil
}

// Enter assembles the root and makes it that of this process. It runs in init.
func (l *Layout) Enter() error {
	if err := l.Assemble(); err != nil {
		return err
	}
	if err := unix.Mount("proc", l.Root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// What the host mounts later below a bound directory stays outside.
	if err := unix.Mount("", l.Root, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the root private: %w", err)
	}
	if err := unix.Chdir(l.Root); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	// The old root is stacked on the new one, and taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return unix.Chdir("/")
}

// Clone makes a mount of src that is attached nowhere yet.
func Clone(src, mode string) (tree int, err error) {
	tree, err = unix.OpenTree(unix.AT_FDCWD, src, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("bind %s: %w", src, err)
	}
	attrs := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	switch mode {
	case AsItIs:
		return tree, nil
	case ReadOnly:
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs}); err != nil {
		_ = unix.Close(tree)
		return -1, fmt.Errorf("set mount attributes of %s: %w", src, err)
	}
	return tree, nil
}

// Place attaches a mount where dst leads within the root: an image's links must
// not lead to the host's paths, which are still there.
func Place(root, tree int, dst string) error {
	at, err := openIn(root, dst, unix.O_PATH)
	if err != nil {
		return fmt.Errorf("find %s in the root: %w", dst, err)
	}
	defer unix.Close(at)
	if err := unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", dst, err)
	}
	return nil
}

func (b BindMount) String() string { return b.Mode + "=" + b.Dst + "=" + b.Src }

func parseBind(s string) (b BindMount, ok bool) {
	mode, rest, ok1 := strings.Cut(s, "=")
	dst, src, ok2 := strings.Cut(rest, "=")
	return BindMount{Src: src, Dst: dst, Mode: mode}, ok1 && ok2
}
