package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"kiln/internal/state"
)

const (
	// buildPrefix begins the folders of trees that are being built or removed.
	buildPrefix = "tmp-"
	// codeDir is the tree within a package's folder, beside its manifest.
	codeDir = "code"
	// touchInterval is how exactly the last use is remembered over a restart.
	touchInterval = time.Minute
)

// tree is a package, or several merged, in the cache.
//
//	unknown ──build, check──▶ ready ──evict, remove──▶ gone (a new tree takes its name)
type tree struct {
	name  string   // a package's digest, or mergedName's
	parts []string // the packages of a merged tree; nil for others
	fill  Fill     // makes a filled tree; nil for others; guarded by lock
	// lock holds a token while the tree is built, checked or removed. It is taken
	// by pin, before Store.mu.
	lock chan struct{}

	// The following are guarded by Store.mu.
	users   int       // above 0: may not be evicted
	ready   bool      // checked or built by this process
	bytes   int64     // on disk; 0: not there
	used    time.Time // last
	touched time.Time // when used was written to disk
	doomed  bool      // removed when users gets 0
}

func (t *tree) unlock() { <-t.lock }

// pin keeps a tree from being evicted and locks it. The caller calls unlock and
// unpin.
func (s *Store) pin(ctx context.Context, name string, parts ...string) (*tree, error) {
	s.mu.Lock()
	t := s.trees[name]
	if t == nil {
		t = &tree{name: name, parts: parts, lock: make(chan struct{}, 1)}
		s.trees[name] = t
	}
	t.users++
	s.mu.Unlock()
	select {
	case t.lock <- struct{}{}:
		return t, nil
	case <-ctx.Done():
		s.unpin(t)
		return nil, context.Cause(ctx)
	}
}

func (s *Store) unpin(t *tree) {
	s.mu.Lock()
	t.users--
	var trash []string
	if t.users == 0 {
		t.used = time.Now()
		if t.doomed || t.bytes == 0 {
			trash = s.drop(t)
		}
	}
	trash = append(trash, s.evict()...)
	s.mu.Unlock()
	s.sweep(trash)
}

// drop takes a tree out of the cache. Its folder is renamed under the lock, so
// that a new tree of that name finds nothing, and deleted after it. mu is held.
func (s *Store) drop(t *tree) (trash []string) {
	if s.trees[t.name] == t {
		delete(s.trees, t.name)
	}
	s.bytes -= t.bytes
	if t.bytes == 0 {
		return nil
	}
	t.bytes = 0
	to, err := s.setAside(t.name)
	if err != nil {
		s.cfg.Log.Warn("a package's tree could not be removed", "tree", t.name, "error", err)
		return nil
	}
	return []string{to}
}

// setAside renames a tree's folder to one that the next start removes.
func (s *Store) setAside(name string) (string, error) {
	to, err := os.MkdirTemp(s.dir, buildPrefix)
	if err != nil {
		return "", err
	}
	err = os.Rename(filepath.Join(s.dir, name), filepath.Join(to, codeDir))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return to, err
}

// evict drops the trees used least recently until the rest fits. mu is held.
func (s *Store) evict() (trash []string) {
	for s.bytes > s.cfg.MaxCache {
		var oldest *tree
		for _, t := range s.trees {
			if t.users == 0 && t.bytes > 0 && (oldest == nil || t.used.Before(oldest.used)) {
				oldest = t
			}
		}
		if oldest == nil {
			break
		}
		trash = append(trash, s.drop(oldest)...)
	}
	return trash
}

func (s *Store) sweep(trash []string) {
	for _, path := range trash {
		if err := os.RemoveAll(path); err != nil {
			s.cfg.Log.Warn("a package's tree is removed only at the next start", "path", path, "error", err)
		}
	}
}

// touch remembers that a tree is used.
func (s *Store) touch(t *tree) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	t.used = now
	if now.Sub(t.touched) < touchInterval {
		return
	}
	t.touched = now
	// The folder's time is only advice for a later process.
	_ = os.Chtimes(filepath.Join(s.dir, t.name), now, now)
}

// use returns the path of a tree that is there and sound, until release.
func (s *Store) use(ctx context.Context, name string, parts ...string) (path string, release func(), err error) {
	t, err := s.pin(ctx, name, parts...)
	if err != nil {
		return "", nil, err
	}
	return s.take(ctx, t)
}

// take makes a pinned tree ready and unlocks it; release unpins it.
func (s *Store) take(ctx context.Context, t *tree) (path string, release func(), err error) {
	err = s.ready(ctx, t)
	t.unlock()
	if err != nil {
		s.unpin(t)
		return "", nil, diskError(err)
	}
	s.touch(t)
	return filepath.Join(s.dir, t.name, codeDir), sync.OnceFunc(func() { s.unpin(t) }), nil
}

