package environment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"kiln/internal/lambda"
	"kiln/internal/telemetry/delivery"
)

// readSize is how much is taken from a pipe at once: the kernel's pipe size.
const readSize = 64 << 10

// frameHeader is type, length and time of a telemetry frame.
// The format is that of AWS's own runtime clients.
const frameHeader = 16

const (
	frameMagic = 0xa55a0000
	frameMask  = 0xffff0000
)

// Sink takes log events, in order, without blocking on disk. It copies the message.
type Sink interface {
	Append(at time.Time, message []byte)
}

// output turns what the processes of an environment write into log events: a
// line of stdout or stderr each, or a frame of the telemetry descriptor. It
// belongs to one environment and outlives resets of its runtime.
type output struct {
	sink       Sink
	structured bool // lines that are JSON are telemetry as such
	least      applicationLevel

	mu   sync.Mutex
	tail *tail          // guarded by mu; of the running invocation, when its caller wants it
	last time.Time      // guarded by mu; of the latest event
	feed *delivery.Feed // guarded by mu; nil: nobody follows, or can
}

// source is an output as one process writes it.
type source struct {
	*output
	kind delivery.Kind
}

// print is line for what was printed: below the function's level, only those who
// follow get it.
func (s source) print(message []byte) {
	s.line(time.Now(), message, s.kind != delivery.Function || s.least == anyLevel || levelOf(message) >= s.least)
}

// line logs what a process wrote, and hands it to those who follow.
func (s source) line(at time.Time, message []byte, logged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if logged {
		at = s.logLocked(at, message)
	}
	if s.feed != nil {
		s.feed.Publish(delivery.Line(at, s.kind, message, s.structured))
	}
}

// follow has a feed get what is written from now on; nil ends that.
func (o *output) follow(feed *delivery.Feed) {
	o.mu.Lock()
	o.feed = feed
	o.mu.Unlock()
}

func (o *output) followed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.feed != nil
}

// publish hands on what the platform tells.
func (o *output) publish(e delivery.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.feed != nil {
		o.feed.Publish(e)
	}
}

// log writes one event, in the order of the calls.
func (o *output) log(message string) { o.logAt(time.Now(), []byte(message)) }

func (o *output) logAt(at time.Time, message []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked(at, message)
}

// logLocked is logAt for who holds o.mu. It returns the event's time.
func (o *output) logLocked(at time.Time, message []byte) time.Time {
	if o.tail != nil {
		o.tail.write(message)
	}
	// A runtime's clock has milliseconds, so that its first line of an invocation
	// would be older than START; what was read earlier was written earlier.
	if at.Before(o.last) {
		at = o.last
	}
	o.last = at
	o.sink.Append(at, message)
	return at
}

// keepTail starts or, with nil, ends the copying of events.
func (o *output) keepTail(t *tail) {
	o.mu.Lock()
	o.tail = t
	o.mu.Unlock()
}

// tail keeps the last lambda.MaxTailLog bytes.
type tail struct{ buf []byte }

func (t *tail) write(message []byte) {
	t.buf = append(t.buf, message...)
	if len(message) == 0 || message[len(message)-1] != '\n' {
		t.buf = append(t.buf, '\n')
	}
	if over := len(t.buf) - lambda.MaxTailLog; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
}

// pipes are the outputs of one process: stdout, stderr, and of a runtime telemetry.
type pipes struct {
	readers []*pipe
	writers []*os.File
	done    sync.WaitGroup
}

func newPipes(s source) (*pipes, error) {
	p := &pipes{}
	count := 3
	if s.kind == delivery.Extension {
		count = 2
	}
	for i := range count {
		r, w, err := os.Pipe()
		if err != nil {
			p.closeWriters()
			p.close()
			return nil, err
		}
		p.readers = append(p.readers, &pipe{file: r, out: s, framed: i == 2})
		p.writers = append(p.writers, w)
	}
	p.run()
	return p, nil
}

// readPipes are those of a process that runs already: standard output, standard
// error and telemetry, as many as there are.
func readPipes(s source, files []*os.File) *pipes {
	p := &pipes{}
	for i, f := range files {
		p.readers = append(p.readers, &pipe{file: f, out: s, framed: i == 2})
	}
	p.run()
	return p
}

func (p *pipes) run() {
	for _, r := range p.readers {
		p.done.Go(r.run)
	}
}

// closeWriters gives up our copies once the process has its own.
func (p *pipes) closeWriters() {
	for _, w := range p.writers {
		_ = w.Close() // a pipe holds nothing that a close could lose
	}
}

// drain makes everything that was written so far an event, even half a line.
func (p *pipes) drain() {
	for _, r := range p.readers {
		r.drain()
	}
}

