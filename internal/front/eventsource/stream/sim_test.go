package stream

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kiln/internal/front/eventsource"
	"kiln/internal/lambda"
)

// world is a stream, a function, and a disk, in which things go wrong: at some step, the
// process that polls is gone, before or after what the step does.
type world struct {
	t   *testing.T
	mu  sync.Mutex // all below
	rnd *rand.Rand

	shards []*worldShard
	last   int            // sequence number
	next   map[string]int // of each key, the number of its next record
	disk   map[string][]byte

	crashIn int // steps; 0: never
	crashed bool
	crash   context.CancelFunc

	now  worldConfig
	calm bool // nothing goes wrong any more

	done  map[string]map[int]bool // by key and number: succeeded, given up or filtered
	due   map[string]int          // by key: the first number that is not done
	again map[string]bool         // sequence numbers of what is done, but not on disk when this run began
}

type worldConfig struct {
	batch, lanes, attempts int
	bisect, partial        bool
}

type worldShard struct {
	id       string
	from, to int // of slots
	parents  []string
	closed   bool
	records  []record
}

const slots = 12 // each key is one

var errCrash = errors.New("the process is gone")

// step is between two things that a poll does. It fails once the process is gone.
func (w *world) step() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.crashIn > 0 {
		if w.crashIn--; w.crashIn == 0 {
			w.crashed = true
			w.crash()
		}
	}
	if w.crashed {
		return errCrash
	}
	return nil
}

func (w *world) odds(n int) bool { return !w.calm && w.rnd.IntN(n) == 0 }

// put writes a record. Some are not wanted by the filter, some are never taken.
func (w *world) put() {
	w.mu.Lock()
	defer w.mu.Unlock()
	slot := w.rnd.IntN(slots)
	key := fmt.Sprint("key", slot)
	for _, s := range w.shards {
		if s.closed || slot < s.from || slot >= s.to {
			continue
		}
		w.last += 1 + w.rnd.IntN(3)
		n := w.next[key]
		w.next[key]++
		r := record{sequence: strconv.Itoa(w.last), key: key, arrived: time.Now()}
		kind := "good"
		switch w.rnd.IntN(12) {
		case 0:
			kind = "unwanted"
		case 1:
			kind = "poison"
		}
		r.event = fmt.Appendf(nil, `{"key":%q,"n":%d,"sequence":%q,"shard":%q,"kind":%q}`, key, n, r.sequence, s.id, kind)
		r.view = r.event
		s.records = append(s.records, r)
		if kind == "unwanted" {
			w.complete(key, n)
		}
	}
}

func (w *world) complete(key string, n int) {
	if w.done[key] == nil {
		w.done[key] = map[int]bool{}
	}
	w.done[key][n] = true
	for w.done[key][w.due[key]] {
		w.due[key]++
	}
}

// reshard splits a shard or merges two.
func (w *world) reshard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	open := slices.DeleteFunc(slices.Clone(w.shards), func(s *worldShard) bool { return s.closed })
	add := func(from, to int, parents ...*worldShard) {
		child := &worldShard{id: fmt.Sprintf("shard-%03d", len(w.shards)), from: from, to: to}
		for _, p := range parents {
			p.closed = true
			child.parents = append(child.parents, p.id)
		}
		w.shards = append(w.shards, child)
	}
	s := open[w.rnd.IntN(len(open))]
	if w.rnd.IntN(2) == 0 && s.to-s.from > 1 {
		middle := s.from + 1 + w.rnd.IntN(s.to-s.from-1)
		add(s.from, middle, s)
		add(middle, s.to, s)
		return
	}
	for _, other := range open {
		if other.from == s.to {
			add(s.from, other.to, s, other)
			return
		}
	}
}

func (w *world) finished() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(slices.Collect(maps.Keys(w.next)), func(k string) bool { return w.due[k] < w.next[k] })
}

// As a source.

func (w *world) interval() time.Duration { return time.Second }
func (w *world) batch() (string, string) { return "Batch", time.RFC3339 }
func (w *world) list(id string) *worldShard {
	return w.shards[slices.IndexFunc(w.shards, func(s *worldShard) bool { return s.id == id })]
}

func (w *world) shardsNow() (list []shard) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.shards {
		list = append(list, shard{id: s.id, parents: s.parents, closed: s.closed})
	}
	return list
}

type worldSource struct{ *world }

func (w worldSource) shards(context.Context) ([]shard, error) {
	return w.shardsNow(), w.step()
}

