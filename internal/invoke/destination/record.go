package destination

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"kiln/internal/lambda"
)

// Condition says how an asynchronous invocation ended.
type Condition string

// The conditions of records, by AWS's names.
const (
	Success                 Condition = "Success"
	RetriesExhausted        Condition = "RetriesExhausted"
	EventAgeExceeded        Condition = "EventAgeExceeded"
	ZeroReservedConcurrency Condition = "ZeroReservedConcurrency"
	RecursiveInvocation     Condition = "RecursiveInvocation" // AWS does not document its name
)

// Outcome is what became of an asynchronous invocation.
type Outcome struct {
	RequestID lambda.RequestID
	Function  lambda.FunctionARN // with the qualifier that the caller used, if any
	Condition Condition
	Invokes   int // how often the function was invoked with the event, about
	At        time.Time
	Payload   []byte // the event, JSON
	// Response is the last answer of the function. Nil: it was never invoked.
	Response *Response
	// TraceHeader is the invocation's X-Amzn-Trace-Id, or "".
	TraceHeader string
}

// Response is an answer of a function.
type Response struct {
	StatusCode      int // 200, of function errors too
	ExecutedVersion lambda.Qualifier
	FunctionError   string // "" or Unhandled
	Payload         []byte // what it answered, or the error document
}

// timestamp is the form of times in records.
const timestamp = "2006-01-02T15:04:05.000Z"

// Record is the outcome as destinations get it: byte for byte the same for each kind
// of them, another function too. Payloads are in it as they came.
func (o Outcome) Record() []byte {
	room := len(o.Payload) + 1<<10
	if o.Response != nil {
		room += len(o.Response.Payload)
	}
	b := make([]byte, 0, room)
	b = append(b, `{"version":"1.0","timestamp":`...)
	b = appendString(b, o.At.UTC().Format(timestamp))
	b = append(b, `,"requestContext":{"requestId":`...)
	b = appendString(b, string(o.RequestID))
	b = append(b, `,"functionArn":`...)
	b = appendString(b, o.function())
	b = append(b, `,"condition":`...)
	b = appendString(b, string(o.Condition))
	b = append(b, `,"approximateInvokeCount":`...)
	b = strconv.AppendInt(b, int64(o.Invokes), 10)
	b = append(b, `},"requestPayload":`...)
	b = appendPayload(b, o.Payload)
	if r := o.Response; r != nil {
		b = append(b, `,"responseContext":{"statusCode":`...)
		b = strconv.AppendInt(b, int64(r.StatusCode), 10)
		b = append(b, `,"executedVersion":`...)
		b = appendString(b, string(r.ExecutedVersion))
		if r.FunctionError != "" {
			b = append(b, `,"functionError":`...)
			b = appendString(b, r.FunctionError)
		}
		b = append(b, `},"responsePayload":`...)
		b = appendPayload(b, r.Payload)
	}
	return append(b, '}')
}

// function is the ARN of the function, which always has a qualifier here.
func (o Outcome) function() string {
	arn := o.Function
	if arn.Qualifier == "" {
		arn.Qualifier = lambda.Latest
	}
	return arn.String()
}

// key is the record's name in S3. AWS ends it with a random UUID; here it is the same
// for the same outcome, so that one that is sent again replaces itself.
func (o Outcome) key() string {
	at := o.At.UTC()
	id := uuid.NewSHA1(uuid.NameSpaceOID, []byte(string(o.RequestID)+" "+o.function()+" "+string(o.Condition)+" "+at.Format(time.RFC3339Nano)))
	return "aws/lambda/async/" + string(o.Function.Name) + "/" + at.Format("2006/01/02/2006-01-02T15.04.05") + "-" + id.String()
}

// appendPayload appends a payload as it is. What is no JSON, as a runtime may answer,
// becomes a string: a record is always JSON.
func appendPayload(b, payload []byte) []byte {
	payload = bytes.TrimSpace(payload)
	switch {
	case len(payload) == 0:
		return append(b, "null"...)
	case !json.Valid(payload):
		return appendString(b, string(payload))
	}
	return append(b, asText(payload)...)
}

func appendString(b []byte, s string) []byte {
	var quoted bytes.Buffer
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // of a string, it cannot fail
	return append(b, asText(bytes.TrimSpace(quoted.Bytes()))...)
}

// asText is the same JSON as queues take it: they refuse bytes that are not UTF-8, and
// two characters, which JSON can say in another way. Control characters are always
// escaped in JSON.
func asText(document []byte) []byte {
	if !utf8.Valid(document) {
		document = bytes.ToValidUTF8(document, []byte("\uFFFD"))
	}
	for _, c := range []string{"\uFFFE", "\uFFFF"} {
		if bytes.Contains(document, []byte(c)) {
			document = bytes.ReplaceAll(document, []byte(c), fmt.Appendf(nil, `\u%04x`, []rune(c)[0]))
		}
	}
	return document
}
