package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
)

// refused are never reached, whatever is allowed: this host, multicast, and the addresses at
// which clouds tell machines their credentials.
var refused = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),     // link-local: AWS, Google Cloud and most others
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud
	netip.MustParsePrefix("224.0.0.0/3"),        // multicast, reserved, broadcast
}

const (
	// flows bounds a sandbox's connections at a time, so that none fills the host's table of them.
	flows = 1_024
	// resolved bounds the addresses that names of one destination lead to at a time.
	resolved = 65_536
	// before places our chains ahead of other firewalls': what we refuse they never see.
	before = -10
)

// rules is the table. A packet of a sandbox takes this way:
//
//	prerouting ─▶ input ────▶ the resolver, or refuse
//	           └▶ forward ─▶ leaving ─▶ chosen (by the interface's group) ─▶ a policy's chain
//	                                 └▶ refuse                            └▶ refuse
type rules struct {
	name    string
	table   *nftables.Table
	leaving *nftables.Chain
	chosen  *nftables.Chain

	mu   sync.Mutex
	conn *nftables.Conn // guarded by mu
}

// policy is what some sandboxes may reach.
type policy struct {
	number uint32 // the group of their interfaces
	allow  []sandbox.Destination

	names map[int]*nftables.Set // by position in allow, of those with a name

	// known is until when an address is in a set. Guarded by rules.mu.
	known map[int]map[netip.Addr]time.Time
}

func newRules(name string, all netip.Prefix, gateway netip.Addr) (*rules, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	r := &rules{name: name, conn: conn}
	r.table = conn.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
	accept := nftables.ChainPolicyAccept
	base := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: name, Table: r.table, Type: kind, Hooknum: hook, Priority: &priority, Policy: &accept})
	}
	prerouting := base("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, before-150)
	input := base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, before)
	forward := base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, before)
	postrouting := base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	refuse := r.chain("refuse")
	r.leaving, r.chosen = r.chain("leaving"), r.chain("chosen")
	ours, any := name, prefix // of names of interfaces

	// IPv6 does not lead out, and nobody may use another's address.
	r.rule(prerouting, from(ours), ipv6(), drop())
	r.rule(prerouting, from(ours), foreign(), drop())

	r.rule(input, from(ours), to(netip.PrefixFrom(gateway, 32)), ports(unix.IPPROTO_UDP, dnsPort, dnsPort), accepted())
	r.rule(input, from(ours), to(netip.PrefixFrom(gateway, 32)), ports(unix.IPPROTO_TCP, dnsPort, dnsPort), accepted())
	r.rule(input, from(ours), going(refuse))

	r.rule(forward, from(ours), going(r.leaving))
	r.rule(forward, into(ours), answers(), accepted())
	r.rule(forward, into(ours), going(refuse))

	counted := &nftables.Set{Table: r.table, Name: "flows", KeyType: nftables.TypeIPAddr, Dynamic: true, Size: resolved}
	if err := conn.AddSet(counted, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("nftables: %w", err), conn.CloseLasting())
	}
	r.rule(r.leaving, answers(), accepted())
	r.rule(r.leaving, into(any), going(refuse))
	for _, p := range append([]netip.Prefix{all}, refused...) {
		r.rule(r.leaving, to(p), going(refuse))
	}
	r.rule(r.leaving, source(), []expr.Any{&expr.Dynset{
		SrcRegKey: 1, SetName: counted.Name, SetID: counted.ID, Operation: uint32(unix.NFT_DYNSET_OP_ADD),
		Exprs: []expr.Any{&expr.Connlimit{Count: flows, Flags: expr.NFT_CONNLIMIT_F_INV}},
	}}, going(refuse))
	r.rule(r.leaving, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: r.chosen.Name}})
	r.rule(r.leaving, going(refuse))

	// At once, so that whoever waits for it hears.
	r.rule(refuse, protocol(unix.IPPROTO_TCP), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	r.rule(refuse, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}})

	r.rule(postrouting, fromAddr(all), []expr.Any{&expr.Masq{}})

	if err := conn.Flush(); err != nil {
		return nil, errors.Join(fmt.Errorf("lay the rules of nftables: %w", err), conn.CloseLasting())
	}
	return r, nil
}

