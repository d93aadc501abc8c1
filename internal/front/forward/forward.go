// Package forward is the door of services that Kiln does not serve: it passes their
// requests on to the endpoints that the configuration names, so that one endpoint serves
// a whole application. Requests go as they came, with the signature and the Host of
// their client; of a service that is signed for anew, only the actions that are listed.
// It knows nothing of a service but how its requests name their action. The gateway
// passes it requests.
package forward

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"kiln/internal/aws/sigv4"
	"kiln/internal/aws/wire"
	"kiln/internal/front"
	"kiln/internal/lambda"
)

const (
	// maxWhole bounds a body that is read before it is forwarded, in bytes: no service
	// but S3 takes more. Whole, it can be verified, and net/http does not cut off an
	// answer that begins before the body's end.
	maxWhole = 16 << 20
	// dialTimeout is how long an endpoint may take to be reached.
	dialTimeout = 5 * time.Second
	// headerTimeout is how long one may take to begin an answer: longer than the longest
	// poll, the minute of Step Functions.
	headerTimeout = 75 * time.Second
	// maxConnections bounds those to one endpoint, maxIdle those of them that are kept,
	// for idleTimeout.
	maxConnections, maxIdle = 512, 64
	idleTimeout             = 90 * time.Second
)

// Others is the name of the endpoint of all services that have none of their own.
const Others = "*"

// Config of a Door. Credentials may be nil where nothing is signed anew.
type Config struct {
	Access *front.Access
	// Endpoints are URLs by the name that requests are signed for, and Others.
	Endpoints map[string]string
	// Resign are the actions, by service, that are signed with Credentials.
	Resign      map[string][]string
	Credentials aws.CredentialsProvider
	Audit       *front.Audit
	// Admit bounds the bytes of requests in flight.
	Admit wire.Admit
	Log   *slog.Logger
}

// Door makes handlers.
type Door struct {
	Config
	endpoints map[string]*url.URL
	transport *http.Transport
}

// New returns a Door.
func New(c Config) (*Door, error) {
	d := &Door{Config: c, endpoints: map[string]*url.URL{}}
	for service, endpoint := range c.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil {
			return nil, fmt.Errorf("endpoint of %s: %w", service, err)
		}
		d.endpoints[service] = u
	}
	d.transport = &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: headerTimeout,
		MaxConnsPerHost: maxConnections, MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: idleTimeout,
		DisableCompression: true, // the bytes are passed on as they are
	}
	return d, nil
}

// Close lets go of connections that are idle; the others end with their requests.
func (d *Door) Close() { d.transport.CloseIdleConnections() }

// Handler serves the services that have an endpoint; inside is for requests from within
// environments.
func (d *Door) Handler(inside bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{door: d, r: r, id: lambda.NewRequestID()}
		if err := c.serve(w, inside); err != nil {
			c.refuse(w, err)
		}
	})
}

// endpoint is where the service is; nil where it is nowhere.
func (d *Door) endpoint(service, target string) *url.URL {
	// DynamoDB's streams are signed for as dynamodb, and may be elsewhere.
	if u := d.endpoints["dynamodbstreams"]; u != nil && strings.HasPrefix(target, "DynamoDBStreams_") {
		return u
	}
	if u := d.endpoints[service]; u != nil {
		return u
	}
	return d.endpoints[Others]
}

// call is one request.
type call struct {
	door   *Door
	r      *http.Request
	id     lambda.RequestID
	caller front.Caller
	action string // as policies name it, if it is known
}

