package async_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"kiln/internal/invoke/async"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

func anywhere(lambda.Scope) bool { return true }

// line is what waits for a function.
func line(t testing.TB, s *async.Service, name string) async.Waiting {
	t.Helper()
	list, err := s.List(context.Background(), anywhere, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range list {
		if string(w.Name) == name {
			return w
		}
	}
	return async.Waiting{}
}

// What waits is told with its numbers, its age since acceptance, and the last error,
// before and after a restart.
func TestList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := &rig{reserved: map[string]int{"busy": 2}}
		r.run = func(inv *lambda.Invocation) (lambda.Result, error) {
			switch inv.ARN.Name {
			case "fails":
				return lambda.Result{FunctionError: "Unhandled", Payload: []byte(`{"errorMessage":"no luck"}`)}, nil
			case "busy":
				<-release
			}
			return well(inv)
		}
		r.config.RetryDelay = time.Hour
		s, stop := r.start(t)
		began := time.Now()
		accept(t, s, named("fails"), `{"secret":1}`)
		time.Sleep(time.Minute)
		for range 5 {
			accept(t, s, named("busy"), "1")
		}
		accept(t, s, named("well"), "1")
		time.Sleep(time.Second)

		fails := line(t, s, "fails")
		if fails.Later != 1 || fails.Events() != 1 || fails.Error != "no luck" || fails.Bytes == 0 {
			t.Errorf("%+v", fails)
		}
		if d := fails.Oldest.Sub(began); d < -time.Second || d > time.Second {
			t.Errorf("an event that was put off is %v too old", d)
		}
		if d := fails.Next.Sub(began); d < time.Hour || d > time.Hour+time.Second {
			t.Errorf("it is due after %v", d)
		}
		busy := line(t, s, "busy")
		if busy.Running != 2 || busy.Due != 3 || busy.Events() != 5 || busy.Oldest.Sub(began) != time.Minute || busy.Error != "" {
			t.Errorf("%+v", busy)
		}
		if well := line(t, s, "well"); well.Events() != 0 {
			t.Errorf("%+v", well)
		}
		list, err := s.List(t.Context(), anywhere, 1)
		if err != nil || len(list) != 2 || list[0].Name != "busy" || list[0].Oldest.IsZero() || !list[1].Oldest.IsZero() || list[1].Error != "" {
			t.Errorf("with details of one: %+v, %v", list, err)
		}
		if list, err := s.List(t.Context(), func(s lambda.Scope) bool { return s.Account == "210987654321" }, 1); err != nil || len(list) != 0 {
			t.Errorf("another account: %+v, %v", list, err)
		}

		events, err := s.Events(t.Context(), named("fails"), 10)
		if err != nil || len(events) != 1 {
			t.Fatalf("%+v, %v", events, err)
		}
		if e := events[0]; e.State != "later" || e.Invoked != 1 || e.Error != "no luck" || !e.Accepted.Equal(began) || e.Next.Sub(began) < time.Hour || e.ID == "" || e.Bytes != len(`{"secret":1}`) || e.Condition != "" {
			t.Errorf("%+v", e)
		}
		events, err = s.Events(t.Context(), named("busy"), 4)
		states := ""
		for _, e := range events {
			states += e.State + " "
		}
		if err != nil || states != "running running due due " {
			t.Errorf("%s, %v", states, err)
		}

		close(release)
		stop()
		s, stop = r.start(t)
		time.Sleep(time.Minute)
		fails = line(t, s, "fails")
		if d := fails.Oldest.Sub(began); fails.Later != 1 || fails.Error != "no luck" || d < -time.Second || d > time.Second || fails.Next.IsZero() {
			t.Errorf("after a restart: %+v", fails)
		}
		stop()
	})
}

// Of two events the older is told of, though it came back behind the younger.
func TestOldest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		n := 0
		r := &rig{reserved: map[string]int{"f": 1}}
		r.run = func(inv *lambda.Invocation) (lambda.Result, error) {
			if n++; n == 1 {
				return lambda.Result{FunctionError: "Unhandled", Payload: []byte(`{}`)}, nil
			}
			<-hang
			return well(inv)
		}
		r.config.RetryDelay = time.Minute
		s, stop := r.start(t)
		for i := range 3 {
			accept(t, s, function, fmt.Sprint(i))
			time.Sleep(10 * time.Second)
		}
		time.Sleep(10 * time.Minute)
		if w := line(t, s, "f"); time.Since(w.Oldest) < 10*time.Minute+29*time.Second || time.Since(w.Oldest) > 10*time.Minute+31*time.Second || w.Due != 2 || w.Running != 1 {
			t.Errorf("%v old: %+v", time.Since(w.Oldest), w)
		}
		close(hang)
		time.Sleep(time.Minute)
		if w := line(t, s, "f"); w.Events() != 0 {
			t.Errorf("%+v", w)
		}
		stop()
	})
}

