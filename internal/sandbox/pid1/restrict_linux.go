package pid1

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxProcesses is how many processes and threads a sandbox has, which is AWS's documented quota.
const MaxProcesses = 1024

const (
	openFiles   = 1024     // RLIMIT_NOFILE, as on AWS
	lockedBytes = 64 << 10 // RLIMIT_MEMLOCK, as on AWS
	lastCap     = 63       // capability numbers end below; the kernel says where
)

// Restrict takes away what neither this thread nor its children need: limits, with one on a
// user's processes unless it is 0, the way to new privileges, capabilities but those that are
// kept. Children lose the rest with their change of user.
func Restrict(processes uint64, keep uint32) error {
	limits := map[int]uint64{unix.RLIMIT_NOFILE: openFiles, unix.RLIMIT_CORE: 0, unix.RLIMIT_MEMLOCK: lockedBytes}
	if processes != 0 {
		limits[unix.RLIMIT_NPROC] = processes
	}
	for which, n := range limits {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(which, &now); err != nil {
			return fmt.Errorf("getrlimit %d: %w", which, err)
		}
		n = min(n, now.Max)
		if err := syscall.Setrlimit(which, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("setrlimit %d: %w", which, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	for c := range lastCap {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // beyond the kernel's last
		} else if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return Keep(keep)
}

// Keep gives up this thread's capabilities but those.
func Keep(keep uint32) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep}}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}
