package scheduler

import (
	"context"
	"fmt"
	"sync"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/telemetry/metrics"
)

// closeTimeout bounds the closing of one environment.
const closeTimeout = 30 * time.Second

// discardLocked closes an environment. The caller holds s.mu, which it gives back.
func (s *Scheduler) discardLocked(t *slot) {
	s.forget(t)
	if t.pool.kept != nil {
		s.fill(t.pool)
	} else if !s.grow(t.pool, t.pool.finishing) { // for those who trusted in it
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
			if p.kept != nil {
				p.kept.target = 0
			}
			old = append(old, s.takeIdle(p, func(*slot) bool { return true })...)
		}
	}
	s.forgetDeleted(name)
	s.closeLater(old)
	s.mu.Unlock()
}

// closeLater closes environments that were idle, in the background. s.mu is held.
func (s *Scheduler) closeLater(list []*slot) {
	for _, t := range list {
		t.move(metrics.Stopping)
	}
	if len(list) > 0 { // so Close has not begun, which takes all that are idle
		s.work.Go(func() { s.closeIdle(list) })
	}
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
	old = append(old, s.fillAll()...)
	for _, p := range s.pools {
		if p.kept != nil {
			continue
		}
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
	if p.alive == 0 && len(p.waiting) == 0 && (p.kept == nil || p.kept.target == 0) {
		delete(s.pools, p.id)
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
