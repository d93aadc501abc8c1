package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kiln/internal/front/eventsource"
	"kiln/internal/lambda"
)

const (
	// refreshEvery is how often shards are listed, besides when one ends: whoever
	// splits a shard waits that long at most for its children to be noticed.
	refreshEvery = 10 * time.Second
	// maxRequests bounds what a mapping asks its source at once: a table may have
	// thousands of shards.
	maxRequests = 16
	// latestMargin is how far the clocks of Kiln and the source may be apart.
	latestMargin = time.Second
)

// function is what a poll has of eventsource.Work besides its fields.
type function interface {
	Invoke(payload []byte, trace string) (lambda.Result, error)
	Discard(ctx context.Context, f eventsource.Failure) error
	Tell(result string)
}

// poll is one Poll.
type poll struct {
	*eventsource.Work
	settings settings
	function function
	source   source
	backoff  time.Duration
	requests chan struct{} // one for each that is under way
	first    sync.Once     // something was read

	mu     sync.Mutex
	closed map[string]bool // shards that are, as far as is known; guarded by mu
}

// settings are the mapping's, with their defaults.
type settings struct {
	batch    int
	batching time.Duration // how long a batch may wait for more records
	lanes    int           // of a shard
	age      time.Duration // of records; 0: any
	attempts int           // that may fail, after the first; -1: any number
	bisect   bool
	window   time.Duration
	discards bool // there is an on-failure destination
}

func newPoll(backoff time.Duration, from source, w *eventsource.Work, f function) *poll {
	m := w.Mapping.Settings
	value := func(v *int, otherwise int) int {
		if v == nil {
			return otherwise
		}
		return *v
	}
	s := settings{
		batch: value(m.BatchSize, 100), batching: time.Duration(value(m.BatchingWindow, 0)) * time.Second,
		lanes: max(value(m.ParallelizationFactor, 1), 1), age: time.Duration(max(value(m.MaximumRecordAge, -1), 0)) * time.Second,
		attempts: value(m.MaximumRetryAttempts, -1), bisect: m.BisectBatch != nil && *m.BisectBatch,
		window:   time.Duration(value(m.TumblingWindow, 0)) * time.Second,
		discards: m.OnFailure != nil && *m.OnFailure != "",
	}
	if s.window > 0 {
		s.lanes = 1 // a window's state is one of the whole shard
	}
	return &poll{Work: w, settings: s, function: f, source: from, backoff: backoff, requests: make(chan struct{}, maxRequests), closed: map[string]bool{}}
}

// run returns nil once ctx ended, and what was in hand is done.
func (p *poll) run(ctx context.Context) error {
	at, begins, err := p.begin(ctx)
	if err != nil {
		return err
	}
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return p.follow(running, group, at, begins) })
	if err := group.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

// startKey is where the time is kept at which a mapping began that reads what is latest.
const startKey = "start"

// begin returns from where shards are read of which nothing is done. What is LATEST
// is fixed once, so that nothing is missed while Kiln is away: begins says that this is now.
func (p *poll) begin(ctx context.Context) (at place, begins bool, err error) {
	switch s := p.Mapping.Source; s.StartingPosition {
	case "LATEST":
		if at.since, err = time.Parse(time.RFC3339, string(p.Positions.Get(startKey))); err == nil {
			return at, false, nil
		}
		// Whole seconds, as DynamoDB has them.
		at.since = time.Now().Add(-latestMargin).UTC().Truncate(time.Second)
		return at, true, p.Positions.Save(ctx, startKey, []byte(at.since.Format(time.RFC3339)))
	case "AT_TIMESTAMP":
		if s.StartingTime != nil {
			at.since = *s.StartingTime
		}
	}
	return at, false, nil
}

// follow reads each shard once its parents are done.
func (p *poll) follow(ctx context.Context, group *errgroup.Group, at place, begins bool) error {
	ended := make(chan string)
	running := map[string]bool{}
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	for {
		list, err := p.list(ctx)
		switch {
		case errors.Is(err, errSlower):
			list = nil // at the next time
		case err != nil:
			return fmt.Errorf("list the shards of %s: %w", p.Mapping.Source.ARN, err)
		}
		if list != nil {
			listed, err := p.settle(ctx, list, begins, running)
			if err != nil {
				return err
			}
			for _, s := range list {
				if running[s.id] || !p.ready(s, listed) {
					continue
				}
				from := at
				from.latest = begins
				running[s.id] = true
				group.Go(func() error {
					if done, err := p.newRun(s.id, from).run(ctx); err != nil || !done {
						return err
					}
					select {
					case ended <- s.id:
					case <-ctx.Done():
					}
					return nil
				})
			}
			begins = false // what comes from now on is read from its beginning
		}
		select {
		case <-refresh.C:
		case id := <-ended:
			delete(running, id)
		case <-ctx.Done():
			return nil
		}
	}
}

