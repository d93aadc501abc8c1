package lambda

import (
	"io"
	"sync/atomic"
)

// Stream is an answer that comes while the function still makes it. It keeps
// nothing: what is written waits for the reader, so that a slow reader slows the
// function. One goroutine writes, one reads; Close and Finish may come from others.
type Stream struct {
	r    *io.PipeReader
	w    *io.PipeWriter
	size atomic.Int64
	end  StreamEnd // before w is closed
}

// StreamEnd is how a stream ended.
type StreamEnd struct {
	// ErrorCode is "" for an answer that is whole, else an error type of the
	// platform, or of the function's own.
	ErrorCode string
	// ErrorDetails is an error document, or empty.
	ErrorDetails []byte
	LogTail      []byte // the last MaxTailLog bytes, when asked for
}

// NewStream returns a stream that somebody must finish, and somebody close.
func NewStream() *Stream {
	s := &Stream{}
	s.r, s.w = io.Pipe()
	return s
}

// Write hands p to the reader. It fails when the reader has left, or the stream
// was finished; p counts as written all the same.
func (s *Stream) Write(p []byte) (int, error) {
	s.size.Add(int64(len(p)))
	return s.w.Write(p)
}

// Size is how much was written.
func (s *Stream) Size() int64 { return s.size.Load() }

// Finish ends the stream for its reader, and every write. Call it once.
func (s *Stream) Finish(end StreamEnd) {
	s.end = end
	_ = s.w.Close() // never fails
}

// Read returns io.EOF once the stream is finished.
func (s *Stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// End is how the stream ended. Ask after Read returned io.EOF.
func (s *Stream) End() StreamEnd { return s.end }

// Close says that nobody reads any more.
func (s *Stream) Close() { _ = s.r.Close() } // never fails
