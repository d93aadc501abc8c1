package jetstream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"testing/iotest"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

func noise(seed uint64, size int) []byte {
	b := make([]byte, size)
	var key [32]byte
	key[0] = byte(seed)
	rand.NewChaCha8(key).Read(b)
	return b
}

func get(t testing.TB, b *jetstream.Blob, key string) []byte {
	t.Helper()
	r, err := b.Get(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestBlobs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	if err := e.Open(ctx); err != nil {
		t.Fatal(err)
	}
	contents := map[string][]byte{"empty": {}, "one": {1}, "chunk": noise(1, 1<<20), "large": noise(2, 11<<20+17)}
	for key, content := range contents {
		// A reader of small pieces must not make small chunks.
		if err := e.Blob().Put(ctx, key, iotest.HalfReader(bytes.NewReader(content))); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		keys, err := e.Blob().Keys(ctx)
		slices.Sort(keys)
		if err != nil || !slices.Equal(keys, []string{"chunk", "empty", "large", "one"}) {
			t.Errorf("keys %v, %v", keys, err)
		}
		for key, content := range contents {
			if !bytes.Equal(get(t, e.Blob(), key), content) {
				t.Errorf("%s came back changed", key)
			}
		}
		closeEngine(t, e)
		e = open(t, dir)
	}
	if _, err := e.Blob().Get(ctx, "none"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a blob that is not there: %v", err)
	}
	if err := e.Blob().Delete(ctx, "none"); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	for _, key := range []string{"", "A", "a.b", "a/b", "*", "a b"} {
		if err := e.Blob().Put(ctx, key, bytes.NewReader(nil)); err == nil {
			t.Errorf("key %q was accepted", key)
		}
	}
	if err := e.Blob().Put(ctx, "one", iotest.ErrReader(io.ErrNoProgress)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader's error: %v", err)
	}
	if got := get(t, e.Blob(), "one"); !bytes.Equal(got, []byte{1}) {
		t.Errorf("a failed Put replaced the blob by %q", got)
	}
	if err := e.Blob().Put(ctx, "one", bytes.NewReader([]byte{2})); err != nil {
		t.Fatal(err)
	}
	if got := get(t, e.Blob(), "one"); !bytes.Equal(got, []byte{2}) {
		t.Errorf("replaced: %q", got)
	}
}

func TestReplacedAndDeletedBlobsFreeTheirSpace(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	e := open(t, dir)
	const size = 20 << 20
	for i := range 5 {
		if err := e.Blob().Put(ctx, "package", bytes.NewReader(noise(uint64(i), size))); err != nil {
			t.Fatal(err)
		}
	}
	if used := usage(t, dir); used > 2*size {
		t.Errorf("%d bytes for one blob of %d that was replaced four times", used, size)
	}
	r, err := e.Blob().Get(ctx, "package")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Blob().Delete(ctx, "package"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err == nil {
		t.Error("a deleted blob could be read to its end")
	}
	if used := usage(t, dir); used > size/2 {
		t.Errorf("%d bytes after the delete", used)
	}
	if keys, err := e.Blob().Keys(ctx); err != nil || len(keys) != 0 {
		t.Errorf("keys %v, %v", keys, err)
	}
}

func usage(t *testing.T, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // a file that goes away meanwhile
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
