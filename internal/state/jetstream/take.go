package jetstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kiln/internal/state"
)

// maxTakers bounds the consumers that Take keeps. Each costs the engine goroutines
// and memory; the one that was used least lately makes room for another.
const maxTakers = 256

// taker is a consumer of the engine that events of a lane are taken through.
type taker struct {
	name string
	last time.Time // when it was used
	out  int       // events handed out and not settled, and calls under way
}

// Take hands out up to n events of a lane that are due.
func (q *Queue) Take(ctx context.Context, lane string, n int) ([]state.Delivery, error) {
	if err := checkKey(lane); err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, fmt.Errorf("take %d events of %s: at least one has to be asked for", n, lane)
	}
	n = min(n, maxPull)
	q.engine.writing.RLock()
	defer q.engine.writing.RUnlock()
	if err := q.engine.Err(); err != nil { // what became of an event could not be stored, and it would come again and again
		return nil, fmt.Errorf("take events of %s: %w", lane, err)
	}
	t, err := q.taker(ctx, lane)
	if err != nil {
		return nil, fmt.Errorf("take events of %s: %w", lane, err)
	}
	defer q.leave(t)
	taken, err := q.take(t, lane, n)
	if errors.Is(err, nats.ErrNoResponders) { // the engine has dropped the consumer
		if err = q.createConsumer(ctx, t.name, lane); err == nil {
			taken, err = q.take(t, lane, n)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("take events of %s: %w", lane, explain(err))
	}
	return taken, nil
}

// take asks the engine for what is due now. It is not cut short: what the engine has
// handed out to somebody who is gone comes again only after ackWait.
func (q *Queue) take(t *taker, lane string, n int) (taken []state.Delivery, err error) {
	r, err := q.engine.current()
	if err != nil {
		return nil, err
	}
	arrived := make(chan *nats.Msg, n+1)
	inbox := r.conn.NewInbox()
	sub, err := r.conn.ChanSubscribe(inbox, arrived)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	request, err := json.Marshal(struct {
		Batch  int  `json:"batch"`
		NoWait bool `json:"no_wait"`
	}{n, true})
	if err != nil {
		return nil, err
	}
	if err := r.conn.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+queueStream+"."+t.name, inbox, request); err != nil {
		return nil, err
	}
	lost := time.NewTimer(requestTimeout)
	defer lost.Stop()
	for got := 0; got < n; got++ {
		select {
		case m := <-arrived:
			switch m.Header.Get("Status") {
			case "":
				d, err := newDelivery(q, t, lane, m)
				if err != nil {
					return taken, err
				}
				if q.survives(d.sequence, d.stored) {
					continue // somebody has it, though the engine has forgotten
				}
				q.hold(d)
				taken = append(taken, d)
			case "503":
				return taken, nats.ErrNoResponders
			default: // there are no more
				return taken, nil
			}
		case <-r.over.Done():
			return taken, context.Cause(r.over)
		case <-lost.C:
			if len(taken) == 0 {
				return nil, errNoAnswer
			}
			return taken, nil
		}
	}
	return taken, nil
}

// taker returns the lane's consumer, in use until leave is called.
func (q *Queue) taker(ctx context.Context, lane string) (*taker, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.takers[lane]
	if t == nil {
		if len(q.takers) >= maxTakers {
			q.dropTaker(ctx)
		}
		t = &taker{name: consumerName(lane)}
		if err := q.createConsumer(ctx, t.name, lane); err != nil {
			return nil, explain(err)
		}
		q.takers[lane] = t
	}
	t.out++
	t.last = time.Now()
	return t, nil
}

func (q *Queue) leave(t *taker) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.out--
}

// dropTaker ends the consumer that was used least lately, if one is not in use. q.mu is held.
func (q *Queue) dropTaker(ctx context.Context) {
	var lane string
	for l, t := range q.takers {
		if t.out == 0 && (lane == "" || t.last.Before(q.takers[lane].last)) {
			lane = l
		}
	}
	if lane == "" {
		return // all are: there are a few more than there should be
	}
	r, err := q.engine.current()
	if err == nil {
		err = r.js.DeleteConsumer(ctx, queueStream, q.takers[lane].name)
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		q.engine.cfg.Log.Warn("a consumer that is not needed stays", "lane", lane, "error", err)
	}
	delete(q.takers, lane)
}

// consumerName is a lane's: a name has no dots.
func consumerName(lane string) string {
	sum := sha256.Sum256([]byte(lane))
	return hex.EncodeToString(sum[:16])
}

func (q *Queue) createConsumer(ctx context.Context, name, lane string) error {
	r, err := q.engine.current()
	if err != nil {
		return err
	}
	ctx, cancel := r.bound(ctx, r.over)
	defer cancel()
	_, err = r.js.CreateOrUpdateConsumer(ctx, queueStream, jetstream.ConsumerConfig{
		Durable:           name,
		Description:       lane,
		FilterSubject:     queuePrefix + lane,
		AckPolicy:         jetstream.AckExplicitPolicy,
		AckWait:           ackWait,
		MaxAckPending:     maxPending,
		InactiveThreshold: idleConsumer,
	})
	return err
}

// hold has the engine told that a delivery's handler is at work, until it is settled.
func (q *Queue) hold(d *delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	d.taker.out++
	q.held[d] = true
}

// letGo ends hold, once the engine has heard what became of the event: with nothing held,
// its consumer may be dropped.
func (q *Queue) letGo(d *delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[d] {
		delete(q.held, d)
		delete(q.survivors, d.sequence)
		d.taker.out--
	}
}

// survive keeps what is handed out with those who have it, over an exchange of the server:
// that knows from its files of none or of some of it, and may hand it out again.
func (q *Queue) survive() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for d := range q.held {
		if !d.settled.Load() {
			q.survivors[d.sequence] = d
			d.survived.Store(true)
		}
	}
}

// survives tells whether a message is handed out since before such an exchange.
func (q *Queue) survives(sequence uint64, stored time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.survivors[sequence]
	return d != nil && !d.settled.Load() && d.stored.Equal(stored)
}

// keepAlive tells the engine of the handlers at work.
func (q *Queue) keepAlive(ctx context.Context) {
	tick := time.NewTicker(ackWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r, err := q.engine.current()
		if err != nil {
			continue
		}
		q.mu.Lock()
		for d := range q.held {
			if d.settled.Load() {
				continue // what became of it is on its way
			}
			if err := r.conn.Publish(d.reply, []byte("+WPI")); err != nil {
				q.engine.cfg.Log.Warn("an event may be delivered twice", "lane", d.lane, "error", err)
			}
		}
		q.mu.Unlock()
	}
}
