package logs

import (
	"cmp"
	"container/heap"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiln/internal/lambda"
)

const (
	// DefaultLimit and MaxLimit bound the events of a page.
	DefaultLimit = 1000
	// MaxLimit is CloudWatch's.
	MaxLimit = 10000
	// maxPageBytes bounds the messages of a page; a page has at least one event. It
	// is CloudWatch's.
	maxPageBytes = 1 << 20
	// maxScan is after how much of a log, uncompressed, a page ends, whatever was
	// found in it: a filter that matches little must not keep its caller for long.
	maxScan = 64 << 20
	// maxNamed bounds Query.Streams; it is CloudWatch's.
	maxNamed = 100
)

// Event is one line of a log, or what its writer framed as one message.
type Event struct {
	Stream   string
	Time     time.Time // in UTC
	Message  string    // bytes as they were written; not always UTF-8
	Sequence int64     // unique within the store, rising in the order of arrival
}

// Arrived is when the event came.
func (e Event) Arrived() time.Time { return arrival(e.Sequence) }

// Query asks for events of one group.
type Query struct {
	Scope        lambda.Scope
	Group        string
	Streams      []string                  // none: all
	StreamPrefix string                    // of the streams' names; "" for all
	Start, End   time.Time                 // from Start to before End; zero is open
	Match        func(message []byte) bool // nil: all; it must not keep message
	NewestFirst  bool
	Limit        int    // 0: DefaultLimit; at most MaxLimit
	Beyond       Place  // the list begins after this place; zero: at its beginning
	Cursor       string // of a page of the same query; "" begins
}

// Place is where an event is, or could be, in the order of time and arrival.
type Place struct{ Time, Sequence int64 } // nanoseconds since 1970; Event.Sequence

// Place returns where the event is.
func (e Event) Place() Place { return Place{e.Time.UnixNano(), e.Sequence} }

// Page is a part of an answer.
type Page struct {
	Events []Event // by time, then by arrival; the other way round if newest first
	// Next continues the list; "" at its end. The list is of the events that had
	// arrived when its first page was read: pages neither lose nor repeat one
	// while others arrive.
	Next string
	// Follow asks for what arrived after the list was begun, whatever its time.
	// Use it once Next is "", and Wait for something to be there.
	Follow string
}

// cursor is a place in a list of the events with since < sequence <= upTo.
type cursor struct {
	since, upTo int64
	time, seq   int64 // the list goes on after this event; seq 0: it begins
}

func (c cursor) String() string {
	return "1-" + strconv.FormatInt(c.since, 36) + "-" + strconv.FormatInt(c.upTo, 36) + "-" + strconv.FormatUint(uint64(c.time), 36) + "-" + strconv.FormatInt(c.seq, 36)
}

func parseCursor(s string) (c cursor, err error) {
	if s == "" {
		return c, nil
	}
	parts := strings.Split(s, "-")
	if len(parts) != 5 || parts[0] != "1" {
		return c, ErrCursor
	}
	var n [4]uint64
	for i := range n {
		if n[i], err = strconv.ParseUint(parts[i+1], 36, 64); err != nil {
			return c, ErrCursor
		}
	}
	return cursor{since: int64(n[0]), upTo: int64(n[1]), time: int64(n[2]), seq: int64(n[3])}, nil
}

// Query returns a page of events, those included that were appended before the
// call. It fails with ErrNoGroup and ErrCursor.
func (s *Store) Query(ctx context.Context, q Query) (Page, error) {
	c, err := parseCursor(q.Cursor)
	if err != nil {
		return Page{}, err
	}
	if len(q.Streams) > maxNamed {
		return Page{}, fmt.Errorf("query logs of %s: %d streams were named, at most %d may be", q.Group, len(q.Streams), maxNamed)
	}
	if q.Cursor == "" {
		c.time, c.seq = q.Beyond.Time, q.Beyond.Sequence
	}
	if c.upTo == 0 {
		if err := s.Flush(ctx); err != nil && !errors.Is(err, errClosed) {
			s.cfg.Log.Debug("logs are read although waiting ones could not be written", "error", err)
		}
		s.mu.Lock()
		c.upTo = s.written
		s.mu.Unlock()
	}
	p := newPage(q, c)
	err = s.read(func(db *database) error { return s.fill(ctx, db, q, p) })
	if err != nil {
		return Page{}, fmt.Errorf("query logs of %s: %w", q.Group, err)
	}
	return p.page(), nil
}

