package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kiln/internal/environment"
	"kiln/internal/environment/environmenttest"
	"kiln/internal/lambda"
	"kiln/internal/scheduler"
	"kiln/internal/scheduler/machine"
	"kiln/internal/telemetry/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait: a loaded machine is slow.
const patience = 30 * time.Second

// held answers an event once somebody writes the answer to the named pipe that
// the event names; every other event at once. It names its environment.
const held = `
name=${event//\"/}
said=
[ -p "$name" ] && read -r said <"$name"
answer="\"$AWS_LAMBDA_LOG_STREAM_NAME $said\""
`

type rig struct {
	*environmenttest.Fixture
	*scheduler.Scheduler
	t      *testing.T
	counts *metrics.Recorder
}

func newRig(t *testing.T, change func(*scheduler.Config)) *rig {
	t.Helper()
	f := environmenttest.New(t)
	config := scheduler.Config{
		IdleTimeout: time.Hour, MaxEnvironments: 1000, ScalingRate: 1000, MemoryBudget: 1 << 40, Machine: func() machine.Memory { return machine.Unknown },
	}
	if change != nil {
		change(&config)
	}
	counts := metrics.New(metrics.Config{})
	r := &rig{Fixture: f, Scheduler: scheduler.New(f, counts, slog.New(slog.DiscardHandler), config), t: t, counts: counts}
	t.Cleanup(func() {
		_ = r.Scheduler.Close(context.Background()) // a test that looks at the error has closed it before
		if n := r.Environments(); n > 0 {
			t.Errorf("%d environments live after Close", n)
		}
	})
	return r
}

// await polls until the condition holds.
func (r *rig) await(what string, condition func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("no %s after %v: %v", what, patience, r.counts.Totals())
		}
	}
}

// states counts the function's environments.
func (r *rig) states(fn *lambda.Function) map[metrics.EnvironmentState]int64 {
	return r.counts.Function(fn.ARN).Totals().Environments
}

func (r *rig) awaitIdle(fn *lambda.Function, n int64) {
	r.t.Helper()
	r.await(fmt.Sprintf("%d idle environments", n), func() bool { s := r.states(fn); return s[metrics.Idle] == n && len(s) == min(1, int(n)) })
}

// do invokes the function and returns its environment.
func (r *rig) do(fn *lambda.Function) string {
	r.t.Helper()
	result, err := r.Invoke(r.t.Context(), fn, environmenttest.Invocation(fn, `"now"`), func() {})
	if err != nil || result.FunctionError != "" {
		r.t.Fatalf("%s %v", result.Payload, err)
	}
	name, _, _ := strings.Cut(strings.Trim(string(result.Payload), `"`), " ")
	return name
}

// hold is an invocation that runs until it is let go.
type hold struct {
	pipe   string
	over   atomic.Int32
	cancel context.CancelFunc
	result chan lambda.Result // one, unless there is an error
	err    chan error
}

func (r *rig) hold(fn *lambda.Function) *hold { return r.holdBy(fn, "") }

func (r *rig) holdBy(fn *lambda.Function, q lambda.Qualifier) *hold {
	r.t.Helper()
	h := &hold{pipe: filepath.Join(r.Dir, lambda.NewUUID()), result: make(chan lambda.Result, 1), err: make(chan error, 1)}
	if err := syscall.Mkfifo(h.pipe, 0o600); err != nil {
		r.t.Fatal(err)
	}
	var ctx context.Context
	ctx, h.cancel = context.WithCancel(r.t.Context())
	go func() { // ended by letGo, cancel or Close, of which each test has one
		inv := environmenttest.Invocation(fn, `"`+h.pipe+`"`)
		inv.ARN.Qualifier = q
		result, err := r.Invoke(ctx, fn, inv, func() { h.over.Add(1) })
		if err != nil {
			h.err <- err
			return
		}
		h.result <- result
	}()
	return h
}

