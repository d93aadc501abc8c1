package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"kiln/internal/config"
	"kiln/internal/lambda"
	"kiln/internal/sandbox"
	"kiln/internal/sandbox/egress"
)

// autoNetwork leads out where others than this machine can call, as on AWS, and
// where that can be done.
const autoNetwork = "auto"

// networks are what functions reach.
type networks struct {
	mode   string         // of all that have no other
	nat    *egress.Config // nil where none leads out
	allow  []sandbox.Destination
	apart  map[string]sandbox.Network // by account
	chosen bool                       // not by autoNetwork
}

func networksOf(c config.Config) (n networks, err error) {
	n.mode, n.chosen = c.Network, c.Network != autoNetwork
	if !n.chosen {
		n.mode = sandbox.NetworkNone
		if !c.Loopback() && os.Geteuid() == 0 {
			n.mode = sandbox.NetworkNAT
		}
	}
	var problems []error
	n.allow, err = destinations(c.EgressAllow)
	problems = append(problems, wrapKey("egress_allow", err))
	n.apart = map[string]sandbox.Network{}
	lead := n.mode == sandbox.NetworkNAT
	for id, a := range c.Accounts {
		own := sandbox.Network{Mode: a.Network, Allow: n.allow}
		if a.EgressAllow != nil {
			own.Allow, err = destinations(a.EgressAllow)
			problems = append(problems, wrapKey("accounts."+id+".egress_allow", err))
		}
		lead = lead || own.Mode == sandbox.NetworkNAT
		n.apart[id] = own
	}
	if lead {
		n.nat = &egress.Config{}
		n.nat.Range, err = netip.ParsePrefix(c.NetworkRange)
		problems = append(problems, wrapKey("network_range", err))
		for _, text := range c.DNS {
			server, err := nameServer(text)
			problems = append(problems, wrapKey("dns", err))
			n.nat.Servers = append(n.nat.Servers, server)
		}
	}
	return n, errors.Join(problems...)
}

// of is what functions of the account reach.
func (n networks) of(account lambda.AccountID) sandbox.Network {
	if own, ok := n.apart[string(account)]; ok {
		return own
	}
	return sandbox.Network{Allow: n.allow}
}

func wrapKey(key string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func destinations(texts []string) (list []sandbox.Destination, err error) {
	for _, text := range texts {
		d, derr := sandbox.ParseDestination(text)
		err = errors.Join(err, derr)
		list = append(list, d)
	}
	return list, err
}

// nameServer reads an address, with a port or without.
func nameServer(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return ap, fmt.Errorf("%q is not the address of a name server, such as 10.0.0.2 or 10.0.0.2:5353", text)
	}
	return ap, nil
}
