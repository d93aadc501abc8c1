package environment

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"kiln/internal/lambda"
	"kiln/internal/telemetry/delivery"
)

// These tests are inside the package, because the formats have no other door than
// a running process.

type event struct {
	at      time.Time
	message string
}

// events is a Sink.
type events []event

func (e *events) Append(at time.Time, message []byte) {
	*e = append(*e, event{at, string(message)})
}

func (e *events) messages() (list []string) {
	for _, x := range *e {
		list = append(list, x.message)
	}
	return list
}

func frame(at time.Time, message string) []byte {
	b := binary.BigEndian.AppendUint32(nil, frameMagic|3)
	b = binary.BigEndian.AppendUint32(b, uint32(len(message)))
	b = binary.BigEndian.AppendUint64(b, uint64(at.UnixMicro()))
	return append(b, message...)
}

func TestLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", lambda.MaxLogEvent)
	for _, c := range []struct {
		given, rest string
		flush       bool
		want        []string
	}{
		{"", "", false, nil},
		{"", "", true, nil},
		{"a\nb\n", "", false, []string{"a", "b"}},
		{"a\n\nb", "b", false, []string{"a", ""}},
		{"a\nb", "", true, []string{"a", "b"}},
		{"a\r\n", "", false, []string{"a\r"}},
		{"a\xffb\n", "", false, []string{"a\uFFFDb"}},
		{long[1:], long[1:], false, nil},
		{long, "", false, []string{long}}, // a line without end is not collected for ever
	} {
		var e events
		rest := splitLines(source{output: &output{sink: &e}}, []byte(c.given), c.flush)
		if diff := cmp.Diff(c.want, e.messages()) + cmp.Diff(c.rest, string(rest)); diff != "" {
			t.Errorf("%.20q: %s", c.given, diff)
		}
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Microsecond)
	whole := append(frame(now, "one\ntwo\n"), frame(now, "")...)
	for i := range len(whole) {
		var e events
		o := source{output: &output{sink: &e}}
		rest := splitFrames(o, whole[:i])
		if rest = splitFrames(o, append(bytes.Clone(rest), whole[i:]...)); len(rest) > 0 {
			t.Errorf("cut at %d: %q is left", i, rest)
		}
		if diff := cmp.Diff([]string{"one\ntwo", ""}, e.messages()); diff != "" || !e[0].at.Equal(now) {
			t.Errorf("cut at %d: %v, %s", i, e, diff)
		}
	}
	noBreak := time.UnixMicro(0x0102030405060708) // which has no byte that ends a line
	for what, c := range map[string]struct {
		given []byte
		want  []string
	}{
		"text":       {[]byte("no frame but a line\nand another\n"), []string{"no frame but a line", "and another"}},
		"after text": {append([]byte("a line of more than a frame's header\n"), frame(noBreak, "x")...), []string{"a line of more than a frame's header", string(text(frame(noBreak, "x")))}},
	} {
		var e events
		o := source{output: &output{sink: &e}}
		splitLines(o, splitFrames(o, c.given), true)
		if diff := cmp.Diff(c.want, e.messages()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	for _, wrong := range []time.Time{now.Add(-2 * time.Hour), now.Add(2 * time.Hour), time.UnixMicro(0)} {
		var e events
		splitFrames(source{output: &output{sink: &e}}, frame(wrong, "x"))
		if d := time.Since(e[0].at); d < 0 || d > time.Minute {
			t.Errorf("a clock that shows %v: the event is at %v", wrong, e[0].at)
		}
	}
}

// Events keep their order, whatever the function's clock says.
func TestEventsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	var e events
	o := source{output: &output{sink: &e}}
	o.log("START")
	splitFrames(o, frame(time.Now().Add(-time.Second), "line"))
	o.log("END")
	if diff := cmp.Diff([]string{"START", "line", "END"}, e.messages()); diff != "" {
		t.Error(diff)
	}
	for i := 1; i < len(e); i++ {
		if e[i].at.Before(e[i-1].at) {
			t.Errorf("%q is older than %q before it", e[i].message, e[i-1].message)
		}
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	var e events
	o := source{output: &output{sink: &e}}
	o.log("before")
	kept := &tail{}
	o.keepTail(kept)
	o.log("one")
	o.log("two\n")
	o.keepTail(nil)
	o.log("after")
	if got := string(kept.buf); got != "one\ntwo\n" {
		t.Errorf("the tail is %q", got)
	}
	o.keepTail(kept)
	for range 10_000 {
		o.log("0123456789")
	}
	if got := string(kept.buf); len(got) != lambda.MaxTailLog || !strings.HasSuffix(got, "\n0123456789\n") {
		t.Errorf("the tail of much has %d bytes and ends %q", len(got), got[len(got)-20:])
	}
}

// Whatever a function writes to the telemetry descriptor, in whatever pieces: no
// panic, no event beyond the limit, no memory without bound.
func FuzzFrames(f *testing.F) {
	f.Add(frame(time.Now(), "x"), 3)
	f.Add([]byte("text\n"), 1)
	f.Add(append(frame(time.Now(), "x"), "text"...), 20)
	f.Add([]byte{0xa5, 0x5a, 0, 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 16)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		if piece < 1 {
			piece = 1
		}
		var e events
		o := source{output: &output{sink: &e}}
		var rest []byte
		for len(data) > 0 {
			n := min(piece, len(data))
			rest = bytes.Clone(splitFrames(o, append(rest, data[:n]...)))
			data = data[n:]
			if len(rest) > lambda.MaxLogEvent+2*frameHeader+n {
				t.Fatalf("%d bytes are kept", len(rest))
			}
		}
		splitLines(o, rest, true)
		for _, x := range e {
			if !utf8.ValidString(x.message) {
				t.Fatalf("event %q", x.message)
			}
			// A byte that is no UTF-8 becomes three.
			if len(x.message) > 3*(lambda.MaxLogEvent+frameHeader+piece) {
				t.Fatalf("an event of %d bytes", len(x.message))
			}
		}
	})
}

// counter is a Sink that only counts.
type counter struct{ n atomic.Int64 }

func (c *counter) Append(time.Time, []byte) { c.n.Add(1) }

// TestFlood has processes that print without end: what they have printed is drained, and they
// are left at once.
func TestFlood(t *testing.T) {
	t.Parallel()
	var sink counter
	var all []*pipes
	var writers sync.WaitGroup
	for range 3 {
		p, err := newPipes(source{&output{sink: &sink, least: anyLevel}, delivery.Function})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
		writers.Go(func() {
			defer p.closeWriters()
			for {
				if _, err := p.writers[0].WriteString("x\n"); err != nil {
					return // nobody reads any more
				}
			}
		})
	}
	for sink.n.Load() < 100_000 {
		runtime.Gosched()
	}
	for _, p := range all {
		p.drain()
		p.close()
	}
	writers.Wait()
}
