// Package environment is one execution environment: a sandbox with a function's
// code in it, a runtime that speaks the Runtime API, and the life that AWS
// defines for them (init, invoke, reset, shutdown), with the log lines and
// figures of each. The scheduler makes, uses and closes environments; an
// environment neither knows of other environments nor decides when it is used.
package environment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
	"kiln/internal/sandbox"
	"kiln/internal/spares"
	"kiln/internal/state/image"
	"kiln/internal/telemetry/delivery"
	"kiln/internal/telemetry/metrics"
)

// Ports inside an environment. AWS reserves 9001 for the Runtime API.
const (
	runtimeAPIPort = 9001
	endpointPort   = 4566
)

// State is where an environment stands.
//
//	            ┌─────────── timeout, failure ──────────┐
//	            ▼                                       │
//	fresh ──▶ down ──init──▶ idle ──event──▶ busy ──────┤
//	            ▲              ▲                        │
//	            │ init error   └──── ask for next ──────┘
//	            └──┘
//	any ──Close──▶ closed
//
// They who ask, or fail, are the runtime and its extensions. down has neither: the
// next invocation begins with an init of its own.
type State int32

// The states of an environment.
const (
	Down State = iota
	Idle
	Busy
	Closed
)

// Environment is one execution environment. Init, Invoke and Close are called by
// one owner at a time; ID and Function at any time.
type Environment struct {
	id       string
	function *lambda.Function
	runtime  *bootstrap.Runtime
	factory  *Factory
	box      sandbox.Sandbox
	spare    *spares.Spare // which box is of, until its runtime is begun; nil for none
	out      *output
	stream   string
	log      *slog.Logger

	code        string        // the host's folder
	layers      string        // the same of the merged layers; "" without
	root        string        // the same of an image's root; "" where the driver gives one
	image       image.Process // how an image starts
	release     func()        // of all
	credentials Credentials
	endpoint    string
	served      sync.WaitGroup // of the endpoint's and runtime API's listeners
	listeners   []net.Listener

	state   State
	process *process      // nil while down
	how     string        // it is initialised, in AWS's words
	init    time.Duration // of the init phase, until it is reported
	peak    int64         // highest memory of the environment so far
	resets  int           // in a row, without an answer in between
	unfit   string        // why it should serve no longer; "": it may
}

// process is a running runtime with its extensions and what serves them.
type process struct {
	sandbox.Process // nil before its start
	api             *runtimeapi.Server
	listener        net.Listener // of api
	pipes           *pipes       // nil before its start
	feed            *delivery.Feed
	extensions      []*extension   // external ones
	watch           sync.WaitGroup // of their ends

	// What is heard of besides the runtime's end, each nil where it cannot come.
	initFailed <-chan runtimeapi.Report
	crashed    chan *extension
	reported   <-chan runtimeapi.ExtensionReport

	ending          bool      // terminate was called
	grace, deadline time.Time // of the runtime after that, and of what lives on
}

// gone is closed when the runtime has ended.
func (p *process) gone() <-chan struct{} {
	if p.Process == nil {
		return nil
	}
	return p.Done()
}

// ID is unique among all environments.
func (e *Environment) ID() string { return e.id }

// Function is what the environment runs.
func (e *Environment) Function() *lambda.Function { return e.function }

// Invoke carries one event through the runtime. It calls deliver once, with the
// caller's answer, or as soon as that begins where it is a stream, and answered
// once, when the answer is complete. It returns when the environment may take the
// next event.
func (e *Environment) Invoke(ctx context.Context, inv *lambda.Invocation, deliver func(lambda.Result), answered func()) Outcome {
	timeout := e.function.Settings.Timeout
	begin := time.Now()
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	r := reply{Result: lambda.Result{ExecutedVersion: e.function.Version}, deliver: deliver, answered: answered}
	if inv.Tail {
		r.tail = &tail{}
		e.out.keepTail(r.tail)
	}
	outcome := Outcome{Outcome: metrics.Outcome{Version: e.function.Version}, Init: e.init, Ahead: e.how != onDemand}
	e.init = 0

	f := e.ensureRuntime(ctx, inv.ID, limit.C)
	e.tellStart(inv)
	ran := course{began: begin}
	var extensions <-chan struct{} // closed when they are done; nil for none
	if f == nil {
		e.state = Busy
		inv.Deadline = begin.Add(timeout)
		x := e.process.api.Offer(inv)
		extensions = x.ExtensionsIdle()
		outcome.Error, f = e.exchange(ctx, inv, x, limit.C, &r, &ran)
	} else {
		outcome.Error = f.kind
	}
	if f != nil && e.process != nil && !e.process.lingers() {
		// Ended before the caller knows, so that its next invocation finds the environment free.
		e.shutDown(f.shutdownReason())
	}
	ran.done = f.time()
	produced := r.produced()
	if f != nil && f.document != nil {
		r.FunctionError = "Unhandled" // also a timeout, which has no error type
		r.take(runtimeapi.Answer{Payload: f.document, ContentType: "application/json"})
	}
	if f != nil {
		e.halt() // which the caller need not wait for
	}
	if e.process != nil {
		e.process.drain()
	}
	e.tellRuntimeDone(inv.ID, outcome, ran, produced, f)
	end := ran.done
	if f == nil && extensions != nil {
		f = await(e, ctx, inv.ID, limit.C, extensions, new(struct{}), false)
		end = f.time()
		outcome.Extensions = end.Sub(ran.done)
		if f != nil {
			e.halt()
		}
		e.process.drain()
	}
	outcome.Duration = end.Sub(begin)
	outcome.MaxMemory, outcome.Held = e.memory(f)
	e.tellReport(inv.ID, outcome, ran, f)
	if r.tail != nil {
		e.out.keepTail(nil)
	}
	r.finish()
	if f != nil {
		e.shutDown(f.shutdownReason())
		e.fail(f)
	} else {
		e.state, e.resets = Idle, 0
	}
	return outcome
}

