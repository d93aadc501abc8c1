package crash

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"kiln/internal/state/powerloss"
	"kiln/test/kiln"
)

// powerRounds of cutting the power, unless KILN_SOAK says otherwise.
const powerRounds = 3

// TestKillPower is TestKillAsynchronous with a disk that loses power: at the death of the
// daemon what it has written and not synced is gone, every other time but for some pages.
func TestKillPower(t *testing.T) {
	t.Parallel()
	disk := powerloss.New(rand.Uint64())
	dir, unmount := powerloss.Mount(t, disk)
	cuts := 0
	killAsynchronous(t, filepath.Join(dir, "data"), powerRounds, func(d *kiln.Daemon) {
		disk.Cut(cuts%2 == 1)
		cuts++
		d.Kill()
		d.NothingLives()
		unmount()
		disk.On()
		dir, unmount = powerloss.Mount(t, disk)
		d.Data = filepath.Join(dir, "data")
	}, "--driver", "process") // the others make file systems of half a gigabyte for /tmp, and the disk is in memory
}
