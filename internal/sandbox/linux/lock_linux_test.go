package linux_test

import (
	"fmt"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/linux"
)

// TestLock tries what nothing but the lock keeps apart: with the host's network,
// the host's abstract sockets. A sandbox's own work, also between processes.
func TestLock(t *testing.T) {
	if v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno != 0 || v < 6 {
		t.Skip("this kernel's landlock does not keep abstract sockets apart")
	}
	name := fmt.Sprintf("@kiln-lock-%d", os.Getpid())
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := newDriver(t, func(c *linux.Config) { c.Network = sandbox.NetworkHost })
	got, exit := python(t, d, fmt.Sprintf("import os, signal, socket\n"+
		"s = socket.socket(socket.AF_UNIX)\n"+
		"print(s.connect_ex('\\0%[1]s'), flush=True)\n"+
		"l = socket.socket(socket.AF_UNIX); l.bind('\\0%[1]s-own'); l.listen()\n"+
		"pid = os.fork()\n"+
		"if pid == 0:\n"+
		"    c = socket.socket(socket.AF_UNIX); c.connect('\\0%[1]s-own'); c.recv(1)\n"+
		"l.accept(); os.kill(pid, 9); print(os.waitpid(pid, 0)[1])\n"+
		"for what in '/dev/null', '/proc/self/comm', '/tmp/file':\n"+
		"    with open(what, 'w') as f: f.write('x')\n"+
		"os.mkdir('/tmp/a'); os.rename('/tmp/file', '/tmp/a/file'); os.truncate('/tmp/a/file', 0)\n", name[1:]))
	if got != "1\n9" || exit.Code != 0 {
		t.Errorf("got %q, ended with %+v; want EPERM from the host's socket, and the rest to work", got, exit)
	}
}
