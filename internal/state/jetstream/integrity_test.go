package jetstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

// filled makes a data directory with 100 records, 50 events and a blob, and
// returns its path. Without clean it looks as after a crash.
func filled(t *testing.T, clean bool) string {
	t.Helper()
	dir := t.TempDir()
	ctx := context.Background()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	// The witness counts what an opening found: the second one finds everything.
	for round := range 2 {
		if err := e.Open(ctx); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			commit(t, e.State(), state.Change{Key: fmt.Sprintf("r.%d.%d", round, i), Value: []byte("a value of some length")})
			if round == 0 {
				publish(t, e.Queue(), subject, fmt.Sprint(i))
			}
		}
		if err := e.Blob().Put(ctx, fmt.Sprint("blob", round), bytes.NewReader(noise(1, 3<<20))); err != nil {
			t.Fatal(err)
		}
		if round == 1 && !clean {
			crashed := t.TempDir()
			if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			closeEngine(t, e)
			return crashed
		}
		closeEngine(t, e)
		e = jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	}
	return dir
}

func block(dir, stream string) string {
	return filepath.Join(dir, "jetstream", "$G", "streams", stream, "msgs", "1.blk")
}

func change(name string, f func([]byte) []byte) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, f(b), 0o600)
}

func TestDamageIsRefused(t *testing.T) {
	t.Parallel()
	flipAt := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			b = bytes.Clone(b)
			b[(at+len(b))%len(b)] ^= 1
			return b
		}
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	for _, test := range []struct {
		name   string
		clean  bool // after an orderly stop; else after a crash
		stream string
		spoil  func(dir string) error
	}{
		{"state, file missing", true, "STATE", func(d string) error { return os.Remove(block(d, "STATE")) }},
		{"blobs, cut", true, "ARTIFACTS", func(d string) error { return change(block(d, "ARTIFACTS"), cut(200)) }},
		{"blobs, flipped in the first length", true, "ARTIFACTS", func(d string) error { return change(block(d, "ARTIFACTS"), flipAt(2)) }},
		{"blobs, file missing", true, "ARTIFACTS", func(d string) error { return os.Remove(block(d, "ARTIFACTS")) }},
		{"queue and blobs, both damaged", true, "ARTIFACTS", func(d string) error {
			if err := change(block(d, "QUEUE"), flipAt(1500)); err != nil {
				return err
			}
			return change(block(d, "ARTIFACTS"), cut(200))
		}},
		{"stream missing", true, "STATE", func(d string) error {
			return os.RemoveAll(filepath.Join(d, "jetstream", "$G", "streams", "STATE"))
		}},
		{"everything missing", true, "", func(d string) error { return os.RemoveAll(filepath.Join(d, "jetstream")) }},
		{"description damaged", true, "QUEUE", func(d string) error {
			return change(filepath.Join(d, "jetstream", "$G", "streams", "QUEUE", "meta.inf"), flipAt(10))
		}},
		{"description missing", true, "QUEUE", func(d string) error {
			return os.Remove(filepath.Join(d, "jetstream", "$G", "streams", "QUEUE", "meta.inf"))
		}},
		{"witness missing", true, "", func(d string) error { return os.Remove(filepath.Join(d, "jetstream.witness.json")) }},
		{"witness damaged", true, "", func(d string) error {
			return os.Truncate(filepath.Join(d, "jetstream.witness.json"), 20)
		}},
		{"crash, blobs flipped", false, "ARTIFACTS", func(d string) error { return change(block(d, "ARTIFACTS"), flipAt(1500)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filled(t, test.clean)
			if err := test.spoil(dir); err != nil {
				t.Fatal(err)
			}
			before := content(t, dir)
			e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
			err := e.Open(context.Background())
			if err == nil {
				closeEngine(t, e)
				t.Fatal("the damage was not noticed")
			}
			if !strings.Contains(err.Error(), test.stream) || !strings.Contains(err.Error(), "backup") {
				t.Errorf("%q does not name the stream and what to do", err)
			}
			for name, b := range content(t, dir) {
				if before[name] != b {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
}

func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// What a crash in the middle of a write leaves is no damage.
func TestTornWrite(t *testing.T) {
	t.Parallel()
	for name, tear := range map[string]func([]byte) []byte{
		"half a record": func(b []byte) []byte { return append(b, b[:50]...) },
		"zeros":         func(b []byte) []byte { return append(b, make([]byte, 4096)...) },
		"noise":         func(b []byte) []byte { return append(b, noise(3, 3000)...) },
		"one byte":      func(b []byte) []byte { return append(b, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filled(t, false)
			if err := change(block(dir, "STATE"), tear); err != nil {
				t.Fatal(err)
			}
			e := open(t, dir)
			if got := all(t, e.State(), "r"); len(got) != 100 {
				t.Errorf("%d records", len(got))
			}
		})
	}
}

// A flipped byte in a package is noticed when it is read, if not before.
func TestDamagedBlob(t *testing.T) {
	t.Parallel()
	dir := filled(t, true)
	err := change(block(dir, "ARTIFACTS"), func(b []byte) []byte {
		b[len(b)/5] ^= 1
		return b
	})
	if err != nil {
		t.Fatal(err)
	}
	e := open(t, dir)
	bad := 0
	for _, key := range []string{"blob0", "blob1"} {
		r, err := e.Blob().Get(context.Background(), key)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil {
			bad++
		} else if !bytes.Equal(b, noise(1, 3<<20)) {
			t.Errorf("%s came back changed", key)
		}
		r.Close()
	}
	if bad != 1 {
		t.Errorf("%d of 2 blobs are unreadable", bad)
	}
}

func TestFloor(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	full := false
	e := openWith(t, jetstream.Config{Dir: t.TempDir(), Node: "n1", Free: func() error {
		if full {
			return fmt.Errorf("floor: %w", state.ErrFull)
		}
		return nil
	}})
	made := commit(t, e.State(), state.Change{Key: "a", Value: []byte("x")}, state.Change{Key: "c", Value: []byte("x")})
	if err := e.Blob().Put(ctx, "c", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	full = true
	if _, err := e.State().Commit(ctx, state.Change{Key: "b", Value: []byte("x")}); !errors.Is(err, state.ErrFull) {
		t.Errorf("commit: %v", err)
	}
	if err := e.Queue().Publish(ctx, subject, nil); !errors.Is(err, state.ErrFull) {
		t.Errorf("publish: %v", err)
	}
	if err := e.Blob().Put(ctx, "b", strings.NewReader("x")); !errors.Is(err, state.ErrFull) {
		t.Errorf("put: %v", err)
	}
	// What makes room is allowed.
	commit(t, e.State(), state.Change{Key: "c", Expect: made[1]})
	if err := e.Blob().Delete(ctx, "c"); err != nil {
		t.Error(err)
	}
	if got := all(t, e.State(), ""); len(got) != 1 {
		t.Errorf("%v", got)
	}
}
