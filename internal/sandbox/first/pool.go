// Package first starts the first processes of sandboxes for the drivers that have such:
// from a thread that lives for as long as they may, and some ahead of time. What the
// processes are is the driver's.
package first

import "time"

// Pool keeps what was started ahead and belongs to no sandbox yet: it has seen
// nothing of any function, so any sandbox may have one.
type Pool[T any] struct {
	start func() (*T, error)
	end   func(*T)
	delay time.Duration
	ready chan *T
	taken chan struct{}
	stop  chan struct{}
	done  chan struct{}
}

// NewPool keeps n ready. delay is how long after one was taken the next is started:
// starting costs a processor, which the function that begins now needs more.
func NewPool[T any](n int, delay time.Duration, start func() (*T, error), end func(*T)) *Pool[T] {
	p := &Pool[T]{
		start: start, end: end, delay: delay,
		ready: make(chan *T, n),
		taken: make(chan struct{}, 1),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	go p.refill() // ends by Close, which waits
	return p
}

// Take returns one, or nil when none is ready.
func (p *Pool[T]) Take() *T {
	select {
	case p.taken <- struct{}{}:
	default:
	}
	select {
	case t := <-p.ready:
		return t
	default:
		return nil
	}
}

func (p *Pool[T]) refill() {
	defer close(p.done)
	for {
		for len(p.ready) < cap(p.ready) && !p.stopped() {
			t, err := p.start()
			if err != nil {
				break // the next Create meets the error itself, and tells
			}
			p.ready <- t // only this goroutine sends: there is room
		}
		select {
		case <-p.taken:
		case <-p.stop:
			return
		}
		for quiet := false; !quiet; {
			select {
			case <-p.taken:
			case <-time.After(p.delay):
				quiet = true
			case <-p.stop:
				return
			}
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