// list returns the shards of the stream, which is never nil.
func (p *poll) list(ctx context.Context) ([]shard, error) {
	var list []shard
	err := p.ask(ctx, func() (err error) {
		list, err = p.source.shards(ctx)
		return err
	})
	if err == nil && list == nil {
		list = []shard{}
	}
	return list, err
}

// settle remembers which shards are closed, and forgets those that are gone. Those that
// were closed when LATEST began have nothing for the mapping.
func (p *poll) settle(ctx context.Context, list []shard, begins bool, running map[string]bool) (listed map[string]bool, err error) {
	listed = map[string]bool{}
	for _, s := range list {
		listed[s.id] = true
		if s.closed && begins && p.Positions.Get(s.id) == nil {
			if err := p.Positions.Save(ctx, s.id, encode(position{End: true})); err != nil {
				return nil, err
			}
		}
	}
	for _, id := range p.Positions.Shards() {
		if listed[id] || running[id] || id == startKey {
			continue
		}
		if !p.position(id).End {
			p.skipped(id, "the shard is gone")
		}
		if err := p.Positions.Save(ctx, id, nil); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.closed)
	for _, s := range list {
		p.closed[s.id] = s.closed
	}
	return listed, nil
}

// ready reports whether a shard can be read: it is not done, and its parents are.
func (p *poll) ready(s shard, listed map[string]bool) bool {
	if p.position(s.id).End {
		return false
	}
	for _, parent := range s.parents {
		if listed[parent] && !p.position(parent).End {
			return false
		}
	}
	return true
}

func (p *poll) isClosed(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed[id]
}

// tellBegun says that the source can be read, which may have been a problem before.
func (p *poll) tellBegun() {
	for _, id := range p.Positions.Shards() {
		if p.position(id).After != "" {
			p.function.Tell(eventsource.ResultOK)
			return
		}
	}
	p.function.Tell(eventsource.ResultNone)
}

// skipped says that records of a shard were lost before they were read.
func (p *poll) skipped(id, why string) {
	p.first.Do(func() {}) // what was told before is of no interest
	p.Log.Warn("records of a shard are skipped: they are not kept any more", "shard", id, "after", p.position(id).After, "cause", why)
	p.function.Tell("PROBLEM: Records of " + id + " were skipped: " + why + ".")
}

// ask has one request made, among few at a time.
func (p *poll) ask(ctx context.Context, request func() error) error {
	select {
	case p.requests <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-p.requests }()
	return request()
}

// position is what is done of a shard.
type position struct {
	After string `json:"after,omitempty"` // it, and all before
	// Lanes are further sequence numbers: all records up to lanes[i] are done whose key
	// is in lane i of so many. The last are those of now; those before them, of other
	// ParallelizationFactors, stay until they are passed.
	Lanes  [][]string `json:"lanes,omitempty"`
	Window *window    `json:"window,omitempty"` // that is open
	End    bool       `json:"end,omitempty"`    // the shard is done
}

// has reports whether a record is done.
func (p *position) has(r *record) bool {
	if compare(r.sequence, p.After) <= 0 {
		return true
	}
	for _, lanes := range p.Lanes {
		if compare(r.sequence, lanes[laneOf(r.key, len(lanes))]) <= 0 {
			return true
		}
	}
	return false
}

// position returns what was saved of a shard.
func (p *poll) position(id string) (at position) {
	if saved := p.Positions.Get(id); saved != nil {
		if err := json.Unmarshal(saved, &at); err != nil { // nobody else writes there
			p.Log.Error("a position cannot be read: the shard is read anew", "shard", id, "error", err)
			return position{}
		}
	}
	return at
}

func encode(at position) []byte {
	b, err := json.Marshal(at)
	if err != nil {
		panic(err) // it holds valid JSON
	}
	return b
}

// pause waits, and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
