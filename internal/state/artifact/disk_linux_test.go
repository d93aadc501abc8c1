package artifact_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/artifact"
)

// A disk that gets full while a package is unpacked.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("kiln-test", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("only root can mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	blob := &memory{}
	s := openStore(t, blob, dir, artifact.Config{})
	small := pack(t, file{"f", strings.Repeat("s", 500<<10), 0o644})
	p := add(t, s, small)
	_, err := s.Add(context.Background(), section(pack(t, file{"f", strings.Repeat("l", 3<<20), 0o644})))
	if !errors.Is(err, state.ErrFull) || lambda.AsError(err) != nil {
		t.Errorf("a full disk: %v", err)
	}
	nothingLeft(t, dir)
	if len(blob.content) != 1 {
		t.Error("the package was stored")
	}
	path, release := dirOf(t, s, p.Digest)
	defer release()
	if len(tree(t, path)) != 1 {
		t.Error("the other package's tree is gone")
	}
}

// Where a file can have no second name, a merged tree gets a copy: here the
// package lies on a mount of its own.
func TestMergedByCopying(t *testing.T) {
	t.Parallel()
	s := openStore(t, &memory{}, t.TempDir(), artifact.Config{})
	a, b := add(t, s, pack(t, file{"d/a", "1", 0o755})).Digest, add(t, s, pack(t, file{"d/b", "2", 0o644})).Digest
	own, release := dirOf(t, s, a)
	defer release()
	if err := unix.Mount(own, own, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("only root can mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(own, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir, release, err := s.Merged(context.Background(), []string{a, b})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	want := map[string]string{"d": "drwxr-xr-x", "d/a": "-rwxr-xr-x 1", "d/b": "-rw-r--r-- 2"}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	x, err := os.Stat(filepath.Join(own, "d/a"))
	y, yerr := os.Stat(filepath.Join(dir, "d/a"))
	if err := errors.Join(err, yerr); err != nil || os.SameFile(x, y) || !x.ModTime().Equal(y.ModTime()) {
		t.Errorf("the same file: %v, %v", os.SameFile(x, y), err)
	}
}
