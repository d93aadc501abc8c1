package egress_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/egress"
)

// The addresses of these tests. The world knows the way to the host, but none to sandboxes
// until a test gives it one.
const (
	hostAddr  = "203.0.113.1"
	worldAddr = "203.0.113.2"
	farAddr   = "192.0.2.1"
	metadata  = "169.254.169.254"
)

const inNamespace = "KILN_TEST_NAMESPACE"

// TestMain runs the tests as the host of a network of their own.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// world is what is behind the host.
var world = sync.OnceValues(func() (*os.File, error) {
	w, err := namespace()
	if err != nil {
		return nil, err
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	up := &netlink.Veth{
		// Not the number that its other end has: the kernel would let a second pass before it works.
		LinkAttrs: netlink.LinkAttrs{Name: "up0", Index: 100, Flags: net.FlagUp},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(int(w.Fd())),
	}
	if err == nil {
		err = netlink.LinkAdd(up)
	}
	if err == nil {
		err = give(up, hostAddr+"/24")
	}
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: up.Index, Gw: net.ParseIP(worldAddr)})
	}
	if err != nil {
		return nil, err
	}
	in(w, func() {
		lo, _ := netlink.LinkByName("lo")
		eth, _ := netlink.LinkByName("eth0")
		err = errors.Join(netlink.LinkSetUp(lo), netlink.LinkSetUp(eth),
			give(eth, worldAddr+"/24"), give(lo, farAddr+"/32"), give(lo, metadata+"/32"))
		for _, addr := range []string{worldAddr + ":80", farAddr + ":80", farAddr + ":443", metadata + ":80"} {
			if err == nil {
				err = echo(addr)
			}
		}
		if err == nil {
			err = names(worldAddr + ":53")
		}
	})
	return w, err
})

func give(l netlink.Link, cidr string) error {
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, a)
}

// namespace makes a network namespace, which ends with the file.
func namespace() (f *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked: the thread ends
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			f, err = os.Open("/proc/thread-self/ns/net")
		}
	}()
	<-done
	return f, err
}

// in runs f in the namespace.
func in(ns *os.File, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked: the thread ends
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		f()
	}()
	<-done
}

// echo says to whoever connects who he seems to be.
func echo(addr string) error {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, c.RemoteAddr().String())
			_ = c.Close()
		}
	}()
	return nil
}

// names is a name server.
func names(addr string) error {
	known := map[string]string{"far.example.": farAddr, "a.far.example.": farAddr, "trap.example.": metadata}
	answer := func(question []byte) []byte {
		var m dnsmessage.Message
		if m.Unpack(question) != nil || len(m.Questions) != 1 {
			return nil
		}
		m.Response = true
		q := m.Questions[0]
		to, ok := known[strings.ToLower(q.Name.String())]
		if !ok {
			m.RCode = dnsmessage.RCodeNameError
		} else if q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.AResource{A: netip.MustParseAddr(to).As4()},
			}}
		}
		b, _ := m.Pack()
		return b
	}
	udp, err := net.ListenPacket("udp4", addr)
	if err != nil {
		return err
	}
	go func() {
		for buf := make([]byte, 4096); ; {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(answer(buf[:n]), from)
		}
	}()
	tcp, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			if n, _ := c.Read(buf); n > 2 {
				b := answer(buf[2:n])
				_, _ = c.Write(append([]byte{byte(len(b) >> 8), byte(len(b))}, b...))
			}
			_ = c.Close()
		}
	}()
	return nil
}

// open opens an Egress for the test.
func open(t *testing.T, change func(*egress.Config)) *egress.Egress {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network interfaces")
	}
	if _, err := world(); err != nil {
		t.Fatal(err)
	}
	cfg := egress.Config{
		Name: t.Name(), Servers: []netip.AddrPort{netip.MustParseAddrPort(worldAddr + ":53")},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&cfg)
	}
	e, err := egress.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// box is a network namespace with a way out.
