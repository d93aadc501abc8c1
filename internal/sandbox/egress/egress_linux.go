package egress

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
)

const (
	// gateways is how many addresses at the beginning of the range are for the
	// daemons' resolvers.
	gateways = 16
	// tries bounds the addresses that are tried for one sandbox: others may be another daemon's.
	tries = 1_000
	// settle is the pause between two looks for whether an interface works, settled the longest wait.
	settle, settled = 50 * time.Microsecond, time.Second
)

// Egress is open between Open and Close. Its methods are safe for concurrent use.
type Egress struct {
	cfg     Config
	gateway netip.Addr
	link    *netlink.Handle
	rules   *rules
	dns     *resolver

	mu       sync.Mutex
	next     uint32                 // guarded by mu; offset of the address that is tried next
	policies map[string]*policy     // guarded by mu; by their destinations
	links    map[netip.Addr]*policy // guarded by mu; of sandboxes; nil: nothing yet
	ended    []*Link                // guarded by mu; whose interfaces are to be removed
	removing bool                   // guarded by mu
	work     sync.WaitGroup         // the removal
}

// Link is a sandbox's way out.
type Link struct {
	e    *Egress
	veth *netlink.Veth // the host's end
	addr netip.Addr

	once sync.Once
	done chan struct{} // closed once err is final
	err  error
}

// Open removes what an earlier run of the same name left, lets the host forward
// packets, and lays its rules.
func Open(cfg Config) (_ *Egress, err error) {
	if !cfg.Range.IsValid() {
		cfg.Range = netip.MustParsePrefix(DefaultRange)
	}
	if bits := cfg.Range.Bits(); !cfg.Range.Addr().Is4() || bits < 8 || bits > 24 || cfg.Range != cfg.Range.Masked() {
		return nil, fmt.Errorf("network range %s: want an IPv4 prefix of 8 to 24 bits, such as %s", cfg.Range, DefaultRange)
	}
	if err := Sweep(cfg); err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	e := &Egress{cfg: cfg, link: h, next: rand.Uint32(), policies: map[string]*policy{}, links: map[netip.Addr]*policy{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if err := e.forward(); err != nil {
		return nil, err
	}
	// An address needs an interface; a bridge without ports is one that every kernel has.
	home := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: cfg.table(), Flags: net.FlagUp}}
	if err := h.LinkAdd(home); err != nil {
		return nil, fmt.Errorf("make interface %s: %w", home.Name, err)
	}
	for i := range gateways {
		e.gateway = e.address(uint32(i + 1))
		if err := h.AddrAdd(home, &netlink.Addr{IPNet: single(e.gateway)}); err != nil {
			return nil, fmt.Errorf("give %s an address: %w", home.Name, err)
		}
		if e.dns, err = newResolver(netip.AddrPortFrom(e.gateway, dnsPort), e); err == nil {
			break
		}
		if !errors.Is(err, unix.EADDRINUSE) || i == gateways-1 {
			return nil, err
		}
		// It is another daemon's.
		if err := h.AddrDel(home, &netlink.Addr{IPNet: single(e.gateway)}); err != nil {
			return nil, fmt.Errorf("take an address from %s: %w", home.Name, err)
		}
	}
	if e.rules, err = newRules(cfg.table(), cfg.Range, e.gateway); err != nil {
		return nil, err
	}
	if chain := e.rules.obstacle(); chain != "" && cfg.Log != nil {
		cfg.Log.Warn("another firewall drops what is forwarded, so functions may reach nothing: let it accept interfaces "+cfg.table()+"*",
			"chain", chain, "docker", "iptables -I DOCKER-USER -i "+cfg.table()+"+ -j ACCEPT; iptables -I DOCKER-USER -o "+cfg.table()+"+ -j ACCEPT")
	}
	e.dns.serve()
	return e, nil
}

