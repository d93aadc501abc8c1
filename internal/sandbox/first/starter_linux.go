package first

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Starter is a thread that starts processes, and their parent. It has a table of descriptors of its own,
// with next to nothing in it: a child begins with a copy of its parent's, and the
// daemon has a dozen for each sandbox.
type Starter struct {
	thread *Thread

	mu  sync.Mutex // held from the sending of descriptors until they were received
	out int        // where they are sent, in the daemon's table
	in  int        // where they are received, in the thread's
}

// NewStarter runs prepare on the thread, and fails with it; nil for none.
func NewStarter(prepare func() error) (*Starter, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket for descriptors: %w", err)
	}
	s := &Starter{out: pair[0], in: pair[1]}
	s.thread, err = NewThread(func() error {
		if prepare != nil {
			if err := prepare(); err != nil {
				return err
			}
		}
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			return fmt.Errorf("make a table of descriptors: %w", err)
		}
		return keepOnly(s.in)
	})
	_ = unix.Close(pair[1]) // the thread has its own
	if err != nil {
		_ = unix.Close(pair[0])
		return nil, err
	}
	return s, nil
}

// keepOnly closes this thread's descriptors but one, standard ones, and those by which Go's
// runtime wakes threads that wait.
func keepOnly(one int) error {
	const table = "/proc/thread-self/fd/"
	all, err := os.ReadDir(table)
	if err != nil {
		return err
	}
	for _, e := range all {
		fd, err := strconv.Atoi(e.Name())
		to, gone := os.Readlink(table + e.Name())
		if err != nil || gone != nil || fd <= 2 || fd == one || strings.HasPrefix(to, "anon_inode:[event") {
			continue
		}
		_ = unix.Close(fd)
	}
	return nil
}

// Start starts a process: the program, which gets itself as the descriptor behind attr's, or this
// program itself where that is nil.
//
// A descriptor that is not passed on cannot be executed by its number. When forking
// tells of a failure, it does so through a pipe, which it moves to the number above the highest that it
// passes on, whatever is there.
func (s *Starter) Start(program *os.File, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	path := "/proc/self/exe" // not os.Executable: this also works when the file was replaced by an upgrade
	files := attr.Files
	if program != nil {
		path = "/proc/self/fd/" + strconv.Itoa(len(files))
		files = append(files, program)
	}
	var sent []int
	for _, f := range files {
		if f != nil {
			sent = append(sent, int(f.Fd()))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := unix.Sendmsg(s.out, []byte{0}, unix.UnixRights(sent...), nil, 0); err != nil {
		return nil, fmt.Errorf("send descriptors: %w", err)
	}
	var pid int
	var err error
	s.thread.Do(func() {
		var own []int
		if own, err = s.receive(len(sent)); err != nil {
			return
		}
		fds, next := make([]uintptr, len(files)), own
		for i, f := range files {
			if fds[i] = ^uintptr(0); f != nil {
				fds[i], next = uintptr(next[0]), next[1:]
			}
		}
		pid, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{Dir: attr.Dir, Env: attr.Env, Files: fds, Sys: attr.Sys})
		for _, fd := range own {
			_ = unix.Close(fd)
		}
	})
	if err != nil {
		return nil, err
	}
	return os.FindProcess(pid) // it is a child, which nobody has waited for
}

// receive takes descriptors into the thread's table.
func (s *Starter) receive(n int) ([]int, error) {
	oob := make([]byte, unix.CmsgSpace(4*n))
	_, size, _, _, err := unix.Recvmsg(s.in, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:size])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("receive descriptors: malformed"), err)
	}
	return unix.ParseUnixRights(&messages[0])
}

// Close ends the thread, and with it the processes that die with their parent.
func (s *Starter) Close() {
	s.thread.Close()
	_ = unix.Close(s.out)
}