// ensureRuntime runs the init again when there is no runtime: it failed, timed
// out or was killed. The time counts as the invocation's.
func (e *Environment) ensureRuntime(ctx context.Context, id lambda.RequestID, limit <-chan time.Time) *failure {
	if p := e.process; p != nil {
		select {
		case <-p.Done(): // it died while idle …
		case <-p.crashed: // … or one of its extensions
		case <-p.reported:
		default:
			return nil
		}
		e.shutDown(shutdownFailure)
	}
	_, f, err := e.start(ctx, id, invokePhase, limit)
	if err != nil {
		e.log.Error("cannot start a runtime", "error", err)
	}
	return f
}

// platformFailure is what the caller sees of an error that is Kiln's.
func platformFailure(id lambda.RequestID) *failure {
	return &failure{
		kind:     metrics.Platform,
		document: document("Sandbox.Failure", "RequestId: %s Error: the execution environment failed; see the daemon's log", id),
		status:   "error", errorType: "Sandbox.Failure",
	}
}

// exchange waits, with the runtime given the event, until it is ready for the
// next, or gone.
func (e *Environment) exchange(ctx context.Context, inv *lambda.Invocation, x runtimeapi.Exchange, limit <-chan time.Time, r *reply, ran *course) (metrics.ErrorKind, *failure) {
	var given runtimeapi.Answer
	f := await(e, ctx, inv.ID, limit, x.Answer(), &given, false)
	if f != nil {
		select {
		case given = <-x.Answer(): // posted just before the end: it counts
		default:
			return f.kind, f
		}
		if given.ErrorType == runtimeapi.TruncatedResponse { // by the end itself
			return f.kind, f
		}
	}
	ran.answered = time.Now()
	r.take(given)
	errorType := given.ErrorType
	if given.Stream != nil {
		var end lambda.StreamEnd
		if f == nil {
			f = await(e, ctx, inv.ID, limit, x.Streamed(), &end, true)
		}
		if f != nil {
			end = f.streamEnd()
		}
		r.endStream(end)
		errorType = end.ErrorCode
	}
	ran.complete = time.Now()
	if f == nil {
		f = await(e, ctx, inv.ID, limit, x.Idle(), new(struct{}), false)
	}
	kind := metrics.NoError
	switch {
	case errorType == "":
	case errorType == runtimeapi.ResponseTooLarge:
		kind = metrics.ResponseTooLarge
	case f != nil && given.Stream != nil: // which cut it off
		kind = f.kind
	default:
		kind = metrics.Handler
	}
	if f != nil {
		f.document = nil // the caller has an answer
	}
	return kind, f
}

// await waits for somebody to say something. If the runtime or an extension ends
// or fails, or the time does, the runtime is terminated and the failure says why. What
// it said just before its end counts, and the next wait finds it gone. What is owed
// is waited for even then: the server says it when all that was sent has arrived.
func await[T any](e *Environment, ctx context.Context, id lambda.RequestID, limit <-chan time.Time, said <-chan T, to *T, owed bool) *failure {
	p := e.process
	fail := func(f *failure) *failure {
		f.at = time.Now()
		e.terminate()
		return f
	}
	for gone := p.gone(); ; {
		select {
		case *to = <-said:
			return nil
		case <-gone:
			at := time.Now()
			e.terminate() // or its children might speak on
			if gone = nil; owed {
				continue
			}
			select {
			case *to = <-said:
				return nil
			case r := <-p.initFailed: // it said why, and then it ended
				return fail(initFailure(r))
			default:
				f := exited(id, p.Exit())
				f.at = at
				return &f
			}
		case r := <-p.initFailed:
			return fail(initFailure(r))
		case x := <-p.crashed:
			return fail(e.extensionCrashed(id, x))
		case r := <-p.reported:
			return fail(extensionReported(id, r))
		case <-limit:
			f := timedOut(id, e.function.Settings.Timeout, time.Now())
			return fail(&f)
		case <-ctx.Done():
			return fail(platformFailure(id))
		}
	}
}

// memory returns the environment's peak so far, and what it holds now; 0: not known.
func (e *Environment) memory(f *failure) (peak, held int64) {
	if f != nil && f.kind == metrics.OutOfMemory {
		e.peak = int64(e.function.Settings.MemoryMB) << 20 // it had all of it, or it would live
		return e.peak, 0
	}
	u, err := e.box.Usage(context.Background())
	if err != nil {
		e.log.Warn("cannot read an environment's memory", "error", err)
		return e.peak, 0
	}
	e.peak = max(e.peak, u.PeakBytes)
	return e.peak, u.CurrentBytes
}

// Held reads what the environment holds of the machine's memory now, in bytes; 0: not
// known. It may be called at any time.
func (e *Environment) Held(ctx context.Context) int64 {
	u, err := e.box.Usage(ctx)
	if err != nil {
		return 0 // it is closed already
	}
	return u.CurrentBytes
}

// Close ends everything of the environment and leaves nothing behind.
func (e *Environment) Close(ctx context.Context) error {
	if e.state == Closed {
		return nil
	}
	e.shutDown(shutdownSpindown)
	e.state = Closed
	err := e.vacate(ctx)
	for _, l := range e.listeners {
		if cerr := l.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	e.served.Wait()
	e.factory.Identities.Revoke(e.credentials)
	e.release()
	if err != nil {
		return fmt.Errorf("close environment %s: %w", e.id, err)
	}
	return nil
}
