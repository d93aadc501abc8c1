package linux

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/control"
	"kiln/internal/sandbox/skeleton"
)

const (
	controlFD = 3
	// initMark is set in init's environment, so that a program that forgot to
	// call Init fails in New instead of starting itself for ever.
	initMark = "KILN_SANDBOX_INIT"

	openFiles   = 1024      // RLIMIT_NOFILE, as on AWS
	processes   = 1024      // RLIMIT_NPROC and the pids cgroup; AWS's documented quota
	lockedBytes = 64 << 10  // RLIMIT_MEMLOCK, as on AWS
	lastCap     = 63        // capability numbers end below; the kernel says where
	settle      = 50_000    // nanoseconds between two looks for what KillAll left
	maxSettle   = 5_000_000 // its longest pause
)

// Init is the life of a sandbox's first process and returns its exit status. A
// program calls it before anything else when its first argument is InitArg:
//
//	if len(os.Args) > 1 && os.Args[1] == linux.InitArg {
//		os.Exit(linux.Init())
//	}
//
// It has two threads that matter: this one, the process's leader, waits for
// children; a second one serves the daemon's requests and is the only one that
// forks, because cgroup v1 lets a single thread enter the function's cgroups.
// So children are born inside them while the memory of init itself, which the
// kernel books by the leader's cgroup, stays outside.
func Init() int {
	runtime.LockOSThread()
	if os.Getpid() != 1 || os.Getenv(initMark) == "" {
		fmt.Fprintln(os.Stderr, InitArg+" is the first process of a Kiln sandbox; it is not for people to start")
		return 2
	}
	syscall.CloseOnExec(controlFD)
	// Whatever the daemon itself inherited carelessly stays out of the function.
	_ = unix.CloseRange(controlFD+1, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	in := &initProcess{groups: map[int]bool{}}
	in.forked.L = &in.mu
	if filters() {
		in.filter = newFilter()
	}
	go in.serve() // ends with the process
	in.reap()
	return 0
}

type initProcess struct {
	uid      int  // of the functions
	setUID   bool // whether it is another than init's
	null     *os.File
	cgroupFD int             // of the function's cgroup v2; 0: none
	filter   *unix.SockFprog // of what the functions may call; nil: this kernel has no filters

	mu     sync.Mutex
	forked sync.Cond    // signalled when there may be a first child
	groups map[int]bool // guarded by mu; process groups made by exec
}

// serve handles the daemon's requests one after the other:
//
//	setup key=value…, with a mount for /tmp   → ok
//	listen port                               → ok, with the listener
//	socket                                    → ok, with a TCP socket to connect
//	exec path dir argc args… env…, with 2–3   → ok pid
//	signal pid number                         → ok
//	killall                                   → ok
//
// The daemon's end is the sandbox's: when process 1 ends, the kernel kills all others.
func (in *initProcess) serve() {
	runtime.LockOSThread()
	buf := make([]byte, control.MaxMessage)
	oob := make([]byte, unix.CmsgSpace(4*control.MaxFiles))
	for {
		n, oobn, _, _, err := unix.Recvmsg(controlFD, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			os.Exit(0)
		}
		fds := control.ReceivedFDs(oob[:oobn])
		id, fields, err := control.Decode(buf[:n])
		if err != nil {
			os.Exit(1)
		}
		in.handle(id, fields[0], fields[1:], fds)
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}

func (in *initProcess) handle(id uint64, verb string, args []string, fds []int) {
	var err error
	switch verb {
	case "setup":
		err = in.setup(args, fds)
	case "listen":
		var fd int
		if fd, err = listen(args); err == nil {
			in.give(id, fd)
			return
		}
	case "socket":
		var fd int
		if fd, err = socket(); err == nil {
			in.give(id, fd)
			return
		}
	case "exec":
		// The answer goes out under the lock: it precedes the news of the exit.
		in.mu.Lock()
		defer in.mu.Unlock()
		var pid int
		if pid, err = in.exec(args, fds); err == nil {
			in.groups[pid] = true
			in.forked.Signal()
			in.send(id, nil, "ok", strconv.Itoa(pid))
			return
		}
	case "signal":
		err = in.signal(args)
	case "killall":
		in.killAll()
	default:
		err = fmt.Errorf("unknown request %q", verb)
	}
	if err == nil {
		in.send(id, nil, "ok")
		return
	}
	var errno syscall.Errno
	text := err.Error()
	if errors.As(err, &errno) {
		text = strings.TrimSuffix(text, ": "+errno.Error())
	}
	kind := "err"
	if errors.As(err, new(*sandbox.DirError)) {
		kind = "dir"
	}
	in.send(id, nil, kind, strconv.Itoa(int(errno)), text)
	if verb == "setup" {
		os.Exit(1)
	}
}

func (in *initProcess) send(id uint64, oob []byte, fields ...string) {
	b, err := control.Encode(id, fields)
	if err != nil {
		b, _ = control.Encode(id, []string{"err", "0", "the answer is too long"})
		oob = nil
	}
	for {
		if err := unix.Sendmsg(controlFD, b, oob, nil, unix.MSG_NOSIGNAL); !errors.Is(err, unix.EINTR) {
			return // a daemon that is gone is noticed by the next read
		}
	}
}

// give answers with a descriptor, which init does not keep.
func (in *initProcess) give(id uint64, fd int) {
	in.send(id, unix.UnixRights(fd), "ok")
	_ = unix.Close(fd)
}

// setup makes the sandbox. Paths are the host's until the root is entered.
func (in *initProcess) setup(args []string, fds []int) error {
	l := &skeleton.Layout{}
	var tasks []string
	var loopback, cgroup string
	for _, a := range args {
		if known, err := l.Set(a, fds); err != nil {
			return err
		} else if known {
			continue
		}
		key, value, _ := strings.Cut(a, "=")
		switch key {
		case "uid":
			in.uid, _ = strconv.Atoi(value)
		case "setuid":
			in.setUID = true
		case "tasks":
			tasks = append(tasks, value)
		case "cgroup":
			cgroup = value
		case "loopback":
			loopback = value
		}
	}
	for _, t := range tasks {
		// 0 is the writing thread; for no other does the kernel skip the lock
		// that makes an attach cost 0.2 ms.
		if err := os.WriteFile(t, []byte("0"), 0); err != nil {
			return fmt.Errorf("enter the cgroup: %w", err)
		}
	}
	if cgroup != "" {
		fd, err := unix.Open(cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open cgroup %s: %w", cgroup, err)
		}
		in.cgroupFD = fd
	}
	if err := l.Enter(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(skeleton.HostName)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if loopback != "" {
		if err := raiseLoopback(); err != nil {
			return fmt.Errorf("raise the loopback interface: %w", err)
		}
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	in.null = null
	syscall.Umask(0o022)
	return in.restrict()
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// restrict takes away what neither this thread nor its children need: limits,
// the way to new privileges, capabilities. Children lose the rest with their
// change of user.
func (in *initProcess) restrict() error {
	limits := map[int]uint64{unix.RLIMIT_NOFILE: openFiles, unix.RLIMIT_CORE: 0, unix.RLIMIT_MEMLOCK: lockedBytes}
	if in.setUID {
		limits[unix.RLIMIT_NPROC] = processes // counted by user: only for a user of its own
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
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	var keep uint32 // to change the user, to signal another user's processes, to listen below 1024
	if in.setUID {
		keep = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_KILL | 1<<unix.CAP_NET_BIND_SERVICE
	} else {
		// A function of the same user may signal and trace what it can see.
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			return fmt.Errorf("prevent tracing: %w", err)
		}
		ignored := make(chan os.Signal, 1)
		signal.Notify(ignored) // handled, not ignored: ignoring would be inherited
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep}}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if v := lockVersion(); v > 0 {
		return lock(v)
	}
	return nil
}

// socket makes a TCP socket of this network namespace, which it stays wherever it
// is connected.
func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	return fd, nil
}

// listen opens a listener on the loopback interface.
func listen(args []string) (int, error) {
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return -1, err
	}
	fd, err := socket()
	if err != nil {
		return -1, err
	}
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}),
		unix.Listen(fd, unix.SOMAXCONN),
	); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("listen on 127.0.0.1:%d: %w", port, err)
	}
	return fd, nil
}

