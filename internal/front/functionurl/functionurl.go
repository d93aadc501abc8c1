// Package functionurl is the door of function URLs: a plain HTTP request becomes the
// event of an invocation, and what the function returns becomes the answer. Pages of
// other origins may call it, as the URL's CORS settings say. Which function a URL is
// of, and who may invoke it, is decided below and in front. The gateway passes it
// requests.
package functionurl

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/aws/policy"
	"kiln/internal/aws/sigv4"
	"kiln/internal/aws/wire"
	"kiln/internal/front"
	"kiln/internal/invoke"
	"kiln/internal/lambda"
	"kiln/internal/registry"
	"kiln/internal/scheduler"
	"kiln/internal/telemetry/metrics"
)

// URLs tells who has which function URL.
type URLs interface {
	OwnerByURL(id string) (registry.Owner, error)
}

// Config of a Door. All fields but Audit are required.
type Config struct {
	Access  *front.Access
	URLs    URLs
	Invoke  *invoke.Service
	Metrics *metrics.Recorder
	Audit   *front.Audit
	// Admit bounds the bytes of requests in flight. An event and the body it is made of
	// are together a few times what is admitted; so is what is made of an answer.
	Admit wire.Admit
	Log   *slog.Logger
}

// Door makes handlers.
type Door struct{ Config }

// New returns a Door.
func New(c Config) *Door { return &Door{c} }

// Handler serves function URLs; inside is for requests from within environments.
func (d *Door) Handler(inside bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{door: d, w: w, r: r, inside: inside, id: lambda.NewRequestID(), began: time.Now()}
		c.serve()
	})
}

// call is one request.
type call struct {
	door   *Door
	w      http.ResponseWriter
	r      *http.Request
	inside bool
	id     lambda.RequestID
	began  time.Time

	target front.FunctionURLTarget
	arn    lambda.FunctionARN // with the URL's qualifier, if it has one
	url    *lambda.FunctionURL
	who    lambda.Principal
	trace  string
	status int // of the answer, once it is known
}

func (c *call) serve() {
	c.w.Header().Set("X-Amzn-Requestid", string(c.id))
	c.target, _ = c.door.Access.FunctionURL(c.r.Host, c.r.URL.EscapedPath())
	if c.target.Prefix != "" {
		// By path, a function shares an origin with Kiln's own API: no page of it may be
		// of that origin, or it could call what it likes.
		c.w.Header().Add("Content-Security-Policy", "sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts")
	}
	owner, err := c.door.URLs.OwnerByURL(c.target.ID)
	if err != nil || c.target.Region != "" && c.target.Region != owner.ARN.Region {
		c.unknown()
		return
	}
	c.arn, c.url = owner.ARN, owner.Attached.URL
	if c.arn.Qualifier == lambda.Latest {
		c.arn = c.arn.Unqualified()
	}
	defer func() { // also of an answer that is cut off
		c.door.Metrics.Function(c.arn).URLRequest(c.status, time.Since(c.began))
	}()
	if c.cors() {
		return
	}
	if err := c.invoke(); err != nil {
		c.refuse(err)
	}
}

// invoke carries the request to the function and its result to the caller.
func (c *call) invoke() error {
	ctx := c.r.Context()
	verify, err := c.authenticate()
	if err == nil && verify == nil { // before anything of the body is read
		err = c.authorise()
	}
	if err != nil {
		wire.Drain(c.r, lambda.MaxRequestPayload)
		return err
	}
	body, release, err := wire.ReadBody(c.r, lambda.MaxRequestPayload, c.door.Admit, tooLarge())
	if err != nil {
		return err
	}
	defer release()
	if verify != nil {
		if err := verify(body); err != nil {
			return err
		}
		if err := c.authorise(); err != nil {
			return err
		}
	}
	c.trace = invoke.Trace(c.r.Header.Get("X-Amzn-Trace-Id"), c.began)
	event, err := c.event(body)
	if err != nil {
		return err
	}
	inv, err := c.door.Invoke.Prepare(ctx, invoke.Request{
		Principal: c.who, ID: c.id, ARN: c.arn, Type: lambda.RequestResponse, Payload: event, TraceHeader: c.trace, Stream: c.url.InvokeMode == "RESPONSE_STREAM",
	})
	if err != nil {
		return err
	}
	result, err := c.door.Invoke.Run(ctx, inv)
	if err != nil {
		return err
	}
	defer result.Free()
	c.w.Header().Set("X-Amzn-Trace-Id", c.trace)
	c.answer(ctx, result)
	return nil
}

