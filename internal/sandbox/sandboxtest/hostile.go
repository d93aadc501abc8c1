package sandboxtest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"kiln/internal/sandbox"
)

//go:embed hostile.py
var hostile string

// Hostile lets functions do their worst in sandboxes of a driver that isolates:
// they achieve nothing outside, a neighbour and the host notice nothing, and
// nothing is left. What costs a line in a shell is in Run. Where only names cases, these
// are all.
func Hostile(t *testing.T, newDriver New, only ...string) {
	before := Snapshot(t)
	t.Run("driver", func(t *testing.T) {
		b := newBench(t, newDriver)
		if !b.Describe().Isolates {
			t.Skip("the driver isolates nothing, and says so")
		}
		a := newAssault(t, b)
		for _, c := range []struct {
			name string
			test func(*testing.T, *assault)
		}{
			{"forkBomb", testForkBomb},
			{"threads", testThreads},
			{"descriptors", func(t *testing.T, a *assault) { a.want(t, "descriptors", "descriptors 1024 EMFILE") }},
			{"memoryOfNobody", testMemoryOfNobody},
			{"spin", testSpin},
			{"flood", testFlood},
			{"otherProcesses", func(t *testing.T, a *assault) { a.want(t, "other_processes", "") }},
			{"keys", testKeys},
			{"mounts", func(t *testing.T, a *assault) { a.want(t, "mounts", "") }},
			{"chroot", func(t *testing.T, a *assault) { a.want(t, "chroot_escape", "") }},
			{"root", func(t *testing.T, a *assault) { a.want(t, "become_root", "") }},
			{"rawSockets", func(t *testing.T, a *assault) { a.want(t, "raw_sockets", "") }},
			{"connect", func(t *testing.T, a *assault) { a.want(t, "connect", "") }},
			{"poison", func(t *testing.T, a *assault) { a.want(t, "poison", "") }},
			{"races", testRaces},
			{"machine", func(t *testing.T, a *assault) { a.want(t, "machine", "") }},
		} {
			if len(only) > 0 && !slices.Contains(only, c.name) {
				continue
			}
			t.Run(c.name, func(t *testing.T) { // one after the other: each has the neighbour to itself
				c.test(t, a)
				a.unharmed(t)
			})
		}
	})
	before.Unchanged(t)
}

// assault is a driver with a quiet neighbour, and what of it and of the host
// hostile functions look for.
type assault struct {
	*bench
	neighbour *box
	sleeper   *command
	precious  string
	given     map[string]any
}

func newAssault(t *testing.T, b *bench) *assault {
	dir := Dir(t)
	a := &assault{bench: b, neighbour: b.create(t), precious: filepath.Join(dir, "precious")}
	a.sleeper = a.neighbour.python("import socket, time\n" +
		"s = socket.socket(); s.bind(('127.0.0.1', 8080)); s.listen()\n" +
		"print('ready', flush=True); time.sleep(1000)")
	a.sleeper.expect("ready")
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(a.precious, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.precious, "file"), []byte("precious"), 0o666); err != nil {
		t.Fatal(err)
	}
	addresses := [][]any{{"127.0.0.1", 8080}, {"169.254.169.254", 80}, {"169.254.170.2", 80}, {"fd00:ec2::254", 80}}
	door := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	port := door("tcp", ":0").Addr().(*net.TCPAddr).Port
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range own {
		if ip := o.(*net.IPNet).IP; !ip.IsLinkLocalUnicast() {
			addresses = append(addresses, []any{ip.String(), port})
		}
	}
	sockets := []string{filepath.Join(dir, "socket"), fmt.Sprintf("@kiln-hostile-%d", os.Getpid())}
	for _, s := range sockets {
		door("unix", s)
	}
	a.given = map[string]any{"secret": secret, "precious": a.precious, "pid": os.Getpid(), "addresses": addresses, "sockets": sockets, "own_kernel": b.Describe().OwnKernel}
	return a
}

// attack starts one of the functions of hostile.py.
func (a *assault) attack(t *testing.T, s *box, function string) *command {
	t.Helper()
	return s.start(a.program(t, s, function))
}

func (a *assault) program(t *testing.T, s *box, function string) sandbox.Command {
	t.Helper()
	a.given["case"] = function
	given, err := json.Marshal(a.given)
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.script("/usr/bin/python3", "-Ic", hostile)
	cmd.Env = append(cmd.Env, "GIVEN="+string(given))
	return cmd
}

