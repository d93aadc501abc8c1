package gvisor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/control"
)

const (
	openFiles   = 1024     // RLIMIT_NOFILE, as on AWS
	processes   = 1024     // AWS's documented quota, and threads count
	lockedBytes = 64 << 10 // RLIMIT_MEMLOCK, as on AWS
	lastCap     = 63       // capability numbers end below; the kernel says where

	settle    = 50 * time.Microsecond // between two looks for what killAll left
	maxSettle = 5 * time.Millisecond

	// maxStreams bounds the connections that are relayed at once: two descriptors
	// each, of those that the limit for functions leaves this process too.
	maxStreams  = 400
	relayBuffer = 32 << 10         // bytes, for each direction
	dialTimeout = 60 * time.Second // for a listener that accepts nobody, after the daemon has left
)

// inner is process 1 in gVisor. As the linux driver's init it has two threads that
// matter: the leader waits for children, and a second one serves the daemon's
// requests and is the only one that forks, because it is the one without capabilities. The
// network being gVisor's own, it also listens, connects, and relays bytes.
type inner struct {
	server control.Server
	uid    int
	null   *os.File
	slots  chan struct{} // taken for each stream

	mu        sync.Mutex
	forked    sync.Cond               // signalled when there may be a first child
	groups    map[int]bool            // guarded by mu; process groups made by exec
	accepted  map[string]net.Conn     // guarded by mu; that wait for a stream, by number
	last      uint64                  // guarded by mu
	listening map[string]net.Listener // guarded by mu; by port
}

func beInner() int {
	runtime.LockOSThread()
	syscall.CloseOnExec(controlFD)
	in := &inner{
		server: controlFD, slots: make(chan struct{}, maxStreams),
		groups: map[int]bool{}, accepted: map[string]net.Conn{}, listening: map[string]net.Listener{},
	}
	in.forked.L = &in.mu
	go func() { // ends with the process
		runtime.LockOSThread()
		in.server.Event("ready")
		_ = in.server.Serve(in.handle)
		os.Exit(0)
	}()
	in.reap()
	return 0
}

func (in *inner) handle(id uint64, fields []string, fds []int) {
	verb, args := fields[0], fields[1:]
	var err error
	switch verb {
	case "setup":
		err = in.setup(args)
	case "listen":
		err = in.listen(args[0])
	case "unlisten":
		in.unlisten(args[0])
	case "stream":
		in.stream(args[0], fds)
	case "dial":
		in.dial(id, args[0], fds)
		return
	case "exec":
		// The answer goes out under the lock: it precedes the news of the exit.
		in.mu.Lock()
		defer in.mu.Unlock()
		var pid int
		if pid, err = in.exec(args, fds); err == nil {
			in.groups[pid] = true
			in.forked.Signal()
			in.server.Reply(id, nil, strconv.Itoa(pid))
			return
		}
	case "signal":
		err = in.signal(args)
	case "killall":
		in.killAll()
	default:
		err = fmt.Errorf("unknown request %q", verb)
	}
	in.server.Reply(id, err)
}

// setup makes what was mounted late the root of this process, for the user whose id
// is the argument.
func (in *inner) setup(args []string) (err error) {
	if in.uid, err = strconv.Atoi(args[0]); err != nil {
		return err
	}
	if err := unix.Mount(lateDir, lateDir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind the root: %w", err)
	}
	if err := unix.Chdir(lateDir); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if in.null, err = os.Open("/dev/null"); err != nil {
		return err
	}
	syscall.Umask(0o022)
	return restrict()
}

