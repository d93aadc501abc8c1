package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
	"kiln/internal/state/powerloss"
)

// ledger is what the world outside knows of events.
type ledger struct {
	mu       sync.Mutex
	accepted map[string]bool // guarded by mu
	settled  map[string]bool // guarded by mu; an acknowledgement was sent, so that it may be gone
	acked    map[string]bool // guarded by mu; and answered
	failed   error           // guarded by mu; the first that a publisher got
}

func (l *ledger) note(of map[string]bool, event string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of[event] = true
}

// work publishes and handles events until that fails, and calls each when one is accepted.
func (l *ledger) work(t *testing.T, e *jetstream.Engine, round, publishers int, each func(n int)) {
	ctx, stop := context.WithCancel(context.Background())
	var handling, publishing sync.WaitGroup
	handling.Go(func() {
		// One in three is handled, one in three put off, and one is handed back by the end.
		_ = handle(ctx, e.Queue(), subject, 4, func(ctx context.Context, d state.Delivery) {
			id := string(d.Event())
			switch rand.N(3) {
			case 0:
				l.note(l.settled, id)
				if d.Ack(ctx) == nil {
					l.note(l.acked, id)
				}
			case 1:
				_ = d.Retry(ctx, time.Duration(1+rand.N(int64(50*time.Millisecond))), nil)
			default:
				_ = d.Retry(ctx, 0, []byte(id))
			}
		})
	})
	accepted := make(chan struct{}, publishers)
	for p := range publishers {
		publishing.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", round, p, i)
				if err := e.Queue().Publish(ctx, subject, []byte(id)); err != nil {
					l.mu.Lock()
					if l.failed == nil {
						l.failed = err
					}
					l.mu.Unlock()
					return
				}
				l.note(l.accepted, id)
				accepted <- struct{}{}
			}
		})
	}
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		n := 0
		for range accepted {
			n++
			each(n)
		}
	}()
	publishing.Wait()
	close(accepted)
	<-counted
	stop()
	handling.Wait()
}

// check compares what waits with the ledger.
func (l *ledger) check(t *testing.T, e *jetstream.Engine) (duplicates int) {
	t.Helper()
	there := map[string]int{}
	// Twice: an event that becomes due between two looks at one and the other kind is
	// in neither, and then is.
	for range 2 {
		list, err := e.Queue().Peek(context.Background(), subject, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		now := map[string]int{}
		for _, w := range list {
			now[string(w.Event)]++
		}
		for id, n := range now {
			there[id] = max(there[id], n)
		}
	}
	for id := range l.accepted {
		if there[id] == 0 && !l.settled[id] {
			t.Errorf("%s was accepted and is lost", id)
		}
	}
	for id, n := range there {
		if l.acked[id] {
			duplicates++
		}
		duplicates += n - 1
	}
	return duplicates
}

// TestPowerLoss cuts the power at random moments, over and over: what was accepted is
// there afterwards.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	rounds := 30
	if testing.Short() {
		rounds = 6
	}
	seed := rand.Uint64()
	disk := powerloss.New(seed)
	l := &ledger{accepted: map[string]bool{}, settled: map[string]bool{}, acked: map[string]bool{}}
	duplicates := 0
	for round := range rounds {
		dir, unmount := powerloss.Mount(t, disk)
		var log recorder
		e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1", Log: logTo(&log)})
		if err := e.Open(context.Background()); err != nil {
			t.Fatalf("seed %d, round %d: %v\n%s", seed, round, err, log.String())
		}
		duplicates += l.check(t, e)
		if strings.Contains(log.String(), "ERROR") {
			t.Errorf("seed %d, round %d: a power cut looks like damage:\n%s", seed, round, log.String())
		}
		if t.Failed() {
			_ = e.Close()
			t.Fatalf("seed %d, round %d", seed, round)
		}
		enough := 1 + rand.N(150)
		l.work(t, e, round, []int{1, 4, 40}[round%3], func(n int) {
			if n == enough {
				disk.Cut(round%2 == 1)
			}
		})
		_ = e.Close() // it has nothing to write on
		unmount()
		disk.On()
	}
	dir, _ := powerloss.Mount(t, disk)
	e := openWith(t, jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
	duplicates += l.check(t, e)
	t.Logf("%d power cuts: %d accepted, %d handled, %d came again", rounds, len(l.accepted), len(l.acked), duplicates)
}

// A disk that is full, fails or refuses writes: publishers are told, nothing that was
// accepted is lost, and all goes on once the disk is well and the engine open again.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	rounds := 4
	if testing.Short() {
		rounds = 1
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			disk := powerloss.New(rand.Uint64())
			dir, _ := powerloss.Mount(t, disk)
			l := &ledger{accepted: map[string]bool{}, settled: map[string]bool{}, acked: map[string]bool{}}
			for round := range rounds * 3 {
				e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
				if err := e.Open(context.Background()); err != nil {
					t.Fatal(err)
				}
				l.check(t, e)
				enough := 1 + rand.N(50)
				l.failed = nil
				l.work(t, e, round, []int{1, 4, 40}[round%3], func(n int) {
					if n == enough {
						disk.Fail(errno, 1+rand.N(20))
					}
				})
				t.Logf("a publisher is told: %v", l.failed)
				if !strings.Contains(l.failed.Error(), errno.Error()) || errors.Is(l.failed, state.ErrFull) != (errno == syscall.ENOSPC) {
					t.Errorf("a publisher is told: %v", l.failed)
				}
				<-e.Broken()
				_ = e.Close()
				disk.Fail(0, 0)
			}
			e := openWith(t, jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
			l.check(t, e)
			publish(t, e.Queue(), subject, "all is well")
		})
	}
}
