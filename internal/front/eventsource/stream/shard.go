package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// saveEvery is how often progress is saved that no batch saves: of records that
	// filters leave out.
	saveEvery = time.Second
	// slowDown is the pause after a source said that it is read too often.
	slowDown = time.Second
)

// shardRun reads one shard. Each lane has at most one piece of what was read waiting,
// besides those that it works on: so two pages and what is in batches are in memory.
type shardRun struct {
	*poll
	id    string
	begin place // where nothing of it is done
	lanes []*lane

	mu      sync.Mutex
	read    string    // the last record that was given to its lane, or that no lane gets; guarded by mu
	old     position  // what was done before; guarded by mu
	window  *window   // that is open; changed by its lane alone, with mu
	saved   string    // what was saved last; guarded by mu
	savedAt time.Time // guarded by mu
}

func (p *poll) newRun(id string, begin place) *shardRun {
	s := &shardRun{poll: p, id: id, begin: begin, old: p.position(id), saved: string(p.Positions.Get(id))}
	s.window = s.old.Window
	if s.settings.window == 0 {
		s.window = nil // there are none any more
	}
	s.read = s.old.After
	for i := range s.settings.lanes {
		s.lanes = append(s.lanes, &lane{shardRun: s, index: i, in: make(chan piece, 1), done: s.read})
	}
	return s
}

// run returns whether the shard is done, and that is remembered; else ctx ended.
func (s *shardRun) run(ctx context.Context) (done bool, err error) {
	group, running := errgroup.WithContext(ctx)
	for _, l := range s.lanes {
		group.Go(func() error { return l.run(running) })
	}
	ended := false
	group.Go(func() (err error) {
		ended, err = s.readAll(running)
		if ended {
			for _, l := range s.lanes {
				close(l.in)
			}
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ended && ctx.Err() == nil {
		return true, s.Positions.Save(ctx, s.id, encode(position{End: true}))
	}
	return false, s.save(context.WithoutCancel(ctx))
}

// readAll gives the records to the lanes until the shard ends, and reports that.
func (s *shardRun) readAll(ctx context.Context) (ended bool, err error) {
	iterator, at, since := "", cmp.Or(place{after: s.read}, s.begin), s.begin.since
	if s.begin.latest {
		since = time.Time{} // nothing older comes
	}
	for ctx.Err() == nil {
		closed := s.isClosed(s.id)
		asked := time.Now()
		var p page
		err := s.ask(ctx, func() (err error) {
			if iterator == "" {
				if iterator, err = s.source.iterator(ctx, s.id, at); err != nil {
					return err
				}
			}
			p, err = s.source.read(ctx, s.id, iterator)
			return err
		})
		switch {
		case ctx.Err() != nil:
			return false, nil
		case errors.Is(err, errSlower):
			pause(ctx, slowDown)
			continue
		case errors.Is(err, errExpired):
			iterator = ""
			if at.latest { // what came since is not to be missed
				at.latest, since = false, at.since
			}
			continue
		case errors.Is(err, errTrimmed) && at != place{}:
			s.skipped(s.id, "the stream does not keep them any more")
			iterator, at = "", place{}
			continue
		case err != nil:
			return false, fmt.Errorf("read %s of %s: %w", s.id, s.Mapping.Source.ARN, err)
		}
		if err := s.take(ctx, p, since, asked); err != nil {
			return false, err
		}
		s.first.Do(s.tellBegun)
		if iterator = p.next; iterator == "" || closed && len(p.records) == 0 && !p.behind {
			return true, nil
		}
		s.mu.Lock()
		if s.read != "" {
			at = place{after: s.read}
		}
		s.mu.Unlock()
		switch {
		case !p.behind:
			pause(ctx, s.source.interval())
		case len(p.records) == 0: // a gap
			pause(ctx, s.source.interval()/5)
		}
	}
	return false, nil
}

// take gives a page to the lanes, of which it may have none. What arrived before since
// is not wanted.
func (s *shardRun) take(ctx context.Context, p page, since, asked time.Time) error {
	s.Counter.Polled(len(p.records))
	pieces := make([]piece, len(s.lanes))
	filtered := 0
	s.mu.Lock()
	for _, r := range p.records {
		switch {
		case s.old.has(&r) || r.arrived.Before(since):
		case s.Filter != nil && !s.Filter.Match(r.view):
			filtered++
		default:
			l := s.lanes[laneOf(r.key, len(s.lanes))]
			if l.pending == 0 {
				l.done = s.read
			}
			l.pending++
			r.view = nil
			pieces[l.index].records = append(pieces[l.index].records, r)
		}
		s.read = r.sequence
	}
	var err error
	if s.settled() && time.Since(s.savedAt) >= saveEvery {
		err = s.save(context.WithoutCancel(ctx))
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if filtered > 0 {
		s.Counter.FilteredOut(filtered)
	}
	for i, l := range s.lanes {
		pc := pieces[i]
		if !p.behind && s.settings.window > 0 {
			pc.until = asked
		}
		if len(pc.records) == 0 && pc.until.IsZero() {
			continue
		}
		select {
		case l.in <- pc:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// settled reports whether no lane has anything in hand. mu is held.
func (s *shardRun) settled() bool {
	return !slices.ContainsFunc(s.lanes, func(l *lane) bool { return l.pending > 0 })
}

// save makes progress durable, if there is any. mu is held, so that what is older is
// never saved over what is newer.
func (s *shardRun) save(ctx context.Context) error {
	at := position{Window: s.window}
	now := make([]string, len(s.lanes))
	for i, l := range s.lanes {
		if now[i] = l.done; l.pending == 0 {
			now[i] = s.read
		}
	}
	for _, lanes := range s.old.Lanes {
		if len(lanes) == len(now) {
			for i := range now {
				now[i] = slices.MaxFunc([]string{now[i], lanes[i]}, compare)
			}
		}
	}
	at.After = slices.MinFunc(now, compare)
	for _, lanes := range append(slices.DeleteFunc(slices.Clone(s.old.Lanes), func(l []string) bool { return len(l) == len(now) }), now) {
		if compare(slices.MaxFunc(lanes, compare), at.After) > 0 {
			at.Lanes = append(at.Lanes, lanes)
		}
	}
	b := encode(at)
	if string(b) == s.saved || string(b) == "{}" {
		return nil
	}
	if err := s.Positions.Save(ctx, s.id, b); err != nil {
		return err
	}
	s.saved, s.savedAt = string(b), time.Now()
	return nil
}
