package datadir

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kiln/internal/state"
)

// freeAge is how long a reading of the free space is believed. A disk that fills
// at 1 GB/s loses 100 MB meanwhile, less than the default floor.
const freeAge = 100 * time.Millisecond

// floor is the free space below which nothing more is accepted. Kiln stops
// earlier than the disk, because the engine closes its doors for good on the
// first write that fails.
type floor struct {
	path string
	min  int64

	mu   sync.Mutex
	read time.Time // guarded by mu
	last error     // guarded by mu
}

// Free fails with state.ErrFull when the directory's disk is below its floor.
// It is cheap enough for every write.
func (d *Dir) Free() error { return d.free.check() }

func (f *floor) check() error {
	if f.min < 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.read) < freeAge {
		return f.last
	}
	var st unix.Statfs_t
	if err := unix.Statfs(f.path, &st); err != nil {
		return fmt.Errorf("read the free space of %s: %w", f.path, err)
	}
	f.read, f.last = time.Now(), nil
	if free := int64(st.Bavail) * int64(st.Bsize); free < f.min {
		f.last = fmt.Errorf("%w: %s has %d bytes free and the floor is %d", state.ErrFull, f.path, free, f.min)
	}
	return f.last
}