// An iterator is a sequence number that was read before.
func (w worldSource) iterator(_ context.Context, _ string, at place) (string, error) {
	if at.latest || !at.since.IsZero() {
		w.t.Error("an iterator of another kind")
	}
	return "i" + at.after, w.step()
}

func (w worldSource) read(_ context.Context, id, iterator string) (p page, err error) {
	if err := w.step(); err != nil {
		return p, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.odds(30):
		return p, errSlower
	case w.odds(30):
		return p, errExpired
	}
	s, limit := w.list(id), 1+w.rnd.IntN(20)
	p.next = iterator
	for _, r := range s.records {
		if compare(r.sequence, iterator[1:]) <= 0 {
			continue
		}
		if len(p.records) == limit {
			p.behind = true
			break
		}
		p.records = append(p.records, r)
		p.next = "i" + r.sequence
	}
	if s.closed && !p.behind {
		p.next = ""
	}
	return p, nil
}

// As positions.

func (w *world) Get(shard string) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.disk[shard]
}

func (w *world) Shards() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.disk))
}

func (w *world) Save(_ context.Context, shard string, value []byte) error {
	if err := w.step(); err != nil {
		return err
	}
	w.mu.Lock()
	if w.disk[shard] = value; value == nil {
		delete(w.disk, shard)
	}
	w.mu.Unlock()
	return w.step()
}

// As a filter.

func (w *world) Match(view []byte) bool { return !strings.Contains(string(view), "unwanted") }

// As the function.

type worldRecord struct {
	Key, Sequence, Shard, Kind string
	N                          int
}

func (w *world) Invoke(event []byte, _ string) (r lambda.Result, err error) {
	if err := w.step(); err != nil {
		return r, err
	}
	w.mu.Lock()
	takes := time.Duration(w.rnd.IntN(400)) * time.Millisecond
	w.mu.Unlock()
	time.Sleep(takes)
	r, err = w.invoke(event)
	if err := w.step(); err != nil {
		return r, err
	}
	return r, err
}

