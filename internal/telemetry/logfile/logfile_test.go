package logfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"kiln/internal/telemetry/logfile"
)

func write(t *testing.T, f *logfile.File, line string) {
	t.Helper()
	if _, err := f.Write([]byte(line + "\n")); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s holds %q (%v), want %q", path, b, err, want)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	f, err := logfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	write(t, f, "1")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, f, "2") // still to the one that was moved
	if err := f.Reopen(); err != nil {
		t.Fatal(err)
	}
	write(t, f, "3")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	holds(t, path+".1", "1\n2\n")
	holds(t, path, "3\n")
	if f, err = logfile.Open(path); err != nil {
		t.Fatal(err)
	}
	write(t, f, "4")
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if f.Reopen() == nil {
		t.Error("a folder was opened")
	}
	write(t, f, "5")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	holds(t, path+".2", "3\n4\n5\n")
	if _, err := logfile.Open(filepath.Join(path, "missing", "audit.log")); err == nil {
		t.Error("a file in a folder that is missing was opened")
	}
}