// fill reads chunks in the order of time until none can have an event of the page.
func (s *Store) fill(ctx context.Context, db *database, q Query, p *pageBuilder) error {
	id, retention, err := db.group(ctx, q.Scope, q.Group)
	if err != nil {
		return err
	}
	if retention > 0 { // what is older may not be removed yet
		p.from = max(p.from, nanos(time.Now().AddDate(0, 0, -retention)))
	}
	conn, err := db.read.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	where := []string{"c.group_id = ?", "c.last_seq > ?"}
	args := []any{id, p.since}
	from, to := p.from, p.to
	if len(q.Streams) > 0 {
		first, last, marks, names, err := namedStreams(ctx, conn, id, q.Streams)
		if err != nil {
			return err
		}
		from, to = max(from, first), min(to, last)
		where = append(where, "s.name IN ("+marks+")")
		args = append(args, names...)
	}
	if q.StreamPrefix != "" {
		where = append(where, "s.name >= ?", "s.name < ?")
		args = append(args, q.StreamPrefix, q.StreamPrefix+lastRune)
	}
	where = append(where, "c.first_time >= ?", "c.last_time >= ?", "c.first_time <= ?")
	args = append(args, from-chunkSpan, from, to)
	index, order := "chunk_time", "c.first_time"
	if p.since > 0 {
		index = "chunk_seq" // few chunks have arrived since
	}
	if q.NewestFirst {
		order += " DESC"
	}
	load, err := conn.PrepareContext(ctx, "SELECT base_time, base_seq, data FROM chunk WHERE id = ?")
	if err != nil {
		return err
	}
	defer load.Close()
	rows, err := conn.QueryContext(ctx, "SELECT c.id, c.first_time, s.name FROM chunk c INDEXED BY "+index+" JOIN stream s ON s.id = c.stream_id WHERE "+strings.Join(where, " AND ")+" ORDER BY "+order, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var raw []byte
	var data sql.RawBytes
	scanned := 0
	for rows.Next() {
		var chunk, first int64
		var stream string
		if err := rows.Scan(&chunk, &first, &stream); err != nil {
			return err
		}
		if p.beyond(first) || scanned > maxScan && p.end(first) {
			break
		}
		raw, err = s.loadChunk(ctx, load, chunk, stream, p, raw, data)
		if err != nil {
			return err
		}
		scanned += len(raw)
	}
	return rows.Err()
}

// loadChunk offers the chunk's events to the page. It returns raw to be used again.
func (s *Store) loadChunk(ctx context.Context, load *sql.Stmt, chunk int64, stream string, p *pageBuilder, raw []byte, data sql.RawBytes) ([]byte, error) {
	rows, err := load.QueryContext(ctx, chunk)
	if err != nil {
		return raw, err
	}
	defer rows.Close()
	if !rows.Next() {
		return raw, rows.Err() // evicted since
	}
	var baseTime, baseSeq int64
	if err := rows.Scan(&baseTime, &baseSeq, &data); err != nil {
		return raw, err
	}
	raw, err = s.decoder.DecodeAll(data, raw[:0])
	if err == nil {
		err = eachEvent(raw, baseTime, baseSeq, func(when, seq int64, message []byte) bool {
			if seq > p.upTo {
				return false
			}
			p.offer(stream, when, seq, message)
			return true
		})
	}
	if err != nil {
		// One chunk is lost; the others are not.
		s.cfg.Log.Error("a chunk of logs is damaged and left out", "stream", stream, "chunk", chunk, "error", err)
	}
	return raw, nil
}

// namedStreams returns the streams' names as arguments, and the times of their
// first and last event, which bound where to look.
func namedStreams(ctx context.Context, conn *sql.Conn, group int64, streams []string) (first, last int64, marks string, names []any, err error) {
	marks = strings.TrimSuffix(strings.Repeat("?,", len(streams)), ",")
	for _, name := range streams {
		names = append(names, name)
	}
	err = conn.QueryRowContext(ctx, "SELECT coalesce(min(first_time), 0), coalesce(max(last_time), 0) FROM stream WHERE group_id = ? AND name IN ("+marks+")",
		append([]any{group}, names...)...).Scan(&first, &last)
	return first, last, marks, names, err
}

// pageBuilder keeps the first events of a list, offered in any order: a heap
// with the last of them on top.
type pageBuilder struct {
	cursor
	from, to int64 // times, both included
	newest   bool
	limit    int
	match    func([]byte) bool

	events []Event
	bytes  int
	full   bool  // an event was turned away
	edge   Place // full: the first of those turned away
	ended  bool  // at edge, however many events there are
}

func newPage(q Query, c cursor) *pageBuilder {
	p := &pageBuilder{cursor: c, from: math.MinInt64 / 2, to: math.MaxInt64 / 2, newest: q.NewestFirst, limit: q.Limit, match: q.Match}
	if p.limit <= 0 {
		p.limit = DefaultLimit
	}
	p.limit = min(p.limit, MaxLimit)
	if !q.Start.IsZero() {
		p.from = nanos(q.Start)
	}
	if !q.End.IsZero() {
		p.to = nanos(q.End) - 1
	}
	if c.seq != 0 && p.newest {
		p.to = min(p.to, c.time)
	} else if c.seq != 0 {
		p.from = max(p.from, c.time)
	}
	return p
}

// order compares places in the order of the list.
func (p *pageBuilder) order(a, b Place) int {
	n := cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Sequence, b.Sequence))
	if p.newest {
		return -n
	}
	return n
}

