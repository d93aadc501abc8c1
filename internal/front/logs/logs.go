// Package logs is the door of the CloudWatch Logs API: it turns wire types into
// questions to the log store and back. What functions wrote and what callers put
// stands in the same groups. An operation that is not a method here answers that
// it is not built.
package logs

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiln/internal/aws/filterpattern"
	"kiln/internal/aws/logsapi"
	"kiln/internal/aws/wire"
	"kiln/internal/front"
	"kiln/internal/lambda"
	"kiln/internal/telemetry/logs"
)

// WaitHeader of a FilterLogEvents request says for how many seconds to wait for
// something new in the group where the page would be empty. AWS has no such thing,
// and only offers asking again.
const WaitHeader = "X-Kiln-Wait"

// FollowHeader of an answer to FilterLogEvents is the nextToken that asks for what
// arrived later, whatever its time.
const FollowHeader = "X-Kiln-Follow"

// maxWait bounds how long a request is held open.
const maxWait = 30 * time.Second

// Config of a Door. All fields are required.
type Config struct {
	Access *front.Access
	Store  *logs.Store
	Audit  *front.Audit
	// Admit bounds the bytes of requests in flight.
	Admit wire.Admit
	// Stopping ends requests that wait for something.
	Stopping context.Context
	Log      *slog.Logger
}

// Door makes handlers.
type Door struct{ Config }

// New returns a Door.
func New(c Config) *Door { return &Door{c} }

// Handler serves the API; inside is for requests from within environments.
func (d *Door) Handler(inside bool) http.Handler {
	return &logsapi.Handler{
		Open: func(r *http.Request, op *logsapi.Operation) (logsapi.Call, error) {
			caller, err := d.Access.Authenticate(r, inside)
			c := &call{door: d, caller: caller, operation: op, header: http.Header{}}
			if err != nil {
				return logsapi.Call{Service: c}, err
			}
			if wait := r.Header.Get(WaitHeader); wait != "" {
				seconds, err := strconv.ParseFloat(wait, 64)
				if err != nil || seconds < 0 {
					return logsapi.Call{Service: c}, invalid(WaitHeader + " must be a number of seconds, not " + strconv.Quote(wait))
				}
				c.wait = min(time.Duration(seconds*float64(time.Second)), maxWait)
			}
			return logsapi.Call{Service: c, Verify: caller.Verify, Header: c.header}, nil
		},
		Fault: d.fault,
		Admit: d.Admit,
		Over:  d.over,
	}
}

// call is one request. Its methods are the operations.
type call struct {
	door      *Door
	caller    front.Caller
	operation *logsapi.Operation
	resource  lambda.ARN // that the caller must be allowed this for; nil before it is known
	wait      time.Duration
	header    http.Header // of the answer
}

var _ logsapi.Service = (*call)(nil)

// reads begins the names of operations that change nothing.
var reads = []string{"Describe", "Filter", "Get", "List", "Start", "Stop", "Test"}

// over records what came of a call. What is logged is data, not a change.
func (d *Door) over(op *logsapi.Operation, requestID string, served logsapi.Service, fault *wire.Fault) {
	c := served.(*call)
	d.Audit.Record(front.Act{
		Who: c.caller.Principal, Action: op.Action, Operation: op.Name, Resource: c.resource, RequestID: requestID,
		Changes: op.Name != "PutLogEvents" && !slices.ContainsFunc(reads, func(verb string) bool { return strings.HasPrefix(op.Name, verb) }),
		Fault:   fault,
	})
}