func (w *world) invoke(event []byte) (r lambda.Result, err error) {
	var e struct{ Records []worldRecord }
	if err := json.Unmarshal(event, &e); err != nil {
		w.t.Errorf("the event is no JSON: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.crashed {
		return r, errCrash
	}
	if len(e.Records) == 0 || len(e.Records) > w.now.batch {
		w.t.Errorf("a batch of %d", len(e.Records))
	}
	if w.odds(6) {
		return r, lambda.Throttled("")
	}
	// Each key's records are in order, and none before them is missing.
	due := maps.Clone(w.due)
	poison := -1
	for i, x := range e.Records {
		switch {
		case x.Kind == "unwanted":
			w.t.Errorf("%s %d is not wanted", x.Key, x.N)
		case x.Kind == "poison" && poison < 0:
			poison = i
		}
		if x.N > due[x.Key] {
			w.t.Errorf("%s %d comes before %d", x.Key, x.N, due[x.Key])
		}
		if w.done[x.Key][x.N] {
			if !w.again[x.Sequence] {
				w.t.Errorf("%s %d comes again", x.Key, x.N)
			}
		}
		for due[x.Key] = max(due[x.Key], x.N+1); w.done[x.Key][due[x.Key]]; {
			due[x.Key]++
		}
	}
	if poison < 0 && w.odds(6) {
		poison = w.rnd.IntN(len(e.Records))
	}
	ok := len(e.Records)
	if poison >= 0 && w.now.attempts >= 0 || poison >= 0 && e.Records[poison].Kind == "good" {
		ok = 0
		r.FunctionError, r.Payload = "Unhandled", []byte(`{"errorMessage":"no"}`)
		if w.now.partial && !w.odds(4) {
			ok = poison
			r.FunctionError, r.Payload = "", fmt.Appendf(nil, `{"batchItemFailures":[{"itemIdentifier":%q}]}`, e.Records[poison].Sequence)
		}
	}
	for _, x := range e.Records[:ok] {
		w.complete(x.Key, x.N)
	}
	return r, nil
}

func (w *world) Discard(_ context.Context, f eventsource.Failure) error {
	if err := w.step(); err != nil {
		return err
	}
	w.mu.Lock()
	var o struct {
		Payload struct{ Records []worldRecord }
	}
	if err := json.Unmarshal(f.Object, &o); err != nil {
		w.t.Errorf("the object is no JSON: %v", err)
	}
	for _, x := range o.Payload.Records {
		w.complete(x.Key, x.N)
	}
	w.mu.Unlock()
	return w.step()
}

func (w *world) Tell(string) {}

// counter counts nothing.
type counter struct{}

func (counter) Polled(int)                {}
func (counter) FilteredOut(int)           {}
func (counter) Invoked(int)               {}
func (counter) Failed(int)                {}
func (counter) Deleted(int)               {}
func (counter) Dropped(int)               {}
func (counter) Delivered(int)             {}
func (counter) IteratorAge(time.Duration) {}
func (counter) DestinationFailed()        {}

// run polls until ctx ends or the process is gone.
func (w *world) run(ctx context.Context, c worldConfig, crashIn int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.now, w.crashIn, w.crashed, w.crash = c, crashIn, false, cancel
	w.mu.Unlock()
	to := "arn:aws:sqs:us-east-1:000000000000:failures"
	m := &lambda.EventSourceMapping{Settings: lambda.MappingSettings{
		BatchSize: &c.batch, ParallelizationFactor: &c.lanes, MaximumRetryAttempts: &c.attempts, BisectBatch: &c.bisect, OnFailure: &to,
	}}
	if c.partial {
		m.Settings.ResponseTypes = []string{"ReportBatchItemFailures"}
	}
	work := &eventsource.Work{Mapping: m, Filter: w, Positions: w, Counter: counter{}, Log: slog.New(slog.DiscardHandler)}
	for ctx.Err() == nil {
		if err := newPoll(firstBackoff, worldSource{w}, work, w).run(ctx); err != nil && !errors.Is(err, errCrash) {
			w.t.Errorf("the poll ended: %v", err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check()
}

// check looks at what a run left on disk: what was done in it, and is not there, is at
// most the batch that each lane had in hand, and nothing where it was not killed.
func (w *world) check() {
	lost := map[string]int{}
	for _, s := range w.shards {
		var at position
		if saved := w.disk[s.id]; saved != nil {
			if err := json.Unmarshal(saved, &at); err != nil {
				w.t.Error(err)
			}
		}
		for _, r := range s.records {
			var x worldRecord
			_ = json.Unmarshal(r.event, &x)
			switch {
			case at.End || at.has(&r):
				if !w.done[x.Key][x.N] {
					w.t.Errorf("%s %d counts as done, and is not", x.Key, x.N)
				}
			case w.done[x.Key][x.N] && !w.again[x.Sequence] && x.Kind != "unwanted":
				w.again[x.Sequence] = true
				lane := fmt.Sprint(s.id, " lane ", laneOf(r.key, w.now.lanes))
				if lost[lane]++; !w.crashed || lost[lane] > w.now.batch {
					w.t.Errorf("%d records of %s would come again; the batch is %d, killed: %v", lost[lane], lane, w.now.batch, w.crashed)
				}
			}
		}
	}
}

// TestNothingIsLost has a stream resharded, a function fail, and the poller stopped,
// changed and killed: the order of each key holds, nothing is left out, and only what a
// killed process had in hand comes again, at most one batch of each lane.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	for seed := range uint64(*worlds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { runWorld(t, seed) }) })
	}
}

// A change of the engine is worth some thousands.
var worlds = flag.Int("worlds", 60, "how many worlds TestNothingIsLost tries")

func runWorld(t *testing.T, seed uint64) {
	rnd, writes := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 2)), next: map[string]int{}, disk: map[string][]byte{}, done: map[string]map[int]bool{}, due: map[string]int{}, again: map[string]bool{},
		shards: []*worldShard{{id: "shard-000", from: 0, to: slots / 2}, {id: "shard-001", from: slots / 2, to: slots}},
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		for range 150 {
			w.put()
			if writes.IntN(25) == 0 {
				w.reshard()
			}
			if writes.IntN(4) == 0 {
				time.Sleep(time.Duration(writes.IntN(2000)) * time.Millisecond)
			}
		}
	})
	config := func() worldConfig {
		return worldConfig{batch: 1 + rnd.IntN(8), lanes: 1 + rnd.IntN(4), attempts: rnd.IntN(4) - 1, bisect: rnd.IntN(2) == 0, partial: rnd.IntN(2) == 0}
	}
	for range rnd.IntN(8) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(60))*time.Second)
		crashIn := 0
		if rnd.IntN(3) > 0 {
			crashIn = 1 + rnd.IntN(120)
		}
		w.run(ctx, config(), crashIn)
		cancel()
	}
	writer.Wait()
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var watch sync.WaitGroup
	watch.Go(func() {
		for !w.finished() && pause(ctx, time.Second) {
		}
		cancel()
	})
	w.run(ctx, config(), 0)
	watch.Wait()
	if !w.finished() {
		t.Errorf("after an hour, not all is done: %v of %v", w.due, w.next)
	}
}
