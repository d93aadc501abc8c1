package async

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
	"kiln/internal/state"
)

// Waiting is what waits for a function.
type Waiting struct {
	Account lambda.AccountID    `json:"account"`
	Region  lambda.Region       `json:"region"`
	Name    lambda.FunctionName `json:"name"`
	Due     int64               `json:"due"`     // events that may be delivered now
	Running int64               `json:"running"` // that are
	Later   int64               `json:"later"`   // that were put off
	Next    time.Time           `json:"next,omitzero"`
	Parked  int64               `json:"parked"` // whose end could not be told
	Bytes   int64               `json:"bytes"`
	// Oldest is when the oldest was accepted, and Error is the last error of any. Lines
	// without details have neither.
	Oldest time.Time `json:"oldest,omitzero"`
	Error  string    `json:"error,omitempty"`
}

func (w Waiting) arn() lambda.FunctionARN {
	return lambda.FunctionARN{Scope: lambda.Scope{Account: w.Account, Region: w.Region}, Name: w.Name}
}

// Events is how many wait.
func (w Waiting) Events() int64 { return w.Due + w.Running + w.Later + w.Parked }

// Event is one event that waits.
type Event struct {
	ID        lambda.RequestID      `json:"request_id"`
	Qualifier lambda.Qualifier      `json:"qualifier,omitempty"`
	State     string                `json:"state"` // due, running, later or parked
	Accepted  time.Time             `json:"accepted"`
	Bytes     int                   `json:"payload_bytes"`
	Invoked   int                   `json:"invoked"` // times that the function's code ran
	Next      time.Time             `json:"next,omitzero"`
	Condition destination.Condition `json:"condition,omitempty"` // how it ended, when somebody is still to be told
	Untold    []lambda.Destination  `json:"untold,omitempty"`    // who
	Error     string                `json:"error,omitempty"`
}