// fault is how an error looks to the caller. What the caller did not cause is
// logged whole and told without its inside.
func (d *Door) fault(r *http.Request, op *logsapi.Operation, err error) *wire.Fault {
	if f := front.Refusal(err); f != nil {
		return f
	}
	const exists, missing = "ResourceAlreadyExistsException", "ResourceNotFoundException"
	var syntax *filterpattern.SyntaxError
	switch {
	case errors.Is(err, logs.ErrNoGroup):
		return fault(missing, "The specified log group does not exist.")
	case errors.Is(err, logs.ErrNoStream):
		return fault(missing, "The specified log stream does not exist.")
	case errors.Is(err, logs.ErrGroupExists):
		return fault(exists, "The specified log group already exists")
	case errors.Is(err, logs.ErrStreamExists):
		return fault(exists, "The specified log stream already exists")
	case errors.Is(err, logs.ErrTooMany):
		return fault("LimitExceededException", "Resource limit exceeded.")
	case errors.Is(err, logs.ErrCursor):
		return invalid("The specified nextToken is invalid.")
	case errors.As(err, &syntax):
		return invalid(syntax.Message)
	case errors.Is(err, logs.ErrBusy):
		return fault("ThrottlingException", "Rate exceeded")
	case errors.Is(err, logs.ErrFull):
		return &wire.Fault{Code: "ServiceUnavailableException", Status: http.StatusServiceUnavailable, Message: "Kiln's disk is below the floor of free space that it leaves (free_space_floor). Free some and try again."}
	}
	if r.Context().Err() == nil {
		d.Log.Error("operation failed", "operation", op.Name, "error", err)
	}
	return &wire.Fault{Code: "ServiceUnavailableException", Status: http.StatusInternalServerError, Message: "Kiln failed to carry out " + op.Name + "; its log says why."}
}

func fault(code, message string) *wire.Fault {
	return &wire.Fault{Code: code, Status: http.StatusBadRequest, Message: message}
}

func invalid(message string) *wire.Fault { return fault("InvalidParameterException", message) }

// groupARN names a log group.
type groupARN struct {
	lambda.Scope
	name string
}

func (a groupARN) String() string {
	return "arn:aws:logs:" + string(a.Region) + ":" + string(a.Account) + ":log-group:" + a.name
}

// group resolves the group that a request is about, and checks that the caller may
// do this to it. Either is a name, the other a name or an ARN.
func (c *call) group(name, identifier *string) (groupARN, error) {
	arn := groupARN{Scope: c.caller.Scope}
	switch {
	case name != nil && identifier != nil:
		return arn, fault("ValidationException", "LogGroup name and LogGroup ARN are mutually exclusive parameters.")
	case name != nil:
		arn.name = *name
	case identifier != nil && strings.HasPrefix(*identifier, "arn:"):
		return c.groupByARN(*identifier)
	case identifier != nil:
		arn.name = *identifier
	default:
		return arn, fault("ValidationException", "Either LogGroup name or LogGroup ARN must be specified.")
	}
	return arn, c.authorise(arn)
}

// groupByARN reads arn:aws:logs:REGION:ACCOUNT:log-group:NAME.
func (c *call) groupByARN(text string) (groupARN, error) {
	arn := groupARN{Scope: c.caller.Scope}
	part := strings.Split(text, ":")
	if len(part) != 7 || part[0] != "arn" || part[2] != "logs" || part[5] != "log-group" || part[6] == "" {
		return arn, invalid("The ARN " + strconv.Quote(text) + " is not that of a log group, such as " + groupARN{c.caller.Scope, "NAME"}.String())
	}
	arn.Account, arn.name = lambda.AccountID(part[4]), part[6]
	if err := c.authorise(arn); err != nil {
		return arn, err
	}
	if part[3] != string(arn.Region) {
		return arn, logs.ErrNoGroup // a group is only found in its region
	}
	return arn, nil
}

func (c *call) authorise(arn groupARN) error {
	c.resource = streamsARN{arn}
	if strings.HasSuffix(c.operation.Name, "Resource") { // of tags, which groups have alone
		c.resource = arn
	}
	return c.door.Access.Authorise(c.caller.Principal, c.operation.Action, c.resource)
}

// streamsARN is how policies name a group for the sake of what is in it: they end
// in log-group:NAME:*, on AWS for almost everything.
type streamsARN struct{ groupARN }

func (a streamsARN) String() string { return a.groupARN.String() + ":log-stream:" }

func millis(t time.Time) *int64 { return new(t.UnixMilli()) }