type box struct {
	*os.File
	*egress.Link
}

func attach(t *testing.T, e *egress.Egress, allow ...string) box {
	t.Helper()
	var list []sandbox.Destination
	for _, text := range allow {
		d, err := sandbox.ParseDestination(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, d)
	}
	ns, err := namespace()
	if err != nil {
		t.Fatal(err)
	}
	l, err := e.Attach(ns)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Allow(list); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ns.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return box{ns, l}
}

// dial connects from inside and returns what the other side says.
func (b box) dial(addr string) (said string, err error) {
	in(b.File, func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp4", addr, 5*time.Second); err != nil {
			return
		}
		defer c.Close()
		var text []byte
		text, err = io.ReadAll(c)
		said = string(text)
	})
	return said, err
}

// ask resolves a name from inside, by network.
func (b box) ask(e *egress.Egress, network, name string) (addrs []string, err error) {
	in(b.File, func() {
		r := net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(context.Context, string, string) (c net.Conn, err error) {
			in(b.File, func() { c, err = net.Dial(network, netip.AddrPortFrom(e.Nameserver(), 53).String()) })
			return c, err
		}}
		var list []netip.Addr
		list, err = r.LookupNetIP(context.Background(), "ip4", name+".")
		for _, a := range list {
			addrs = append(addrs, a.Unmap().String())
		}
	})
	return addrs, err
}

func (b box) reaches(t *testing.T, addr string) {
	t.Helper()
	said, err := b.dial(addr)
	if err != nil {
		t.Errorf("%s is not reached: %v", addr, err)
	} else if !strings.HasPrefix(said, hostAddr+":") {
		t.Errorf("%s sees %s, not the host", addr, said)
	}
}

// refused wants an answer at once, because nobody likes to wait for a firewall.
func (b box) refused(t *testing.T, addr string) {
	t.Helper()
	if said, err := b.dial(addr); err == nil {
		t.Errorf("%s is reached, and sees %s", addr, said)
	} else if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s: %v, want a refusal", addr, err)
	}
}

func TestWayOut(t *testing.T) {
	e := open(t, nil)
	b := attach(t, e)
	b.reaches(t, worldAddr+":80")
	b.reaches(t, farAddr+":443")
	if addrs, err := b.ask(e, "udp4", "far.example"); err != nil || len(addrs) != 1 || addrs[0] != farAddr {
		t.Errorf("far.example is %v, %v", addrs, err)
	}
	if addrs, err := b.ask(e, "tcp4", "far.example"); err != nil || len(addrs) != 1 || addrs[0] != farAddr {
		t.Errorf("far.example is %v, %v by TCP", addrs, err)
	}
	if _, err := b.ask(e, "udp4", "none.example"); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("none.example: %v", err)
	}
}

