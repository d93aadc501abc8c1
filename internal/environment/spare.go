package environment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strconv"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
	"kiln/internal/sandbox"
	"kiln/internal/spares"
	"kiln/internal/telemetry/delivery"
)

// NewSpares returns a pool of spares that environments can have, those of accounts that
// have no driver of their own; none while the machine is short of memory.
func NewSpares(driver sandbox.Driver, bytes int64, short func() bool, log *slog.Logger) *spares.Pool {
	return spares.New(spares.Config{Driver: sandbox.DriverOf(driver, ""), Bytes: bytes, APIPort: runtimeAPIPort, EndpointPort: endpointPort, Short: short, Log: log})
}

// enter gets the sandbox: one that is ready, with the runtime booted in it, if
// there is one that the function can have, or else a new one.
func (e *Environment) enter(ctx context.Context) (err error) {
	fn := e.function
	spec := sandbox.Spec{
		ID:          e.id,
		Group:       fn.ARN.Scope.String() + "/" + string(fn.ARN.Name),
		Network:     e.factory.network(fn),
		Root:        e.root,
		Task:        e.code,
		Opt:         e.layers,
		Runtime:     e.runtime.Client,
		Lang:        e.runtime.Installation.Prefix,
		MemoryBytes: int64(fn.Settings.MemoryMB) << 20,
		TmpBytes:    int64(fn.Settings.EphemeralMB) << 20,
		MilliCPU:    int64(fn.Settings.MemoryMB) * 1000 / lambda.MemoryPerCPU,
	}
	if want, ok := e.factory.want(fn, e.runtime, e.opt()); ok {
		if s := e.factory.Spares.Take(want); s != nil {
			if err = s.Box.Assign(ctx, spec); err == nil {
				e.spare, e.box, e.id = s, s.Box, s.ID
				return nil
			}
			e.factory.Log.Warn("a sandbox that was ready could not be used", "function", fn.ARN.String(), "error", errors.Join(err, s.Discard(context.WithoutCancel(ctx))))
		}
	}
	if e.box, err = e.factory.Driver.Create(ctx, spec); err != nil {
		return fmt.Errorf("create a sandbox for %s: %w", fn.ARN, err)
	}
	return nil
}

// network is what the function reaches.
func (f *Factory) network(fn *lambda.Function) sandbox.Network {
	if f.Network == nil {
		return sandbox.Network{}
	}
	return f.Network(fn.ARN.Account)
}

// vacate ends the sandbox.
func (e *Environment) vacate(ctx context.Context) error {
	if e.spare != nil { // whose runtime was never begun
		return e.spare.Discard(ctx)
	}
	return e.box.Destroy(ctx)
}

// Expect has a spare made for a function that was deployed, so that its first
// environment finds one.
func (f *Factory) Expect(ctx context.Context, fn *lambda.Function) {
	if f.Spares == nil || fn.Settings.PackageType == lambda.Image {
		return
	}
	rt, err := f.Runtimes.Resolve(ctx, fn.Settings.Runtime)
	if err != nil {
		return // whoever invokes it is told
	}
	if want, ok := f.want(fn, rt, ""); ok {
		f.Spares.Expect(want)
	}
}

// want is what a spare must be started with to be as if it had been started for
// a function with these layers in opt; false where none can be. A spare is
// started without the function's variables, and before its extensions.
func (f *Factory) want(fn *lambda.Function, rt *bootstrap.Runtime, opt string) (w spares.Want, ok bool) {
	if f.Spares == nil || !rt.Waits(fn.Settings.Environment) || !rt.Waits(f.Variables) || !rt.Waits(f.Trust) {
		return w, false
	}
	if sandbox.DriverOf(f.Driver, string(fn.ARN.Scope.Account)) != sandbox.DriverOf(f.Driver, "") {
		return w, false // a spare is another driver's
	}
	paths, ok := f.Spares.Paths()
	if !ok {
		return w, false
	}
	if names, err := externalExtensions(opt); err != nil || len(names) > 0 {
		return w, false // the direct start says what is wrong
	}
	launch := rt.Launch(bootstrap.Layout{Task: paths.Task, Opt: paths.Opt, Runtime: paths.Runtime, Lang: paths.Lang, Tmp: paths.Tmp})
	launch = rt.Adjust(launch, map[string]string{memorySize: strconv.Itoa(fn.Settings.MemoryMB)})
	vars := maps.Clone(launch.Defaults)
	maps.Copy(vars, launch.Reserved)
	return spares.Want{
		Network: f.network(fn).Mode, Client: rt.Client, Lang: rt.Installation.Prefix, TmpBytes: int64(fn.Settings.EphemeralMB) << 20,
		Command: sandbox.Command{Path: launch.Path, Args: launch.Args, Dir: launch.Dir, Env: append(paths.Env, environ(vars)...)},
	}, true
}

// listen opens the listener for the AWS calls.
func (e *Environment) listen(ctx context.Context) (net.Listener, error) {
	if e.spare != nil {
		return e.spare.Endpoint, nil
	}
	return e.box.Listen(ctx, endpointPort)
}

// listenRuntime opens the listener for the runtime.
func (e *Environment) listenRuntime(ctx context.Context) (net.Listener, error) {
	if e.spare != nil {
		return e.spare.API, nil
	}
	return e.box.Listen(ctx, runtimeAPIPort)
}

// begin has the waiting runtime become the function's. What it cannot be told is
// seen as the end of its connection.
func (e *Environment) begin(s *spares.Spare, vars map[string]string) error {
	e.process.pipes = readPipes(source{e.out, delivery.Function}, s.Outputs)
	e.process.Process = s.Process
	e.spare = nil // it is as any other from here on
	return s.Begin(environ(vars))
}
