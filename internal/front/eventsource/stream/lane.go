package stream

import (
	"context"
	"errors"
	"time"

	"kiln/internal/front/eventsource"
	"kiln/internal/lambda"
)

const (
	firstBackoff = 500 * time.Millisecond
	// maxBackoff bounds the pause between attempts: whoever repairs a function waits
	// that long at most.
	maxBackoff = time.Minute
	// stopGrace is what is left for what a batch in hand still needs when its mapping
	// changes or Kiln ends: its destination, and its position.
	stopGrace = 10 * time.Second
)

// piece is what a lane gets at once.
type piece struct {
	records []record
	until   time.Time // what arrived before has come, as far as there are windows
}

// lane has the function called with the records of some keys of a shard, batch by batch.
type lane struct {
	*shardRun
	index int
	in    chan piece // closed at the end of the shard

	queue []record // came, and is in no batch yet
	until time.Time
	ended bool // nothing more comes
	early bool // the window that is open must end before its time

	pending int    // records that are not done; guarded by shardRun.mu
	done    string // the last that is, as far as any are pending; guarded by shardRun.mu
}

// run returns when the shard has ended and all is done, or ctx ended.
func (l *lane) run(ctx context.Context) error {
	for {
		batch, final, ok := l.gather(ctx)
		if !ok {
			return nil
		}
		if err := l.deliver(ctx, batch, final); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// gather waits for a batch: as large as it may be, of one window, or what there is once
// the first of its records has waited long enough. At the end of a window, final,
// there are none in it.
func (l *lane) gather(ctx context.Context) (batch []record, final, ok bool) {
	var late <-chan time.Time
	var room int
	for {
		for len(l.queue) > 0 {
			r := &l.queue[0]
			if len(batch) == 0 {
				l.open(r)
				room = maxEvent - l.overhead()
			}
			if over := l.over(r, room); over || len(batch) == l.settings.batch || len(batch) > 0 && len(r.event) > room {
				return batch, over && len(batch) == 0, true
			}
			if len(batch) == 0 && l.settings.batching > 0 {
				t := time.NewTimer(l.settings.batching)
				defer t.Stop()
				late = t.C
			}
			batch = append(batch, *r)
			room -= len(r.event) + len(",")
			l.queue = l.queue[1:]
		}
		closing := l.ended || l.window != nil && (l.window.full() || l.window.closed(l.until))
		switch {
		case len(batch) > 0 && (closing || late == nil || len(batch) == l.settings.batch):
			return batch, false, true
		case closing && l.window != nil:
			return nil, true, true
		case l.ended:
			return nil, false, false
		}
		select {
		case p, more := <-l.in:
			l.queue, l.until, l.ended = p.records, p.until, !more
		case <-late:
			return batch, false, true
		case <-ctx.Done():
			return nil, false, false
		}
	}
}

// part is a batch, or what is left of one.
type part struct {
	records  []record
	invokes  int // of the function, with these and perhaps others
	failures int // of those, that count as attempts
}

// deliver has the function called until the records are done or given up, in order. It
// leaves what is not when ctx ends.
func (l *lane) deliver(ctx context.Context, batch []record, final bool) error {
	if len(batch) > 0 {
		l.Counter.IteratorAge(time.Since(batch[len(batch)-1].arrived))
	}
	failed := 0 // times in a row
	todo := []part{{records: batch}}
	for len(todo) > 0 && ctx.Err() == nil {
		b := &todo[0]
		if n := l.tooOld(b.records); n > 0 || final && l.tooLate() {
			if err := l.giveUp(ctx, part{b.records[:n], b.invokes, 0}, conditionAge, nil); err != nil {
				return err
			}
			if b.records = b.records[n:]; len(b.records) == 0 {
				todo = todo[1:]
			}
			continue
		}
		o, err := l.call(b.records, final)
		switch {
		case errors.Is(err, errTooLarge) && len(b.records) > 1:
			todo = halve(todo)
			continue
		case errors.Is(err, errTooLarge):
			if err := l.giveUp(ctx, *b, conditionSize, nil); err != nil {
				return err
			}
			todo = todo[1:]
			continue
		case err != nil: // the function did not run: that is no attempt
			l.function.Tell("PROBLEM: " + problem(err))
		default:
			b.invokes++
			l.Counter.Invoked(len(b.records))
			if n := o.checkpoint; n > 0 || o.ok {
				if err := l.finish(ctx, b.records[:n], o.window); err != nil {
					return err
				}
				b.records = b.records[n:]
			}
			if o.ok {
				l.function.Tell(eventsource.ResultOK)
				failed, todo = 0, todo[1:]
				continue
			}
			l.Counter.Failed(o.failed)
			l.function.Tell(eventsource.ResultFailed)
			switch {
			case l.settings.bisect && o.checkpoint > 0: // split there
			case l.settings.bisect && len(b.records) > 1:
				todo = halve(todo)
			default:
				b.failures++
			}
			if b = &todo[0]; l.settings.attempts >= 0 && b.failures > l.settings.attempts {
				if err := l.giveUp(ctx, *b, conditionAttempts, &o.response); err != nil {
					return err
				}
				failed, todo = 0, todo[1:]
				continue
			}
		}
		failed++
		pause(ctx, l.backoff(failed, b.records))
	}
	return nil
}

// halve splits the first part.
func halve(todo []part) []part {
	first, second := todo[0], todo[0]
	n := len(first.records) / 2
	first.records, second.records = first.records[:n], second.records[n:]
	return append([]part{first, second}, todo[1:]...)
}

// backoff is the pause before the next attempt; none goes beyond the age at which the
// first record is given up.
func (l *lane) backoff(failed int, records []record) time.Duration {
	d := min(l.poll.backoff<<min(failed-1, 20), maxBackoff)
	if l.settings.age > 0 && len(records) > 0 {
		d = min(d, max(time.Until(records[0].arrived.Add(l.settings.age)), 0))
	}
	return d
}

// tooOld counts the records at the beginning that are older than they may get.
func (l *lane) tooOld(records []record) (n int) {
	for l.settings.age > 0 && n < len(records) && time.Since(records[n].arrived) >= l.settings.age {
		n++
	}
	return n
}

// finish makes it durable that records are done, and what a window has come to. A batch
// that is done is saved though ctx has ended.
func (l *lane) finish(ctx context.Context, records []record, w *window) error {
	ctx, stop := beyond(ctx)
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.settings.window > 0 {
		l.window, l.early = w, l.early && w != nil
	}
	if n := len(records); n > 0 {
		l.pending -= n
		l.done = records[n-1].sequence
	}
	return l.save(ctx)
}

// giveUp goes on after records that are given up, once their destination knows.
func (l *lane) giveUp(ctx context.Context, b part, condition string, answer *response) error {
	w := l.window
	if n := len(b.records); n == 0 { // the last invocation of a window
		l.Log.Warn("the state of a window is dropped", "shard", l.id, "window", w.Start, "condition", condition)
		w = nil
	} else if why := l.discard(ctx, b, condition, answer); why == nil {
		l.Counter.Delivered(n)
	} else if ctx.Err() != nil {
		return nil // they are come back to
	} else {
		l.Counter.Dropped(n)
		if l.settings.discards {
			l.Counter.DestinationFailed()
		}
		l.Log.Warn("records are dropped", "shard", l.id, "first", b.records[0].sequence, "last", b.records[n-1].sequence,
			"records", n, "condition", condition, "invocations", b.invokes, "destination", why)
	}
	return l.finish(ctx, b.records, w)
}

var errNoDestination = errors.New("the mapping has none")

func (l *lane) discard(ctx context.Context, b part, condition string, answer *response) error {
	if !l.settings.discards {
		return errNoDestination
	}
	ctx, stop := beyond(ctx)
	defer stop()
	return l.function.Discard(ctx, l.failure(b, condition, answer))
}

// beyond is ctx with some time after its end.
func beyond(ctx context.Context) (context.Context, func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := context.AfterFunc(ctx, func() {
		if pause(longer, stopGrace) {
			cancel()
		}
	})
	return longer, func() { ended(); cancel() }
}

// problem is why the function did not run, for people.
func problem(err error) string {
	if e := lambda.AsError(err); e != nil {
		return e.Message
	}
	return err.Error()
}
