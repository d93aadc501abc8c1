package archive_test

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiln/internal/state/archive"
)

// sample is a backup with one of each kind of entry.
func sample(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub", strings.Repeat("long", 40)), []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/elsewhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := archive.NewWriter(&b, archive.Manifest{Kiln: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Bytes("records/1", []byte("some records")); err != nil {
		t.Fatal(err)
	}
	if err := w.Tree("tree", dir); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(b []byte) (names []string, err error) {
	err = archive.Read(bytes.NewReader(b), func(archive.Manifest) error { return nil }, func(e archive.Entry) error {
		names = append(names, e.Mode.String()+" "+e.Name+" "+e.Target)
		return nil
	})
	return names, err
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	names, err := read(sample(t))
	want := []string{"-rw------- records/1 ", "drwxr-xr-x tree ", "Lrwxrwxrwx tree/link sub/elsewhere", "drwxr-x--- tree/sub ", "-rw-r----- tree/sub/" + strings.Repeat("long", 40) + " "}
	want[1] = names[1] // the mode of a temporary folder
	if err != nil || strings.Join(names, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q, %v", names, err)
	}
}

// Whatever is missing or changed is noticed, but for the zeros that end a tar.
func TestDamage(t *testing.T) {
	t.Parallel()
	whole := sample(t)
	end := bytes.LastIndex(whole, []byte("\n")) + 1
	for i := 0; i < end; i += 7 {
		if _, err := read(whole[:i]); err == nil {
			t.Fatalf("cut at %d, it is read", i)
		}
	}
	for i := range end {
		spoiled := bytes.Clone(whole)
		spoiled[i] ^= 1
		got, err := read(spoiled)
		if err == nil && strings.Join(got, "\n") != strings.Join(must(read(whole)), "\n") {
			t.Fatalf("with byte %d changed, it is read as %q", i, got)
		}
	}
	at := bytes.Index(whole, []byte("some records"))
	whole[at] = 'S'
	if _, err := read(whole); err == nil || !strings.Contains(err.Error(), "damaged: records/1") {
		t.Errorf("%v does not name the entry", err)
	}
	if _, err := read(whole[:at+3]); err == nil || !strings.Contains(err.Error(), "cut off in records/1") {
		t.Errorf("%v does not name the entry", err)
	}
}

func must(names []string, err error) []string {
	if err != nil {
		panic(err)
	}
	return names
}

func TestFailure(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w, err := archive.NewWriter(&b, archive.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Fail("the disk is full"); err != nil {
		t.Fatal(err)
	}
	if _, err := read(b.Bytes()); err == nil || !strings.Contains(err.Error(), "not completed: the disk is full") {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(sample(f))
	f.Add([]byte("nothing"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = archive.Read(bytes.NewReader(b), func(archive.Manifest) error { return nil }, func(e archive.Entry) error {
			if e.Reader == nil && e.Mode&(fs.ModeDir|fs.ModeSymlink) == 0 {
				t.Error("a file without content")
			}
			if e.Reader != nil {
				_, err := io.Copy(io.Discard, e)
				return err
			}
			return nil
		})
	})
}
