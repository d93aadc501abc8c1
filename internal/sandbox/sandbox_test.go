//go:build unix

package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUIDs(t *testing.T) {
	u, err := NewUIDs(50_000, 3)
	if err != nil {
		t.Skip(err) // a user namespace without spare ids
	}
	seen := map[int]bool{}
	for range 3 {
		id, err := u.Take()
		if err != nil || seen[id] {
			t.Fatalf("took %d again, or %v", id, err)
		}
		seen[id] = true
	}
	if _, err := u.Take(); !errors.Is(err, ErrNoUID) {
		t.Fatalf("a fourth of three: %v", err)
	}
	for id := range seen {
		u.Put(id)
		if again, err := u.Take(); err != nil || again != id {
			t.Errorf("gave %d back and took %d, %v", id, again, err)
		}
	}
	if _, err := NewUIDs(1<<31, 10); err == nil {
		t.Error("a range beyond 2^31 is accepted")
	}
}

func TestMapped(t *testing.T) {
	for _, c := range []struct {
		uidMap               string
		base, count, b, size int
		fails                bool
	}{
		{uidMap: "0 0 4294967295\n", base: 1_900_000_000, count: 65536, b: 1_900_000_000, size: 65536},
		{uidMap: "         0     100000      65536\n", base: 1_900_000_000, count: 65536, b: 32768, size: 32766},
		{uidMap: "0 1000 1\n1 100000 65536\n", base: 1_900_000_000, count: 65536, b: 32769, size: 32766},
		{uidMap: "0 1000 1\n", base: 1_900_000_000, count: 65536, fails: true},
		{uidMap: "nonsense\n", fails: true},
	} {
		b, size, err := mapped(c.uidMap, c.base, c.count)
		if b != c.b || size != c.size || (err != nil) != c.fails {
			t.Errorf("%q: %d+%d, %v; want %d+%d", c.uidMap, b, size, err, c.b, c.size)
		}
	}
}

func TestSpecCheck(t *testing.T) {
	good := Spec{ID: "a-1", Group: "1/eu-west-1/F_n", Task: "/t"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Spec){
		"no id":          func(s *Spec) { s.ID = "" },
		"upper case":     func(s *Spec) { s.ID = "A" },
		"slash":          func(s *Spec) { s.ID = "a/b" },
		"no group":       func(s *Spec) { s.Group = "" },
		"group above":    func(s *Spec) { s.Group = "a/../../b" },
		"group absolute": func(s *Spec) { s.Group = "/a" },
		"group unclean":  func(s *Spec) { s.Group = "a//b" },
		"relative task":  func(s *Spec) { s.Task = "t" },
		"relative opt":   func(s *Spec) { s.Opt = "t" },
	} {
		s := good
		change(&s)
		if s.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRemoveTree(t *testing.T) {
	outside := t.TempDir()
	kept := filepath.Join(outside, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "tree")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	must(os.MkdirAll(filepath.Join(dir, ".lifted-1/x"), 0o755)) // the names it uses itself
	must(os.Symlink(outside, filepath.Join(dir, ".lifted-2")))
	must(os.WriteFile(filepath.Join(dir, ".lifted-3"), nil, 0))
	must(os.Symlink(outside, filepath.Join(dir, "a/link")))
	must(os.Symlink(kept, filepath.Join(dir, "a/b/c/link")))
	must(unix.Mkfifo(filepath.Join(dir, "a/fifo"), 0o600))
	for i := range 2000 {
		must(os.WriteFile(filepath.Join(dir, "a/b", strconv.Itoa(i)), nil, 0o600))
	}
	// Deeper than a path may be long, and than there are descriptors.
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(err)
	for range 5000 {
		must(unix.Mkdirat(at, "deep", 0o755))
		next, err := unix.Openat(at, "deep", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(err)
		must(unix.Close(at))
		at = next
	}
	must(unix.Close(at))
	must(os.Chmod(filepath.Join(dir, "a/b/c"), 0))
	must(os.Chmod(filepath.Join(dir, "a/b"), 0))
	must(os.Chmod(filepath.Join(dir, "a"), 0))
	must(RemoveTree(dir))
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the tree is there: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	must(RemoveTree(dir))
	link := filepath.Join(t.TempDir(), "link")
	must(os.Symlink(outside, link))
	if RemoveTree(link) == nil {
		t.Error("a link is taken for a directory")
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("the tree's own name, a link, was followed: %v", err)
	}
}
