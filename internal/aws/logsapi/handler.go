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

// Handler serves the API over HTTP. All fields but Over are required; none may change once
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

	// Over, if not nil, is told what came of each request once it is answered:
	// the Service that Open returned, and the fault, or nil.
	Over func(op *Operation, requestID string, service Service, fault *wire.Fault)
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := uuid.NewString()
	w.Header().Set("X-Amzn-Requestid", id)
	name, _ := strings.CutPrefix(r.Header.Get(targetHeader), targetPrefix)
	op := operations[name]
	if op == nil {
		wire.Drain(r, defaultLimit)
		WriteFault(w, unknown(name))
		return
	}
	call, err := h.Open(r, op)
	var out []byte
	if err == nil {
		out, err = h.serve(r, op, call)
	} else {
		wire.Drain(r, op.Limit)
	}
	var fault *wire.Fault
	if err == nil {
		for name, values := range call.Header {
			w.Header()[name] = values
		}
		write(w, http.StatusOK, out)
	} else {
		if !errors.As(err, &fault) {
			fault = h.Fault(r, op, err)
		}
		WriteFault(w, fault)
	}
	if h.Over != nil {
		h.Over(op, id, call.Service, fault)
	}
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
func (h *Handler) serve(r *http.Request, op *Operation, call Call) ([]byte, error) {
	body, release, err := wire.ReadBody(r, op.Limit, h.Admit, &wire.Fault{
		Code: "RequestEntityTooLargeException", Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("Request must be smaller than %d bytes for the %s operation", op.Limit, op.Name)})
	if err != nil {
		return nil, err
	}
	defer release()
	if call.Verify != nil {
		if err := call.Verify(body); err != nil {
			return nil, err
		}
	}
	out, err := op.serve(r.Context(), call.Service, body)
	if err != nil {
		return nil, err
	}
	// Nothing is answered where the model has no output.
	if v := reflect.ValueOf(out); v.IsNil() || v.Elem().NumField() == 0 {
		return nil, nil
	}
	return wire.Marshal(out)
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
