// Package image keeps container images: it looks up what a reference means for
// this machine (in a registry, an OCI layout or a docker archive), copies an
// image's layers into a folder of its own, so that the image outlives where it
// came from, and hands out its root file system, unpacked, from the cache of
// package artifact. It is the only importer of an OCI library, and knows nothing
// of functions and sandboxes; the registry pulls and removes images, the
// environments run in their roots.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/artifact"
)

const (
	// maxPulls bounds the images copied at once, maxCopies the layers of one.
	maxPulls  = 3
	maxCopies = 3
	// maxAttempts bounds how often a pull begins again because the image was removed meanwhile.
	maxAttempts = 5
	// lookTimeout bounds a look-up, for which somebody waits.
	lookTimeout = 30 * time.Second
	// DefaultMaxEntries is above the largest images in use, which have some 300,000
	// files. Each costs about 200 bytes of memory while it is unpacked.
	DefaultMaxEntries = 500_000
)

// Trees is the cache of unpacked trees.
type Trees interface {
	// Filled returns the tree with the content that the digest names; fill makes it where it is missing.
	Filled(ctx context.Context, digest string, fill artifact.Fill) (path string, release func(), err error)
	RemoveFilled(ctx context.Context, digest string) error
}

// Config of a Store. Dir and Trees are required.
type Config struct {
	// Dir is the folder for layers, the store's alone. What is in it cannot be
	// made again without where it came from.
	Dir   string
	Trees Trees
	// Folders are those below which references may name layouts and archives.
	Folders []string
	// MountPoints exist in every root: a sandbox mounts there, and cannot make
	// them in a tree that it may not write to. Folders end with a slash.
	MountPoints []string
	// MaxBytes bounds an image uncompressed, and MaxEntries the files, folders and
	// links of its layers together. 0 means lambda.MaxImage and DefaultMaxEntries.
	MaxBytes   int64
	MaxEntries int
	// Free fails with state.ErrFull when nothing more may be written. Nil: no floor.
	Free func() error
	// Log hears of images that were damaged. Nil discards it.
	Log *slog.Logger
}

// Image names an image that a reference led to.
type Image struct {
	Digest   string // of its manifest (of a docker archive: its id), SHA-256 in hexadecimal: its name in this package
	Resolved string // the reference with that digest
}

// Process is how an image starts.
type Process struct {
	EntryPoint       []string `json:"entrypoint,omitempty"`
	Command          []string `json:"command,omitempty"`
	WorkingDirectory string   `json:"working_directory,omitempty"`
	Env              []string `json:"env,omitempty"` // NAME=value
}

// Variables are Env by name.
func (p Process) Variables() map[string]string {
	vars := map[string]string{}
	for _, v := range p.Env {
		if name, value, ok := strings.Cut(v, "="); ok && name != "" {
			vars[name] = value
		}
	}
	return vars
}

// Store is safe for concurrent use. Between New and Open nothing works.
type Store struct {
	cfg   Config
	pulls chan struct{} // holds a token for each pull under way

	mu     sync.Mutex
	images map[string]*record // guarded by mu; by digest
	held   map[string]int     // guarded by mu; blobs that pulls rely on
}

// New starts nothing.
func New(cfg Config) *Store {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = lambda.MaxImage
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = DefaultMaxEntries
	}
	if cfg.Free == nil {
		cfg.Free = func() error { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg: cfg, pulls: make(chan struct{}, maxPulls), images: map[string]*record{}, held: map[string]int{}}
}

// Open takes stock and removes what an earlier process left half done. There is
// nothing to close.
func (s *Store) Open(context.Context) error {
	if err := s.takeStock(); err != nil {
		return fmt.Errorf("open the images: %w", err)
	}
	return nil
}

// Resolve looks up which image a reference means now. It copies nothing. Its
// error is a *lambda.Failure where the reference, or what it leads to, is at fault.
func (s *Store) Resolve(ctx context.Context, uri string) (Image, error) {
	r, err := parse(uri)
	if err != nil {
		return Image{}, err
	}
	if r.digest != (v1.Hash{}) && s.has(r.digest.Hex) {
		return Image{r.digest.Hex, r.at(r.digest)}, nil // the registry may be gone
	}
	soon, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	f, err := s.find(soon, r)
	if err != nil {
		if soon.Err() != nil && ctx.Err() == nil {
			err = &lambda.Failure{Code: lambda.InternalError, Reason: fmt.Sprintf("Source image %s could not be looked up: its registry did not answer within %v.", uri, lookTimeout)}
		}
		return Image{}, err
	}
	return Image{f.digest.Hex, r.at(f.digest)}, nil
}

// Pull copies an image's layers, unless they are here, and unpacks it. When it
// returns, the image is on disk for good. It fails with a *lambda.Failure where the
// image or its registry is at fault, and leaves nothing behind then.
func (s *Store) Pull(ctx context.Context, i Image) error {
	for attempt := 1; ; attempt++ {
		if err := s.copy(ctx, i); err != nil {
			return err
		}
		_, _, release, err := s.Root(ctx, i.Digest)
		switch {
		case err == nil:
			release()
			return nil
		case errors.Is(err, state.ErrNotFound) && attempt < maxAttempts:
			continue // whoever had it before has just given it up
		case blamed(err) != nil:
			return errors.Join(explain(ctx, i.Resolved, err), s.Remove(context.WithoutCancel(ctx), i.Digest))
		}
		return err
	}
}

