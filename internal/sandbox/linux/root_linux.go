package linux

import (
	"fmt"
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

func (u *users) file(uid int, name string) string {
	return filepath.Join(u.dir, strconv.Itoa(uid)+"."+name)
}

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
		if err := os.WriteFile(u.file(uid, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	u.known[uid] = true
	return nil
}

// layout is what one sandbox adds to the skeleton.
type layout struct {
	root   string // the skeleton's directory
	binds  []bindMount
	static []string // the skeleton's own binds, when it is not mounted yet
	fresh  bool     // the skeleton is not mounted yet
}

type bindMount struct {
	src, dst string
	writable bool
}

// enter mounts a sandbox's root and makes it the root of this process. It runs in init.
func (l *layout) enter() error {
	if l.fresh {
		if err := (&skeleton{dir: l.root, binds: l.static}).mount(); err != nil {
			return err
		}
	}
	for _, b := range l.binds {
		dst := l.root + b.dst
		if err := bind(b.src, dst); err != nil {
			return err
		}
		attrs := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
		if !b.writable {
			attrs |= unix.MOUNT_ATTR_RDONLY
		}
		if err := seal(dst, attrs); err != nil {
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

func (b bindMount) String() string {
	if b.writable {
		return "rw=" + b.dst + "=" + b.src
	}
	return "ro=" + b.dst + "=" + b.src
}

func parseBind(s string) (b bindMount, ok bool) {
	mode, rest, ok1 := strings.Cut(s, "=")
	dst, src, ok2 := strings.Cut(rest, "=")
	return bindMount{src: src, dst: dst, writable: mode == "rw"}, ok1 && ok2
}
