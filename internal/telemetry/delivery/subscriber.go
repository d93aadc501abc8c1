package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// attemptTimeout bounds one attempt to deliver a batch, so that a subscriber
	// which takes it and says nothing is tried again.
	attemptTimeout = 5 * time.Second
	// minPause and maxPause are between two attempts: the first is about what a
	// listener needs that is just being started.
	minPause = 25 * time.Millisecond
	maxPause = 2 * time.Second
	// overflow is how many batches' worth of events wait while one is on its way.
	overflow = 2
	// maxReply bounds what is read of a subscriber's reply, to use its connection again.
	maxReply = 64 << 10
)

// subscriber is one subscription with what waits to be sent.
type subscriber struct {
	name string
	feed *Feed
	http *http.Client
	tcp  net.Conn      // run's own; nil: none yet
	wake chan struct{} // that there may be something to do; never full for long

	mu       sync.Mutex
	sub      Subscription    // guarded by mu
	queue    [][]byte        // guarded by mu
	size     int             // guarded by mu; of the queue
	since    time.Time       // guarded by mu; of its first event
	lost     int             // guarded by mu; events since the last batch
	lostSize int             // guarded by mu; their bytes
	sending  bool            // guarded by mu; a batch is on its way
	failing  bool            // guarded by mu; its last attempt failed
	flushing bool            // guarded by mu; nothing waits any more
	settling []chan struct{} // guarded by mu; closed when there is nothing to send, or no way
}

func newSubscriber(f *Feed, sub Subscription) *subscriber {
	s := &subscriber{name: sub.Name, feed: f, sub: sub, wake: make(chan struct{}, 1)}
	s.http = &http.Client{
		Timeout: attemptTimeout,
		Transport: &http.Transport{
			// The name in the URL means the environment, whatever it is.
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				n, err := strconv.Atoi(port)
				if err != nil {
					return nil, err
				}
				return f.config.Dial(ctx, n)
			},
			MaxIdleConns: 1, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// change replaces the subscription; what waits is sent as it is.
func (s *subscriber) change(sub Subscription) {
	s.mu.Lock()
	s.sub = sub
	s.mu.Unlock()
	s.notify()
}

func (s *subscriber) wants(kind Kind) (Schema, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sub.Schema, slices.Contains(s.sub.Kinds, kind)
}

// take queues an event that was rendered; nil for none.
func (s *subscriber) take(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case text == nil:
		return
	case len(s.queue) >= overflow*s.sub.MaxItems || s.size >= overflow*s.sub.MaxBytes:
		s.lost++
		s.lostSize += len(text)
		return
	}
	if len(s.queue) == 0 {
		s.since = time.Now()
	}
	s.queue = append(s.queue, text)
	s.size += len(text)
	if len(s.queue) == 1 || s.full() || s.flushing {
		s.notify()
	}
}

// full tells whether the queue makes a batch. s.mu is held.
func (s *subscriber) full() bool { return len(s.queue) >= s.sub.MaxItems || s.size >= s.sub.MaxBytes }

func (s *subscriber) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscriber) flush() {
	s.mu.Lock()
	s.flushing = true
	s.mu.Unlock()
	s.notify()
}

// settled waits until there is nothing to send, or no way to.
func (s *subscriber) settled(ctx context.Context) {
	s.mu.Lock()
	done := make(chan struct{})
	if len(s.queue) == 0 && !s.sending || s.failing {
		close(done)
	} else {
		s.settling = append(s.settling, done)
	}
	s.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	case <-s.feed.ctx.Done():
	}
}

// settle tells those who wait. s.mu is held.
func (s *subscriber) settle() {
	for _, c := range s.settling {
		close(c)
	}
	s.settling = nil
}

// run sends batches as they become due, until ctx ends.
func (s *subscriber) run(ctx context.Context) {
	defer func() {
		s.http.CloseIdleConnections()
		s.hangUp()
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		b := s.next(time.Now())
		if b.events != nil {
			if b.lost != nil {
				s.feed.config.Dropped(*b.lost)
			}
			s.deliver(ctx, b)
			continue
		}
		timer.Reset(b.due)
		select {
		case <-s.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// batch is what is sent at once.
type batch struct {
	events [][]byte
	to     Destination
	lost   *Event        // that tells of what was lost before it
	due    time.Duration // without events: when there may be some
}

// next takes what is due.
func (s *subscriber) next(now time.Time) batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending = false
	if len(s.queue) == 0 {
		s.settle()
		return batch{due: time.Hour}
	}
	if age := now.Sub(s.since); age < s.sub.Timeout && !s.full() && !s.flushing {
		return batch{due: s.sub.Timeout - age}
	}
	n, size := 0, 0
	for n < len(s.queue) && n < s.sub.MaxItems && (n == 0 || size+len(s.queue[n]) <= s.sub.MaxBytes) {
		size += len(s.queue[n])
		n++
	}
	b := batch{events: slices.Clone(s.queue[:n]), to: s.sub.Destination}
	s.queue = slices.Delete(s.queue, 0, n)
	s.size, s.since = s.size-size, now
	if s.lost > 0 {
		e := dropped(now, s.lost, s.lostSize)
		s.lost, s.lostSize, b.lost = 0, 0, &e
		b.events = append(b.events, render(e, s.sub.Schema))
	}
	s.sending = true
	return b
}

// deliver sends a batch until it is taken, or ctx ends.
func (s *subscriber) deliver(ctx context.Context, b batch) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		err := s.send(ctx, b.to, b.events)
		s.mu.Lock()
		s.failing = err != nil
		if err != nil {
			s.settle()
		}
		flushing := s.flushing
		s.mu.Unlock()
		if err == nil || ctx.Err() != nil {
			return
		}
		s.feed.config.Log.Debug("telemetry is not taken", "extension", s.name, "error", err)
		if flushing {
			pause = minPause // the end is near
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// send makes one attempt.
func (s *subscriber) send(ctx context.Context, to Destination, events [][]byte) error {
	if to.URL == "" {
		return s.write(ctx, to.Port, append(bytes.Join(events, []byte{'\n'}), '\n'))
	}
	body := slices.Concat([]byte{'['}, bytes.Join(events, []byte{','}), []byte{']'})
	r, err := http.NewRequestWithContext(ctx, to.Method, to.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	reply, err := s.http.Do(r)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(reply.Body, maxReply)) // the status is all that counts
	if reply.StatusCode < 200 || reply.StatusCode > 299 {
		return fmt.Errorf("%s %s: %s", to.Method, to.URL, reply.Status)
	}
	return nil
}

// write sends lines over the one connection, which is made anew after an error.
func (s *subscriber) write(ctx context.Context, port int, lines []byte) (err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if s.tcp == nil {
		if s.tcp, err = s.feed.config.Dial(ctx, port); err != nil {
			s.tcp = nil
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = s.tcp.SetWriteDeadline(time.Unix(1, 0)) }) // ends the write
	_, err = s.tcp.Write(lines)
	if !stop() {
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil {
		s.hangUp()
	}
	return err
}

func (s *subscriber) hangUp() {
	if s.tcp != nil {
		_ = s.tcp.Close()
		s.tcp = nil
	}
}
