package scheduler

import (
	"context"
	"errors"
	"runtime"
	"time"

	"kiln/internal/lambda"
)

// Provisioned concurrency: pools of their own, each for one build of one version on
// behalf of one owner, which is that version or an alias of it. They are filled in
// the background and kept full; only invocations by the owner's ARN use them.

const (
	// firstRetry and lastRetry bound the wait after an environment that could not be
	// made; it doubles.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// Why provisioned concurrency could not be allocated: AWS's word for an init that
// fails, and Kiln's for a failure of its own.
const (
	initFailed    = "FUNCTION_ERROR_INIT_FAILURE"
	internalError = "INTERNAL_ERROR"
)

// errInit is what an environment gets that cannot be kept because its init failed.
var errInit = errors.New("init failed")

// preparations bounds the environments that are made at once without anybody
// waiting for them: those that somebody waits for must not be slower for it.
func preparations() int { return runtime.NumCPU() }

// kept is what makes a pool one of provisioned concurrency.
type kept struct {
	owner   lambda.FunctionARN // the version or alias
	target  int                // environments to keep
	failed  string             // why the last one could not be made; "": it could
	backoff time.Duration
	retry   time.Time // when to try again
}

// keptID names the pool that a build has for an owner.
func keptID(fn *lambda.Function, owner lambda.Qualifier) string {
	return fn.ID() + " for " + string(owner)
}

// Allotment is environments of one version to keep on behalf of an owner.
type Allotment struct {
	Owner        lambda.FunctionARN // the version or alias that they are for
	Function     *lambda.Function
	Environments int
}

// Provision sets which environments are kept for a function, in place of what was set
// before. They are started in the background once Run has begun.
func (s *Scheduler) Provision(function lambda.FunctionARN, allotments []Allotment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[string]bool{}
	for _, a := range allotments {
		id := keptID(a.Function, a.Owner.Qualifier)
		wanted[id] = true
		p := s.pools[id]
		if p == nil {
			p = &pool{id: id, function: a.Function, kept: &kept{owner: a.Owner}}
			s.pools[id] = p
		}
		k := p.kept
		k.target, k.failed, k.backoff, k.retry = a.Environments, "", 0, time.Time{}
		s.fill(p)
	}
	var surplus []*slot
	for _, p := range s.pools {
		if p.kept == nil || p.function.ARN != function.Unqualified() {
			continue
		}
		if !wanted[p.id] {
			p.kept.target = 0
		}
		over := p.alive - p.kept.target
		surplus = append(surplus, s.takeIdle(p, func(*slot) bool { over--; return over >= 0 })...)
	}
	s.closeLater(surplus)
}

// Provisioned tells how many environments are allocated to an owner, how many of those
// are initialised, and why one could not be made that is missing; "": it is on its way.
func (s *Scheduler) Provisioned(owner lambda.FunctionARN) (allocated, available int, failed string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pools {
		if p.kept == nil || p.kept.owner != owner {
			continue
		}
		allocated += min(p.alive, p.kept.target)
		available += min(p.alive-p.starting, p.kept.target)
		if p.kept.failed != "" {
			failed = p.kept.failed
		}
	}
	return allocated, available, failed
}

// fill starts environments of a pool that has fewer than it should keep. s.mu is held.
func (s *Scheduler) fill(p *pool) {
	k := p.kept
	for s.runs && !s.closed && p.alive < k.target && p.starting < preparations() && !time.Now().Before(k.retry) {
		p.starting++
		p.alive++
		s.total++
		s.work.Go(func() { s.start(p) })
	}
}

// fillAll replaces what the pools have lost, and tries again what has failed. s.mu is held.
func (s *Scheduler) fillAll() (lost []*slot) {
	for _, p := range s.pools {
		if p.kept != nil {
			lost = append(lost, s.takeIdle(p, (*slot).Lost)...)
			s.fill(p)
		}
	}
	return lost
}

// made notes how making an environment of a kept pool went. s.mu is held.
func (s *Scheduler) made(p *pool, err error) {
	k := p.kept
	if err == nil {
		k.failed, k.backoff = "", 0
		return
	}
	k.failed = internalError
	if e := lambda.AsError(err); e != nil {
		k.failed = e.Message
	} else if errors.Is(err, errInit) {
		k.failed = initFailed
	} else if !errors.Is(err, ErrClosed) {
		s.log.Error("an environment of provisioned concurrency cannot be made", "function", p.function.VersionARN().String(), "error", err)
	}
	k.backoff = min(max(2*k.backoff, firstRetry), lastRetry)
	k.retry = time.Now().Add(k.backoff)
}

// acquireKept is acquire of an environment that is kept for invocations by the
// qualifier, or about to be free. It returns nil where there is none; spills tells that
// there are some, all in use.
func (s *Scheduler) acquireKept(ctx context.Context, fn *lambda.Function, by lambda.Qualifier) (t *slot, spills bool) {
	if by == "" || by == lambda.Latest {
		return nil, false
	}
	s.mu.Lock()
	p := s.pools[keptID(fn, by)]
	if p == nil || p.kept.target == 0 || s.closed {
		s.mu.Unlock()
		return nil, false
	}
	s.work.Add(1)
	defer func() {
		if t == nil {
			s.work.Done()
		}
	}()
	if t = p.last(); t != nil || p.finishing <= len(p.waiting) {
		s.mu.Unlock()
		return t, true
	}
	w := &waiter{got: make(chan *slot, 1)}
	p.waiting = append(p.waiting, w)
	trust := time.NewTimer(p.turnaround())
	s.mu.Unlock()
	defer trust.Stop()
	select {
	case t = <-w.got:
		return t, true
	case <-trust.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	left := p.leave(w)
	s.mu.Unlock()
	if left {
		return nil, true
	}
	return <-w.got, true
}
