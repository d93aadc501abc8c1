package sandboxtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"kiln/internal/sandbox"
)

// testIsolation tries to get out of a sandbox in every way that costs a line.
func testIsolation(t *testing.T, b *bench) {
	if !b.Describe().Isolates {
		t.Skip("the driver isolates nothing, and says so")
	}
	secret := filepath.Join(Dir(t), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	door, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	s, other := b.create(t), b.create(t)
	neighbour := other.sh("echo hidden >$TMP/hidden; chmod 777 $TMP/hidden; echo ready; exec sleep 4242")
	neighbour.expect("ready")

	attempts := map[string]string{
		"sees a file of the host":         "cat " + secret,
		"sees the old root above its own": "cat /.." + secret,
		"has the old root mounted":        "[ $(grep -c ' / rw\\| / ro' /proc/self/mountinfo) -gt 1 ]",
		"sees the host's /root":           "ls /root",
		"sees the host's /sys":            "ls /sys/fs/cgroup | grep .",
		"sees another's /tmp":             "cat $TMP/hidden",
		"sees another's processes":        "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep '[s]leep 4242'",
		"reaches a listener of the host":  fmt.Sprintf("exec 5<>/dev/tcp/127.0.0.1/%d", door.Addr().(*net.TCPAddr).Port),
		"has an interface beyond lo":      "tail -n +3 /proc/net/dev | grep -v lo:",
		"has a route":                     "tail -n +2 /proc/net/route | grep .",
		"mounts":                          "mount -t tmpfs none $TMP",
		"remounts":                        "mount -o remount,rw /",
		"makes a device node":             "mknod $TMP/sda b 8 0",
		"changes the host's name":         "echo other >/proc/sys/kernel/hostname || hostname other",
		"reads its init's environment":    "cat /proc/1/environ",
		"reads its init's memory":         "head -c1 /proc/1/mem",
		"leaves through its init's root":  "ls /proc/1/root/",
		"leaves through its init's files": "ls /proc/1/fd | grep .",
		"reads kernel messages":           "dmesg",
		"gains by a set-user-id program":  "su -c true",
		"has a capability":                "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb):.*[1-9a-f]' /proc/self/status",
		"may gain privileges":             "grep 'NoNewPrivs:.*0' /proc/self/status",
		"writes a kernel setting":         "echo 1 >/proc/sys/vm/drop_caches",
		"writes to the root":              "mkdir /x || touch /usr/x || touch /home/x || touch /dev/x",
	}
	if b.Describe().OwnKernel {
		delete(attempts, "reads kernel messages") // they are made up
	}
	for what, script := range attempts {
		if c := s.sh(script); c.wait().Code == 0 {
			t.Errorf("a process %s: %s", what, c.all())
		}
	}

	// Its init cannot be killed, stopped or traced, by any signal.
	s.python("import os, ctypes\n" +
		"for sig in (9, 15, 11, 6, 19, 2):\n" +
		"    try: os.kill(1, sig)\n" +
		"    except PermissionError: pass\n" +
		"libc = ctypes.CDLL(None, use_errno=True)\n" +
		"assert libc.ptrace(16, 1, 0, 0) == -1\n").text() // PTRACE_ATTACH
	if got := s.sh("echo $(ls -A /) ; ls -A /home /mnt /var 2>/dev/null").text(); got == "" {
		t.Error("the root is empty")
	} else {
		t.Logf("the root: %s", strings.ReplaceAll(got, "\n", " "))
	}

	// Read-only is not a matter of modes.
	open := b.spec()
	for _, dir := range []*string{&open.Task, &open.Opt, &open.Runtime} {
		*dir = filepath.Join(Dir(t), "open")
		if err := os.Mkdir(*dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(*dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	o := b.createSpec(t, open)
	for _, dir := range []string{"$TASK", "$OPT", "$CLIENT"} {
		if c := o.sh("touch " + dir + "/new"); c.wait().Code == 0 {
			t.Errorf("%s can be written", dir)
		}
	}

	// What must work.
	for what, script := range map[string]string{
		"/dev/null":     "echo x >/dev/null && [ -c /dev/null ]",
		"/dev/urandom":  "head -c 8 /dev/urandom | grep -c '' >/dev/null",
		"/dev/fd":       "cat <(echo x) >/dev/null && echo x >/dev/stdout && echo x >/dev/stderr",
		"passwd":        "[ \"$(id -un)\" = sbx_user1051 ] && [ ~ = /home/sbx_user1051 ]",
		"hosts":         "getent hosts localhost && getent hosts sandbox.localdomain && getent hosts $(hostname)",
		"limits":        "[ $(ulimit -n) = 1024 ] && [ $(ulimit -c) = 0 ]",
		"own /proc":     "[ -d /proc/$$ ] && [ $(ls -d /proc/[0-9]* | wc -l) -lt 10 ]",
		"no /dev/shm":   "[ ! -e /dev/shm ]",
		"session":       "[ $(ps -o sid= -p $$ 2>/dev/null || echo $$) -eq $$ ]",
		"shell's paths": "command -v ls && command -v python3",
	} {
		if c := s.sh(script); c.wait() != (sandbox.Exit{}) {
			t.Errorf("%s does not work: %s %s", what, c.all(), c.err)
		}
	}
	if s.sh("exit 0").wait() != (sandbox.Exit{}) {
		t.Error("the sandbox did not survive")
	}
}

// testMemoryLimit allocates more than the limit.
func testMemoryLimit(t *testing.T, b *bench) {
	d := b.Describe()
	if !d.Isolates {
		t.Skip("the driver limits nothing")
	}
	for _, m := range d.Missing {
		if strings.Contains(m, "memory") {
			t.Skip(m)
		}
	}
	spec := b.spec()
	spec.MemoryBytes = 64 << 20
	s := b.createSpec(t, spec)
	bystander := s.sh("echo ready; exec sleep 1000")
	bystander.expect("ready")
	const eat = "import os\nm = bytearray(%d << 20)\nfor i in range(0, len(m), 4096): m[i] = 1\n"
	if e := s.python(fmt.Sprintf(eat, 100)).wait(); e.Signal != syscall.SIGKILL || !e.OOM {
		t.Errorf("100 MB in 64 MB: ended with %+v", e)
	}
	if e := s.python(fmt.Sprintf(eat, 30)).wait(); e != (sandbox.Exit{}) {
		t.Errorf("30 MB in 64 MB: ended with %+v", e)
	}
	// Files may be larger than the limit: page cache is given back.
	if e := s.sh("head -c 200M /dev/zero >$TMP/big && cat $TMP/big >/dev/null").wait(); e != (sandbox.Exit{}) {
		t.Errorf("a 200 MB file in 64 MB: ended with %+v", e)
	}
	// So many processes are enough.
	c := s.python("import os,time\n" +
		"n = 0\n" +
		"try:\n" +
		"    while n < 3000:\n" +
		"        if os.fork() == 0: time.sleep(1000)\n" +
		"        n += 1\n" +
		"except OSError: pass\n" +
		"print('forks', n, flush=True)\n" +
		"time.sleep(1000)\n")
	select {
	case <-c.Done(): // the memory limit came first
	case <-c.out.grew:
		if strings.Contains(c.out.String(), "forks 3000") {
			t.Error("3000 processes were started")
		}
	}
}

// testLimitCPU has a program use up a processor, for which memory buys a tenth.
func testLimitCPU(t *testing.T, b *bench) {
	spec := b.spec()
	spec.MilliCPU = 100
	s := b.createSpec(t, spec)
	l, ok := s.Sandbox.(sandbox.Limiter)
	if !ok {
		t.Skip("the driver cannot limit processor time")
	}
	if err := l.LimitCPU(); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if b.Describe().OwnKernel {
		return // which counts its processors' time without knowing of the host's limit
	}
	// Measured by the kernel, so that a busy machine makes it less and never more.
	got := s.python("import time\n" +
		"begin, used = time.monotonic(), time.process_time()\n" +
		"while time.monotonic() < begin + 1: pass\n" +
		"print((time.process_time() - used) / (time.monotonic() - begin))\n").text()
	if part, err := strconv.ParseFloat(got, 64); err != nil || part > 0.2 {
		t.Errorf("a tenth of a processor was limited to %s", got)
	}
}
