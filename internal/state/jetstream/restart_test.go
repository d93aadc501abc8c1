package jetstream_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/minio/highwayhash"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

// A clock that has jumped back an hour leaves events that are from the future: they are
// handed out, those that wait are there still, and new ones go on behind them.
func TestClockJumpsBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	cfg := jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)}
	e := jetstream.New(cfg)
	if err := e.Open(ctx); err != nil {
		t.Fatal(err)
	}
	const jump = time.Hour
	before := time.Now().Add(jump)
	publish(t, e.Queue(), subject, "1", "2", "3")
	// A retry that was due in half a second, by the clock before the jump.
	if err := e.Queue().Restore(ctx, jetstream.Event{Subject: subject, Event: []byte("later"), Due: before.Add(time.Second / 2)}); err != nil {
		t.Fatal(err)
	}
	if taken, err := e.Queue().Take(ctx, subject, 1); err != nil || len(taken) != 1 {
		t.Fatal(taken, err)
	}
	closeEngine(t, e)
	if err := change(block(dir, "QUEUE"), func(b []byte) []byte { return ahead(b, jump) }); err != nil {
		t.Fatal(err)
	}
	q := openWith(t, cfg).Queue()
	publish(t, q, subject, "4")
	seen := map[string]bool{}
	got := make(chan string, 10)
	stop := consume(t, q, subject, 4, func(ctx context.Context, d state.Delivery) {
		if age := time.Since(d.Accepted()); string(d.Event()) != "4" && age > 0 {
			t.Errorf("%s is %v old", d.Event(), age)
		}
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
		got <- string(d.Event())
	})
	for range 4 {
		seen[<-got] = true
	}
	stop()
	if len(seen) != 4 {
		t.Errorf("handed out: %v", seen)
	}
	list, err := q.Peek(ctx, subject, 10)
	if err != nil || len(list) != 1 || string(list[0].Event) != "later" {
		t.Errorf("%v, %v", list, err)
	}
}

// ahead makes the records of a file later by d.
func ahead(b []byte, d time.Duration) []byte {
	key := sha256.Sum256([]byte("QUEUE-1"))
	h, err := highwayhash.New64(key[:])
	if err != nil {
		panic(err)
	}
	for at := 0; at < len(b); {
		length := binary.LittleEndian.Uint32(b[at:])
		r := b[at : at+int(length&^(1<<31))]
		binary.LittleEndian.PutUint64(r[12:], binary.LittleEndian.Uint64(r[12:])+uint64(d))
		body := 22 + int(binary.LittleEndian.Uint16(r[20:]))
		rest := body
		if length>>31 == 1 {
			rest += 4
		}
		h.Reset()
		h.Write(r[4:20])
		h.Write(r[22:body])
		h.Write(r[rest : len(r)-8])
		copy(r[len(r)-8:], h.Sum(nil))
		at += len(r)
	}
	return b
}

// Ten thousand lanes are told of, whole, after a restart too.
func TestLanesOfMany(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	lanes := 10_000
	if testing.Short() {
		lanes = 1000
	}
	cfg := jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)}
	e := jetstream.New(cfg)
	if err := e.Open(ctx); err != nil {
		t.Fatal(err)
	}
	fill(t, e.Queue(), lanes, func(i int) string { return fmt.Sprint("async.1.eu.f", i) })
	closeEngine(t, e)
	e = openWith(t, cfg)
	told, err := e.Queue().Lanes(ctx, "async.")
	if err != nil || len(told) != lanes {
		t.Fatalf("%d lanes of %d: %v", len(told), lanes, err)
	}
	for lane, b := range told {
		if b.Due != 1 || len(b.Later) != 0 {
			t.Errorf("%s: %+v", lane, b)
		}
	}
}

// fill publishes many events, as fast as batches are.
func fill(t testing.TB, q *jetstream.Queue, number int, lane func(int) string) {
	t.Helper()
	const batch = 500
	for from := 0; from < number; from += batch {
		var events []jetstream.Event
		for i := range min(batch, number-from) {
			events = append(events, jetstream.Event{Subject: lane(from + i), Event: []byte("an event")})
		}
		if err := q.StoreBatch(context.Background(), events...); err != nil {
			t.Fatal(err)
		}
	}
}
