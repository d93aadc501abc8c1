package logs

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"kiln/internal/lambda"
)

const (
	// recordBytes is what a waiting event costs in memory beside its message.
	recordBytes = 40
	// Messages are copied into blocks, which grow from one size to the other, so
	// that a quiet stream takes little and nothing long is copied under the lock.
	minBlock = 512
	maxBlock = 64 << 10
	// urgentBytes waiting are written at once.
	urgentBytes = 1 << 20
)

// Stream appends to one log stream. Methods are safe for concurrent use. It
// needs no closing; two Streams of one name are the same stream.
type Stream struct {
	store *Store
	key   streamKey

	records []record // guarded by store.mu: waiting
	block   []byte   // guarded by store.mu: holds the last of their messages, and has room
	bytes   int64    // guarded by store.mu: of their messages
	lost    loss     // guarded by store.mu: not said yet
	dirty   bool     // guarded by store.mu: in store.dirty
	puts    []*put   // guarded by store.mu: whose events are among the records

	open openChunk // guarded by store.writing
}

type streamKey struct {
	group groupKey
	name  string
}

// record is an event that waits; its message is part of a block.
type record struct {
	seq, time int64
	message   []byte
}

// loss is what a stream lost since it last said so.
type loss struct {
	events, bytes int64
	time          int64 // of the last of them
	reason        string
}

// Why events are lost, as their stream says it.
const (
	lostToFlood = "they came faster than they could be written"
	lostToDisk  = "the disk is full or failing"
)

// Stream returns the stream of that name. Group and stream come into being with
// their first event.
func (s *Store) Stream(scope lambda.Scope, groupName, stream string) *Stream {
	// The strings may be parts of large ones, such as a request's body.
	return &Stream{store: s, key: streamKey{groupKey{scope, strings.Clone(groupName)}, strings.Clone(stream)}}
}

// Append adds an event. It copies message, never waits for the disk and never
// fails: what cannot be kept is counted, and the stream says so. A message
// longer than lambda.MaxLogEvent is cut, and says so.
func (st *Stream) Append(at time.Time, message []byte) {
	if len(message) > lambda.MaxLogEvent {
		message = cut(message)
	}
	size := int64(len(message)) + recordBytes
	now, when := time.Now(), nanos(at)
	s := st.store

	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Events++
	s.stats.Bytes += int64(len(message))
	if s.closed {
		s.stats.DroppedEvents++
		s.stats.DroppedBytes += int64(len(message))
		return
	}
	st.dirtyLocked()
	g := s.groupLocked(st.key.group)
	// A group may hold as much as is still free: one flood ends at half of the
	// queue, two at a third each, and a quiet function always finds room.
	if g.queued+size > s.cfg.QueueBytes-s.queued {
		s.loseLocked(st, 1, int64(len(message)), when, lostToFlood)
		signal(s.urgent)
		return
	}
	s.addLocked(st, g, now, when, message)
	if s.queued >= urgentBytes {
		signal(s.urgent)
	}
}

func (st *Stream) dirtyLocked() {
	if !st.dirty {
		st.dirty = true
		st.store.dirty = append(st.store.dirty, st)
		signal(st.store.wake)
	}
}

// addLocked queues an event that there is room for. Its sequence is when it
// arrived, in microseconds; of several at once each has one more.
func (s *Store) addLocked(st *Stream, g *group, now time.Time, when int64, message []byte) {
	s.seq = max(s.seq+1, now.UnixMicro())
	st.bytes += int64(len(message))
	st.records = append(st.records, record{seq: s.seq, time: when, message: st.copyLocked(message)})
	g.queued += int64(len(message)) + recordBytes
	s.queued += int64(len(message)) + recordBytes
}

func (st *Stream) copyLocked(message []byte) []byte {
	if len(st.block)+len(message) > cap(st.block) {
		size := min(max(2*cap(st.block), minBlock), maxBlock)
		st.block = make([]byte, 0, max(size, len(message)))
	}
	begin := len(st.block)
	st.block = append(st.block, message...)
	return st.block[begin:len(st.block):len(st.block)]
}

