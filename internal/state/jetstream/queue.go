package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
	// maxPending bounds a lane's events that are handed out. It is far above any
	// limit of Consume; events that wait for their retry are not among them.
	maxPending = 100_000
	// pullExpiry is how long one request for events waits in the engine.
	pullExpiry = 30 * time.Second
	// maxPull bounds the events asked for at once.
	maxPull = 256
	// idleConsumer is when the engine drops a consumer that nobody uses. One with
	// events handed out and not settled is kept that long when its Consume ends,
	// because it knows their attempts.
	idleConsumer = 24 * time.Hour
	// abandonedRetry is when an event comes again whose handler settled nothing.
	abandonedRetry = time.Second
	// recreateDelay is the pause before a consumer that has vanished is made again.
	recreateDelay = 100 * time.Millisecond
)

// Queue keeps events in one work-queue stream: a message leaves it when it is
// acknowledged. A lane has a consumer only while it is consumed.
type Queue struct {
	engine *Engine

	mu        sync.Mutex         // held while consumers are made and deleted
	consumers map[string]*shared // guarded by mu; by lane
	takers    map[string]*taker  // guarded by mu; by lane
	held      map[*delivery]bool // guarded by mu; taken, and not settled

	publishing sync.Mutex     // held while events are queued for a flush
	queued     []*publication // guarded by publishing; wait for the flush under way
	busy       bool           // guarded by publishing; there is one
	grown      chan struct{}  // holds a token when something was queued lately
	flushing   sync.WaitGroup // the flush, for Close
}

// shared is a consumer of the engine that several Consume calls pull from.
type shared struct {
	name  string
	users int
}

// Consume hands out events until ctx ends. The context that handle gets does not
// end with ctx: a handler that runs is waited for, and settles its event. Several
// calls for one lane share its events.
func (q *Queue) Consume(ctx context.Context, lane string, limit int, handle func(context.Context, state.Delivery)) error {
	if err := checkKey(lane); err != nil {
		return err
	}
	if limit < 1 {
		return fmt.Errorf("consume %s: the limit is %d, at least 1 is needed", lane, limit)
	}
	consumer, err := q.acquire(ctx, lane)
	if err != nil {
		return fmt.Errorf("consume %s: %w", lane, err)
	}
	c := &consumption{queue: q, lane: lane, consumer: consumer, handle: handle,
		slots: make(chan struct{}, limit), arrived: make(chan *nats.Msg, 2*min(limit, maxPull)), running: map[*delivery]bool{}}
	err = c.run(ctx)
	if rerr := q.release(context.WithoutCancel(ctx), lane); err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("consume %s: %w", lane, err)
	}
	return nil
}

func (q *Queue) acquire(ctx context.Context, lane string) (string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.consumers[lane]
	if c == nil {
		c = &shared{name: consumerName(lane)}
	}
	if err := q.createConsumer(ctx, c.name, lane); err != nil {
		return "", explain(err)
	}
	c.users++
	q.consumers[lane] = c
	return c.name, nil
}

func (q *Queue) release(ctx context.Context, lane string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.consumers[lane]
	if c.users--; c.users > 0 {
		return nil
	}
	delete(q.consumers, lane)
	consumer, err := q.engine.js.Consumer(ctx, queueStream, c.name)
	if err == nil && consumer.CachedInfo().NumAckPending == 0 {
		err = q.engine.js.DeleteConsumer(ctx, queueStream, c.name)
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	return explain(err)
}

// consumption is one running Consume.
type consumption struct {
	queue    *Queue
	lane     string
	consumer string
	handle   func(context.Context, state.Delivery)
	slots    chan struct{}  // holds a token for each event asked for or handled
	arrived  chan *nats.Msg // what the engine sends
	handlers sync.WaitGroup

	mu      sync.Mutex
	running map[*delivery]bool // guarded by mu
}

func (c *consumption) run(ctx context.Context) error {
	conn := c.queue.engine.conn
	inbox := conn.NewInbox()
	sub, err := conn.ChanSubscribe(inbox, c.arrived)
	if err != nil {
		return explain(err)
	}
	signs, stopSigns := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { c.keepAlive(signs) })
	for err == nil && ctx.Err() == nil {
		err = c.pull(ctx, inbox)
	}
	// Drain: what the engine has handed out before it hears that nobody listens
	// goes back at once, instead of waiting for ackWait.
	if derr := sub.Drain(); derr == nil {
		conn.FlushTimeout(requestTimeout)
		c.handBack()
	}
	c.handlers.Wait()
	stopSigns()
	background.Wait()
	return err
}

