package scheduler_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"kiln/internal/environment/environmenttest"
	"kiln/internal/lambda"
	"kiln/internal/scheduler"
	"kiln/internal/scheduler/machine"
	"kiln/internal/telemetry/metrics"
)

// throttle is the reason and text of a throttle, "" of anything else.
func throttle(err error) (reason, message string) {
	if e := lambda.AsError(err); e != nil && e.Code == "TooManyRequestsException" && e.Status == 429 {
		return e.Reason, e.Message
	}
	return "", ""
}

// A function grows as fast as it may; what would need more is turned away at once,
// and not queued, while what there is serves on.
func TestScalingRate(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *scheduler.Config) { c.ScalingRate = 3 })
	fn := r.Function("grows", environmenttest.Bootstrap("", held))
	var holds []*hold
	for range 3 {
		holds = append(holds, r.hold(fn))
	}
	r.await("invocations that run", func() bool { return r.states(fn)[metrics.Busy] == 3 })
	var over atomic.Int32
	_, err := r.Invoke(t.Context(), fn, environmenttest.Invocation(fn, "1"), func() { over.Add(1) })
	if reason, message := throttle(err); reason != "FunctionInvocationRateLimitExceeded" || message != "Rate Exceeded." || over.Load() != 1 {
		t.Errorf("an environment too many: %v, over %d times", err, over.Load())
	}
	published := *fn
	published.Version = "1"
	if _, err := r.Invoke(t.Context(), &published, environmenttest.Invocation(fn, "1"), func() {}); lambda.AsError(err) == nil {
		t.Error("another version of the function grows on its own")
	}
	other := r.Function("other", environmenttest.Bootstrap("", held))
	r.do(other)
	holds[0].letGo(t)
	free := holds[0].environment(t)
	r.await("idle environment", func() bool { return r.states(fn)[metrics.Idle] == 1 })
	if got := r.do(fn); got != free {
		t.Error("an idle environment is not used")
	}
	for _, h := range holds[1:] {
		h.letGo(t)
		h.environment(t)
	}
}

// weight makes a function hold that many MB more.
func weight(mb int) string { return fmt.Sprintf("printf -v weight %%%ds x\n", mb<<20) }

// The least valuable idle environment makes room: what is quickly made again before
// what is not, what holds much before what holds little, and of one function what was
// used longest ago.
func TestLeastValuableMakesRoom(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ loses, stays string }{
		"start": {"", "sleep 1\n"},
		"size":  {weight(60), "sleep 1\n"}, // which so much memory may take too
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *scheduler.Config) { c.MaxEnvironments = 2 })
			loses := r.Function("loses", environmenttest.Bootstrap(c.loses, held))
			stays := r.Function("stays", environmenttest.Bootstrap(c.stays, held))
			third := r.Function("third", environmenttest.Bootstrap("", held))
			r.do(stays) // longest ago
			r.awaitIdle(stays, 1)
			r.do(loses)
			r.awaitIdle(loses, 1)
			r.do(third)
			r.await("room", func() bool { return len(r.states(loses)) == 0 })
			r.awaitIdle(stays, 1)
			r.awaitIdle(third, 1)
		})
	}
	t.Run("idleness", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, func(c *scheduler.Config) { c.MaxEnvironments = 2 })
		fn, other := r.Function("f", environmenttest.Bootstrap("", held)), r.Function("other", environmenttest.Bootstrap("", held))
		first, second := r.hold(fn), r.hold(fn)
		r.await("invocations that run", func() bool { return r.states(fn)[metrics.Busy] == 2 })
		first.letGo(t)
		first.environment(t)
		r.await("idle environment", func() bool { return r.states(fn)[metrics.Idle] == 1 })
		second.letGo(t)
		last := second.environment(t)
		r.awaitIdle(fn, 2)
		r.do(other)
		r.awaitIdle(fn, 1)
		if got := r.do(fn); got != last {
			t.Error("the environment that was used last made room")
		}
	})
}

// gauge is a machine's memory, as a test sets it.
type gauge struct {
	now atomic.Pointer[machine.Memory]
}

func (g *gauge) set(m machine.Memory) { g.now.Store(&m) }
func (g *gauge) read() machine.Memory { return *g.now.Load() }

