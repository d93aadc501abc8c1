package logsapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"kiln/internal/aws/wire"
)

const (
	// targetHeader names the operation, after targetPrefix.
	targetHeader = "X-Amz-Target"
	targetPrefix = "Logs_20140328."
	contentType  = "application/x-amz-json-1.1"
)

// Operation is one operation that is built.
type Operation struct {
	Name   string // such as PutLogEvents
	Action string // in an IAM policy, such as logs:PutLogEvents
	Limit  int64  // of the body, in bytes

	serve func(ctx context.Context, s Service, body []byte) (any, error)
}

// Call is one request that was let in.
type Call struct {
	// Service answers it, on behalf of whoever made it.
	Service Service
	// Verify, if not nil, is asked once the whole body has been read and before
	// anything of it is looked at: a signature covers the body.
	Verify func(body []byte) error
	// Header, if not nil, is added to a successful answer. The service may still
	// change it until it returns.
	Header http.Header
}

// Handler serves the API over HTTP. All fields are required; none may change once
// it serves. The hooks run concurrently.
type Handler struct {
	// Open authenticates a request, whose body has not been read, and returns the
	// service for this one call.
	Open func(r *http.Request, op *Operation) (Call, error)

	// Fault decides how an error of Open, Verify, Admit or the service looks to the
	// caller, and logs what the operator should know. It is not asked about errors
	// that have a *wire.Fault in their chain.
	Fault func(r *http.Request, op *Operation, err error) *wire.Fault

	// Admit bounds the bodies in memory.
	Admit wire.Admit
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Amzn-Requestid", uuid.NewString())
	name, _ := strings.CutPrefix(r.Header.Get(targetHeader), targetPrefix)
	op := operations[name]
	if op == nil {
		wire.Drain(r, defaultLimit)
		WriteFault(w, unknown(name))
		return
	}
	out, header, err := h.serve(r, op)
	if err != nil {
		var fault *wire.Fault
		if !errors.As(err, &fault) {
			fault = h.Fault(r, op, err)
		}
		WriteFault(w, fault)
		return
	}
	for name, values := range header {
		w.Header()[name] = values
	}
	write(w, http.StatusOK, out)
}

// defaultLimit is how much is read of a request that no operation takes, in bytes.
const defaultLimit = 1 << 20

func unknown(name string) *wire.Fault {
	if others[name] {
		return &wire.Fault{Code: "NotImplementedException", Status: http.StatusNotImplemented, Message: name + " of CloudWatch Logs is not built yet in Kiln. docs/compatibility.md lists what is."}
	}
	return &wire.Fault{Code: "UnknownOperationException", Status: http.StatusBadRequest, Message: fmt.Sprintf("The header %s must name an operation of CloudWatch Logs, such as %sPutLogEvents.", targetHeader, targetPrefix)}
}

// serve returns the body of the answer.
func (h *Handler) serve(r *http.Request, op *Operation) ([]byte, http.Header, error) {
	call, err := h.Open(r, op)
	if err != nil {
		wire.Drain(r, op.Limit)
		return nil, nil, err
	}
	body, release, err := wire.ReadBody(r, op.Limit, h.Admit, &wire.Fault{
		Code: "RequestEntityTooLargeException", Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("Request must be smaller than %d bytes for the %s operation", op.Limit, op.Name)})
	if err != nil {
		return nil, nil, err
	}
	defer release()
	if call.Verify != nil {
		if err := call.Verify(body); err != nil {
			return nil, nil, err
		}
	}
	out, err := op.serve(r.Context(), call.Service, body)
	if err != nil {
		return nil, nil, err
	}
	// Nothing is answered where the model has no output.
	if v := reflect.ValueOf(out); v.IsNil() || v.Elem().NumField() == 0 {
		return nil, call.Header, nil
	}
	b, err := wire.Marshal(out)
	return b, call.Header, err
}

// WriteFault answers a request with an error.
func WriteFault(w http.ResponseWriter, f *wire.Fault) {
	b, err := wire.Marshal(struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}{f.Code, f.Message})
	if err != nil {
		panic(err) // strings always have a JSON form
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	write(w, f.Status, b)
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller has gone if this fails
}
