package sandbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
)

// Where user ids of sandboxes are taken from unless configured: a block that
// neither distributions, subordinate ids (100000 and up) nor systemd (below
// 1879048192) hand out, and below 2^31, where some programs stop counting.
const (
	DefaultUIDBase  = 1_900_000_000
	DefaultUIDCount = 65_536
)

// ErrNoUID is returned when every user id of the range belongs to a living sandbox.
var ErrNoUID = errors.New("every user id of the range is in use: raise the uid count")

// UIDs hands out user ids, none to two living sandboxes. It starts at a random
// place, because two daemons on one machine do not know of each other, and
// takes the last one given back first, so that few are ever in use and what is
// made for each once is of use again. It is safe for concurrent use.
type UIDs struct {
	base, count, first int

	mu    sync.Mutex
	taken int   // guarded by mu; how many were ever taken, counting from first
	free  []int // guarded by mu; given back
}

// NewUIDs returns the ids base … base+count-1, zeros meaning the defaults. In a
// user namespace that does not map them, it takes the upper half of what is mapped.
func NewUIDs(base, count int) (*UIDs, error) {
	if base == 0 {
		base = DefaultUIDBase
	}
	if count == 0 {
		count = DefaultUIDCount
	}
	if base < 1 || count < 1 || base+count > 1<<31-1 {
		return nil, fmt.Errorf("uid range %d+%d: choose a positive base and count below 2^31", base, count)
	}
	if m, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		if base, count, err = mapped(string(m), base, count); err != nil {
			return nil, err
		}
	}
	return &UIDs{base: base, count: count, first: rand.IntN(count)}, nil
}

// mapped returns the range itself where uidMap has it, else the upper half of
// the largest mapped block, without its last two ids (65534 is nobody).
func mapped(uidMap string, base, count int) (int, int, error) {
	var start, size int
	for line := range strings.Lines(uidMap) {
		var in, out, n int
		if _, err := fmt.Sscan(line, &in, &out, &n); err != nil {
			return 0, 0, fmt.Errorf("uid_map %q: %w", line, err)
		}
		if in <= base && base+count <= in+n {
			return base, count, nil
		}
		if n > size {
			start, size = in, n
		}
	}
	if size < 8 {
		return 0, 0, errors.New("this user namespace maps no spare user ids: give it a range (subuid)")
	}
	return start + size/2, size - size/2 - 2, nil
}

// Take returns an id that no living sandbox has.
func (u *UIDs) Take() (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(u.free); n > 0 {
		id := u.free[n-1]
		u.free = u.free[:n-1]
		return id, nil
	}
	if u.taken == u.count {
		return 0, ErrNoUID
	}
	id := u.base + (u.first+u.taken)%u.count
	u.taken++
	return id, nil
}

// Put gives an id back, once nothing runs or is owned under it.
func (u *UIDs) Put(id int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.free = append(u.free, id)
}
