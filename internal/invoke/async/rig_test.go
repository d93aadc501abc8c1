package async_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kiln/internal/invoke"
	"kiln/internal/invoke/async"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
	"kiln/internal/registry"
	"kiln/internal/state"
	"kiln/internal/telemetry/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func named(name string) lambda.FunctionARN {
	return lambda.FunctionARN{Scope: lambda.Scope{Account: "123456789012", Region: "us-east-1"}, Name: lambda.FunctionName(name)}
}

var function = named("f")

// memory is a queue whose time is the test's, so that hours pass in no time. What the
// real one does, its own tests and those with daemons show.
type memory struct {
	mu    sync.Mutex
	lanes map[string][]*waiting // guarded by mu
	takes int                   // guarded by mu
}

type waiting struct {
	queue    *memory
	lane     string
	event    []byte
	accepted time.Time
	due      time.Time
	attempt  int
	out      bool
}

func (m *memory) Publish(_ context.Context, lane string, event []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lanes == nil {
		m.lanes = map[string][]*waiting{}
	}
	m.lanes[lane] = append(m.lanes[lane], &waiting{queue: m, lane: lane, event: event, accepted: time.Now()})
	return nil
}

func (m *memory) Take(_ context.Context, lane string, n int) (list []state.Delivery, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.takes++
	for _, w := range m.lanes[lane] {
		if len(list) < n && !w.out && !w.due.After(time.Now()) {
			w.out = true
			w.attempt++
			list = append(list, w)
		}
	}
	return list, nil
}

func (m *memory) Lanes(_ context.Context, prefix string) (map[string]state.Backlog, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]state.Backlog{}
	for lane, events := range m.lanes {
		if len(lane) < len(prefix) || lane[:len(prefix)] != prefix || len(events) == 0 {
			continue
		}
		b := all[lane]
		for _, w := range events {
			b.Bytes += uint64(len(w.event))
			if w.due.After(time.Now()) {
				b.Later = append(b.Later, state.PutOff{Due: w.due, Accepted: w.accepted})
			} else {
				b.Due++
			}
		}
		all[lane] = b
	}
	return all, nil
}

func (m *memory) Backlog(ctx context.Context, lane string) (state.Backlog, error) {
	lanes, err := m.Lanes(ctx, lane)
	return lanes[lane], err
}

func (m *memory) Peek(_ context.Context, lane string, n int) (list []state.Waiting, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.lanes[lane][:min(n, len(m.lanes[lane]))] {
		list = append(list, state.Waiting{Event: w.event, Accepted: w.accepted, Attempt: w.attempt + 1, NotYet: w.due})
	}
	return list, nil
}

func (m *memory) Purge(_ context.Context, lane string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.lanes[lane])
	delete(m.lanes, lane)
	return uint64(n), nil
}

func (w *waiting) Event() []byte       { return w.event }
func (w *waiting) Accepted() time.Time { return w.accepted }
func (w *waiting) Attempt() int        { return w.attempt }

func (w *waiting) Ack(context.Context) error {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()
	w.queue.lanes[w.lane] = slices.DeleteFunc(w.queue.lanes[w.lane], func(o *waiting) bool { return o == w })
	return nil
}

func (w *waiting) Retry(_ context.Context, after time.Duration, event []byte) error {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()
	if event != nil {
		w.event = event
	}
	w.due, w.out = time.Now().Add(after), false
	return nil
}

// rig is everything around a service.
type rig struct {
	queue  state.Queue
	run    func(inv *lambda.Invocation) (lambda.Result, error) // of each attempt
	send   func(to lambda.Destination) error
	config async.Config

	mu       sync.Mutex
	denied   error                    // guarded by mu; of roles
	events   lambda.EventInvokeConfig // guarded by mu
	letters  string                   // guarded by mu; the dead-letter queue
	reserved map[string]int           // guarded by mu
	sent     []sent                   // guarded by mu
}

// sent is what was sent somewhere.
type sent struct {
	to      lambda.Destination
	outcome *destination.Outcome
	letter  *destination.Letter
	at      time.Time
}

func (r *rig) Prepare(_ context.Context, q invoke.Request) (*lambda.Invocation, error) {
	return &lambda.Invocation{ID: q.ID, ARN: q.ARN, Payload: q.Payload, TraceHeader: q.TraceHeader}, nil
}

func (r *rig) Run(_ context.Context, inv *lambda.Invocation) (lambda.Result, error) {
	return r.run(inv)
}

func (r *rig) Get(arn lambda.FunctionARN) (*lambda.Function, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &lambda.Function{ARN: arn.Unqualified(), Version: lambda.Latest}
	f.Settings.DeadLetterTarget = r.letters
	return f, nil
}

func (r *rig) Owner(arn lambda.FunctionARN) (registry.Owner, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	if arn.Name != function.Name {
		events = lambda.EventInvokeConfig{}
	}
	return registry.Owner{ARN: arn, Attached: lambda.Attached{EventInvoke: &events}}, nil
}

func (r *rig) Share(arn lambda.FunctionARN) (s lambda.Share) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Reserved, s.Reserves = r.reserved[string(arn.Name)]
	return s
}

func (r *rig) Authorise(lambda.Principal, string, lambda.ARN) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.denied
}

func (r *rig) deny(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.denied = err
}

func (r *rig) Acting(*lambda.Function) lambda.Principal { return lambda.Principal{} }

func (r *rig) Record(_ context.Context, to lambda.Destination, o destination.Outcome) error {
	return r.note(sent{to: to, outcome: &o})
}

func (r *rig) DeadLetter(_ context.Context, to lambda.Destination, l destination.Letter) error {
	return r.note(sent{to: to, letter: &l})
}

func (r *rig) note(s sent) error {
	if r.send != nil {
		if err := r.send(s.to); err != nil {
			return err
		}
	}
	s.at = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, s)
	return nil
}

// start runs a service until stop is called.
func (r *rig) start(t testing.TB) (s *async.Service, stop func()) {
	t.Helper()
	if r.queue == nil {
		r.queue = &memory{}
	}
	c := r.config
	if c.Deliveries == 0 {
		c.Deliveries = 10
	}
	for _, most := range []*int64{&c.FunctionEvents, &c.FunctionBytes, &c.AccountEvents, &c.AccountBytes} {
		if *most == 0 {
			*most = 1 << 40
		}
	}
	s = async.New(r.queue, r, r, r, r, metrics.New(metrics.Config{}), slog.New(slog.DiscardHandler), c)
	if err := s.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go s.Run(ctx)
	stop = sync.OnceFunc(func() {
		cancel()
		s.Wait(context.Background())
	})
	t.Cleanup(stop)
	return s, stop
}

func accept(t testing.TB, s *async.Service, arn lambda.FunctionARN, payload string) {
	t.Helper()
	if err := s.Accept(context.Background(), invocation(arn, payload)); err != nil {
		t.Fatal(err)
	}
}

func left(t testing.TB, q state.Queue) (n int) {
	t.Helper()
	lanes, err := q.Lanes(context.Background(), "async.")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range lanes {
		n += int(b.Due) + len(b.Later)
	}
	return n
}

func invocation(arn lambda.FunctionARN, payload string) invoke.Request {
	return invoke.Request{ID: lambda.NewRequestID(), ARN: arn, Payload: []byte(payload)}
}
