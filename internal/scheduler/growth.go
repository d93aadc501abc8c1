package scheduler

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"kiln/internal/lambda"
	"kiln/internal/telemetry/metrics"
)

// startsPerCore bounds the inits that run at once: more would only make each
// slower, and the slowest run into the init timeout.
const startsPerCore = 4

// slowStart is when an init stops counting against that bound: it waits for
// something, and must not hold up other functions.
const slowStart = time.Second

// scalingPeriod is the time in which a function may add Config.ScalingRate
// environments; it gets them back evenly, not all at its end.
// https://docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html
const scalingPeriod = 10 * time.Second

// tooFast is what an invocation gets that needs an environment which its function may
// not add yet.
func tooFast() error { return lambda.Throttled("FunctionInvocationRateLimitExceeded") }

// limiter bounds how fast a function grows, whichever version of it does. s.mu is held.
func (s *Scheduler) limiter(arn lambda.FunctionARN) *rate.Limiter {
	arn = arn.Unqualified()
	r := s.rates[arn]
	if r == nil {
		r = rate.NewLimiter(rate.Every(scalingPeriod/time.Duration(s.config.ScalingRate)), s.config.ScalingRate)
		s.rates[arn] = r
	}
	return r
}

// grow starts environments for the waiting invocations that none of those
// starting, nor of expected others, will serve. It reports whether the function may
// add as many. s.mu is held.
func (s *Scheduler) grow(p *pool, expected int) bool {
	for p.starting+expected < len(p.waiting) {
		if !s.limiter(p.function.ARN).Allow() {
			return false
		}
		p.starting++
		p.alive++
		s.total++
		s.work.Go(func() { s.start(p) })
	}
	s.limit()
	return true
}

// shed takes those out of the line whom nothing that is coming will serve. s.mu is held.
func (p *pool) shed(err error) {
	for len(p.waiting) > p.starting+p.finishing {
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		w.err = err
		close(w.got)
	}
}

// start makes one environment and gives it to whoever waits.
func (s *Scheduler) start(p *pool) {
	t := &slot{pool: p, counts: s.metrics.Function(p.function.ARN)}
	t.move(metrics.Initializing)
	began := time.Now()
	err := s.initialise(t)

	s.mu.Lock()
	p.started = time.Since(began)
	p.starting--
	if p.kept != nil {
		s.made(p, err)
	}
	if err != nil {
		s.forget(t)
		p.shed(err) // whoever this was for; the others have their own
		s.tidy(p)
		s.mu.Unlock()
		t.move(metrics.Absent)
		return
	}
	measure := !p.memory.known()
	if p.kept != nil {
		s.fill(p)
	}
	s.freeLocked(t)
	if measure { // the first of its kind says what the others will need
		held := t.Held(s.ctx)
		s.mu.Lock()
		s.measured(t, held)
		s.mu.Unlock()
	}
}

func (s *Scheduler) initialise(t *slot) error {
	starts := s.starts
	if t.pool.kept != nil {
		starts = s.preparations
	}
	select {
	case starts <- struct{}{}:
	case <-s.ctx.Done():
		return ErrClosed
	}
	var once sync.Once
	leave := func() { once.Do(func() { <-starts }) }
	defer leave()
	timer := time.AfterFunc(slowStart, leave)
	defer timer.Stop()

	if err := s.makeRoom(t); err != nil {
		return err
	}
	e, err := s.factory.New(s.ctx, t.pool.function)
	if err != nil {
		return err
	}
	t.Environment = e
	if t.pool.kept == nil {
		err = e.Init(s.ctx)
	} else if took, ierr := e.InitProvisioned(s.ctx); ierr != nil {
		err = ierr
	} else if took == 0 {
		err = errInit
	} else {
		t.counts.Initialized(took)
	}
	if err != nil {
		s.close(t)
	}
	return err
}
