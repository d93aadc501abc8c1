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

	"kiln/internal/invoke"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

func well(*lambda.Invocation) (lambda.Result, error) {
	return lambda.Result{Payload: []byte("null"), ExecutedVersion: lambda.Latest}, nil
}

// A function with a mountain of events, all of whose invocations hang, does not keep
// others from being served at once, many of them.
func TestFairness(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const mountain, others = 5000, 300
		release := make(chan struct{})
		var mu sync.Mutex
		greedy, served := 0, map[lambda.FunctionName]bool{}
		r := &rig{run: func(inv *lambda.Invocation) (lambda.Result, error) {
			mu.Lock()
			served[inv.ARN.Name] = true
			if inv.ARN == function {
				greedy++
			}
			mu.Unlock()
			if inv.ARN == function {
				<-release
			} else {
				time.Sleep(time.Millisecond)
			}
			return well(inv)
		}}
		r.config.Deliveries = 100
		s, stop := r.start(t)
		for range mountain {
			accept(t, s, function, "1")
		}
		takes := func() int {
			mu.Lock()
			defer mu.Unlock()
			return greedy
		}
		synctest.Wait()
		if n := takes(); n != 8 {
			t.Errorf("%d deliveries to one function at once", n)
		}
		time.Sleep(5 * time.Second)
		if n := takes(); n != 80 {
			t.Errorf("%d deliveries to one function of 100", n)
		}
		began := time.Now()
		for i := range others {
			accept(t, s, named(fmt.Sprint("quiet", i)), "1")
		}
		for all := false; !all; {
			time.Sleep(time.Millisecond)
			mu.Lock()
			all = len(served) == others+1
			mu.Unlock()
			if time.Since(began) > time.Second {
				t.Fatalf("only %d of %d functions were served in a second", len(served), others+1)
			}
		}
		close(release)
		time.Sleep(time.Minute)
		if n := left(t, r.queue); n != 0 || takes() != mountain {
			t.Errorf("%d events are left, %d were delivered", n, takes())
		}
		stop()
	})
}

// A function that is throttled is given no more at once than it takes, and a function
// that reserves concurrency not even that much in vain.
func TestThrottled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		reserves bool
		most     int // attempts in vain
	}{{"shared", false, 200}, {"reserved", true, 0}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const events, limit = 1000, 3
				var mu sync.Mutex
				running, done, throttled := 0, 0, 0
				r := &rig{run: func(inv *lambda.Invocation) (lambda.Result, error) {
					mu.Lock()
					if running == limit {
						throttled++
						mu.Unlock()
						return lambda.Result{}, lambda.Throttled("ConcurrentInvocationLimitExceeded")
					}
					running++
					mu.Unlock()
					time.Sleep(100 * time.Millisecond)
					mu.Lock()
					running--
					done++
					mu.Unlock()
					return well(inv)
				}}
				r.config.Deliveries = 50
				if c.reserves {
					r.reserved = map[string]int{"f": limit}
				}
				s, stop := r.start(t)
				for range events {
					accept(t, s, function, "1")
				}
				time.Sleep(10 * time.Minute)
				stop()
				if done != events || left(t, r.queue) != 0 {
					t.Errorf("%d of %d were delivered", done, events)
				}
				if throttled > c.most {
					t.Errorf("%d attempts were throttled", throttled)
				}
			})
		})
	}
}

// A function that was throttled is given more at once again when it takes that.
func TestNoLongerThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most, began := 0, 0, time.Now()
		r := &rig{run: func(inv *lambda.Invocation) (lambda.Result, error) {
			mu.Lock()
			if running == 3 && time.Since(began) < 10*time.Second {
				mu.Unlock()
				return lambda.Result{}, lambda.Throttled("ConcurrentInvocationLimitExceeded")
			}
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			mu.Lock()
			running--
			mu.Unlock()
			return well(inv)
		}}
		r.config.Deliveries = 20
		s, stop := r.start(t)
		for range 5000 {
			accept(t, s, function, "1")
		}
		time.Sleep(10 * time.Minute)
		stop()
		if most < 16 || left(t, r.queue) != 0 {
			t.Errorf("%d at once of 20, %d are left", most, left(t, r.queue))
		}
	})
}

