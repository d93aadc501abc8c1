package async_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kiln/internal/invoke/async"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
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
		if ran[`"waits"`] != 0 || ran[`"early"`] != 1 || ran[`"bad"`] != 2 || ran[`"well"`] != 1 || ran[`"new"`] != 3 || ran[`"other"`] != 3 {
			t.Errorf("ran %v", ran)
		}
		if len(r.sent) != 1 || string(r.sent[0].outcome.Payload) != `"well"` {
			t.Errorf("sent %+v", r.sent)
		}
	})
}

// What was parked is told anew once the cause is mended, where it would go now, for as
// long as at first; what still cannot be told is parked again, once for each redrive.
func TestRedrive(t *testing.T) {
	t.Parallel()
	const before, after = lambda.Destination("arn:aws:sqs:us-east-1:123456789012:before"), lambda.Destination("arn:aws:sqs:us-east-1:123456789012:after")
	synctest.Test(t, func(t *testing.T) {
		const events = 70
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

		did, err := s.Redrive(t.Context(), function, 65)
		if err != nil || did != (async.Redriven{Events: 65, Parked: 5}) {
			t.Fatalf("%+v, %v", did, err)
		}
		time.Sleep(5 * time.Hour)
		if w := line(t, s, "f"); w.Later != 65 || w.Parked != 5 || time.Since(w.Oldest) < 11*time.Hour {
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
