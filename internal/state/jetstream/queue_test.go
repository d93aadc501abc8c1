package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

const subject = "async.1.eu.f"

func publish(t testing.TB, q *jetstream.Queue, subject string, events ...string) {
	t.Helper()
	for _, e := range events {
		if err := q.Publish(context.Background(), subject, []byte(e)); err != nil {
			t.Fatal(err)
		}
	}
}

func waiting(t testing.TB, q *jetstream.Queue, subject string) uint64 {
	t.Helper()
	lanes, err := q.Lanes(context.Background(), subject)
	if err != nil {
		t.Fatal(err)
	}
	return lanes[subject].Due + uint64(len(lanes[subject].Later))
}

// handle has events of a lane handled, at most limit at a time, until ctx ends or an event
// cannot be taken; then it waits for the handlers. What they do not settle comes again.
func handle(ctx context.Context, q *jetstream.Queue, lane string, limit int, do func(context.Context, state.Delivery)) error {
	const pause = 2 * time.Millisecond // between two looks at an empty lane
	slots := make(chan struct{}, limit)
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for ctx.Err() == nil {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		taken, err := q.Take(ctx, lane, 1)
		if err != nil {
			return err
		}
		for _, d := range taken {
			handlers.Go(func() {
				ctx := context.WithoutCancel(ctx)
				do(ctx, d)
				_ = d.Retry(ctx, time.Second, nil) // refused where it is settled
				<-slots
			})
		}
		if len(taken) == 0 {
			<-slots
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// consume runs handle until stop is called, which returns when handle has.
func consume(t testing.TB, q *jetstream.Queue, subject string, limit int, do func(context.Context, state.Delivery)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- handle(ctx, q, subject, limit, do) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestEveryEventIsHandled(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir()).Queue()
	const events, limit = 500, 7
	for i := range events {
		publish(t, q, subject, fmt.Sprint(i))
	}
	publish(t, q, "async.1.eu.other", "x")
	if n := waiting(t, q, subject); n != events {
		t.Errorf("%d events wait", n)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var running, most atomic.Int64
	all := make(chan struct{})
	stop := consume(t, q, subject, limit, func(ctx context.Context, d state.Delivery) {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if d.Attempt() != 1 || time.Since(d.Accepted()) > time.Minute {
			t.Errorf("attempt %d, accepted %v", d.Attempt(), d.Accepted())
		}
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
		if err := d.Retry(ctx, 0, nil); err == nil {
			t.Error("an event was settled twice")
		}
		mu.Lock()
		defer mu.Unlock()
		seen[string(d.Event())]++
		if len(seen) == events {
			close(all)
		}
	})
	<-all
	stop()
	for e, n := range seen {
		if n != 1 {
			t.Errorf("event %s came %d times", e, n)
		}
	}
	if m := most.Load(); m > limit || m < 2 {
		t.Errorf("%d handlers at once", m)
	}
	if n := waiting(t, q, subject); n != 0 {
		t.Errorf("%d events wait", n)
	}
	if n := waiting(t, q, "async.1.eu.other"); n != 1 {
		t.Errorf("%d events of another subject wait", n)
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir()).Queue()
	publish(t, q, subject, "delayed", "dropped", "panics not, settles nothing")
	type visit struct {
		event   string
		attempt int
		at      time.Time
	}
	visits := make(chan visit, 10)
	const delay = 300 * time.Millisecond
	stop := consume(t, q, subject, 3, func(ctx context.Context, d state.Delivery) {
		visits <- visit{string(d.Event()), d.Attempt(), time.Now()}
		switch {
		case d.Attempt() > 1:
			if err := d.Ack(ctx); err != nil {
				t.Error(err)
			}
		case string(d.Event()) == "delayed":
			if err := d.Retry(ctx, delay, nil); err != nil {
				t.Error(err)
			}
		}
	})
	first := map[string]time.Time{}
	for seconds := 0; seconds < 3; {
		v := <-visits
		if v.attempt == 1 {
			first[v.event] = v.at
			continue
		}
		seconds++
		if wait := v.at.Sub(first[v.event]); wait < delay || wait > 20*time.Second {
			t.Errorf("%s came again after %v", v.event, wait)
		}
	}
	stop()
	if n := waiting(t, q, subject); n != 0 {
		t.Errorf("%d events wait", n)
	}
}

// A retry that waits must hold up neither other events nor the end.
func TestRetryHoldsUpNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	publish(t, e.Queue(), subject, "later", "now")
	done := make(chan struct{})
	stop := consume(t, e.Queue(), subject, 1, func(ctx context.Context, d state.Delivery) {
		if string(d.Event()) == "later" {
			if err := d.Retry(ctx, 2*time.Second, nil); err != nil {
				t.Error(err)
			}
			return
		}
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
		close(done)
	})
	<-done
	stop()
	if n := waiting(t, e.Queue(), subject); n != 1 {
		t.Errorf("%d events wait", n)
	}
	closeEngine(t, e)
	// Its attempts are known after a restart.
	q := open(t, dir).Queue()
	again := make(chan int, 1)
	stop = consume(t, q, subject, 1, func(ctx context.Context, d state.Delivery) {
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
		again <- d.Attempt()
	})
	if n := <-again; n != 2 {
		t.Errorf("the retry is attempt %d", n)
	}
	stop()
}

// What was taken can be settled after the end of the context that it was taken with.
func TestTakenOutlivesContext(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir()).Queue()
	publish(t, q, subject, "a", "b", "c")
	ctx, cancel := context.WithCancel(context.Background())
	taken, err := q.Take(ctx, subject, 2)
	if err != nil || len(taken) != 2 {
		t.Fatal(taken, err)
	}
	cancel()
	for _, d := range taken {
		if err := d.Ack(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if n := waiting(t, q, subject); n != 1 {
		t.Errorf("%d events wait", n)
	}
}

// Two that take from a subject share its events, and the end of one is not the other's.
func TestSharedSubject(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir()).Queue()
	var handled atomic.Int64
	all := make(chan struct{}, 100)
	count := func(ctx context.Context, d state.Delivery) {
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
		handled.Add(1)
		all <- struct{}{}
	}
	stop := consume(t, q, subject, 2, count)
	consume(t, q, subject, 2, count)
	publish(t, q, subject, "1", "2", "3", "4")
	for range 4 {
		<-all
	}
	stop()
	publish(t, q, subject, "5", "6")
	for range 2 {
		<-all
	}
	if handled.Load() != 6 {
		t.Errorf("%d events", handled.Load())
	}
}

func TestQueueRefuses(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir()).Queue()
	ctx := context.Background()
	for _, s := range []string{"", "a.*", ">", "a b"} {
		if err := q.Publish(ctx, s, nil); err == nil {
			t.Errorf("publish to %q", s)
		}
		if _, err := q.Take(ctx, s, 1); err == nil {
			t.Errorf("take from %q", s)
		}
		if _, err := q.Peek(ctx, s, 1); err == nil {
			t.Errorf("peek at %q", s)
		}
		if _, err := q.Purge(ctx, s); err == nil {
			t.Errorf("purge %q", s)
		}
	}
	if _, err := q.Take(ctx, "a", 0); err == nil {
		t.Error("take no events")
	}
	if err := q.Publish(ctx, "a", make([]byte, 8<<20+1)); err == nil {
		t.Error("publish above the limit")
	}
	if err := q.Publish(ctx, "a", make([]byte, 6<<20)); err != nil {
		t.Error(err)
	}
}

func TestCalls(t *testing.T) {
	t.Parallel()
	e := open(t, t.TempDir())
	r := e.Route()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	// Until a Serve has subscribed a call finds nobody.
	call := func(node, name, request string) ([]byte, error) {
		for deadline := time.Now().Add(10 * time.Second); ; {
			b, err := r.Call(ctx, node, name, []byte(request))
			if !errors.Is(err, state.ErrNotFound) || node != "n1" || time.Now().After(deadline) {
				return b, err
			}
		}
	}
	blocked := make(chan struct{})
	for name, handle := range map[string]func(context.Context, []byte) ([]byte, error){
		"echo":  func(_ context.Context, b []byte) ([]byte, error) { return b, nil },
		"fail":  func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no\r\nway") },
		"large": func(context.Context, []byte) ([]byte, error) { return make([]byte, 9<<20), nil },
		"block": func(context.Context, []byte) ([]byte, error) { <-blocked; return nil, nil },
	} {
		serving.Go(func() {
			if err := r.Serve(ctx, name, handle); err != nil {
				t.Error(err)
			}
		})
	}
	if b, err := call("n1", "echo", "hello"); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := call("n1", "fail", ""); err == nil || err.Error() != "node n1: no\r\nway" {
		t.Errorf("%v", err)
	}
	if _, err := call("n1", "large", ""); err == nil {
		t.Error("an answer above the limit came")
	}
	if _, err := call("n2", "echo", ""); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("an unknown node: %v", err)
	}
	call("n1", "echo", "") // "block" may still be on its way
	for {
		short, cancelShort := context.WithTimeout(ctx, 30*time.Millisecond)
		_, err := r.Call(short, "n1", "block", nil)
		cancelShort()
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call without an answer: %v", err)
		}
		break
	}
	close(blocked)
	cancel()
	serving.Wait()
}