func TestNothingBeforeAllow(t *testing.T) {
	e := open(t, nil)
	ns, err := namespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	l, err := e.Attach(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := box{ns, l}
	b.refused(t, worldAddr+":80")
	if err := l.Allow(nil); err != nil {
		t.Fatal(err)
	}
	b.reaches(t, worldAddr+":80")
}

func TestHostIsOutOfReach(t *testing.T) {
	e := open(t, nil)
	b, neighbour := attach(t, e), attach(t, e)
	for _, addr := range []string{"0.0.0.0:0"} {
		l, err := net.Listen("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		b.refused(t, net.JoinHostPort(hostAddr, port))
		b.refused(t, net.JoinHostPort(e.Nameserver().String(), port))
	}
	in(neighbour.File, func() {
		if err := echo(neighbour.Addr().String() + ":8080"); err != nil {
			t.Error(err)
		}
	})
	b.refused(t, neighbour.Addr().String()+":8080")
	b.refused(t, metadata+":80")
	for _, policy := range []string{"0.0.0.0/0", "*", metadata} {
		b := attach(t, e, policy)
		if _, err := b.ask(e, "udp4", "trap.example"); policy == "*" && err != nil {
			t.Error(err)
		}
		b.refused(t, metadata+":80")
	}
	if l, err := netlink.LinkList(); err != nil || len(l) == 0 {
		t.Error(l, err)
	}
}

func TestDestinations(t *testing.T) {
	e := open(t, nil)
	t.Run("addresses", func(t *testing.T) {
		b := attach(t, e, "192.0.2.0/24:440-443", worldAddr)
		b.reaches(t, farAddr+":443")
		b.refused(t, farAddr+":80")
		b.reaches(t, worldAddr+":80")
		if _, err := b.ask(e, "udp4", "far.example"); err == nil {
			t.Error("a name is looked up that nothing allows")
		}
	})
	t.Run("names", func(t *testing.T) {
		b := attach(t, e, "far.example:443")
		other := attach(t, e, "a.far.example:80")
		b.refused(t, farAddr+":443")
		for range 2 { // also while the address is known
			if addrs, err := b.ask(e, "udp4", "far.example"); err != nil || len(addrs) != 1 {
				t.Errorf("far.example is %v, %v", addrs, err)
			}
			b.reaches(t, farAddr+":443")
		}
		b.refused(t, farAddr+":80")
		b.refused(t, worldAddr+":80")
		other.refused(t, farAddr+":443")
		for _, name := range []string{"trap.example", "a.far.example", "secret.far.example"} {
			if addrs, err := b.ask(e, "udp4", name); err == nil {
				t.Errorf("%s is %v", name, addrs)
			}
		}
	})
	t.Run("patterns", func(t *testing.T) {
		b := attach(t, e, "*.far.example:443")
		if _, err := b.ask(e, "udp4", "far.example"); err == nil {
			t.Error("far.example is not below itself")
		}
		if _, err := b.ask(e, "tcp4", "a.far.example"); err != nil {
			t.Error(err)
		}
		b.reaches(t, farAddr+":443")
	})
}

// TestForeignAddress: a sandbox cannot speak with another's address. Real ones
// lack the right to give themselves one.
func TestForeignAddress(t *testing.T) {
	w, err := world()
	if err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	e := open(t, nil)
	b, victim := attach(t, e, "0.0.0.0/0"), attach(t, e)
	var heard net.PacketConn
	in(w, func() { heard, err = net.ListenPacket("udp4", worldAddr+":0") })
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	in(b.File, func() {
		eth, _ := netlink.LinkByName("eth0")
		if err := give(eth, victim.Addr().String()+"/32"); err != nil {
			t.Error(err)
		}
		for _, from := range []netip.Addr{victim.Addr(), b.Addr()} {
			to := heard.LocalAddr().(*net.UDPAddr)
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: from.AsSlice()}, to)
			if err != nil {
				t.Error(err)
				continue
			}
			_, _ = io.WriteString(c, from.String())
			_ = c.Close()
		}
	})
	buf := make([]byte, 100)
	_ = heard.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, _, err := heard.ReadFrom(buf)
	if err != nil || string(buf[:n]) != b.Addr().String() {
		t.Errorf("heard %q, %v; want only what %s says", buf[:n], err, b.Addr())
	}
}

// TestNobodyComesIn: the world cannot connect to a sandbox, even if it knows the way.
func TestNobodyComesIn(t *testing.T) {
	e := open(t, nil)
	b := attach(t, e)
	w, _ := world()
	in(b.File, func() {
		if err := echo(b.Addr().String() + ":8080"); err != nil {
			t.Error(err)
		}
	})
	in(w, func() {
		_, way, _ := net.ParseCIDR(egress.DefaultRange)
		eth, _ := netlink.LinkByName("eth0")
		r := &netlink.Route{LinkIndex: eth.Attrs().Index, Dst: way, Gw: net.ParseIP(hostAddr)}
		if err := netlink.RouteAdd(r); err != nil {
			t.Error(err)
		}
		defer func() { _ = netlink.RouteDel(r) }()
		if c, err := net.DialTimeout("tcp4", b.Addr().String()+":8080", 300*time.Millisecond); err == nil {
			_ = c.Close()
			t.Error("the world connects to a sandbox")
		}
	})
}

