package seal

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox/skeleton"
)

// The lock is landlock's: what the mounts, the user and the namespaces say
// already, said once more in another part of the kernel, so that a hole in one is
// none yet. Nothing is written outside /tmp but devices and /proc; nothing is
// mounted or moved, whatever privileges are gained; nobody outside the sandbox is
// signalled, traced, or reached over an abstract socket, which otherwise only
// a network namespace keeps apart.

const (
	lockReads  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	lockWrites = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	lockMakes  = unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REFER
)

// LockVersion is what this kernel's landlock knows of; 0: it has none.
func LockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// Lock locks this thread and its children. It is one lock for all of a
// sandbox's processes, because two with locks of their own could not signal
// each other. The thread must have no_new_privs and be in the sandbox's root.
func Lock(version int) error {
	all := uint64(lockReads | lockWrites | lockMakes)
	rules := unix.LandlockRulesetAttr{Handled_access_fs: all}
	if version < 2 {
		rules.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version < 3 {
		rules.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 6 {
		rules.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), unsafe.Sizeof(rules), 0)
	if errno != 0 {
		return fmt.Errorf("make a landlock: %w", errno)
	}
	defer unix.Close(int(fd))
	for _, r := range []struct {
		path    string
		allowed uint64
	}{{"/", lockReads}, {"/dev", lockReads | lockWrites}, {"/proc", lockReads | lockWrites}, {skeleton.TmpDir, all}} {
		at, err := unix.Open(r.path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", r.path, err)
		}
		rule := unix.LandlockPathBeneathAttr{Allowed_access: r.allowed & rules.Handled_access_fs, Parent_fd: int32(at)}
		_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
		_ = unix.Close(at)
		if errno != 0 {
			return fmt.Errorf("landlock %s: %w", r.path, errno)
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	return nil
}
