package async

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
)

// event is an accepted event as the queue keeps it: a line of JSON that says what is
// known of it, then its payload, then the answer, if it ended. Payloads are bytes in,
// bytes out, and never part of the JSON.
type event struct {
	ID            lambda.RequestID `json:"id"`
	Qualifier     lambda.Qualifier `json:"qualifier,omitempty"`
	Trace         string           `json:"trace,omitempty"`
	ClientContext string           `json:"client_context,omitempty"`
	Invoked       int              `json:"invoked,omitempty"`  // times that the function's code ran
	PutOff        int              `json:"put_off,omitempty"`  // times in a row that it could not run
	Error         string           `json:"error,omitempty"`    // the last, shortened
	Ended         *ended           `json:"ended,omitempty"`    // nil: it is to be invoked
	Accepted      *time.Time       `json:"accepted,omitempty"` // where the queue does not know it: of one that was parked
	PayloadBytes  int              `json:"payload_bytes"`

	payload, answer []byte
}

// ended is how the invocation ended, while somebody is still to be told.
type ended struct {
	Condition destination.Condition `json:"condition"`
	At        time.Time             `json:"at"`
	Response  *response             `json:"response,omitempty"`
	Record    lambda.Destination    `json:"record,omitempty"`      // who gets the record; "": nobody, or they have it
	Letter    lambda.Destination    `json:"dead_letter,omitempty"` // the same of the event itself
	Tries     int                   `json:"tries,omitempty"`       // that failed
	Anew      time.Time             `json:"anew,omitzero"`         // when it was last to be told anew, after it was parked
}

// response is destination.Response without its payload.
type response struct {
	StatusCode      int              `json:"status_code"`
	ExecutedVersion lambda.Qualifier `json:"executed_version,omitempty"`
	FunctionError   string           `json:"function_error,omitempty"`
}

// maxError bounds what an event keeps of its last error, in bytes.
const maxError = 300

func (e *event) encode() ([]byte, error) {
	e.PayloadBytes = len(e.payload)
	head, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode an event: %w", err)
	}
	b := make([]byte, 0, len(head)+1+len(e.payload)+len(e.answer))
	b = append(append(b, head...), '\n')
	return append(append(b, e.payload...), e.answer...), nil
}

func decode(b []byte) (*event, error) {
	head, rest, found := bytes.Cut(b, []byte("\n"))
	if !found {
		return nil, errors.New("an event without its first line")
	}
	e := new(event)
	if err := json.Unmarshal(head, e); err != nil {
		return nil, fmt.Errorf("the first line of an event: %w", err)
	}
	if e.PayloadBytes < 0 || e.PayloadBytes > len(rest) {
		return nil, fmt.Errorf("an event of %d bytes has a payload of %d", len(b), e.PayloadBytes)
	}
	e.payload, e.answer = rest[:e.PayloadBytes:e.PayloadBytes], rest[e.PayloadBytes:]
	return e, nil
}

// accepted is when the event was accepted, where the queue says that it was then.
func (e *event) accepted(queued time.Time) time.Time {
	if e.Accepted != nil {
		return *e.Accepted
	}
	return queued
}

// outcome is the ended event as destinations are told of it.
func (e *event) outcome(function lambda.FunctionARN) destination.Outcome {
	o := destination.Outcome{
		RequestID: e.ID, Function: function.Qualified(e.Qualifier), Condition: e.Ended.Condition,
		Invokes: e.Invoked, At: e.Ended.At, Payload: e.payload, TraceHeader: e.Trace,
	}
	if r := e.Ended.Response; r != nil {
		o.Response = &destination.Response{StatusCode: r.StatusCode, ExecutedVersion: r.ExecutedVersion, FunctionError: r.FunctionError, Payload: e.answer}
	}
	return o
}

// letter is the ended event as a dead letter.
func (e *event) letter() destination.Letter {
	l := destination.Letter{RequestID: e.ID, Payload: e.payload, ErrorMessage: e.Error, TraceHeader: e.Trace}
	if r := e.Ended.Response; r != nil {
		l.ErrorCode = r.StatusCode
		if said := destination.ErrorMessage(e.answer); said != "" {
			l.ErrorMessage = said
		}
	}
	return l
}

// fail remembers an error.
func (e *event) fail(says string) {
	if len(says) > maxError {
		says = string(bytes.ToValidUTF8([]byte(says[:maxError]), nil)) + " …"
	}
	e.Error = says
}
