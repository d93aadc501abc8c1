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
// earlier than the disk, because the engine stores nothing after a write that
// fails until it was opened again.
type floor struct {
	path string
	min  int64

	mu      sync.Mutex
	checked time.Time // guarded by mu
	last    error     // guarded by mu
}

// Free fails with state.ErrFull when the directory's disk is below its floor.
// It is cheap enough for every write.
func (d *Dir) Free() error { return d.free.check() }

// Room fails with state.ErrFull when so many bytes more would bring the disk below
// its floor.
func (d *Dir) Room(bytes int64) error {
	free, err := d.free.read()
	if err == nil && free-bytes < d.free.min {
		err = fmt.Errorf("%w: %s has %d bytes free, of which %d are needed, and the floor is %d", state.ErrFull, d.path, free, bytes, d.free.min)
	}
	return err
}

// read returns the free bytes.
func (f *floor) read() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.path, &st); err != nil {
		return 0, fmt.Errorf("read the free space of %s: %w", f.path, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

func (f *floor) check() error {
	if f.min < 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.checked) < freeAge {
		return f.last
	}
	free, err := f.read()
	if err != nil {
		return err
	}
	f.checked, f.last = time.Now(), nil
	if free < f.min {
		f.last = fmt.Errorf("%w: %s has %d bytes free and the floor is %d", state.ErrFull, f.path, free, f.min)
	}
	return f.last
}
