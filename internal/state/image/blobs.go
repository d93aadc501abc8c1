package image

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"kiln/internal/state"
)

// The store's folder: a file for each layer, named by its digest and shared by
// the images that have it, and a record for each image, written when all its
// layers are on disk.
const (
	blobsDir     = "layers"
	recordsDir   = "images"
	recordSuffix = ".json"
	recordSchema = 1
	// building begins the names of files that are being written.
	building = "tmp-"
	// maxWindow bounds what decompressing a layer may take of memory, in bytes: what zstd -19 needs.
	maxWindow = 8 << 20
)

// record is how an image lies on the disk.
type record struct {
	Schema   int     `json:"schema"`
	Digest   string  `json:"digest"`
	Resolved string  `json:"resolved"`
	Layers   []layer `json:"layers"` // the lowest first
	Process  Process `json:"process"`
}

type layer struct {
	Blob   string `json:"blob"`   // digest of the bytes as they are kept
	DiffID string `json:"diffid"` // digest of the bytes uncompressed
	Size   int64  `json:"size"`   // of the bytes as they are kept; -1: not known before
}

func (s *Store) blobFile(digest string) string { return filepath.Join(s.cfg.Dir, blobsDir, digest) }

// hold keeps the blobs of a pull from being removed.
func (s *Store) hold(rec *record, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range rec.Layers {
		if s.held[l.Blob] += n; s.held[l.Blob] == 0 {
			delete(s.held, l.Blob)
		}
	}
}

// holdImage is hold for an image that is here; nil when it is not.
func (s *Store) holdImage(digest string) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.images[digest]
	if rec != nil {
		for _, l := range rec.Layers {
			s.held[l.Blob]++
		}
	}
	return rec
}

// letGo ends hold; blobs of a pull that failed go, unless another has use for them.
func (s *Store) letGo(rec *record) {
	s.hold(rec, -1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.images[rec.Digest] == nil {
		if err := s.dropUnused(rec); err != nil {
			s.cfg.Log.Warn("layers of an image that was not kept are removed only at the next start", "image", rec.Digest, "error", err)
		}
	}
}

// dropUnused removes those of an image's blobs that nothing else has. mu is held.
func (s *Store) dropUnused(rec *record) (err error) {
	used := map[string]bool{}
	for _, other := range s.images {
		for _, l := range other.Layers {
			used[l.Blob] = true
		}
	}
	for _, l := range rec.Layers {
		if used[l.Blob] || s.held[l.Blob] > 0 {
			continue
		}
		if rerr := os.Remove(s.blobFile(l.Blob)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// copyBlob brings one layer onto the disk, unless it is there.
func (s *Store) copyBlob(ctx context.Context, from source) (err error) {
	to := s.blobFile(from.Blob)
	if info, err := os.Stat(to); err == nil && (from.Size < 0 || info.Size() == from.Size) {
		return nil
	}
	in, err := from.open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), building)
	if err != nil {
		return diskError(err)
	}
	defer func() {
		if err != nil {
			out.Close()
			os.Remove(out.Name())
		}
	}()
	sum, buffer, size := sha256.New(), make([]byte, copySize), int64(0)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.cfg.Free(); err != nil {
			return err
		}
		n, rerr := in.Read(buffer)
		if size += int64(n); size > s.cfg.MaxBytes {
			return tooLarge(s.cfg.MaxBytes)
		}
		sum.Write(buffer[:n])
		if _, err := out.Write(buffer[:n]); err != nil {
			return diskError(err)
		}
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return rerr
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != from.Blob {
		return bad("a layer has the digest %s, not %s", got, from.Blob)
	}
	if err := errors.Join(out.Sync(), out.Close()); err != nil {
		return diskError(err)
	}
	return os.Rename(out.Name(), to)
}

// unpackLayer applies one stored layer, and checks its bytes: the digest of what
// was unpacked is the image's word for it.
func (s *Store) unpackLayer(u *unpacker, l layer) error {
	f, err := os.Open(s.blobFile(l.Blob))
	if err != nil {
		return err
	}
	defer f.Close()
	in, closeReader, err := decompress(f)
	if err != nil {
		return err
	}
	defer closeReader()
	sum := sha256.New()
	if err := u.apply(io.TeeReader(in, sum)); err != nil {
		return fmt.Errorf("layer %s: %w", l.Blob, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != l.DiffID {
		return bad("the layer %s holds %s uncompressed, not %s", l.Blob, got, l.DiffID)
	}
	return nil
}

// decompress tells by the first bytes how a layer is packed: media types are
// often wrong about it.
func decompress(f *os.File) (_ io.Reader, done func(), err error) {
	var magic [4]byte
	n, err := f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case n >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, nil, bad("a layer cannot be read: %w", err)
		}
		return z, func() { _ = z.Close() }, nil
	case magic == [4]byte{0x28, 0xb5, 0x2f, 0xfd}:
		z, err := zstd.NewReader(f, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, bad("a layer cannot be read: %w", err)
		}
		return z, z.Close, nil
	}
	return f, func() {}, nil
}

// keep makes an image's record durable: from then on the image is here. The
// record on the disk and the one in memory change together.
func (s *Store) keep(rec *record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.images[rec.Digest] != nil {
		return nil // another pull was faster
	}
	if err := s.write(rec); err != nil {
		return err
	}
	s.images[rec.Digest] = rec
	return nil
}

func (s *Store) write(rec *record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if err := syncFolder(filepath.Join(s.cfg.Dir, blobsDir)); err != nil {
		return err
	}
	dir := filepath.Join(s.cfg.Dir, recordsDir)
	f, err := os.CreateTemp(dir, building)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), s.recordFile(rec.Digest))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(dir)
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// takeStock reads the records, and removes files that belong to none.
func (s *Store) takeStock() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, dir := range []string{blobsDir, recordsDir} {
		if err := os.MkdirAll(filepath.Join(s.cfg.Dir, dir), 0o700); err != nil {
			return err
		}
	}
	records, err := os.ReadDir(filepath.Join(s.cfg.Dir, recordsDir))
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, e := range records {
		path := filepath.Join(s.cfg.Dir, recordsDir, e.Name())
		digest, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok {
			if strings.HasPrefix(e.Name(), building) {
				err = errors.Join(err, os.Remove(path))
			}
			continue
		}
		b, rerr := os.ReadFile(path)
		if rerr != nil {
			return rerr
		}
		rec := &record{}
		if jerr := json.Unmarshal(b, rec); jerr != nil || rec.Digest != digest || checkDigest(digest) != nil {
			return fmt.Errorf("%s is damaged: restore it from a backup, or remove it and deploy the functions that have the image again", path)
		}
		if rec.Schema > recordSchema {
			return fmt.Errorf("%s was written by a newer Kiln (schema %d; this one knows %d): upgrade kiln", path, rec.Schema, recordSchema)
		}
		s.images[digest] = rec
		for _, l := range rec.Layers {
			used[l.Blob] = true
		}
	}
	blobs, rerr := os.ReadDir(filepath.Join(s.cfg.Dir, blobsDir))
	if rerr != nil {
		return rerr
	}
	for _, e := range blobs {
		if !used[e.Name()] {
			err = errors.Join(err, os.Remove(s.blobFile(e.Name())))
		}
	}
	return err
}

// openRegular opens a file that is one: opening a pipe would wait for its writer.
func openRegular(path string) (*os.File, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return os.Open(path)
}

// diskError marks errors of a full disk as state.ErrFull.
func diskError(err error) error {
	if errors.Is(err, state.ErrFull) || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return fmt.Errorf("%w: %w", state.ErrFull, err)
}
