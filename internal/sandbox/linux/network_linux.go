package linux

import "kiln/internal/sandbox"

// leadOut gives the sandbox a way out where its network is one, and lets it reach what its
// spec allows once it is somebody's.
func (b *box) leadOut(spec sandbox.Spec, whose bool) (err error) {
	if b.d.network.Of(spec) != sandbox.NetworkNAT {
		return nil
	}
	if b.link == nil {
		if b.link, err = b.d.network.Attach(b.init); err != nil {
			return err
		}
	}
	if !whose {
		return nil
	}
	return b.link.Allow(spec.Network.Allow)
}