// What the end of Kiln cuts off is no attempt.
func TestCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		none, cut := 0, make(chan struct{})
		r := &rig{events: lambda.EventInvokeConfig{MaximumRetryAttempts: &none, OnFailure: "arn:aws:sqs:us-east-1:123456789012:failure"}, run: func(*lambda.Invocation) (lambda.Result, error) {
			<-cut
			return lambda.Result{FunctionError: "Unhandled"}, nil
		}}
		s, stop := r.start(t)
		accept(t, s, function, "1")
		synctest.Wait()
		go stop()
		synctest.Wait()
		close(cut)
		synctest.Wait()
		if n := left(t, r.queue); n != 1 || len(r.sent) != 0 {
			t.Errorf("%d events are left, sent %v", n, r.sent)
		}
	})
}

// A queue that fails is asked again after a second, and not all the time.
func TestFailingQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		queue := &broken{memory: &memory{}, fail: map[string]int{"take": 1000}}
		r := &rig{queue: queue, run: well}
		s, stop := r.start(t)
		accept(t, s, function, "1")
		time.Sleep(10 * time.Second)
		stop()
		if asked := 1000 - queue.fail["take"]; asked < 9 || asked > 11 {
			t.Errorf("asked %d times in ten seconds", asked)
		}
	})
}

// A function that has reserved no concurrency at all is not tried.
func TestZeroReserved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{run: func(*lambda.Invocation) (lambda.Result, error) { panic("it ran") }, reserved: map[string]int{"f": 0}, letters: "arn:aws:sqs:us-east-1:123456789012:dead"}
		r.events.OnFailure = "arn:aws:sqs:us-east-1:123456789012:failure"
		s, stop := r.start(t)
		accept(t, s, function, `{"a": 1.0}`)
		time.Sleep(time.Second)
		stop()
		if len(r.sent) != 2 || r.sent[0].outcome == nil || r.sent[1].letter == nil {
			t.Fatalf("sent: %+v", r.sent)
		}
		if o := r.sent[0].outcome; o.Condition != destination.ZeroReservedConcurrency || o.Invokes != 0 || o.Response != nil || string(o.Payload) != `{"a": 1.0}` {
			t.Errorf("the record: %+v", o)
		}
	})
}

// Beyond its bounds a function's callers are throttled, then its account's; what has
// been delivered makes room.
func TestBounds(t *testing.T) {
	t.Parallel()
	refused := func(t *testing.T, s interface {
		Accept(context.Context, invoke.Request) error
	}, name, payload, setting string) {
		t.Helper()
		err := s.Accept(context.Background(), invoke.Request{ID: lambda.NewRequestID(), ARN: named(name), Payload: []byte(payload)})
		if e := lambda.AsError(err); e == nil || e.Code != "TooManyRequestsException" || e.Status != 429 || !strings.Contains(e.Message, setting) {
			t.Errorf("an event too many for %s: %v, want %s in it", name, err, setting)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := &rig{run: func(inv *lambda.Invocation) (lambda.Result, error) { <-release; return well(inv) }}
		r.config.FunctionEvents, r.config.FunctionBytes = 3, 2000
		r.config.AccountEvents, r.config.AccountBytes = 5, 3000
		s, stop := r.start(t)
		for range 3 {
			accept(t, s, named("a"), "1")
		}
		refused(t, s, "a", "1", "async_function_events")
		refused(t, s, "b", `"`+strings.Repeat("x", 2000)+`"`, "async_function_bytes")
		accept(t, s, named("b"), `"`+strings.Repeat("x", 1500)+`"`)
		refused(t, s, "c", `"`+strings.Repeat("x", 1500)+`"`, "async_account_bytes")
		accept(t, s, named("c"), "1")
		refused(t, s, "d", "1", "async_account_events")
		close(release)
		time.Sleep(time.Second)
		for range 3 {
			accept(t, s, named("d"), "1")
		}
		time.Sleep(time.Second)
		stop()
		if n := left(t, r.queue); n != 0 {
			t.Errorf("%d events are left", n)
		}
		if err := s.Accept(context.Background(), invoke.Request{ARN: function, Payload: make([]byte, 1<<20+1)}); lambda.AsError(err) == nil || lambda.AsError(err).Code != "RequestTooLargeException" {
			t.Errorf("a byte too many: %v", err)
		}
	})
}

