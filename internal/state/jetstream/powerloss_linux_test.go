package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
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
	rounds := rounds(t, 9)
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
// accepted is lost, and all goes on by itself once the disk is well.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			disk := powerloss.New(rand.Uint64())
			dir, _ := powerloss.Mount(t, disk)
			e := openWith(t, jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
			l := &ledger{accepted: map[string]bool{}, settled: map[string]bool{}, acked: map[string]bool{}}
			for round := range rounds {
				held := takeThree(t, e.Queue())
				enough := 1 + rand.N(50)
				l.failed = nil
				l.work(t, e, round, []int{1, 4, 40}[round%3], func(n int) {
					if n == enough {
						disk.Fail(errno, 1+rand.N(20))
					}
				})
				t.Logf("a publisher is told: %v", l.failed)
				if !strings.Contains(l.failed.Error(), errno.Error()) || errors.Is(l.failed, state.ErrFull) != (errno == syscall.ENOSPC) || !errors.Is(l.failed, state.ErrBroken) {
					t.Errorf("a publisher is told: %v", l.failed)
				}
				if err := e.Err(); !errors.Is(err, state.ErrBroken) {
					t.Errorf("the engine says %v", err)
				}
				if _, err := e.State().Commit(ctx, state.Change{Key: "k", Value: []byte("v")}); !errors.Is(err, state.ErrBroken) || errors.Is(err, state.ErrUnknown) {
					t.Errorf("a commit on the failing disk: %v", err)
				}
				if taken, err := e.Queue().Take(ctx, subject, 1); !errors.Is(err, state.ErrBroken) {
					t.Errorf("taken on the failing disk: %v, %v", taken, err)
				}
				disk.Fail(0, 0)
				heals(t, e)
				held.check(t, e.Queue())
				l.check(t, e)
				commit(t, e.State(), state.Change{Key: fmt.Sprint("k.", round), Value: []byte("v")})
				publish(t, e.Queue(), subject, "all is well")
			}
			closeEngine(t, e)
			l.check(t, openWith(t, jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)}))
		})
	}
}

// A disk that takes writes again and is below its floor of free space is left alone.
func TestFloorOfFailedDisk(t *testing.T) {
	t.Parallel()
	disk := powerloss.New(rand.Uint64())
	dir, _ := powerloss.Mount(t, disk)
	var full atomic.Bool
	asked := make(chan struct{}, 100)
	e := openWith(t, jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t), Free: func() error {
		if full.Load() {
			asked <- struct{}{}
			return state.ErrFull
		}
		return nil
	}})
	disk.Fail(syscall.EIO, 1)
	if err := e.Queue().Publish(context.Background(), subject, []byte("x")); !errors.Is(err, state.ErrBroken) {
		t.Errorf("a failing disk: %v", err)
	}
	full.Store(true)
	disk.Fail(0, 0)
	for range 2 { // the second time, what came of the first is done
		<-asked
	}
	if err := e.Err(); !errors.Is(err, state.ErrBroken) {
		t.Errorf("below the floor the engine says %v", err)
	}
	full.Store(false)
	heals(t, e)
	publish(t, e.Queue(), subject, "y")
}

// heals waits until the engine stores again.
func heals(t *testing.T, e *jetstream.Engine) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); e.Err() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the engine does not store again: %v", e.Err())
		}
	}
}

// threeHeld are events that are handed out while the server is exchanged.
type threeHeld struct{ dropped, retried, kept state.Delivery }

const heldLane = "async.1.eu.held"

func takeThree(t *testing.T, q *jetstream.Queue) (h threeHeld) {
	t.Helper()
	publish(t, q, heldLane, "dropped", "retried", "kept")
	taken, err := q.Take(context.Background(), heldLane, 3)
	if err != nil || len(taken) != 3 {
		t.Fatalf("%d events, %v", len(taken), err)
	}
	return threeHeld{taken[0], taken[1], taken[2]}
}

// check settles them: who has them has them still, and nobody else gets them.
func (h threeHeld) check(t *testing.T, q *jetstream.Queue) {
	t.Helper()
	ctx := context.Background()
	if taken, err := q.Take(ctx, heldLane, 10); err != nil || len(taken) != 0 {
		t.Errorf("%d events are handed out twice, %v", len(taken), err)
	}
	if err := h.dropped.Ack(ctx); err != nil {
		t.Error(err)
	}
	if err := h.retried.Retry(ctx, 0, []byte("retried again")); err != nil {
		t.Error(err)
	}
	taken, err := q.Take(ctx, heldLane, 10)
	if err != nil || len(taken) != 1 || string(taken[0].Event()) != "retried again" || taken[0].Attempt() != 2 {
		t.Fatalf("%v, %v", taken, err)
	}
	for _, d := range []state.Delivery{taken[0], h.kept} {
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
	}
	if n := waiting(t, q, heldLane); n != 0 {
		t.Errorf("%d events wait", n)
	}
}

// A commit that the disk fails in is told to be in doubt; once the disk is well, whoever
// made it learns whether it was made, and goes on from there.
func TestCommitInDoubt(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	disk := powerloss.New(rand.Uint64())
	dir, _ := powerloss.Mount(t, disk)
	e := openWith(t, jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
	outcomes := map[bool]int{}
	const tries = 4
	for try := range tries {
		first, second := fmt.Sprint("k.", try, ".a"), fmt.Sprint("k.", try, ".b")
		was := commit(t, e.State(), state.Change{Key: first, Value: []byte("old")}, state.Change{Key: second, Value: []byte("old")})
		changes := []state.Change{{Key: first, Value: []byte("new"), Expect: was[0]}}
		nth := 1 + try/2%2 // the write, or its sync
		if try%2 == 1 {
			changes = append(changes, state.Change{Key: second, Expect: was[1]})
			nth = 1 + 4*(try/2)
		}
		disk.Fail(syscall.EIO, nth)
		told := make(chan []state.Revision, 1)
		err := state.Commit(ctx, e.State(), func(r []state.Revision) { told <- r }, changes...)
		if err == nil {
			t.Fatalf("try %d: the disk did not fail", try)
		}
		disk.Fail(0, 0)
		heals(t, e)
		// What is not in doubt any more is told before the engine is well.
		records := all(t, e.State(), fmt.Sprint("k.", try))
		made := records[first] == "new"
		if _, there := records[second]; there == (made && len(changes) > 1) {
			t.Errorf("try %d: a commit is made by half: %v", try, records)
		}
		outcomes[made]++
		select {
		case revisions := <-told:
			if !made {
				t.Errorf("try %d: a commit that was not made is told to be", try)
			}
			was = revisions
		default:
			if made {
				t.Errorf("try %d: a commit was made, and nobody learns of it: %v", try, err)
			}
		}
		commit(t, e.State(), state.Change{Key: first, Value: []byte("newer"), Expect: was[0]})
	}
	t.Logf("of %d commits in doubt %d were made", tries, outcomes[true])
	if outcomes[true] == 0 || outcomes[false] == 0 {
		t.Errorf("made and not: %v", outcomes)
	}
}
