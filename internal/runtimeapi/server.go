// Package runtimeapi serves one execution environment the APIs that it has on
// AWS: the Runtime API (2018-06-01) to its runtime, and to its extensions the
// Extensions API (2020-01-01), the Telemetry API (2022-07-01) and the older Logs
// API (2020-08-15). It knows the protocols and nothing of sandboxes, processes or
// logs; the environment package gives it a listener, hands it invocations, reads
// their answers and delivers telemetry.
//
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
package runtimeapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"

	"kiln/internal/lambda"
	"kiln/internal/telemetry/delivery"
)

// maxHeader bounds the request line and headers: runtime clients put an X-Ray
// cause of up to 1 MiB into one.
const maxHeader = 2 << 20

// state is where the runtime stands in the protocol.
//
//	started ──next──▶ ready ──event──▶ running ─────response, error─────▶ answered
//	   │                ▲                 │                                 ▲  │
//	   │ init/error     │                 └─ streamed ─▶ streaming ──end────┘  │
//	   ▼                └───────────────────────── next ───────────────────────┘
//	initFailed
//
// A next while started or answered makes the runtime ready; one while running or
// streaming is refused, as is an init/error after the first next. Close ends all.
type state int

const (
	started state = iota
	initFailed
	ready
	running
	streaming
	answered
	ended
)

func (s state) String() string {
	return [...]string{"Started", "InitError", "Ready", "Running", "InvocationResponse", "RuntimeResponseSentState", "Ended"}[s]
}

// Error types of answers that the runtime did not bring to an end.
const (
	ResponseTooLarge  = "Function.ResponseSizeTooLarge"
	TruncatedResponse = "Runtime.TruncatedResponse"
)

// Report is an error document that the runtime posted.
type Report struct {
	Type    string // sanitised value of the error type header
	Payload []byte // handed to the caller unchanged
}

// Answer is what the runtime made of one invocation.
type Answer struct {
	Payload     []byte
	ContentType string
	// Stream is the answer that has begun, in place of Payload, for a caller who
	// takes it as it comes. The exchange tells its end; whoever has the answer then
	// finishes the stream.
	Stream *lambda.Stream
	// ErrorType is "" for a response; else the payload is an error document.
	ErrorType string
	// Release gives back the payload's room; nil where it takes none.
	Release func()
}

// Room waits for room for so many bytes of an answer, among all that are in
// flight. It fails only when ctx ends.
type Room func(ctx context.Context, bytes int64) (release func(), err error)

// Config is what a Server needs: Room and Log, and for extensions the rest.
type Config struct {
	Room Room
	Log  *slog.Logger
	// Function is what extensions are told of.
	Function *lambda.Function
	// External are the names of the external extensions that are to be started.
	External []string
	// Subscribe begins or changes a subscription, unless it comes too late.
	Subscribe func(delivery.Subscription) bool
}

// Server is the APIs of one environment, for one life of its runtime. Serve once,
// Close once; the other methods are safe for concurrent use, but invocations go
// one at a time.
type Server struct {
	http      *http.Server
	room      Room
	function  *lambda.Function
	subscribe func(delivery.Subscription) bool
	log       *slog.Logger

	ready  chan struct{} // closed by the first next
	failed chan Report   // one init error
	events chan *exchange
	closed chan struct{}
	stop   sync.Once

	registered      chan struct{} // closed when awaited is 0
	extensionsReady chan struct{} // closed when settled
	extensionFailed chan ExtensionReport

	reading chan struct{} // a token for the body that is being read

	mu         sync.Mutex
	state      state        // guarded by mu
	current    *exchange    // guarded by mu; while running, streaming or answered
	extensions []*extension // guarded by mu; external ones first
	awaited    int          // guarded by mu; external ones that have not registered
	settled    bool         // guarded by mu; everybody asked for a first event
	invoked    *exchange    // guarded by mu; the last that extensions were told of
}

// exchange is one invocation with the runtime.
type exchange struct {
	invocation *lambda.Invocation
	answer     chan Answer           // one
	streamed   chan lambda.StreamEnd // one, of an answer that is a stream
	idle       chan struct{}         // closed when the runtime asks for the next event
	extensions chan struct{}         // likewise, of those that were told of it; nil for none
}

