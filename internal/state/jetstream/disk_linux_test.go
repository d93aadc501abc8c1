package jetstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

func TestUnwritableDirectory(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "4m")
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	closeEngine(t, e)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	e = jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	if err := e.Open(context.Background()); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a read-only disk: %v", err)
	}
}

// A full disk fails each write with an error, loses nothing that was
// acknowledged, and after a restart with room everything works again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := smallDisk(t, "24m")
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
	if err := e.Open(ctx); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	acked := 0
	var failed error
	for i := 0; failed == nil && i < 1000; i++ {
		_, failed = e.State().Commit(ctx, state.Change{Key: fmt.Sprint("r.", i), Value: make([]byte, 100<<10)})
		if failed == nil {
			acked++
		}
	}
	if failed == nil {
		t.Fatal("the disk never got full")
	}
	t.Logf("after %d commits: %v", acked, failed)
	if !errors.Is(failed, state.ErrFull) {
		t.Errorf("a full disk: %v", failed)
	}
	if err := e.Err(); !errors.Is(err, state.ErrFull) {
		t.Errorf("the engine says %v", err)
	}
	if err := e.Blob().Put(ctx, "b", bytes.NewReader(make([]byte, 1<<20))); err == nil {
		t.Error("a blob was stored on a full disk")
	}
	if err := e.Queue().Publish(ctx, subject, make([]byte, 1<<20)); err == nil {
		t.Error("an event was stored on a full disk")
	}
	if err := e.Close(); err != nil {
		t.Logf("close on a full disk: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	e = open(t, dir)
	if got := len(all(t, e.State(), "r")); got < acked || got > acked+1 {
		t.Errorf("%d records, %d were acknowledged", got, acked)
	}
	commit(t, e.State(), state.Change{Key: "after", Value: []byte("x")})
}

// smallDisk mounts a file system in memory.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("kiln-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("only root can mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
