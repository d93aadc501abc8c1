package lambda_test

import (
	"testing"

	"kiln/internal/lambda"
)

func TestDestinationService(t *testing.T) {
	t.Parallel()
	for arn, want := range map[lambda.Destination]string{
		"arn:aws:sqs:us-east-1:123456789012:queue":                  "sqs",
		"arn:aws:sqs:us-east-1:123456789012:queue.fifo":             "",
		"arn:aws:sqs:us-east-1:123456789012:":                       "",
		"arn:aws:sns:us-east-1:123456789012:topic":                  "sns",
		"arn:aws:sns:us-east-1:123456789012:topic.fifo":             "",
		"arn:aws:events:us-east-1:123456789012:event-bus/default":   "events",
		"arn:aws:events:us-east-1:123456789012:event-bus/":          "",
		"arn:aws:events:us-east-1:123456789012:rule/r":              "",
		"arn:aws:s3:::bucket":                                       "s3",
		"arn:aws:s3:::":                                             "",
		"arn:aws:lambda:us-east-1:123456789012:function:f":          "lambda",
		"arn:aws:lambda:us-east-1:123456789012:function:f:live":     "lambda",
		"arn:aws:lambda:us-east-1:123456789012:function:f:live:too": "",
		"arn:aws:lambda:us-east-1:123456789012:layer:l":             "",
		"arn:aws:kinesis:us-east-1:123456789012:stream/s":           "",
		"kafka://topic": "",
		"":              "",
	} {
		if got := arn.Service(); got != want {
			t.Errorf("%s is of %q, want %q", arn, got, want)
		}
	}
}