// New returns a server that nothing talks to yet.
func New(c Config) *Server {
	s := &Server{
		room: c.Room, function: c.Function, subscribe: c.Subscribe, log: c.Log,
		ready:  make(chan struct{}),
		failed: make(chan Report, 1),
		events: make(chan *exchange, 1), // one invocation at a time: never full
		closed: make(chan struct{}),

		registered:      make(chan struct{}),
		extensionsReady: make(chan struct{}),
		extensionFailed: make(chan ExtensionReport, MaxExtensions),
		awaited:         len(c.External),

		reading: make(chan struct{}, 1),
	}
	for _, name := range c.External {
		x := newExtension(name)
		x.External = true
		s.extensions = append(s.extensions, x)
	}
	if s.awaited == 0 {
		close(s.registered)
	}
	s.http = &http.Server{
		Handler:        http.HandlerFunc(s.route),
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers the runtime on l until Close, which closes l too.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// EndRuntime says that the runtime is being ended: no answer of its counts from
// here on. Extensions are served on.
func (s *Server) EndRuntime() {
	s.mu.Lock()
	s.state = ended
	s.mu.Unlock()
}

// Close ends every request and wakes every waiter.
func (s *Server) Close() error {
	s.stop.Do(func() { close(s.closed) })
	s.EndRuntime()
	return s.http.Close()
}

// Ready is closed once the runtime asked for its first event: its init is over.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// InitFailed yields the error document of a runtime whose init failed.
func (s *Server) InitFailed() <-chan Report { return s.failed }

// Exchange is an invocation that the runtime has been given or waits for.
type Exchange struct{ x *exchange }

// Offer hands the invocation to the runtime as soon as it asks. Call it again
// only after the earlier exchange is idle. An environment that gives up closes
// the server.
func (s *Server) Offer(inv *lambda.Invocation) Exchange {
	x := &exchange{
		invocation: inv,
		answer:     make(chan Answer, 1),
		idle:       make(chan struct{}),
	}
	if inv.Stream {
		x.streamed = make(chan lambda.StreamEnd, 1)
	}
	s.mu.Lock()
	s.invoke(x)
	s.mu.Unlock()
	s.events <- x
	return Exchange{x}
}

// Answer yields what the runtime posted.
func (e Exchange) Answer() <-chan Answer { return e.x.answer }

// Streamed yields how an answer that is a stream ended: what the runtime sent of it
// is written by then.
func (e Exchange) Streamed() <-chan lambda.StreamEnd { return e.x.streamed }

// Idle is closed when the runtime asks for the next event: all its work on this
// one is over.
func (e Exchange) Idle() <-chan struct{} { return e.x.idle }

// ExtensionsIdle is closed when every extension that was told of the invocation
// asks for its next event; nil where none was.
func (e Exchange) ExtensionsIdle() <-chan struct{} { return e.x.extensions }

func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	const version = "/2018-06-01/"
	path, ok := strings.CutPrefix(r.URL.Path, version)
	if !ok {
		s.routeOther(w, r)
		return
	}
	switch {
	case r.URL.Path == version+"ping" && r.Method == http.MethodGet:
		_, _ = io.WriteString(w, "pong")
	case path == "runtime/invocation/next":
		if allowed(w, r, http.MethodGet) {
			s.next(w, r)
		}
	case path == "runtime/init/error":
		if allowed(w, r, http.MethodPost) {
			s.initError(w, r)
		}
	case strings.HasPrefix(path, "runtime/invocation/"):
		id, verb, _ := strings.Cut(strings.TrimPrefix(path, "runtime/invocation/"), "/")
		switch verb {
		case "response":
			if allowed(w, r, http.MethodPost) {
				s.response(w, r, lambda.RequestID(id))
			}
		case "error":
			if allowed(w, r, http.MethodPost) {
				s.invocationError(w, r, lambda.RequestID(id))
			}
		default:
			refuse(w, http.StatusNotFound, "NotFound", "no such path: "+r.URL.Path)
		}
	default:
		// restore/next and restore/error exist for SnapStart only, and answer 404 elsewhere.
		refuse(w, http.StatusNotFound, "NotFound", "no such path: "+r.URL.Path)
	}
}

// routeOther routes what extensions ask for.
func (s *Server) routeOther(w http.ResponseWriter, r *http.Request) {
	if path, ok := strings.CutPrefix(r.URL.Path, "/2020-01-01/"); ok {
		s.routeExtension(w, r, path)
		return
	}
	for _, api := range telemetryAPIs {
		if r.URL.Path == api.path {
			if allowed(w, r, http.MethodPut) {
				s.putSubscription(w, r, api)
			}
			return
		}
	}
	refuse(w, http.StatusNotFound, "NotFound", "This environment serves the APIs of runtimes (2018-06-01), extensions (2020-01-01), telemetry (2022-07-01) and logs (2020-08-15); "+r.URL.Path+" is part of none.")
}

// next gives the runtime its next event, whenever that comes.
func (s *Server) next(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	from := s.state
	if from == running || from == streaming || from == initFailed || from == ended {
		s.mu.Unlock()
		refuseTransition(w, from, ready)
		return
	}
	s.state = ready
	if s.current != nil {
		close(s.current.idle)
		s.current = nil
	}
	if from == started {
		s.settle()
	}
	s.mu.Unlock()
	if from == started {
		close(s.ready)
	}

	select {
	case x := <-s.events:
		if r.Context().Err() != nil { // this request is dead; the runtime's next one takes the event
			s.events <- x
			return
		}
		s.mu.Lock()
		s.state = running
		s.current = x
		s.mu.Unlock()
		writeEvent(w, x.invocation)
	case <-r.Context().Done():
	case <-s.closed:
	}
}

func writeEvent(w http.ResponseWriter, inv *lambda.Invocation) {
	h := w.Header()
	set := func(name, value string) {
		if value != "" {
			h[name] = []string{value}
		}
	}
	set("Lambda-Runtime-Aws-Request-Id", string(inv.ID))
	set("Lambda-Runtime-Deadline-Ms", formatMillis(inv.Deadline))
	set("Lambda-Runtime-Invoked-Function-Arn", inv.ARN.String())
	set("Lambda-Runtime-Trace-Id", inv.TraceHeader)
	set("Lambda-Runtime-Client-Context", inv.ClientContext)
	set("Lambda-Runtime-Cognito-Identity", inv.CognitoIdentity)
	contentType := inv.ContentType
	if contentType == "" {
		contentType = "application/json"
	}
	set("Content-Type", contentType)
	set("Content-Length", formatInt(len(inv.Payload)))
	_, _ = w.Write(inv.Payload) // a runtime that is gone is noticed by its exit
}

// response takes a result in one piece or, where its length is not known before, in
// several; those are collected, unless the caller takes them as they come.
func (s *Server) response(w http.ResponseWriter, r *http.Request, id lambda.RequestID) {
	x, ok := s.running(w, id)
	if !ok {
		return
	}
	switch mode := r.Header.Get("Lambda-Runtime-Function-Response-Mode"); mode {
	case "", "streaming": // AWS's client for Go streams without saying so
		if x.invocation.Stream && r.ContentLength < 0 {
			s.stream(w, r, x)
			return
		}
	default:
		s.finish(x, platformError("Runtime.InvalidResponseModeHeader", "Invalid function response mode"))
		refuse(w, http.StatusBadRequest, "InvalidFunctionResponseMode", "Invalid function response mode")
		return
	}
	body, size, release, err := s.readAnswer(w, r, func() bool { return s.owes(x) })
	if err != nil {
		release()
	}
	switch {
	case errors.Is(err, errNotOwed):
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
	case errors.Is(err, errTooLarge):
		s.finish(x, platformError(ResponseTooLarge,
			"Response payload size ("+formatInt(size)+" bytes) exceeded maximum allowed payload size ("+formatInt(lambda.MaxResponsePayload)+" bytes)."))
		refuseTooLarge(w, lambda.MaxResponsePayload)
	case err != nil:
		s.finish(x, platformError(TruncatedResponse, "The runtime's response ended early: "+err.Error()))
		refuseTruncated(w)
	default:
		answer := Answer{Payload: body, ContentType: r.Header.Get("Content-Type"), Release: release}
		if t, document := trailerError(r); t != "" {
			release()
			answer = Answer{Payload: document, ErrorType: sanitiseErrorType(t)}
		}
		s.conclude(w, x, answer)
	}
}

func (s *Server) invocationError(w http.ResponseWriter, r *http.Request, id lambda.RequestID) {
	x, ok := s.running(w, id)
	if !ok {
		return
	}
	report, release, err := s.readReport(w, r, func() bool { return s.owes(x) })
	switch {
	case errors.Is(err, errNotOwed):
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
		return
	case err != nil:
		release()
		s.finish(x, platformError(TruncatedResponse, "The runtime's error document ended early or is too large: "+err.Error()))
		refuseTruncated(w)
		return
	}
	s.conclude(w, x, Answer{Payload: report.Payload, ContentType: "application/json", ErrorType: report.Type, Release: release})
}

func (s *Server) initError(w http.ResponseWriter, r *http.Request) {
	report, release, err := s.readReport(w, r, func() bool { return s.state == started })
	defer release() // what an init leaves is small or wrong, and there is one
	if err != nil && !errors.Is(err, errNotOwed) {
		refuseTruncated(w)
		return
	}
	s.mu.Lock()
	from := s.state
	if from == started {
		s.state = initFailed
	}
	s.mu.Unlock()
	if from != started {
		refuseTransition(w, from, initFailed)
		return
	}
	s.failed <- report
	accept(w)
}

// running returns the exchange that the id names, if its answer is still owed.
func (s *Server) running(w http.ResponseWriter, id lambda.RequestID) (*exchange, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != running || s.current.invocation.ID != id {
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
		return nil, false
	}
	return s.current, true
}

// conclude delivers the answer and tells the runtime whether it was the first.
func (s *Server) conclude(w http.ResponseWriter, x *exchange, a Answer) {
	if s.finish(x, a) {
		accept(w)
	} else {
		if a.Release != nil {
			a.Release()
		}
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
	}
}

// owes reports whether the runtime has not answered x yet. s.mu is held.
func (s *Server) owes(x *exchange) bool { return s.state == running && s.current == x }

// finish delivers the answer, unless another request was faster.
func (s *Server) finish(x *exchange, a Answer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.owes(x) {
		return false
	}
	s.state = answered
	x.answer <- a
	return true
}