// Environments hold no more memory than their budget: idle ones make room, and when
// there are none, invocations are turned away in words that say why.
func TestMemoryBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *scheduler.Config) { c.MemoryBudget = 100 << 20 })
	big := r.Function("big", environmenttest.Bootstrap(weight(70), held))
	small := r.Function("small", environmenttest.Bootstrap("", held))
	r.do(small)
	r.awaitIdle(small, 1)
	r.do(big)
	r.awaitIdle(big, 1)
	r.awaitIdle(small, 1) // there was room for both
	busy := r.hold(big)
	r.await("invocation that runs", func() bool { return r.states(big)[metrics.Busy] == 1 })
	var over atomic.Int32
	_, err := r.Invoke(t.Context(), big, environmenttest.Invocation(big, "1"), func() { over.Add(1) })
	if reason, message := throttle(err); !strings.Contains(message, "memory_budget") || reason != "" || lambda.AsError(err).RetryAfter == 0 || over.Load() != 1 {
		t.Errorf("an environment for which there is no memory: %v, over %d times", err, over.Load())
	}
	if r.states(small)[metrics.Idle] != 1 {
		t.Error("idle environments were closed in vain")
	}
	busy.letGo(t)
	busy.environment(t)
	r.awaitIdle(big, 1)
	medium := r.Function("medium", environmenttest.Bootstrap("", held)) // not measured yet, it counts for more than is left
	r.do(medium)
	r.await("room", func() bool { return len(r.states(big)) == 0 })
	r.awaitIdle(small, 1)
}

// A machine that runs short of memory gets it back from idle environments, whatever
// the budget says, and has no new ones until then.
func TestMachineShortOfMemory(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for name, low := range map[string]machine.Memory{
		"little is available": {Total: 16 * gib, Available: 1 << 20},
		"everything waits":    {Total: 16 * gib, Available: 8 * gib, Stalled: 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			memory := new(gauge)
			memory.set(machine.Memory{Total: 16 * gib, Available: 8 * gib})
			r := newRig(t, func(c *scheduler.Config) { c.Machine = memory.read })
			ctx, cancel := context.WithCancel(t.Context())
			var run sync.WaitGroup
			run.Go(func() { r.Run(ctx) })
			fn, busy := r.Function("idle", environmenttest.Bootstrap("", held)), r.Function("busy", environmenttest.Bootstrap("", held))
			running := r.hold(busy)
			r.await("invocation that runs", func() bool { return r.states(busy)[metrics.Busy] == 1 })
			r.do(fn)
			r.awaitIdle(fn, 1)
			memory.set(low)
			r.await("end of the idle environment", func() bool { return len(r.states(fn)) == 0 })
			if low.Stalled == 0 {
				if _, err := r.Invoke(t.Context(), fn, environmenttest.Invocation(fn, "1"), func() {}); lambda.AsError(err) == nil {
					t.Errorf("an environment without memory: %v", err)
				}
			}
			memory.set(machine.Memory{Total: 16 * gib, Available: 8 * gib})
			r.do(fn)
			running.letGo(t)
			running.environment(t)
			cancel()
			run.Wait()
		})
	}
}

// What loses its runtime once is reset, as on AWS, and keeps its /tmp; what loses it
// over and over is replaced.
func TestMisbehavingIsReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	fn := r.Function("dies", environmenttest.Bootstrap("", `
[ "$event" = '"die"' ] && exit 1
answer="\"$AWS_LAMBDA_LOG_STREAM_NAME \""
`))
	die := func() {
		result, err := r.Invoke(t.Context(), fn, environmenttest.Invocation(fn, `"die"`), func() {})
		if err != nil || !strings.Contains(string(result.Payload), "Runtime.ExitError") {
			t.Fatalf("%+v %v", result, err)
		}
		r.await("end of the invocation", func() bool { s := r.states(fn); return s[metrics.Idle] == int64(len(s)) })
	}
	first := r.do(fn)
	r.awaitIdle(fn, 1)
	for range 4 { // never three times in a row
		die()
		die()
		if got := r.do(fn); got != first {
			t.Fatal("it was replaced")
		}
		r.awaitIdle(fn, 1)
	}
	for range 3 {
		die()
	}
	r.await("end of the environment", func() bool { return len(r.states(fn)) == 0 })
	if got := r.do(fn); got == first {
		t.Error("it was not replaced")
	}
}

// However many functions, versions and builds are invoked at once, with too few
// environments for all: each invocation runs what it names.
func TestNeverAnothersEnvironment(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *scheduler.Config) { c.MaxEnvironments = 4 })
	var functions []*lambda.Function
	for i := range 4 {
		fn := r.Function(fmt.Sprint("f", i), environmenttest.Bootstrap("", fmt.Sprintf(`answer="\"%d $AWS_LAMBDA_FUNCTION_NAME $AWS_LAMBDA_FUNCTION_VERSION\""`, i)))
		published := *fn
		published.Version, published.Build = "1", lambda.NewUUID()
		functions = append(functions, fn, &published)
	}
	var wait sync.WaitGroup
	for c := range 6 {
		wait.Go(func() {
			for i := range 6 {
				fn := functions[(i*(c+1)+c)%len(functions)]
				result, err := r.Invoke(t.Context(), fn, environmenttest.Invocation(fn, "1"), func() {})
				want := fmt.Sprintf(`"%s %s %s"`, fn.ARN.Name[1:], fn.ARN.Name, fn.Version)
				if err != nil || string(result.Payload) != want {
					t.Errorf("%s, want %s, %v", result.Payload, want, err)
				}
			}
		})
	}
	wait.Wait()
}