// exec starts a process: path, dir, the number of arguments, arguments, environment.
func (in *initProcess) exec(args []string, fds []int) (pid int, err error) {
	if len(args) < 3 || len(fds) < 2 {
		return 0, fmt.Errorf("malformed exec: %w", unix.EINVAL)
	}
	path, dir := args[0], args[1]
	n, err := strconv.Atoi(args[2])
	if err != nil || n < 0 || n > len(args)-3 {
		return 0, fmt.Errorf("malformed exec: %w", unix.EINVAL)
	}
	files := []uintptr{in.null.Fd()}
	for _, fd := range fds {
		files = append(files, uintptr(fd))
	}
	// Looked at here, because exec does not say which of the two is missing.
	if path, err = sandbox.Look(path, dir, args[3+n:]); err != nil {
		return 0, err
	}
	c, err := newChild(path, dir, args[3:3+n], args[3+n:], files)
	if err == nil {
		c.cgroup, c.filter = in.cgroupFD, in.filter
		if in.setUID {
			c.id = in.uid
		}
		pid, err = c.start()
	}
	if err != nil {
		return 0, fmt.Errorf("exec %s: %w", path, err)
	}
	return pid, nil
}

// signal sends to a process group that exec made.
func (in *initProcess) signal(args []string) error {
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

// killAll kills every other process of the namespace until there is none.
// Nothing is started meanwhile: this thread is the one that would.
func (in *initProcess) killAll() {
	for pause := time.Duration(settle); ; pause = min(2*pause, maxSettle) {
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
func (in *initProcess) reap() {
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
				in.send(0, nil, "exit", strconv.Itoa(pid), strconv.Itoa(int(status)))
			}
		}
		in.mu.Unlock()
	}
}

// children reports whether there are any. The caller holds mu, so that none is
// being started.
func (in *initProcess) children() bool {
	var info unix.Siginfo
	return !errors.Is(unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil), unix.ECHILD)
}