// forward lets the host pass packets on, as container engines do.
func (e *Egress) forward() error {
	const setting = "/proc/sys/net/ipv4/ip_forward"
	b, err := os.ReadFile(setting)
	if err != nil {
		return fmt.Errorf("read whether the host forwards packets: %w", err)
	}
	if strings.TrimSpace(string(b)) == "1" {
		return nil
	}
	if err := os.WriteFile(setting, []byte("1"), 0); err != nil {
		return fmt.Errorf("let the host forward packets (sysctl -w net.ipv4.ip_forward=1): %w", err)
	}
	if e.cfg.Log != nil {
		e.cfg.Log.Info("the host forwards packets from now on", "sysctl", "net.ipv4.ip_forward=1")
	}
	return nil
}

// Nameserver is whom sandboxes ask for names.
func (e *Egress) Nameserver() netip.Addr { return e.gateway }

// Attach gives the network namespace an interface eth0, which leads nowhere before Allow.
// It closes with the namespace or by Close, which must be called in either case.
// namespace is open for as long as the call takes.
func (e *Egress) Attach(namespace *os.File) (_ *Link, err error) {
	inside, err := netlink.NewHandleAt(netns.NsHandle(int(namespace.Fd())), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("enter the network namespace: %w", err)
	}
	defer inside.Close()
	l, err := e.make(namespace)
	if err != nil {
		return nil, err
	}
	if err := l.configure(inside); err != nil {
		return nil, errors.Join(fmt.Errorf("set up a way out: %w", err), l.Close())
	}
	return l, nil
}

// Allow lets the sandbox reach the destinations, or whatever is not refused where there
// are none.
func (l *Link) Allow(allow []sandbox.Destination) error {
	p, err := l.e.policy(allow)
	if err != nil {
		return err
	}
	l.e.mu.Lock()
	l.e.links[l.addr] = p
	l.e.mu.Unlock()
	if err := l.e.link.LinkSetGroup(l.veth, int(p.number)); err != nil {
		return fmt.Errorf("open the way out: %w", err)
	}
	return nil
}

// policy finds or makes that of the destinations.
func (e *Egress) policy(allow []sandbox.Destination) (*policy, error) {
	var key strings.Builder
	for _, d := range allow {
		key.WriteString(d.String() + " ")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.policies[key.String()]; p != nil {
		return p, nil
	}
	p, err := e.rules.add(uint32(len(e.policies)+1), allow)
	if err != nil {
		return nil, fmt.Errorf("lay the rules for %s: %w", key.String(), err)
	}
	e.policies[key.String()] = p
	return p, nil
}

// make makes the pair of interfaces and the route to it. The route's address is the
// sandbox's: the kernel knows which are taken, by this daemon or others.
func (e *Egress) make(namespace *os.File) (*Link, error) {
	inside := hardware(1)
	l := &Link{e: e, done: make(chan struct{})}
	for range tries {
		offset, addr := e.take()
		if l.veth == nil {
			veth := &netlink.Veth{
				LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("%s%05x", e.cfg.table(), offset), HardwareAddr: hardware(0), Flags: net.FlagUp},
				PeerName:  "eth0", PeerHardwareAddr: inside, PeerNamespace: netlink.NsFd(int(namespace.Fd())),
			}
			if err := e.link.LinkAdd(veth); errors.Is(err, unix.EEXIST) {
				continue
			} else if err != nil {
				return nil, fmt.Errorf("make a pair of interfaces: %w", err)
			}
			l.veth = veth
		}
		err := e.link.RouteAdd(&netlink.Route{LinkIndex: l.veth.Index, Dst: single(addr), Scope: netlink.SCOPE_LINK})
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err == nil {
			l.addr = addr
			e.mu.Lock()
			e.links[addr] = nil
			e.mu.Unlock()
			// Nobody need ask for the other's hardware address.
			err = e.link.NeighAdd(permanent(l.veth.Index, addr, inside))
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("route to the sandbox: %w", err), l.Close())
		}
		return l, nil
	}
	err := fmt.Errorf("no address is left in %s", e.cfg.Range)
	if l.veth != nil {
		err = errors.Join(err, l.Close())
	}
	return nil, err
}