// A purge drops what waits and what was put off. What runs ends as it ends, and does not
// come back; other functions keep what they have.
func TestPurge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var mu sync.Mutex
		ran := map[string]int{}
		r := &rig{reserved: map[string]int{"f": 3}, events: lambda.EventInvokeConfig{OnSuccess: "arn:aws:sqs:us-east-1:123456789012:done"}}
		r.run = func(inv *lambda.Invocation) (lambda.Result, error) {
			mu.Lock()
			ran[string(inv.Payload)]++
			mu.Unlock()
			if inv.ARN == function && string(inv.Payload) != `"early"` {
				<-release
			}
			if string(inv.Payload) == `"well"` {
				return well(inv)
			}
			return lambda.Result{FunctionError: "Unhandled", Payload: []byte(`{"errorMessage":"no"}`)}, nil
		}
		r.config.AccountEvents, r.config.FunctionEvents = 7, 6
		s, stop := r.start(t)
		accept(t, s, function, `"early"`) // is put off
		time.Sleep(time.Second)
		for _, p := range []string{`"well"`, `"bad"`, `"bad"`, `"waits"`, `"waits"`} {
			accept(t, s, function, p)
			synctest.Wait()
		}
		accept(t, s, named("other"), `"other"`)
		time.Sleep(time.Second)
		if w := line(t, s, "f"); w.Later != 1 || w.Running != 3 || w.Due != 2 {
			t.Fatalf("before: %+v", w)
		}
		if p, err := s.Purge(t.Context(), function, true); err != nil || p != (async.Purged{Running: 3}) {
			t.Errorf("of the parked: %+v, %v", p, err)
		}
		p, err := s.Purge(t.Context(), function, false)
		if err != nil || p != (async.Purged{Waited: 3, Running: 3}) {
			t.Errorf("purged %+v, %v", p, err)
		}
		if w := line(t, s, "f"); w.Later != 0 || w.Running != 3 || w.Due != 0 || !w.Next.IsZero() {
			t.Errorf("after: %+v", w)
		}
		accept(t, s, function, `"new"`) // there is room again, and what comes later is not purged
		close(release)
		time.Sleep(time.Hour)
		if ran[`"waits"`] != 0 || ran[`"early"`] != 1 || ran[`"bad"`] != 2 || ran[`"well"`] != 1 || ran[`"new"`] != 3 || ran[`"other"`] != 3 {
			t.Errorf("ran %v", ran)
		}
		if len(r.sent) != 1 || string(r.sent[0].outcome.Payload) != `"well"` {
			t.Errorf("sent %+v", r.sent)
		}
		if n := left(t, r.queue); n != 0 || line(t, s, "f") != (async.Waiting{}) {
			t.Errorf("%d are left, %+v", n, line(t, s, "f"))
		}
		for range 6 { // all of the bounds is free again
			accept(t, s, function, `"last"`)
		}
		if p, err := s.Purge(t.Context(), named("nobody"), false); err != nil || p != (async.Purged{}) {
			t.Errorf("of nobody: %+v, %v", p, err)
		}
		stop()
	})
}

// What was parked is told anew once the cause is mended, where it would go now, for as
// long as at first; what still cannot be told is parked again, once for each redrive.
func TestRedrive(t *testing.T) {
	t.Parallel()
	const before, after = lambda.Destination("arn:aws:sqs:us-east-1:123456789012:before"), lambda.Destination("arn:aws:sqs:us-east-1:123456789012:after")
	synctest.Test(t, func(t *testing.T) {
		const events = 150
		down := errors.New("connection refused")
		r := &rig{events: lambda.EventInvokeConfig{OnSuccess: before}, run: well}
		r.send = func(to lambda.Destination) error {
			if to == after {
				return nil
			}
			return down
		}
		s, stop := r.start(t)
		began := time.Now()
		for range events {
			accept(t, s, function, "1")
		}
		time.Sleep(7 * time.Hour)
		w := line(t, s, "f")
		if w.Parked != events || w.Events() != events || !w.Oldest.Equal(began) || w.Error != down.Error() {
			t.Fatalf("parked: %+v", w)
		}
		list, err := s.Events(t.Context(), function, 1000)
		if err != nil || len(list) != events {
			t.Fatalf("%d events, %v", len(list), err)
		}
		if e := list[0]; e.State != "parked" || e.Condition != destination.Success || len(e.Untold) != 1 || e.Untold[0] != before || e.Invoked != 1 || !e.Accepted.Equal(began) || e.Error != down.Error() {
			t.Errorf("%+v", e)
		}
		stop()
		s, stop = r.start(t) // a restart changes nothing

		did, err := s.Redrive(t.Context(), function, 100)
		if err != nil || did != (async.Redriven{Events: 100, Parked: 50}) {
			t.Fatalf("%+v, %v", did, err)
		}
		time.Sleep(5 * time.Hour)
		if w := line(t, s, "f"); w.Later != 100 || w.Parked != 50 || time.Since(w.Oldest) < 11*time.Hour {
			t.Errorf("while it is tried: %+v, %v old", w, time.Since(w.Oldest))
		}
		time.Sleep(2 * time.Hour)
		if w := line(t, s, "f"); w.Parked != events || w.Events() != events {
			t.Errorf("parked again: %+v", w)
		}
		r.mu.Lock()
		r.events.OnSuccess = after
		r.mu.Unlock()
		if did, err = s.Redrive(t.Context(), function, 1000); err != nil || did != (async.Redriven{Events: events}) {
			t.Errorf("%+v, %v", did, err)
		}
		time.Sleep(time.Minute)
		w = line(t, s, "f")
		stop()
		if len(r.sent) != events || !r.sent[0].outcome.At.Before(began.Add(time.Minute)) || w != (async.Waiting{}) {
			t.Errorf("%d sent; left: %+v", len(r.sent), w)
		}
	})
}

