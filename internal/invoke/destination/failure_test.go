package destination_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
)

// says answers an operation with an error, and others fine.
func says(operation string, status int, body string) func(http.ResponseWriter, asked) {
	return func(w http.ResponseWriter, a asked) {
		if a.operation != operation {
			fine(w, a)
			return
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func queueError(operation string, status int, code string) func(http.ResponseWriter, asked) {
	return says(operation, status, `{"__type":"com.amazonaws.sqs#`+code+`","message":"m"}`)
}

func topicError(status int, code string) func(http.ResponseWriter, asked) {
	return says("Publish", status, `<ErrorResponse><Error><Code>`+code+`</Code><Message>m</Message></Error></ErrorResponse>`)
}

func busError(status int, code string) func(http.ResponseWriter, asked) {
	return says("PutEvents", status, `{"__type":"`+code+`","message":"m"}`)
}

func entryError(code string) func(http.ResponseWriter, asked) {
	return says("PutEvents", 200, `{"FailedEntryCount":1,"Entries":[{"ErrorCode":"`+code+`","ErrorMessage":"m"}]}`)
}

func bucketError(status int, code string) func(http.ResponseWriter, asked) {
	return says("PutObject", status, `<Error><Code>`+code+`</Code><Message>m</Message></Error>`)
}

// TestErrors tells what trying again can help with from what it cannot.
func TestErrors(t *testing.T) {
	t.Parallel()
	nowhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere.Close()
	unreachable := func(c *destination.Config) {
		c.Endpoint = func(string) string { return "http://" + nowhere.Addr().String() }
	}
	untold := func(c *destination.Config) { c.Endpoint = func(string) string { return "" } }
	brief := func(c *destination.Config) { c.Timeout = 100 * time.Millisecond }
	unsigned := func(c *destination.Config) {
		c.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, errors.New("there are none")
		})
	}
	hang := func(_ http.ResponseWriter, a asked) { <-a.gone }
	never := func(_ http.ResponseWriter, a asked) { t.Errorf("%s was asked", a.operation) }
	large := func(n int) func(*destination.Outcome) {
		return func(o *destination.Outcome) { o.Response.Payload = []byte(`"` + strings.Repeat("a", n) + `"`) }
	}
	const fails = "the SERVICE that Kiln is configured with (endpoints), http://"
	for name, test := range map[string]struct {
		to        lambda.Destination
		answer    func(http.ResponseWriter, asked)
		config    func(*destination.Config)
		outcome   func(*destination.Outcome)
		permanent bool
		want      string // begins the error, after "send to X: "
	}{
		"no queue":                 {to: queue, answer: queueError("GetQueueUrl", 400, "QueueDoesNotExist"), permanent: true, want: "SQS answers QueueDoesNotExist: m"},
		"queue denied":             {to: queue, answer: queueError("GetQueueUrl", 403, "AccessDeniedException"), permanent: true, want: "SQS answers AccessDeniedException: m"},
		"send denied":              {to: queue, answer: queueError("SendMessage", 403, "AccessDenied"), permanent: true, want: "SQS answers AccessDenied: m"},
		"wrong content":            {to: queue, answer: queueError("SendMessage", 400, "InvalidMessageContents"), permanent: true, want: "SQS answers InvalidMessageContents: m"},
		"too long for the queue":   {to: queue, answer: queueError("SendMessage", 400, "InvalidParameterValue"), permanent: true, want: "SQS answers InvalidParameterValue: m"},
		"queue throttles":          {to: queue, answer: queueError("SendMessage", 400, "RequestThrottled"), want: "SQS answers RequestThrottled: m"},
		"key of the queue":         {to: queue, answer: queueError("SendMessage", 400, "KmsThrottled"), want: "SQS answers KmsThrottled: m"},
		"credentials are old":      {to: queue, answer: queueError("GetQueueUrl", 403, "ExpiredToken"), want: "SQS answers ExpiredToken: m"},
		"no credentials":           {to: queue, answer: queueError("GetQueueUrl", 403, "AccessDenied"), config: unsigned, want: "SQS answers AccessDenied: m"},
		"queue gone meanwhile":     {to: queue, answer: queueError("SendMessage", 400, "QueueDoesNotExist"), permanent: true, want: "SQS answers QueueDoesNotExist: m"},
		"queue down":               {to: queue, answer: queueError("SendMessage", 500, "InternalFailure"), want: "SQS answers InternalFailure: m"},
		"another server":           {to: queue, answer: says("SendMessage", 404, "<html>"), want: fails},
		"a wrong sum":              {to: queue, answer: says("SendMessage", 200, `{"MessageId":"m","MD5OfMessageBody":"00000000000000000000000000000000"}`), want: fails},
		"no topic":                 {to: topic, answer: topicError(404, "NotFound"), permanent: true, want: "SNS answers NotFound: m"},
		"topic denied":             {to: topic, answer: topicError(403, "AuthorizationError"), permanent: true, want: "SNS answers AuthorizationError: m"},
		"wrong parameter":          {to: topic, answer: topicError(400, "InvalidParameter"), permanent: true, want: "SNS answers InvalidParameter: m"},
		"topic throttles":          {to: topic, answer: topicError(429, "Throttled"), want: "SNS answers Throttled: m"},
		"topic down":               {to: topic, answer: topicError(503, "ServiceUnavailable"), want: "SNS answers ServiceUnavailable: m"},
		"wrong key id":             {to: topic, answer: topicError(403, "InvalidClientTokenId"), want: "SNS answers InvalidClientTokenId: m"},
		"no bus":                   {to: bus, answer: busError(400, "ResourceNotFoundException"), permanent: true, want: "EventBridge answers ResourceNotFoundException: m"},
		"bus denied":               {to: bus, answer: busError(400, "AccessDeniedException"), permanent: true, want: "EventBridge answers AccessDeniedException: m"},
		"bus throttles":            {to: bus, answer: busError(400, "ThrottlingException"), want: "EventBridge answers ThrottlingException: m"},
		"bus down":                 {to: bus, answer: busError(500, "InternalException"), want: "EventBridge answers InternalException: m"},
		"entry refused":            {to: bus, answer: entryError("MalformedDetail"), permanent: true, want: "EventBridge answers MalformedDetail: m"},
		"entry throttled":          {to: bus, answer: entryError("ThrottlingException"), want: "EventBridge answers ThrottlingException: m"},
		"entry failed":             {to: bus, answer: entryError("InternalFailure"), want: "EventBridge answers InternalFailure: m"},
		"no bucket":                {to: bucket, answer: bucketError(404, "NoSuchBucket"), permanent: true, want: "S3 answers NoSuchBucket: m"},
		"bucket denied":            {to: bucket, answer: bucketError(403, "AccessDenied"), permanent: true, want: "S3 answers AccessDenied: m"},
		"bucket elsewhere":         {to: bucket, answer: bucketError(301, "PermanentRedirect"), permanent: true, want: "S3 answers PermanentRedirect: m"},
		"bucket busy":              {to: bucket, answer: bucketError(503, "SlowDown"), want: "S3 answers SlowDown: m"},
		"bucket in change":         {to: bucket, answer: bucketError(409, "OperationAborted"), want: "S3 answers OperationAborted: m"},
		"clock":                    {to: bucket, answer: bucketError(403, "RequestTimeTooSkewed"), want: "S3 answers RequestTimeTooSkewed: m"},
		"queue unreachable":        {to: queue, config: unreachable, want: fails},
		"topic unreachable":        {to: topic, config: unreachable, want: fails},
		"bus unreachable":          {to: bus, config: unreachable, want: fails},
		"bucket unreachable":       {to: bucket, config: unreachable, want: fails},
		"queue hangs":              {to: queue, answer: hang, config: brief, want: fails},
		"topic hangs":              {to: topic, answer: hang, config: brief, want: fails},
		"bus hangs":                {to: bus, answer: hang, config: brief, want: fails},
		"bucket hangs":             {to: bucket, answer: hang, config: brief, want: fails},
		"nobody told of SQS":       {to: queue, config: untold, permanent: true, want: `Kiln is not told which SQS to send to. Name it in kiln.toml, endpoints = { sqs = "http://127.0.0.1:9324" }, or in KILN_ENDPOINTS, sqs=http://127.0.0.1:9324, and restart kiln`},
		"nobody told of SNS":       {to: topic, config: untold, permanent: true, want: "Kiln is not told which SNS to send to. Name it in kiln.toml, endpoints = { sns = "},
		"nobody told of events":    {to: bus, config: untold, permanent: true, want: "Kiln is not told which EventBridge to send to. Name it in kiln.toml, endpoints = { events = "},
		"nobody told of S3":        {to: bucket, config: untold, permanent: true, want: "Kiln is not told which S3 to send to. Name it in kiln.toml, endpoints = { s3 = "},
		"a FIFO queue":             {to: queue + ".fifo", permanent: true, want: "FIFO queues and topics take nothing"},
		"a FIFO topic":             {to: topic + ".fifo", permanent: true, want: "FIFO queues and topics take nothing"},
		"a function":               {to: "arn:aws:lambda:eu-west-1:123456789012:function:f", permanent: true, want: "it is not the ARN of what this can be sent to (sqs, sns, events, s3)"},
		"a queue of no region":     {to: "arn:aws:sqs::123456789012:q", permanent: true, want: "it is not the ARN of what"},
		"a path for a bucket":      {to: "arn:aws:s3:::a/../b", permanent: true, want: "it is not the ARN of what"},
		"no ARN":                   {to: "queue", permanent: true, want: "it is not an ARN"},
		"too large for SQS":        {to: queue, answer: never, outcome: large(1 << 20), permanent: true, want: "it is 1048972 bytes large, and SQS takes 1048576"},
		"too large for SNS":        {to: topic, answer: never, outcome: large(256 << 10), permanent: true, want: "it is 262540 bytes large, and SNS takes 262144"},
		"too large for EventBus":   {to: bus, answer: never, outcome: large(1 << 20), permanent: true, want: "its entry is 1049156 bytes large, and EventBridge takes 1048576"},
		"large enough for a queue": {to: queue, answer: fine, outcome: large(1<<20 - 1000)},
		"large enough for a topic": {to: topic, answer: fine, outcome: large(256<<10 - 1000)},
		"large enough for a bus":   {to: bus, answer: fine, outcome: large(1<<20 - 1000)},
		"never too large for S3":   {to: bucket, answer: fine, outcome: large(6 << 20)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.answer == nil {
				test.answer = never
			}
			s := sender(t, test.answer, test.config)
			err := s.Record(t.Context(), test.to, outcome(test.outcome))
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			want := "send to " + string(test.to) + ": " + strings.Replace(test.want, "SERVICE", map[string]string{"sqs": "SQS", "sns": "SNS", "events": "EventBridge", "s3": "S3"}[test.to.Service()], 1)
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if destination.Permanent(err) != test.permanent {
				t.Errorf("permanent is %v of %v", !test.permanent, err)
			}
		})
	}
}

// A dead letter goes to a queue or a topic alone, and counts with its attributes.
func TestDeadLetterErrors(t *testing.T) {
	t.Parallel()
	s := sender(t, fine, nil)
	for _, to := range []lambda.Destination{bus, bucket} {
		if err := s.DeadLetter(t.Context(), to, destination.Letter{Payload: []byte("{}")}); !destination.Permanent(err) || !strings.HasSuffix(err.Error(), "(sqs, sns)") {
			t.Errorf("%s: %v", to, err)
		}
	}
	const attributes = len("RequestID"+"String"+"r") + len("ErrorMessage"+"String"+"no") + len("ErrorCode"+"Number"+"200")
	l := destination.Letter{RequestID: "r", ErrorCode: 200, ErrorMessage: "no", Payload: bytes.Repeat([]byte("1"), 1<<20-attributes)}
	if err := s.DeadLetter(t.Context(), queue, l); err != nil {
		t.Error(err)
	}
	l.Payload = append(l.Payload, '1')
	if err := s.DeadLetter(t.Context(), queue, l); !destination.Permanent(err) || !strings.Contains(err.Error(), "it is 1048577 bytes large, and SQS takes 1048576") {
		t.Error(err)
	}
}
