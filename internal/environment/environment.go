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
	"kiln/internal/telemetry/delivery"
	"kiln/internal/telemetry/metrics"
)

// Ports inside an environment. AWS reserves 9001 for the Runtime API.
const (
	runtimeAPIPort = 9001
	endpointPort   = 4566
)

// killTimeout bounds the waiting for a killed process; the kernel needs
// microseconds, unless the process hangs in a dead file system.
const killTimeout = 10 * time.Second

// State is where an environment stands.
//
//	            ┌──────────── timeout, exit ────────────┐
//	            ▼                                       │
//	fresh ──▶ down ──init──▶ idle ──event──▶ busy ──────┤
//	            ▲              ▲                        │
//	            │ init error   └──── asks for next ─────┘
//	            └──┘
//	any ──Close──▶ closed
//
// down has no runtime: the next invocation begins with an init of its own.
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
	out      *output
	stream   string
	log      *slog.Logger

	code        string // the host's folder
	layers      string // the same of the merged layers; "" without
	release     func() // of both
	credentials Credentials
	endpoint    string
	served      sync.WaitGroup // of the endpoint's and runtime API's listeners
	listeners   []net.Listener

	state   State
	process *process      // nil while down
	init    time.Duration // of the init phase, until it is reported
	peak    int64         // highest memory of the environment so far
}

// process is a running runtime with what serves it.
type process struct {
	sandbox.Process
	api      *runtimeapi.Server
	listener net.Listener // of api
	pipes    *pipes
}

// hangUp ends the runtime API and frees its port. Nobody talks to it any more.
func (p *process) hangUp() {
	_ = p.api.Close()
	_ = p.listener.Close() // the server closes only what it serves already
}

// ID is unique among all environments.
func (e *Environment) ID() string { return e.id }

// Function is what the environment runs.
func (e *Environment) Function() *lambda.Function { return e.function }

// Init runs the init phase, at most lambda.InitTimeout long. A phase that fails
// is no error: it is logged here and run again within the first invocation. The
// error is the platform's.
func (e *Environment) Init(ctx context.Context) error {
	e.logInitStart()
	begin := time.Now()
	limit := time.NewTimer(lambda.InitTimeout)
	defer limit.Stop()
	f, err := e.start(ctx, "", limit.C)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	e.logInit(took, "init", f)
	if f == nil {
		e.init = took
	}
	return nil
}

// start boots a runtime and waits until it asks for its first event. On failure
// of either kind the environment is down.
func (e *Environment) start(ctx context.Context, id lambda.RequestID, limit <-chan time.Time) (*failure, error) {
	p, f, err := e.boot(ctx, id)
	if f != nil || err != nil {
		return f, err
	}
	e.process = p
	select {
	case <-p.api.Ready():
		p.pipes.drain() // what the module wrote stands before START
		e.state = Idle
		return nil, nil
	case report := <-p.api.InitFailed():
		f = initFailure(report)
	case <-p.Done():
		select {
		case report := <-p.api.InitFailed(): // it said why, and then it ended
			f = initFailure(report)
		default:
			exit := exited(id, p.Exit())
			exit.kind, f = metrics.Init, &exit
		}
	case <-limit:
		timeout := timedOut(id, e.function.Settings.Timeout, time.Now())
		f = &timeout
	case <-ctx.Done():
		err = fmt.Errorf("init of %s: %w", e.function.ARN, context.Cause(ctx))
	}
	e.stop()
	return f, err
}

func initFailure(r runtimeapi.Report) *failure {
	return &failure{kind: metrics.Init, document: r.Payload, status: "error", errorType: r.Type}
}

// boot starts the runtime's process and what serves it.
func (e *Environment) boot(ctx context.Context, id lambda.RequestID) (*process, *failure, error) {
	bound, err := e.box.Listen(ctx, runtimeAPIPort)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for the runtime of %s: %w", e.function.ARN, err)
	}
	p := &process{listener: listener{bound}, api: runtimeapi.New(runtimeapi.Config{
		Room: e.factory.Room, Function: e.function, Log: e.log,
		Subscribe: func(delivery.Subscription) bool { return false },
	})}
	e.served.Go(func() {
		if err := p.api.Serve(p.listener); err != nil {
			e.log.Warn("runtime API ended early", "error", err)
		}
	})
	undo := p.hangUp

	if p.pipes, err = newPipes(e.out); err != nil {
		undo()
		return nil, nil, fmt.Errorf("open the output of %s: %w", e.function.ARN, err)
	}
	undo = func() { p.hangUp(); p.pipes.close() }
	defer p.pipes.closeWriters()

	paths := e.box.Paths()
	launch := e.runtime.Launch(bootstrap.Layout{
		Task: paths.Task, Opt: paths.Opt, Runtime: paths.Runtime, Lang: paths.Lang, Tmp: paths.Tmp,
		HostTask: e.code, HostOpt: e.layers,
	})
	vars := e.variables(launch, paths, bound.Addr().String())
	cmd := command(e.function, e.runtime.Adjust(launch, vars), paths, vars)
	cmd.Stdout, cmd.Stderr = p.pipes.writers[0], p.pipes.writers[1]
	if !launch.OSOnly {
		cmd.Telemetry = p.pipes.writers[2]
	}
	if p.Process, err = e.box.Exec(ctx, cmd); err != nil {
		undo()
		if launch.OSOnly { // the function's own executable
			return nil, e.invalidEntrypoint(id, err), nil
		}
		return nil, nil, fmt.Errorf("start %s for %s: %w", cmd.Path, e.function.ARN, err)
	}
	return p, nil, nil
}

