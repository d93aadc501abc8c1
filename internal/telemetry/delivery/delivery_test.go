package delivery_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kiln/internal/telemetry/delivery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// batch is what a subscriber got at once.
type batch struct {
	method, path string
	events       []event
}

type event struct {
	Time   time.Time
	Type   string
	Record json.RawMessage
}

// listener is an extension that listens.
type listener struct {
	t       *testing.T
	port    int
	batches chan batch

	mu     sync.Mutex
	status int // guarded by mu; of the replies; 0: none comes
	tries  int // guarded by mu
}

func (l *listener) reply(status int) {
	l.mu.Lock()
	l.status = status
	l.mu.Unlock()
}

// next is what is delivered next.
func (l *listener) next() batch {
	l.t.Helper()
	select {
	case b := <-l.batches:
		return b
	case <-time.After(patience):
		l.t.Fatal("nothing is delivered")
		return batch{}
	}
}

func listen(t *testing.T) *listener {
	l := &listener{t: t, batches: make(chan batch, 100), status: 200}
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.tries++
		status := l.status
		l.mu.Unlock()
		b := batch{method: r.Method, path: r.URL.String()}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &b.events)
		}
		if err != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v in %s", err, body)
		}
		if status == 0 {
			<-stop
			return
		}
		if status == 200 {
			l.batches <- b
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	t.Cleanup(func() { close(stop); server.Close() })
	l.port = server.Listener.Addr().(*net.TCPAddr).Port
	return l
}

func (l *listener) destination() delivery.Destination {
	return delivery.Destination{Port: l.port, URL: fmt.Sprintf("http://sandbox.localdomain:%d/path?q", l.port), Method: "POST"}
}

func subscription(to delivery.Destination) delivery.Subscription {
	return delivery.Subscription{
		Name: "x", Schema: delivery.Telemetry20221213, Destination: to,
		Kinds:    []delivery.Kind{delivery.Platform, delivery.Function},
		MaxItems: 1000, MaxBytes: 256 << 10, Timeout: 25 * time.Millisecond,
	}
}

// feed is a feed whose environment is this machine.
type feed struct {
	*delivery.Feed
	lost chan delivery.Event
}

func newFeed(t *testing.T) feed {
	f := feed{lost: make(chan delivery.Event, 100)}
	f.Feed = delivery.New(delivery.Config{
		Dial: func(ctx context.Context, port int) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		},
		Dropped: func(e delivery.Event) { f.lost <- e },
		Log:     slog.New(slog.DiscardHandler),
	})
	t.Cleanup(f.Close)
	return f
}

func line(text string) delivery.Event {
	return delivery.Line(time.Now(), delivery.Function, []byte(text), false)
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	l, f := listen(t), newFeed(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_700_000, time.UTC)
	f.Publish(delivery.Line(at, delivery.Function, []byte(`before <&> "it"`), false)) // subscribers get what was before
	if !f.Subscribe(subscription(l.destination())) {
		t.Fatal("the feed is not open")
	}
	f.Publish(delivery.Line(at, delivery.Extension, []byte("not wanted"), false))
	f.Publish(delivery.Event{Time: at, Kind: delivery.Platform, Type: "platform.end", Record: func(s delivery.Schema) any {
		if s.Logs() {
			return "told to others"
		}
		return nil
	}})
	got := l.next()
	if got.method != "POST" || got.path != "/path?q" || len(got.events) != 1 {
		t.Fatalf("got %+v", got)
	}
	if e := got.events[0]; !e.Time.Equal(at.Truncate(time.Millisecond)) || e.Type != "function" || string(e.Record) != `"before <&> \"it\""` {
		t.Errorf("got %+v %s", e, e.Record)
	}
	// A second subscription of the same extension replaces the first.
	to := l.destination()
	to.Method, to.URL = "PUT", strings.TrimSuffix(to.URL, "/path?q")
	f.Subscribe(subscription(to))
	f.Publish(line("after"))
	if got := l.next(); got.method != "PUT" || got.path != "/" || len(got.events) != 1 {
		t.Errorf("got %+v", got)
	}
	if !f.Seal() || f.Subscribe(subscription(to)) {
		t.Error("a feed that was sealed takes subscriptions")
	}
	if newFeed(t).Seal() {
		t.Error("a feed without subscriptions has some")
	}
}

