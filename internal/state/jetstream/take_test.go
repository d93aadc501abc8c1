package jetstream_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"kiln/internal/state"
)

// What is taken belongs to who took it; the rest stays, and what is given back comes again.
func TestTake(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	q := open(t, t.TempDir()).Queue()
	if taken, err := q.Take(ctx, subject, 3); err != nil || len(taken) != 0 {
		t.Fatalf("an empty lane gives %v, %v", taken, err)
	}
	for i := range 5 {
		publish(t, q, subject, fmt.Sprint(i))
	}
	first, err := q.Take(ctx, subject, 3)
	if err != nil || len(first) != 3 {
		t.Fatalf("%d of 3, %v", len(first), err)
	}
	rest, err := q.Take(ctx, subject, 10)
	if err != nil || len(rest) != 2 {
		t.Fatalf("%d of the 2 that are left, %v", len(rest), err)
	}
	seen := map[string]bool{}
	for _, d := range append(first, rest...) {
		seen[string(d.Event())] = true
	}
	if len(seen) != 5 {
		t.Errorf("taken: %v", seen)
	}
	if err := first[0].Retry(ctx, 0, nil); err != nil {
		t.Error(err)
	}
	again, err := q.Take(ctx, subject, 10)
	if err != nil || len(again) != 1 || string(again[0].Event()) != string(first[0].Event()) || again[0].Attempt() != 2 {
		t.Fatalf("given back: %v, %v", again, err)
	}
	for _, d := range append(append(first[1:], rest...), again...) {
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
	}
	if n := waiting(t, q, subject); n != 0 {
		t.Errorf("%d events wait", n)
	}
}

// Far more lanes than there are consumers for give all their events, whoever takes
// at the same time.
func TestManyLanes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	q := open(t, t.TempDir()).Queue()
	const lanes, takers = 280, 8 // more than there are consumers
	lane := func(i int) string { return fmt.Sprint("many.1.eu.f", i) }
	var publishers sync.WaitGroup
	for i := range lanes {
		publishers.Go(func() { publish(t, q, lane(i), "x", "y") })
	}
	publishers.Wait()
	held := make([]state.Delivery, 0, lanes)
	for i := range lanes { // one of each stays taken
		d, err := q.Take(ctx, lane(i), 1)
		if err != nil || len(d) != 1 {
			t.Fatalf("%s: %v, %v", lane(i), d, err)
		}
		held = append(held, d[0])
	}
	var all sync.WaitGroup
	for n := range takers {
		all.Go(func() {
			for i := n; i < lanes; i += takers {
				d, err := q.Take(ctx, lane(i), 5)
				if err != nil || len(d) != 1 {
					t.Errorf("%s: %v, %v", lane(i), d, err)
					continue
				}
				if err := d[0].Ack(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, d := range held {
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
	}
	if left, err := q.Lanes(ctx, "many."); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// An event that is put off is handed out when it is due, and not before.
func TestTakeLater(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	q := open(t, t.TempDir()).Queue()
	publish(t, q, subject, "x")
	d, err := q.Take(ctx, subject, 1)
	if err != nil || len(d) != 1 {
		t.Fatal(d, err)
	}
	const pause = 500 * time.Millisecond
	began := time.Now()
	if err := d[0].Retry(ctx, pause, []byte("y")); err != nil {
		t.Fatal(err)
	}
	for {
		d, err := q.Take(ctx, subject, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(d) == 1 {
			if took := time.Since(began); string(d[0].Event()) != "y" || took < pause {
				t.Errorf("%s after %v", d[0].Event(), took)
			}
			if err := d[0].Ack(ctx); err != nil {
				t.Error(err)
			}
			return
		}
	}
}

// What a process that was killed had taken is handed out to the next one at once.
func TestTakenByTheDead(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	e := open(t, dir)
	publish(t, e.Queue(), subject, "x", "y")
	if taken, err := e.Queue().Take(ctx, subject, 2); err != nil || len(taken) != 2 {
		t.Fatal(taken, err)
	}
	closeEngine(t, e) // as much as is known of it on the disk, a kill leaves too
	taken, err := open(t, dir).Queue().Take(ctx, subject, 5)
	if err != nil || len(taken) != 2 {
		t.Fatalf("%d of 2, %v", len(taken), err)
	}
	for _, d := range taken {
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
	}
}
