package lambda

import (
	"strings"
	"time"
)

// EventInvokeConfig says what becomes of asynchronous invocations. nil was not given. It
// is immutable: a change makes a new one.
type EventInvokeConfig struct {
	MaximumRetryAttempts *int // nil: 2
	MaximumEventAge      *int // seconds; nil: six hours
	OnSuccess            Destination
	OnFailure            Destination
	Modified             time.Time
}

// Destination is the ARN of what gets the record of an invocation that ended; "" is none.
type Destination string

// Service is the one that the destination is of: sqs, sns, events, lambda or s3. It is
// "" where the ARN is of nothing that can be a destination, as FIFO queues and topics are.
func (d Destination) Service() string {
	part := strings.SplitN(string(d), ":", 6)
	if len(part) < 6 || part[0] != "arn" {
		return ""
	}
	service, name := part[2], part[5]
	switch service {
	case "sqs", "sns":
		if name == "" || strings.HasSuffix(name, ".fifo") {
			return ""
		}
	case "events":
		if bus, ok := strings.CutPrefix(name, "event-bus/"); !ok || bus == "" {
			return ""
		}
	case "s3":
		if name == "" {
			return ""
		}
	case "lambda":
		if _, err := ParseFunctionARN(string(d)); err != nil {
			return ""
		}
	default:
		return ""
	}
	return service
}
