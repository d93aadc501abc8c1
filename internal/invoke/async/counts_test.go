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
	"kiln/internal/lambda"
	"kiln/internal/state"
)

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
	if err := b.fails("published"); err != nil { // the disk got full in the middle of it
		return fmt.Errorf("%w: %w: %w: %w", err, state.ErrUnknown, state.ErrFull, state.ErrBroken)
	}
	return nil
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
	if event == nil || f.queue.fails("half a retry") == nil {
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

// What a full disk refuses is not counted, however much of it there is.
func TestRefusedIsNotCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const refusals = 100
		r := &rig{queue: &broken{memory: &memory{}, fail: map[string]int{"full": refusals}}, run: well}
		s, stop := r.start(t)
		for range refusals {
			if err := s.Accept(t.Context(), invocation(function, "1")); !errors.Is(err, state.ErrFull) {
				t.Errorf("a full disk: %v", err)
			}
		}
		if lines, err := s.List(t.Context(), func(lambda.Scope) bool { return true }, 0); err != nil || len(lines) != 0 {
			t.Errorf("%+v waits, %v", lines, err)
		}
		stop()
	})
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
