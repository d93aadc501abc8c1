// Package api is the Lambda API's door: it turns wire types into the engine's and
// back. What may be created and how a function runs is decided below, in registry
// and invoke. An operation that is not a method here answers that it is not built.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/front"
	"kiln/internal/invoke"
	"kiln/internal/invoke/async"
	"kiln/internal/lambda"
	"kiln/internal/registry"
	"kiln/internal/registry/capacity"
	"kiln/internal/registry/mapping"
	"kiln/internal/registry/signing"
	"kiln/internal/scheduler"
	"kiln/internal/state"
)

// linkLife is how long Code.Location can be used, as on AWS.
const linkLife = 10 * time.Minute

// Runtimes names the exact version behind a runtime identifier.
type Runtimes interface {
	VersionARN(id lambda.RuntimeID, region lambda.Region) string // "" for a runtime without versions
}

// Config of a Door. All fields are required.
type Config struct {
	Access   *front.Access
	Registry *registry.Registry
	Mappings *mapping.Registry
	// Polling is how the poller of a mapping fares, or "" where none runs.
	Polling  func(lambda.MappingARN) string
	Signing  *signing.Registry
	Capacity *capacity.Registry
	Invoke   *invoke.Service
	Async    *async.Service
	Runtimes Runtimes
	Audit    *front.Audit
	// Provisioned tells how many environments are allocated to a version or alias with
	// provisioned concurrency, how many of them are ready, and why others cannot be had.
	Provisioned func(owner lambda.FunctionARN) (allocated, available int, failed string)
	// Admit bounds the bytes of requests in flight.
	Admit func(ctx context.Context, bytes int64) (release func(), err error)
	Log   *slog.Logger
}

// Door makes handlers.
type Door struct{ Config }

// New returns a Door.
func New(c Config) *Door { return &Door{c} }

// Handler serves the API; inside is for requests from within environments.
func (d *Door) Handler(inside bool) http.Handler {
	return &lambdaapi.Handler{
		Open: func(r *http.Request, op *lambdaapi.Operation, requestID string) (lambdaapi.Call, error) {
			caller, err := d.Access.Authenticate(r, inside)
			c := &call{door: d, caller: caller, operation: op, id: lambda.RequestID(requestID), header: http.Header{}}
			if err != nil {
				return lambdaapi.Call{Service: c}, err
			}
			c.May = func() error { return c.may(lambda.Anything{Scope: caller.Scope}) }
			c.base = "http://" + r.Host
			if r.TLS != nil {
				c.base = "https://" + r.Host
			}
			c.trace = r.Header.Get("X-Amzn-Trace-Id")
			return lambdaapi.Call{Service: c, Verify: caller.Verify, Header: c.header, Done: c.finish}, nil
		},
		Fault: d.fault,
		Admit: d.Admit,
		Over:  d.over,
	}
}

// call is one request. Its methods are the operations that are built.
type call struct {
	lambdaapi.Unimplemented

	door      *Door
	caller    front.Caller
	operation *lambdaapi.Operation
	resource  lambda.ARN // that the caller must be allowed this for; nil before it is known
	id        lambda.RequestID
	base      string // of the URLs that lead back here
	trace     string
	header    http.Header // of the answer
	done      func()      // once it is written; or nil
}

func (c *call) finish() {
	if c.done != nil {
		c.done()
	}
}

// over records what came of a call.
func (d *Door) over(_ *http.Request, op *lambdaapi.Operation, served lambdaapi.Service, fault *lambdaapi.Fault) {
	c := served.(*call)
	d.Audit.Record(front.Act{
		Who: c.caller.Principal, Action: op.Action, Operation: op.Name, Resource: c.resource, RequestID: string(c.id),
		Changes: !op.ReadOnly && op.Action != "lambda:InvokeFunction" && op.Action != "lambda:InvokeAsync", Fault: fault,
	})
}

// fault is how an error looks to the caller. What the caller did not cause is
// logged whole and told without its inside.
func (d *Door) fault(r *http.Request, op *lambdaapi.Operation, err error) *lambdaapi.Fault {
	if f := front.Refusal(err); f != nil {
		if f.Status >= http.StatusInternalServerError {
			d.Log.Warn("operation refused", "operation", op.Name, "error", err)
		}
		if f.Status == http.StatusTooManyRequests {
			f.RetryAfter = 1
		}
		return f
	}
	switch {
	case errors.Is(err, scheduler.ErrClosed):
		return &lambdaapi.Fault{Code: "ServiceException", Status: http.StatusServiceUnavailable, Message: "Kiln is shutting down."}
	case errors.Is(err, state.ErrFull):
		d.Log.Error("operation refused", "operation", op.Name, "error", err)
		return &lambdaapi.Fault{Code: "ServiceException", Status: http.StatusInsufficientStorage, Message: "Kiln's disk is full, or below the floor of free space that it leaves (free_space_floor). Free some and try again."}
	case errors.Is(err, state.ErrBroken):
		d.Log.Error("operation refused", "operation", op.Name, "error", err)
		return &lambdaapi.Fault{Code: "ServiceException", Status: http.StatusServiceUnavailable, Message: "Kiln's disk takes no writes: it is read-only, or fails, as Kiln's log says. Kiln goes on by itself once the disk works."}
	}
	if r.Context().Err() == nil {
		d.Log.Error("operation failed", "operation", op.Name, "path", r.URL.Path, "error", err)
	}
	return lambdaapi.NewFault("ServiceException", "Kiln failed to carry out "+op.Name+"; its log says why.")
}
