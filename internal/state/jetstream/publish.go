package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kiln/internal/state"
)

const (
	// minBatch is from how many waiting events on an atomic batch is faster than as
	// many messages, measured (BenchmarkBatch): the server stages it in files of its
	// own, which costs about as much as a dozen messages however large it is.
	minBatch = 16
	// gatherShare is which part of the time that a batch took is waited, at most, for
	// its publishers to come back: those who wait for an answer before they publish
	// again would else be late for every second batch.
	gatherShare = 8
	// maxBatch and maxBatchBytes bound one. The server stages a batch in memory, and
	// writing many bytes twice costs more than the syncs that it saves.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	// peekBytes is from how many bytes on Peek reads no further page.
	peekBytes = 32 << 20
	// headerRoom is what the headers of an event take of maxPayload, at most.
	headerRoom = 4 << 10
)

// publication is an event on its way to the disk.
type publication struct {
	message *nats.Msg
	done    chan error // gets the outcome; has room for it
}

// Publish returns once the event is on disk. When ctx ends first, it may be there
// or not. What arrives while others are being written is written together.
func (q *Queue) Publish(ctx context.Context, lane string, event []byte) error {
	err := checkKey(lane)
	if err != nil {
		return err
	}
	if len(event) > maxPayload-headerRoom {
		return fmt.Errorf("publish to %s: the event has %d bytes: at most %d are possible", lane, len(event), maxPayload-headerRoom)
	}
	if err = q.engine.cfg.Free(); err == nil {
		err = q.put(ctx, messageOf(Event{Subject: lane, Event: event}))
	}
	if err != nil {
		return fmt.Errorf("publish to %s: %w", lane, err)
	}
	return nil
}

