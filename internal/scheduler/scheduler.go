// Package scheduler decides which execution environment runs an invocation:
// it keeps a pool for each build of each function version, reuses idle
// environments (the last used first), starts new ones for invocations that
// wait, and closes those that are idle too long, replaced or too many. The
// invoke package calls it; it knows nothing of policies or limits of accounts.
package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"kiln/internal/environment"
	"kiln/internal/lambda"
	"kiln/internal/scheduler/machine"
	"kiln/internal/telemetry/metrics"
)

// ErrClosed is returned once the scheduler shuts down.
var ErrClosed = errors.New("this Kiln is shutting down")

// Config bounds the scheduler.
type Config struct {
	// IdleTimeout is how long an idle environment is kept.
	IdleTimeout time.Duration
	// MaxEnvironments bounds all environments together: idle ones of other
	// functions make room first.
	MaxEnvironments int
	// ScalingRate is how many environments a function may add in scalingPeriod.
	ScalingRate int
	// MemoryBudget bounds what all environments hold together, in bytes.
	MemoryBudget int64
	// Machine tells how much memory the machine has, and how short of it it is.
	Machine func() machine.Memory
}

// minTurnaround and maxTurnaround bound the trust in an environment that is about
// to be free.
const (
	minTurnaround = 10 * time.Millisecond
	maxTurnaround = 100 * time.Millisecond
)

// reapInterval is how often idle environments, and the machine's memory, are looked at.
const reapInterval = time.Second

// Factory makes environments.
type Factory interface {
	New(ctx context.Context, fn *lambda.Function) (*environment.Environment, error)
}

// Scheduler is safe for concurrent use.
type Scheduler struct {
	factory      Factory
	metrics      *metrics.Recorder
	log          *slog.Logger
	config       Config
	starts       chan struct{} // a token for each init that runs
	preparations chan struct{} // the same of those that nobody waits for

	ctx    context.Context // of all environments; ends at Close
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // every goroutine

	mu     sync.Mutex
	pools  map[string]*pool                     // guarded by mu; by their id
	builds map[string]string                    // guarded by mu; the current build by the ARN of the version; "": none; absent: any
	rates  map[lambda.FunctionARN]*rate.Limiter // guarded by mu; of functions that grew lately
	total  int                                  // guarded by mu; environments alive or being made
	runs   bool                                 // guarded by mu: Run has begun
	closed bool                                 // guarded by mu
}

// pool is the environments of one build of one version.
type pool struct {
	id        string // lambda.Function.ID or, of provisioned concurrency, keptID
	function  *lambda.Function
	kept      *kept         // nil: environments are started when they are needed
	idle      []*slot       // the last used is last
	waiting   []*waiter     // in order of arrival
	starting  int           // environments being made or in init
	finishing int           // environments that have answered and are not idle yet
	alive     int           // all, starting included
	started   time.Duration // how long making the last one took
	memory    ledger
}

// turnaround is how long a waiting invocation trusts that an environment which
// has answered is about to be free, before it has another one started: as long as
// that start would take, so that trusting in vain at most doubles the wait.
func (p *pool) turnaround() time.Duration {
	return min(max(p.started, minTurnaround), maxTurnaround)
}

// slot is an environment in its pool.
type slot struct {
	*environment.Environment
	pool   *pool
	counts *metrics.Function
	state  metrics.EnvironmentState // changed by whoever owns the slot
	since  time.Time                // when it became idle

	charged bool  // guarded by mu: it has memory
	bytes   int64 // guarded by mu: how much; 0: not measured
}

func (t *slot) move(to metrics.EnvironmentState) {
	t.counts.Environment(t.state, to)
	t.state = to
}

// waiter is an invocation without an environment.
type waiter struct {
	got chan *slot // one, or closed with err set
	err error
}

// New returns a scheduler; Close ends it.
func New(factory Factory, metrics *metrics.Recorder, log *slog.Logger, config Config) *Scheduler {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Scheduler{
		factory: factory, metrics: metrics, log: log, config: config,
		starts: make(chan struct{}, startsPerCore*runtime.NumCPU()), preparations: make(chan struct{}, preparations()),
		ctx: ctx, cancel: cancel,
		pools:  map[string]*pool{},
		builds: map[string]string{},
		rates:  map[lambda.FunctionARN]*rate.Limiter{},
	}
}

// Run closes environments that are idle too long, or whose memory the machine needs,
// and starts those that provisioned concurrency keeps, until ctx ends.
func (s *Scheduler) Run(ctx context.Context) {
	tick := time.NewTicker(reapInterval)
	defer tick.Stop()
	s.mu.Lock()
	s.runs = true
	s.fillAll()
	s.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.reap(now)
			s.relieve(s.config.Machine())
		}
	}
}