// pull asks for as many events as there are free slots and starts their handlers,
// until all have come or the request has expired.
func (c *consumption) pull(ctx context.Context, inbox string) error {
	want := 0
	select {
	case c.slots <- struct{}{}:
		want++
	case <-ctx.Done():
		return nil
	}
	for more := true; more && want < maxPull; {
		select {
		case c.slots <- struct{}{}:
			want++
		default:
			more = false
		}
	}
	defer func() {
		for range want {
			<-c.slots
		}
	}()
	request, err := json.Marshal(struct {
		Batch   int           `json:"batch"`
		Expires time.Duration `json:"expires"`
	}{want, pullExpiry})
	if err != nil {
		return err
	}
	err = c.queue.engine.conn.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+queueStream+"."+c.consumer, inbox, request)
	if err != nil {
		return explain(err)
	}
	// The engine answers at the latest when the request expires; a request that got
	// lost is made again.
	lost := time.NewTimer(2 * pullExpiry)
	defer lost.Stop()
	for want > 0 {
		select {
		case m := <-c.arrived:
			switch m.Header.Get("Status") {
			case "":
				want--
				c.start(ctx, m)
			case "404", "408":
				return nil
			default: // the consumer was deleted, or the engine is going away
				return c.again(ctx)
			}
		case <-lost.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// again makes the consumer anew.
func (c *consumption) again(ctx context.Context) error {
	pause := time.NewTimer(recreateDelay)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return nil
	}
	if _, err := c.queue.acquire(ctx, c.lane); err != nil {
		return err
	}
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	c.queue.consumers[c.lane].users-- // counted already
	return nil
}

// start runs the handler in a slot that pull has taken.
func (c *consumption) start(ctx context.Context, m *nats.Msg) {
	d, err := newDelivery(c.queue, c.lane, m)
	if err != nil {
		<-c.slots
		c.queue.engine.cfg.Log.Warn("an event could not be read", "lane", c.lane, "error", err)
		return
	}
	c.mu.Lock()
	c.running[d] = true
	c.mu.Unlock()
	c.handlers.Go(func() {
		defer func() { <-c.slots }()
		ctx := context.WithoutCancel(ctx)
		c.handle(ctx, d)
		c.mu.Lock()
		delete(c.running, d)
		c.mu.Unlock()
		if !d.settled.Load() {
			c.giveBack(ctx, d, abandonedRetry)
		}
	})
}

// handBack returns the events that have arrived and were not started.
func (c *consumption) handBack() {
	for {
		select {
		case m := <-c.arrived:
			if m.Header.Get("Status") != "" {
				continue
			}
			if d, err := newDelivery(c.queue, c.lane, m); err == nil {
				c.giveBack(context.Background(), d, 0)
			}
		default:
			return
		}
	}
}

func (c *consumption) giveBack(ctx context.Context, d *delivery, after time.Duration) {
	if err := d.handBack(ctx, after); err != nil {
		c.queue.engine.cfg.Log.Warn("an event comes again only after its handler is given up", "lane", c.lane, "error", err)
	}
}

// keepAlive tells the engine that handlers are at work.
func (c *consumption) keepAlive(ctx context.Context) {
	tick := time.NewTicker(ackWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.mu.Lock()
		for d := range c.running {
			if d.settled.Load() {
				continue
			}
			if err := d.queue.engine.conn.Publish(d.reply, []byte("+WPI")); err != nil {
				c.queue.engine.cfg.Log.Warn("an event may be delivered twice", "lane", c.lane, "error", err)
			}
		}
		c.mu.Unlock()
	}
}

// delivery is one event handed out.
type delivery struct {
	queue    *Queue
	taker    *taker // nil: of a Consume
	lane     string
	reply    string
	event    []byte
	accepted time.Time
	attempt  int
	settled  atomic.Bool
}

func newDelivery(q *Queue, lane string, m *nats.Msg) (*delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	return &delivery{queue: q, lane: lane, reply: m.Reply, event: m.Data, accepted: acceptedAt(m.Header, meta.Timestamp),
		attempt: attemptsOf(m.Header) + int(meta.NumDelivered)}, nil
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
	return d.answer(ctx, "acknowledge an", []byte("+ACK"))
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
	return d.answer(ctx, "drop a retried", []byte("+ACK"))
}

// handBack has the engine keep the event as it is and hand it out again.
func (d *delivery) handBack(ctx context.Context, after time.Duration) error {
	if err := d.settle("hand back"); err != nil {
		return err
	}
	defer d.queue.letGo(d)
	b := []byte("-NAK")
	if after > 0 {
		b = fmt.Appendf(b, ` {"delay": %d}`, after.Nanoseconds())
	}
	return d.answer(ctx, "hand back an", b)
}

func (d *delivery) settle(what string) error {
	if !d.settled.CompareAndSwap(false, true) {
		return fmt.Errorf("%s an event of %s: it is settled already", what, d.lane)
	}
	return nil
}

func (d *delivery) answer(ctx context.Context, what string, how []byte) error {
	ctx, cancel := d.queue.engine.bound(ctx)
	defer cancel()
	if _, err := d.queue.engine.conn.RequestWithContext(ctx, d.reply, how); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s event of %s: %w", what, d.lane, explain(err))
	}
	return nil
}