// letGo makes the function answer, and waits until it reads: then it runs.
func (h *hold) letGo(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(h.pipe, []byte("let go\n"), 0); err != nil {
		t.Fatal(err)
	}
}

func (h *hold) environment(t *testing.T) string {
	t.Helper()
	select {
	case result := <-h.result:
		name, said, _ := strings.Cut(strings.Trim(string(result.Payload), `"`), " ")
		if said != "let go" {
			t.Fatalf("answer %s", result.Payload)
		}
		return name
	case err := <-h.err:
		t.Fatal(err)
	case <-time.After(patience):
		t.Fatal("no answer")
	}
	return ""
}

func TestLastUsedIsReused(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	fn := r.Function("held", environmenttest.Bootstrap("", held))
	const n = 4
	var holds []*hold
	for range n {
		holds = append(holds, r.hold(fn))
	}
	r.await("invocations that run", func() bool { return r.states(fn)[metrics.Busy] == n })
	seen := map[string]bool{}
	var last string
	for i, h := range holds {
		h.letGo(t)
		last = h.environment(t)
		if seen[last] {
			t.Errorf("two invocations ran in one environment at once")
		}
		seen[last] = true
		r.await("idle environment", func() bool { return r.states(fn)[metrics.Idle] == int64(i+1) })
	}
	for range 5 {
		if got := r.do(fn); got != last {
			t.Errorf("%s is used, the last used was %s", got, last)
		}
		r.awaitIdle(fn, n)
	}
}

// Many invocations at once, more than ever run before: each is answered once,
// with its own answer, and none shares an environment.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	// A second invocation at the same time would find the folder.
	fn := r.Function("many", environmenttest.Bootstrap("", `
mkdir "$TMPDIR/running" || event=\"shared\"
answer=$event
rmdir "$TMPDIR/running"
`))
	var wait sync.WaitGroup
	var over atomic.Int32
	const clients, each = 12, 10
	for c := range clients {
		wait.Go(func() {
			for i := range each {
				event := fmt.Sprintf("%d", c*each+i)
				result, err := r.Invoke(t.Context(), fn, environmenttest.Invocation(fn, event), func() { over.Add(1) })
				if err != nil || string(result.Payload) != event {
					t.Errorf("event %s: answer %s, error %v", event, result.Payload, err)
				}
			}
		})
	}
	wait.Wait()
	if over.Load() != clients*each {
		t.Errorf("%d of %d invocations were over", over.Load(), clients*each)
	}
	r.await("end of all invocations", func() bool { s := r.states(fn); return s[metrics.Idle] == int64(r.Environments()) })
	if got := r.counts.Function(fn.ARN).Totals(); got.Invocations != clients*each || got.Errors != 0 {
		t.Errorf("counted %+v", got)
	}
}

func TestRetire(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	old := r.Function("retired", environmenttest.Bootstrap("", held))
	other := r.Function("other", environmenttest.Bootstrap("", held))
	r.do(other)
	busy, idle := r.hold(old), r.hold(old)
	r.await("invocations that run", func() bool { return r.states(old)[metrics.Busy] == 2 })
	idle.letGo(t)
	idle.environment(t)
	r.await("idle environment", func() bool { return r.states(old)[metrics.Idle] == 1 })

	now := *old
	now.Build = lambda.NewUUID()
	r.Retire(old.VersionARN(), now.Build)
	if got := r.states(old); got[metrics.Idle] != 0 || got[metrics.Busy] != 1 {
		t.Errorf("after Retire: %v", got)
	}
	fresh := r.do(&now)
	busy.letGo(t)
	if busy.environment(t) == fresh {
		t.Error("an environment of the old build runs the new one")
	}
	r.await("end of the old build", func() bool { s := r.states(old); return s[metrics.Idle] == 1 && len(s) == 1 })
	if got := r.do(&now); got != fresh {
		t.Error("the new build's environment was retired")
	}
	// A function that is deleted keeps none, nor does one that comes late.
	r.awaitIdle(old, 1)
	late := r.hold(&now)
	r.await("invocation that runs", func() bool { return r.states(old)[metrics.Busy] == 1 })
	r.Retire(old.VersionARN(), "")
	late.letGo(t)
	late.environment(t)
	r.await("end of all", func() bool { return len(r.states(old)) == 0 })
	r.awaitIdle(other, 1)
}

