// Package artifact keeps code packages: it verifies a zip, stores it by its
// digest in a state.Blob, and hands out the unpacked tree from a cache that can
// be thrown away at any time. It knows nothing of functions and layers; the
// registry adds and removes packages, the environments mount their trees.
package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

const (
	// DefaultMaxCache bounds the unpacked trees, in bytes: eight packages of AWS's
	// largest size, or many hundreds of usual ones.
	DefaultMaxCache = 2 << 30
	// maxBuilds bounds the packages unpacked at once. Each costs one core.
	maxBuilds = 4
)

// Config has no required field.
type Config struct {
	// MaxCache bounds the unpacked trees, in bytes of disk. Trees in use count but
	// are never evicted, so that they alone may exceed it. 0 means DefaultMaxCache.
	MaxCache int64
	// MaxMerged bounds the files, folders and links of a merged tree. 0 means as many as a package may have.
	MaxMerged int
	// Free fails with state.ErrFull when nothing more may be written. Nil: no floor.
	Free func() error
	// Log hears of trees that were damaged. Nil discards it.
	Log *slog.Logger
}

// Package is what is known of a package once it is stored.
type Package struct {
	Digest        string // SHA-256 of the zip in hexadecimal: its name in this package
	SHA256        string // the same in base64, as CodeSha256 has it
	Size          int64  // of the zip, in bytes
	UnpackedBytes int64  // sum of its files' sizes
}

// Store is safe for concurrent use. Between New and Open nothing works.
type Store struct {
	blob state.Blob
	dir  string
	cfg  Config

	builds chan struct{} // holds a token for each build under way

	mu    sync.Mutex
	trees map[string]*tree // guarded by mu; by digest
	bytes int64            // guarded by mu; of the trees that are there
}

// New starts nothing. Dir is the cache's folder, the store's alone.
func New(blob state.Blob, dir string, cfg Config) *Store {
	if cfg.MaxCache == 0 {
		cfg.MaxCache = DefaultMaxCache
	}
	if cfg.MaxMerged == 0 {
		cfg.MaxMerged = maxEntries
	}
	if cfg.Free == nil {
		cfg.Free = func() error { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{blob: blob, dir: dir, cfg: cfg, builds: make(chan struct{}, maxBuilds), trees: map[string]*tree{}}
}

// Open takes stock of the cache and removes what an earlier process left half
// done. There is nothing to close.
func (s *Store) Open(context.Context) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("open the code cache: %w", err)
	}
	if err := s.takeStock(); err != nil {
		return fmt.Errorf("open the code cache: %w", err)
	}
	return nil
}

// Add verifies a package, stores it durably and leaves it unpacked in the cache.
// It fails with a *lambda.Error when the package is at fault, and leaves nothing
// behind then. Adding the same bytes again repairs what is stored.
func (s *Store) Add(ctx context.Context, zip *io.SectionReader) (Package, error) {
	if zip.Size() > lambda.MaxUnzipped {
		return Package{}, lambda.UnzippedTooLarge()
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(zip, 0, zip.Size())); err != nil {
		return Package{}, fmt.Errorf("read the package: %w", err)
	}
	sum := hash.Sum(nil)
	p := Package{Digest: hex.EncodeToString(sum), SHA256: base64.StdEncoding.EncodeToString(sum), Size: zip.Size()}
	t, err := s.pin(ctx, p.Digest)
	if err != nil {
		return Package{}, fmt.Errorf("add the package %s: %w", p.Digest, err)
	}
	defer s.unpin(t)
	defer t.unlock()
	b, err := s.unpack(ctx, p.Digest, zip, zip.Size())
	if err != nil {
		return Package{}, fmt.Errorf("add the package %s: %w", p.Digest, diskError(err))
	}
	defer b.discard()
	if err := s.blob.Put(ctx, p.Digest, io.NewSectionReader(zip, 0, zip.Size())); err != nil {
		return Package{}, fmt.Errorf("add the package %s: %w", p.Digest, diskError(err))
	}
	p.UnpackedBytes = b.unpacked
	if err := s.install(t, b, false); err != nil {
		// It is stored: the tree is unpacked again when it is needed.
		s.cfg.Log.Warn("a package could not be kept unpacked", "digest", p.Digest, "error", err)
	}
	return p, nil
}

