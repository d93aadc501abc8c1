package linux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// The paths inside, which are AWS's.
const (
	taskDir    = "/var/task"
	optDir     = "/opt"
	runtimeDir = "/var/runtime"
	langDir    = "/var/lang"
	tmpDir     = "/tmp"
	userName   = "sbx_user1051"
	homeDir    = "/home/" + userName
	hostName   = "sandbox"
)

// hostDirs are the host's directories of programs. Where the host has a link
// (bin → usr/bin), so has the sandbox.
var hostDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// hostEtc are the files and directories of the host's /etc that programs need and
// that hold no secrets; those that are missing are left out. /etc/ssl/private
// is not among them. Patterns as in filepath.Match.
var hostEtc = []string{
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
	"/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ssl/cert.pem", "/etc/ca-certificates", "/etc/ca-certificates.conf",
	"/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/ca-trust/extracted", "/etc/crypto-policies",
	"/etc/protocols", "/etc/services", "/etc/mime.types", "/etc/os-release", "/etc/fonts", "/etc/java-*",
}

// devices are what /dev has. There is no /dev/shm, as on AWS, where POSIX shared
// memory and with it Python's multiprocessing queues fail: a function that
// works here must work there. It would also be memory outside /tmp's bound.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// skeleton is the root that all sandboxes of a daemon share: a directory with
// what is made of files and links, and the list of what is bound into it.
type skeleton struct {
	dir   string
	binds []string // of the host, each at its own path inside
}

// newSkeleton writes the directory anew.
func newSkeleton(dir, network string) (*skeleton, error) {
	s := &skeleton{dir: dir}
	if err := os.RemoveAll(dir); err != nil { // ours alone: no function ever wrote there
		return nil, err
	}
	for _, d := range []string{"", "/etc", "/dev", "/proc", taskDir, optDir, runtimeDir, langDir, tmpDir, homeDir, "/mnt"} {
		if err := os.MkdirAll(dir+d, 0o755); err != nil {
			return nil, err
		}
	}
	for _, d := range hostDirs {
		if err := s.like(d); err != nil {
			return nil, err
		}
	}
	for _, pattern := range hostEtc {
		found, _ := filepath.Glob(pattern)
		for _, f := range found {
			if err := s.like(f); err != nil {
				return nil, err
			}
		}
	}
	for _, d := range devices {
		if err := os.WriteFile(dir+"/dev/"+d, nil, 0o444); err != nil {
			return nil, err
		}
	}
	for name, to := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
		"/etc/mtab": "/proc/mounts",
	} {
		if err := os.Symlink(to, dir+name); err != nil {
			return nil, err
		}
	}
	resolv := []byte("# This sandbox has no network beyond its loopback interface.\n")
	if network == NetworkHost {
		resolv, _ = os.ReadFile("/etc/resolv.conf")
	}
	for name, text := range map[string]string{
		"/etc/hosts":         "127.0.0.1 localhost sandbox.localdomain " + hostName + "\n::1 localhost ip6-localhost\n",
		"/etc/hostname":      hostName + "\n",
		"/etc/resolv.conf":   string(resolv),
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"/etc/passwd":        "", // bound for each sandbox
		"/etc/group":         "",
	} {
		if err := os.WriteFile(dir+name, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// like makes path inside what it is on the host: a link as it is, a file as a
// copy, a directory as a mount point, to be bound.
func (s *skeleton) like(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return nil // the host has none
	}
	if err := os.MkdirAll(filepath.Dir(s.dir+path), 0o755); err != nil {
		return err
	}
	switch {
	case st.Mode()&os.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return os.Symlink(to, s.dir+path)
	case st.IsDir():
		s.binds = append(s.binds, path)
		return os.Mkdir(s.dir+path, 0o755)
	case st.Mode().IsRegular():
		b, err := os.ReadFile(path)
		if err != nil {
			return nil // not for this user to read
		}
		return os.WriteFile(s.dir+path, b, 0o644)
	}
	return nil
}

// mount makes the skeleton a tree of mounts in the caller's mount namespace,
// which must not be the host's.
func (s *skeleton) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := bind(s.dir, s.dir); err != nil {
		return err
	}
	for _, b := range s.binds {
		if err := bind(b, s.dir+b); err != nil {
			return err
		}
	}
	if err := seal(s.dir, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
		return err
	}
	for _, d := range devices {
		if err := bind("/dev/"+d, s.dir+"/dev/"+d); err != nil {
			return err
		}
	}
	if err := unix.Mount("", s.dir, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", s.dir, err)
	}
	return nil
}

// bind shows src, with what is mounted below it, at dst.
func bind(src, dst string) error {
	if err := unix.Mount(src, dst, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", src, err)
	}
	return nil
}

// seal adds mount attributes to the tree at dir.
func seal(dir string, attrs uint64) error {
	err := unix.MountSetattr(unix.AT_FDCWD, dir, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs})
	if err != nil {
		return fmt.Errorf("set mount attributes of %s: %w", dir, err)
	}
	return nil
}

// users keeps /etc/passwd and /etc/group for each user id, made when it is first
// used: the ids come again and again, and two files cost as much as all mounts.
type users struct {
	dir string

	mu    sync.Mutex
	known map[int]bool // guarded by mu
}

