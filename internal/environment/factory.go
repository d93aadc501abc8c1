package environment

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
	"kiln/internal/sandbox"
	"kiln/internal/spares"
	"kiln/internal/state/image"
)

// Runtimes resolves runtime identifiers on this machine.
type Runtimes interface {
	Resolve(ctx context.Context, id lambda.RuntimeID) (*bootstrap.Runtime, error)
}

// Packages unpacks code, and merges layers in their order. The directory stays
// until release is called; without layers it is "". Root is of an image.
type Packages interface {
	Root(ctx context.Context, code lambda.Code) (path string, p image.Process, release func(), err error)
	Dir(ctx context.Context, code lambda.Code) (path string, release func(), err error)
	Layers(ctx context.Context, layers []lambda.Layer) (path string, release func(), err error)
}

// Identities makes the credentials that an environment's calls are signed with.
type Identities interface {
	Issue(fn *lambda.Function, environment string) Credentials
	Revoke(Credentials)
}

// Factory makes environments. All fields must be set, but for those that may be nil.
type Factory struct {
	Driver sandbox.Driver
	// Spares, if not nil, has sandboxes ready in which a runtime is booted.
	Spares     *spares.Pool
	Runtimes   Runtimes
	Packages   Packages
	Identities Identities
	// Logs opens the sink of a new environment's log stream.
	Logs func(scope lambda.Scope, group, stream string) Sink
	// Endpoint serves Kiln's AWS endpoint on the listener inside an environment
	// until the listener is closed.
	Endpoint func(net.Listener) error
	// Endpoints are the URLs of services that Kiln does not serve, by the name that requests
	// are signed for. Functions with Passed get them; others reach them by Kiln's.
	Endpoints map[string]string
	// Passed, if not nil, are the owner's own credentials for AWS: functions get
	// them, and AWS itself as their endpoint.
	Passed *Credentials
	// Network is what functions of an account reach; nil: the driver's own.
	Network func(lambda.AccountID) sandbox.Network
	// Variables are defaults of every function's, and Trust of those whose root is the driver's.
	Variables, Trust map[string]string
	// LimitCPU holds functions to the processor time that their memory buys; else
	// it is their part of what others want too.
	LimitCPU bool
	// Room bounds the bytes of answers in flight.
	Room runtimeapi.Room
	Log  *slog.Logger
}

// New makes an environment in which no runtime runs yet. The error is the
// platform's; nothing is left behind.
func (f *Factory) New(ctx context.Context, fn *lambda.Function) (_ *Environment, err error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	e := &Environment{id: hex.EncodeToString(random[:]), function: fn, factory: f, how: onDemand}
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()

	if err := e.unpack(ctx); err != nil {
		return nil, err
	}
	undo = append(undo, e.release)

	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	undo = append(undo, func() { _ = e.vacate(context.WithoutCancel(ctx)) }) // the first error says more
	e.stream = streamName(fn, e.id, time.Now())
	e.log = f.Log.With("function", fn.ARN.String(), "environment", e.id)

	listener, err := e.listen(ctx)
	if err != nil {
		return nil, fmt.Errorf("listen for the AWS calls of %s: %w", fn.ARN, err)
	}
	e.listeners = append(e.listeners, listener)
	e.endpoint = "http://" + listener.Addr().String()
	e.credentials = f.Identities.Issue(fn, e.id)
	e.served.Go(func() {
		err := f.Endpoint(listener)
		if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			e.log.Warn("the AWS endpoint of an environment ended early", "error", err)
		}
	})
	e.out = &output{sink: f.Logs(fn.ARN.Scope, fn.Settings.Logging.Group, e.stream), structured: e.json(), least: leastLevel(fn.Settings.Logging)}
	return e, nil
}

// unpack gets the trees that the sandbox is made of, and the runtime that is to
// run in it: an image brings its own.
func (e *Environment) unpack(ctx context.Context) (err error) {
	f, fn := e.factory, e.function
	if fn.Settings.PackageType == lambda.Image {
		e.runtime = &bootstrap.Runtime{}
		if e.root, e.image, e.release, err = f.Packages.Root(ctx, fn.Code); err != nil {
			return fmt.Errorf("unpack the image of %s: %w", fn.ARN, err)
		}
		e.image = overridden(e.image, fn.Settings.Image)
		return nil
	}
	if e.runtime, err = f.Runtimes.Resolve(ctx, fn.Settings.Runtime); err != nil {
		return err
	}
	releaseRoot := func() {}
	if e.runtime.Image != "" {
		if e.root, e.image, releaseRoot, err = f.Packages.Root(ctx, lambda.Code{SHA256: e.runtime.Image}); err != nil {
			return fmt.Errorf("unpack the base image of %s: %w", e.runtime.ID, err)
		}
	}
	code, releaseCode, err := f.Packages.Dir(ctx, fn.Code)
	if err != nil {
		releaseRoot()
		return fmt.Errorf("unpack the code of %s: %w", fn.ARN, err)
	}
	layers, releaseLayers, err := f.Packages.Layers(ctx, fn.Settings.Layers)
	if err != nil {
		releaseCode()
		releaseRoot()
		return fmt.Errorf("unpack the layers of %s: %w", fn.ARN, err)
	}
	e.code, e.layers, e.release = code, layers, func() { releaseLayers(); releaseCode(); releaseRoot() }
	return nil
}

// streamName is AWS's: one stream per environment, by date and version; the
// function's name is part of it where several functions may share the group.
func streamName(fn *lambda.Function, id string, now time.Time) string {
	name := now.UTC().Format("2006/01/02/")
	if fn.Settings.Logging.Group != lambda.DefaultLogGroup(fn.ARN.Name) {
		name += string(fn.ARN.Name)
	}
	return name + "[" + string(fn.Version) + "]" + id
}
