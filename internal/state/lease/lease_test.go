package lease_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/lease"
)

// memory is a State whose writes may fail.
type memory struct {
	mu      sync.Mutex
	records []state.Record
	last    state.Revision
	writes  int
}

func (m *memory) written() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

// view is how one node sees it.
type view struct {
	*memory
	mu     sync.Mutex
	broken bool
}

func (v *view) fail(broken bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.broken = broken
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

func (v *view) Commit(_ context.Context, changes ...state.Change) ([]state.Revision, error) {
	v.mu.Lock()
	broken := v.broken
	v.mu.Unlock()
	if broken {
		return nil, errors.New("no way to the disk")
	}
	m := v.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	c := changes[0]
	i := slices.IndexFunc(m.records, func(r state.Record) bool { return r.Key == c.Key })
	switch {
	case i < 0 && c.Expect != 0, i >= 0 && m.records[i].Revision != c.Expect:
		return nil, state.ErrConflict
	case i >= 0:
		m.records = slices.Delete(m.records, i, i+1)
	}
	m.writes++
	if c.Value == nil {
		return []state.Revision{0}, nil
	}
	m.last++
	m.records = append(m.records, state.Record{Key: c.Key, Value: c.Value, Revision: m.last})
	return []state.Revision{m.last}, nil
}

var scope = lambda.Scope{Account: "123456789012", Region: "us-east-1"}

// node is one of those that share the memory.
type node struct {
	*lease.Leases
	view *view
	stop context.CancelFunc
}

func start(t *testing.T, m *memory, name string) *node {
	n := &node{view: &view{memory: m}}
	n.Leases = lease.New(n.view, lease.Config{Node: name})
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() { n.Run(ctx) })
	n.stop = func() { cancel(); ended.Wait() }
	return n
}

// work is held by a node in the background; it ends with the returned function.
func (n *node) work(t *testing.T, name string, begun *[]string, mu *sync.Mutex) (end func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		result <- n.Hold(ctx, scope, name, func(ctx context.Context) error {
			mu.Lock()
			*begun = append(*begun, name)
			mu.Unlock()
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	return func() error { cancel(); return <-result }
}

// TestHold asserts that work is one node's until that gives it back, dies, or cannot
// show that it lives.
func TestHold(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(n *node, end func() error) error
		// within is how long the other node may wait.
		within time.Duration
		want   error
	}{
		{"given back", func(n *node, end func() error) error { err := end(); n.stop(); return err }, 6 * time.Second, context.Canceled},
		{"killed", func(n *node, end func() error) error { n.view.fail(true); n.stop(); return end() }, 40 * time.Second, context.Canceled},
		{"cut off", func(n *node, _ func() error) error { n.view.fail(true); return nil }, 40 * time.Second, lease.ErrLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				a, b := start(t, m, "a"), start(t, m, "b")
				defer a.stop()
				defer b.stop()
				var mu sync.Mutex
				var first, second []string
				endA := a.work(t, "x", &first, &mu)
				synctest.Wait()
				endB := b.work(t, "x", &second, &mu)
				time.Sleep(10 * time.Minute)
				mu.Lock()
				if len(first) != 1 || len(second) != 0 {
					t.Fatalf("a began %v, b %v", first, second)
				}
				mu.Unlock()
				began := time.Now()
				err := c.end(a, endA)
				overlap := false
				for !overlap && time.Since(began) < c.within {
					time.Sleep(time.Second)
					mu.Lock()
					overlap = len(second) == 1
					mu.Unlock()
				}
				if !overlap {
					t.Fatalf("b has nothing after %v", time.Since(began))
				}
				if c.want == lease.ErrLost {
					err = endA()
				}
				if !errors.Is(err, c.want) {
					t.Errorf("a ended with %v, want %v", err, c.want)
				}
				if err := endB(); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

// TestLost asserts that a node that is cut off ends its work before another begins it.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		a, b := start(t, m, "a"), start(t, m, "b")
		defer a.stop()
		defer b.stop()
		var mu sync.Mutex
		owners := 0
		worst := 0
		hold := func(n *node) func() {
			ctx, cancel := context.WithCancel(t.Context())
			var ended sync.WaitGroup
			ended.Go(func() {
				for ctx.Err() == nil {
					_ = n.Hold(ctx, scope, "x", func(ctx context.Context) error {
						mu.Lock()
						owners++
						worst = max(worst, owners)
						mu.Unlock()
						<-ctx.Done()
						mu.Lock()
						owners--
						mu.Unlock()
						return nil
					})
					time.Sleep(time.Second)
				}
			})
			return func() { cancel(); ended.Wait() }
		}
		endA, endB := hold(a), hold(b)
		taken := 0
		for i := range 40 {
			time.Sleep(time.Duration(7+i*13%50) * time.Second)
			a.view.fail(i%4 == 1)
			b.view.fail(i%4 == 3)
			mu.Lock()
			taken += owners
			mu.Unlock()
		}
		endA()
		endB()
		if worst != 1 || taken < 20 {
			t.Errorf("%d nodes had the work at once; in %d of 40 looks one had it", worst, taken)
		}
	})
}

// TestIdle asserts that a node that owns nothing writes nothing, and one that owns much
// no more than one that owns little.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		a := start(t, m, "a")
		defer a.stop()
		time.Sleep(time.Hour)
		if n := m.written(); n != 0 {
			t.Errorf("%d writes of a node that owns nothing", n)
		}
		var mu sync.Mutex
		var begun []string
		var ends []func() error
		for _, name := range []string{"x", "y", "z"} {
			ends = append(ends, a.work(t, name, &begun, &mu))
		}
		synctest.Wait()
		before := m.written()
		time.Sleep(time.Minute)
		if n := m.written() - before; n < 11 || n > 13 {
			t.Errorf("%d writes in a minute, want 12", n)
		}
		for _, end := range ends {
			_ = end()
		}
		if len(m.records) != 1 {
			t.Errorf("%d records are left, want the node's", len(m.records))
		}
	})
}
