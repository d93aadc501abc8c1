package lambdaapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/uuid"

	"kiln/internal/aws/restjson"
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
// and checks the input, and calls the service. All fields are required; none may
// change once it serves. The hooks run concurrently.
type Handler struct {
	// Open authenticates a request, whose body has not been read, and returns the
	// service for this one call. The request id is the one of the answer.
	Open func(r *http.Request, op *Operation, requestID string) (Call, error)

	// Fault decides how an error of Open, Verify, Admit or the service looks to the
	// caller, and logs what the operator should know. It is not asked about errors
	// that have a *Fault in their chain.
	Fault func(r *http.Request, op *Operation, err error) *Fault

	// Admit waits for room for a body of so many bytes, or refuses it. The room is
	// released once the answer is written. A body of unknown length counts as the
	// operation's limit.
	Admit func(ctx context.Context, bytes int64) (release func(), err error)
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := uuid.NewString()
	w.Header().Set("X-Amzn-Requestid", id)
	op, params := Route(r.Method, r.URL)
	if op == nil {
		WriteFault(w, NewFault("UnknownOperationException", "No operation of the Lambda API is "+r.Method+" "+r.URL.Path))
		return
	}
	if err := h.serve(w, r, op, params, id); err != nil {
		var fault *Fault
		if !errors.As(err, &fault) {
			fault = h.Fault(r, op, err)
		}
		WriteFault(w, fault)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, op *Operation, params []string, id string) error {
	call, err := h.Open(r, op, id)
	if err != nil {
		drain(r, op)
		return err
	}
	if call.Done != nil {
		defer call.Done()
	}
	limit := op.limit(r)
	if r.ContentLength > limit {
		drain(r, op)
		return op.tooLarge(limit)
	}
	if size := r.ContentLength; size != 0 {
		if size < 0 {
			size = limit
		}
		release, err := h.Admit(r.Context(), size)
		if err != nil {
			drain(r, op)
			return err
		}
		defer release()
	}
	body, err := readBody(r, op, limit)
	if err != nil {
		return err
	}
	if call.Verify != nil {
		if err := call.Verify(body); err != nil {
			return err
		}
	}
	a, err := op.serve(r.Context(), call.Service, &restjson.Request{Params: params, Query: r.URL.Query(), Header: r.Header, Body: body})
	if err != nil {
		return err
	}
	for name, values := range call.Header {
		w.Header()[name] = values
	}
	return a.write(w)
}

// readBody reads the whole body. Of a known length it makes one buffer of that
// size, which the payload of an invocation then is.
func readBody(r *http.Request, op *Operation, limit int64) ([]byte, error) {
	if r.ContentLength == 0 || r.Body == nil {
		return nil, nil
	}
	if size := r.ContentLength; size > 0 {
		body := make([]byte, size)
		if n, err := io.ReadFull(r.Body, body); err != nil {
			return nil, incomplete(fmt.Sprintf("The request body ended after %d of %d bytes.", n, size))
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return nil, incomplete(fmt.Sprintf("The request body could not be read beyond %d bytes.", len(body)))
	case int64(len(body)) > limit:
		drain(r, op)
		return nil, op.tooLarge(limit)
	}
	return body, nil
}

func incomplete(message string) *Fault { return NewFault("InvalidRequestContentException", message) }

func (op *Operation) tooLarge(limit int64) *Fault {
	return NewFault(op.limitCode, fmt.Sprintf("Request must be smaller than %d bytes for the %s operation", limit, op.limitName))
}

// drain reads and drops the rest of a refused body, at most as much again as the
// operation takes. net/http would cut the connection while the client still
// writes, and most clients then report a broken pipe instead of the answer. A
// client that waits for "100 Continue" has sent nothing.
func drain(r *http.Request, op *Operation) {
	if r.Body != nil && r.Header.Get("Expect") == "" {
		io.Copy(io.Discard, io.LimitReader(r.Body, 2*op.Limit)) // whatever happens, the answer is the same
	}
}
