package async

import (
	"container/heap"
	"time"
)

// schedule is the lanes that have something to come, a heap of which the first has it
// first. Service.mu guards it, and the lanes' agendas.
type schedule struct{ lanes lanesByNext }

// tick is how exactly a time of the schedule is kept.
const tick = 100 * time.Millisecond

// agenda says when events of a lane are due that were put off, in whole ticks.
type agenda struct {
	ticks ticks           // a heap, since 1970 and rounded up
	count map[int64]int64 // of events, by tick; 0: the lane's turn comes again
	place int             // in the schedule, from 1; 0: it has nothing to come
}

// add notes that n events of a lane are due at a time; with 0, that its turn comes again.
func (c *schedule) add(l *lane, at time.Time, n int64) {
	a := &l.agenda
	t := (at.UnixNano() + int64(tick) - 1) / int64(tick)
	if a.count == nil {
		a.count = map[int64]int64{}
	}
	if _, known := a.count[t]; !known {
		heap.Push(&a.ticks, t)
	}
	a.count[t] += n
	if a.place == 0 {
		heap.Push(&c.lanes, l)
	} else if a.ticks[0] == t {
		heap.Fix(&c.lanes, a.place-1)
	}
}

// next is when something is due; far in the future if nothing is.
func (c *schedule) next() time.Time {
	if len(c.lanes) == 0 {
		return time.Now().Add(time.Hour)
	}
	return time.Unix(0, c.lanes[0].agenda.ticks[0]*int64(tick))
}

// due takes out what is due by now.
func (c *schedule) due(now time.Time) func(yield func(*lane, int64) bool) {
	return func(yield func(*lane, int64) bool) {
		for len(c.lanes) > 0 && c.lanes[0].agenda.ticks[0]*int64(tick) <= now.UnixNano() {
			l := c.lanes[0]
			t := heap.Pop(&l.agenda.ticks).(int64)
			n := l.agenda.count[t]
			delete(l.agenda.count, t)
			if len(l.agenda.ticks) == 0 {
				c.clear(l)
			} else {
				heap.Fix(&c.lanes, 0)
			}
			if !yield(l, n) {
				return
			}
		}
	}
}

// clear takes out all that a lane has.
func (c *schedule) clear(l *lane) {
	if l.agenda.place > 0 {
		heap.Remove(&c.lanes, l.agenda.place-1)
	}
	l.agenda = agenda{}
}

// next is when the first event is due; zero of none.
func (a *agenda) next() (at time.Time) {
	for t, n := range a.count {
		if due := time.Unix(0, t*int64(tick)); n > 0 && (at.IsZero() || due.Before(at)) {
			at = due
		}
	}
	return at
}

// ticks is a heap, the earliest first.
type ticks []int64

func (h ticks) Len() int           { return len(h) }
func (h ticks) Less(i, j int) bool { return h[i] < h[j] }
func (h ticks) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ticks) Push(t any)        { *h = append(*h, t.(int64)) }
func (h *ticks) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// lanesByNext is a heap of lanes that know their places.
type lanesByNext []*lane

func (h lanesByNext) Len() int           { return len(h) }
func (h lanesByNext) Less(i, j int) bool { return h[i].agenda.ticks[0] < h[j].agenda.ticks[0] }
func (h lanesByNext) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].agenda.place, h[j].agenda.place = i+1, j+1
}

func (h *lanesByNext) Push(l any) {
	*h = append(*h, l.(*lane))
	l.(*lane).agenda.place = len(*h)
}

func (h *lanesByNext) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	last.agenda.place = 0
	return last
}

// ages counts events by the second in which they were accepted.
type ages map[int64]int64

func (a *ages) add(accepted time.Time) {
	if *a == nil {
		*a = ages{}
	}
	(*a)[accepted.Unix()]++
}

// remove does nothing for what was not added, such as what was put off before Kiln started.
func (a ages) remove(accepted time.Time) {
	switch t := accepted.Unix(); a[t] {
	case 0:
	case 1:
		delete(a, t)
	default:
		a[t]--
	}
}

// oldest is zero of none.
func (a ages) oldest() (at time.Time) {
	for t := range a {
		if then := time.Unix(t, 0); at.IsZero() || then.Before(at) {
			at = then
		}
	}
	return at
}
