package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiln/internal/state/datadir"
)

// copied fills a directory with the identity of another.
func copied(files map[string][]byte) func(string) error {
	return func(dir string) error {
		for name, content := range files {
			if err := datadir.RestoreIdentity(dir, name, content); err != nil {
				return err
			}
		}
		return os.MkdirAll(filepath.Join(dir, "images"), 0o700)
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	defer d.Close()
	files, own, err := d.Identity()
	if err != nil || !own || len(files) != 3 {
		t.Fatalf("%d files, own %v, %v", len(files), own, err)
	}
	sealed := d.Seal([]byte("secret"), nil)
	path := filepath.Join(t.TempDir(), "a", "data")
	failure := errors.New("the disk is full")
	if err := datadir.Restore(path, func(string) error { return failure }); !errors.Is(err, failure) {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a restore that failed leaves a folder")
	}
	// What a killed one leaves is refused at a start, and taken away by the next.
	for _, left := range []string{"images", "restoring.tmp"} {
		if err := os.MkdirAll(filepath.Join(path, left, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	refuses(t, path, "was cut off", "kiln restore")
	if err := datadir.Restore(path, copied(files)); err != nil {
		t.Fatal(err)
	}
	r := open(t, path)
	if err := datadir.Restore(path, copied(files)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("into one that is in use: %v", err)
	}
	if plain, err := r.OpenSealed(sealed, nil); err != nil || string(plain) != "secret" || r.Node() != d.Node() {
		t.Errorf("the restored directory opens %q, %v", plain, err)
	}
	if _, err := os.Stat(filepath.Join(path, "images", "x")); err == nil {
		t.Error("something of the unfinished restore is still there")
	}
	r.Close()
	if err := datadir.Restore(path, copied(files)); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("into another data directory: %v", err)
	}
	foreign := t.TempDir()
	write("thesis.tex", "x")(t, foreign)
	if err := datadir.Restore(foreign, copied(files)); err == nil || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("into a foreign directory: %v", err)
	}
	if _, err := os.Stat(filepath.Join(foreign, "thesis.tex")); err != nil {
		t.Error(err)
	}
	if err := datadir.RestoreIdentity(foreign, "../x", nil); err == nil {
		t.Error("a file outside is written")
	}
}