// TestTwoDaemons share a range, and their sandboxes do not reach each other.
func TestTwoDaemons(t *testing.T) {
	one := open(t, nil)
	two := open(t, func(c *egress.Config) { c.Name += "other" })
	if one.Nameserver() == two.Nameserver() {
		t.Error("two daemons have one name server")
	}
	a, b := attach(t, one), attach(t, two, farAddr, "far.example")
	a.reaches(t, farAddr+":80")
	b.reaches(t, farAddr+":80")
	b.refused(t, worldAddr+":80")
	if _, err := b.ask(two, "udp4", "far.example"); err != nil {
		t.Error(err)
	}
	in(b.File, func() {
		if err := echo(b.Addr().String() + ":8080"); err != nil {
			t.Error(err)
		}
	})
	a.refused(t, b.Addr().String()+":8080")
	a.refused(t, two.Nameserver().String()+":53")
}

// TestNothingIsLeft: neither by Close nor, after a kill, by the next Open.
func TestNothingIsLeft(t *testing.T) {
	var name string
	e := open(t, func(c *egress.Config) { name = c.Name })
	before := left(t, name)
	b := attach(t, e)
	if got := left(t, name); got == before {
		t.Errorf("an attached sandbox shows in nothing that this test looks at: %s", got)
	}
	_ = b.File.Close() // with the namespace its end goes, and with that the other
	if err := errors.Join(b.Link.Close(), b.Link.Close()); err != nil {
		t.Error(err)
	}
	attach(t, e)
	again := open(t, func(c *egress.Config) { c.Name = name }) // e was killed, so to speak
	_ = again
	if got := left(t, name); strings.Count(got, "kiln") != strings.Count(before, "kiln") {
		t.Errorf("left by the killed one: %s", got)
	}
	if err := egress.Sweep(egress.Config{Name: name}); err != nil {
		t.Error(err)
	}
	if got := left(t, name); strings.Contains(got, "kiln") {
		t.Errorf("left: %s", got)
	}
}

// left lists interfaces.
func left(t *testing.T, _ string) string {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, l := range links {
		fmt.Fprintln(&b, l.Attrs().Name)
	}
	return b.String()
}

func TestRange(t *testing.T) {
	for _, text := range []string{"10.0.0.0/7", "10.0.0.0/25", "10.0.0.1/16", "fd00::/16"} {
		if _, err := egress.Open(egress.Config{Name: "range", Range: netip.MustParsePrefix(text)}); err == nil || !strings.Contains(err.Error(), "such as") {
			t.Errorf("%s: %v", text, err)
		}
	}
	e := open(t, func(c *egress.Config) { c.Range = netip.MustParsePrefix("10.99.0.0/24") })
	links := make(chan *egress.Link, 238)
	for range cap(links) {
		ns, err := namespace()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		l, err := e.Attach(ns)
		if err != nil {
			t.Fatal(err)
		}
		links <- l
	}
	defer func() {
		close(links)
		var all sync.WaitGroup
		for l := range links {
			all.Go(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}()
	ns, err := namespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if l, err := e.Attach(ns); err == nil || !strings.Contains(err.Error(), "no address is left in 10.99.0.0/24") {
		t.Errorf("%v, %v", l, err)
	}
}

// BenchmarkAttach is what a way out adds to the start and the end of a sandbox.
func BenchmarkAttach(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	e, err := egress.Open(egress.Config{Name: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	for b.Loop() {
		b.StopTimer()
		ns, err := namespace()
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		l, err := e.Attach(ns)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		_ = ns.Close()
		b.StartTimer()
	}
}
