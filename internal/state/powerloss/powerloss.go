// Package powerloss is a disk for tests that can lose power: what was written and not
// synced is gone then, or some of it. It can be full, fail and refuse writes, too. Tests
// of the state and of the daemon mount it; nothing else imports it.
//
// It does what Linux's file systems do, and promises no more: a file's content is safe
// once the file is synced, which brings the name that it was created under to the disk,
// too; other changes of a directory are safe once the directory is synced.
package powerloss

import (
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// maxBytes bounds all that a disk holds: it is in memory.
const maxBytes = 1 << 30

// pageSize is what a disk writes whole or not at all, in bytes.
const pageSize = 4096

// Disk holds files, in memory. It outlives its mounts. Methods are safe for concurrent use.
type Disk struct {
	mu     sync.Mutex
	root   *entry
	last   uint64        // number given last to an entry
	off    bool          // the power is
	fault  syscall.Errno // what writes fail with once left is used up; 0 for none
	left   int           // writes that still succeed
	syncs  int           // done so far
	used   int64         // bytes of content
	random *rand.Rand
}

// entry is a file or a folder. Its fields are guarded by the disk's mu.
type entry struct {
	number uint64
	folder bool
	mode   uint32
	link   string // what a symbolic link refers to
	owner  fuse.Owner

	content, synced []byte // of a file; synced is what is on the disk
	from, to        int    // where the two may differ
	named           bool   // on the disk, under whatever name

	names, syncedNames map[string]*entry // of a folder
}

// New returns an empty disk. What stays of writes that were not synced is drawn from the seed.
func New(seed uint64) *Disk {
	d := &Disk{random: rand.New(rand.NewPCG(seed, 0))}
	d.root = d.make(true, 0o700)
	return d
}

func (d *Disk) make(folder bool, mode uint32) *entry {
	d.last++
	e := &entry{number: d.last, folder: folder, mode: mode & 0o7777}
	if folder {
		e.names, e.syncedNames = map[string]*entry{}, map[string]*entry{}
	}
	return e
}

// Cut turns the power off: from now on everything fails. What was not synced is gone; with
// torn, some of its pages are not.
func (d *Disk) Cut(torn bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
	d.used = 0
	d.settle(d.root, torn, map[*entry]bool{})
}

// settle makes of an entry what the disk has of it.
func (d *Disk) settle(e *entry, torn bool, seen map[*entry]bool) {
	if seen[e] {
		return
	}
	seen[e] = true
	if !e.folder {
		if torn {
			d.tear(e)
		}
		e.content = append([]byte(nil), e.synced...)
		e.from, e.to = len(e.content), len(e.content)
		d.used += int64(len(e.content))
		return
	}
	e.names = maps.Clone(e.syncedNames)
	for _, below := range e.names {
		d.settle(below, torn, seen)
	}
}

// tear brings some pages of what was not synced to the disk. A file that has grown
// may hold zeros where its pages have not arrived.
func (d *Disk) tear(e *entry) {
	for at := e.from &^ (pageSize - 1); at < min(e.to, len(e.content)); at += pageSize {
		if d.random.IntN(2) == 0 {
			continue
		}
		end := min(at+pageSize, len(e.content))
		if len(e.synced) < end {
			e.synced = append(e.synced, make([]byte, end-len(e.synced))...)
		}
		copy(e.synced[at:end], e.content[at:end])
	}
}

// On turns the power on again, after Cut and once nothing is mounted.
func (d *Disk) On() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = false
}

// Fail has writes and syncs fail from the nth on, counted from 1: with ENOSPC,
// EIO, or EROFS. Errno 0 ends that.
func (d *Disk) Fail(errno syscall.Errno, nth int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.left = errno, nth-1
}

// Syncs counts syncs, of files and folders.
func (d *Disk) Syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

// change is asked before anything is changed. d.mu is held.
func (d *Disk) change() syscall.Errno {
	switch {
	case d.off:
		return syscall.EIO
	case d.fault == 0:
		return 0
	case d.left > 0:
		d.left--
		return 0
	}
	return d.fault
}

// read is asked before anything is read. d.mu is held.
func (d *Disk) read() syscall.Errno {
	if d.off {
		return syscall.EIO
	}
	return 0
}

func (d *Disk) write(e *entry, b []byte, at int64, sync bool) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.change(); errno != 0 {
		return errno
	}
	if grown := at + int64(len(b)) - int64(len(e.content)); grown > 0 {
		if errno := d.resize(e, at+int64(len(b))); errno != 0 {
			return errno
		}
	}
	copy(e.content[at:], b)
	e.from, e.to = min(e.from, int(at)), max(e.to, int(at)+len(b))
	if sync {
		d.sync(e)
	}
	return 0
}

// resize changes how long a file is. d.mu is held.
func (d *Disk) resize(e *entry, size int64) syscall.Errno {
	if d.used+size-int64(len(e.content)) > maxBytes {
		return syscall.ENOSPC
	}
	d.used += size - int64(len(e.content))
	if size < int64(len(e.content)) {
		e.content = e.content[:size]
	} else {
		e.content = append(e.content, make([]byte, size-int64(len(e.content)))...)
	}
	e.from = min(e.from, int(size))
	e.to = max(e.to, int(size))
	return 0
}

// sync brings an entry to the disk. d.mu is held.
func (d *Disk) sync(e *entry) {
	d.syncs++
	if e.folder {
		e.syncedNames = maps.Clone(e.names)
		for _, below := range e.names {
			below.named = true
		}
		return
	}
	if n := len(e.content); n < len(e.synced) {
		e.synced = e.synced[:n]
	} else {
		e.synced = append(e.synced, make([]byte, n-len(e.synced))...)
	}
	copy(e.synced[e.from:], e.content[e.from:])
	e.from, e.to = len(e.content), len(e.content)
	if !e.named {
		d.nameOf(d.root, e)
	}
}

// nameOf brings the name of a new file to the disk, and the folders that it is in.
func (d *Disk) nameOf(folder, e *entry) bool {
	for name, below := range folder.names {
		if below == e || below.folder && d.nameOf(below, e) {
			folder.syncedNames[name] = below
			below.named = true
			return true
		}
	}
	return false
}
