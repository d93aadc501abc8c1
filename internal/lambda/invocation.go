package lambda

import (
	"net/netip"
	"time"
)

// Principal is who makes a call, and from where. Every call has one.
type Principal struct {
	Account   AccountID // "" of an AWS service, and of somebody unknown
	AccessKey string    // that the call is signed with
	ARN       string    // such as arn:aws:iam::000000000000:root
	UserID    string    // such as AIDACKCEVSQ6C2EXAMPLE, as conditions and GetCallerIdentity know it
	// Role is the ARN of the role whose session this is, or "".
	Role string
	// Environment is the id of the execution environment the call came from, or "".
	Environment string
	// Service is the AWS service in whose name Kiln itself calls, such as
	// s3.amazonaws.com, or "". Only a policy of the resource can allow it anything.
	Service string
	// SourceARN is on whose behalf a service calls, such as a bucket's, and SourceAccount
	// the account of that.
	SourceARN     string
	SourceAccount AccountID
	// From is where the call came from; the zero Addr for calls of Kiln itself.
	From   netip.Addr
	Secure bool // it came over TLS
}

// RootARN is the ARN of an account's root.
func RootARN(account AccountID) string { return "arn:aws:iam::" + string(account) + ":root" }

// InvocationType says how an invocation is carried out.
type InvocationType string

// The invocation types of Invoke.
const (
	RequestResponse InvocationType = "RequestResponse"
	Event           InvocationType = "Event"
	DryRun          InvocationType = "DryRun"
)

// Invocation is one event on its way to a handler.
type Invocation struct {
	ID              RequestID
	ARN             FunctionARN // with the qualifier the caller used
	Payload         []byte      // valid JSON
	ContentType     string
	ClientContext   string // decoded JSON, or ""
	CognitoIdentity string // JSON, or ""
	TraceHeader     string // Root=…;Parent=…;Sampled=…
	Tail            bool   // the caller wants the end of the log
	Stream          bool   // the caller takes the answer as it comes
	Deadline        time.Time
}

// Result is what came of an invocation that reached the function.
type Result struct {
	Payload     []byte
	ContentType string
	// Stream is the answer in place of Payload where it is still coming; its end
	// says what else would stand here. Only for callers who asked for it.
	Stream *Stream
	// FunctionError is "" or Unhandled: the payload is then an error document.
	FunctionError   string
	ExecutedVersion Qualifier
	LogTail         []byte // the last MaxTailLog bytes, when asked for
	// Release gives back the room that the payload takes among the bytes in
	// flight; nil where it takes none.
	Release func()
}

// Free gives back what the result holds. Whoever gets a result calls it once, when
// the payload or the rest of the stream is no longer needed.
func (r *Result) Free() {
	if r.Release != nil {
		r.Release()
	}
	if r.Stream != nil {
		r.Stream.Close()
	}
}

// ErrorDocument is the JSON that a caller gets for an error that the platform,
// not the function's runtime, reports.
type ErrorDocument struct {
	Type    string `json:"errorType,omitempty"`
	Message string `json:"errorMessage"`
}
