package table_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
	"kiln/internal/state/powerloss"
)

// A change in the middle of which the disk fails was made or not: once the disk is well the
// table shows which, and can be changed on.
func TestDoubt(t *testing.T) {
	t.Parallel()
	disk := powerloss.New(1)
	dir, _ := powerloss.Mount(t, disk)
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "test"})
	if err := e.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	tab := things(t, e.State())
	put(t, tab, scope, "a", &thing{"old"})
	for _, try := range []struct {
		nth  int // write or sync that fails
		then string
	}{{1, "old"}, {2, "new"}} {
		disk.Fail(syscall.EIO, try.nth)
		_, err := tab.Change(t.Context(), scope, "a", func(*thing) (*thing, error) { return &thing{"new"}, nil })
		if !errors.Is(err, state.ErrUnknown) {
			t.Fatalf("a change in doubt: %v", err)
		}
		if got := tab.Get(scope, "a").Name; got != "old" {
			t.Errorf("it shows %s meanwhile", got)
		}
		disk.Fail(0, 0)
		for deadline := time.Now().Add(time.Minute); e.Err() != nil && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		}
		if got := tab.Get(scope, "a").Name; got != try.then {
			t.Errorf("it shows %s, and not %s", got, try.then)
		}
		put(t, tab, scope, "a", &thing{"old"})
	}
}