// want runs a function to its end, which achieves nothing but to say so.
func (a *assault) want(t *testing.T, function, output string) {
	t.Helper()
	c := a.attack(t, a.create(t), function)
	if e := c.wait(); e != (sandbox.Exit{}) || c.all() != output {
		t.Errorf("%s: %q, want %q; ended with %+v %s", function, c.all(), output, e, c.err)
	}
}

// unharmed looks at the neighbour and the host.
func (a *assault) unharmed(t *testing.T) {
	t.Helper()
	select {
	case <-a.sleeper.Done():
		t.Fatalf("the neighbour's process ended with %+v", a.sleeper.Exit())
	default:
	}
	a.neighbour.t = t
	if got := a.neighbour.sh("cat $TASK/file $OPT/file $CLIENT/file && echo x >$TMP/x && cat $TMP/x").text(); got != "codelayersclientx" {
		t.Errorf("the neighbour sees %q", got)
	}
	if b, err := os.ReadFile(filepath.Join(a.precious, "file")); err != nil || string(b) != "precious" {
		t.Errorf("a file of the host: %q, %v", b, err)
	}
	if list, err := os.ReadDir(a.precious); err != nil || len(list) != 1 {
		t.Errorf("a folder of the host has %v, %v", list, err)
	}
}

// limited skips the test where the machine does not bound what.
func (a *assault) limited(t *testing.T, what string) {
	t.Helper()
	for _, m := range a.Describe().Missing {
		if strings.Contains(m, what) {
			t.Skip(m)
		}
	}
}

// testForkBomb has each process start more until there can be no more, and KillAll end them.
func testForkBomb(t *testing.T, a *assault) {
	a.limited(t, "process limits")
	spec := a.spec()
	spec.MemoryBytes = 1 << 30
	s := a.createSpec(t, spec)
	for range 2 {
		c := a.attack(t, s, "fork_bomb")
		if !c.reaches("full") { // the limit on memory came first, where a process takes more of it
			if e := c.wait(); !e.OOM {
				t.Errorf("a fork bomb ended with %+v", e)
			}
			a.unharmed(t)
			return
		}
		a.unharmed(t)
		if err := s.KillAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.all() // nobody has its output any more
	}
	s.sh("exit 0").text()
}

func testThreads(t *testing.T, a *assault) {
	a.limited(t, "process limits")
	spec := a.spec()
	spec.MemoryBytes = 1 << 30
	c := a.attack(t, a.createSpec(t, spec), "threads")
	c.wait()
	var n int
	if _, err := fmt.Sscanf(c.all(), "threads %d", &n); err != nil || n < 1000 || n > 1024 {
		t.Errorf("%q, want close to 1024 and no more", c.all())
	}
}

func testMemoryOfNobody(t *testing.T, a *assault) {
	a.limited(t, "memory limits")
	spec := a.spec()
	spec.MemoryBytes = 64 << 20
	c := a.attack(t, a.createSpec(t, spec), "memory_of_nobody")
	if e := c.wait(); e != (sandbox.Exit{Signal: syscall.SIGKILL, OOM: true}) || c.all() != "begins" {
		t.Errorf("%q, ended with %+v", c.all(), e)
	}
}

func testSpin(t *testing.T, a *assault) {
	c := a.attack(t, a.create(t), "spin")
	c.expect("spinning")
}

// testFlood writes to an output that nobody reads: it waits, and nobody else does.
func testFlood(t *testing.T, a *assault) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s := a.create(t)
	cmd := a.program(t, s, "flood")
	cmd.Stdout, cmd.Stderr = w, w
	if _, err := s.Exec(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != nil { // it has begun
		t.Fatal(err)
	}
	a.unharmed(t)
	if _, err := s.Usage(t.Context()); err != nil {
		t.Error(err)
	}
}

func testKeys(t *testing.T, a *assault) {
	a.attack(t, a.create(t), "hide_key").wait()
	a.want(t, "find_key", "")
}

// testRaces destroys a sandbox amid changes of what is to be removed.
func testRaces(t *testing.T, a *assault) {
	s := a.create(t)
	a.attack(t, s, "races").expect("racing")
	if err := s.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}
