package jetstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"kiln/internal/state"
)

// acceptedHeader is when an event was accepted that has been restored from a backup.
const acceptedHeader = "Kiln-Accepted"

// Event is one that waits in the queue.
type Event struct {
	Subject  string
	Event    []byte
	Accepted time.Time
	Attempts int       `json:",omitzero"` // deliveries so far, where it was stored anew since
	Due      time.Time `json:",omitzero"` // when its retry is, zero when it does not wait for one
}

// Snapshot is one point of all that the engine keeps: every commit is in it whole
// or not at all, and every blob that is named in it can be read until Close.
type Snapshot struct {
	Records []state.Record // in the order of their last changes
	Events  []Event        // one that was acknowledged while the snapshot was made may be in it

	engine *Engine
	blobs  map[string]object
}

// Snapshot takes one. Commits wait only for what was changed while all else was
// read, and for at, which is called at that point.
//
// The server's own snapshots are of one stream each, and their files hold what
// is deleted too.
func (e *Engine) Snapshot(ctx context.Context, at func() error) (_ *Snapshot, err error) {
	e.state.sweeping.RLock() // a marker that goes would bring back what it marks
	defer e.state.sweeping.RUnlock()
	records, events := map[string]message{}, map[uint64]message{}
	keep := func(m message) error { records[m.subject] = m; return nil }
	wait := func(m message) error { events[m.sequence] = m; return nil }
	nextRecord, err := e.readFrom(ctx, stateStream, ">", 1, keep)
	if err != nil {
		return nil, fmt.Errorf("take a snapshot of the records: %w", err)
	}
	nextEvent, err := e.readFrom(ctx, queueStream, ">", 1, wait)
	if err != nil {
		return nil, fmt.Errorf("take a snapshot of the events: %w", err)
	}
	e.writing.Lock()
	_, err = e.readFrom(ctx, stateStream, ">", nextRecord, keep)
	if err == nil {
		_, err = e.readFrom(ctx, queueStream, ">", nextEvent, wait)
	}
	if err == nil {
		err = at()
	}
	if err == nil {
		e.blob.pin()
	}
	e.writing.Unlock()
	if err != nil {
		return nil, fmt.Errorf("take a snapshot: %w", err)
	}
	s := &Snapshot{engine: e, blobs: map[string]object{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, m := range inOrder(maps.Values(records)) {
		if key, ok := strings.CutPrefix(m.subject, namePrefix); ok {
			o, err := parseObject(m)
			if errors.Is(err, state.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			s.blobs[key] = o
			continue
		}
		if m.header.Get(deletedHeader) == "" {
			s.Records = append(s.Records, state.Record{Key: strings.TrimPrefix(m.subject, statePrefix), Value: m.data, Revision: state.Revision(m.sequence)})
		}
	}
	for _, m := range inOrder(maps.Values(events)) {
		s.Events = append(s.Events, eventOf(m))
	}
	return s, nil
}

// Blobs lists the blobs.
func (s *Snapshot) Blobs() []string { return slices.Sorted(maps.Keys(s.blobs)) }

// Blob reads one, as Blob.Get does, though it was deleted since.
func (s *Snapshot) Blob(ctx context.Context, key string) (r io.ReadCloser, size int64) {
	b := s.engine.blob.open(ctx, key, s.blobs[key])
	return b, b.Size()
}

// Close lets go what the snapshot kept from being removed.
func (s *Snapshot) Close() { s.engine.blob.unpin() }

// Restore publishes an event of a snapshot, which stays as old as it is.
func (q *Queue) Restore(ctx context.Context, event Event) error {
	if err := checkKey(event.Subject); err != nil {
		return err
	}
	if _, err := q.engine.store(ctx, messageOf(event)); err != nil {
		return fmt.Errorf("restore an event of %s: %w", event.Subject, err)
	}
	return nil
}

// acceptedAt is when an event was accepted that was stored at a time.
func acceptedAt(h nats.Header, stored time.Time) time.Time {
	if t, err := time.Parse(time.RFC3339Nano, h.Get(acceptedHeader)); err == nil {
		return t
	}
	return stored
}

func inOrder(messages func(yield func(message) bool)) []message {
	return slices.SortedFunc(messages, func(a, b message) int { return int(int64(a.sequence) - int64(b.sequence)) })
}