func TestIdleTooLong(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *scheduler.Config) { c.IdleTimeout = time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { r.Run(ctx) })
	fn := r.Function("idle", environmenttest.Bootstrap("", held))
	r.do(fn)
	r.await("end of the idle environment", func() bool { return len(r.states(fn)) == 0 })
	cancel()
	run.Wait()
}

// What fails for one invocation fails for no other.
func TestErrorsReachTheirWaiters(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	fn := r.Function("fails", environmenttest.Bootstrap("", held))
	running := r.hold(fn)
	r.await("invocation that runs", func() bool { return r.states(fn)[metrics.Busy] == 1 })
	r.Break(environmenttest.ErrBroken)
	var over atomic.Int32
	for range 3 {
		if _, err := r.Invoke(t.Context(), fn, environmenttest.Invocation(fn, "1"), func() { over.Add(1) }); !errors.Is(err, environmenttest.ErrBroken) {
			t.Errorf("an invocation whose environment cannot be made: %v", err)
		}
	}
	if over.Load() != 3 {
		t.Errorf("%d of 3 invocations are over", over.Load())
	}
	running.letGo(t)
	used := running.environment(t)
	r.awaitIdle(fn, 1)
	if got := r.do(fn); got != used {
		t.Error("a living environment is not used")
	}
}

// A caller that leaves while it waits takes nothing along; one that leaves while
// its invocation runs has it run on.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	gate := filepath.Join(r.Dir, "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	fn := r.Function("leaves", environmenttest.Bootstrap(`read -r _ <"`+gate+`"`, held))
	waiting := r.hold(fn)
	r.await("init", func() bool { return r.states(fn)[metrics.Initializing] == 1 })
	waiting.cancel()
	if err := <-waiting.err; !errors.Is(err, context.Canceled) || waiting.over.Load() != 1 {
		t.Errorf("a caller that left: %v, over %d times", err, waiting.over.Load())
	}
	if err := os.WriteFile(gate, []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	r.awaitIdle(fn, 1)

	running := r.hold(fn)
	r.await("invocation that runs", func() bool { return r.states(fn)[metrics.Busy] == 1 })
	running.cancel()
	if err := <-running.err; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if s := r.states(fn); s[metrics.Busy] != 1 || running.over.Load() != 0 {
		t.Errorf("after the caller left: %v, over %d times", s, running.over.Load())
	}
	running.letGo(t)
	r.awaitIdle(fn, 1)
	if running.over.Load() != 1 {
		t.Errorf("over %d times", running.over.Load())
	}
	if got := r.counts.Function(fn.ARN).Totals().Invocations; got != 1 {
		t.Errorf("%d invocations are counted, want 1", got)
	}
}