// beyond tells that no chunk from one beginning at first on can have an event of the page.
func (p *pageBuilder) beyond(first int64) bool {
	if !p.full {
		return false
	}
	if p.newest {
		return first+chunkSpan < p.edge.Time
	}
	return first > p.edge.Time
}

// end ends the page before what chunks from one beginning at first on may have,
// unless that is all of it.
func (p *pageBuilder) end(first int64) bool {
	edge := Place{first, 1}
	if p.newest {
		edge = Place{first + chunkSpan, math.MaxInt64}
	}
	if !p.newest && edge.Time <= p.from || p.newest && edge.Time >= p.to {
		return false
	}
	if p.full && p.order(p.edge, edge) <= 0 {
		return true // it ends before that
	}
	p.events = slices.DeleteFunc(p.events, func(e Event) bool { return p.order(e.Place(), edge) >= 0 })
	p.full, p.ended, p.edge = true, true, edge
	return true
}

func (p *pageBuilder) offer(stream string, when, seq int64, message []byte) {
	at := Place{when, seq}
	switch {
	case seq <= p.since || when < p.from || when > p.to:
		return
	case p.cursor.seq != 0 && p.order(at, Place{p.cursor.time, p.cursor.seq}) <= 0:
		return
	case p.full && p.order(at, p.edge) >= 0:
		return
	case p.match != nil && !p.match(message):
		return
	}
	heap.Push(p, Event{Stream: stream, Time: fromNanos(when), Message: string(message), Sequence: seq})
	p.bytes += len(message)
	for len(p.events) > p.limit || p.bytes > maxPageBytes && len(p.events) > 1 {
		e := heap.Pop(p).(Event)
		p.bytes -= len(e.Message)
		p.full, p.edge = true, e.Place()
	}
}

func (p *pageBuilder) page() Page {
	slices.SortFunc(p.events, func(a, b Event) int { return p.order(a.Place(), b.Place()) })
	page := Page{Events: p.events, Follow: cursor{since: p.upTo}.String()}
	if p.full {
		last := p.edge
		if !p.ended {
			last = p.events[len(p.events)-1].Place()
		}
		page.Next = cursor{since: p.since, upTo: p.upTo, time: last.Time, seq: last.Sequence}.String()
	}
	return page
}

// heap.Interface, for container/heap.

func (p *pageBuilder) Len() int { return len(p.events) }
func (p *pageBuilder) Less(i, j int) bool {
	return p.order(p.events[i].Place(), p.events[j].Place()) > 0
}
func (p *pageBuilder) Swap(i, j int) { p.events[i], p.events[j] = p.events[j], p.events[i] }
func (p *pageBuilder) Push(x any)    { p.events = append(p.events, x.(Event)) }
func (p *pageBuilder) Pop() any {
	e := p.events[len(p.events)-1]
	p.events = p.events[:len(p.events)-1]
	return e
}
