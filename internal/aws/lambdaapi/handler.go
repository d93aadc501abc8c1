package lambdaapi

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"kiln/internal/aws/wire"
)

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
	// Done, if not nil, is called once the answer is written, or given up.
	Done func()
}

// Handler serves the Lambda API over HTTP. For each request it finds the
// operation, lets Open decide, reads the body within the operation's limit, reads
// and checks the input, and calls the service. All fields but Over are required; none may
// change once it serves. The hooks run concurrently.
type Handler struct {
	// Open authenticates a request, whose body has not been read, and returns the
	// service for this one call. The request id is the one of the answer.
	Open func(r *http.Request, op *Operation, requestID string) (Call, error)

	// Fault decides how an error of Open, Verify, Admit or the service looks to the
	// caller, and logs what the operator should know. It is not asked about errors
	// that have a *Fault in their chain.
	Fault func(r *http.Request, op *Operation, err error) *Fault

	// Admit bounds the bodies in memory.
	Admit wire.Admit

	// Over, if not nil, is told what came of each request once it is answered:
	// the Service that Open returned, and the fault, or nil.
	Over func(r *http.Request, op *Operation, service Service, fault *Fault)
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := uuid.NewString()
	w.Header().Set("X-Amzn-Requestid", id)
	op, params := Route(r.Method, r.URL)
	if op == nil {
		WriteFault(w, NewFault("UnknownOperationException", "No operation of the Lambda API is "+r.Method+" "+r.URL.Path))
		return
	}
	call, err := h.Open(r, op, id)
	if err == nil {
		err = h.serve(w, r, op, params, call)
	} else {
		wire.Drain(r, op.Limit)
	}
	var fault *Fault
	if err != nil {
		if !errors.As(err, &fault) {
			fault = h.Fault(r, op, err)
		}
		WriteFault(w, fault)
	}
	if h.Over != nil {
		h.Over(r, op, call.Service, fault)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, op *Operation, params []string, call Call) error {
	if call.Done != nil {
		defer call.Done()
	}
	limit := op.limit(r)
	body, release, err := wire.ReadBody(r, limit, h.Admit, op.tooLarge(limit))
	if err != nil {
		return err
	}
	defer release()
	if call.Verify != nil {
		if err := call.Verify(body); err != nil {
			return err
		}
	}
	a, err := op.serve(r.Context(), call.Service, &wire.Request{Params: params, Query: r.URL.Query(), Header: r.Header, Body: body})
	if err != nil {
		return err
	}
	for name, values := range call.Header {
		w.Header()[name] = values
	}
	return a.write(w)
}

func (op *Operation) tooLarge(limit int64) *Fault {
	return NewFault(op.limitCode, fmt.Sprintf("Request must be smaller than %d bytes for the %s operation", limit, op.limitName))
}
