package pid1

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What is between two looks for what KillAll left.
const (
	settle    = 50 * time.Microsecond
	maxSettle = 5 * time.Millisecond
)

// Command is a process to start.
type Command struct {
	Path, Dir string
	Args, Env []string
	Files     []uintptr // its descriptors, from 0 on
}

// Processes are those that process 1 starts, and all that they leave to it. It has two
// threads that matter: its leader waits for children, and a second one serves the
// daemon's requests and is the only one that forks.
type Processes struct {
	Server Server
	Null   *os.File                   // standard input
	Start  func(Command) (int, error) // makes a process group

	mu     sync.Mutex
	forked *sync.Cond   // signalled when there may be a first child
	groups map[int]bool // guarded by mu; process groups made by exec
}

// NewProcesses returns them without Null and Start, which a later setup knows.
func NewProcesses(s Server) *Processes {
	_ = os.WriteFile("/proc/self/comm", []byte(Name), 0) // the kernel would have it end in a number
	p := &Processes{Server: s, groups: map[int]bool{}}
	p.forked = sync.NewCond(&p.mu)
	return p
}

// Handle answers a request of these; known is false for others:
//
//	exec path dir argc args… env…, with 2–3   → ok pid
//	signal pid number                         → ok
//	killall                                   → ok
func (p *Processes) Handle(id uint64, fields []string, fds []int) (known bool) {
	switch args := fields[1:]; fields[0] {
	case "exec":
		// The answer goes out under the lock: it precedes the news of the exit.
		p.mu.Lock()
		defer p.mu.Unlock()
		pid, err := p.exec(args, fds)
		if err != nil {
			p.Server.Reply(id, err)
			return true
		}
		p.groups[pid] = true
		p.forked.Signal()
		p.Server.Reply(id, nil, strconv.Itoa(pid))
	case "signal":
		p.Server.Reply(id, p.signal(args))
	case "killall":
		p.killAll()
		p.Server.Reply(id, nil)
	default:
		return false
	}
	return true
}

func (p *Processes) exec(args []string, fds []int) (pid int, err error) {
	if len(args) < 3 || len(fds) < 2 {
		return 0, fmt.Errorf("malformed exec: %w", unix.EINVAL)
	}
	n, err := strconv.Atoi(args[2])
	if err != nil || n < 0 || n > len(args)-3 {
		return 0, fmt.Errorf("malformed exec: %w", unix.EINVAL)
	}
	c := Command{Dir: args[1], Args: args[3 : 3+n], Env: args[3+n:], Files: []uintptr{p.Null.Fd()}}
	for _, fd := range fds {
		c.Files = append(c.Files, uintptr(fd))
	}
	// Looked at here, because exec does not say which of the two is missing.
	if c.Path, err = Look(args[0], c.Dir, c.Env); err != nil {
		return 0, err
	}
	if pid, err = p.Start(c); err != nil {
		return 0, fmt.Errorf("exec %s: %w", c.Path, err)
	}
	return pid, nil
}

// signal sends to a process group that exec made.
func (p *Processes) signal(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("malformed signal: %w", unix.EINVAL)
	}
	pid, err1 := strconv.Atoi(args[0])
	sig, err2 := strconv.Atoi(args[1])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.groups[pid] {
		return fmt.Errorf("no process %d", pid)
	}
	if err := unix.Kill(-pid, syscall.Signal(sig)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %d: %w", pid, err)
	}
	return nil
}

// killAll kills every other process of the namespace until there is none. Nothing is
// started meanwhile: this thread is the one that would.
func (p *Processes) killAll() {
	for pause := settle; ; pause = min(2*pause, maxSettle) {
		if errors.Is(unix.Kill(-1, unix.SIGKILL), unix.ESRCH) {
			break
		}
		time.Sleep(pause)
	}
	// The reaper has told of every exit before it lets go of the lock.
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.groups)
}

// Reap waits for children, adopted ones included, and tells of those that exec
// started. It never returns.
func (p *Processes) Reap() {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil)
		p.mu.Lock()
		if errors.Is(err, unix.ECHILD) {
			// No children, hence nobody who could leave us orphans.
			if !children() {
				p.forked.Wait()
			}
		} else if err == nil {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if err == nil && p.groups[pid] {
				p.Server.Exited(pid, status)
			}
		}
		p.mu.Unlock()
	}
}

// children reports whether there are any. The caller holds mu, so that none is
// being started.
func children() bool {
	var info unix.Siginfo
	return !errors.Is(unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil), unix.ECHILD)
}