// List returns what waits for the functions in a scope that in accepts, the most first.
// The first lines have details: for each of them an event or two are read.
func (s *Service) List(ctx context.Context, in func(lambda.Scope) bool, details int) ([]Waiting, error) {
	s.mu.Lock()
	list := []Waiting{}
	for arn, l := range s.lanes {
		if w := s.waiting(l); in(arn.Scope) && w.Events() > 0 {
			list = append(list, w)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b Waiting) int {
		return cmp.Or(cmp.Compare(b.Events(), a.Events()), cmp.Compare(a.Account, b.Account), cmp.Compare(a.Region, b.Region), cmp.Compare(a.Name, b.Name))
	})
	for i := range list[:min(details, len(list))] {
		if err := s.detail(ctx, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Find is the line of one function, with details.
func (s *Service) Find(ctx context.Context, arn lambda.FunctionARN) (Waiting, error) {
	w := Waiting{Account: arn.Account, Region: arn.Region, Name: arn.Name}
	s.mu.Lock()
	if l := s.lanes[arn]; l != nil {
		w = s.waiting(l)
	}
	s.mu.Unlock()
	return w, s.detail(ctx, &w)
}

// waiting is a lane's counts. s.mu is held.
func (s *Service) waiting(l *lane) Waiting {
	return Waiting{
		Account: l.arn.Account, Region: l.arn.Region, Name: l.arn.Name,
		Due: l.due, Running: int64(len(l.out)), Later: max(0, s.rest(l).events-l.due), Parked: l.parked.events, Bytes: l.all.bytes,
	}
}

// detail adds what counts do not tell.
func (s *Service) detail(ctx context.Context, w *Waiting) error {
	older := func(t time.Time) {
		if !t.IsZero() && (w.Oldest.IsZero() || t.Before(w.Oldest)) {
			w.Oldest = t
		}
	}
	s.mu.Lock()
	if l := s.lanes[w.arn()]; l != nil {
		older(l.aged.oldest())
		for h := range l.out {
			older(h.accepted)
		}
		w.Next, w.Error = l.agenda.next(), l.problem
	}
	s.mu.Unlock()
	// Of those that were never put off, the first in the lane was accepted first.
	for _, prefix := range []string{lanePrefix, parkedPrefix} {
		first, err := s.queue.Peek(ctx, laneName(prefix, w.arn()), 1)
		if err != nil {
			return fmt.Errorf("look at the oldest event: %w", err)
		}
		for _, p := range first {
			if e, err := decode(p.Event); err == nil {
				older(e.accepted(p.Accepted))
				w.Error = cmp.Or(w.Error, e.Error)
			}
		}
	}
	return nil
}

// Events returns up to n events that wait for a function: those that are due or run, then
// those that were put off, then the parked ones.
func (s *Service) Events(ctx context.Context, arn lambda.FunctionARN, n int) ([]Event, error) {
	list := []Event{}
	for _, prefix := range []string{lanePrefix, parkedPrefix} {
		if n == len(list) {
			break
		}
		waiting, err := s.queue.Peek(ctx, laneName(prefix, arn), n-len(list))
		if err != nil {
			return nil, fmt.Errorf("look at the events: %w", err)
		}
		for _, p := range waiting {
			list = append(list, s.event(arn, prefix, p))
		}
	}
	return list, nil
}

func (s *Service) event(arn lambda.FunctionARN, prefix string, p state.Waiting) Event {
	e, err := decode(p.Event)
	if err != nil {
		return Event{State: "due", Accepted: p.Accepted, Error: err.Error()}
	}
	v := Event{ID: e.ID, Qualifier: e.Qualifier, State: "due", Accepted: e.accepted(p.Accepted), Bytes: len(e.payload), Invoked: e.Invoked, Error: e.Error}
	switch {
	case prefix == parkedPrefix:
		v.State = "parked"
	case !p.NotYet.IsZero():
		v.State, v.Next = "later", p.NotYet
	case s.runs(arn, e.ID):
		v.State = "running"
	}
	if e.Ended != nil {
		v.Condition = e.Ended.Condition
		for _, to := range []lambda.Destination{e.Ended.Record, e.Ended.Letter} {
			if to != "" {
				v.Untold = append(v.Untold, to)
			}
		}
	}
	return v
}

func (s *Service) runs(arn lambda.FunctionARN, id lambda.RequestID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[arn]
	if l == nil {
		return false
	}
	for h := range l.out {
		if h.id == id {
			return true
		}
	}
	return false
}

// visit keeps a function's lane until the end of what is done with it.
func (s *Service) visit(arn lambda.FunctionARN) (l *lane, over func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l = s.lane(arn)
	l.visits++
	return l, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.visits--
		s.tidy(l)
	}
}

// Purged is what Purge dropped.
type Purged struct {
	Waited  int64 `json:"dropped"`        // that were due or put off
	Parked  int64 `json:"dropped_parked"` // whose end could not be told
	Running int64 `json:"running"`        // that run, and end as they end, but are not tried again
}

// Purge drops what waits for a function, or only what is parked. Of what runs meanwhile
// nothing comes back.
func (s *Service) Purge(ctx context.Context, arn lambda.FunctionARN, parkedOnly bool) (p Purged, err error) {
	l, over := s.visit(arn)
	defer over()
	l.still.Lock()
	defer l.still.Unlock()
	dropped, err := s.queue.Purge(ctx, laneName(parkedPrefix, arn))
	s.mu.Lock()
	p.Parked, p.Running = min(int64(dropped), l.parked.events), int64(len(l.out))
	if err == nil {
		s.count(l, -l.parked.events, -l.parked.bytes)
		l.parked = total{}
	}
	s.mu.Unlock()
	if err == nil && !parkedOnly {
		dropped, err = s.queue.Purge(ctx, laneName(lanePrefix, arn))
		p.Waited = max(0, int64(dropped)-p.Running)
	}
	if err != nil {
		return p, fmt.Errorf("drop what waits for %s: %w", arn, err)
	}
	if !parkedOnly {
		s.mu.Lock()
		defer s.mu.Unlock()
		rest := s.rest(l)
		s.count(l, -rest.events, -rest.bytes)
		s.forget(l)
		l.purges++
	}
	return p, nil
}

// Redriven is what Redrive did.
type Redriven struct {
	Events int64 `json:"redriven"`
	Parked int64 `json:"parked"` // that are left
}

// redriveBatch is how many parked events are moved at once: enough for one write of all.
const redriveBatch = 64

// Redrive has up to n parked events of a function told anew, and tried for as long as at
// first. They go where what ends now would go, and where nothing is configured any more
// to where they were to go.
func (s *Service) Redrive(ctx context.Context, arn lambda.FunctionARN, n int) (r Redriven, err error) {
	l, over := s.visit(arn)
	defer over()
	s.mu.Lock()
	left := min(int64(n), l.parked.events) // what is parked again meanwhile is not tried for ever
	s.mu.Unlock()
	for left > 0 && ctx.Err() == nil {
		moved, tried, merr := s.unpark(ctx, l, int(min(left, redriveBatch)))
		r.Events += moved
		if err = merr; err != nil {
			s.recountParked(context.WithoutCancel(ctx), l)
		}
		if err != nil || tried == 0 {
			break
		}
		left -= tried
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Parked = l.parked.events
	return r, cmp.Or(err, context.Cause(ctx))
}

// unpark moves up to n parked events back into the lane.
func (s *Service) unpark(ctx context.Context, l *lane, n int) (moved, tried int64, err error) {
	l.still.RLock()
	defer l.still.RUnlock()
	ctx = context.WithoutCancel(ctx) // what is taken is settled
	taken, err := s.queue.Take(ctx, laneName(parkedPrefix, l.arn), n)
	if err != nil {
		return 0, 0, fmt.Errorf("take parked events of %s: %w", l.arn, err)
	}
	var all sync.WaitGroup
	results := make([]error, len(taken))
	for i, d := range taken {
		all.Go(func() { results[i] = s.unparkOne(ctx, l, d) })
	}
	all.Wait()
	for _, result := range results {
		if result == nil {
			moved++
		}
		err = cmp.Or(err, result)
	}
	return moved, int64(len(taken)), err
}

func (s *Service) unparkOne(ctx context.Context, l *lane, d state.Delivery) error {
	size := int64(len(d.Event()))
	e, err := decode(d.Event())
	if err == nil && e.Ended != nil {
		arn := l.arn.Qualified(e.Qualifier)
		config, _ := s.policy(arn)
		record, letter := s.targets(arn, config, e.Ended.Condition)
		if e.Ended.Record != "" {
			e.Ended.Record = cmp.Or(record, e.Ended.Record)
		}
		if e.Ended.Letter != "" {
			e.Ended.Letter = cmp.Or(letter, e.Ended.Letter)
		}
		e.Ended.Tries, e.Ended.Anew = 0, time.Now().UTC()
	}
	var b []byte
	if err == nil {
		b, err = e.encode()
	}
	if err == nil {
		err = s.queue.Publish(ctx, laneName(lanePrefix, l.arn), b)
	}
	if err != nil {
		s.mu.Lock()
		s.doubt(l, int64(len(b)), comesAgain)
		s.mu.Unlock()
		if berr := d.Retry(ctx, 0, nil); berr != nil {
			s.log.Error("a parked event can be taken again only after a while", "function", l.arn.String(), "error", berr)
		}
		return fmt.Errorf("redrive an event of %s: %w", l.arn, err)
	}
	s.mu.Lock()
	s.count(l, 1, int64(len(b)))
	l.due++
	l.aged.add(e.accepted(d.Accepted()))
	s.line(l)
	s.mu.Unlock()
	if err := d.Ack(ctx); err != nil {
		return fmt.Errorf("redrive an event of %s: it is told anew, and parked all the same: %w", l.arn, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(l, -1, -size)
	l.parked.add(-1, -size)
	return nil
}
