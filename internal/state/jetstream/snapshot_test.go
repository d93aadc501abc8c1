package jetstream_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

// Writers make records in order, a pair at a time, each naming a blob that is made
// before it; other blobs come and go.
func TestSnapshotIsOneMoment(t *testing.T) {
	t.Parallel()
	e := jetstream.New(jetstream.Config{Dir: t.TempDir(), Node: "test"})
	if err := e.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				blob := fmt.Sprintf("blob-%d-%d", w, i)
				if err := e.Blob().Put(t.Context(), blob, strings.NewReader(blob)); err != nil {
					t.Error(err)
					return
				}
				if _, err := e.State().Commit(t.Context(),
					state.Change{Key: fmt.Sprintf("a.%d.%d", w, i), Value: []byte(blob)},
					state.Change{Key: fmt.Sprintf("b.%d.%d", w, i), Value: []byte(blob)}); err != nil {
					t.Error(err)
					return
				}
				if i < 3 {
					continue
				}
				// Records go before what they name does.
				old := fmt.Sprintf("%d.%d", w, i-3)
				revision := func(kind string) state.Revision {
					list, _ := e.State().All(t.Context(), kind+"."+old)
					for _, r := range list {
						if r.Key == kind+"."+old {
							return r.Revision
						}
					}
					return 0
				}
				if _, err := e.State().Commit(t.Context(), state.Change{Key: "a." + old, Expect: revision("a")}, state.Change{Key: "b." + old, Expect: revision("b")}); err != nil {
					t.Error(err)
					return
				}
				if err := e.Blob().Delete(t.Context(), fmt.Sprintf("blob-%d-%d", w, i-3)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		s, err := e.Snapshot(t.Context(), func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, r := range s.Records {
			seen[r.Key] = true
			b, size := s.Blob(t.Context(), string(r.Value))
			content, err := io.ReadAll(b)
			if err != nil || string(content) != string(r.Value) || size != int64(len(content)) {
				t.Errorf("the blob of %s: %q, %v", r.Key, content, err)
			}
			b.Close()
		}
		for key := range seen {
			if other := map[byte]string{'a': "b", 'b': "a"}[key[0]] + key[1:]; !seen[other] {
				t.Errorf("%s is there without %s", key, other)
			}
		}
		s.Close()
	}
	stop()
	writers.Wait()
}

func TestRestoredEventsKeepTheirAge(t *testing.T) {
	t.Parallel()
	open := func() *jetstream.Engine {
		e := jetstream.New(jetstream.Config{Dir: t.TempDir(), Node: "test"})
		if err := e.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		return e
	}
	e := open()
	if err := e.Queue().Publish(t.Context(), "f", []byte("event")); err != nil {
		t.Fatal(err)
	}
	s, err := e.Snapshot(t.Context(), func() error { return nil })
	if err != nil || len(s.Events) != 1 {
		t.Fatalf("%d events, %v", len(s.Events), err)
	}
	s.Close()
	event := s.Events[0]
	event.Accepted = event.Accepted.Add(-time.Hour)
	other := open()
	if err := other.Queue().Restore(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	ctx, done := context.WithCancel(t.Context())
	err = handle(ctx, other.Queue(), "f", 1, func(ctx context.Context, d state.Delivery) {
		if string(d.Event()) != "event" || !d.Accepted().Equal(event.Accepted) {
			t.Errorf("%s of %v, want it of %v", d.Event(), d.Accepted(), event.Accepted)
		}
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
		done()
	})
	if err != nil {
		t.Error(err)
	}
}
