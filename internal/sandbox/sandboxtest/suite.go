package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kiln/internal/sandbox"
)

// Run tries everything that the contract promises on drivers made by newDriver,
// and that nothing is left afterwards.
func Run(t *testing.T, newDriver New) {
	before := Snapshot(t)
	t.Run("driver", func(t *testing.T) {
		b := newBench(t, newDriver)
		for _, c := range []struct {
			name string
			test func(*testing.T, *bench)
		}{
			{"exit", testExit},
			{"outputs", testOutputs},
			{"environment", testEnvironment},
			{"descriptors", testDescriptors},
			{"paths", testPaths},
			{"user", testUser},
			{"listen", testListen},
			{"dial", testDial},
			{"signal", testSignal},
			{"several", testSeveral},
			{"execErrors", testExecErrors},
			{"descendants", testDescendants},
			{"killAll", testKillAll},
			{"destroy", testDestroy},
			{"concurrent", testConcurrent},
			{"hostileTree", testHostileTree},
			{"tmp", testTmp},
			{"usage", testUsage},
			{"freeze", testFreeze},
			{"specErrors", testSpecErrors},
			{"isolation", testIsolation},
			{"memoryLimit", testMemoryLimit},
			{"limitCPU", testLimitCPU},
			{"root", testRoot},
			{"prepare", testPrepare},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.test(t, b)
			})
		}
	})
	t.Run("many", func(t *testing.T) { testMany(t, newBench(t, newDriver)) })
	t.Run("close", func(t *testing.T) { testClose(t, newBench(t, newDriver)) })
	before.Unchanged(t)
}

func testExit(t *testing.T, b *bench) {
	s := b.create(t)
	for script, want := range map[string]sandbox.Exit{
		"exit 0":        {},
		"exit 3":        {Code: 3},
		"kill -TERM $$": {Signal: syscall.SIGTERM},
		"kill -SEGV $$": {Signal: syscall.SIGSEGV},
	} {
		if got := s.sh(script).wait(); got != want {
			t.Errorf("%s: ended with %+v, want %+v", script, got, want)
		}
	}
}

func testOutputs(t *testing.T, b *bench) {
	s := b.create(t)
	telemetry, w := capture(t)
	cmd := s.script("/bin/bash", "-c", "echo out; echo err >&2; echo telemetry >&3; cat")
	cmd.Telemetry = w
	c := s.start(cmd)
	_ = w.Close()
	if got := c.text(); got != "out" {
		t.Errorf("stdout %q", got)
	}
	if got := c.err.String(); got != "err\n" {
		t.Errorf("stderr %q", got)
	}
	<-telemetry.eof
	if got := telemetry.String(); got != "telemetry\n" {
		t.Errorf("telemetry %q", got)
	}
	one, two := s.sh("echo one"), s.sh("echo two")
	if one.text() != "one" || two.text() != "two" {
		t.Errorf("outputs mixed: %q %q", one.out, two.out)
	}
}

func testEnvironment(t *testing.T, b *bench) {
	s := b.create(t)
	given := []string{"B=2", "A=with space = and\nnewline", "EMPTY="}
	c := s.start(sandbox.Command{Path: "/usr/bin/env", Args: []string{"env", "-0"}, Env: given})
	got := strings.Split(strings.TrimSuffix(c.text(), "\x00"), "\x00")
	if want := slices.Concat(s.Paths().Env, given); !slices.Equal(got, want) {
		t.Errorf("environment %q, want %q", got, want)
	}
}

func testDescriptors(t *testing.T, b *bench) {
	// One that the daemon inherited carelessly itself.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s := b.create(t)
	if got := s.sh("cd /proc/self/fd && echo *").text(); got != "0 1 2 255" && got != "0 1 2" && got != "0 1 2 3" {
		// bash itself adds 3 (the directory it lists) or 255.
		t.Errorf("open descriptors: %s", got)
	}
	if got := s.python("import os; print(sorted(os.listdir('/proc/self/fd')))").text(); got != "['0', '1', '2', '3']" {
		t.Errorf("open descriptors: %s, want 0 to 2 and the directory being listed", got)
	}
}