// Dir returns the package's unpacked tree, which the caller must not change. It
// stays where it is until release, which may be called more than once. It fails
// with state.ErrNotFound when there is no such package.
func (s *Store) Dir(ctx context.Context, digest string) (path string, release func(), err error) {
	if err := checkDigest(digest); err != nil {
		return "", nil, err
	}
	path, release, err = s.use(ctx, digest)
	if err != nil {
		return "", nil, fmt.Errorf("unpack the package %s: %w", digest, err)
	}
	return path, release, nil
}

// Check reads the package's whole tree and compares it with what was unpacked. A
// damaged tree is replaced; it is no error.
func (s *Store) Check(ctx context.Context, digest string) error {
	if err := checkDigest(digest); err != nil {
		return err
	}
	t, err := s.pin(ctx, digest)
	if err != nil {
		return fmt.Errorf("check the package %s: %w", digest, err)
	}
	defer s.unpin(t)
	defer t.unlock()
	if err = s.ready(ctx, t); err == nil {
		if damage := checkTree(ctx, s.dir, digest, true); damage != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("a package's tree was damaged and is unpacked again", "digest", digest, "error", damage)
			err = s.rebuild(ctx, t)
		} else {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("check the package %s: %w", digest, diskError(err))
	}
	return nil
}

// Zip streams the package as it was added. It fails with state.ErrNotFound when
// there is no such package.
func (s *Store) Zip(ctx context.Context, digest string) (io.ReadCloser, int64, error) {
	if err := checkDigest(digest); err != nil {
		return nil, 0, err
	}
	r, err := s.blob.Get(ctx, digest)
	if err != nil {
		return nil, 0, fmt.Errorf("read the package %s: %w", digest, err)
	}
	if sized, ok := r.(interface{ Size() int64 }); ok {
		return r, sized.Size(), nil
	}
	defer r.Close()
	// Another Blob does not say the size, so that the package is read to learn it.
	b, err := io.ReadAll(io.LimitReader(r, lambda.MaxUnzipped+1))
	if err == nil && len(b) > lambda.MaxUnzipped {
		err = fmt.Errorf("it is larger than %d bytes", lambda.MaxUnzipped)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the package %s: %w", digest, err)
	}
	return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
}

// Keys lists the packages that are stored, and those of which only a tree is left
// in the cache: a crash within Remove leaves such a one.
func (s *Store) Keys(ctx context.Context) ([]string, error) {
	keys, err := s.blob.Keys(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest, t := range s.trees {
		if t.bytes > 0 && t.isPackage() && !slices.Contains(keys, digest) {
			keys = append(keys, digest)
		}
	}
	return keys, nil
}

// Remove forgets a package. Its tree and those it is merged into go when their
// last user has released them.
func (s *Store) Remove(ctx context.Context, digest string) error {
	if err := checkDigest(digest); err != nil {
		return err
	}
	t, err := s.pin(ctx, digest)
	if err == nil {
		if err = s.blob.Delete(ctx, digest); err == nil {
			s.sweep(s.doom(t))
		}
		t.unlock()
		s.unpin(t)
	}
	if err != nil {
		return fmt.Errorf("remove the package %s: %w", digest, err)
	}
	return nil
}

// doom has a tree, and those merged of it, removed when nobody uses them.
func (s *Store) doom(t *tree) (trash []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.doomed = true
	for _, m := range s.trees {
		if slices.Contains(m.parts, t.name) {
			if m.doomed = true; m.users == 0 {
				trash = append(trash, s.drop(m)...)
			}
		}
	}
	return trash
}

func checkDigest(digest string) error {
	if b, err := hex.DecodeString(digest); err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != digest {
		return fmt.Errorf("%.80q is not a package's digest: 64 hexadecimal digits are", digest)
	}
	return nil
}

// diskError marks errors of a full disk as state.ErrFull.
func diskError(err error) error {
	if errors.Is(err, state.ErrFull) || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return fmt.Errorf("%w: %w", state.ErrFull, err)
}