func newUsers(dir string) (*users, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	return &users{dir: dir, known: map[int]bool{}}, os.MkdirAll(dir, 0o755)
}

// file is of a user id, or of a sandbox with a root of its own.
func (u *users) file(of, name string) string { return filepath.Join(u.dir, of+"."+name) }

// describe makes the files of a user id.
func (u *users) describe(uid int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known[uid] {
		return nil
	}
	for name, text := range map[string]string{
		"passwd": fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\n%s:x:%d:%d::%s:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n",
			userName, uid, uid, homeDir),
		"group": fmt.Sprintf("root:x:0:\n%s:x:%d:\nnobody:x:65534:\n", userName, uid),
	} {
		if err := os.WriteFile(u.file(strconv.Itoa(uid), name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	u.known[uid] = true
	return nil
}

// describeIn makes the files of a user id for a sandbox whose root has users of
// its own, under the sandbox's name: programs look for theirs. forget removes them.
func (u *users) describeIn(root, name string, uid int) error {
	if err := u.describe(uid); err != nil {
		return err
	}
	tree, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(tree)
	for _, file := range userFiles {
		ours, err := os.ReadFile(u.file(strconv.Itoa(uid), file))
		if err != nil {
			return err
		}
		if fd, err := openIn(tree, "/etc/"+file, unix.O_RDONLY|unix.O_NONBLOCK); err == nil {
			theirs := os.NewFile(uintptr(fd), file)
			text, err := io.ReadAll(io.LimitReader(theirs, maxUserFile))
			if err := errors.Join(err, theirs.Close()); err != nil {
				return err
			}
			ours = append(ours, text...)
		}
		if err := os.WriteFile(u.file(name, file), ours, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (u *users) forget(name string) {
	for _, file := range userFiles {
		_ = os.Remove(u.file(name, file)) // else the next start does
	}
}

var userFiles = []string{"passwd", "group"}

// maxUserFile bounds an image's list of users, in bytes.
const maxUserFile = 256 << 10

// layout is what one sandbox adds to the skeleton.
type layout struct {
	root   string // the skeleton's directory
	image  string // the root file system that takes the skeleton's place; "" for none
	binds  []bindMount
	static []string // the skeleton's own binds, when it is not mounted yet
	fresh  bool     // the skeleton is not mounted yet
	tmp    int      // a mount for /tmp, by its descriptor; 0: it is among the binds
}

type bindMount struct {
	src, dst string
	mode     string
}

// The modes of a bind mount.
const (
	readOnly  = "ro"
	readWrite = "rw"
	asItIs    = "as" // what is of the skeleton has its attributes already
)

// enter mounts a sandbox's root and makes it the root of this process. It runs in init.
func (l *layout) enter() error {
	if l.fresh {
		if err := (&skeleton{dir: l.root, binds: l.static}).mount(); err != nil {
			return err
		}
	}
	// What is mounted is taken first, because an image covers the skeleton.
	trees := make([]int, len(l.binds))
	for i, b := range l.binds {
		var err error
		if trees[i], err = clone(b.src, b.mode); err != nil {
			return err
		}
		defer unix.Close(trees[i])
	}
	if l.image != "" {
		image, err := clone(l.image, readOnly)
		if err != nil {
			return err
		}
		defer unix.Close(image)
		if err := unix.MoveMount(image, "", unix.AT_FDCWD, l.root, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount the image: %w", err)
		}
	}
	root, err := unix.Open(l.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the root: %w", err)
	}
	defer unix.Close(root)
	for i, b := range l.binds {
		if err := place(root, trees[i], b.dst); err != nil {
			return err
		}
	}
	if l.tmp != 0 {
		if err := place(root, l.tmp, tmpDir); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", l.root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// What the host mounts later below a bound directory stays outside.
	if err := unix.Mount("", l.root, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the root private: %w", err)
	}
	if err := unix.Chdir(l.root); err != nil {
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

// clone makes a mount of src that is attached nowhere yet.
func clone(src, mode string) (tree int, err error) {
	tree, err = unix.OpenTree(unix.AT_FDCWD, src, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("bind %s: %w", src, err)
	}
	attrs := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	switch mode {
	case asItIs:
		return tree, nil
	case readOnly:
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs}); err != nil {
		_ = unix.Close(tree)
		return -1, fmt.Errorf("set mount attributes of %s: %w", src, err)
	}
	return tree, nil
}

// openIn opens a path as a process with that root would.
func openIn(root int, path string, flags uint64) (int, error) {
	return unix.Openat2(root, path, &unix.OpenHow{
		Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// place attaches a mount where dst leads within the root: an image's links must
// not lead to the host's paths, which are still there.
func place(root, tree int, dst string) error {
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

func (b bindMount) String() string { return b.mode + "=" + b.dst + "=" + b.src }

func parseBind(s string) (b bindMount, ok bool) {
	mode, rest, ok1 := strings.Cut(s, "=")
	dst, src, ok2 := strings.Cut(rest, "=")
	return bindMount{src: src, dst: dst, mode: mode}, ok1 && ok2
}