// Invoke runs the invocation in some environment of the function. It returns as
// soon as the answer is known, or begins where it is a stream. When ctx ends earlier
// the invocation runs on to its end, as on AWS, unless it still waits for an
// environment. over is called once, when the answer is complete or will not come.
func (s *Scheduler) Invoke(ctx context.Context, fn *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error) {
	t, spills := s.acquireKept(ctx, fn, inv.ARN.Qualifier)
	err := context.Cause(ctx)
	if t == nil && err == nil {
		t, err = s.acquire(ctx, fn)
	}
	if t == nil {
		over()
		return lambda.Result{}, err
	}
	defer s.work.Done() // acquire added it
	if t.pool.kept != nil {
		t.counts.OnProvisioned()
	} else if spills {
		t.counts.SpilledOver()
	}
	answer := make(chan lambda.Result, 1)
	s.work.Go(func() { s.run(t, inv, over, answer) })
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		s.work.Go(func() { r := <-answer; r.Free() }) // run always answers
		return lambda.Result{}, context.Cause(ctx)
	}
}

func (s *Scheduler) run(t *slot, inv *lambda.Invocation, over func(), answer chan<- lambda.Result) {
	t.move(metrics.Busy)
	outcome := t.Invoke(s.ctx, inv, func(r lambda.Result) { answer <- r }, func() {
		s.mu.Lock()
		t.pool.finishing++
		s.mu.Unlock()
		over()
	})
	if outcome.Init > 0 && !outcome.Ahead {
		t.counts.Initialized(outcome.Init)
		t.counts.ColdStart()
	}
	t.counts.Invocation(outcome.Outcome)
	s.mu.Lock()
	t.pool.finishing--
	s.measured(t, outcome.Held)
	why := t.Unfit()
	if why == "" && t.pool.kept != nil && t.Lost() {
		why = "its runtime was lost, and it is to be ready" // a reset would make the next invocation wait
	}
	if why != "" {
		s.log.Info("an environment is replaced", "function", t.pool.function.ARN.String(), "environment", t.ID(), "reason", why)
		s.discardLocked(t)
		return
	}
	s.freeLocked(t)
}

// acquire takes an idle environment, or waits for one. With an environment the
// caller has one of s.work, or Close would not wait for it.
func (s *Scheduler) acquire(ctx context.Context, fn *lambda.Function) (_ *slot, err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	s.work.Add(1)
	defer func() {
		if err != nil {
			s.work.Done()
		}
	}()
	p := s.pools[fn.ID()]
	if p == nil {
		p = &pool{id: fn.ID(), function: fn}
		s.pools[p.id] = p
	}
	if t := p.last(); t != nil {
		s.mu.Unlock()
		return t, nil
	}
	w := &waiter{got: make(chan *slot, 1)}
	p.waiting = append(p.waiting, w)
	trusting := len(p.waiting) <= p.starting+p.finishing && p.finishing > 0
	if !s.grow(p, p.finishing) {
		p.waiting = p.waiting[:len(p.waiting)-1]
		s.tidy(p)
		s.mu.Unlock()
		return nil, tooFast()
	}
	trust := p.turnaround()
	s.mu.Unlock()

	if trusting {
		timer := time.NewTimer(trust)
		defer timer.Stop()
		select {
		case t := <-w.got:
			return w.result(t)
		case <-timer.C:
			s.mu.Lock()
			throttled := !s.grow(p, 0) && p.leave(w)
			s.mu.Unlock()
			if throttled {
				return nil, tooFast()
			}
		case <-ctx.Done():
		}
	}
	select {
	case t := <-w.got:
		return w.result(t)
	case <-ctx.Done():
		s.abandon(p, w)
		return nil, context.Cause(ctx)
	}
}

func (w *waiter) result(t *slot) (*slot, error) {
	if t == nil {
		return nil, w.err
	}
	return t, nil
}

// abandon takes back a waiter; an environment it was given meanwhile goes on to the next.
func (s *Scheduler) abandon(p *pool, w *waiter) {
	s.mu.Lock()
	left := p.leave(w)
	s.mu.Unlock()
	if left {
		return
	}
	if t := <-w.got; t != nil {
		s.free(t)
	}
}

// last takes the idle environment that was used last; nil: none is idle. s.mu is held.
func (p *pool) last() *slot {
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	t := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return t
}

// leave takes a waiter out of the line, unless it has been served. s.mu is held.
func (p *pool) leave(w *waiter) bool {
	i := slices.Index(p.waiting, w)
	if i < 0 {
		return false
	}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	return true
}

// free gives an environment to the next waiter, keeps it idle, or closes it.
func (s *Scheduler) free(t *slot) {
	s.mu.Lock()
	s.freeLocked(t)
}

// freeLocked is free for who holds s.mu, which it gives back.
func (s *Scheduler) freeLocked(t *slot) {
	p := t.pool
	if len(p.waiting) > 0 {
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		s.mu.Unlock()
		w.got <- t
		return
	}
	current, known := s.builds[p.function.VersionARN().String()]
	if s.closed || known && current != p.function.Build || p.kept != nil && p.alive > p.kept.target {
		s.discardLocked(t)
		return
	}
	t.since = time.Now()
	p.idle = append(p.idle, t)
	t.move(metrics.Idle)
	s.mu.Unlock()
}