// add lays the rules of a policy.
func (r *rules) add(number uint32, allow []sandbox.Destination) (*policy, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &policy{number: number, allow: allow, names: map[int]*nftables.Set{}, known: map[int]map[netip.Addr]time.Time{}}
	chain := r.chain(fmt.Sprintf("policy%d", number))
	if len(allow) == 0 {
		r.rule(chain, accepted())
	}
	for i, d := range allow {
		where := to(d.Prefix)
		if d.Name != "" {
			set := &nftables.Set{Table: r.table, Name: fmt.Sprintf("policy%d_%d", number, i), KeyType: nftables.TypeIPAddr, HasTimeout: true, Size: resolved}
			if err := r.conn.AddSet(set, nil); err != nil {
				return nil, err
			}
			p.names[i], p.known[i] = set, map[netip.Addr]time.Time{}
			where = append(destination(), &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID})
		}
		if d.First == 0 {
			r.rule(chain, where, accepted())
			continue
		}
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			r.rule(chain, where, ports(protocol, d.First, d.Last), accepted())
		}
	}
	group := binary.NativeEndian.AppendUint32(nil, number)
	r.rule(r.chosen, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: group},
	}, going(chain))
	if err := r.conn.Flush(); err != nil {
		return nil, fmt.Errorf("lay the rules of nftables: %w", err)
	}
	return p, nil
}

// open lets sandboxes of the policy reach the addresses, which belong to the destination
// at position i, for the time.
func (r *rules) open(p *policy, i int, addrs []netip.Addr, during time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	set, known := p.names[i], p.known[i]
	for addr, until := range known {
		if until.Before(now) {
			delete(known, addr)
		}
	}
	var add, again []nftables.SetElement
	for _, a := range addrs {
		e := nftables.SetElement{Key: a.AsSlice(), Timeout: during}
		switch until, ok := known[a]; {
		case ok && until.After(now.Add(during/2)):
			continue
		case ok && until.After(now.Add(time.Second)): // so it is there to be taken out
			again = append(again, e)
		}
		add = append(add, e)
		known[a] = now.Add(during)
	}
	if len(add) == 0 {
		return nil
	}
	// In one transaction, because adding what is there keeps its time.
	if len(again) > 0 {
		if err := r.conn.SetDeleteElements(set, again); err != nil {
			return err
		}
	}
	if err := r.conn.SetAddElements(set, add); err != nil {
		return err
	}
	if err := r.conn.Flush(); err != nil {
		for _, a := range addrs {
			delete(known, a)
		}
		return fmt.Errorf("let %d addresses be reached: %w", len(add), err)
	}
	return nil
}

// obstacle names a chain of another table that drops what is forwarded unless told otherwise.
func (r *rules) obstacle() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	chains, err := r.conn.ListChains()
	if err != nil {
		return "" // it is only a hint
	}
	for _, c := range chains {
		if c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop &&
			(c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyINet) {
			return c.Table.Name + " " + c.Name
		}
	}
	return ""
}

// close leaves the table to sweepRules.
func (r *rules) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn.CloseLasting()
}

// sweepRules removes the table, if it is there.
func sweepRules(name string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list the tables of nftables: %w", err)
	}
	for _, t := range tables {
		if t.Name == name {
			conn.DelTable(t)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove the table of nftables: %w", err)
	}
	return nil
}

func (r *rules) chain(name string) *nftables.Chain {
	return r.conn.AddChain(&nftables.Chain{Name: name, Table: r.table})
}

func (r *rules) rule(c *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: c, Exprs: all})
}

// ── parts of rules; each that compares uses register 1 alone ──

func named(key expr.MetaKey, prefix string) []expr.Any {
	// Comparing fewer bytes than a name has is what nft writes as prefix*.
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(prefix)}}
}

func from(prefix string) []expr.Any { return named(expr.MetaKeyIIFNAME, prefix) }
func into(prefix string) []expr.Any { return named(expr.MetaKeyOIFNAME, prefix) }

func family(f byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f}}}
}

func ipv6() []expr.Any { return family(unix.NFPROTO_IPV6) }

// foreign: the way back to the source is not by the interface that it came in by.
func foreign() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}

// answers: what belongs to a connection that was let through.
func answers() []expr.Any {
	mask := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

const sourceAt, destinationAt = 12, 16 // in the header of IPv4

func address(at uint32) []expr.Any {
	return append(family(unix.NFPROTO_IPV4), &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: 4})
}

func source() []expr.Any      { return address(sourceAt) }
func destination() []expr.Any { return address(destinationAt) }

func within(load []expr.Any, p netip.Prefix) []expr.Any {
	var mask [4]byte
	binary.BigEndian.PutUint32(mask[:], ^uint32(0)<<(32-p.Bits()))
	return append(load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask[:], Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	)
}

func to(p netip.Prefix) []expr.Any       { return within(destination(), p) }
func fromAddr(p netip.Prefix) []expr.Any { return within(source(), p) }

func protocol(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{p}}}
}

func ports(p byte, first, last uint16) []expr.Any {
	return append(protocol(p),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: binary.BigEndian.AppendUint16(nil, first), ToData: binary.BigEndian.AppendUint16(nil, last)},
	)
}

func accepted() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() []expr.Any     { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }
func going(c *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}}
}
