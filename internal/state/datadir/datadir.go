// Package datadir keeps the rules of the data directory: one process at a time,
// a format version that an older Kiln refuses, a stable node id, a floor of free
// space, and the key that seals secrets at rest, itself sealed under a master key. It knows nothing of what
// the engine and the other packages put into their sub-directories. The daemon
// opens it first and closes it last.
package datadir

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// Format is the version of the directory's layout that this Kiln writes.
const Format = 2

// DefaultMinFree is the default floor of free space: enough for the engine to
// write its index and for a full package (50 MiB zipped) after the last check.
const DefaultMinFree = 256 << 20

// names of what the directory holds.
const (
	lockFile    = "lock"
	formatFile  = "format.json"
	keyFile     = "master.key"
	dataKeyFile = "data.key"
	engineDir   = "jetstream"
	codeDir     = "code"
	telemetry   = "telemetry"
	runDir      = "run"
	objectsDir  = "objects"
	imagesDir   = "images"
	runtimesDir = "runtimes"
	snapshotDir = "snapshots"
	building    = ".tmp" // ends the name of what is being written
)

// Config has no required field.
type Config struct {
	// MinFree is the floor of free space in bytes below which Free fails.
	// 0 means DefaultMinFree, -1 none.
	MinFree int64
	// MasterKey is where the master key comes from.
	MasterKey MasterKey
}

// Validate says how to fix what it rejects.
func (c Config) Validate() error {
	if c.MinFree < -1 {
		return fmt.Errorf("the floor of free space is %d bytes: give 0 for the default (%d), -1 for none, or a positive number", c.MinFree, DefaultMinFree)
	}
	return nil
}

// Dir is an open data directory. Methods are safe for concurrent use.
type Dir struct {
	path string
	node string
	lock *os.File
	key  sealer
	free floor
}

// header is the content of the format file.
type header struct {
	Format  int       `json:"format"`
	Node    string    `json:"node"`
	Created time.Time `json:"created"`
}

// Open creates the directory when it is not there, locks it until Close and
// checks its format. It changes nothing in a directory that it refuses.
func Open(path string, cfg Config) (_ *Dir, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create the data directory: %w", err)
	}
	lock, err := acquire(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = release(lock)
		}
	}()
	d := &Dir{path: path, lock: lock, free: floor{path: path, min: cfg.MinFree}}
	if cfg.MinFree == 0 {
		d.free.min = DefaultMinFree
	}
	if err := d.openFormat(cfg.MasterKey); err != nil {
		return nil, err
	}
	for _, sub := range []string{engineDir, codeDir, imagesDir, telemetry, runDir} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			return nil, fmt.Errorf("create a part of the data directory: %w", err)
		}
	}
	return d, nil
}

// Close lets another process open the directory.
func (d *Dir) Close() error {
	// The file stays: removing it would let two processes lock two inodes of one name.
	return release(d.lock)
}

// Path is the directory's absolute path; the engine keeps its folder in it.
func (d *Dir) Path() string { return d.path }

// Node is this node's id: stable over restarts, and unlike that of any other directory.
func (d *Dir) Node() string { return d.node }

// Code is where unpacked packages are cached; all of it can be made again.
func (d *Dir) Code() string { return filepath.Join(d.path, codeDir) }

// Telemetry is where logs and metrics are kept.
func (d *Dir) Telemetry() string { return filepath.Join(d.path, telemetry) }

// Images is where the layers of images are kept: they cannot be made again without
// the registry that they came from.
func (d *Dir) Images() string { return filepath.Join(d.path, imagesDir) }

// Run is for sockets and other files that have no meaning after a restart.
func (d *Dir) Run() string { return filepath.Join(d.path, runDir) }

// Objects is where in a data directory the buckets of its own S3 are kept. It is made
// when the first is.
func Objects(dir string) string { return filepath.Join(dir, objectsDir) }

// Runtimes is where in a data directory is kept what was added to runtimes. It is
// made when something is; looking at it needs no lock.
func Runtimes(dir string) string { return filepath.Join(dir, runtimesDir) }