// A stream is an invocation until its end, whoever reads it; then its environment
// is for the next.
func TestStreams(t *testing.T) {
	t.Parallel()
	for _, leaves := range []bool{false, true} {
		t.Run(fmt.Sprintf("the caller leaves %v", leaves), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			fn := r.Function("streams", environmenttest.Bootstrap("", `
name=${event//\"/}
[ -p "$name" ] && { begin; chunk one; read -r said <"$name"; chunk "$said"; finish; continue; }
answer="\"$AWS_LAMBDA_LOG_STREAM_NAME \""
`))
			gate := &hold{pipe: filepath.Join(r.Dir, lambda.NewUUID())}
			if err := syscall.Mkfifo(gate.pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			inv := environmenttest.Invocation(fn, `"`+gate.pipe+`"`)
			inv.Stream = true
			result, err := r.Invoke(t.Context(), fn, inv, func() { gate.over.Add(1) })
			if err != nil || result.Stream == nil {
				t.Fatalf("%+v %v", result, err)
			}
			if _, err := io.ReadFull(result.Stream, make([]byte, 3)); err != nil {
				t.Fatal(err)
			}
			if leaves {
				result.Free()
			}
			other := r.do(fn) // which gets an environment of its own
			r.await("idle environment", func() bool { return r.states(fn)[metrics.Idle] == 1 })
			if s := r.states(fn); s[metrics.Busy] != 1 || gate.over.Load() != 0 {
				t.Errorf("in the midst of the stream: %v, over %d times", s, gate.over.Load())
			}
			gate.letGo(t)
			if !leaves {
				if rest, err := io.ReadAll(result.Stream); string(rest) != "let go" || err != nil || gate.over.Load() != 1 {
					t.Errorf("%q %v, over %d times", rest, err, gate.over.Load())
				}
				result.Free()
			}
			r.awaitIdle(fn, 2)
			if gate.over.Load() != 1 {
				t.Errorf("over %d times", gate.over.Load())
			}
			if got := r.do(fn); got == other {
				t.Error("the environment that streamed is not the last used")
			}
		})
	}
}

// Callers leave at any moment, also when an environment is just given to them:
// none is lost.
func TestCallersLeaveAtAnyMoment(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	fn := r.Function("restless", environmenttest.Bootstrap("", "answer=$event"))
	var wait sync.WaitGroup
	var begun, over atomic.Int32
	for range 8 {
		wait.Go(func() {
			for range 40 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(8*time.Millisecond))))
				begun.Add(1)
				_, err := r.Invoke(ctx, fn, environmenttest.Invocation(fn, "1"), func() { over.Add(1) })
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wait.Wait()
	r.await("end of all invocations", func() bool {
		s := r.states(fn)
		return over.Load() == begun.Load() && s[metrics.Idle] == int64(r.Environments())
	})
}

func TestCloseDrains(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	fn := r.Function("drains", environmenttest.Bootstrap("", held))
	running := r.hold(fn)
	r.await("invocation that runs", func() bool { return r.states(fn)[metrics.Busy] == 1 })
	closed := make(chan error, 1)
	go func() { closed <- r.Scheduler.Close(context.Background()) }()
	r.await("refusal", func() bool {
		_, err := r.Invoke(t.Context(), fn, environmenttest.Invocation(fn, "1"), func() {})
		return errors.Is(err, scheduler.ErrClosed)
	})
	select {
	case err := <-closed:
		t.Fatalf("Close returned while an invocation ran: %v", err)
	default:
	}
	running.letGo(t)
	running.environment(t)
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestCloseCutsOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	fn := r.Function("cut", environmenttest.Bootstrap("", held))
	running := r.hold(fn)
	r.await("invocation that runs", func() bool { return r.states(fn)[metrics.Busy] == 1 })
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("too late")
	cancel(late)
	if err := r.Scheduler.Close(ctx); !errors.Is(err, late) {
		t.Errorf("Close: %v", err)
	}
	if result := <-running.result; result.FunctionError == "" || !strings.Contains(string(result.Payload), "Sandbox.Failure") {
		t.Errorf("the invocation that was cut off: %+v", result)
	}
}

// An init that fails is the function's error, and no reason to start another
// environment; when it fails over and over, it is.
func TestFunctionWithoutBootstrap(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	fn := r.Function("empty", "")
	for i := range 3 {
		result, err := r.Invoke(t.Context(), fn, environmenttest.Invocation(fn, "1"), func() {})
		if err != nil || result.FunctionError != "Unhandled" || !strings.Contains(string(result.Payload), "Runtime.InvalidEntrypoint") {
			t.Errorf("%+v %v", result, err)
		}
		if i < 2 {
			r.awaitIdle(fn, 1)
		}
	}
	r.await("end of the environment", func() bool { return len(r.states(fn)) == 0 })
}

var _ scheduler.Factory = (*environment.Factory)(nil)