func (c *call) serve(w http.ResponseWriter, inside bool) (err error) {
	d, r := c.door, c.r
	if c.caller, err = d.Access.Authenticate(r, inside); err == nil {
		err = c.may()
	}
	if err != nil {
		wire.Drain(r, maxWhole)
		return err
	}
	service := c.caller.Service
	to := d.endpoint(service, r.Header.Get("X-Amz-Target"))
	if to == nil {
		wire.Drain(r, maxWhole)
		return missing(service)
	}
	listed, anew := d.Resign[service]
	hashed := r.Header.Get("X-Amz-Content-Sha256") != ""
	var body []byte
	if anew || c.caller.Verify != nil && !hashed || r.ContentLength <= maxWhole && r.ContentLength >= 0 {
		tooLarge := &wire.Fault{Code: "RequestEntityTooLarge", Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("Kiln forwards requests to %s of at most %d bytes.", service, maxWhole)}
		var release func()
		if body, release, err = wire.ReadBody(r, maxWhole, d.Admit, tooLarge); err != nil {
			return err
		}
		defer release()
		if c.caller.Verify != nil {
			err = c.caller.Verify(body)
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		if len(body) == 0 {
			r.Body = http.NoBody
		}
	} else if c.caller.Verify != nil { // what it says of the body, the service checks
		_, err = c.caller.Chunks()
	}
	if err != nil {
		return err
	}
	rewrite := func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.Out.Host = p.In.Host
		p.Out.Header.Del("Upgrade") // no service has any
		p.Out.Header.Del("Expect")  // it was answered here
	}
	if anew {
		if c.action, err = action(r, body); err == nil {
			err = c.listed(listed)
		}
		if err != nil {
			return err
		}
		credentials, err := d.Credentials.Retrieve(r.Context())
		if err != nil {
			return fmt.Errorf("credentials to sign for %s with: %w", service, err)
		}
		as := rewrite
		rewrite = func(p *httputil.ProxyRequest) {
			as(p)
			sign(p.Out, to, credentials, body, service, c.caller.Scope.Region)
		}
	}
	proxy := &httputil.ReverseProxy{
		Transport: d.transport, Rewrite: rewrite, FlushInterval: -1, // what streams, streams
		ErrorLog:     slog.NewLogLogger(d.Log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { c.refuse(w, c.unreachable(to, err)) },
	}
	proxy.ServeHTTP(w, r)
	return nil
}

// may checks that the caller may use the service by Kiln. What it may do there is for
// the service to decide. Functions may, as the configuration has it.
func (c *call) may() error {
	if c.caller.Principal.Environment != "" {
		return nil
	}
	return c.door.Access.Authorise(c.caller.Principal, "kiln:Forward", endpointARN{c.caller.Scope, c.caller.Service})
}

// endpointARN names an endpoint for policies.
type endpointARN struct {
	lambda.Scope
	service string
}

func (a endpointARN) String() string {
	return "arn:aws:kiln:" + string(a.Region) + ":" + string(a.Account) + ":endpoint/" + a.service
}

// listed checks that the action is one that is signed anew.
func (c *call) listed(actions []string) error {
	_, name, _ := strings.Cut(c.action, ":")
	for _, a := range actions {
		if prefix, wild := strings.CutSuffix(a, "*"); a == name || wild && strings.HasPrefix(name, prefix) {
			return nil
		}
	}
	return lambda.AccessDenied("User: %s is not authorized to perform: %s because resign.%s of Kiln's configuration does not list it", c.caller.Principal.ARN, c.action, c.caller.Service)
}

// sign replaces the signature of a request.
func sign(r *http.Request, to *url.URL, credentials aws.Credentials, body []byte, service string, region lambda.Region) {
	for _, name := range []string{"Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-Sha256"} {
		r.Header.Del(name)
	}
	r.Host = to.Host
	// It fails for what no request of a client can have; then the request is not signed, and refused.
	_ = v4.NewSigner().SignHTTP(r.Context(), credentials, r, sigv4.BodyHash(body), service, string(region), time.Now())
}

// missing is what a service gets that nobody serves.
func missing(service string) error {
	return &wire.Fault{Code: "NotImplementedException", Status: http.StatusNotImplemented, Message: fmt.Sprintf(
		"Kiln does not serve %[1]s, and knows no endpoint that does. Set endpoints.%[1]s in kiln.toml, KILN_ENDPOINTS=%[1]s=URL or %[2]s where Kiln starts, and it forwards there; or give the client another endpoint than Kiln.",
		service, sigv4.EndpointVariable(service))}
}

func (c *call) unreachable(to *url.URL, err error) error {
	if c.r.Context().Err() == nil {
		c.door.Log.Warn("an endpoint cannot be reached", "service", c.caller.Service, "endpoint", to.String(), "error", err)
	}
	return &wire.Fault{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable, Message: fmt.Sprintf(
		"Kiln forwards %s to %s://%s, which does not answer. Is it running there?", c.caller.Service, to.Scheme, to.Host)}
}

// refuse answers what is not forwarded.
func (c *call) refuse(w http.ResponseWriter, err error) {
	f := front.Refusal(err)
	if f == nil && !errors.As(err, &f) {
		if c.r.Context().Err() == nil {
			c.door.Log.Error("a request could not be forwarded", "service", c.caller.Service, "error", err)
		}
		f = &wire.Fault{Code: "InternalFailure", Status: http.StatusInternalServerError, Message: "Kiln failed to forward the request; its log says why."}
	}
	c.door.Audit.Record(front.Act{Who: c.caller.Principal, Action: c.action, Operation: "Forward", RequestID: string(c.id), Fault: f})
	front.Refuse(w, c.r, f)
}