// put stores a message with those that come at the same time.
func (q *Queue) put(ctx context.Context, m *nats.Msg) error {
	p := &publication{message: m, done: make(chan error, 1)}
	q.publishing.Lock()
	q.queued = append(q.queued, p)
	if !q.busy {
		q.busy = true
		q.flushing.Go(q.flush)
	}
	q.publishing.Unlock()
	select {
	case q.grown <- struct{}{}:
	default:
	}
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// flush writes what is queued until nothing is.
func (q *Queue) flush() {
	for {
		begin := time.Now()
		q.publishing.Lock()
		batch := q.queued[:portion(q.queued)]
		q.queued = q.queued[len(batch):]
		if len(batch) == 0 {
			q.queued, q.busy = nil, false
			q.publishing.Unlock()
			return
		}
		q.publishing.Unlock()
		q.write(batch)
		if len(batch) >= minBatch {
			q.gather(len(batch), time.Since(begin)/gatherShare)
		}
	}
}

// gather waits until as many events are queued, or for a time.
func (q *Queue) gather(enough int, most time.Duration) {
	late := time.NewTimer(most)
	defer late.Stop()
	for {
		q.publishing.Lock()
		n := len(q.queued)
		q.publishing.Unlock()
		if n >= enough {
			return
		}
		select {
		case <-q.grown:
		case <-late.C:
			return
		}
	}
}

// portion says how many events of a queue are written at once.
func portion(queued []*publication) int {
	bytes := 0
	for i, p := range queued {
		bytes += len(p.message.Data)
		if i == maxBatch || i > 0 && bytes > maxBatchBytes {
			return i
		}
	}
	return len(queued)
}

func (q *Queue) write(batch []*publication) {
	// What is written does not end with the caller who happened to come first;
	// store has its own bound.
	ctx := context.Background()
	q.engine.writing.RLock()
	defer q.engine.writing.RUnlock()
	if len(batch) >= minBatch {
		messages := make([]*nats.Msg, len(batch))
		for i, p := range batch {
			messages[i] = p.message
		}
		_, err := q.engine.storeBatch(ctx, messages)
		var refused *jetstream.APIError
		if !errors.As(err, &refused) || errors.Is(err, state.ErrUnknown) {
			for _, p := range batch {
				p.done <- err
			}
			return
		}
		// Nothing is stored of it. A batch that could not be staged is only said to be
		// incomplete: one by one, each event gets its own answer.
		for _, m := range messages {
			unbatch(m)
		}
	}
	var singles sync.WaitGroup
	for _, p := range batch {
		singles.Go(func() {
			_, err := q.engine.store(ctx, p.message)
			p.done <- err
		})
	}
	singles.Wait()
}

// messageOf is the message that an event is stored as.
func messageOf(e Event) *nats.Msg {
	m := nats.NewMsg(queuePrefix + e.Subject)
	m.Data = e.Event
	if !e.Accepted.IsZero() {
		m.Header.Set(acceptedHeader, e.Accepted.UTC().Format(time.RFC3339Nano))
	}
	if e.Attempts > 0 {
		m.Header.Set(attemptsHeader, strconv.Itoa(e.Attempts))
	}
	if !e.Due.IsZero() {
		m.Subject = laterPrefix + e.Subject + "." + laterToken(e.Due, len(e.Event), e.Accepted)
		m.Header.Set(scheduleHeader, scheduleAt+e.Due.UTC().Format(time.RFC3339Nano))
		m.Header.Set(targetHeader, queuePrefix+e.Subject)
	}
	return m
}

// eventOf is messageOf the other way round.
func eventOf(m message) Event {
	e := Event{Event: m.data, Accepted: acceptedAt(m.header, m.time), Attempts: attemptsOf(m.header)}
	e.Subject, _ = laneOf(m.subject)
	if at, err := time.Parse(time.RFC3339Nano, strings.TrimPrefix(m.header.Get(scheduleHeader), scheduleAt)); err == nil {
		e.Due = at
	}
	return e
}

// laneOf splits a subject of the stream. token is that of an event that waits for its
// retry.
func laneOf(subject string) (lane, token string) {
	lane, later := strings.CutPrefix(subject, laterPrefix)
	if later {
		end := strings.LastIndexByte(lane, '.')
		return lane[:end], lane[end+1:]
	}
	return strings.TrimPrefix(subject, queuePrefix), ""
}

// laterToken ends the subject of an event that waits: when it is due, how large it is and
// when it was accepted, so that Lanes need not read it, and what makes it the only one.
func laterToken(due time.Time, size int, accepted time.Time) string {
	return fmt.Sprintf("%d-%d-%d-%s", due.UnixMilli(), size, accepted.UnixMilli(), uuid.NewString())
}

// parseLater is laterToken the other way round.
func parseLater(token string) (p state.PutOff, size uint64) {
	var n [3]int64
	for i := range n {
		var part string
		part, token, _ = strings.Cut(token, "-")
		var err error
		if n[i], err = strconv.ParseInt(part, 10, 64); err != nil {
			return state.PutOff{}, 0
		}
	}
	return state.PutOff{Due: time.UnixMilli(n[0]), Accepted: time.UnixMilli(n[2])}, uint64(max(0, n[1]))
}

// Lanes returns what waits. It reads nothing from disk.
func (q *Queue) Lanes(ctx context.Context, prefix string) (map[string]state.Backlog, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	folder := prefix[:strings.LastIndexByte(prefix, '.')+1] + ">"
	lanes, err := q.count(ctx, folder, folder)
	if err != nil {
		return nil, fmt.Errorf("count the events of %q: %w", prefix, err)
	}
	maps.DeleteFunc(lanes, func(lane string, _ state.Backlog) bool { return !strings.HasPrefix(lane, prefix) })
	return lanes, nil
}

// Backlog is Lanes of one lane.
func (q *Queue) Backlog(ctx context.Context, lane string) (state.Backlog, error) {
	if err := checkKey(lane); err != nil {
		return state.Backlog{}, err
	}
	lanes, err := q.count(ctx, lane, lane+".*")
	if err != nil {
		return state.Backlog{}, fmt.Errorf("count the events of %s: %w", lane, err)
	}
	return lanes[lane], nil
}

// count returns what waits in the lanes of the filters. Later ones come first: one that
// becomes due meanwhile is counted twice then, and not never.
func (q *Queue) count(ctx context.Context, due, later string) (map[string]state.Backlog, error) {
	lanes := map[string]state.Backlog{}
	for _, filter := range []string{laterPrefix + later, queuePrefix + due} {
		err := q.subjects(ctx, filter, func(subject string, n, average uint64) {
			lane, token := laneOf(subject)
			b := lanes[lane]
			if token != "" {
				p, size := parseLater(token)
				b.Later = append(b.Later, p)
				b.Bytes += size
			} else {
				b.Due += n
				b.Bytes += n * average
			}
			lanes[lane] = b
		})
		if err != nil {
			return nil, err
		}
	}
	return lanes, nil
}

// subjects calls each with the subjects that match, how many messages they have, and
// the average size of the stream's messages.
func (q *Queue) subjects(ctx context.Context, filter string, each func(subject string, n, average uint64)) error {
	for offset := 0; ; {
		var info struct {
			Total int `json:"total"`
			State struct {
				Messages uint64            `json:"messages"`
				Bytes    uint64            `json:"bytes"`
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
		}
		err := q.engine.api(ctx, "STREAM.INFO."+queueStream, struct {
			Filter string `json:"subjects_filter"`
			Offset int    `json:"offset"`
		}{filter, offset}, &info)
		if err != nil {
			return err
		}
		for subject, n := range info.State.Subjects {
			each(subject, n, info.State.Bytes/max(1, info.State.Messages))
		}
		offset += len(info.State.Subjects)
		if len(info.State.Subjects) == 0 || offset >= info.Total {
			return nil
		}
	}
}

// Peek returns up to n events that wait in a lane.
func (q *Queue) Peek(ctx context.Context, lane string, n int) ([]state.Waiting, error) {
	if err := checkKey(lane); err != nil {
		return nil, err
	}
	var list []state.Waiting
	bytes := 0
	for _, filter := range []string{queuePrefix + lane, laterPrefix + lane + ".*"} {
		for from, left := uint64(1), 1; left > 0 && len(list) < n && bytes < peekBytes; {
			begin := from
			var err error
			from, left, err = q.engine.readPage(ctx, queueStream, filter, from, min(n-len(list), pageMessages), func(m message) error {
				e := eventOf(m)
				bytes += len(e.Event)
				list = append(list, state.Waiting{Event: e.Event, Accepted: e.Accepted, Attempt: e.Attempts + 1, NotYet: e.Due})
				return nil
			})
			if err != nil {
				return nil, fmt.Errorf("look at the events of %s: %w", lane, err)
			}
			if from == begin {
				break
			}
		}
	}
	return list, nil
}

// Purge drops what waits in a lane. An event that is handed out is dropped too:
// its handler goes on, and what it says of it is of no consequence, unless it
// replaces it.
func (q *Queue) Purge(ctx context.Context, lane string) (dropped uint64, err error) {
	if err := checkKey(lane); err != nil {
		return 0, err
	}
	// Later ones first: one that becomes due meanwhile is then among the others.
	for _, filter := range []string{laterPrefix + lane + ".*", queuePrefix + lane} {
		n, err := q.engine.purge(ctx, queueStream, filter, 0)
		if err != nil {
			return dropped, fmt.Errorf("purge %s: %w", lane, err)
		}
		dropped += n
	}
	return dropped, nil
}
