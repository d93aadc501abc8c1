// Package query is AWS's query protocol, which IAM and STS speak: forms in, XML out.
// Handler serves an API, whose operations, types and checks are generated, in front
// of a Service.
//
// It knows no operation. The packages iamapi and stsapi describe theirs to it, and
// their doors serve them with it.
// https://smithy.io/2.0/aws/protocols/aws-query-protocol.html
package query

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/uuid"

	"kiln/internal/aws/wire"
)

// API is what a service has.
type API[S any] struct {
	Title      string // as people call it
	Version    string // that requests name, a date
	Namespace  string // of the answers' XML
	Operations map[string]*Operation[S]
	Others     map[string]bool // operations that are not built
}

// Operation is one operation that is built.
type Operation[S any] struct {
	Name   string // such as CreateRole
	Action string // in an IAM policy, such as iam:CreateRole

	serve func(ctx context.Context, s S, form url.Values) (any, error)
}

// Op makes an operation of a method of S. check, if not nil, is asked before it.
func Op[S, In, Out any](name, action string, method func(S, context.Context, *In) (*Out, error), check func(*In, *wire.Violations, string)) *Operation[S] {
	return &Operation[S]{name, action, func(ctx context.Context, s S, form url.Values) (any, error) {
		in := new(In)
		if err := read(form, in); err != nil {
			return nil, err
		}
		if check != nil {
			v := wire.Violations{Code: "ValidationError"}
			check(in, &v, "")
			if err := v.Err(); err != nil {
				return nil, err
			}
		}
		out, err := method(s, ctx, in)
		if out == nil {
			out = new(Out) // clients look for the result even where it is empty
		}
		return out, err
	}}
}

// Call is one request that was let in.
type Call[S any] struct {
	// Serve returns the service for the operation, which the body names.
	Serve func(op *Operation[S]) S
	// Verify, if not nil, is asked once the whole body has been read and before
	// anything of it is looked at: a signature covers the body.
	Verify func(body []byte) error
	// Over, if not nil, is told what came of the request once it is answered: the
	// operation, if it was found, and the fault, or nil.
	Over func(op *Operation[S], fault *wire.Fault)
}

// Handler serves the API over HTTP. All fields are required; none may change once
// it serves. The hooks run concurrently.
type Handler[S any] struct {
	API *API[S]

	// Open authenticates a request, whose body has not been read. The request id is
	// the one of the answer.
	Open func(r *http.Request, requestID string) (Call[S], error)

	// Fault decides how an error of Open, Verify, Admit or the service looks to the
	// caller, and logs what the operator should know. It is not asked about errors
	// that have a *wire.Fault in their chain. op is nil where it is not known yet.
	Fault func(r *http.Request, op *Operation[S], err error) *wire.Fault

	// Admit bounds the bodies in memory.
	Admit wire.Admit
}

// limit bounds a request in bytes: the longest policy document, of which each
// character may take three in a form, and room for the rest.
const limit = 1 << 20

func (h *Handler[S]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := uuid.NewString()
	w.Header().Set("X-Amzn-Requestid", id)
	call, err := h.Open(r, id)
	if err != nil {
		wire.Drain(r, limit)
	}
	var op *Operation[S]
	var out any
	if err == nil {
		op, out, err = h.serve(r, call)
	}
	var fault *wire.Fault
	if err == nil {
		h.answer(w, op.Name, id, out)
	} else {
		if !errors.As(err, &fault) {
			fault = h.Fault(r, op, err)
		}
		h.refuse(w, fault, id)
	}
	if call.Over != nil {
		call.Over(op, fault)
	}
}

func (h *Handler[S]) serve(r *http.Request, call Call[S]) (*Operation[S], any, error) {
	body, release, err := wire.ReadBody(r, limit, h.Admit, &wire.Fault{
		Code: "RequestEntityTooLarge", Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("Request must be smaller than %d bytes", limit)})
	if err != nil {
		return nil, nil, err
	}
	defer release()
	if call.Verify != nil {
		if err := call.Verify(body); err != nil {
			return nil, nil, err
		}
	}
	text := string(body)
	if r.Method == http.MethodGet {
		text = r.URL.RawQuery
	}
	form, err := url.ParseQuery(text)
	if err != nil {
		return nil, nil, invalid("MalformedQueryString", "The query string contains a syntax error")
	}
	name := form.Get("Action")
	op := h.API.Operations[name]
	switch {
	case op != nil:
	case h.API.Others[name]:
		return nil, nil, &wire.Fault{Code: "NotImplemented", Status: http.StatusNotImplemented, Message: name + " of " + h.API.Title + " is not built in Kiln. docs/compatibility.md lists what is."}
	case name == "":
		return nil, nil, invalid("MissingAction", "The request must contain the parameter Action")
	default:
		return nil, nil, invalid("InvalidAction", "Could not find operation "+name+" for version "+h.API.Version)
	}
	if v := form.Get("Version"); v != "" && v != h.API.Version {
		return op, nil, invalid("InvalidAction", "Could not find operation "+name+" for version "+v)
	}
	out, err := op.serve(r.Context(), call.Serve(op), form)
	return op, out, err
}

func invalid(code, message string) *wire.Fault {
	return &wire.Fault{Code: code, Status: http.StatusBadRequest, Message: message}
}

// answer writes <NameResponse><NameResult>…</NameResult><ResponseMetadata>….
func (h *Handler[S]) answer(w http.ResponseWriter, name, id string, out any) {
	var b bytes.Buffer
	b.WriteString("<" + name + "Response xmlns=\"" + h.API.Namespace + "\">")
	write(&b, name+"Result", out)
	b.WriteString("<ResponseMetadata><RequestId>" + id + "</RequestId></ResponseMetadata></" + name + "Response>")
	send(w, http.StatusOK, b.Bytes())
}

func (h *Handler[S]) refuse(w http.ResponseWriter, f *wire.Fault, id string) {
	blame := "Sender"
	if f.Status >= http.StatusInternalServerError {
		blame = "Receiver"
	}
	b := bytes.NewBufferString("<ErrorResponse xmlns=\"" + h.API.Namespace + "\"><Error><Type>" + blame + "</Type>")
	write(b, "Code", f.Code)
	write(b, "Message", f.Message)
	b.WriteString("</Error><RequestId>" + id + "</RequestId></ErrorResponse>")
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	send(w, f.Status, b.Bytes())
}

func send(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller has gone if this fails
}

func escape(b *bytes.Buffer, text string) {
	_ = xml.EscapeText(b, []byte(text)) // a buffer takes everything
}
