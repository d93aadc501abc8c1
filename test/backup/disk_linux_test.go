package backup

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kiln/test/kiln"
)

// A disk that becomes full ends a backup and a restore with an error, and neither
// leaves anything.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	small := t.TempDir()
	if err := unix.Mount("kiln-test", small, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("only root can mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d := kiln.Start(t)
	noise := make([]byte, 16<<20)
	rand.Read(noise)
	d.Create("large", "provided.al2023", "x", kiln.Zip(map[string]string{"bootstrap!": kiln.Bootstrap(`answer=1`), "noise": string(noise)}), nil)
	file := save(t, d)
	for what, args := range map[string][]string{
		"backup":  {"backup", filepath.Join(small, "backup"), "--endpoint", d.URL},
		"restore": {"restore", file, "--data", filepath.Join(small, "data")},
	} {
		if code, out := kiln.Run(t, args...); code != 1 || !strings.Contains(out, "space") {
			t.Errorf("%s: %d %s", what, code, out)
		}
		if left, err := os.ReadDir(small); err != nil || len(left) > 0 {
			t.Errorf("%s leaves %v, %v", what, left, err)
		}
	}
}