func testPaths(t *testing.T, b *bench) {
	s := b.create(t)
	got := s.sh("pwd; cat $TASK/file; echo; cat $OPT/file; echo; cat $CLIENT/file; echo; echo hi >$TMP/x && cat $TMP/x; stat -c %a $TMP").text()
	lines := strings.Split(got, "\n")
	if want := []string{s.Paths().Task, "code", "layers", "client", "hi"}; !slices.Equal(lines[:5], want) {
		t.Errorf("got %q, want %q", lines, want)
	}
	if b.Describe().Isolates || os.Geteuid() == 0 {
		for _, dir := range []string{"$TASK", "$OPT", "$CLIENT", "/usr", "/etc", "/"} {
			if c := s.sh("touch " + dir + "/new"); c.wait().Code == 0 {
				t.Errorf("%s can be written", dir)
			}
		}
	}
	// HOME, said or looked up, is private and not the daemon's.
	home := s.sh("echo ~; ls -A ~").text()
	if h, err := os.UserHomeDir(); home == "" || err == nil && home == h {
		t.Errorf("home is %q", home)
	}
	if strings.Contains(home, "\n") {
		t.Errorf("home is not empty: %q", home)
	}
	// A sandbox without layers and runtime client is fine.
	spec := b.spec()
	spec.Opt, spec.Runtime = "", ""
	b.createSpec(t, spec).sh("exit 0").text()
}

func testUser(t *testing.T, b *bench) {
	s, other := b.create(t), b.create(t)
	if os.Geteuid() != 0 {
		t.Log("not root: sandboxes may share the daemon's user")
		return
	}
	one, two := s.sh("id -u; id -G").text(), other.sh("id -u; id -G").text()
	if one == two {
		t.Errorf("two living sandboxes share user %q", one)
	}
	if f := strings.Fields(one); len(f) != 2 || f[0] == "0" || f[1] == "0" {
		t.Errorf("user and groups are %q", one)
	}
}

func testListen(t *testing.T, b *bench) {
	s := b.create(t)
	for _, port := range []int{9001, 4566} {
		l, err := s.Listen(t.Context(), port)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addr := l.Addr().(*net.TCPAddr)
		if !addr.IP.IsLoopback() || b.Describe().Isolates && addr.Port != port {
			t.Errorf("listens on %v, want 127.0.0.1:%d", addr, port)
		}
		var served sync.WaitGroup
		served.Go(func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Write([]byte("hello\n"))
		})
		if got := s.sh("exec 5<>/dev/tcp/127.0.0.1/" + strings.Split(addr.String(), ":")[1] + "; cat <&5").text(); got != "hello" {
			t.Errorf("read %q", got)
		}
		served.Wait()
	}
	if b.Describe().Isolates {
		if l, err := s.Listen(t.Context(), 9001); err == nil {
			_ = l.Close()
		}
		// The same port again, next door.
		l, err := b.create(t).Listen(t.Context(), 9001)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
}

func testDial(t *testing.T, b *bench) {
	s := b.create(t)
	c := s.python("import socket\n" +
		"echo, full = socket.socket(), socket.socket()\n" +
		"echo.bind(('127.0.0.1', 0)); echo.listen()\n" +
		"full.bind(('127.0.0.1', 0)); full.listen(0)\n" + // takes one or two, and accepts none
		"print(echo.getsockname()[1], full.getsockname()[1], 'listening', flush=True)\n" +
		"while True:\n" +
		"    c, _ = echo.accept()\n" +
		"    c.sendall(c.recv(100).upper()); c.close()\n")
	c.expect("listening")
	var echo, full int
	if _, err := fmt.Sscan(c.out.String(), &echo, &full); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		conn, err := s.Dial(t.Context(), echo)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != "HELLO" {
			t.Errorf("read %q, %v", got, err)
		}
	}
	if b.Describe().Isolates { // next door nobody listens
		if conn, err := b.create(t).Dial(t.Context(), echo); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dialled %v, %v", conn, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for {
		conn, err := s.Dial(ctx, full)
		if err != nil {
			if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
				t.Errorf("a listener that is full: %v", err)
			}
			break
		}
		defer conn.Close()
	}
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.wait()
	if conn, err := s.Dial(t.Context(), echo); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialled %v, %v after the listener's end", conn, err)
	}
}

