package sandbox

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Modes of a Network.
const (
	NetworkNone = "none" // a loopback interface only
	NetworkNAT  = "nat"  // out through the host, which is itself out of reach
	NetworkHost = "host" // the host's own network
)

// Network is what a sandbox reaches of the world.
type Network struct {
	Mode  string        // "": the driver's own
	Allow []Destination // of NetworkNAT: nothing else is reached; empty: whatever no driver refuses
}

// Destination is where a sandbox may connect to: a name or a prefix, and ports.
type Destination struct {
	Name        string       // api.example.com, *.example.com for all below it, * for every name; "" with a Prefix
	Prefix      netip.Prefix // IPv4
	First, Last uint16       // TCP and UDP ports; 0: every port and protocol
}

var namePattern = regexp.MustCompile(`^(\*|(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)$`)

// ParseDestination reads what String writes: a name, an address or a prefix, and after a
// colon a port or a range of ports, such as *.example.com:443 or 10.0.0.0/8:5432-5433.
func ParseDestination(text string) (d Destination, err error) {
	where, ports, some := strings.Cut(strings.TrimSpace(text), ":")
	fail := func(what string) (Destination, error) {
		return Destination{}, fmt.Errorf("destination %q: %s; write one such as api.example.com:443, *.example.com, 10.0.0.0/8 or 10.1.2.3:5432-5433", text, what)
	}
	if some {
		first, last, isRange := strings.Cut(ports, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || a == 0 || b < a {
			return fail("its ports are neither a port nor a range (IPv6 is not supported)")
		}
		d.First, d.Last = uint16(a), uint16(b)
	}
	if addr, err := netip.ParseAddr(where); err == nil {
		d.Prefix = netip.PrefixFrom(addr, addr.BitLen())
	} else if strings.Contains(where, "/") {
		if d.Prefix, err = netip.ParsePrefix(where); err != nil {
			return fail("its prefix is none")
		}
		if d.Prefix != d.Prefix.Masked() {
			return fail("its prefix has bits beyond its length, " + d.Prefix.Masked().String() + " has not")
		}
	} else {
		d.Name = strings.TrimSuffix(strings.ToLower(where), ".")
		if !namePattern.MatchString(d.Name) || len(d.Name) > 253 {
			return fail("its host is neither a name nor an address")
		}
		if last := d.Name[strings.LastIndexByte(d.Name, '.')+1:]; strings.Trim(last, "0123456789") == "" {
			return fail("its host is neither a name nor an address")
		}
		return d, nil
	}
	if !d.Prefix.Addr().Is4() {
		return fail("IPv6 is not supported")
	}
	return d, nil
}

// String is what ParseDestination reads.
func (d Destination) String() string {
	where := d.Name
	switch {
	case where != "":
	case d.Prefix.IsSingleIP():
		where = d.Prefix.Addr().String()
	default:
		where = d.Prefix.String()
	}
	switch {
	case d.First == 0:
		return where
	case d.First == d.Last:
		return fmt.Sprintf("%s:%d", where, d.First)
	default:
		return fmt.Sprintf("%s:%d-%d", where, d.First, d.Last)
	}
}

// Matches tells whether the name, in lower case and without a dot at its end, is one of the destination's.
func (d Destination) Matches(name string) bool {
	if suffix, ok := strings.CutPrefix(d.Name, "*"); ok {
		return suffix == "" || strings.HasSuffix(name, suffix) && len(name) > len(suffix)
	}
	return d.Name != "" && d.Name == name
}
