package jetstream

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"kiln/internal/state"
)

// The tests of this file look inside, because what they are about cannot be seen
// from outside: that nothing accumulates.

func opened(t *testing.T, dir string) *Engine {
	t.Helper()
	e := New(Config{Dir: dir, Node: "n1"})
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// TestMarkersAreSwept deletes many records of different keys.
func TestMarkersAreSwept(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	e := opened(t, t.TempDir())
	value := bytes.Repeat([]byte("v"), 1000)
	const keys = 4_000
	for from := 0; from < keys; from += MaxChanges {
		var changes []state.Change
		for i := range MaxChanges {
			changes = append(changes, state.Change{Key: fmt.Sprint("k.", from+i), Value: value})
		}
		revisions, err := e.State().Commit(ctx, changes...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range changes {
			changes[i].Value, changes[i].Expect = nil, revisions[i]
		}
		if _, err := e.State().Commit(ctx, changes...); err != nil {
			t.Fatal(err)
		}
	}
	messages := 0
	if err := e.read(ctx, stateStream, statePrefix+">", func(message) error { messages++; return nil }); err != nil {
		t.Fatal(err)
	}
	// Those of the last file or two stay: their predecessors are in them.
	if messages > keys/2 {
		t.Errorf("%d of %d markers are left", messages, keys)
	}
	t.Logf("%d of %d markers are left", messages, keys)
}

// TestMarkersOutliveTheirRecords: a crash would bring the record back.
func TestMarkersOutliveTheirRecords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	e := opened(t, t.TempDir())
	r, err := e.State().Commit(ctx, state.Change{Key: "kept", Value: []byte("v")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.State().Commit(ctx, state.Change{Key: "kept", Expect: r[0]}); err != nil {
		t.Fatal(err)
	}
	if err := e.state.sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if m, err := e.last(ctx, stateStream, statePrefix+"kept"); err != nil || m.header.Get(deletedHeader) == "" {
		t.Errorf("the marker is gone before what it marks: %v", err)
	}
}

// TestOrphansAreSwept: chunks of a Put that was cut short.
func TestOrphansAreSwept(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	e := opened(t, t.TempDir())
	if err := e.Blob().Put(ctx, "kept", bytes.NewReader([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	if _, err := e.store(ctx, &nats.Msg{Subject: chunkPrefix + "orphan", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	for _, sweep := range []struct {
		before time.Time
		left   int
	}{{time.Now().Add(-orphanAge), 2}, {time.Now().Add(time.Second), 1}} {
		if err := e.blob.sweep(ctx, sweep.before); err != nil {
			t.Fatal(err)
		}
		if subjects, err := e.blob.subjects(ctx); err != nil || len(subjects) != sweep.left {
			t.Errorf("chunks of %v, %v", subjects, err)
		}
	}
	if keys, err := e.Blob().Keys(ctx); err != nil || len(keys) != 1 {
		t.Errorf("blobs %v, %v", keys, err)
	}
}
