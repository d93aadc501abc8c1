package inside

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox/pid1"
	"kiln/internal/sandbox/skeleton"
)

const (
	// MaxStreams bounds the connections that are relayed at once: two descriptors
	// each, of those that the limit for functions leaves this process too.
	MaxStreams  = 400
	relayBuffer = 32 << 10         // bytes, for each direction
	dialTimeout = 60 * time.Second // for a listener that accepts nobody, after the daemon has left
)

// inner is process 1 in gVisor. As the linux driver's init it has two threads that
// matter: the leader waits for children, and a second one serves the daemon's
// requests and is the only one that forks, because it is the one without capabilities. The
// network being gVisor's own, it also listens, connects, and relays bytes.
type inner struct {
	*pid1.Processes
	uid   int
	slots chan struct{} // taken for each stream

	mu        sync.Mutex
	accepted  map[string]net.Conn     // guarded by mu; that wait for a stream, by number
	last      uint64                  // guarded by mu
	listening map[string]net.Listener // guarded by mu; by port
}

func beInner() int {
	runtime.LockOSThread()
	syscall.CloseOnExec(controlFD)
	in := &inner{
		Processes: pid1.NewProcesses(controlFD), slots: make(chan struct{}, MaxStreams),
		accepted: map[string]net.Conn{}, listening: map[string]net.Listener{},
	}
	in.Start = in.start
	go func() { // ends with the process
		runtime.LockOSThread()
		in.Server.Event("ready")
		_ = in.Server.Serve(in.handle)
		os.Exit(0)
	}()
	in.Reap()
	return 0
}

func (in *inner) handle(id uint64, fields []string, fds []int) {
	if in.Handle(id, fields, fds) {
		return
	}
	var err error
	switch args := fields[1:]; fields[0] {
	case "setup":
		err = in.setup(args)
	case "assign":
		err = in.assign(args)
	case "listen":
		err = in.listen(args[0])
	case "unlisten":
		in.unlisten(args[0])
	case "stream":
		in.stream(args[0], fds)
	case "dial":
		in.dial(id, args[0], fds)
		return
	default:
		err = fmt.Errorf("unknown request %q", fields[0])
	}
	in.Server.Reply(id, err)
}

// capabilities are what this process needs for those of functions: another user, signals to
// them, listening below 1024.
const capabilities = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_KILL | 1<<unix.CAP_NET_BIND_SERVICE

// setup makes what was mounted late the root of this process, for the user whose id
// is the argument. A second one says that assign is to follow.
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
	if in.Null, err = os.Open("/dev/null"); err != nil {
		return err
	}
	syscall.Umask(0o022)
	// gVisor counts a user's processes and threads, but not the one that became the
	// user's. It has no other user, so that nothing else need bound them.
	keep := uint32(capabilities)
	if len(args) > 1 {
		keep |= 1 << unix.CAP_SYS_ADMIN // to mount; lost by processes with their change of user
	}
	return pid1.Restrict(pid1.MaxProcesses-1, keep)
}

// assign shows folders of AssignedDir, which nobody has looked into, where the arguments say,
// in their order.
func (in *inner) assign(args []string) error {
	for i, dst := range args {
		if err := skeleton.Bind(filepath.Join(AssignedDir, strconv.Itoa(i)), dst); err != nil {
			return err
		}
	}
	if err := skeleton.Bind(skeleton.HomeDir, AssignedDir); err != nil { // empty, as it was
		return err
	}
	return pid1.Keep(capabilities)
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
			in.Server.Event("accept", port, number, strconv.Itoa(conn.RemoteAddr().(*net.TCPAddr).Port))
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
		in.Server.Reply(id, err)
		return
	}
	go func() { // ends with the connection
		conn, err := net.DialTimeout("tcp4", "127.0.0.1:"+port, dialTimeout)
		if err != nil {
			_ = stream.Close()
			in.Server.Reply(id, err)
			return
		}
		in.slots <- struct{}{}
		in.Server.Reply(id, nil)
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

// start starts a process of the function.
func (in *inner) start(c pid1.Command) (int, error) {
	return syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{Dir: c.Dir, Env: c.Env, Files: c.Files, Sys: &syscall.SysProcAttr{
		Setsid: true, Credential: &syscall.Credential{Uid: uint32(in.uid), Gid: uint32(in.uid)},
	}})
}