// A retry replaces the event, keeps its age and its attempts, over a restart too,
// and can be looked at meanwhile.
func TestRetryReplaces(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	if err := e.Open(ctx); err != nil {
		t.Fatal(err)
	}
	publish(t, e.Queue(), subject, "first")
	accepted := make(chan time.Time, 1)
	stop := consume(t, e.Queue(), subject, 1, func(ctx context.Context, d state.Delivery) {
		switch d.Attempt() {
		case 1:
			if err := d.Retry(ctx, 0, []byte("second")); err != nil {
				t.Error(err)
			}
		case 2:
			if err := d.Retry(ctx, 2*time.Second, []byte("third")); err != nil {
				t.Error(err)
			}
			accepted <- d.Accepted()
		}
	})
	at := <-accepted
	stop()
	publish(t, e.Queue(), subject+".below", "x") // a lane of its own
	lanes, err := e.Queue().Lanes(ctx, "async.")
	later, below := lanes[subject], lanes[subject+".below"]
	if err != nil || len(lanes) != 2 || later.Due != 0 || len(later.Later) != 1 || time.Until(later.Later[0].Due) > 2*time.Second || time.Since(later.Later[0].Accepted) > time.Minute || later.Bytes != 5 || below.Due != 1 || len(below.Later) != 0 || below.Bytes == 0 {
		t.Errorf("%v, %v", lanes, err)
	}
	closeEngine(t, e)
	q := open(t, dir).Queue()
	list, err := q.Peek(ctx, subject, 10)
	if err != nil || len(list) != 1 || string(list[0].Event) != "third" || list[0].Attempt != 3 || !list[0].Accepted.Equal(at) || list[0].NotYet.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	again := make(chan state.Delivery, 1)
	stop = consume(t, q, subject, 1, func(ctx context.Context, d state.Delivery) {
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
		again <- d
	})
	if d := <-again; string(d.Event()) != "third" || d.Attempt() != 3 || !d.Accepted().Equal(at) {
		t.Errorf("%q, attempt %d, accepted %v and before %v", d.Event(), d.Attempt(), d.Accepted(), at)
	}
	stop()
	if n := waiting(t, q, subject); n != 0 {
		t.Errorf("%d events wait", n)
	}
}