// A redrive ends, though what it moves is parked again at once.
func TestRedriveInVain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{events: lambda.EventInvokeConfig{OnSuccess: "arn:aws:sqs:us-east-1:123456789012:none"}, run: well}
		r.send = func(lambda.Destination) error { return lambda.AccessDenied("no") }
		s, stop := r.start(t)
		for range 5 {
			accept(t, s, function, "1")
		}
		time.Sleep(time.Second)
		if w := line(t, s, "f"); w.Parked != 5 {
			t.Fatalf("%+v", w)
		}
		if did, err := s.Redrive(t.Context(), function, 1000); err != nil || did.Events != 5 {
			t.Errorf("%+v, %v", did, err)
		}
		time.Sleep(time.Second)
		if w := line(t, s, "f"); w.Parked != 5 || w.Events() != 5 {
			t.Errorf("%+v", w)
		}
		if p, err := s.Purge(t.Context(), function, true); err != nil || p != (async.Purged{Parked: 5}) {
			t.Errorf("%+v, %v", p, err)
		}
		if w := line(t, s, "f"); w != (async.Waiting{}) {
			t.Errorf("%+v", w)
		}
		stop()
	})
}

// broken is a queue that fails as told.
type broken struct {
	*memory
	mu   sync.Mutex
	fail map[string]int // guarded by mu; how often which call fails yet
}

func (b *broken) fails(what string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail[what] == 0 {
		return nil
	}
	b.fail[what]--
	return errors.New("the queue fails")
}

func (b *broken) Publish(ctx context.Context, lane string, event []byte) error {
	if err := b.fails("full"); err != nil {
		return fmt.Errorf("%w: %w", err, state.ErrFull)
	}
	if err := b.fails("publish"); err != nil {
		return err
	}
	if err := b.memory.Publish(ctx, lane, event); err != nil {
		return err
	}
	return b.fails("published")
}

func (b *broken) Take(ctx context.Context, lane string, n int) ([]state.Delivery, error) {
	if err := b.fails("take"); err != nil {
		return nil, err
	}
	list, err := b.memory.Take(ctx, lane, n)
	for i := range list {
		list[i] = fragile{list[i].(*waiting), b}
	}
	return list, err
}

type fragile struct {
	*waiting
	queue *broken
}

func (f fragile) Ack(ctx context.Context) error {
	if err := f.queue.fails("ack"); err != nil {
		f.queue.comesBack(f.waiting)
		return err
	}
	if err := f.waiting.Ack(ctx); err != nil {
		return err
	}
	return f.queue.fails("acked")
}

func (f fragile) Retry(ctx context.Context, after time.Duration, event []byte) error {
	if err := f.queue.fails("retry"); err != nil {
		f.queue.comesBack(f.waiting)
		return err
	}
	if f.queue.fails("half a retry") == nil {
		return f.waiting.Retry(ctx, after, event)
	}
	f.queue.comesBack(f.waiting)
	f.queue.memory.mu.Lock()
	defer f.queue.memory.mu.Unlock()
	f.queue.memory.lanes[f.lane] = append(f.queue.memory.lanes[f.lane], &waiting{queue: f.queue.memory, lane: f.lane, event: event, accepted: f.accepted, due: time.Now().Add(after), attempt: f.attempt})
	return errors.New("the queue fails in between")
}

// comesBack is what the real queue does with what was not settled.
func (b *broken) comesBack(w *waiting) {
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	w.out, w.due = false, time.Now().Add(30*time.Second)
}