// ready sees to it that the tree is there and sound. Its lock is held.
func (s *Store) ready(ctx context.Context, t *tree) error {
	s.mu.Lock()
	if !t.isPackage() {
		t.doomed = false // what it is made of was added again
	}
	ready, there, doomed := t.ready, t.bytes > 0, t.doomed
	s.mu.Unlock()
	if doomed {
		return state.ErrNotFound
	}
	if ready {
		return nil
	}
	if there {
		err := checkTree(ctx, s.dir, t.name, false)
		if err == nil {
			s.mu.Lock()
			t.ready = true
			s.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.cfg.Log.Warn("a package's tree was damaged and is unpacked again", "tree", t.name, "error", err)
	}
	switch {
	case t.fill != nil:
		return s.refill(ctx, t)
	case t.parts != nil:
		return s.remerge(ctx, t)
	}
	return s.rebuild(ctx, t)
}

// rebuild unpacks the stored package in place of what is there. The tree's lock is held.
func (s *Store) rebuild(ctx context.Context, t *tree) error {
	zip, size, err := s.fetch(ctx, t.name)
	if err != nil {
		return err
	}
	defer zip.Close()
	b, err := s.unpack(ctx, t.name, zip, size)
	if err != nil {
		return err
	}
	defer b.discard()
	return s.install(t, b, true)
}

func (s *Store) unpack(ctx context.Context, digest string, zip io.ReaderAt, size int64) (*building, error) {
	return s.build(ctx, digest, func(root *os.Root) (*manifest, error) { return unpack(ctx, root, zip, size, s.cfg.Free) })
}

// fetch copies the stored package to a file without a name.
func (s *Store) fetch(ctx context.Context, digest string) (_ *os.File, size int64, err error) {
	r, err := s.blob.Get(ctx, digest)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	f, err := os.CreateTemp(s.dir, buildPrefix)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err = errors.Join(err, os.Remove(f.Name())); err != nil {
			f.Close()
		}
	}()
	sum := sha256.New()
	size, err = io.Copy(io.MultiWriter(f, sum), r)
	if err != nil {
		return nil, 0, err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest {
		return nil, 0, fmt.Errorf("the stored package is damaged: its digest is %s", got)
	}
	return f, size, nil
}

// building is a tree that is complete but not in its place yet.
type building struct {
	dir      string
	unpacked int64 // sum of the files' sizes
	bytes    int64 // on disk
}

// discard removes what was not installed.
func (b *building) discard() { os.RemoveAll(b.dir) }

// build makes a tree in a folder of its own; fill gets the root of its content.
// Nothing of it stays after an error.
func (s *Store) build(ctx context.Context, name string, fill func(root *os.Root) (*manifest, error)) (_ *building, err error) {
	select {
	case s.builds <- struct{}{}:
		defer func() { <-s.builds }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := s.cfg.Free(); err != nil {
		return nil, err
	}
	b := &building{}
	if b.dir, err = os.MkdirTemp(s.dir, buildPrefix); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.discard()
		}
	}()
	if err := os.Chmod(b.dir, 0o755); err != nil { // the sandbox runs as another user
		return nil, err
	}
	code := filepath.Join(b.dir, codeDir)
	if err := os.Mkdir(code, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(code)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	m, err := fill(root)
	if err != nil {
		return nil, err
	}
	m.Package = name
	b.unpacked, b.bytes = m.Unpacked, m.Disk
	if err := m.write(filepath.Join(b.dir, manifestFile)); err != nil {
		return nil, err
	}
	// A tree must not get its name before its bytes are on disk.
	if err := syncTree(b.dir); err != nil {
		return nil, err
	}
	return b, nil
}

// install puts a built tree into its place. A tree that is there and sound is left
// alone, because it may be in use; with replace it is set aside. The tree's lock is held.
func (s *Store) install(t *tree, b *building, replace bool) error {
	trash, err := s.exchange(t, b, replace)
	s.sweep(trash)
	return err
}

func (s *Store) exchange(t *tree, b *building, replace bool) (trash []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.doomed = false
	if t.bytes > 0 {
		if t.ready && !replace {
			return nil, nil
		}
		old, err := s.setAside(t.name)
		if err != nil {
			return nil, err
		}
		if t.users == 1 { // else who uses the old tree keeps it until the next start
			trash = append(trash, old)
		}
		s.bytes, t.bytes, t.ready = s.bytes-t.bytes, 0, false
	}
	if err := os.Rename(b.dir, filepath.Join(s.dir, t.name)); err != nil {
		return trash, err
	}
	t.bytes, t.ready, t.used = b.bytes, true, time.Now()
	s.bytes += b.bytes
	return trash, nil
}

// takeStock reads the cache's folder.
func (s *Store) takeStock() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var trash []string
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		if strings.HasPrefix(e.Name(), buildPrefix) {
			trash = append(trash, path)
			continue
		}
		if checkDigest(strings.TrimPrefix(strings.TrimPrefix(e.Name(), mergedPrefix), filledPrefix)) != nil {
			continue // not ours
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		m, err := readHead(filepath.Join(path, manifestFile))
		if err != nil {
			s.cfg.Log.Warn("a package's tree is damaged and is removed", "path", path, "error", err)
			trash = append(trash, path)
			continue
		}
		s.trees[e.Name()] = &tree{name: e.Name(), parts: m.Parts, lock: make(chan struct{}, 1), bytes: m.Disk, used: info.ModTime()}
		s.bytes += m.Disk
	}
	s.sweep(append(trash, s.evict()...))
	return nil
}