// authenticate finds out who calls. Of a signed request, verify checks the signature over the whole body.
func (c *call) authenticate() (verify func([]byte) error, err error) {
	if c.url.AuthType == "NONE" {
		c.who = front.Anybody(c.r)
		return nil, nil
	}
	caller, err := c.door.Access.Authenticate(c.r, c.inside)
	c.who = caller.Principal
	if err == nil && caller.Service != "lambda" {
		err = sigv4.WrongService("lambda")
	}
	return caller.Verify, err
}

// authorise checks for both actions that a call by URL needs.
// https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
func (c *call) authorise() error {
	keys := policy.Keys{}
	keys.Set("lambda:FunctionUrlAuthType", c.url.AuthType)
	if err := c.door.Access.AuthoriseWith(c.who, "lambda:InvokeFunctionUrl", c.arn, keys); err != nil {
		return err
	}
	keys.Set("lambda:InvokedViaFunctionUrl", "true")
	return c.door.Access.AuthoriseWith(c.who, "lambda:InvokeFunction", c.arn, keys)
}

func tooLarge() *wire.Fault {
	return lambdaapi.NewFault("RequestTooLargeException", "Request must be smaller than "+maxRequest+" bytes for the InvokeFunction operation")
}

// unknown answers a request for a URL that nobody has.
func (c *call) unknown() {
	wire.Drain(c.r, lambda.MaxRequestPayload)
	c.status = http.StatusForbidden
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Amzn-Errortype", "AccessDeniedException")
	c.w.WriteHeader(c.status)
	_, _ = c.w.Write([]byte(`{"Message":null}`)) // the caller is gone if this fails
}

const forbidden = "Forbidden. For troubleshooting Function URL authorization issues, see: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"

// refuse answers what did not reach the function.
func (c *call) refuse(err error) {
	f := front.Refusal(err)
	switch {
	case errors.As(err, &f): // it is one already
	case errors.Is(err, scheduler.ErrClosed):
		f = &wire.Fault{Code: "ServiceException", Status: http.StatusServiceUnavailable, Message: "Kiln is shutting down."}
	case f == nil:
		if c.r.Context().Err() == nil {
			c.door.Log.Error("a request to a function url failed", "function", c.arn, "error", err)
		}
		f = &wire.Fault{Code: "ServiceException", Status: http.StatusInternalServerError, Message: "Kiln failed to invoke the function; its log says why."}
	}
	c.door.Audit.Record(front.Act{Who: c.who, Action: "lambda:InvokeFunctionUrl", Operation: "InvokeFunctionUrl", Resource: c.arn, RequestID: string(c.id), Fault: f})
	switch f.Code {
	case "ResourceNotFoundException": // it was removed meanwhile
		c.unknown()
		return
	case "AccessDeniedException", sigv4.MissingToken().Code: // the caller is not told why; the operator is
		c.door.Log.Info("a request to a function url was refused", "function", c.arn, "auth_type", c.url.AuthType, "reason", f.Message)
		f = &wire.Fault{Code: "AccessDeniedException", Status: http.StatusForbidden, Message: forbidden}
	case "TooManyRequestsException":
		f.RetryAfter = 1
	}
	c.status = f.Status
	lambdaapi.WriteFault(c.w, f)
}
