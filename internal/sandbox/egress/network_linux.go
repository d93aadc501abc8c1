package egress

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"kiln/internal/sandbox"
)

// Network is what a driver's sandboxes reach: the mode of those that name none, and the way
// out of those that may have one.
type Network struct {
	Mode   string
	dir    string
	egress *Egress // nil: nothing leads out but the host's own network
}

// OpenNetwork opens the way out, unless nat is nil; else it removes what an earlier daemon with
// one left. The directory is the driver's, and names its interfaces and rules.
func OpenNetwork(dir, mode string, nat *Config, log *slog.Logger) (_ *Network, err error) {
	n := &Network{Mode: mode, dir: dir}
	switch {
	case mode == "":
		n.Mode = sandbox.NetworkNone
	case !slices.Contains([]string{sandbox.NetworkNone, sandbox.NetworkNAT, sandbox.NetworkHost}, mode):
		return nil, fmt.Errorf("network %q: want %q, %q or %q", mode, sandbox.NetworkNone, sandbox.NetworkNAT, sandbox.NetworkHost)
	case mode == sandbox.NetworkNAT && nat == nil:
		return nil, fmt.Errorf("network %q is not configured", mode)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if n.Mode != sandbox.NetworkHost {
		if err := os.WriteFile(n.HostResolvConf(), hostNames(), 0o644); err != nil {
			return nil, err
		}
	}
	root := os.Geteuid() == 0
	switch {
	case nat == nil && root:
		if err := Sweep(Config{Name: dir}); err != nil {
			log.Debug("cannot look for what an earlier run left of its network", "error", err)
		}
	case nat == nil:
	case !root:
		return nil, errors.New("network nat needs root, for interfaces and rules of the host's: start the daemon as root, or set network to none or host")
	default:
		c := *nat
		c.Name, c.Log = dir, log
		if n.egress, err = Open(c); err != nil {
			return nil, fmt.Errorf("network nat cannot be used here: %w", err)
		}
	}
	return n, nil
}

// Close removes the way out.
func (n *Network) Close() error {
	if n.egress == nil {
		return nil
	}
	return n.egress.Close()
}

// Of is the mode of a sandbox's network.
func (n *Network) Of(s sandbox.Spec) string {
	if s.Network.Mode == "" {
		return n.Mode
	}
	return s.Network.Mode
}

// Missing is what the driver's description says of it.
func (n *Network) Missing() []string {
	switch n.Mode {
	case sandbox.NetworkHost:
		return []string{"a network of its own for each sandbox: it was configured away"}
	case sandbox.NetworkNone:
		return []string{"a way for functions to reach anything but Kiln: --network nat, as root, leads out; --network host shares this machine's network"}
	}
	return nil
}

// ResolvConf is where sandboxes find name servers.
const ResolvConf = "/etc/resolv.conf"

// hostNames is how the host finds name servers.
func hostNames() []byte {
	text, _ := os.ReadFile(ResolvConf)
	return text
}

// HostResolvConf is a copy of the host's for sandboxes that share its network while others do not.
func (n *Network) HostResolvConf() string { return filepath.Join(n.dir, "resolv.conf") }

// Nameservers is what sandboxes find name servers by.
func (n *Network) Nameservers() []byte {
	switch {
	case n.Mode == sandbox.NetworkHost:
		return hostNames()
	case n.egress != nil:
		return []byte("nameserver " + n.egress.Nameserver().String() + "\n")
	default:
		return []byte("# This sandbox has no network beyond its loopback interface.\n")
	}
}

// Attach gives the network namespace of a process, which is the caller's child, a way out,
// which leads nowhere yet.
func (n *Network) Attach(p *os.Process) (*Link, error) {
	if n.egress == nil {
		return nil, errors.New("network nat is not configured")
	}
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.Pid))
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	return n.egress.Attach(namespace)
}