// close ends the readers, also when a process that escaped still holds the other end.
func (p *pipes) close() {
	for _, r := range p.readers {
		_ = r.file.Close()
	}
	p.done.Wait()
}

// pipe is the read end of one output.
type pipe struct {
	file   *os.File
	out    source
	framed bool

	mu   sync.Mutex
	rest []byte // guarded by mu; what is no whole event yet
}

// buffers are shared: an environment that is silent keeps none.
var buffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// A process that prints without end costs the daemon as much as it costs itself, and more
// where each line is read for itself. Who writes again and again within a moment is read
// every floodPause, or when there is as much as a pipe holds; one such pipe is read at a time, and
// the next after floodRest times as long as that took, so that all of them together take a
// quarter of a processor. Whose pipe is full waits.
const (
	floodReads = 8 // in a row, each within a moment of the last
	moment     = time.Millisecond
	floodPause = 5 * time.Millisecond
	floodRest  = 3
)

// flood is held by who reads such a pipe.
var flood = make(chan struct{}, 1)

// run reads until the writers are gone or the file is closed.
func (p *pipe) run() {
	conn, err := p.file.SyscallConn()
	var last time.Time
	n := 0
	for quick, ended := 0, false; err == nil && !ended; {
		flooding := quick >= floodReads
		if flooding {
			if n < readSize {
				time.Sleep(floodPause)
			}
			flood <- struct{}{}
		}
		began := time.Now()
		// What was read is events before p.mu is free, so that drain, which does the
		// same, never meets other bytes.
		err = conn.Read(func(fd uintptr) bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			began = time.Now()
			n, ended = p.take(int(fd))
			return n > 0 || ended || flooding
		})
		switch {
		case flooding:
			time.Sleep(floodRest * time.Since(began))
			<-flood
			if n == 0 {
				quick = 0
			}
		case began.Sub(last) < moment:
			quick++
		default:
			quick = 0
		}
		last = began
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = splitLines(p.out, p.rest, true)
}

// drain reads what a pipe can hold; a process that goes on writing has no end.
func (p *pipe) drain() {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = conn.Control(func(fd uintptr) {
		for all := 0; all < 2*readSize; {
			n, _ := p.take(int(fd))
			if n == 0 {
				break
			}
			all += n
		}
	})
	if !p.framed { // half a frame is one that a thread of the function is writing
		p.rest = splitLines(p.out, p.rest, true)
	}
}

func (p *pipe) split(data []byte) (rest []byte) {
	if p.framed {
		return splitFrames(p.out, data)
	}
	return splitLines(p.out, data, false)
}

// take reads some of what is there, and reports whether the pipe has ended.
func (p *pipe) take(fd int) (n int, ended bool) {
	if ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}; !readable(ready) {
		return 0, false
	}
	buf := buffers.Get().(*[readSize]byte)
	defer buffers.Put(buf)
	n, err := unix.Read(fd, buf[:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(fd, buf[:])
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, false
	case err != nil || n == 0:
		return 0, true
	case len(p.rest) == 0:
		p.rest = bytes.Clone(p.split(buf[:n]))
	default:
		p.rest = p.split(append(p.rest, buf[:n]...))
	}
	return n, false
}

// readable asks without waiting. Most often nothing is there, and asking is all it takes.
func readable(fds []unix.PollFd) bool {
	n, err := unix.Poll(fds, 0)
	return n > 0 || err != nil
}

// splitLines makes each line an event. Without flush the last, unfinished line is returned.
func splitLines(s source, data []byte, flush bool) []byte {
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			break
		}
		s.print(text(data[:i]))
		data = data[i+1:]
	}
	if len(data) > 0 && (flush || len(data) >= lambda.MaxLogEvent) {
		s.print(text(data))
		data = nil
	}
	return data
}

// splitFrames makes each telemetry frame an event. What is not a frame is taken for lines.
func splitFrames(s source, data []byte) []byte {
	for len(data) >= frameHeader {
		size := int(binary.BigEndian.Uint32(data[4:8]))
		if binary.BigEndian.Uint32(data)&frameMask != frameMagic || size > lambda.MaxLogEvent+frameHeader {
			return splitLines(s, data, false)
		}
		if len(data) < frameHeader+size {
			break
		}
		at := time.UnixMicro(int64(binary.BigEndian.Uint64(data[8:16])))
		if d := time.Since(at); d < -time.Minute || d > time.Hour {
			at = time.Now() // a clock set by the function is not ours
		}
		s.line(at, text(bytes.TrimSuffix(data[frameHeader:frameHeader+size], []byte{'\n'})), true)
		data = data[frameHeader+size:]
	}
	return data
}

// text makes bytes of any kind valid UTF-8.
func text(b []byte) []byte {
	if utf8.Valid(b) {
		return b
	}
	return bytes.ToValidUTF8(b, []byte("\uFFFD"))
}
