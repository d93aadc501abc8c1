package linux_test

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/linux"
	"kiln/internal/sandbox/sandboxtest"
)

// python runs a program in a sandbox of its own, and returns its output and end.
func python(t *testing.T, d *linux.Driver, program string) (string, sandbox.Exit) {
	t.Helper()
	s, err := d.Create(t.Context(), sandbox.Spec{ID: sandboxtest.ID("python"), Group: "000000000000/us-east-1/conformance", Task: "/usr"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := s.Exec(t.Context(), sandbox.Command{
		Path: "/usr/bin/python3", Args: []string{"python3", "-Ic", program}, Dir: "/", Stdout: w, Stderr: w,
	})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	_, _ = out.ReadFrom(r)
	<-p.Done()
	return strings.TrimSpace(out.String()), p.Exit()
}

// TestFilter calls what the kernel would let any user do, and the filter does not.
func TestFilter(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the numbers below are amd64's")
	}
	d := newDriver(t, nil)
	const prelude = "import ctypes, errno, os, socket\n" +
		"libc = ctypes.CDLL(None, use_errno=True)\n" +
		"def call(*a):\n" +
		"    r = libc.syscall(*map(ctypes.c_long, a))\n" +
		"    return errno.errorcode[ctypes.get_errno()] if r == -1 else r\n"
	program := prelude
	want := []string{"Seccomp:	2"}
	program += "print([l for l in open('/proc/self/status') if l.startswith('Seccomp:')][0].strip())\n"
	for _, c := range []struct{ call, answer string }{
		{"call(272, 0x10000000)", "EPERM"},            // unshare(CLONE_NEWUSER)
		{"call(56, 0x10000011, 0, 0, 0, 0)", "EPERM"}, // clone(CLONE_NEWUSER)
		{"call(435, 0, 0)", "ENOSYS"},                 // clone3
		{"call(250, 0, -2, 0)", "EPERM"},              // keyctl: the process's keyring
		{"call(248, 0, 0, 0, 0, 0)", "EPERM"},         // add_key
		{"call(101, 0, 0, 0, 0)", "EPERM"},            // ptrace(PTRACE_TRACEME)
		{"call(310, os.getpid(), 0, 0, 0, 0, 0)", "EPERM"},
		{"call(321, 0, 0, 0)", "EPERM"},         // bpf
		{"call(298, 0, 0, -1, -1, 0)", "EPERM"}, // perf_event_open
		{"call(323, 1)", "EPERM"},               // userfaultfd(UFFD_USER_MODE_ONLY)
		{"call(425, 1, 0)", "ENOSYS"},           // io_uring_setup
		{"call(428, -100, 0, 0)", "ENOSYS"},     // open_tree
		{"call(450, 0, 0, 0, 0)", "ENOSYS"},     // set_mempolicy_home_node
		{"call(100000)", "ENOSYS"},
		{"call(0x40000000 + 39)", "ENOSYS"}, // getpid of x32
		{"call(135, 0x40000)", "EPERM"},     // personality(ADDR_NO_RANDOMIZE)
		{"call(135, 0xffffffff)", "0"},
		{"call(41, 38, 5, 0)", "EAFNOSUPPORT"},             // AF_ALG
		{"call(41, 40, 1, 0)", "EAFNOSUPPORT"},             // AF_VSOCK
		{"call(41, 17, 3, 0)", "EAFNOSUPPORT"},             // AF_PACKET
		{"call(41, 16, 3, 12)", "EPROTONOSUPPORT"},         // NETLINK_NETFILTER
		{"call(41, 2, 1, 132)", "EPROTONOSUPPORT"},         // SCTP
		{"call(41, (1 << 32) + 38, 5, 0)", "EAFNOSUPPORT"}, // of which the kernel sees 32 bits
		{"call(16, 0, 0x5412, 0)", "EPERM"},                // ioctl(TIOCSTI)
		{"call(16, 0, (1 << 32) + 0x5412, 0)", "EPERM"},
		{"call(133, 0, 0o20600, 0x103)", "EPERM"}, // mknod of a device
		{"call(162)", "0"},                        // sync: done without doing
		// What must work.
		{"os.mkfifo('/tmp/fifo')", "None"},
		{"len(socket.if_nameindex())", "1"}, // asks over netlink
		{"socket.socketpair()[0].close()", "None"},
		{"socket.socket(socket.AF_INET6).close()", "None"},
		{"__import__('subprocess').run(['/bin/true']).returncode", "0"},
		{"(lambda t: (t.start(), t.join()))(__import__('threading').Thread(target=id, args=(1,)))", "(None, None)"},
		{"__import__('signal').pidfd_send_signal(os.pidfd_open(os.getpid()), 0)", "None"},
	} {
		program += "print('" + strings.ReplaceAll(c.call, "'", `"`) + "', '->', " + c.call + ")\n"
		want = append(want, strings.ReplaceAll(c.call, "'", `"`)+" -> "+c.answer)
	}
	got, exit := python(t, d, program)
	if exit != (sandbox.Exit{}) {
		t.Errorf("ended with %+v", exit)
	}
	lines := strings.Split(got, "\n")
	for i, w := range want {
		if i >= len(lines) || lines[i] != w {
			t.Errorf("got %q, want %q", lines[min(i, len(lines)-1)], w)
		}
	}
	// The calls of another machine have other numbers: nobody needs them.
	got, exit = python(t, d, "import ctypes, mmap\n"+
		"m = mmap.mmap(-1, 4096, prot=7)\n"+
		"m.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))\n"+ // getpid of i386
		"f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"+
		"print(f())\n")
	if exit.Signal != syscall.SIGSYS {
		t.Errorf("a call of i386: %q, ended with %+v", got, exit)
	}
}
