package logs

import (
	"encoding/binary"
	"errors"
	"time"

	"kiln/internal/lambda"
)

// A chunk is events of one stream in the order of their sequence. Each is
//
//	uvarint  difference of its sequence from the one before
//	varint   difference of its time from the one before, in nanoseconds
//	uvarint  length of its message
//	         the message
//
// The first differs from the chunk's base. While a chunk is small, further
// frames are appended to it: zstd frames in a row decode as one.
const (
	// chunkBytes is where a chunk ends, uncompressed; a query decompresses whole chunks.
	chunkBytes = 256 << 10
	// extendBytes is how long, compressed, a chunk may be and still be appended
	// to, which writes it again.
	extendBytes = 8 << 10
	// chunkSpan bounds the time between a chunk's earliest and latest event, so
	// that a query need not look further back than this for chunks that reach
	// into its range.
	chunkSpan = int64(10 * time.Minute)
	// maxChunkBytes bounds what a chunk may decompress to: one event above chunkBytes, and room.
	maxChunkBytes = chunkBytes + 2*lambda.MaxLogEvent
	// chunkOverhead is what a chunk takes in the database beside its data, about.
	chunkOverhead = 150
)

var errChunk = errors.New("a chunk of logs is damaged")

// openChunk is a stream's last chunk; id 0: the next event begins another.
type openChunk struct {
	db               *database // the one it is in; another may have replaced it
	id               int64
	first, last      int64 // earliest and latest time
	lastTime, lastSq int64 // of the last event, for differences
	raw, size        int   // bytes uncompressed and compressed
}

// accepts tells whether an event of that time may be appended.
func (c *openChunk) accepts(when int64) bool {
	return c.id != 0 && c.raw < chunkBytes && c.size < extendBytes && c.spans(when)
}

func (c *openChunk) spans(when int64) bool {
	return max(c.last, when)-min(c.first, when) <= chunkSpan
}

func appendEvent(b []byte, seqDiff, timeDiff int64, message []byte) []byte {
	b = binary.AppendUvarint(b, uint64(seqDiff))
	b = binary.AppendVarint(b, timeDiff)
	b = binary.AppendUvarint(b, uint64(len(message)))
	return append(b, message...)
}

// eachEvent calls f for the events of a decompressed chunk until it returns
// false. The message is valid during the call.
func eachEvent(raw []byte, baseTime, baseSeq int64, f func(when, seq int64, message []byte) bool) error {
	when, seq := baseTime, baseSeq
	for len(raw) > 0 {
		s, n := binary.Uvarint(raw)
		if n <= 0 {
			return errChunk
		}
		raw = raw[n:]
		t, n := binary.Varint(raw)
		if n <= 0 {
			return errChunk
		}
		raw = raw[n:]
		length, n := binary.Uvarint(raw)
		if n <= 0 || length > uint64(len(raw)-n) {
			return errChunk
		}
		raw = raw[n:]
		seq += int64(s)
		when += t
		if !f(when, seq, raw[:length]) {
			return nil
		}
		raw = raw[length:]
	}
	return nil
}
