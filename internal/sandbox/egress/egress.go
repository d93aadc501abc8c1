// Package egress lets sandboxes reach the world through the host, and nothing of the
// host itself: a pair of interfaces for each sandbox with a routed address of its own
// (a bridge would take 1,023), rules of nftables in one table, and a resolver that lets
// nobody look up what he may not reach. Drivers call it with the network
// namespaces of their sandboxes. Only the host's network namespace knows of it:
// sandboxes have no right to change theirs.
package egress

import (
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/netip"
)

// DefaultRange is what addresses of sandboxes are taken from: set aside for
// benchmarks of networks (RFC 2544), so that neither the internet nor a company has it.
const DefaultRange = "198.18.0.0/15"

// Config configures Open.
type Config struct {
	// Name tells this daemon's interfaces and table from those of others on
	// the machine, and must be the same when it starts again. Required.
	Name string
	// Range is what addresses are taken from, IPv4 of /8 to /24. Default: DefaultRange.
	// Daemons may share one.
	Range netip.Prefix
	// Servers are the name servers that are asked, with port. Default: the host's, of
	// /etc/resolv.conf as it is when somebody asks.
	Servers []netip.AddrPort
	// Log gets what an owner should know.
	Log *slog.Logger
}

// prefix is what all names of interfaces of Kiln begin with.
const prefix = "kiln"

// table is the name of this daemon's table, and what those of its interfaces begin with.
func (c Config) table() string { return fmt.Sprintf("%s%06x", prefix, c.hash()) }

// ending is the group of interfaces that are to be removed; no other on the machine may be in it.
func (c Config) ending() uint32 { return 'k'<<24 | c.hash() }

func (c Config) hash() uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.Name))
	return h.Sum32() & 0xffffff
}
