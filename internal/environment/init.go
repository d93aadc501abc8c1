package environment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
	"kiln/internal/sandbox"
	"kiln/internal/telemetry/delivery"
	"kiln/internal/telemetry/metrics"
)

// Init runs the init phase, at most lambda.InitTimeout long. A phase that fails
// is no error: it is logged here and run again within the first invocation. The
// error is the platform's.
func (e *Environment) Init(ctx context.Context) error {
	limit := time.NewTimer(lambda.InitTimeout)
	defer limit.Stop()
	took, f, err := e.start(ctx, "", initPhase, limit.C)
	if f == nil {
		e.init = took
	}
	return err
}

// InitProvisioned is Init of an environment that provisioned concurrency keeps ready:
// it has more time, and what it took is known. A function that fails it makes the
// environment useless, and no error: took is 0.
func (e *Environment) InitProvisioned(ctx context.Context) (took time.Duration, err error) {
	e.how = provisionedConcurrency
	limit := time.NewTimer(max(lambda.ProvisionedInitTimeout, e.function.Settings.Timeout))
	defer limit.Stop()
	took, f, err := e.start(ctx, "", initPhase, limit.C)
	if f != nil || err != nil {
		return 0, err
	}
	e.init = took
	return took, nil
}

// start boots a runtime with its extensions, and waits until all of them ask for
// their first event. On failure the environment is down; the error says that the
// platform failed, and why.
func (e *Environment) start(ctx context.Context, id lambda.RequestID, phase string, limit <-chan time.Time) (took time.Duration, f *failure, err error) {
	begin := time.Now()
	feed := delivery.New(delivery.Config{Dial: e.box.Dial, Dropped: e.tellDropped, Log: e.log})
	e.out.follow(feed)
	e.tellInitStart(phase)
	if f, err = e.boot(ctx, id, limit, feed); err != nil {
		f = platformFailure(id)
	}
	p := e.process
	if p != nil && p.pipes != nil { // it has come to the runtime
		if f != nil {
			e.halt()
		}
		p.drain() // what the module wrote stands before the end of its init
		e.tellInitRuntimeDone(phase, f)
	}
	if f == nil {
		f = await(e, ctx, id, limit, p.api.ExtensionsReady(), new(struct{}), false)
	}
	took = f.time().Sub(begin)
	if f != nil {
		e.halt()
	}
	if f != nil && f.kind != metrics.Timeout && f.kind != metrics.Platform {
		f.kind = metrics.Init
	}
	if p != nil {
		p.drain()
		e.tellExtensions(p.api.Extensions())
	}
	e.tellInitReport(took, phase, f)
	if !feed.Seal() {
		e.out.follow(nil)
	}
	switch {
	case f == nil:
		e.state = Idle
		e.limitCPU()
		p.initFailed = nil
		if len(p.api.Extensions()) == 0 {
			p.reported = nil // nor does anybody register any more
		}
	case p == nil: // nothing had begun
		feed.Close()
	default:
		e.shutDown(f.shutdownReason())
	}
	if err == nil && f != nil && ctx.Err() != nil {
		err = fmt.Errorf("init of %s: %w", e.function.ARN, context.Cause(ctx))
	}
	return took, f, err
}

// limitCPU ends the time in which the environment may take more than its part of the
// processors, as AWS lets an init phase do.
func (e *Environment) limitCPU() {
	box, ok := e.box.(sandbox.Limiter)
	if !ok || !e.factory.LimitCPU {
		return
	}
	if err := box.LimitCPU(); err != nil && !errors.Is(err, errors.ErrUnsupported) { // at start Kiln said what is unsupported
		e.log.Warn("an environment's processor time is not limited", "error", err)
	}
}

func initFailure(r runtimeapi.Report) *failure {
	return &failure{kind: metrics.Init, document: r.Payload, status: "error", errorType: r.Type}
}

// boot starts the extensions and then the runtime, with what serves them, and waits
// until the runtime asks for its first event.
func (e *Environment) boot(ctx context.Context, id lambda.RequestID, limit <-chan time.Time, feed *delivery.Feed) (*failure, error) {
	names, err := externalExtensions(e.opt())
	if err != nil {
		return nil, fmt.Errorf("layers of %s: %w", e.function.ARN, err)
	}
	bound, err := e.listenRuntime(ctx)
	if err != nil {
		return nil, fmt.Errorf("listen for the runtime of %s: %w", e.function.ARN, err)
	}
	p := &process{listener: listener{bound}, feed: feed, api: runtimeapi.New(runtimeapi.Config{
		Room: e.factory.Room, Function: e.function, External: names, Log: e.log,
		Subscribe: func(sub delivery.Subscription) bool {
			open := feed.Subscribe(sub)
			if open {
				e.tellSubscription(sub)
			}
			return open
		},
	})}
	p.initFailed, p.reported = p.api.InitFailed(), p.api.ExtensionFailed()
	e.process = p
	e.served.Go(func() {
		if err := p.api.Serve(p.listener); err != nil {
			e.log.Warn("runtime API ended early", "error", err)
		}
	})

	paths := e.box.Paths()
	layout := bootstrap.Layout{
		Task: paths.Task, Opt: paths.Opt, Runtime: paths.Runtime, Lang: paths.Lang, Tmp: paths.Tmp,
		HostTask: e.code, HostOpt: e.layers,
	}
	var launch bootstrap.Launch
	switch {
	case e.function.Settings.PackageType == lambda.Image:
		launch = imageLaunch(e.image, layout)
	case e.root != "":
		launch = e.runtime.LaunchIn(e.image, layout, e.function.Settings.Handler)
	default:
		launch = e.runtime.Launch(layout)
	}
	vars := e.variables(launch, paths, bound.Addr().String())
	if len(names) > 0 {
		f, err := e.launchExtensions(ctx, id, names, environ(extensionVariables(vars)))
		if f == nil && err == nil {
			f = await(e, ctx, id, limit, p.api.Registered(), new(struct{}), false)
		}
		if f != nil || err != nil {
			return f, err
		}
	}
	if e.spare != nil {
		if err := e.begin(e.spare, vars); err != nil {
			return nil, fmt.Errorf("begin %s: %w", e.function.ARN, err)
		}
	} else if f, err := e.launch(ctx, id, launch, command(e.function, e.runtime.Adjust(launch, vars), paths, vars)); f != nil || err != nil {
		return f, err
	}
	return await(e, ctx, id, limit, p.api.Ready(), new(struct{}), false), nil
}

// launch starts the runtime.
func (e *Environment) launch(ctx context.Context, id lambda.RequestID, launch bootstrap.Launch, cmd sandbox.Command) (*failure, error) {
	p := e.process
	pipes, err := newPipes(source{e.out, delivery.Function})
	if err != nil {
		return nil, fmt.Errorf("open the output of %s: %w", e.function.ARN, err)
	}
	p.pipes = pipes
	defer pipes.closeWriters()
	cmd.Stdout, cmd.Stderr = pipes.writers[0], pipes.writers[1]
	if !launch.OSOnly {
		cmd.Telemetry = pipes.writers[2]
	}
	started, err := e.box.Exec(ctx, cmd)
	switch {
	case err == nil:
		p.Process = started
		return nil, nil
	case e.function.Settings.PackageType == lambda.Image:
		return e.imageFailure(id, launch, err), nil
	case launch.OSOnly: // the function's own executable
		return e.invalidEntrypoint(id, err), nil
	default:
		return nil, fmt.Errorf("start %s for %s: %w", cmd.Path, e.function.ARN, err)
	}
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
