package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox/pid1"
	"kiln/internal/sandbox/skeleton"
)

const (
	controlFD = 3 // of the outer and of the inner process, to the daemon
	innerFD   = 4 // of the outer process: the inner one's end, to be passed on
	runscFD   = 5 // of the outer process: the runsc program

	sandboxName = "x" // runsc's name for the sandbox: its state directory is private
	lateDir     = "/late"
	initPath    = "/init"
	maxReport   = 4 << 10 // bytes of what runsc says when it fails
)

// Init is the life of a sandbox's first process, outside gVisor or inside, and returns
// its exit status. A program calls it before anything else when its first argument is
// OuterArg or InnerArg.
func Init() int {
	switch {
	case os.Args[1] == OuterArg && os.Getpid() == 1 && os.Getenv(OuterMark) != "":
		return beOuter()
	case os.Args[1] == InnerArg && os.Getpid() == 1 && os.Getenv(InnerMark) != "":
		return beInner()
	}
	fmt.Fprintln(os.Stderr, os.Args[1]+" is the first process of a Kiln sandbox; it is not for people to start")
	return 2
}

// outer is process 1 of the namespaces around gVisor. It mounts what gVisor may see and
// starts runsc; when it ends, the kernel ends all of them, and the mounts go with it.
type outer struct {
	network  string // in runsc's words
	stage    string // a file system of its own, for what runsc needs
	program  string // of the inner process
	skeleton skeleton.Skeleton

	mu      sync.Mutex
	waiting int                     // guarded by mu; runsc, until it has started gVisor
	booted  bool                    // guarded by mu
	ended   chan syscall.WaitStatus // how it ended
	started chan struct{}           // closed once there are children to reap
}

func beOuter() int {
	runtime.LockOSThread()
	for fd := controlFD; fd <= runscFD; fd++ {
		syscall.CloseOnExec(fd)
	}
	_ = unix.CloseRange(runscFD+1, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	o := &outer{ended: make(chan syscall.WaitStatus, 1), started: make(chan struct{})}
	go o.reap() // ends with the process
	server := pid1.Server(controlFD)
	_ = server.Serve(func(id uint64, fields []string, fds []int) {
		server.Reply(id, o.handle(fields, fds))
	})
	return 0 // the daemon is gone, or wants it gone
}

func (o *outer) handle(fields []string, fds []int) error {
	switch fields[0] {
	case "boot":
		return o.boot(fields[1:])
	case "mount":
		return o.mount(fields[1:], fds)
	case "assign":
		return o.assign(fields[1:])
	}
	return fmt.Errorf("unknown request %q", fields[0])
}

// boot starts gVisor with the inner process in it: the network, a place for what runsc needs,
// this program's file, then the skeleton.
func (o *outer) boot(args []string) error {
	if len(args) < 4 {
		return fmt.Errorf("malformed boot: %w", unix.EINVAL)
	}
	o.network, o.stage, o.program = args[0], args[1], args[2]
	o.skeleton = skeleton.Skeleton{Dir: args[3], Binds: args[4:]}
	if err := o.skeleton.Mount(); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("kiln", o.stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=4m,mode=700"); err != nil {
		return fmt.Errorf("mount a file system for runsc: %w", err)
	}
	if o.network == OwnNetwork {
		if err := pid1.RaiseLoopback(); err != nil {
			return err
		}
	}
	if err := o.bundle(); err != nil {
		return err
	}
	return o.run()
}

func (o *outer) path(name string) string { return filepath.Join(o.stage, name) }

// bundle makes what runsc starts: a root with the inner process, the libraries that it
// may need, and an empty folder, into which the function's root is mounted later. What
// is mounted there goes on into runsc's own mount namespace, because it is shared.
func (o *outer) bundle() error {
	root := o.path("bundle/rootfs")
	for _, d := range []string{"proc", "sys", "dev", lateDir} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if err := skeleton.Bind(root, root); err != nil {
		return err
	}
	if err := unix.Mount("", root, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share %s: %w", root, err)
	}
	for _, name := range []string{"usr", "bin", "lib", "lib32", "lib64", "libx32", "etc"} {
		if err := o.like(root, name); err != nil {
			return err
		}
	}
	if err := os.WriteFile(root+initPath, nil, 0o755); err != nil {
		return err
	}
	if err := skeleton.Bind(o.program, root+initPath); err != nil {
		return err
	}
	b, err := json.Marshal(o.spec())
	if err != nil {
		return err
	}
	return os.WriteFile(o.path("bundle/config.json"), b, 0o600)
}

// like makes a name of the skeleton in the root of the inner process.
func (o *outer) like(root, name string) error {
	from, to := filepath.Join(o.skeleton.Dir, name), filepath.Join(root, name)
	st, err := os.Lstat(from)
	if err != nil {
		return nil // the host has none
	}
	if st.Mode()&os.ModeSymlink != 0 {
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(link, to)
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	return skeleton.Bind(from, to)
}

// spec is the sandbox in the words of the OCI's runtime specification.
//
// https://github.com/opencontainers/runtime-spec/blob/main/config.md
func (o *outer) spec() any {
	type object = map[string]any
	caps := []string{"CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_DAC_OVERRIDE"}
	namespaces := []object{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}
	linux := object{}
	if o.network == HostNetwork {
		namespaces = append(namespaces, object{"type": "user"})
		all := []object{{"containerID": 0, "hostID": 0, "size": 1<<32 - 1}}
		linux["uidMappings"], linux["gidMappings"] = all, all
	} else {
		namespaces = append(namespaces, object{"type": "network", "path": "/proc/self/ns/net"})
	}
	linux["namespaces"] = namespaces
	return object{
		"ociVersion": "1.0.0",
		"hostname":   skeleton.HostName,
		"root":       object{"path": "rootfs"},
		"process": object{
			"args": []string{initPath, InnerArg}, "env": []string{InnerMark + "=1"}, "cwd": "/",
			"user":         object{"uid": 0, "gid": 0},
			"capabilities": object{"bounding": caps, "effective": caps, "permitted": caps},
		},
		"linux": linux,
	}
}

// run starts runsc, and returns when the inner process runs.
func (o *outer) run() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	report, err := os.Create(o.path("report"))
	if err != nil {
		return err
	}
	defer report.Close()
	// cgroups are the daemon's matter; nothing of the host is written but /tmp, so there is no overlay.
	// The sentry opens no file itself: it may then be nobody on the host.
	args := []string{"runsc",
		"--root", o.path("state"), "--log", o.path("log"), "--platform=systrap", "--network=" + o.network, "--ignore-cgroups",
		"--overlay2=none", "--directfs=false", "--file-access-mounts=exclusive", "--host-settings=ignore",
		"run", "--detach", "--bundle", o.path("bundle"), "--pass-fd", fmt.Sprintf("%d:%d", innerFD, controlFD), sandboxName,
	}
	o.mu.Lock()
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", runscFD), args, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []uintptr{null.Fd(), null.Fd(), report.Fd(), ^uintptr(0), innerFD},
		Sys:   &syscall.SysProcAttr{},
	})
	o.waiting = pid
	o.mu.Unlock()
	if err != nil {
		return fmt.Errorf("start runsc: %w", err)
	}
	_ = unix.Close(innerFD) // or its end would never be seen
	_ = unix.Close(runscFD)
	close(o.started)
	if status := <-o.ended; status != 0 {
		return fmt.Errorf("runsc ended with status %d: %s", status.ExitStatus(), o.report())
	}
	return nil
}

