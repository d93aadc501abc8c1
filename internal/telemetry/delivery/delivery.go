// Package delivery sends the telemetry of one execution environment to the
// extensions in it that subscribed, in batches, over HTTP or TCP. It keeps within
// its bounds whatever a subscriber does: one that is slow or gone loses telemetry
// and holds up nobody. It is neither the log nor a store. The runtimeapi package
// makes subscriptions of requests; the environment package publishes events.
//
// https://docs.aws.amazon.com/lambda/latest/dg/telemetry-api.html
package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// Schema is a form that events are told in.
type Schema string

// The schemas of the Telemetry API, and those of the older Logs API.
const (
	Telemetry20220701 Schema = "2022-07-01"
	Telemetry20221213 Schema = "2022-12-13"
	Telemetry20250129 Schema = "2025-01-29"
	Logs20200815      Schema = "2020-08-15"
	Logs20210318      Schema = "2021-03-18"
)

// Logs tells whether the schema is one of the Logs API.
func (s Schema) Logs() bool { return s == Logs20200815 || s == Logs20210318 }

// Kind is a type of events that one can subscribe to.
type Kind string

// The kinds. Function and Extension are also the types of their events; those of
// the platform begin with its name.
const (
	Platform  Kind = "platform"
	Function  Kind = "function"
	Extension Kind = "extension"
)

// The limits of a subscription's buffering, and what it is without: AWS's.
const (
	DefaultMaxItems, LeastMaxItems, MostMaxItems = 10_000, 1_000, 10_000
	DefaultMaxBytes, LeastMaxBytes, MostMaxBytes = 256 << 10, 256 << 10, 1 << 20
	DefaultTimeout, LeastTimeout, MostTimeout    = time.Second, 25 * time.Millisecond, 30 * time.Second
)

// Subscription is what one extension wants to be sent.
type Subscription struct {
	Name   string // of the extension
	Schema Schema
	Kinds  []Kind
	Destination
	// A batch is sent when it has so many events or bytes, or when its first event is so old.
	MaxItems, MaxBytes int
	Timeout            time.Duration
}

// Destination is where the extension listens, inside.
type Destination struct {
	Port   int
	URL    string // of HTTP; "" for lines over TCP
	Method string // of HTTP
}

// Event is something that happened in the environment.
type Event struct {
	Time time.Time
	Kind Kind
	Type string // as subscribers see it
	// Record is what happened in the form of a schema, to be marshalled; nil where
	// the schema has no such event. Called at any time, from any goroutine.
	Record func(Schema) any
	Size   int // of the record, about, in bytes
}

// The bounds of what is kept from before a subscription: extensions subscribe
// during the init phase, and get that phase whole.
const (
	backlogItems = 1_000
	backlogBytes = 256 << 10
)

// Feed is the telemetry of one environment from the start of a runtime to its
// end. Its methods are safe for concurrent use and wait for no subscriber, Flush
// and Close excepted.
type Feed struct {
	config Config
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu          sync.Mutex
	open        bool          // guarded by mu; subscriptions are taken
	backlog     []Event       // guarded by mu; while open
	size        int           // guarded by mu; of the backlog
	subscribers []*subscriber // guarded by mu
}

// Config is what a Feed needs. All fields must be set.
type Config struct {
	// Dial connects to a port inside the environment.
	Dial func(ctx context.Context, port int) (net.Conn, error)
	// Dropped is told of the event by which a subscriber learns what it lost, from
	// a goroutine of the feed.
	Dropped func(Event)
	Log     *slog.Logger
}

// New returns a feed that takes subscriptions until Seal. Close ends it.
func New(c Config) *Feed {
	f := &Feed{config: c, open: true}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// Subscribe begins a subscription, or changes the extension's earlier one. What
// happened so far is sent first. It reports whether the feed is still open to it.
func (f *Feed) Subscribe(sub Subscription) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.open {
		return false
	}
	for _, s := range f.subscribers {
		if s.name == sub.Name {
			s.change(sub)
			return true
		}
	}
	s := newSubscriber(f, sub)
	f.subscribers = append(f.subscribers, s)
	for _, e := range f.backlog {
		if schema, wanted := s.wants(e.Kind); wanted {
			s.take(render(e, schema))
		}
	}
	f.work.Go(func() { s.run(f.ctx) })
	return true
}

// Seal ends the time of subscriptions, and reports whether there are any.
func (f *Feed) Seal() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open, f.backlog = false, nil
	return len(f.subscribers) > 0
}

// Publish hands the event to every subscriber that wants its kind.
func (f *Feed) Publish(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open && len(f.backlog) < backlogItems && f.size+e.Size <= backlogBytes {
		f.backlog = append(f.backlog, e)
		f.size += e.Size
	}
	rendered := map[Schema][]byte{} // most often one
	for _, s := range f.subscribers {
		schema, wanted := s.wants(e.Kind)
		if !wanted {
			continue
		}
		text, ok := rendered[schema]
		if !ok {
			text = render(e, schema)
			rendered[schema] = text
		}
		s.take(text)
	}
}

// Flush has everything sent that waits, and from now on each event at once. It
// returns when that is done or failed, or when ctx ends.
func (f *Feed) Flush(ctx context.Context) {
	f.mu.Lock()
	list := slices.Clone(f.subscribers)
	f.mu.Unlock()
	for _, s := range list {
		s.flush()
	}
	for _, s := range list {
		s.settled(ctx)
	}
}

// Close ends every delivery.
func (f *Feed) Close() {
	f.cancel()
	f.work.Wait()
}

// render is the event as one JSON object, or nil.
func render(e Event, schema Schema) []byte {
	record := e.Record(schema)
	if record == nil {
		return nil
	}
	return Render(e.Time, e.Type, record)
}

// Render is an event as the APIs and JSON logs show it.
func Render(at time.Time, eventType string, record any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // lines of a log are to be read
	err := encoder.Encode(struct {
		Time   string `json:"time"`
		Type   string `json:"type"`
		Record any    `json:"record"`
	}{FormatTime(at), eventType, record})
	if err != nil {
		panic(err) // records are structures of ours, text, and JSON that was checked
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// FormatTime is a time as events have it.
func FormatTime(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

// Line is an event of kind Function or Extension: a line of output. Where lines
// are structured, one that is a JSON object is told as such in the schemas that
// know of it.
func Line(at time.Time, kind Kind, line []byte, structured bool) Event {
	text := string(line)
	return Event{Time: at, Kind: kind, Type: string(kind), Size: len(line), Record: func(s Schema) any {
		if structured && !s.Logs() && s != Telemetry20220701 && len(line) > 0 && text[0] == '{' && json.Valid([]byte(text)) {
			return json.RawMessage(text)
		}
		return text
	}}
}

// dropped tells a subscriber what it lost.
func dropped(at time.Time, records, size int) Event {
	return Event{Time: at, Kind: Platform, Type: "platform.logsDropped", Record: func(Schema) any {
		return struct {
			Bytes   int    `json:"droppedBytes"`
			Records int    `json:"droppedRecords"`
			Reason  string `json:"reason"`
		}{size, records, "Consumer seems to have fallen behind as it has not acknowledged receipt of logs."}
	}}
}
