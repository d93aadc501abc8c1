// Package linux is the sandbox driver of Linux: each sandbox has its own mount,
// process, network, IPC and host name spaces, a read-only root, a user of its
// own without capabilities, and cgroup limits. It shares the host's kernel with
// its functions: it keeps apart teams that trust each other that far, not
// hostile tenants. The daemon makes the driver; cmd/kiln and TestMain call Init,
// because process 1 of a sandbox is this program again where it is given no other. DESIGN.md says
// how it works and what was refused.
package linux

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"kiln/internal/sandbox/egress"
)

// maxSpares bounds Config.Spares: more than anybody can start at once.
const maxSpares = 1_000

// Config configures the driver.
type Config struct {
	// Dir holds the sandboxes' directories; it is this driver's alone, and on a
	// disk, because /tmp of the sandboxes lies there. Required.
	Dir string
	// Program calls inside.Init when its first argument is inside.Arg. It stays the caller's, and
	// open for as long as the driver. Default: this program.
	Program *os.File
	// Spares is how many first processes wait, in their new namespaces, for a
	// Create to come: it then takes a third of the time. Each costs 0.9 MB, or 4 where the program is kiln, and
	// the first are started by the first Create. Default: 0.
	Spares int
	// MaxSpares is how many wait where so many were asked for at once of late. Default: Spares.
	MaxSpares int
	// SpareTmpBytes is the size of the file system for /tmp that waits with each
	// spare; a sandbox of another size has one made. Default: 0, none waits.
	SpareTmpBytes int64
	// Network is that of sandboxes whose Spec names none, one of sandbox.NetworkNone,
	// NetworkNAT and NetworkHost. Default: NetworkNone.
	Network string
	// NAT, if not nil, makes NetworkNAT possible; its Name is the driver's Dir. It needs root.
	NAT *egress.Config
	// Files are further files, by their paths inside, of sandboxes that have the host's programs.
	Files map[string][]byte
	// Cgroup names the cgroup above all sandboxes, below the one that the kernel
	// lets the daemon use. Default: kiln.
	Cgroup string
	// UIDBase and UIDCount are the range of user ids for sandboxes, when the
	// daemon is root; 0 means sandbox.DefaultUIDBase and DefaultUIDCount.
	UIDBase, UIDCount int
	// Log gets what could not be cleaned up. Default: slog.Default.
	Log *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Cgroup == "" {
		c.Cgroup = "kiln"
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.MaxSpares = max(c.Spares, c.MaxSpares)
	switch {
	case !filepath.IsAbs(c.Dir):
		return c, fmt.Errorf("linux driver: directory %q: want an absolute path", c.Dir)
	case c.Spares < 0 || c.MaxSpares > maxSpares:
		return c, fmt.Errorf("linux driver: %d to %d spares: want 0 to %d", c.Spares, c.MaxSpares, maxSpares)
	case !filepath.IsLocal(c.Cgroup):
		return c, fmt.Errorf("linux driver: cgroup %q: want a relative name such as kiln", c.Cgroup)
	}
	return c, nil
}
