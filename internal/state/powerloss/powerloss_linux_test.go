package powerloss_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"kiln/internal/state/powerloss"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What is synced outlives a power cut, and what is not does not.
func TestCut(t *testing.T) {
	t.Parallel()
	d := powerloss.New(1)
	dir, unmount := powerloss.Mount(t, d)
	write := func(name, content string, flags int, sync bool) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY|flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(content)
		if sync {
			err = errors.Join(err, f.Sync())
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	syncDir := func(name string) {
		t.Helper()
		f, err := os.Open(path(name))
		must(err)
		must(errors.Join(f.Sync(), f.Close()))
	}
	must(os.MkdirAll(path("a/b"), 0o700))
	write("a/b/synced", "yes", 0, true)
	write("a/b/synced", " and no", os.O_APPEND, false)
	write("a/b/through", "yes", syscall.O_SYNC, false)
	write("a/b/data", "yes", syscall.O_DSYNC, false)
	write("a/b/unsynced", "no", 0, false)
	write("a/b/old", "old", 0, true)
	write("a/b/new", "new", 0, true)
	must(os.Rename(path("a/b/new"), path("a/b/old"))) // without a sync of the folder
	write("a/old", "old", 0, true)
	write("a/new", "new", 0, true)
	must(os.Rename(path("a/new"), path("a/old")))
	write("a/gone", "gone", 0, true)
	must(os.Remove(path("a/gone")))
	write("a/cut", "a long text", 0, true)
	must(os.Truncate(path("a/cut"), 1))
	write("a/cut", "n", 0, true)
	must(os.Link(path("a/cut"), path("a/linked")))
	must(os.MkdirAll(path("a/empty"), 0o700))
	syncDir("a")
	must(os.Mkdir(path("a/lost"), 0o700))
	d.Cut(false)
	if _, err := os.ReadFile(path("a/cut")); !errors.Is(err, syscall.EIO) {
		t.Errorf("without power: %v", err)
	}
	unmount()
	d.On()
	dir, _ = powerloss.Mount(t, d)
	found := map[string]string{}
	must(filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		short, _ := filepath.Rel(dir, name)
		found[short] = "folder"
		if !e.IsDir() {
			b, err := os.ReadFile(name)
			found[short] = string(b)
			return err
		}
		return nil
	}))
	want := map[string]string{
		"a": "folder", "a/b": "folder", "a/empty": "folder", "a/b/synced": "yes", "a/b/through": "yes", "a/b/data": "yes",
		"a/b/old": "old", "a/b/new": "new", "a/old": "new", "a/cut": "n", "a/linked": "n",
	}
	for name, content := range want {
		if found[name] != content {
			t.Errorf("%s holds %q, not %q", name, found[name], content)
		}
		delete(found, name)
	}
	if len(found) > 0 {
		t.Errorf("there is more: %v", found)
	}
}

// A torn write has some of its pages, and nothing of what was synced is hurt.
func TestTorn(t *testing.T) {
	t.Parallel()
	d := powerloss.New(2)
	dir, unmount := powerloss.Mount(t, d)
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	const page, pages = 4096, 64
	_, err = f.Write(bytes.Repeat([]byte("s"), 10))
	err = errors.Join(err, f.Sync())
	_, werr := f.Write(bytes.Repeat([]byte("u"), pages*page))
	if err := errors.Join(err, werr); err != nil {
		t.Fatal(err)
	}
	d.Cut(true)
	_ = f.Close()
	unmount()
	d.On()
	dir, _ = powerloss.Mount(t, d)
	b, err := os.ReadFile(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, bytes.Repeat([]byte("s"), 10)) {
		t.Errorf("what was synced is %q", b[:10])
	}
	if n := bytes.Count(b, []byte("u")) / page; n < 10 || n > pages-10 {
		t.Errorf("%d of %d pages arrived", n, pages)
	}
}

// Writes fail from the nth on, as long as the disk is told to.
func TestFail(t *testing.T) {
	t.Parallel()
	d := powerloss.New(3)
	dir, _ := powerloss.Mount(t, d)
	name := filepath.Join(dir, "f")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		d.Fail(errno, 3)
		var errs []error
		for range 4 {
			_, err := f.Write([]byte("x"))
			errs = append(errs, err)
		}
		if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], errno) || !errors.Is(errs[3], errno) {
			t.Errorf("%v: %v", errno, errs)
		}
		if err := f.Sync(); !errors.Is(err, errno) {
			t.Errorf("%v: sync: %v", errno, err)
		}
		d.Fail(0, 0)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "xxxxxx" {
		t.Errorf("%q, %v", b, err)
	}
	if d.Syncs() != 1 {
		t.Errorf("%d syncs", d.Syncs())
	}
}