// What a destination does not take is sent again until it does; what it will never
// take, or what the role may not send, is parked.
func TestTelling(t *testing.T) {
	t.Parallel()
	const success, dead = lambda.Destination("arn:aws:sqs:us-east-1:123456789012:success"), lambda.Destination("arn:aws:sqs:us-east-1:123456789012:dead")
	count := func(t *testing.T, r *rig, prefix string) int {
		lanes, err := r.queue.Lanes(context.Background(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, b := range lanes {
			n += int(b.Due)
		}
		return n
	}
	t.Run("down for an hour", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ran, tries := 0, 0
			began := time.Now()
			r := &rig{events: lambda.EventInvokeConfig{OnSuccess: success}}
			r.run = func(inv *lambda.Invocation) (lambda.Result, error) { ran++; return well(inv) }
			r.send = func(lambda.Destination) error {
				tries++
				if time.Since(began) < time.Hour {
					return errors.New("connection refused")
				}
				return nil
			}
			s, stop := r.start(t)
			accept(t, s, function, "1")
			time.Sleep(2 * time.Hour)
			stop()
			if ran != 1 || len(r.sent) != 1 || tries < 12 || tries > 25 || left(t, r.queue) != 0 {
				t.Errorf("ran %d times, %d tries, sent %v", ran, tries, r.sent)
			}
			if o := r.sent[0].outcome; string(o.Response.Payload) != "null" || !o.At.Before(began.Add(time.Second)) {
				t.Errorf("the record: %+v", o)
			}
		})
	})
	t.Run("one of two down for good", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			none := 0
			r := &rig{events: lambda.EventInvokeConfig{OnFailure: success, MaximumRetryAttempts: &none}, letters: string(dead)}
			r.run = func(*lambda.Invocation) (lambda.Result, error) {
				return lambda.Result{FunctionError: "Unhandled", Payload: []byte(`{"errorMessage":"oh"}`)}, nil
			}
			r.send = func(to lambda.Destination) error {
				if to == dead {
					return errors.New("connection refused")
				}
				return nil
			}
			s, stop := r.start(t)
			accept(t, s, function, "1")
			time.Sleep(7 * time.Hour)
			stop()
			if len(r.sent) != 1 || left(t, r.queue) != 0 || count(t, r, "parked.") != 1 {
				t.Errorf("sent %v, %d parked", r.sent, count(t, r, "parked."))
			}
		})
	})
	t.Run("the role may not", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r := &rig{events: lambda.EventInvokeConfig{OnSuccess: success}}
			r.run = func(inv *lambda.Invocation) (lambda.Result, error) {
				r.deny(lambda.AccessDenied("no"))
				return well(inv)
			}
			r.deny(lambda.AccessDenied("no"))
			s, stop := r.start(t)
			if err := s.Accept(context.Background(), invoke.Request{ARN: function}); lambda.AsError(err) == nil {
				t.Errorf("a caller who may not: %v", err)
			}
			r.deny(nil)
			accept(t, s, function, "1")
			time.Sleep(time.Minute)
			stop()
			if len(r.sent) != 0 || count(t, r, "parked.") != 1 {
				t.Errorf("sent %v, %d parked", r.sent, count(t, r, "parked."))
			}
		})
	})
	t.Run("more than are kept", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r := &rig{queue: &crowded{parked: 9_999}, events: lambda.EventInvokeConfig{OnSuccess: success}, run: well}
			r.send = func(lambda.Destination) error { return lambda.AccessDenied("no") }
			s, stop := r.start(t)
			for range 2 { // there is room for one
				accept(t, s, function, "1")
				time.Sleep(time.Minute)
			}
			stop()
			if lists, err := r.queue.Peek(context.Background(), "parked.123456789012.us-east-1.f", 10); err != nil || len(lists) != 1 || left(t, r.queue) != 0 {
				t.Errorf("%d are parked, %v", len(lists), err)
			}
		})
	})
	t.Run("another function", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got []string
			r := &rig{events: lambda.EventInvokeConfig{OnSuccess: lambda.Destination(named("next").String())}}
			r.run = func(inv *lambda.Invocation) (lambda.Result, error) {
				if inv.ARN.Name == "next" {
					got = append(got, string(inv.Payload))
				}
				return well(inv)
			}
			s, stop := r.start(t)
			accept(t, s, function, `{"n":1}`)
			time.Sleep(time.Minute)
			stop()
			if len(got) != 1 || !strings.Contains(got[0], `"condition":"Success"`) || !strings.Contains(got[0], `"requestPayload":{"n":1}`) {
				t.Errorf("the next function got %q", got)
			}
		})
	})
}