// openFormat reads the format file and the key, or makes both in a new directory.
func (d *Dir) openFormat(master MasterKey) error {
	name := filepath.Join(d.path, formatFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return d.create(name, master)
	}
	if err != nil {
		return fmt.Errorf("read the data directory's format: %w", err)
	}
	var h header
	if err := json.Unmarshal(b, &h); err != nil || h.Format < 1 || h.Node == "" {
		return fmt.Errorf("%s is damaged: restore it from a backup of this data directory, or use another --data", name)
	}
	if h.Format > Format {
		return fmt.Errorf("%s was written by a newer Kiln (format %d; this one knows %d): upgrade kiln or use another --data", d.path, h.Format, Format)
	}
	if h.Format < Format {
		if err := d.migrate(h); err != nil {
			return err
		}
	}
	d.node = h.Node
	key, err := d.openKey(master)
	if err != nil {
		return err
	}
	d.key, err = newSealer(key)
	return err
}

// create fills a new directory. The format file is written last: a directory that
// has it is complete. One that lacks it and holds anything else is not ours, or
// has lost it.
func (d *Dir) create(name string, master MasterKey) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == restoringDir }) {
		return fmt.Errorf("a restore into %s was cut off: run kiln restore again", d.path)
	}
	for _, e := range entries {
		switch n := e.Name(); n {
		case lockFile, keyFile, keyFile + building, dataKeyFile, dataKeyFile + building, formatFile + building, "lost+found":
		default:
			return fmt.Errorf("%s holds %s but no %s: it is not a data directory of Kiln, or has lost that file; use an empty directory or restore it", d.path, n, formatFile)
		}
	}
	// What an unfinished creation has sealed, nothing is sealed with yet.
	key := make([]byte, keySize)
	rand.Read(key)
	if err := d.sealKey(key, master); err != nil {
		return err
	}
	if d.key, err = newSealer(key); err != nil {
		return err
	}
	h := header{Format: Format, Node: uuid.NewString(), Created: time.Now().UTC()}
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := writeFile(name, append(b, '\n')); err != nil {
		return fmt.Errorf("write the data directory's format: %w", err)
	}
	d.node = h.Node
	return nil
}

// migration returns what turns a format into the next one, or nil. Add to it
// together with Format; the directory was snapshotted before.
func migration(from int) func(path string) error {
	switch from {
	case 1:
		return envelope
	default:
		return nil
	}
}

// migrate brings the directory to Format, one step at a time. The format file is
// written after each step, so that a step cut short is run again: steps must be
// able to start over.
func (d *Dir) migrate(h header) error {
	if err := d.snapshot(h.Format); err != nil {
		return fmt.Errorf("snapshot the data directory before its migration: %w", err)
	}
	for ; h.Format < Format; h.Format++ {
		step := migration(h.Format)
		if step == nil {
			return fmt.Errorf("%s has format %d, which this Kiln no longer reads: open it once with an older release", d.path, h.Format)
		}
		if err := step(d.path); err != nil {
			return fmt.Errorf("migrate the data directory from format %d: %w", h.Format, err)
		}
		next := h
		next.Format++
		b, err := json.Marshal(next)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(d.path, formatFile), append(b, '\n')); err != nil {
			return fmt.Errorf("write the data directory's format: %w", err)
		}
	}
	return nil
}

// snapshot copies what cannot be made again to snapshots/format-N, unless an
// earlier, complete snapshot of that format is there.
func (d *Dir) snapshot(format int) error {
	to := filepath.Join(d.path, snapshotDir, "format-"+strconv.Itoa(format))
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	part := to + building
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := os.MkdirAll(part, 0o700); err != nil {
		return err
	}
	for _, name := range []string{formatFile, keyFile, dataKeyFile} {
		b, err := os.ReadFile(filepath.Join(d.path, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(part, name), b); err != nil {
			return err
		}
	}
	for _, sub := range []string{engineDir, telemetry} {
		err := os.CopyFS(filepath.Join(part, sub), os.DirFS(filepath.Join(d.path, sub)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(part, to)
}

// writeFile replaces a small file: whole or not at all, and on disk when it returns.
func writeFile(name string, content []byte) error {
	part := name + building
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
