package destination_test

import (
	"encoding/json"
	"testing"
	"time"

	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
)

var function = lambda.FunctionARN{Scope: lambda.Scope{Account: "123456789012", Region: "eu-west-1"}, Name: "my-function"}

// outcome is one that succeeded, as the example of AWS's documentation.
func outcome(change func(*destination.Outcome)) destination.Outcome {
	o := destination.Outcome{
		RequestID: "e4b46cbf-b738-42fe-9f1a-1d4e1f4c4c3a", Function: function, Condition: destination.Success, Invokes: 1,
		At:      time.Date(2026, 3, 4, 5, 6, 7, 89_999_999, time.FixedZone("", 3600)),
		Payload: []byte(`{"order": [1, 2.50],` + "\n" + `"html":"<&>"}`),
		Response: &destination.Response{
			StatusCode: 200, ExecutedVersion: lambda.Latest, Payload: []byte(`{"statusCode":200}`),
		},
	}
	if change != nil {
		change(&o)
	}
	return o
}

const (
	before  = `{"version":"1.0","timestamp":"2026-03-04T04:06:07.089Z","requestContext":{"requestId":"e4b46cbf-b738-42fe-9f1a-1d4e1f4c4c3a","functionArn":"arn:aws:lambda:eu-west-1:123456789012:function:my-function:`
	request = `,"requestPayload":{"order": [1, 2.50],` + "\n" + `"html":"<&>"}`
)

// TestRecord compares with what AWS sends.
func TestRecord(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*destination.Outcome)
		want   string
	}{
		"success": {nil, before + `$LATEST","condition":"Success","approximateInvokeCount":1}` + request +
			`,"responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":{"statusCode":200}}`},
		"a function error": {func(o *destination.Outcome) {
			o.Function.Qualifier, o.Condition, o.Invokes = "live", destination.RetriesExhausted, 3
			o.Response = &destination.Response{StatusCode: 200, ExecutedVersion: "7", FunctionError: "Unhandled", Payload: []byte(`{"errorMessage":"no"}`)}
		}, before + `live","condition":"RetriesExhausted","approximateInvokeCount":3}` + request +
			`,"responseContext":{"statusCode":200,"executedVersion":"7","functionError":"Unhandled"},"responsePayload":{"errorMessage":"no"}}`},
		"never invoked": {func(o *destination.Outcome) {
			o.Condition, o.Invokes, o.Response, o.Payload = destination.ZeroReservedConcurrency, 0, nil, []byte("{}")
		}, before + `$LATEST","condition":"ZeroReservedConcurrency","approximateInvokeCount":0},"requestPayload":{}}`},
		"no answer": {func(o *destination.Outcome) { o.Response.Payload, o.Payload = nil, []byte(" 1 ") },
			before + `$LATEST","condition":"Success","approximateInvokeCount":1},"requestPayload":1,"responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":null}`},
		"an answer that is no JSON": {func(o *destination.Outcome) {
			o.Response.Payload, o.Payload = []byte("<p>\"\x1b\xff\uFFFF"), []byte(`""`)
		}, before + `$LATEST","condition":"Success","approximateInvokeCount":1},"requestPayload":"","responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":"<p>\"\u001b\ufffd\uffff"}`},
		"what queues do not take": {func(o *destination.Outcome) {
			o.Response.Payload, o.Payload = []byte("\"\xc3\""), []byte("\"\uFFFE é \U0001F600 \uFFFF\"")
		}, before + `$LATEST","condition":"Success","approximateInvokeCount":1},"requestPayload":"\ufffe é ` + "\U0001F600" + ` \uffff","responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":"` + "\uFFFD" + `"}`},
	} {
		got := outcome(test.change).Record()
		if string(got) != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, test.want)
		}
		if !json.Valid(got) {
			t.Errorf("%s: it is not JSON", name)
		}
	}
}

func TestErrorMessage(t *testing.T) {
	t.Parallel()
	for document, want := range map[string]string{
		`{"errorMessage":"it is \"so\"","errorType":"E"}`: `it is "so"`,
		`{"errorType":"E"}`:      "",
		`{"errorMessage":[1]}`:   "",
		`["errorMessage"]`:       "",
		`<html>`:                 "",
		``:                       "",
		`{"errorMessage": null}`: "",
	} {
		if got := destination.ErrorMessage([]byte(document)); got != want {
			t.Errorf("%s says %q, want %q", document, got, want)
		}
	}
}

func TestPermission(t *testing.T) {
	t.Parallel()
	for to, want := range map[lambda.Destination][2]string{
		queue:  {"sqs:SendMessage", string(queue)},
		topic:  {"sns:Publish", string(topic)},
		bus:    {"events:PutEvents", string(bus)},
		bucket: {"s3:PutObject", "arn:aws:s3:::records/aws/lambda/async/my-function/2026/03/04/2026-03-04T04.06.07-99f9e394-1853-536a-ba4a-feda0c72e329"},
		"arn:aws:lambda:eu-west-1:123456789012:function:next:live": {"lambda:InvokeFunction", "arn:aws:lambda:eu-west-1:123456789012:function:next:live"},
		queue + ".fifo": {},
	} {
		action, on := destination.Permission(to, outcome(nil))
		got := [2]string{action}
		if on != nil {
			got[1] = on.String()
			if on.Owner() != function.Account {
				t.Errorf("%s is of account %s", to, on.Owner())
			}
		}
		if got != want {
			t.Errorf("%s: %v, want %v", to, got, want)
		}
	}
}
