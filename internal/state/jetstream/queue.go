package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"kiln/internal/state"
)

const (
	// queuePrefix begins the subject of each event that is due; its lane follows.
	queuePrefix = "queue."
	// laterPrefix begins the subject of an event that waits for its retry; its lane
	// and a token of its own follow. It is a message schedule, at whose time the
	// engine stores the event again where it is due and then drops the schedule.
	laterPrefix = "later."
	// attemptsHeader counts deliveries of an event before the present message of it.
	attemptsHeader = "Kiln-Attempts"
	// scheduleHeader and targetHeader say when the engine stores a message again,
	// and under which subject. The time may have a fraction.
	// https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-51.md
	scheduleHeader = "Nats-Schedule"
	targetHeader   = "Nats-Schedule-Target"
	scheduleAt     = "@at "
	// ackWait is how long the engine waits for a sign of life of an event's handler
	// before it hands the event out again: the delay after a crash. Handlers may
	// run longer; while they do, signs are sent every ackWait/3.
	ackWait = 30 * time.Second
	// maxPending bounds a lane's events that are handed out. It is far above what anybody
	// takes; events that wait for their retry are not among them.
	maxPending = 100_000
	// maxPull bounds the events asked for at once.
	maxPull = 256
	// idleConsumer is when the engine drops a consumer that nobody uses. It is long, because
	// one of a process that has ended knows the attempts of what that had taken.
	idleConsumer = 24 * time.Hour
)

// Queue keeps events in one work-queue stream: a message leaves it when it is
// acknowledged. A lane has a consumer only while it is taken from.
type Queue struct {
	engine *Engine

	mu        sync.Mutex           // held while consumers are made and deleted
	takers    map[string]*taker    // guarded by mu; by lane
	held      map[*delivery]bool   // guarded by mu; taken, and not settled
	survivors map[uint64]*delivery // guarded by mu; of those, by sequence, what an earlier run of the server has handed out

	publishing sync.Mutex     // held while events are queued for a flush
	queued     []*publication // guarded by publishing; wait for the flush under way
	busy       bool           // guarded by publishing; there is one
	grown      chan struct{}  // holds a token when something was queued lately
	flushing   sync.WaitGroup // the flush, for Close
}

// delivery is one event handed out.
type delivery struct {
	queue    *Queue
	taker    *taker
	lane     string
	reply    string
	event    []byte
	accepted time.Time
	attempt  int
	sequence uint64 // of its message
	stored   time.Time
	settled  atomic.Bool
	survived atomic.Bool // the run of the server that handed it out
}

func newDelivery(q *Queue, t *taker, lane string, m *nats.Msg) (*delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	return &delivery{queue: q, taker: t, lane: lane, reply: m.Reply, event: m.Data, accepted: acceptedAt(m.Header, meta.Timestamp),
		attempt: attemptsOf(m.Header) + int(meta.NumDelivered), sequence: meta.Sequence.Stream, stored: meta.Timestamp}, nil
}

// attemptsOf counts the deliveries before this message.
func attemptsOf(h nats.Header) int {
	n, err := strconv.Atoi(h.Get(attemptsHeader))
	if err != nil {
		return 0 // there were none
	}
	return n
}

func (d *delivery) Event() []byte       { return d.event }
func (d *delivery) Accepted() time.Time { return d.accepted }
func (d *delivery) Attempt() int        { return d.attempt }

// Ack returns once the engine has dropped the event. After an error the event may
// come again.
func (d *delivery) Ack(ctx context.Context) error {
	if err := d.settle("acknowledge"); err != nil {
		return err
	}
	defer d.queue.letGo(d)
	return d.drop(ctx, "acknowledge an")
}

// Retry stores the event anew and then drops it; a crash between the two has it
// delivered twice.
func (d *delivery) Retry(ctx context.Context, after time.Duration, event []byte) error {
	if err := d.settle("retry"); err != nil {
		return err
	}
	defer d.queue.letGo(d)
	if after <= 0 && event == nil {
		return d.answer(ctx, "retry an", []byte("-NAK"))
	}
	if event == nil {
		event = d.event
	}
	due := time.Time{}
	if after > 0 {
		due = time.Now().Add(after)
	}
	// A retry is no new event: it needs no free space above the floor, which is
	// there for this.
	if err := d.queue.put(ctx, messageOf(Event{Subject: d.lane, Event: event, Accepted: d.accepted, Attempts: d.attempt, Due: due})); err != nil {
		return fmt.Errorf("retry an event of %s: %w", d.lane, err)
	}
	return d.drop(ctx, "drop a retried")
}

// drop has the engine forget the event.
func (d *delivery) drop(ctx context.Context, what string) error {
	if !d.survived.Load() {
		return d.answer(ctx, what, []byte("+ACK"))
	}
	// The server that hands out now may not know that this is: it is told without that.
	e := d.queue.engine
	m, err := e.get(ctx, queueStream, page{Sequence: d.sequence})
	if err == nil && m.time.Equal(d.stored) {
		err = e.api(ctx, "STREAM.MSG.DELETE."+queueStream, struct {
			Sequence uint64 `json:"seq"`
			NoErase  bool   `json:"no_erase"`
		}{d.sequence, true}, nil)
	}
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("%s event of %s: %w", what, d.lane, err)
	}
	return nil
}

func (d *delivery) settle(what string) error {
	if !d.settled.CompareAndSwap(false, true) {
		return fmt.Errorf("%s an event of %s: it is settled already", what, d.lane)
	}
	return nil
}

func (d *delivery) answer(ctx context.Context, what string, how []byte) error {
	r, err := d.queue.engine.current()
	if err == nil {
		var cancel func()
		ctx, cancel = r.bound(ctx, r.broken)
		defer cancel()
		_, err = r.conn.RequestWithContext(ctx, d.reply, how)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s event of %s: %w", what, d.lane, explain(err))
	}
	return nil
}
