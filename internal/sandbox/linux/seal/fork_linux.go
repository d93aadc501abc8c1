package seal

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Child is a process to start. Only init starts some, with its other threads
// running and one thread that forks.
//
// This is syscall.ForkExec, reduced to what init needs, with one step more: the
// filter of system calls is installed between fork and exec. It must not be on
// the forking thread, whose children would inherit it, because that thread needs
// clone3 to clone into a cgroup (v2), and clone3, whose flags no filter can see,
// is the one call that a function must not have: it makes user namespaces.
// DESIGN.md has the other ways that were looked at.
type Child struct {
	path       *byte
	args, vars []*byte
	dir        *byte // nil: where init is
	files      []uintptr
	ID         int // of its user and group; 0: init's
	Cgroup     int // the descriptor of a cgroup v2 to be born in; 0: the forking thread's
	Filter     *unix.SockFprog

	clone cloneArgs
	// failed and at are written by the child, which shares the memory, and read
	// once it has executed another program or is gone.
	failed syscall.Errno
	at     step
}

// step is what a child was at when it failed.
type step uintptr

const (
	atSession step = iota
	atUser
	atDirectory
	atFiles
	atFilter
	atExec
)

func (s step) String() string {
	return [...]string{"make a session", "change the user", "enter the working directory", "arrange descriptors", "install the filter of system calls", "exec"}[s]
}

// cloneArgs is struct clone_args of linux/sched.h.
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// NewChild prepares a start, with the descriptors from 0 on.
func NewChild(path, dir string, args, vars []string, files []uintptr) (c *Child, err error) {
	c = &Child{files: files}
	if c.path, err = syscall.BytePtrFromString(path); err != nil {
		return nil, err
	}
	if c.args, err = syscall.SlicePtrFromStrings(args); err != nil {
		return nil, err
	}
	if c.vars, err = syscall.SlicePtrFromStrings(vars); err != nil {
		return nil, err
	}
	if dir != "" {
		c.dir, err = syscall.BytePtrFromString(dir)
	}
	return c, err
}

// Start returns once the program was executed, or could not be.
func (c *Child) Start() (pid int, err error) {
	syscall.ForkLock.Lock()
	id, errno := c.fork()
	afterFork()
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(c)
	if errno != 0 {
		return 0, fmt.Errorf("fork: %w", syscall.Errno(errno))
	}
	pid = int(id)
	if c.failed == 0 {
		return pid, nil
	}
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	return 0, fmt.Errorf("%v: %w", c.at, c.failed)
}

// fork returns in the parent only, once the child does not need its memory any
// more. What the child does it does on this very stack frame, so the parent
// must leave at once; and the child must neither allocate, nor grow the stack,
// nor take a lock.
//
//go:noinline
//go:norace
//go:nocheckptr
func (c *Child) fork() (pid, errno uintptr) {
	var (
		i      int
		fd, n  uintptr
		failed syscall.Errno
	)
	c.clone = cloneArgs{flags: unix.CLONE_VM | unix.CLONE_VFORK, exitSignal: uint64(unix.SIGCHLD)}
	beforeFork()
	if c.Cgroup != 0 {
		c.clone.flags |= unix.CLONE_INTO_CGROUP
		c.clone.cgroup = uint64(c.Cgroup)
		pid, errno = rawVfork(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&c.clone)), unsafe.Sizeof(c.clone))
	} else {
		pid, errno = rawVfork(unix.SYS_CLONE, uintptr(c.clone.flags|c.clone.exitSignal), 0)
	}
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	afterForkInChild()

	c.at = atSession
	if _, _, failed = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); failed != 0 {
		goto fail
	}
	if c.ID != 0 {
		c.at = atUser
		if _, _, failed = syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); failed != 0 {
			goto fail
		}
		if _, _, failed = syscall.RawSyscall(unix.SYS_SETGID, uintptr(c.ID), 0, 0); failed != 0 {
			goto fail
		}
		if _, _, failed = syscall.RawSyscall(unix.SYS_SETUID, uintptr(c.ID), 0, 0); failed != 0 {
			goto fail
		}
	}
	if c.dir != nil {
		c.at = atDirectory
		if _, _, failed = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(c.dir)), 0, 0); failed != 0 {
			goto fail
		}
	}
	// Out of the way of each other first, then to their places.
	c.at = atFiles
	n = uintptr(len(c.files))
	for i = 0; i < len(c.files); i++ {
		if c.files[i] >= n {
			continue
		}
		if fd, _, failed = syscall.RawSyscall(unix.SYS_FCNTL, c.files[i], unix.F_DUPFD_CLOEXEC, n); failed != 0 {
			goto fail
		}
		c.files[i] = fd
	}
	for i = 0; i < len(c.files); i++ {
		if _, _, failed = syscall.RawSyscall(unix.SYS_DUP3, c.files[i], uintptr(i), 0); failed != 0 {
			goto fail
		}
	}
	if c.Filter != nil {
		c.at = atFilter
		if _, _, failed = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, uintptr(unsafe.Pointer(c.Filter))); failed != 0 {
			goto fail
		}
	}
	c.at = atExec
	_, _, failed = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.path)), uintptr(unsafe.Pointer(&c.args[0])), uintptr(unsafe.Pointer(&c.vars[0])))
fail:
	c.failed = failed
	for {
		syscall.RawSyscall(unix.SYS_EXIT, 253, 0, 0)
	}
}

// rawVfork makes the system call clone or clone3 such that a child may go on with
// the memory and the stack of its parent.
func rawVfork(trap, a1, a2 uintptr) (r1, errno uintptr)

// The runtime's part in a fork; it keeps these for callers like this one
// (golang.org/issue/67401).

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()
