package jetstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kiln/internal/state"
)

const (
	queuePrefix = "queue."
	// ackWait is how long the engine waits for a sign of life of an event's handler
	// before it hands the event out again: the delay after a crash. Handlers may
	// run longer; while they do, signs are sent every ackWait/3.
	ackWait = 30 * time.Second
	// maxPending bounds a subject's events that are handed out or wait for their
	// retry. It is far above any limit of Consume, because events waiting for a
	// retry must not hold up the others.
	maxPending = 100_000
	// pullExpiry is how long one request for events waits in the engine.
	pullExpiry = 30 * time.Second
	// maxPull bounds the events asked for at once.
	maxPull = 256
	// idleConsumer is when the engine drops a consumer that nobody uses. One with
	// events waiting for a retry is kept that long when its Consume ends, because
	// it knows their attempts.
	idleConsumer = 24 * time.Hour
	// abandonedRetry is when an event comes again whose handler settled nothing.
	abandonedRetry = time.Second
	// recreateDelay is the pause before a consumer that has vanished is made again.
	recreateDelay = 100 * time.Millisecond
)

// Queue keeps events in one work-queue stream: a message leaves it when it is
// acknowledged. A subject has a consumer only while it is consumed.
type Queue struct {
	engine *Engine

	mu        sync.Mutex         // held while consumers are made and deleted
	consumers map[string]*shared // guarded by mu; by subject
}

// shared is a consumer of the engine that several Consume calls pull from.
type shared struct {
	name  string
	users int
}

// Publish returns once the event is on disk. When ctx ends first, it may be there or not.
func (q *Queue) Publish(ctx context.Context, subject string, event []byte) error {
	if err := checkKey(subject); err != nil {
		return err
	}
	err := q.engine.cfg.Free()
	if err == nil {
		q.engine.writing.RLock()
		defer q.engine.writing.RUnlock()
		_, err = q.engine.store(ctx, &nats.Msg{Subject: queuePrefix + subject, Data: event})
	}
	if err != nil {
		return fmt.Errorf("publish to %s: %w", subject, err)
	}
	return nil
}

// Waiting counts the subject's events that are not acknowledged.
func (q *Queue) Waiting(ctx context.Context, subject string) (uint64, error) {
	if err := checkKey(subject); err != nil {
		return 0, err
	}
	var info struct {
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	err := q.engine.api(ctx, "STREAM.INFO."+queueStream, struct {
		Filter string `json:"subjects_filter"`
	}{queuePrefix + subject}, &info)
	if err != nil {
		return 0, fmt.Errorf("count the events of %s: %w", subject, err)
	}
	return info.State.Subjects[queuePrefix+subject], nil
}

// Consume hands out events until ctx ends. The context that handle gets does not
// end with ctx: a handler that runs is waited for, and settles its event. Several
// calls for one subject share its events.
func (q *Queue) Consume(ctx context.Context, subject string, limit int, handle func(context.Context, state.Delivery)) error {
	if err := checkKey(subject); err != nil {
		return err
	}
	if limit < 1 {
		return fmt.Errorf("consume %s: the limit is %d, at least 1 is needed", subject, limit)
	}
	consumer, err := q.acquire(ctx, subject)
	if err != nil {
		return fmt.Errorf("consume %s: %w", subject, err)
	}
	c := &consumption{queue: q, subject: subject, consumer: consumer, handle: handle,
		slots: make(chan struct{}, limit), arrived: make(chan *nats.Msg, 2*min(limit, maxPull)), running: map[*delivery]bool{}}
	err = c.run(ctx)
	if rerr := q.release(context.WithoutCancel(ctx), subject); err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("consume %s: %w", subject, err)
	}
	return nil
}

func (q *Queue) acquire(ctx context.Context, subject string) (string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.consumers[subject]
	if c == nil {
		sum := sha256.Sum256([]byte(subject)) // a name has no dots
		c = &shared{name: hex.EncodeToString(sum[:16])}
	}
	_, err := q.engine.js.CreateOrUpdateConsumer(ctx, queueStream, jetstream.ConsumerConfig{
		Durable:           c.name,
		Description:       subject,
		FilterSubject:     queuePrefix + subject,
		AckPolicy:         jetstream.AckExplicitPolicy,
		AckWait:           ackWait,
		MaxAckPending:     maxPending,
		InactiveThreshold: idleConsumer,
	})
	if err != nil {
		return "", explain(err)
	}
	c.users++
	q.consumers[subject] = c
	return c.name, nil
}

func (q *Queue) release(ctx context.Context, subject string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.consumers[subject]
	if c.users--; c.users > 0 {
		return nil
	}
	delete(q.consumers, subject)
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
	subject  string
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
	if _, err := c.queue.acquire(ctx, c.subject); err != nil {
		return err
	}
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	c.queue.consumers[c.subject].users-- // counted already
	return nil
}

// start runs the handler in a slot that pull has taken.
func (c *consumption) start(ctx context.Context, m *nats.Msg) {
	d, err := newDelivery(c.queue.engine.conn, m)
	if err != nil {
		<-c.slots
		c.queue.engine.cfg.Log.Warn("an event could not be read", "subject", c.subject, "error", err)
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
			if d, err := newDelivery(c.queue.engine.conn, m); err == nil {
				c.giveBack(context.Background(), d, 0)
			}
		default:
			return
		}
	}
}

func (c *consumption) giveBack(ctx context.Context, d *delivery, after time.Duration) {
	if err := d.Retry(ctx, after); err != nil {
		c.queue.engine.cfg.Log.Warn("an event comes again only after its handler is given up", "subject", c.subject, "error", err)
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
			if err := d.conn.Publish(d.reply, []byte("+WPI")); err != nil {
				c.queue.engine.cfg.Log.Warn("an event may be delivered twice", "subject", c.subject, "error", err)
			}
		}
		c.mu.Unlock()
	}
}

// delivery is one event handed out.
type delivery struct {
	conn     *nats.Conn
	reply    string
	event    []byte
	accepted time.Time
	attempt  int
	settled  atomic.Bool
}

func newDelivery(conn *nats.Conn, m *nats.Msg) (*delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	return &delivery{conn: conn, reply: m.Reply, event: m.Data, accepted: acceptedAt(m.Header, meta.Timestamp), attempt: int(meta.NumDelivered)}, nil
}

func (d *delivery) Event() []byte       { return d.event }
func (d *delivery) Accepted() time.Time { return d.accepted }
func (d *delivery) Attempt() int        { return d.attempt }

// Ack returns once the engine has dropped the event. After an error the event may
// come again.
func (d *delivery) Ack(ctx context.Context) error {
	return d.settle(ctx, "acknowledge", []byte("+ACK"))
}

// Retry has the event delivered again, not before the time given.
func (d *delivery) Retry(ctx context.Context, after time.Duration) error {
	b := []byte("-NAK")
	if after > 0 {
		b = fmt.Appendf(b, ` {"delay": %d}`, after.Nanoseconds())
	}
	return d.settle(ctx, "retry", b)
}

func (d *delivery) settle(ctx context.Context, what string, how []byte) error {
	if !d.settled.CompareAndSwap(false, true) {
		return fmt.Errorf("%s an event: it is settled already", what)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, errNoAnswer)
	defer cancel()
	if _, err := d.conn.RequestWithContext(ctx, d.reply, how); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s an event: %w", what, explain(err))
	}
	return nil
}