// TestSchemas renders one line in every schema.
func TestSchemas(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		schema     delivery.Schema
		line       string
		structured bool
		want       string
	}{
		{delivery.Telemetry20220701, `{"a":1}`, true, `"{\"a\":1}"`},
		{delivery.Telemetry20221213, `{"a":1}`, true, `{"a":1}`},
		{delivery.Telemetry20250129, `{"a":1}`, true, `{"a":1}`},
		{delivery.Telemetry20250129, `{"a":1}`, false, `"{\"a\":1}"`},
		{delivery.Telemetry20250129, `{"a":1`, true, `"{\"a\":1"`},
		{delivery.Telemetry20250129, `[1]`, true, `"[1]"`},
		{delivery.Telemetry20250129, ``, true, `""`},
		{delivery.Logs20200815, `{"a":1}`, true, `"{\"a\":1}"`},
		{delivery.Logs20210318, `{"a":1}`, true, `"{\"a\":1}"`},
	} {
		record, err := json.Marshal(delivery.Line(time.Now(), delivery.Function, []byte(c.line), c.structured).Record(c.schema))
		if err != nil || string(record) != c.want {
			t.Errorf("%s in %s (structured: %t): got %s, %v, want %s", c.line, c.schema, c.structured, record, err, c.want)
		}
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	f := newFeed(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f.Subscribe(subscription(delivery.Destination{Port: l.Addr().(*net.TCPAddr).Port}))
	read := func(r *bufio.Reader, want string) {
		t.Helper()
		text, err := r.ReadString('\n')
		var e event
		if err != nil || json.Unmarshal([]byte(text), &e) != nil || string(e.Record) != want {
			t.Errorf("read %q, %v, want %s", text, err, want)
		}
	}
	f.Publish(line("one"))
	f.Publish(line("two"))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	read(r, `"one"`)
	read(r, `"two"`)
	f.Publish(line("three")) // over the same connection
	read(r, `"three"`)
	_ = c.Close()
	// What is written into a connection that was just cut is lost; what comes later
	// goes over a new one.
	accepted := make(chan net.Conn, 1)
	go func() { // ended by the listener's close
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	for n := 0; ; n++ {
		f.Publish(line("more"))
		select {
		case c := <-accepted:
			read(bufio.NewReader(c), `"more"`)
			_ = c.Close()
			return
		case <-time.After(10 * time.Millisecond):
			if n > 1000 {
				t.Fatal("no second connection")
			}
		}
	}
}

// TestBuffering sends a batch when it has enough items, bytes or age, and not before.
func TestBuffering(t *testing.T) {
	t.Parallel()
	slow := func(change func(*delivery.Subscription)) (feed, *listener) {
		l, f := listen(t), newFeed(t)
		s := subscription(l.destination())
		s.Timeout = time.Hour
		change(&s)
		f.Subscribe(s)
		return f, l
	}
	t.Run("items", func(t *testing.T) {
		t.Parallel()
		f, l := slow(func(*delivery.Subscription) {})
		for n := range 1999 {
			f.Publish(line(fmt.Sprint(n)))
		}
		if got := l.next(); len(got.events) != 1000 || string(got.events[999].Record) != `"999"` {
			t.Errorf("got %d events", len(got.events))
		}
		f.Publish(line("1999"))
		if got := l.next(); len(got.events) != 1000 || string(got.events[0].Record) != `"1000"` || string(got.events[999].Record) != `"1999"` {
			t.Errorf("got %d events", len(got.events))
		}
	})
	t.Run("bytes", func(t *testing.T) {
		t.Parallel()
		f, l := slow(func(*delivery.Subscription) {})
		big := strings.Repeat("x", 100<<10)
		for range 3 {
			f.Publish(line(big))
		}
		if got := l.next(); len(got.events) != 2 {
			t.Errorf("got %d events", len(got.events))
		}
		f.Publish(line(strings.Repeat("x", 1<<20))) // larger than a batch may be
		total := 0
		for total < 2 {
			total += len(l.next().events)
		}
	})
	t.Run("time", func(t *testing.T) {
		t.Parallel()
		f, l := slow(func(s *delivery.Subscription) { s.Timeout = 300 * time.Millisecond })
		begin := time.Now()
		f.Publish(line("1"))
		f.Publish(line("2"))
		if got := l.next(); len(got.events) != 2 || time.Since(begin) < 300*time.Millisecond {
			t.Errorf("got %d events after %s", len(got.events), time.Since(begin))
		}
	})
	t.Run("flush", func(t *testing.T) {
		t.Parallel()
		f, l := slow(func(*delivery.Subscription) {})
		f.Publish(line("1"))
		f.Flush(t.Context())
		if len(l.batches) != 1 {
			t.Error("Flush returned before the delivery")
		}
		f.Publish(line("2")) // and nothing waits any more
		l.next()
		l.next()
	})
}

// TestRetries has a subscriber that refuses at first. It gets everything, once.
func TestRetries(t *testing.T) {
	t.Parallel()
	for _, status := range []int{500, 404, 302} {
		l, f := listen(t), newFeed(t)
		l.reply(status)
		f.Subscribe(subscription(l.destination()))
		f.Publish(line("1"))
		tries := func() int {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.tries
		}
		for end := time.Now().Add(patience); tries() < 3; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d attempts", tries())
			}
		}
		f.Publish(line("2"))
		l.reply(200)
		got := l.next()
		for len(got.events) < 2 {
			got.events = append(got.events, l.next().events...)
		}
		if string(got.events[0].Record) != `"1"` || string(got.events[1].Record) != `"2"` || len(got.events) != 2 {
			t.Errorf("%d: got %v", status, got)
		}
	}
}