// crowded is a queue that says it has parked events besides.
type crowded struct {
	memory
	parked uint64
}

func (c *crowded) Lanes(ctx context.Context, prefix string) (map[string]state.Backlog, error) {
	if prefix == "parked." {
		return map[string]state.Backlog{"parked.123456789012.us-east-1.f": {Due: c.parked, Bytes: c.parked}}, nil
	}
	return c.memory.Lanes(ctx, prefix)
}

// An event of a function that was deleted is dropped, and one that cannot be read too.
func TestDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := &memory{}
		for _, broken := range []string{"", "no line", "{\n", `{"payload_bytes":9}` + "\n1", `{"payload_bytes":-1}` + "\n1"} {
			_ = q.Publish(context.Background(), "async.123456789012.us-east-1.f", []byte(broken))
		}
		ran := 0
		r := &rig{queue: q, run: func(*lambda.Invocation) (lambda.Result, error) {
			ran++
			return lambda.Result{}, lambda.NotFound("Function not found")
		}}
		s, stop := r.start(t)
		accept(t, s, function, "1")
		time.Sleep(time.Minute)
		stop()
		if n := left(t, q); n != 0 || ran != 1 {
			t.Errorf("%d events are left, %d ran", n, ran)
		}
	})
}

// What an earlier Kiln has accepted is delivered by the next one, and counts, without
// anything new.
func TestOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := &memory{}
		first := &rig{queue: q, run: well}
		s, stop := first.start(t)
		stop() // it accepts, and delivers nothing
		for range 3 {
			accept(t, s, function, "1")
		}
		ran := 0
		second := &rig{queue: q, run: func(inv *lambda.Invocation) (lambda.Result, error) { ran++; time.Sleep(time.Minute); return well(inv) }}
		second.config.Deliveries, second.config.FunctionEvents = 1, 3
		s, stop = second.start(t)
		time.Sleep(time.Second)
		if err := s.Accept(context.Background(), invoke.Request{ARN: function}); lambda.AsError(err) == nil {
			t.Errorf("one more than the bound: %v", err)
		}
		time.Sleep(time.Hour)
		stop()
		if ran != 3 || left(t, q) != 0 {
			t.Errorf("%d were delivered", ran)
		}
	})
}

// When Kiln stops, nothing is begun any more; what was cut off, what waits, and whom
// nobody could tell is there for the next one. With the real queue.
func TestStopped(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	engine := jetstream.New(jetstream.Config{Dir: t.TempDir(), Node: "n"})
	if err := engine.Open(ctx); err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	const events, at = 50, 10
	begun, cut := make(chan struct{}, events), make(chan struct{})
	first := &rig{queue: engine.Queue(), run: func(*lambda.Invocation) (lambda.Result, error) {
		begun <- struct{}{}
		<-cut
		return lambda.Result{}, errors.New("this Kiln is shutting down")
	}}
	first.config.Deliveries = at
	s, stop := first.start(t)
	for i := range events {
		accept(t, s, function, fmt.Sprint(i))
	}
	for range 8 { // what one function may have of ten
		<-begun
	}
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	close(cut)
	<-stopped
	if n := left(t, engine.Queue()); n != events {
		t.Fatalf("%d of %d events are left", n, events)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	all := make(chan struct{})
	second := &rig{queue: engine.Queue(), run: func(inv *lambda.Invocation) (lambda.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		if seen[string(inv.Payload)]++; len(seen) == events {
			close(all)
		}
		return well(inv)
	}}
	_, stop = second.start(t)
	<-all
	stop()
	for payload, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", payload, n)
		}
	}
	if n := left(t, engine.Queue()); n != 0 {
		t.Errorf("%d events are left", n)
	}
}