// report is what runsc said.
func (o *outer) report() string {
	var said []string
	for _, name := range []string{"report", "log"} {
		if b, err := os.ReadFile(o.path(name)); err == nil && len(b) > 0 {
			said = append(said, strings.TrimSpace(string(b[max(0, len(b)-maxReport):])))
		}
	}
	return strings.Join(said, "; ")
}

// mount assembles the function's root and shows it in gVisor.
func (o *outer) mount(args []string, fds []int) error {
	l := &skeleton.Layout{}
	for _, a := range args {
		if known, err := l.Set(a, fds); err != nil || !known {
			return errors.Join(err, fmt.Errorf("malformed %q: %w", a, unix.EINVAL))
		}
	}
	if err := l.Assemble(); err != nil {
		return err
	}
	tree, err := skeleton.Clone(l.Root, skeleton.AsItIs)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, o.path("bundle/rootfs"+lateDir), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the root for gVisor: %w", err)
	}
	return nil
}

// assign mounts folders of the host for the inner process's assign.
func (o *outer) assign(sources []string) error {
	to := o.path("bundle/rootfs" + lateDir + AssignedDir)
	if err := unix.Mount("kiln", to, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,mode=755"); err != nil {
		return fmt.Errorf("mount a file system for what is assigned: %w", err)
	}
	for i, src := range sources {
		at := filepath.Join(to, strconv.Itoa(i))
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
		tree, err := skeleton.Clone(src, skeleton.ReadOnly)
		if err != nil {
			return err
		}
		err = unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
		_ = unix.Close(tree)
		if err != nil {
			return fmt.Errorf("mount %s for gVisor: %w", src, err)
		}
	}
	return nil
}

// reap waits for children, adopted ones included. Without any, gVisor is gone, and so
// is this process.
func (o *outer) reap() {
	<-o.started
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.booted {
				os.Exit(0)
			}
			return // why it has not started is told first
		default:
			o.mu.Lock()
			if pid == o.waiting {
				o.booted = status == 0
				o.ended <- status
			}
			o.mu.Unlock()
		}
	}
}