// TestOverflow floods a subscriber that answers nothing: publishing stays quick,
// memory bounded, and what was lost is said.
func TestOverflow(t *testing.T) {
	t.Parallel()
	l, f := listen(t), newFeed(t)
	l.reply(500)
	f.Subscribe(subscription(l.destination()))
	const count = 10_000
	text := strings.Repeat("x", 1000)
	begin := time.Now()
	for range count {
		f.Publish(line(text))
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("%d events took %s", count, took)
	}
	l.reply(200)
	got, lost := 0, 0
	for got+lost < count {
		for _, e := range l.next().events {
			if e.Type != "platform.logsDropped" {
				got++
				continue
			}
			var record struct {
				DroppedRecords, DroppedBytes int
				Reason                       string
			}
			if err := json.Unmarshal(e.Record, &record); err != nil || record.DroppedBytes < 1000*record.DroppedRecords || record.Reason == "" {
				t.Errorf("%s, %v", e.Record, err)
			}
			lost += record.DroppedRecords
			if told := <-f.lost; told.Type != e.Type {
				t.Errorf("told of %+v", told)
			}
		}
	}
	// Two batches wait, and one or two are on their way.
	if most := 4 * (256 << 10) / 1000; got+lost != count || got > most || lost == 0 {
		t.Errorf("%d events came and %d are reported as lost, of %d", got, lost, count)
	}
}

// TestDead has subscribers that do not listen, do not accept, or never answer: none
// holds up another, a flush, or the end.
func TestDead(t *testing.T) {
	t.Parallel()
	f := newFeed(t)
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = refusing.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connects, and reads nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	mute, good := listen(t), listen(t)
	mute.reply(0)
	for name, to := range map[string]delivery.Destination{
		"refusing": {Port: refusing.Addr().(*net.TCPAddr).Port},
		"silent":   {Port: silent.Addr().(*net.TCPAddr).Port},
		"mute":     mute.destination(),
		"good":     good.destination(),
	} {
		s := subscription(to)
		s.Name = name
		f.Subscribe(s)
	}
	big := strings.Repeat("x", 200<<10)
	for range 50 { // fills the silent one's socket buffers
		f.Publish(line(big))
	}
	f.Publish(line("the last"))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	f.Flush(ctx)
	for last := false; !last; {
		got := good.next().events
		last = slices.ContainsFunc(got, func(e event) bool {
			return string(e.Record) == `"the last"` || e.Type == "platform.logsDropped"
		})
	}
	f.Close()
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("the end took %s", took)
	}
}