// copy brings an image's layers into the store.
func (s *Store) copy(ctx context.Context, i Image) error {
	if s.has(i.Digest) {
		return nil
	}
	select {
	case s.pulls <- struct{}{}:
		defer func() { <-s.pulls }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r, err := parse(i.Resolved)
	if err != nil {
		return err
	}
	f, err := s.find(ctx, r)
	if err != nil {
		return err
	}
	if f.digest.Hex != i.Digest {
		return gone(i.Resolved)
	}
	rec := &record{Schema: recordSchema, Digest: i.Digest, Resolved: i.Resolved, Process: f.process}
	for _, l := range f.layers {
		rec.Layers = append(rec.Layers, l.layer)
	}
	s.hold(rec, 1)
	defer s.letGo(rec)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxCopies)
	for _, l := range f.layers {
		g.Go(func() error { return s.copyBlob(gctx, l) })
	}
	if err := g.Wait(); err != nil {
		return explain(ctx, i.Resolved, fmt.Errorf("copy its layers: %w", err))
	}
	if err := s.keep(rec); err != nil {
		return fmt.Errorf("keep the image %s: %w", i.Digest, diskError(err))
	}
	return nil
}

// Root returns an image's root file system, which the caller must not change,
// and how the image starts. It stays where it is until release, which may be called
// more than once. It fails with state.ErrNotFound when there is no such image.
func (s *Store) Root(ctx context.Context, digest string) (path string, p Process, release func(), err error) {
	rec := s.holdImage(digest)
	if rec == nil {
		return "", p, nil, fmt.Errorf("unpack the image %s: %w", digest, state.ErrNotFound)
	}
	defer s.letGo(rec)
	path, release, err = s.cfg.Trees.Filled(ctx, s.treeName(digest), func(ctx context.Context, root *os.Root) ([]artifact.Entry, error) {
		return s.unpack(ctx, rec, root)
	})
	if err == nil && !s.has(digest) { // it was removed meanwhile, and its root before this one
		release()
		err = errors.Join(state.ErrNotFound, s.cfg.Trees.RemoveFilled(context.WithoutCancel(ctx), s.treeName(digest)))
	}
	if err != nil {
		return "", p, nil, fmt.Errorf("unpack the image %s: %w", digest, err)
	}
	return path, rec.Process, release, nil
}

// unpack puts an image's layers on top of each other below root.
func (s *Store) unpack(ctx context.Context, rec *record, root *os.Root) ([]artifact.Entry, error) {
	u := newUnpacker(ctx, root, s.cfg)
	for _, l := range rec.Layers {
		if err := s.unpackLayer(u, l); err != nil {
			return nil, err
		}
	}
	for _, point := range s.cfg.MountPoints {
		if err := u.mountPoint(point); err != nil {
			return nil, err
		}
	}
	return u.finish()
}

// Images lists the images that are here.
func (s *Store) Images() (list []Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest, rec := range s.images {
		list = append(list, Image{digest, rec.Resolved})
	}
	slices.SortFunc(list, func(a, b Image) int { return strings.Compare(a.Digest, b.Digest) })
	return list
}

// Remove forgets an image, with the layers that no other has. Its root goes when
// its last user has released it. An image that is not here is no error.
func (s *Store) Remove(ctx context.Context, digest string) error {
	if err := s.forget(digest); err != nil {
		return fmt.Errorf("remove the image %s: %w", digest, err)
	}
	return s.cfg.Trees.RemoveFilled(ctx, s.treeName(digest))
}

// forget removes the record first: a crash afterwards leaves layers that the next
// Open removes.
func (s *Store) forget(digest string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.images[digest]
	if rec == nil {
		return nil
	}
	if err := os.Remove(s.recordFile(digest)); err != nil {
		return err
	}
	delete(s.images, digest)
	return s.dropUnused(rec)
}

func (s *Store) has(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.images[digest] != nil
}

// rootFormat changes when roots are laid out in another way.
const rootFormat = "1"

// treeName names an image's root in the cache: by the image, and by what else is in it.
func (s *Store) treeName(digest string) string {
	sum := sha256.Sum256([]byte("image root " + rootFormat + "\n" + digest + "\n" + strings.Join(s.cfg.MountPoints, "\n")))
	return hex.EncodeToString(sum[:])
}

func checkDigest(digest string) error {
	if b, err := hex.DecodeString(digest); err != nil || len(b) != 32 || hex.EncodeToString(b) != digest {
		return fmt.Errorf("%.80q is not a digest: 64 hexadecimal digits are", digest)
	}
	return nil
}

func (s *Store) recordFile(digest string) string {
	return filepath.Join(s.cfg.Dir, recordsDir, digest+recordSuffix)
}