func (s *Store) loseLocked(st *Stream, events, bytes, when int64, reason string) {
	s.stats.DroppedEvents += events
	s.stats.DroppedBytes += bytes
	st.lost.events += events
	st.lost.bytes += bytes
	st.lost.time = when
	st.lost.reason = reason
}

// batch is what one stream has to write.
type batch struct {
	stream  *Stream
	group   *group
	records []record
	puts    []*put
	lost    loss  // said by one more record, the last
	bytes   int64 // of the messages, without that of lost
	size    int64 // what it takes of the queue
}

// take empties the queue into batches; the bytes stay counted until settle.
func (s *Store) take() []batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	batches := make([]batch, 0, len(s.dirty))
	for _, st := range s.dirty {
		g := s.groupLocked(st.key.group)
		g.users++ // until settle
		b := batch{stream: st, group: g, records: st.records, puts: st.puts, lost: st.lost, bytes: st.bytes}
		b.size = b.bytes + recordBytes*int64(len(b.records))
		if b.lost.events > 0 {
			s.seq++
			b.records = append(b.records, record{seq: s.seq, time: b.lost.time,
				message: fmt.Appendf(nil, "[kiln] %d log events (%d bytes) were dropped: %s", b.lost.events, b.lost.bytes, b.lost.reason)})
		}
		st.records, st.block, st.bytes, st.lost, st.dirty, st.puts = nil, nil, 0, loss{}, false, nil
		batches = append(batches, b)
	}
	s.dirty = nil
	s.taken = s.seq
	return batches
}

// settle gives the batches' place in the queue back, once they are written or lost.
func (s *Store) settle(batches []batch, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = s.taken // not earlier: a list ends here, and what is not yet readable would be lost to it
	for _, b := range batches {
		st, g := b.stream, b.group
		s.queued -= b.size
		g.queued -= b.size
		g.users--
		events, bytes := int64(len(b.records)), b.bytes
		for _, p := range b.puts {
			if err != nil { // who put them is told, instead of the stream
				events -= p.events
				bytes -= p.bytes
				s.stats.DroppedEvents += p.events
				s.stats.DroppedBytes += p.bytes
			}
			p.err = err
			close(p.done)
		}
		if err != nil {
			if b.lost.events > 0 { // its last record spoke of an earlier loss, which is told again
				events--
				st.lost.events += b.lost.events
				st.lost.bytes += b.lost.bytes
			}
			if n := len(b.records); n > 0 && (events > 0 || b.lost.events > 0) {
				s.loseLocked(st, events, bytes, b.records[n-1].time, lostToDisk)
			}
			s.dropLocked(g)
			continue
		}
		g.written = s.written
		if g.changed != nil {
			close(g.changed)
			g.changed = nil
		}
	}
}

// cut shortens a message to the limit of one event and says so at its end.
func cut(message []byte) []byte {
	mark := fmt.Sprintf(" [kiln] cut: the event had %d bytes", len(message))
	end := lambda.MaxLogEvent - len(mark)
	for end > 0 && end > lambda.MaxLogEvent-len(mark)-utf8.UTFMax && !utf8.RuneStart(message[end]) {
		end--
	}
	return append(message[:end:end], mark...)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Times outside these cannot be told in nanoseconds.
var (
	minTime = time.Unix(0, math.MinInt64/2)
	maxTime = time.Unix(0, math.MaxInt64/2)
)

// nanos is t in nanoseconds since 1970, as near as it can be told.
func nanos(t time.Time) int64 {
	switch {
	case t.Before(minTime):
		return minTime.UnixNano()
	case t.After(maxTime):
		return maxTime.UnixNano()
	}
	return t.UnixNano()
}

// arrival is when the event of a sequence came.
func arrival(seq int64) time.Time { return time.UnixMicro(seq).UTC() }

func fromNanos(n int64) time.Time { return time.Unix(0, n).UTC() }