// restrict takes away what neither this thread nor its children need. Children lose
// the rest with their change of user.
func restrict() error {
	// gVisor counts a user's processes and threads, but not the one that became the
	// user's. It has no other user, so that nothing else need bound them.
	for which, n := range map[int]uint64{unix.RLIMIT_NOFILE: openFiles, unix.RLIMIT_CORE: 0, unix.RLIMIT_MEMLOCK: lockedBytes, unix.RLIMIT_NPROC: processes - 1} {
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
	const keep = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_KILL | 1<<unix.CAP_NET_BIND_SERVICE
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep}}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// listen accepts connections for the daemon: each gets a number, by which the daemon
// sends a stream for it.
func (in *inner) listen(port string) error {
	l, err := net.Listen("tcp4", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	in.mu.Lock()
	in.listening[port] = l
	in.mu.Unlock()
	go func() { // ends when the listener is closed, or with the process
		for {
			in.slots <- struct{}{}
			conn, err := l.Accept()
			if err != nil {
				<-in.slots
				return
			}
			in.mu.Lock()
			in.last++
			number := strconv.FormatUint(in.last, 10)
			in.accepted[number] = conn
			in.mu.Unlock()
			in.server.Event("accept", port, number, strconv.Itoa(conn.RemoteAddr().(*net.TCPAddr).Port))
		}
	}()
	return nil
}

func (in *inner) unlisten(port string) {
	in.mu.Lock()
	l := in.listening[port]
	delete(in.listening, port)
	in.mu.Unlock()
	if l != nil {
		_ = l.Close()
	}
}

// stream joins an accepted connection to the descriptor that came for it; without one
// the daemon does not want it.
func (in *inner) stream(number string, fds []int) {
	in.mu.Lock()
	conn := in.accepted[number]
	delete(in.accepted, number)
	in.mu.Unlock()
	if conn == nil {
		return
	}
	stream, err := take(fds)
	if err != nil {
		_ = conn.Close()
		<-in.slots
		return
	}
	go in.relay(conn, stream) // ends with the connection
}

// dial connects to a port and joins the descriptor to the connection.
func (in *inner) dial(id uint64, port string, fds []int) {
	stream, err := take(fds)
	if err != nil {
		in.server.Reply(id, err)
		return
	}
	go func() { // ends with the connection
		conn, err := net.DialTimeout("tcp4", "127.0.0.1:"+port, dialTimeout)
		if err != nil {
			_ = stream.Close()
			in.server.Reply(id, err)
			return
		}
		in.slots <- struct{}{}
		in.server.Reply(id, nil)
		in.relay(conn, stream)
	}()
}

// take makes a connection of the first descriptor, which is then no longer the caller's.
func take(fds []int) (*net.UnixConn, error) {
	if len(fds) == 0 {
		return nil, fmt.Errorf("no stream came along: %w", unix.EINVAL)
	}
	f := os.NewFile(uintptr(fds[0]), "stream")
	fds[0] = -1
	defer f.Close() // FileConn duplicates it
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// relay copies both ways until both ends are done.
func (in *inner) relay(conn net.Conn, stream *net.UnixConn) {
	var up sync.WaitGroup
	up.Go(func() {
		copyAll(stream, conn)
		_ = stream.CloseWrite()
	})
	copyAll(conn, stream)
	_ = conn.(*net.TCPConn).CloseWrite()
	up.Wait()
	_ = conn.Close()
	_ = stream.Close()
	<-in.slots
}

// copyAll is plain reads and writes: splicing costs more system calls, which are what
// costs in gVisor.
func copyAll(to io.Writer, from io.Reader) {
	buf := make([]byte, relayBuffer)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// exec starts a process: path, dir, the number of arguments, arguments, environment.
func (in *inner) exec(args []string, fds []int) (pid int, err error) {
	if len(args) < 3 || len(fds) < 2 {
		return 0, fmt.Errorf("malformed exec: %w", unix.EINVAL)
	}
	path, dir := args[0], args[1]
	n, err := strconv.Atoi(args[2])
	if err != nil || n < 0 || n > len(args)-3 {
		return 0, fmt.Errorf("malformed exec: %w", unix.EINVAL)
	}
	argv, env := args[3:3+n], args[3+n:]
	files := []uintptr{in.null.Fd()}
	for _, fd := range fds {
		files = append(files, uintptr(fd))
	}
	// Looked at here, because exec does not say which of the two is missing.
	if path, err = sandbox.Look(path, dir, env); err != nil {
		return 0, err
	}
	pid, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{Dir: dir, Env: env, Files: files, Sys: &syscall.SysProcAttr{
		Setsid: true, Credential: &syscall.Credential{Uid: uint32(in.uid), Gid: uint32(in.uid)},
	}})
	if err != nil {
		return 0, fmt.Errorf("exec %s: %w", path, err)
	}
	return pid, nil
}

// signal sends to a process group that exec made.
func (in *inner) signal(args []string) error {
	pid, err1 := strconv.Atoi(args[0])
	sig, err2 := strconv.Atoi(args[1])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.groups[pid] {
		return fmt.Errorf("no process %d", pid)
	}
	if err := unix.Kill(-pid, syscall.Signal(sig)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %d: %w", pid, err)
	}
	return nil
}

// killAll kills every other process until there is none. Nothing is started meanwhile:
// this thread is the one that would.
func (in *inner) killAll() {
	for pause := settle; ; pause = min(2*pause, maxSettle) {
		if errors.Is(unix.Kill(-1, unix.SIGKILL), unix.ESRCH) {
			break
		}
		time.Sleep(pause)
	}
	// The reaper has told of every exit before it lets go of the lock.
	in.mu.Lock()
	defer in.mu.Unlock()
	clear(in.groups)
}

// reap waits for children, adopted ones included, and tells of those that exec
// started. It never returns.
func (in *inner) reap() {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil)
		in.mu.Lock()
		if errors.Is(err, unix.ECHILD) {
			// No children, hence nobody who could leave us orphans.
			if !in.children() {
				in.forked.Wait()
			}
		} else if err == nil {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if err == nil && in.groups[pid] {
				in.server.Exited(pid, status)
			}
		}
		in.mu.Unlock()
	}
}

// children reports whether there are any. The caller holds mu, so that none is
// being started.
func (in *inner) children() bool {
	var info unix.Siginfo
	return !errors.Is(unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil), unix.ECHILD)
}
