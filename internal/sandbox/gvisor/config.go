// Package gvisor is the strong sandbox driver of Linux: each sandbox has a kernel of
// its own, gVisor's, run by the external program runsc, so that functions never make
// a system call of the host. It is for tenants that do not trust each other. The
// daemon makes the driver; cmd/kiln and TestMain call Init, because the first
// processes outside and inside gVisor are this program again where it is given no other. DESIGN.md
// says how it works and what was refused.
package gvisor

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"kiln/internal/sandbox/egress"
)

// maxSpares bounds Config.Spares: each is some 20 MB.
const maxSpares = 100

// Config configures the driver.
type Config struct {
	// Dir holds what the driver keeps; it is this driver's alone. Required.
	Dir string
	// Program calls inside.Init when its first argument is one of inside's. It stays the
	// caller's, and open for as long as the driver. Default: this program.
	Program *os.File
	// Runsc is gVisor's program, a path or a name to look for. Default: runsc.
	Runsc string
	// Spares is how many booted kernels wait for a Create to come: it then takes a
	// tenth of the time. The first are started by the first Create. Default: 0.
	Spares int
	// MaxSpares is how many wait where so many were asked for at once of late. Default: Spares.
	MaxSpares int
	// Network is that of sandboxes whose Spec names none, one of sandbox.NetworkNone,
	// NetworkNAT and NetworkHost. Default: NetworkNone.
	Network string
	// NAT, if not nil, makes NetworkNAT possible; its Name is the driver's Dir.
	NAT *egress.Config
	// Files are further files, by their paths inside, of sandboxes that have the host's programs.
	Files map[string][]byte
	// Cgroup names the cgroup above all sandboxes, as for the linux driver. Default: kiln.
	Cgroup string
	// UIDBase and UIDCount are the range of user ids for sandboxes; 0 means
	// sandbox.DefaultUIDBase and DefaultUIDCount.
	UIDBase, UIDCount int
	// Log gets what went wrong without anybody waiting for it. Default: slog.Default.
	Log *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Runsc == "" {
		c.Runsc = "runsc"
	}
	if c.Cgroup == "" {
		c.Cgroup = "kiln"
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.MaxSpares = max(c.Spares, c.MaxSpares)
	switch {
	case !filepath.IsAbs(c.Dir):
		return c, fmt.Errorf("gvisor driver: directory %q: want an absolute path", c.Dir)
	case c.Spares < 0 || c.MaxSpares > maxSpares:
		return c, fmt.Errorf("gvisor driver: %d to %d spares: want 0 to %d", c.Spares, c.MaxSpares, maxSpares)
	case !filepath.IsLocal(c.Cgroup):
		return c, fmt.Errorf("gvisor driver: cgroup %q: want a relative name such as kiln", c.Cgroup)
	}
	return c, nil
}
