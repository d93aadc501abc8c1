package eventsource_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kiln/internal/front/eventsource"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/lease"
)

var (
	scope = lambda.Scope{Account: "123456789012", Region: "us-east-1"}
	arn   = lambda.MappingARN{Scope: scope, ID: "m"}
)

// memory is a State.
type memory struct {
	mu      sync.Mutex
	records []state.Record // guarded by mu
	last    state.Revision // guarded by mu
}

func (m *memory) All(_ context.Context, prefix string) (list []state.Record, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.records {
		if strings.HasPrefix(r.Key, prefix) {
			list = append(list, r)
		}
	}
	return list, nil
}

func (m *memory) Commit(_ context.Context, changes ...state.Change) (revisions []state.Revision, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		i := slices.IndexFunc(m.records, func(r state.Record) bool { return r.Key == c.Key })
		switch {
		case i < 0 && c.Expect != 0, i >= 0 && m.records[i].Revision != c.Expect:
			return nil, state.ErrConflict
		case i >= 0:
			m.records = slices.Delete(m.records, i, i+1)
		}
		if c.Value == nil {
			revisions = append(revisions, 0)
			continue
		}
		m.last++
		m.records = append(m.records, state.Record{Key: c.Key, Value: c.Value, Revision: m.last})
		revisions = append(revisions, m.last)
	}
	return revisions, nil
}

// positions are the keys of what is remembered of mappings.
func (m *memory) positions() (keys []string) {
	list, _ := m.All(context.Background(), "position.")
	for _, r := range list {
		keys = append(keys, r.Key)
	}
	return keys
}

// rig is pollers with a driver that does what the test says.
type rig struct {
	*eventsource.Pollers
	memory   *memory
	log      bytes.Buffer
	mappings []*lambda.EventSourceMapping
	refused  error // by the role

	mu     sync.Mutex
	poll   func(ctx context.Context, w *eventsource.Work) error // guarded by mu
	sent   []destination.Batch                                  // guarded by mu
	sender func(try int) error
}

func (r *rig) Poll(ctx context.Context, w *eventsource.Work) error {
	r.mu.Lock()
	poll := r.poll
	r.mu.Unlock()
	return poll(ctx, w)
}

func (r *rig) All() []*lambda.EventSourceMapping { return r.mappings }

func (r *rig) Invoke(_ context.Context, _ lambda.FunctionARN, payload []byte, _ string) (lambda.Result, error) {
	return lambda.Result{Payload: payload}, nil
}

func (r *rig) Function(context.Context, lambda.FunctionARN) (*lambda.Function, error) {
	return &lambda.Function{Settings: lambda.Settings{Role: "arn:aws:iam::123456789012:role/r"}}, nil
}

func (r *rig) Authorise(lambda.Principal, string, lambda.ARN) error { return r.refused }

func (r *rig) Acting(*lambda.Function) lambda.Principal { return lambda.Principal{} }

func (r *rig) Batch(_ context.Context, _ lambda.Destination, b destination.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, b)
	return r.sender(len(r.sent))
}

func newRig(mappings ...*lambda.EventSourceMapping) *rig {
	r := &rig{memory: &memory{}, mappings: mappings}
	return r
}

