// Package scheduler decides which execution environment runs an invocation:
// it keeps a pool for each build of each function version, reuses idle
// environments (the last used first), starts new ones for invocations that
// wait, and closes those that are idle too long, replaced or too many. The
// invoke package calls it; it knows nothing of policies or limits of accounts.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// closeTimeout bounds the closing of one environment.
const closeTimeout = 30 * time.Second

// reapInterval is how often idle environments, and the machine's memory, are looked at.
const reapInterval = time.Second

// Factory makes environments.
type Factory interface {
	New(ctx context.Context, fn *lambda.Function) (*environment.Environment, error)
}

// Scheduler is safe for concurrent use.
type Scheduler struct {
	factory Factory
	metrics *metrics.Recorder
	log     *slog.Logger
	config  Config
	starts  chan struct{} // a token for each init that runs

	ctx    context.Context // of all environments; ends at Close
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // every goroutine

	mu     sync.Mutex
	pools  map[string]*pool                     // guarded by mu; by lambda.Function.ID
	builds map[string]string                    // guarded by mu; the current build by the ARN of the version; "": none; absent: any
	rates  map[lambda.FunctionARN]*rate.Limiter // guarded by mu; of functions that grew lately
	total  int                                  // guarded by mu; environments alive or being made
	closed bool                                 // guarded by mu
}

// pool is the environments of one build of one version.
type pool struct {
	function  *lambda.Function
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
		starts: newStarts(),
		ctx:    ctx, cancel: cancel,
		pools:  map[string]*pool{},
		builds: map[string]string{},
		rates:  map[lambda.FunctionARN]*rate.Limiter{},
	}
}

// Run closes environments that are idle too long, or whose memory the machine needs,
// until ctx ends.
func (s *Scheduler) Run(ctx context.Context) {
	tick := time.NewTicker(reapInterval)
	defer tick.Stop()
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
	t, err := s.acquire(ctx, fn)
	if err != nil {
		over()
		return lambda.Result{}, err
	}
	defer s.work.Done() // acquire added it
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
	if outcome.Init > 0 {
		t.counts.Initialized(outcome.Init)
	}
	t.counts.Invocation(outcome.Outcome)
	s.mu.Lock()
	t.pool.finishing--
	s.measured(t, outcome.Held)
	if why := t.Unfit(); why != "" {
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
		p = &pool{function: fn}
		s.pools[fn.ID()] = p
	}
	if n := len(p.idle); n > 0 {
		t := p.idle[n-1]
		p.idle = p.idle[:n-1]
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
	if s.closed || known && current != p.function.Build {
		s.discardLocked(t)
		return
	}
	t.since = time.Now()
	p.idle = append(p.idle, t)
	t.move(metrics.Idle)
	s.mu.Unlock()
}

// discardLocked closes an environment. The caller holds s.mu, which it gives back.
func (s *Scheduler) discardLocked(t *slot) {
	s.forget(t)
	if !s.grow(t.pool, t.pool.finishing) { // for those who trusted in it
		t.pool.shed(tooFast())
	}
	s.tidy(t.pool)
	s.mu.Unlock()
	s.close(t)
}

// Retire closes the idle environments of every build of the version but
// current, and has the busy ones closed when they are free. "" retires all. It does
// not wait for their ends: extensions take their time, and whoever changes a
// function has waited enough.
func (s *Scheduler) Retire(arn lambda.FunctionARN, current string) {
	name := arn.String()
	s.mu.Lock()
	s.builds[name] = current
	var old []*slot
	for _, p := range s.pools {
		if p.function.VersionARN().String() == name && p.function.Build != current {
			old = append(old, s.takeIdle(p, func(*slot) bool { return true })...)
		}
	}
	s.forgetDeleted(name)
	for _, t := range old {
		t.move(metrics.Stopping)
	}
	if len(old) > 0 { // so Close has not begun, which takes all that are idle
		s.work.Go(func() { s.closeIdle(old) })
	}
	s.mu.Unlock()
}

// forgetDeleted drops what is known of a deleted version once it has no
// environments that must be closed. s.mu is held.
func (s *Scheduler) forgetDeleted(name string) {
	if current, known := s.builds[name]; !known || current != "" {
		return
	}
	for _, p := range s.pools {
		if p.function.VersionARN().String() == name {
			return
		}
	}
	delete(s.builds, name)
}

func (s *Scheduler) reap(now time.Time) {
	s.mu.Lock()
	var old []*slot
	for _, p := range s.pools {
		old = append(old, s.takeIdle(p, func(i *slot) bool { return now.Sub(i.since) > s.config.IdleTimeout })...)
	}
	for arn, r := range s.rates {
		if r.TokensAt(now) >= float64(r.Burst()) {
			delete(s.rates, arn) // it is as good as new
		}
	}
	s.mu.Unlock()
	s.closeIdle(old)
}

// takeIdle removes idle environments from the pool. s.mu is held.
func (s *Scheduler) takeIdle(p *pool, which func(*slot) bool) (out []*slot) {
	keep := p.idle[:0]
	for _, i := range p.idle {
		if which(i) {
			out = append(out, i)
			s.forget(i)
		} else {
			keep = append(keep, i)
		}
	}
	clear(p.idle[len(keep):])
	p.idle = keep
	s.tidy(p)
	return out
}

// forget counts an environment out. s.mu is held.
func (s *Scheduler) forget(t *slot) {
	s.discharge(t)
	t.pool.alive--
	s.total--
}

// tidy drops a pool that nothing uses. s.mu is held.
func (s *Scheduler) tidy(p *pool) {
	if p.alive == 0 && len(p.waiting) == 0 {
		delete(s.pools, p.function.ID())
		s.forgetDeleted(p.function.VersionARN().String())
	}
}

func (s *Scheduler) closeIdle(list []*slot) {
	var wait sync.WaitGroup
	for _, t := range list {
		wait.Go(func() { s.close(t) })
	}
	wait.Wait()
}

func (s *Scheduler) close(t *slot) {
	t.move(metrics.Stopping)
	defer t.move(metrics.Absent)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := t.Close(ctx); err != nil {
		s.log.Error("an environment left something behind", "error", err)
	}
}

// Close waits for the running invocations until ctx ends, ends those that are
// left, and closes every environment.
func (s *Scheduler) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	var left []*slot
	for _, p := range s.pools {
		for _, w := range p.waiting {
			w.err = ErrClosed
			close(w.got)
		}
		p.waiting = nil
		left = append(left, s.takeIdle(p, func(*slot) bool { return true })...)
	}
	s.mu.Unlock()
	s.closeIdle(left)

	done := make(chan struct{})
	go func() { s.work.Wait(); close(done) }() // ends below: the cancelled context ends every invocation
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("invocations were cut off: %w", context.Cause(ctx))
	}
	s.cancel(ErrClosed)
	<-done
	return err
}
