package artifact_test

import (
	"context"
	"errors"
	"strings"
	"testing"

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
	_, err := s.Add(context.Background(), pack(t, file{"f", strings.Repeat("l", 3<<20), 0o644}))
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
