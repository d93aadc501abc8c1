package logs

import (
	"context"
	"fmt"
	"time"

	"kiln/internal/lambda"
)

// maxRecent bounds the streams that are remembered after events were put into
// them, so that the next ones need not begin a chunk. A remembered stream also
// takes events when it was dropped meanwhile because it had none left.
const maxRecent = 1024

// Entry is an event to be put.
type Entry struct {
	Time    time.Time
	Message string
}

// put is what somebody put and waits for.
type put struct {
	events, bytes int64
	done          chan struct{} // closed once they are in the database, or not
	err           error         // readable after done
}

// Put adds events to a stream that is there: all of them, in the database when it
// returns, or none. It fails with ErrNoGroup, ErrNoStream, ErrBusy and ErrFull.
func (s *Store) Put(ctx context.Context, scope lambda.Scope, group, stream string, events []Entry) error {
	st, err := s.recentStream(ctx, scope, group, stream)
	if err == nil {
		err = st.put(ctx, events)
	}
	if err != nil {
		return fmt.Errorf("put events into log stream %s of %s: %w", stream, group, err)
	}
	return nil
}

func (s *Store) recentStream(ctx context.Context, scope lambda.Scope, group, stream string) (*Stream, error) {
	s.mu.Lock()
	st := s.recent[streamKey{groupKey{scope, group}, stream}]
	s.mu.Unlock()
	if st != nil {
		return st, nil
	}
	if err := s.HasStream(ctx, scope, group, stream); err != nil {
		return nil, err
	}
	st = s.Stream(scope, group, stream)
	s.mu.Lock()
	defer s.mu.Unlock()
	if first := s.recent[st.key]; first != nil {
		return first, nil // another caller was faster
	}
	if len(s.recent) >= maxRecent {
		for key := range s.recent { // any; it only costs a chunk
			delete(s.recent, key)
			break
		}
	}
	s.recent[st.key] = st
	return st, nil
}

func (st *Stream) put(ctx context.Context, events []Entry) error {
	if st.store.cfg.Full() {
		return ErrFull
	}
	p := &put{events: int64(len(events)), done: make(chan struct{})}
	for _, e := range events {
		p.bytes += int64(len(e.Message))
	}
	if !st.enqueue(p, events) {
		// What waits is written, and that makes room.
		if err := st.store.Flush(ctx); err != nil {
			return err
		}
		if !st.enqueue(p, events) {
			return ErrBusy
		}
	}
	// Whoever writes now takes these along: their own error is what counts.
	_ = st.store.Flush(context.WithoutCancel(ctx))
	<-p.done
	return p.err
}

// enqueue queues all of the events, if there is room for all.
func (st *Stream) enqueue(p *put, events []Entry) bool {
	s, now := st.store, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groupLocked(st.key.group)
	if s.closed || g.queued+p.bytes+recordBytes*p.events > s.cfg.QueueBytes-s.queued {
		s.dropLocked(g)
		return false
	}
	s.stats.Events += p.events
	s.stats.Bytes += p.bytes
	for _, e := range events {
		s.addLocked(st, g, now, nanos(e.Time), []byte(e.Message))
	}
	st.puts = append(st.puts, p)
	st.dirtyLocked()
	return true
}