// A purge empties one lane, whatever its events wait for.
func TestPurge(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	q := open(t, t.TempDir()).Queue()
	publish(t, q, subject, "later")
	retried := make(chan struct{})
	stop := consume(t, q, subject, 1, func(ctx context.Context, d state.Delivery) {
		if err := d.Retry(ctx, time.Hour, nil); err != nil {
			t.Error(err)
		}
		close(retried)
	})
	<-retried
	stop()
	publish(t, q, subject, "1", "2")
	publish(t, q, subject+"g", "x")
	if list, err := q.Peek(ctx, subject, 2); err != nil || len(list) != 2 || string(list[0].Event) != "1" || list[0].Attempt != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if n, err := q.Purge(ctx, subject); err != nil || n != 3 {
		t.Errorf("%d events purged, %v", n, err)
	}
	if lanes, err := q.Lanes(ctx, ""); err != nil || len(lanes) != 1 || lanes[subject+"g"].Due != 1 {
		t.Errorf("%v, %v", lanes, err)
	}
}

// What is published at once comes out once each, whether written in batches or not.
func TestManyPublishers(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir()).Queue()
	const publishers, each = 64, 20
	var publishing sync.WaitGroup
	for p := range publishers {
		publishing.Go(func() {
			for i := range each {
				lane := fmt.Sprint("async.1.eu.f", p%8)
				event := fmt.Sprint(p, "-", i)
				if p == 0 {
					event += string(make([]byte, 1<<20)) // more than a batch takes many of
				}
				if err := q.Publish(context.Background(), lane, []byte(event)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	publishing.Wait()
	seen := map[string]bool{}
	for l := range 8 {
		list, err := q.Peek(context.Background(), fmt.Sprint("async.1.eu.f", l), publishers*each)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range list {
			seen[string(w.Event)] = true
		}
	}
	if len(seen) != publishers*each {
		t.Errorf("%d events of %d", len(seen), publishers*each)
	}
}

// Backlog counts one lane as Lanes does, and Peek stops where events are large.
func TestBacklog(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	q := open(t, t.TempDir()).Queue()
	publish(t, q, subject, "x", "y")
	publish(t, q, subject+"g", "x")
	publish(t, q, subject+".below", "x")
	taken, err := q.Take(ctx, subject, 1)
	if err != nil || len(taken) != 1 {
		t.Fatalf("%v, %v", taken, err)
	}
	if err := taken[0].Retry(ctx, time.Hour, nil); err != nil {
		t.Fatal(err)
	}
	b, err := q.Backlog(ctx, subject)
	if err != nil || b.Due != 1 || len(b.Later) != 1 || time.Until(b.Later[0].Due) < 59*time.Minute || b.Bytes == 0 {
		t.Errorf("%+v, %v", b, err)
	}
	if b, err := q.Backlog(ctx, subject+".none"); err != nil || b.Due != 0 || len(b.Later) != 0 {
		t.Errorf("an empty lane has %+v, %v", b, err)
	}
	const large, each = 12, 4 << 20
	for range large {
		publish(t, q, "async.1.eu.large", string(make([]byte, each)))
	}
	if list, err := q.Peek(ctx, "async.1.eu.large", large); err != nil || len(list) < 8 || len(list) > 10 {
		t.Errorf("%d large events, %v", len(list), err)
	}
}
