package skeleton

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// The paths and names inside, which are AWS's. There is no HOME, as on AWS: the home
// directory is in /etc/passwd, empty and read-only.
const (
	TaskDir    = "/var/task"
	OptDir     = "/opt"
	RuntimeDir = "/var/runtime"
	LangDir    = "/var/lang"
	TmpDir     = "/tmp"
	UserName   = "sbx_user1051"
	HomeDir    = "/home/" + UserName
	HostName   = "sandbox"
)

// MountPoints are the paths that a root which takes the skeleton's place must have.
func MountPoints() []string {
	return []string{
		"/proc/", "/dev/", TmpDir + "/", TaskDir + "/", OptDir + "/", RuntimeDir + "/", LangDir + "/", "/mnt/",
		"/etc/passwd", "/etc/group", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
	}
}

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

// Skeleton is the root that all sandboxes of a daemon share: a directory with
// what is made of files and links, and the list of what is bound into it.
type Skeleton struct {
	Dir   string
	Binds []string // of the host, each at its own path inside
}

// New writes the directory anew, with that text as its /etc/resolv.conf, and further files
// by their paths inside.
func New(dir string, resolv []byte, files map[string][]byte) (*Skeleton, error) {
	s := &Skeleton{Dir: dir}
	if err := os.RemoveAll(dir); err != nil { // ours alone: no function ever wrote there
		return nil, err
	}
	for _, d := range []string{"", "/etc", "/dev", "/proc", TaskDir, OptDir, RuntimeDir, LangDir, TmpDir, HomeDir, "/mnt"} {
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
	for name, text := range map[string]string{
		"/etc/hosts":         "127.0.0.1 localhost sandbox.localdomain " + HostName + "\n::1 localhost ip6-localhost\n",
		"/etc/hostname":      HostName + "\n",
		"/etc/resolv.conf":   string(resolv),
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"/etc/passwd":        "", // bound for each sandbox
		"/etc/group":         "",
	} {
		if err := os.WriteFile(dir+name, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	for path, content := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(dir+path), 0o755), os.WriteFile(dir+path, content, 0o644)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// like makes path inside what it is on the host: a link as it is, a file as a
// copy, a directory as a mount point, to be bound.
func (s *Skeleton) like(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return nil // the host has none
	}
	if err := os.MkdirAll(filepath.Dir(s.Dir+path), 0o755); err != nil {
		return err
	}
	switch {
	case st.Mode()&os.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return os.Symlink(to, s.Dir+path)
	case st.IsDir():
		s.Binds = append(s.Binds, path)
		return os.Mkdir(s.Dir+path, 0o755)
	case st.Mode().IsRegular():
		b, err := os.ReadFile(path)
		if err != nil {
			return nil // not for this user to read
		}
		return os.WriteFile(s.Dir+path, b, 0o644)
	}
	return nil
}

// Mount makes the skeleton a tree of mounts in the caller's mount namespace,
// which must not be the host's.
func (s *Skeleton) Mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := Bind(s.Dir, s.Dir); err != nil {
		return err
	}
	for _, b := range s.Binds {
		if err := Bind(b, s.Dir+b); err != nil {
			return err
		}
	}
	if err := Seal(s.Dir, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
		return err
	}
	for _, d := range devices {
		if err := Bind("/dev/"+d, s.Dir+"/dev/"+d); err != nil {
			return err
		}
	}
	if err := unix.Mount("", s.Dir, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", s.Dir, err)
	}
	return nil
}

// Bind shows src, with what is mounted below it, at dst.
func Bind(src, dst string) error {
	if err := unix.Mount(src, dst, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", src, err)
	}
	return nil
}

// Seal adds mount attributes to the tree at dir.
func Seal(dir string, attrs uint64) error {
	err := unix.MountSetattr(unix.AT_FDCWD, dir, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs})
	if err != nil {
		return fmt.Errorf("set mount attributes of %s: %w", dir, err)
	}
	return nil
}

// Users keeps /etc/passwd and /etc/group for each user id, made when it is first
// used: the ids come again and again, and two files cost as much as all mounts.
type Users struct {
	dir string

	mu    sync.Mutex
	known map[int]bool // guarded by mu
}

// NewUsers keeps them in dir, which is theirs alone.
func NewUsers(dir string) (*Users, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	return &Users{dir: dir, known: map[int]bool{}}, os.MkdirAll(dir, 0o755)
}

// File is of a user id, or of a sandbox with a root of its own.
func (u *Users) File(of, name string) string { return filepath.Join(u.dir, of+"."+name) }

// Describe makes the files of a user id.
func (u *Users) Describe(uid int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known[uid] {
		return nil
	}
	for name, text := range map[string]string{
		"passwd": fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\n%s:x:%d:%d::%s:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n",
			UserName, uid, uid, HomeDir),
		"group": fmt.Sprintf("root:x:0:\n%s:x:%d:\nnobody:x:65534:\n", UserName, uid),
	} {
		if err := os.WriteFile(u.File(strconv.Itoa(uid), name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	u.known[uid] = true
	return nil
}

// DescribeIn makes the files of a user id for a sandbox whose root has users of
// its own, under the sandbox's name: programs look for theirs. Forget removes them.
func (u *Users) DescribeIn(root, name string, uid int) error {
	if err := u.Describe(uid); err != nil {
		return err
	}
	tree, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(tree)
	for _, file := range UserFiles {
		ours, err := os.ReadFile(u.File(strconv.Itoa(uid), file))
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
		if err := os.WriteFile(u.File(name, file), ours, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Forget removes what DescribeIn made.
func (u *Users) Forget(name string) {
	for _, file := range UserFiles {
		_ = os.Remove(u.File(name, file)) // else the next start does
	}
}

// UserFiles are the files of users, in /etc.
var UserFiles = []string{"passwd", "group"}

// maxUserFile bounds an image's list of users, in bytes.
const maxUserFile = 256 << 10

// openIn opens a path as a process with that root would.
func openIn(root int, path string, flags uint64) (int, error) {
	return unix.Openat2(root, path, &unix.OpenHow{
		Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}
