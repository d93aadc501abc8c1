// Package first starts the first processes of sandboxes for the drivers that have such:
// from a thread that lives for as long as they may, and some ahead of time. What the
// processes are is the driver's.
package first

import (
	"sync/atomic"
	"time"
)

// Idle is how long nobody must have asked for more than the least that wait, before
// those above it end.
const Idle = time.Minute

// Pool keeps what was started ahead and belongs to no sandbox yet: it has seen
// nothing of any function, so any sandbox may have one. It keeps as many as were asked for at
// once of late, within its bounds.
type Pool[T any] struct {
	start       func() (*T, error)
	end         func(*T)
	delay       time.Duration
	least, want int
	missed      atomic.Int64 // asked for when none was ready, since the last refill
	ready       chan *T
	taken       chan struct{}
	stop        chan struct{}
	done        chan struct{}
}

// NewPool keeps least ready, and up to most. delay is how long after one was taken the next is
// started: starting costs a processor, which the function that begins now needs more.
func NewPool[T any](least, most int, delay time.Duration, start func() (*T, error), end func(*T)) *Pool[T] {
	p := &Pool[T]{
		start: start, end: end, delay: delay, least: least, want: least,
		ready: make(chan *T, max(least, most)),
		taken: make(chan struct{}, 1),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	go p.refill() // ends by Close, which waits
	return p
}

// Take returns one, or nil when none is ready.
func (p *Pool[T]) Take() (t *T) {
	select {
	case t = <-p.ready:
	default:
		p.missed.Add(1)
	}
	select {
	case p.taken <- struct{}{}:
	default:
	}
	return t
}

// Waiting is how many are ready; none of no pool.
func (p *Pool[T]) Waiting() int {
	if p == nil {
		return 0
	}
	return len(p.ready)
}

func (p *Pool[T]) refill() {
	defer close(p.done)
	idle := time.NewTimer(Idle)
	defer idle.Stop()
	for {
		p.want = min(p.want+int(p.missed.Swap(0)), cap(p.ready))
		for len(p.ready) < p.want && !p.stopped() {
			t, err := p.start()
			if err != nil {
				break // the next Create meets the error itself, and tells
			}
			p.ready <- t // only this goroutine sends: there is room
		}
		select {
		case <-p.taken:
		case <-idle.C:
			p.shrink()
			idle.Reset(Idle)
			continue
		case <-p.stop:
			return
		}
		// One that takes more than the least there are shows that they are wanted.
		deepest := p.want - len(p.ready)
		for quiet := false; !quiet; {
			select {
			case <-p.taken:
				deepest = max(deepest, p.want-len(p.ready))
			case <-time.After(p.delay):
				quiet = true
			case <-p.stop:
				return
			}
		}
		if deepest > p.least {
			idle.Reset(Idle)
		}
	}
}

// shrink ends those above the least.
func (p *Pool[T]) shrink() {
	p.want = p.least
	for len(p.ready) > p.want {
		select {
		case t := <-p.ready:
			p.end(t)
		default: // somebody was faster
		}
	}
}

func (p *Pool[T]) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// Close ends those that nobody took.
func (p *Pool[T]) Close() {
	close(p.stop)
	<-p.done
	close(p.ready)
	for t := range p.ready {
		p.end(t)
	}
}
