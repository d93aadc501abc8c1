package scheduler

import (
	"time"

	"kiln/internal/lambda"
	"kiln/internal/scheduler/machine"
)

const (
	// unmeasured is what an environment is taken to hold before any of its kind was
	// measured, in bytes: about what a runtime of AWS's has when it is initialised.
	unmeasured = 32 << 20
	// minBytes is the least that an environment counts for: what is not in its memory,
	// such as its cgroup, costs too.
	minBytes = 1 << 20
	// leastFree and mostFree bound what is left to the machine when its memory runs
	// short: a fiftieth of it, in bytes.
	leastFree, mostFree = 64 << 20, 512 << 20
	// maxStalled is the share of time lost to waiting for memory above which idle
	// environments go, an eighth of them at a time.
	maxStalled = 0.1
	// soon damps how fast the likelihood falls that an idle environment is used again.
	soon = time.Second
)

// ledger is the memory of a pool's environments.
type ledger struct {
	bytes    int64 // of those that were measured
	measured int64 // how many those are
	others   int64 // how many have memory that was not measured
	mean     int64 // of those that were measured last; 0: none was
}

func (l *ledger) known() bool { return l.mean > 0 }

// expect is what one more environment will hold.
func (l *ledger) expect(fn *lambda.Function) int64 {
	if l.known() {
		return l.mean
	}
	return min(unmeasured, int64(fn.Settings.MemoryMB)<<20)
}

// held is what all environments of the pool hold. s.mu is held.
func (p *pool) held() int64 { return p.memory.bytes + p.memory.others*p.memory.expect(p.function) }

// spare is what the idle environments of the pool hold that may be closed for others;
// what is provisioned may not. s.mu is held.
func (p *pool) spare() (sum int64) {
	if p.kept != nil {
		return 0
	}
	for _, t := range p.idle {
		sum += t.size()
	}
	return sum
}

// size is what the environment holds. s.mu is held.
func (t *slot) size() int64 {
	if t.bytes > 0 {
		return t.bytes
	}
	return t.pool.memory.expect(t.pool.function)
}

// charge counts the memory of an environment that begins to have some. s.mu is held.
func (s *Scheduler) charge(t *slot) {
	t.charged = true
	t.pool.memory.others++
}

// measured notes what an environment holds, as far as it is known. s.mu is held.
func (s *Scheduler) measured(t *slot, bytes int64) {
	if bytes <= 0 || !t.charged {
		return
	}
	s.discharge(t)
	l := &t.pool.memory
	t.charged, t.bytes = true, max(bytes, minBytes)
	l.bytes += t.bytes
	l.measured++
	l.mean = l.bytes / l.measured
}

// discharge forgets the memory of an environment. s.mu is held.
func (s *Scheduler) discharge(t *slot) {
	l := &t.pool.memory
	switch {
	case !t.charged:
	case t.bytes == 0:
		l.others--
	default:
		l.bytes -= t.bytes
		l.measured--
	}
	t.charged, t.bytes = false, 0
}

// outOfMemory is what an invocation gets for whose environment there is no memory: a
// throttle, which clients answer by slowing down. See docs/decisions/0020.
func outOfMemory() error {
	e := lambda.Throttled("")
	e.Message = "This Kiln has no memory left for another execution environment. Try again later, or raise its memory_budget if the machine has more."
	e.RetryAfter = 1
	return e
}

// makeRoom finds the memory for one more environment, by closing idle ones if need be.
func (s *Scheduler) makeRoom(t *slot) error {
	m := s.config.Machine()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.charge(t)
	var held, idle int64
	for _, p := range s.pools {
		held += p.held()
		idle += p.spare()
	}
	short := max(held-s.config.MemoryBudget, t.size()-(m.Available-toBeFree(m)))
	if short > idle {
		s.discharge(t)
		return outOfMemory()
	}
	s.evict(short)
	return nil
}

// relieve closes idle environments of a machine that is short of memory.
func (s *Scheduler) relieve(m machine.Memory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	short := toBeFree(m) - m.Available
	if m.Stalled > maxStalled {
		var idle int64
		for _, p := range s.pools {
			idle += p.spare()
		}
		short = max(short, idle/8)
	}
	s.evict(short)
}

// Short tells whether a machine is so short of memory that idle environments are closed.
func Short(m machine.Memory) bool { return m.Available < toBeFree(m) || m.Stalled > maxStalled }

func toBeFree(m machine.Memory) int64 { return min(max(m.Total/50, leastFree), mostFree) }

// limit makes room when there are too many environments. s.mu is held.
func (s *Scheduler) limit() {
	for s.total > s.config.MaxEnvironments {
		if s.evictOne() == 0 {
			return // all are busy: the account's concurrency bounds them
		}
	}
}

// evict closes idle environments that hold so many bytes. s.mu is held.
func (s *Scheduler) evict(bytes int64) {
	for bytes > 0 {
		freed := s.evictOne()
		if freed == 0 {
			return
		}
		bytes -= freed
	}
}

// evictOne closes the least valuable idle environment, and returns what it held. s.mu
// is held.
func (s *Scheduler) evictOne() (freed int64) {
	now := time.Now()
	var least *slot
	for _, p := range s.pools {
		if p.kept == nil && len(p.idle) > 0 && (least == nil || p.idle[0].value(now) < least.value(now)) {
			least = p.idle[0] // of its pool's the one that is used last
		}
	}
	if least == nil {
		return 0
	}
	freed = least.size()
	s.closeLater(s.takeIdle(least.pool, func(t *slot) bool { return t == least }))
	return freed
}

// value is what closing an idle environment would lose for each byte that it frees:
// the time to make it again, by how likely it is needed soon. An environment that
// was idle for long is likely to be so for as long again; of one function's, those
// that were used last are used first, so that what many of them are not needed for
// shows in their idleness.
func (t *slot) value(now time.Time) float64 {
	idle := max(0, now.Sub(t.since)) + soon
	return t.pool.started.Seconds() / idle.Seconds() / float64(t.size())
}

// Use is what environments take.
type Use struct {
	Memory      int64 // bytes, as far as they were measured
	Provisioned int   // environments that are kept ready
}

// Use tells what the environments of each function take.
func (s *Scheduler) Use() map[lambda.FunctionARN]Use {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[lambda.FunctionARN]Use{}
	for _, p := range s.pools {
		u := all[p.function.ARN]
		u.Memory += p.held()
		if p.kept != nil {
			u.Provisioned += p.alive - p.starting
		}
		all[p.function.ARN] = u
	}
	return all
}
