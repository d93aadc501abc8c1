package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/egress"
)

// openNetwork opens the way out, if there is to be one, and else removes what an earlier
// daemon with one left.
func (d *Driver) openNetwork() (err error) {
	if d.cfg.Network != sandbox.NetworkHost {
		if err := os.WriteFile(d.hostResolvConf(), hostNames(), 0o644); err != nil {
			return err
		}
	}
	name := egress.Config{Name: d.cfg.Dir}
	if d.cfg.NAT == nil {
		if d.uids != nil {
			if err := egress.Sweep(name); err != nil {
				d.cfg.Log.Debug("cannot look for what an earlier run left of its network", "error", err)
			}
		}
		return nil
	}
	if d.uids == nil {
		return errors.New("network nat needs root, for interfaces and rules of the host's: start the daemon as root, or set network to none or host")
	}
	c := *d.cfg.NAT
	c.Name, c.Log = name.Name, d.cfg.Log
	if d.egress, err = egress.Open(c); err != nil {
		return fmt.Errorf("network nat cannot be used here: %w", err)
	}
	return nil
}

// resolvConf is where sandboxes find name servers.
const resolvConf = "/etc/resolv.conf"

// hostNames is how the host finds name servers.
func hostNames() []byte {
	text, _ := os.ReadFile(resolvConf)
	return text
}

// hostResolvConf is a copy of the host's for sandboxes that share its network while others do not.
func (d *Driver) hostResolvConf() string { return filepath.Join(d.cfg.Dir, "resolv.conf") }

// nameservers is what sandboxes find name servers by.
func (d *Driver) nameservers() []byte {
	switch {
	case d.cfg.Network == sandbox.NetworkHost:
		return hostNames()
	case d.egress != nil:
		return []byte("nameserver " + d.egress.Nameserver().String() + "\n")
	default:
		return []byte("# This sandbox has no network beyond its loopback interface.\n")
	}
}

// network is the mode of a sandbox's network.
func (d *Driver) network(s sandbox.Spec) string {
	if s.Network.Mode == "" {
		return d.cfg.Network
	}
	return s.Network.Mode
}

// attach gives a first process's network namespace a way out, which leads nowhere yet.
func (d *Driver) attach(p *os.Process) (*egress.Link, error) {
	if d.egress == nil {
		return nil, errors.New("network nat is not configured")
	}
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.Pid))
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	return d.egress.Attach(namespace)
}

// leadOut gives the sandbox a way out where its network is one, and lets it reach what its
// spec allows once it is somebody's.
func (b *box) leadOut(spec sandbox.Spec, whose bool) (err error) {
	if b.d.network(spec) != sandbox.NetworkNAT {
		return nil
	}
	if b.link == nil {
		if b.link, err = b.d.attach(b.init); err != nil {
			return err
		}
	}
	if !whose {
		return nil
	}
	return b.link.Allow(spec.Network.Allow)
}

// unlink takes the way out away.
func (b *box) unlink() error {
	if b.link == nil {
		return nil
	}
	return b.link.Close()
}
