package async

import (
	"context"
	"errors"
	"runtime"
	"sync"
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
	// still is locked, before Service.mu, while what the queue has is counted or dropped.
	// Whoever changes that holds it for reading, until the change is counted too.
	still sync.RWMutex

	arn      lambda.FunctionARN // unqualified
	all      total              // parked, arriving, due, handed out, later
	parked   total              // until somebody redrives them
	arriving total              // being published
	due      int64              // events to take
	out      map[*handed]bool   // handed out, and not settled
	agenda   agenda             // of those that were put off
	aged     ages               // of those that were put off and are not handed out
	problem  string             // the last error of an event
	purges   int                // how often what waited was dropped
	visits   int                // of somebody who looks after what waits; the lane stays
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
		l = &lane{arn: arn, since: time.Now(), out: map[*handed]bool{}}
		s.lanes[arn] = l
	}
	return l
}

// tidy forgets a lane in which nothing is. s.mu is held.
func (s *Service) tidy(l *lane) {
	if l.all.events == 0 && l.running == 0 && l.visits == 0 && !l.taking && !l.lined {
		s.later.clear(l)
		delete(s.lanes, l.arn)
	}
}

// line has a lane wait for its turn, if it has anything to take. s.mu is held.
func (s *Service) line(l *lane) {
	if !l.lined && !l.taking && l.due > 0 {
		s.append(l)
	}
	s.wakeUp()
}

// wakeUp has Run look again at what there is.
func (s *Service) wakeUp() {
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
		for l, n := range s.later.due(now) {
			l.due += n
			s.line(l)
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
		if l.due == 0 { // it was purged
			s.tidy(l)
			continue
		}
		if wait := l.pause.Sub(now); wait > 0 {
			s.later.add(l, l.pause, 0)
			continue
		}
		own := s.bound(l) - l.running
		ramp := firstTurns + int(rampPerCore*float64(runtime.NumCPU())*now.Sub(l.since).Seconds()) - l.running
		if own <= 0 {
			continue // one of its own has to end first, which lines it up again
		}
		if ramp <= 0 {
			s.later.add(l, now.Add(rampPause), 0)
			continue
		}
		free := s.config.Deliveries - s.running
		n := min(int(min(l.due, maxTurn)), own, ramp, max(1, greed*free)-l.running, free)
		if n <= 0 {
			s.append(l) // others have to end first
			continue
		}
		if size := l.all.bytes / max(1, l.all.events); size > 0 {
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

// handed is an event that the queue has handed out.
type handed struct {
	state.Delivery
	lane   *lane
	purges int // the lane's then

	id       lambda.RequestID // guarded by Service.mu; once it is read
	accepted time.Time        // guarded by Service.mu; the event, as far as is known
}

func (h *handed) size() int64 { return int64(len(h.Event())) }

// take gets events of a lane from the queue and has each delivered.
func (s *Service) take(ctx context.Context, t turn) {
	l := t.lane
	if s.fetch(ctx, t) {
		s.recount(ctx, l)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.taking = false
	s.line(l)
	s.tidy(l)
}

// fetch tells whether the lane is to be counted again.
func (s *Service) fetch(ctx context.Context, t turn) (recount bool) {
	l := t.lane
	l.still.RLock()
	defer l.still.RUnlock()
	taken, err := s.queue.Take(context.WithoutCancel(ctx), laneName(lanePrefix, l.arn), t.n)
	if err != nil && !errors.Is(err, state.ErrBroken) { // of which the engine tells, once
		s.log.Warn("events could not be taken from the queue", "function", l.arn.String(), "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes--
	s.running -= t.n - len(taken)
	l.running -= t.n - len(taken)
	l.due = max(0, l.due-int64(len(taken)))
	switch {
	case err != nil:
		l.pause = time.Now().Add(failedTake)
	case len(taken) == t.n:
		l.misses, l.pause = 0, time.Time{}
	default:
		l.pause = time.Now().Add(min(minMiss<<min(l.misses, manyMisses), maxMiss))
		l.misses++
		recount = l.misses%manyMisses == 0
	}
	for _, d := range taken {
		h := &handed{Delivery: d, lane: l, purges: l.purges, accepted: d.Accepted()}
		s.bytes += h.size()
		l.out[h] = true
		s.work.Go(func() { s.deliver(h) })
	}
	return recount
}

// recount asks the queue what a lane has. Nothing is counted meanwhile.
func (s *Service) recount(ctx context.Context, l *lane) {
	l.still.Lock()
	defer l.still.Unlock()
	backlog, err := s.queue.Backlog(ctx, laneName(lanePrefix, l.arn))
	if err != nil {
		return // the next miss asks again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	held := total{} // what of it is handed out
	for h := range l.out {
		if h.purges == l.purges {
			held.add(1, h.size())
		}
	}
	rest := s.rest(l)
	s.count(l, -rest.events, -rest.bytes)
	backlog.Due -= min(backlog.Due, uint64(held.events))
	s.count(l, int64(backlog.Due)+int64(len(backlog.Later)), max(0, int64(backlog.Bytes)-held.bytes))
	s.forget(l)
	s.waits(l, backlog)
	l.misses = 0
}

// waits notes what of a lane waits in the queue, and was counted. s.mu is held.
func (s *Service) waits(l *lane, b state.Backlog) {
	l.due += int64(b.Due)
	for _, p := range b.Later {
		s.later.add(l, p.Due, 1)
		l.aged.add(p.Accepted)
	}
}

// rest is what of a lane is due or put off. s.mu is held.
func (s *Service) rest(l *lane) total {
	t := l.all
	t.add(-l.parked.events, -l.parked.bytes)
	t.add(-l.arriving.events, -l.arriving.bytes)
	for h := range l.out {
		t.add(-1, -h.size())
	}
	return total{max(0, t.events), max(0, t.bytes)}
}

// forget ends waits. s.mu is held.
func (s *Service) forget(l *lane) {
	l.due, l.aged = 0, nil
	s.later.clear(l)
}

// leave ends a delivery: what was taken is settled, or comes again.
func (s *Service) leave(h *handed) {
	l := h.lane
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	l.running--
	s.bytes -= h.size()
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