func (e *Environment) invalidEntrypoint(id lambda.RequestID, err error) *failure {
	return &failure{
		kind:       metrics.Init,
		document:   document("Runtime.InvalidEntrypoint", "RequestId: %s Error: %s", id, err),
		status:     "error",
		errorType:  "Runtime.InvalidEntrypoint",
		logMessage: fmt.Sprintf("RequestId: %s Error: %s\nRuntime.InvalidEntrypoint", id, err),
	}
}

// stop ends the runtime and everything it started. The sandbox and its /tmp stay.
func (e *Environment) stop() {
	p := e.process
	if p == nil {
		return
	}
	e.kill()
	e.process, e.state = nil, Down
	p.pipes.drain()
	p.hangUp()
	p.pipes.close()
}

// kill ends the runtime's processes. What they said may still be on its way.
func (e *Environment) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if err := e.box.KillAll(ctx); err != nil {
		e.log.Error("processes of an environment survive", "error", err)
	}
	select {
	case <-e.process.Done():
	case <-ctx.Done():
		e.log.Error("a killed runtime does not end", "waited", killTimeout)
	}
}

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
	outcome := Outcome{Outcome: metrics.Outcome{Version: e.function.Version}, Init: e.init}
	e.init = 0

	f := e.ensureRuntime(ctx, inv.ID, limit.C, begin)
	e.logStart(inv)
	if f == nil {
		e.state = Busy
		inv.Deadline = begin.Add(timeout)
		outcome.Error, f = e.exchange(ctx, inv, limit.C, &r)
	} else {
		outcome.Error = f.kind
	}
	outcome.Duration = time.Since(begin)
	produced := r.produced()
	if f != nil && f.document != nil {
		r.FunctionError = "Unhandled" // also a timeout, which has no error type
		r.take(runtimeapi.Answer{Payload: f.document, ContentType: "application/json"})
	}
	if e.process != nil {
		e.process.pipes.drain()
	}
	outcome.MaxMemory = e.memory(f)
	e.logEnd(inv.ID, outcome, produced, f)
	if r.tail != nil {
		e.out.keepTail(nil)
	}
	r.finish()
	return outcome
}

// ensureRuntime runs the init again when there is no runtime: it failed, timed
// out or was killed. The time counts as the invocation's.
func (e *Environment) ensureRuntime(ctx context.Context, id lambda.RequestID, limit <-chan time.Time, begin time.Time) *failure {
	if e.process != nil {
		select {
		case <-e.process.Done(): // it died while idle
			e.stop()
		default:
			return nil
		}
	}
	f, err := e.start(ctx, id, limit)
	if err != nil {
		e.log.Error("cannot start a runtime", "error", err)
		f = platformFailure(id)
	}
	e.logInit(time.Since(begin), "invoke", f)
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

// exchange gives the event to the runtime and waits until the runtime is ready
// for the next, or gone.
func (e *Environment) exchange(ctx context.Context, inv *lambda.Invocation, limit <-chan time.Time, r *reply) (metrics.ErrorKind, *failure) {
	x := e.process.api.Offer(inv)
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
	if f == nil {
		e.state = Idle
		return kind, nil
	}
	f.document = nil // the caller has an answer
	return kind, f
}

// await waits for the runtime to say something. If it ends, or its time does,
// there is no runtime any more and the failure says why. What it said just before
// its end counts, and the next wait finds it gone. What is owed is waited for
// even then: the server says it when all that was sent has arrived.
func await[T any](e *Environment, ctx context.Context, id lambda.RequestID, limit <-chan time.Time, said <-chan T, to *T, owed bool) *failure {
	p := e.process
	fail := func(f failure) *failure { e.stop(); return &f }
	for gone := p.Done(); ; {
		select {
		case *to = <-said:
			return nil
		case <-gone:
			e.kill() // or its children might speak on
			if gone = nil; owed {
				continue
			}
			select {
			case *to = <-said:
				return nil
			default:
				return fail(exited(id, p.Exit()))
			}
		case <-limit:
			return fail(timedOut(id, e.function.Settings.Timeout, time.Now()))
		case <-ctx.Done():
			return fail(*platformFailure(id))
		}
	}
}

// memory returns the environment's peak so far.
func (e *Environment) memory(f *failure) int64 {
	if f != nil && f.kind == metrics.OutOfMemory {
		e.peak = int64(e.function.Settings.MemoryMB) << 20 // it had all of it, or it would live
		return e.peak
	}
	u, err := e.box.Usage(context.Background())
	if err != nil {
		e.log.Warn("cannot read an environment's memory", "error", err)
		return e.peak
	}
	e.peak = max(e.peak, u.PeakBytes)
	return e.peak
}

// Close ends everything of the environment and leaves nothing behind.
func (e *Environment) Close(ctx context.Context) error {
	if e.state == Closed {
		return nil
	}
	e.stop()
	e.state = Closed
	err := e.box.Destroy(ctx)
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