// take picks the address that was not used for longest.
func (e *Egress) take() (offset uint32, addr netip.Addr) {
	size := uint32(1)<<(32-e.cfg.Range.Bits()) - 1 // without the last, which is a broadcast address elsewhere
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		e.next++
		offset = 1 + gateways + e.next%(size-1-gateways)
		addr = e.address(offset)
		if _, taken := e.links[addr]; !taken || len(e.links) >= int(size-1-gateways) {
			return offset, addr // where all are taken, the caller will see
		}
	}
}

func (e *Egress) address(offset uint32) netip.Addr {
	a := e.cfg.Range.Addr().As4()
	n := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	n += offset
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// configure sets up the end inside.
func (l *Link) configure(inside *netlink.Handle) error {
	eth, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	index, gateway := eth.Attrs().Index, l.e.gateway
	if err := errors.Join(
		inside.AddrAdd(eth, &netlink.Addr{IPNet: single(l.addr)}),
		inside.LinkSetUp(eth),
		inside.NeighAdd(permanent(index, gateway, l.veth.HardwareAddr)),
		inside.RouteAdd(&netlink.Route{LinkIndex: index, Dst: single(gateway), Scope: netlink.SCOPE_LINK}),
		inside.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice()}),
	); err != nil {
		return err
	}
	// The kernel tells the host's end of the other's in its own time, and drops what is sent
	// to it before; an answer to a first packet would be.
	for begin := time.Now(); time.Since(begin) < settled; time.Sleep(settle) {
		if eth, err = l.e.link.LinkByIndex(l.veth.Index); err != nil || eth.Attrs().OperState == netlink.OperUp {
			return err
		}
	}
	return nil // it will be late
}

// Addr is the sandbox's address.
func (l *Link) Addr() netip.Addr { return l.addr }

// Close takes the way out away. It is idempotent, and fine when the namespace is gone, or
// where there is none.
func (l *Link) Close() error {
	if l == nil {
		return nil
	}
	l.once.Do(func() {
		e := l.e
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.links, l.addr)
		e.ended = append(e.ended, l)
		if !e.removing {
			e.removing = true
			e.work.Go(e.remove)
		}
	})
	<-l.done
	return l.err
}

// remove removes the interfaces of links that ended, all that wait at a time: the kernel
// takes as long for many as for one, which is 10 ms and more.
func (e *Egress) remove() {
	for {
		e.mu.Lock()
		batch := e.ended
		e.ended = nil
		e.removing = len(batch) > 0
		e.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		group := e.cfg.ending()
		for _, l := range batch {
			if err := e.link.LinkSetGroup(l.veth, int(group)); !gone(err) {
				l.err = fmt.Errorf("remove interface %s: %w", l.veth.Name, err)
			}
		}
		r := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
		r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
		_, err := r.Execute(unix.NETLINK_ROUTE, 0)
		for _, l := range batch {
			if !gone(err) && l.err == nil {
				l.err = fmt.Errorf("remove interface %s: %w", l.veth.Name, err)
			}
			close(l.done)
		}
	}
}

// gone tells that there was nothing to remove.
func gone(err error) bool {
	return err == nil || errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV)
}

// Close removes everything but what Attach made and nobody closed, which Sweep removes.
func (e *Egress) Close() error {
	var err error
	if e.dns != nil {
		e.dns.close()
	}
	e.work.Wait()
	if e.rules != nil {
		err = e.rules.close()
	}
	e.link.Close()
	return errors.Join(err, Sweep(e.cfg))
}

// Sweep removes what an earlier run of the same name left.
func Sweep(cfg Config) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, cfg.table()) {
			if derr := netlink.LinkDel(l); !gone(derr) {
				err = errors.Join(err, fmt.Errorf("remove interface %s: %w", l.Attrs().Name, derr))
			}
		}
	}
	return errors.Join(err, sweepRules(cfg.table()))
}

// hardware makes a random hardware address, locally administered.
func hardware(last byte) net.HardwareAddr {
	r := rand.Uint32()
	return net.HardwareAddr{0x02, byte(r >> 24), byte(r >> 16), byte(r >> 8), byte(r), last}
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

func permanent(index int, addr netip.Addr, hw net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: hw}
}