// start runs the pollers until the returned function is called.
func (r *rig) start(t *testing.T) (stop func()) {
	leases := lease.New(r.memory, lease.Config{Node: "n"})
	r.Pollers = eventsource.New(eventsource.Config{
		Sources:  map[lambda.SourceKind]eventsource.Source{lambda.Kinesis: {Driver: r, Actions: []string{"kinesis:GetRecords"}}},
		Mappings: r, Invoker: r, Roles: r, Sender: r, State: r.memory, Leases: leases,
		Endpoint: func(string, string) string { return "" },
		Counter:  func(*lambda.EventSourceMapping) eventsource.Counter { return nil },
		Log:      slog.New(slog.NewTextHandler(&r.log, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { leases.Run(ctx) })
	work.Go(func() { _ = r.Run(ctx) })
	synctest.Wait()
	return func() { cancel(); work.Wait() }
}

func mapping(batch int, st lambda.MappingState) *lambda.EventSourceMapping {
	return &lambda.EventSourceMapping{
		ARN: arn, State: st, Source: lambda.EventSource{Kind: lambda.Kinesis, ARN: "arn:aws:kinesis:us-east-1:123456789012:stream/s"},
		Settings: lambda.MappingSettings{BatchSize: &batch, OnFailure: new("arn:aws:sqs:us-east-1:123456789012:q")},
	}
}

// TestChanges asserts that a mapping has one poller at a time, with the settings of now,
// that ends what it has in hand, and none where it is disabled or gone.
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(mapping(1, lambda.MappingEnabled))
		var running, most int
		var seen []int
		r.poll = func(ctx context.Context, w *eventsource.Work) error {
			r.mu.Lock()
			running++
			most = max(most, running)
			seen = append(seen, *w.Mapping.Settings.BatchSize)
			r.mu.Unlock()
			if err := w.Positions.Save(context.Background(), "shard/1.ü", fmt.Appendf(nil, `{"n":%d}`, len(seen))); err != nil {
				return err
			}
			<-ctx.Done()
			time.Sleep(10 * time.Second) // a batch is with the function
			r.mu.Lock()
			running--
			r.mu.Unlock()
			return nil
		}
		stop := r.start(t)
		for i := 2; i < 6; i++ {
			r.Changed(arn, mapping(i, lambda.MappingEnabled))
			time.Sleep(time.Duration(i*i) * time.Second) // before and after the last one has ended
		}
		time.Sleep(time.Minute)
		r.Changed(arn, mapping(6, lambda.MappingDisabled))
		time.Sleep(time.Minute)
		synctest.Wait()
		if running != 0 || r.Result(arn) != "" {
			t.Errorf("disabled: %d pollers, result %q", running, r.Result(arn))
		}
		r.Changed(arn, mapping(7, lambda.MappingEnabled))
		time.Sleep(time.Minute)
		synctest.Wait()
		if most != 1 || seen[0] != 1 || !slices.IsSorted(seen) || seen[len(seen)-1] != 7 || slices.Contains(seen, 6) {
			t.Errorf("%d pollers at once, of batch sizes %v", most, seen)
		}
		if keys := r.memory.positions(); len(keys) != 1 || keys[0] != "position.123456789012.us-east-1.m.shard_2f1_2e_c3_bc" {
			t.Errorf("positions: %q", keys)
		}
		r.Changed(arn, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if keys := r.memory.positions(); running != 0 || keys != nil {
			t.Errorf("deleted: %d pollers, positions %q", running, keys)
		}
		stop()
	})
}

// TestTrouble asserts that a source that cannot be read is tried again, less and less
// often, that the mapping says why, and the log does once.
func TestTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(mapping(1, lambda.MappingEnabled))
		var tries []time.Time
		r.poll = func(ctx context.Context, w *eventsource.Work) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if tries = append(tries, time.Now()); len(tries) < 10 {
				return errors.New("no such stream")
			}
			w.Tell(eventsource.ResultOK)
			r.mu.Unlock()
			<-ctx.Done()
			r.mu.Lock()
			return nil
		}
		stop := r.start(t)
		if got := r.Result(arn); got != "PROBLEM: no such stream" {
			t.Errorf("result %q", got)
		}
		time.Sleep(10 * time.Minute)
		r.mu.Lock()
		var pauses []time.Duration
		for i := range tries[1:] {
			pauses = append(pauses, tries[i+1].Sub(tries[i]).Round(time.Second)/time.Second)
		}
		r.mu.Unlock()
		if want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}; !slices.Equal(pauses, want) {
			t.Errorf("pauses %d, want %d", pauses, want)
		}
		if got := r.Result(arn); got != eventsource.ResultOK {
			t.Errorf("in the end %q", got)
		}
		stop()
		if n := strings.Count(r.log.String(), "no such stream"); n != 1 {
			t.Errorf("the log says it %d times", n)
		}
	})
}

// TestRole asserts that what the function's role does not allow is not read.
func TestRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(mapping(1, lambda.MappingEnabled))
		r.refused = errors.New("not allowed")
		r.poll = func(context.Context, *eventsource.Work) error { t.Error("it is read"); return nil }
		stop := r.start(t)
		if got, want := r.Result(arn), "PROBLEM: the execution role arn:aws:iam::123456789012:role/r does not allow kinesis:GetRecords on the event source: not allowed"; got != want {
			t.Errorf("result %q, want %q", got, want)
		}
		stop()
	})
}

// TestDiscard asserts that a destination is tried again, for a while.
func TestDiscard(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(try int) error
		want int
		ok   bool
	}{
		{"at once", func(int) error { return nil }, 1, true},
		{"later", func(try int) error {
			if try < 3 {
				return errors.New("busy")
			}
			return nil
		}, 3, true},
		{"never", func(int) error { return errors.New("gone") }, 4, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(mapping(1, lambda.MappingEnabled))
			r.sender = c.send
			ended := make(chan error, 1)
			r.poll = func(ctx context.Context, w *eventsource.Work) error {
				ended <- w.Discard(ctx, eventsource.Failure{Record: []byte("{}")})
				<-ctx.Done()
				return nil
			}
			stop := r.start(t)
			if err := <-ended; (err == nil) != c.ok || len(r.sent) != c.want || r.sent[0].Region != "us-east-1" {
				t.Errorf("%s: %v after %d tries, region %q", c.name, err, len(r.sent), r.sent[0].Region)
			}
			stop()
		})
	}
}

// TestSweep asserts that what is remembered of mappings that are gone goes at the start,
// and another node's writing is noticed.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(mapping(1, lambda.MappingEnabled))
		for _, key := range []string{"position.123456789012.us-east-1.gone.s", "position.123456789012.eu-west-1.m.s"} {
			if _, err := r.memory.Commit(t.Context(), state.Change{Key: key, Value: []byte(`{"Schema":1}`)}); err != nil {
				t.Fatal(err)
			}
		}
		failed := make(chan error, 1)
		r.poll = func(ctx context.Context, w *eventsource.Work) error {
			if err := w.Positions.Save(ctx, "s", []byte("1")); err != nil {
				t.Error(err)
			}
			r.memory.mu.Lock()
			r.memory.last++
			i := slices.IndexFunc(r.memory.records, func(r state.Record) bool { return r.Key == "position.123456789012.us-east-1.m.s" })
			r.memory.records[i].Revision = r.memory.last
			r.memory.mu.Unlock()
			failed <- w.Positions.Save(ctx, "s", []byte("2"))
			<-ctx.Done()
			return nil
		}
		stop := r.start(t)
		if err := <-failed; !errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "another node") {
			t.Errorf("another node wrote: %v", err)
		}
		if keys := r.memory.positions(); len(keys) != 1 || keys[0] != "position.123456789012.us-east-1.m.s" {
			t.Errorf("positions: %q", keys)
		}
		stop()
	})
}
