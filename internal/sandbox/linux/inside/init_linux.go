package inside

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox/linux/seal"
	"kiln/internal/sandbox/pid1"
	"kiln/internal/sandbox/skeleton"
)

const controlFD = 3

// Init is the life of a sandbox's first process and returns its exit status. A
// program calls it before anything else when its first argument is Arg:
//
//	if len(os.Args) > 1 && os.Args[1] == inside.Arg {
//		os.Exit(inside.Init())
//	}
//
// It has two threads that matter: this one, the process's leader, waits for
// children; a second one serves the daemon's requests and is the only one that
// forks, because cgroup v1 lets a single thread enter the function's cgroups.
// So children are born inside them while the memory of init itself, which the
// kernel books by the leader's cgroup, stays outside.
func Init() int {
	runtime.LockOSThread()
	if os.Getpid() != 1 || os.Getenv(Mark) == "" {
		fmt.Fprintln(os.Stderr, Arg+" is the first process of a Kiln sandbox; it is not for people to start")
		return 2
	}
	syscall.CloseOnExec(controlFD)
	// Whatever the daemon itself inherited carelessly stays out of the function.
	_ = unix.CloseRange(controlFD+1, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	in := &initProcess{Processes: pid1.NewProcesses(controlFD)}
	in.Start = in.start
	if seal.Filters() {
		in.filter = seal.NewFilter()
	}
	go func() { // ends with the process
		runtime.LockOSThread()
		if in.Server.Serve(in.handle) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}()
	in.Reap()
	return 0
}

type initProcess struct {
	*pid1.Processes
	uid      int             // of the functions
	setUID   bool            // whether it is another than init's
	cgroupFD int             // of the function's cgroup v2; 0: none
	filter   *unix.SockFprog // of what the functions may call; nil: this kernel has no filters
}

// handle serves the daemon's requests, besides those of pid1:
//
//	setup key=value…, with a mount for /tmp   → ok
//	listen port                               → ok, with the listener
//	socket                                    → ok, with a TCP socket to connect
//
// The daemon's end is the sandbox's: when process 1 ends, the kernel kills all others.
func (in *initProcess) handle(id uint64, fields []string, fds []int) {
	if in.Handle(id, fields, fds) {
		return
	}
	var fd int
	var err error
	switch args := fields[1:]; fields[0] {
	case "setup":
		err = in.setup(args, fds)
		in.Server.Reply(id, err)
		if err != nil {
			os.Exit(1)
		}
		return
	case "listen":
		fd, err = listen(args)
	case "socket":
		fd, err = socket()
	default:
		err = fmt.Errorf("unknown request %q", fields[0])
	}
	if err != nil {
		in.Server.Reply(id, err)
		return
	}
	in.Server.Give(id, fd)
}

// start starts a process of the function.
func (in *initProcess) start(c pid1.Command) (int, error) {
	child, err := seal.NewChild(c.Path, c.Dir, c.Args, c.Env, c.Files)
	if err != nil {
		return 0, err
	}
	child.Cgroup, child.Filter = in.cgroupFD, in.filter
	if in.setUID {
		child.ID = in.uid
	}
	return child.Start()
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
		if err := pid1.RaiseLoopback(); err != nil {
			return err
		}
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	in.Null = null
	syscall.Umask(0o022)
	return in.restrict()
}

// restrict takes away what neither this thread nor its children need.
func (in *initProcess) restrict() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	var limit uint64 // counted by user: only for a user of its own
	var keep uint32  // to change the user, to signal another user's processes, to listen below 1024
	if in.setUID {
		limit = pid1.MaxProcesses
		keep = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_KILL | 1<<unix.CAP_NET_BIND_SERVICE
	} else {
		// A function of the same user may signal and trace what it can see.
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			return fmt.Errorf("prevent tracing: %w", err)
		}
		ignored := make(chan os.Signal, 1)
		signal.Notify(ignored) // handled, not ignored: ignoring would be inherited
	}
	if err := pid1.Restrict(limit, keep); err != nil {
		return err
	}
	if v := seal.LockVersion(); v > 0 {
		return seal.Lock(v)
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
