package first_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kiln/internal/sandbox/first"
)

// TestPool has a crowd ask for more than wait, then a smaller one, then nobody.
func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 100 * time.Millisecond
		var alive, started atomic.Int64
		p := first.NewPool(2, 10, delay,
			func() (*int, error) { alive.Add(1); started.Add(1); return new(int), nil },
			func(*int) { alive.Add(-1) })
		take := func(n int) (got int) {
			for range n {
				if p.Take() != nil {
					alive.Add(-1) // a sandbox's now
					got++
				}
			}
			return got
		}
		want := func(when string, n int64) {
			t.Helper()
			synctest.Wait()
			if got := alive.Load(); got != n || p.Waiting() != int(n) {
				t.Errorf("%s: %d wait and %d are told, want %d", when, got, p.Waiting(), n)
			}
		}
		want("at first", 2)
		if got := take(7); got != 2 {
			t.Errorf("a crowd got %d, want 2", got)
		}
		want("at once", 0)
		time.Sleep(delay)
		want("after a crowd of 7", 7)
		if got := take(30); got != 7 {
			t.Errorf("a larger crowd got %d, want 7", got)
		}
		time.Sleep(delay)
		want("after a crowd of 30", 10)
		time.Sleep(first.Idle - time.Second)
		take(5)
		time.Sleep(delay)
		want("after five", 10)
		time.Sleep(first.Idle - time.Second)
		take(1) // for which the least would do
		time.Sleep(delay)
		want("after one", 10)
		time.Sleep(time.Second)
		want("a minute after five", 2)
		p.Close()
		want("at the end", 0)
	})
}