func testSignal(t *testing.T, b *bench) {
	s := b.create(t)
	c := s.sh("sleep 1000 & echo ready; wait")
	c.expect("ready")
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := c.wait(); e.Signal != syscall.SIGTERM {
		t.Errorf("ended with %+v", e)
	}
	c.all() // the child had the output open: it was in the group
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Errorf("signal after the end: %v", err)
	}
	c = s.sh("trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.01; done")
	c.expect("ready")
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := c.wait(); e.Code != 7 || c.all() != "ready\ncaught" {
		t.Errorf("ended with %+v, %q", e, c.out)
	}
}

func testSeveral(t *testing.T, b *bench) {
	s := b.create(t)
	var list []*command
	for range 5 {
		list = append(list, s.sh("echo ready; exec sleep 1000"))
	}
	for _, c := range list {
		c.expect("ready")
	}
	for _, c := range list[1:] {
		if err := c.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := c.wait(); e.Signal != syscall.SIGKILL || e.OOM {
			t.Errorf("ended with %+v", e)
		}
	}
	select {
	case <-list[0].Done():
		t.Error("a signal reached another process")
	default:
	}
}

func testExecErrors(t *testing.T, b *bench) {
	s := b.create(t)
	if _, err := s.tryStart(sandbox.Command{Path: "/no/such/file"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing executable: %v", err)
	}
	if _, err := s.tryStart(sandbox.Command{Path: "/etc/passwd"}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("not executable: %v", err)
	}
	if _, err := s.tryStart(sandbox.Command{Path: "/bin/true", Dir: "/no/such/dir"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing working directory: %v", err)
	}
	s.sh("exit 0").text()
}

// daemonize leaves a process behind that has left its group, session and parent.
const daemonize = "import os,sys,time\n" +
	"if os.fork(): os._exit(0)\n" +
	"os.setsid()\n" +
	"if os.fork(): os._exit(0)\n" +
	"print('daemon', flush=True)\n" +
	"time.sleep(1000)\n"

func testDescendants(t *testing.T, b *bench) {
	s := b.create(t)
	c := s.python(daemonize)
	if e := c.wait(); e != (sandbox.Exit{}) {
		t.Fatalf("ended with %+v", e)
	}
	c.expect("daemon")
	stopped := s.sh("echo ready; kill -STOP $$")
	stopped.expect("ready")
	if err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The daemon held the pipe: its end is the proof of its death.
	c.all()
	stopped.all()
	if e := stopped.wait(); e.Signal != syscall.SIGKILL {
		t.Errorf("stopped process ended with %+v", e)
	}
}

func testKillAll(t *testing.T, b *bench) {
	s := b.create(t)
	if err := s.KillAll(t.Context()); err != nil {
		t.Errorf("with nothing running: %v", err)
	}
	l, err := s.Listen(t.Context(), 9001)
	if err != nil {
		t.Fatal(err)
	}
	s.sh("echo kept >$TMP/kept").text()
	for range 2 {
		c, d := s.sh("echo ready; sleep 1000"), s.python(daemonize)
		c.expect("ready")
		d.expect("daemon")
		if err := s.KillAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.Done():
		default:
			t.Error("a process is there after KillAll")
		}
		if e := c.wait(); e != (sandbox.Exit{Signal: syscall.SIGKILL}) {
			t.Errorf("ended with %+v", e)
		}
		c.all()
		d.all()
		if got := s.sh("cat $TMP/kept").text(); got != "kept" {
			t.Errorf("scratch file: %q", got)
		}
	}
	if err := l.Close(); err != nil {
		t.Errorf("the listener did not stay: %v", err)
	}
}

func testDestroy(t *testing.T, b *bench) {
	s := b.create(t)
	c := s.sh("echo ready; sleep 1000")
	c.expect("ready")
	l, err := s.Listen(t.Context(), 9001)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := s.Destroy(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if e := c.wait(); e.Signal != syscall.SIGKILL {
		t.Errorf("ended with %+v", e)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener outlives the sandbox")
	}
	if _, err := s.tryStart(sandbox.Command{Path: "/bin/true"}); err == nil {
		t.Error("Exec after Destroy succeeds")
	}
	if l, err := s.Listen(t.Context(), 9001); err == nil {
		_ = l.Close()
		t.Error("Listen after Destroy succeeds")
	}
	if c, err := s.Dial(t.Context(), 9001); err == nil {
		_ = c.Close()
		t.Error("Dial after Destroy succeeds")
	}
	if _, err := s.Usage(t.Context()); err == nil {
		t.Error("Usage after Destroy succeeds")
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal after Destroy: %v", err)
	}
}

// testConcurrent does everything at once and destroys amid it: nothing may hang.
func testConcurrent(t *testing.T, b *bench) {
	for range 5 {
		s := b.create(t)
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		var all sync.WaitGroup
		enough := make(chan struct{}, 1)
		loop := func(f func()) {
			all.Go(func() {
				for range 20 {
					f()
				}
				select {
				case enough <- struct{}{}:
				default:
				}
			})
		}
		for range 2 {
			loop(func() {
				p, err := s.Exec(t.Context(), sandbox.Command{
					Path: "/bin/sleep", Args: []string{"sleep", "0.001"}, Dir: "/", Stdout: null, Stderr: null,
				})
				if err == nil {
					_ = p.Signal(syscall.SIGTERM)
				}
			})
		}
		loop(func() { _ = s.KillAll(t.Context()) })
		loop(func() { _, _ = s.Usage(t.Context()) })
		loop(func() {
			if l, err := s.Listen(t.Context(), 9001); err == nil {
				_ = l.Close()
			}
			if c, err := s.Dial(t.Context(), 9001); err == nil {
				_ = c.Close()
			}
		})
		if f, ok := s.Sandbox.(sandbox.Freezer); ok {
			loop(func() {
				_ = f.Freeze(t.Context())
				_ = f.Thaw(t.Context())
			})
		}
		<-enough
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := s.Destroy(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		all.Wait()
	}
}

// testTmp fills /tmp to its limit: with bytes, under a memory limit that must not
// count them, and with files.
func testTmp(t *testing.T, b *bench) {
	if !b.Describe().BoundsTmp {
		t.Skip("this driver does not bound /tmp here")
	}
	for _, mb := range []int64{64, 512, 10240} {
		spec := b.spec()
		spec.TmpBytes, spec.MemoryBytes = mb<<20, 128<<20
		s := b.createSpec(t, spec)
		got := s.python("import os\n" +
			"os.chdir(os.environ['TMP'])\n" +
			"print(os.listdir('.'), oct(os.stat('.').st_mode), os.statvfs('.').f_bavail*os.statvfs('.').f_frsize >> 20)\n").text()
		var free int64
		if _, err := fmt.Sscanf(got, "[] 0o41777 %d", &free); err != nil || free < mb || free > mb+mb/32+4 {
			t.Errorf("%d MB: %s", mb, got)
		}
	}
	spec := b.spec()
	spec.TmpBytes, spec.MemoryBytes = 200<<20, 128<<20
	s := b.createSpec(t, spec)
	got := s.python("import errno,os\n" +
		"os.chdir(os.environ['TMP'])\n" +
		"f, n = open('big', 'wb', 0), 0\n" +
		"try:\n" +
		"    while True: n += f.write(b'x'*(1<<20))\n" +
		"except OSError as e: print(errno.errorcode[e.errno], n >> 20)\n" +
		"os.unlink('big'); f.close()\n" +
		"try:\n" +
		"    for n in range(10**6): open(str(n), 'w').close()\n" +
		"except OSError as e: print(errno.errorcode[e.errno], n)\n").text()
	var mb, files int
	if _, err := fmt.Sscanf(got, "ENOSPC %d\nENOSPC %d", &mb, &files); err != nil || mb < 200 || mb > 216 || files < 10_000 || files > 50_000 {
		t.Errorf("filled: %q", got)
	}
	if u, err := s.Usage(t.Context()); err != nil || u.PeakBytes > 64<<20 {
		t.Errorf("files count as memory: %+v, %v", u, err)
	}
}

func testHostileTree(t *testing.T, b *bench) {
	precious := filepath.Join(Dir(t), "precious")
	if err := os.Mkdir(precious, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(precious, "file"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	s := b.create(t)
	s.python("import os\n" +
		"os.chdir(os.environ['TMP'])\n" +
		"os.symlink('" + precious + "', 'link')\n" +
		"os.symlink('/', '.lifted-1')\n" +
		"os.symlink('..', 'up')\n" +
		"os.mkdir(b'bad\\xff\\n name')\n" +
		"os.mkfifo('fifo')\n" +
		"for i in range(3000):\n" + // beyond PATH_MAX and the limit of open files
		"    os.mkdir('deep'); open('file', 'w').close(); os.chdir('deep')\n" +
		"os.symlink('" + precious + "', 'link')\n" +
		"os.mkdir('shut'); os.mkdir('shut/in'); os.chmod('shut/in', 0); os.chmod('shut', 0)\n").text()
	if err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(precious, "file")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

func testUsage(t *testing.T, b *bench) {
	const mb = 1 << 20
	s := b.create(t)
	c := s.python("import os,mmap,signal\n" +
		"signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n" +
		"def step(name):\n" +
		"    print(name, flush=True); signal.sigwait([signal.SIGUSR1])\n" +
		"step('idle')\n" +
		"m = mmap.mmap(-1, 100<<20, mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS)\n" +
		"for i in range(0, 100<<20, 4096): m[i] = 1\n" +
		"step('grown')\n" +
		"m.close()\n" +
		"step('freed')\n" +
		"f = open(os.environ['TMP']+'/big', 'wb')\n" +
		"for i in range(80): f.write(b'x'*(1<<20))\n" +
		"f.close(); f = open(os.environ['TMP']+'/big', 'rb')\n" +
		"while f.read(1<<20): pass\n" +
		"step('file')\n" +
		"m = mmap.mmap(-1, 150<<20, mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS)\n" + // a spike that no reading sees
		"for i in range(0, 150<<20, 4096): m[i] = 1\n" +
		"m.close()\n" +
		"step('spike')\n")
	// What was freed may take a moment to be gone.
	read := func(step string, atMost int64) sandbox.Usage {
		t.Helper()
		c.expect(step)
		u, err := s.Usage(t.Context())
		for deadline := time.Now().Add(patience); err == nil && u.CurrentBytes > atMost && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			u, err = s.Usage(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		t.Logf("%-6s current %5.1f MB, peak %5.1f MB", step, float64(u.CurrentBytes)/mb, float64(u.PeakBytes)/mb)
		return u
	}
	idle := read("idle", 20*mb)
	if idle.CurrentBytes <= 0 || idle.CurrentBytes > 20*mb {
		t.Errorf("idle: %+v", idle)
	}
	grown := read("grown", idle.CurrentBytes+110*mb)
	if d := grown.CurrentBytes - idle.CurrentBytes; d < 95*mb || d > 110*mb {
		t.Errorf("100 MB raised current by %d", d)
	}
	freed := read("freed", idle.CurrentBytes+10*mb)
	if freed.CurrentBytes > idle.CurrentBytes+10*mb {
		t.Errorf("after freeing: %+v", freed)
	}
	if freed.PeakBytes < grown.CurrentBytes || freed.PeakBytes > grown.CurrentBytes+15*mb {
		t.Errorf("peak after freeing: %+v", freed)
	}
	file := read("file", idle.CurrentBytes+15*mb)
	if file.CurrentBytes > idle.CurrentBytes+15*mb || file.PeakBytes > freed.PeakBytes+5*mb {
		t.Errorf("page cache is counted: %+v", file)
	}
	if slices.ContainsFunc(b.Describe().Missing, func(m string) bool { return strings.Contains(m, "peaks") }) {
		return // the driver says that it does not see what comes now
	}
	spike := read("spike", idle.CurrentBytes+160*mb)
	if spike.PeakBytes < idle.CurrentBytes+140*mb {
		t.Errorf("a spike between readings is not seen: %+v", spike)
	}
}

func testFreeze(t *testing.T, b *bench) {
	s := b.create(t)
	f, ok := s.Sandbox.(sandbox.Freezer)
	if !ok {
		t.Skip("the driver cannot freeze")
	}
	c := s.sh("echo ready; i=0; while :; do i=$((i+1)); echo $i; sleep 0.001; done")
	c.expect("ready")
	if err := f.Freeze(t.Context()); err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	frozen := c.out.String()
	// Time itself is what is tested here: nothing may happen in it.
	time.Sleep(50 * time.Millisecond)
	if before, after := len(frozen), len(c.out.String()); after > before+64 {
		t.Errorf("a frozen process wrote %d bytes", after-before)
	}
	if err := f.Freeze(t.Context()); err != nil {
		t.Errorf("freezing twice: %v", err)
	}
	if err := f.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	mark := len(c.out.String())
	for deadline := time.After(patience); len(c.out.String()) <= mark; {
		select {
		case <-c.out.grew:
		case <-deadline:
			t.Fatal("a thawed process does nothing")
		}
	}
	s.sh("exit 0").text()
	// A frozen sandbox can be destroyed.
	if err := f.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.all()
}

func testSpecErrors(t *testing.T, b *bench) {
	for name, change := range map[string]func(*sandbox.Spec){
		"id":      func(s *sandbox.Spec) { s.ID = "../x" },
		"group":   func(s *sandbox.Spec) { s.Group = "../../x" },
		"task":    func(s *sandbox.Spec) { s.Task = "" },
		"missing": func(s *sandbox.Spec) { s.Task = "/no/such/dir" },
	} {
		spec := b.spec()
		change(&spec)
		s, err := b.Create(t.Context(), spec)
		if err == nil {
			_ = s.Destroy(t.Context())
			if name == "missing" && !b.Describe().Isolates {
				continue
			}
			t.Errorf("%s: %+v is accepted", name, spec)
		}
	}
	spec := b.spec()
	b.createSpec(t, spec)
	if s, err := b.Create(t.Context(), spec); err == nil {
		_ = s.Destroy(t.Context())
		t.Error("one id serves two living sandboxes")
	}
}

func testMany(t *testing.T, b *bench) {
	const n = 50
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			s, err := b.Create(t.Context(), b.spec())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() {
				if err := s.Destroy(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			l, err := s.Listen(t.Context(), 9001)
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			out, w := capture(t)
			defer w.Close()
			p, err := s.Exec(t.Context(), sandbox.Command{
				Path: "/bin/echo", Args: []string{"echo", "hi"}, Dir: s.Paths().Task, Stdout: w, Stderr: w,
			})
			if err != nil {
				t.Error(err)
				return
			}
			<-p.Done()
			_ = w.Close()
			<-out.eof
			if e := p.Exit(); e != (sandbox.Exit{}) || out.String() != "hi\n" {
				t.Errorf("ended with %+v, %q", e, out)
			}
		})
	}
	all.Wait()
}

func testClose(t *testing.T, b *bench) {
	s := b.create(t)
	c := s.sh("echo ready; sleep 1000")
	c.expect("ready")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	c.all()
	if s, err := b.Create(t.Context(), b.spec()); err == nil {
		_ = s.Destroy(t.Context())
		t.Error("Create after Close succeeds")
	}
}