// Whatever calls of the queue fail, and however often somebody purges or redrives, in the
// end nothing waits that nobody looks for, and nothing is counted that is not there.
func TestCounts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		calls := []string{"full", "publish", "published", "take", "ack", "acked", "retry", "half a retry"}
		type act struct {
			what string
			n    int
		}
		acts := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) act {
			return act{rapid.SampledFrom(append([]string{"accept", "accept", "sleep", "purge", "purge parked", "redrive"}, calls...)).Draw(rt, "act"), rapid.IntRange(1, 4).Draw(rt, "n")}
		}), 1, 20).Draw(rt, "acts")
		fates := rapid.SampledFrom([]string{"well", "well", "fails", "throttled", "sent in vain", "never sent"})
		var fate []string
		for range 50 {
			fate = append(fate, fates.Draw(rt, "fate"))
		}
		var lines []async.Waiting
		waits, parked := 0, 0
		var refused error
		synctest.Test(t, func(t *testing.T) {
			q := &broken{memory: &memory{}, fail: map[string]int{}}
			r := &rig{queue: q, events: lambda.EventInvokeConfig{OnSuccess: "arn:aws:sqs:us-east-1:123456789012:done"}}
			var mu sync.Mutex
			n, over := 0, false
			next := func() string {
				mu.Lock()
				defer mu.Unlock()
				if n++; over {
					return "well"
				}
				return fate[n%len(fate)]
			}
			r.run = func(inv *lambda.Invocation) (lambda.Result, error) {
				time.Sleep(time.Second)
				switch next() {
				case "fails":
					return lambda.Result{FunctionError: "Unhandled", Payload: []byte(`{}`)}, nil
				case "throttled":
					return lambda.Result{}, lambda.Throttled("ConcurrentInvocationLimitExceeded")
				}
				return well(inv)
			}
			r.send = func(lambda.Destination) error {
				switch next() {
				case "sent in vain":
					return errors.New("connection refused")
				case "never sent":
					return lambda.AccessDenied("no")
				}
				return nil
			}
			r.config.FunctionEvents = 100
			s, stop := r.start(t)
			for _, a := range acts {
				switch a.what {
				case "accept":
					for range a.n {
						_ = s.Accept(t.Context(), invocation(function, strings.Repeat(" ", a.n*100)+"1"))
					}
				case "sleep":
					time.Sleep(time.Duration(a.n) * 7 * time.Second)
				case "purge", "purge parked":
					if _, err := s.Purge(t.Context(), function, a.what != "purge"); err != nil {
						refused = err
					}
				case "redrive":
					_, _ = s.Redrive(t.Context(), function, a.n)
				default:
					q.mu.Lock()
					q.fail[a.what] += a.n
					q.mu.Unlock()
				}
			}
			q.mu.Lock()
			q.fail = map[string]int{}
			q.mu.Unlock()
			mu.Lock()
			over = true
			mu.Unlock()
			time.Sleep(8 * time.Hour)
			waits = left(t, q)
			parked = len(q.lanes["parked.123456789012.us-east-1.f"])
			lines, _ = s.List(t.Context(), anywhere, 0)
			stop()
		})
		told := async.Waiting{}
		if len(lines) > 0 {
			told = lines[0]
		}
		if waits != 0 || told.Events() != told.Parked || int(told.Parked) != parked || parked == 0 && told.Bytes != 0 || refused != nil {
			rt.Fatalf("%d wait and %d are parked; counted: %+v; %v", waits, parked, lines, refused)
		}
	})
}

// A purge while events run, with the real queue: nothing that waited runs later, and what
// runs can still be settled.
func TestPurgeOfRealQueue(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	engine := jetstream.New(jetstream.Config{Dir: t.TempDir(), Node: "n"})
	if err := engine.Open(ctx); err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	begun, release := make(chan struct{}, 100), make(chan struct{})
	var mu sync.Mutex
	ran := 0
	r := &rig{queue: engine.Queue(), reserved: map[string]int{"f": 4}}
	r.run = func(inv *lambda.Invocation) (lambda.Result, error) {
		mu.Lock()
		ran++
		odd := ran%2 == 0
		mu.Unlock()
		begun <- struct{}{}
		<-release
		if odd {
			return lambda.Result{}, errors.New("no environment")
		}
		return well(inv)
	}
	s, stop := r.start(t)
	for range 40 {
		accept(t, s, function, "1")
	}
	for range 4 {
		<-begun
	}
	if p, err := s.Purge(ctx, function, false); err != nil || p != (async.Purged{Waited: 36, Running: 4}) {
		t.Errorf("%+v, %v", p, err)
	}
	close(release)
	accept(t, s, function, "1")
	<-begun
	stop()
	if ran != 5 || left(t, engine.Queue()) > 1 {
		t.Errorf("%d ran, %d are left", ran, left(t, engine.Queue()))
	}
	if w := line(t, s, "f"); w.Running != 0 || w.Events() != int64(left(t, engine.Queue())) {
		t.Errorf("%+v", w)
	}
}
