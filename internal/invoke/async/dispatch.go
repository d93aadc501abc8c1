package async

import (
	"container/heap"
	"context"
	"runtime"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

const (
	// maxTurn is how many events of one function are taken in its turn: few, so that
	// the next function's turn comes soon.
	maxTurn = 16
	// maxTakes bounds the calls of the queue at once. Each waits for the engine only.
	maxTakes = 8
	// maxBytes bounds the events that are delivered at once, by their average sizes.
	maxBytes = 256 << 20
	// greed is how many times as many deliveries as are free one function may have:
	// alone it gets four fifths of all, and the next always finds some free.
	// https://doi.org/10.1109/90.664262
	greed = 4
	// growEvery is how many events in a row, for each delivery that it may have, a
	// function has to take before it may have one more.
	growEvery = 8
	// firstTurns and rampPerCore are how many deliveries a function may have as soon as it
	// has events, and how many more each second on each processor: about as many as
	// environments of Python or Node.js can be started. All at once they would start
	// so slowly that invocations run into their timeouts.
	firstTurns  = 8
	rampPerCore = 20
	rampPause   = 100 * time.Millisecond
	// minMiss and maxMiss bound the pause after the queue had not what should be due:
	// its schedules are late, or the count is wrong. Of so many misses in a row the
	// lane is counted again.
	minMiss    = 20 * time.Millisecond
	maxMiss    = 10 * time.Second
	manyMisses = 8
	// failedTake is the pause after the queue has failed.
	failedTake = time.Second
)

// lane is what waits for one function. Service.mu guards its fields.
type lane struct {
	arn      lambda.FunctionARN // unqualified
	events   int64              // all: parked, arriving, due, running, later
	bytes    int64              // of those
	parked   int64              // events that wait until somebody redrives them
	arriving int64              // events being published
	due      int64              // events to take
	running  int                // events that are delivered now
	taking   bool               // the queue is being asked
	lined    bool               // it is in the ring
	window   int                // how many may run at once, since it was throttled; 0: any number
	streak   int                // events that have run since the window was changed
	since    time.Time          // it has events
	misses   int                // how often in a row the queue had not what should be due
	pause    time.Time          // it is not asked before
}

// lane returns a function's, made if need be. s.mu is held.
func (s *Service) lane(arn lambda.FunctionARN) *lane {
	l := s.lanes[arn]
	if l == nil {
		l = &lane{arn: arn, since: time.Now()}
		s.lanes[arn] = l
	}
	return l
}

// tidy forgets a lane in which nothing is. s.mu is held.
func (s *Service) tidy(l *lane) {
	if l.events == 0 && l.running == 0 && l.arriving == 0 && !l.taking && !l.lined {
		delete(s.lanes, l.arn)
	}
}

// line has a lane wait for its turn, if it has anything to take. s.mu is held.
func (s *Service) line(l *lane) {
	if !l.lined && !l.taking && l.due > 0 {
		s.append(l)
	}
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

func (s *Service) append(l *lane) {
	l.lined = true
	s.ring = append(s.ring, l)
}

// Run takes and delivers events until ctx ends. What runs then goes on; see Wait. Call
// it once.
func (s *Service) Run(ctx context.Context) {
	defer close(s.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.mu.Lock()
		now := time.Now()
		for arn, n := range s.later.due(now) {
			if n > 0 {
				s.lane(arn).due += n
			}
			if l := s.lanes[arn]; l != nil {
				s.line(l)
			}
		}
		for _, t := range s.turns(now) {
			s.work.Go(func() { s.take(ctx, t) })
		}
		next := s.later.next()
		s.mu.Unlock()
		timer.Reset(min(max(time.Until(next), 0), maxMiss))
		select {
		case <-ctx.Done():
			s.mu.Lock()
			s.stopped = true
			s.mu.Unlock()
			return
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// Wait returns when Run has, and no delivery runs any more: once the invocations have
// ended. What is being sent elsewhere is cut off when ctx ends, and sent by the next Kiln.
func (s *Service) Wait(ctx context.Context) {
	<-s.ended
	defer context.AfterFunc(ctx, func() { s.cancel(errStopping) })()
	s.work.Wait()
}

// turn is how many events of a lane are to be taken.
type turn struct {
	lane *lane
	n    int
}

// turns hands out what is free to the lanes in line. s.mu is held.
func (s *Service) turns(now time.Time) (list []turn) {
	for range len(s.ring) {
		if s.takes >= maxTakes || s.running >= s.config.Deliveries || s.bytes > maxBytes {
			break // and whoever ends one wakes us
		}
		l := s.ring[0]
		s.ring = s.ring[1:]
		l.lined = false
		if wait := l.pause.Sub(now); wait > 0 {
			s.later.add(l.pause, l.arn, 0)
			continue
		}
		own := s.bound(l) - l.running
		ramp := firstTurns + int(rampPerCore*float64(runtime.NumCPU())*now.Sub(l.since).Seconds()) - l.running
		if own <= 0 {
			continue // one of its own has to end first, which lines it up again
		}
		if ramp <= 0 {
			s.later.add(now.Add(rampPause), l.arn, 0)
			continue
		}
		free := s.config.Deliveries - s.running
		n := min(int(min(l.due, maxTurn)), own, ramp, max(1, greed*free)-l.running, free)
		if n <= 0 {
			s.append(l) // others have to end first
			continue
		}
		if size := l.bytes / max(1, l.events); size > 0 {
			n = min(n, int(max(1, (maxBytes-s.bytes)/size)))
		}
		l.taking = true
		s.takes++
		s.running += n // reserved; what does not come is given back
		l.running += n
		list = append(list, turn{l, n})
	}
	return list
}

// bound is how many events of a lane may be delivered at once, whatever others do.
// s.mu is held.
func (s *Service) bound(l *lane) int {
	most := s.config.Deliveries
	if l.window > 0 {
		most = min(most, l.window)
	}
	if share := s.functions.Share(l.arn); share.Reserves && share.Reserved > 0 {
		most = min(most, share.Reserved) // more would be throttled
	}
	return most
}

// take gets events of a lane from the queue and has each delivered.
func (s *Service) take(ctx context.Context, t turn) {
	l := t.lane
	taken, err := s.queue.Take(context.WithoutCancel(ctx), laneName(lanePrefix, l.arn), t.n)
	if err != nil {
		s.log.Warn("events could not be taken from the queue", "function", l.arn.String(), "error", err)
	}
	s.mu.Lock()
	s.takes--
	s.running -= t.n - len(taken)
	l.running -= t.n - len(taken)
	l.due = max(0, l.due-int64(len(taken)))
	for _, d := range taken {
		s.bytes += int64(len(d.Event()))
	}
	recount := false
	switch {
	case err != nil:
		l.pause = time.Now().Add(failedTake)
	case len(taken) == t.n:
		l.misses, l.pause = 0, time.Time{}
	default:
		l.pause = time.Now().Add(min(minMiss<<l.misses, maxMiss))
		l.misses++
		recount = l.misses%manyMisses == 0
	}
	s.mu.Unlock()
	for _, d := range taken {
		s.work.Go(func() { s.deliver(l, d) })
	}
	if recount {
		s.recount(ctx, l)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.taking = false
	s.line(l)
	s.tidy(l)
}

// recount asks the queue how much of a lane is due.
func (s *Service) recount(ctx context.Context, l *lane) {
	name := laneName(lanePrefix, l.arn)
	s.mu.Lock()
	before, running := l.due, l.running
	s.mu.Unlock()
	if running > 0 {
		return // the queue counts them too, until they are settled
	}
	backlogs, err := s.queue.Lanes(ctx, name)
	if err != nil {
		return // the next miss asks again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.due != before || l.arriving > 0 {
		return // it has changed meanwhile; the next miss asks again
	}
	due := int64(backlogs[name].Due)
	if gone := l.due - due; gone > 0 {
		s.count(l, -gone, -gone*(l.bytes/max(1, l.events)))
	}
	l.due, l.misses = due, 0
}

// leave ends a delivery: what was taken is settled, or comes again.
func (s *Service) leave(l *lane, d state.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	l.running--
	s.bytes -= int64(len(d.Event()))
	s.line(l)
	s.tidy(l)
}

// throttled narrows what a lane may have at once to what it had without being throttled.
func (s *Service) throttled(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.window, l.streak = max(1, l.running-1), 0
}

// ran widens it again, by one after a while.
func (s *Service) ran(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.window == 0 {
		return
	}
	if l.streak++; l.streak >= growEvery*l.window {
		l.window, l.streak = l.window+1, 0
		if l.window >= s.config.Deliveries {
			l.window = 0
		}
	}
}

// schedule says when events that wait are due, by lane, in whole ticks.
type schedule struct {
	heap  moments
	count map[moment]int64 // of events
}

// tick is how exactly a time of the schedule is kept.
const tick = 100 * time.Millisecond

type moment struct {
	at  int64 // in ticks since 1970, rounded up
	arn lambda.FunctionARN
}

// add notes that n events of a lane are due at a time; with 0, that its turn comes again.
func (c *schedule) add(at time.Time, arn lambda.FunctionARN, n int64) {
	if c.count == nil {
		c.count = map[moment]int64{}
	}
	m := moment{(at.UnixNano() + int64(tick) - 1) / int64(tick), arn}
	if _, known := c.count[m]; !known {
		heap.Push(&c.heap, m)
	}
	c.count[m] += n
}

// next is when something is due; far in the future if nothing is.
func (c *schedule) next() time.Time {
	if len(c.heap) == 0 {
		return time.Now().Add(time.Hour)
	}
	return time.Unix(0, c.heap[0].at*int64(tick))
}

// due takes out what is due by now.
func (c *schedule) due(now time.Time) func(yield func(lambda.FunctionARN, int64) bool) {
	return func(yield func(lambda.FunctionARN, int64) bool) {
		for len(c.heap) > 0 && c.heap[0].at*int64(tick) <= now.UnixNano() {
			m := heap.Pop(&c.heap).(moment)
			n := c.count[m]
			delete(c.count, m)
			if !yield(m.arn, n) {
				return
			}
		}
	}
}

// moments is a heap, the earliest first.
type moments []moment

func (h moments) Len() int           { return len(h) }
func (h moments) Less(i, j int) bool { return h[i].at < h[j].at }
func (h moments) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *moments) Push(m any)        { *h = append(*h, m.(moment)) }
func (h *moments) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
