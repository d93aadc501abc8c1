package conformance

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kiln/test/kiln"
)

// asked does what the event says, and knows how often it was asked.
const asked = `
import time
def handler(event, context):
    if event.get("fail"):
        raise ValueError("no: " + event["fail"])
    if event.get("hang"):
        time.sleep(60)
    c = context.client_context
    return {"event": event, "arn": context.invoked_function_arn, "custom": c.custom if c else None}
`

// record is what a destination gets, as the facts of the service have it.
type record struct {
	Version, Timestamp string
	RequestContext     struct {
		RequestID, FunctionARN, Condition string
		ApproximateInvokeCount            int
	}
	RequestPayload  any
	ResponseContext *struct {
		StatusCode                     int
		ExecutedVersion, FunctionError string
	}
	ResponsePayload any
}

// TestAsynchronous invokes without waiting, with each client, and reads in queues of an
// SQS that others wrote what became of it.
func TestAsynchronous(t *testing.T) {
	t.Parallel()
	moto := kiln.Moto(t)
	there := newServices(t, moto)
	d := kiln.StartEnv(t, []string{"AWS_ACCESS_KEY_ID=kiln", "AWS_SECRET_ACCESS_KEY=kiln", "KILN_ENDPOINTS=sqs=" + moto},
		"--any-runtime", "--async-retry-delay", "100ms")
	t.Run("clients", func(t *testing.T) {
		each(t, func(t *testing.T, name string, c client) {
			there := there
			there.t = t
			s := session{c, t, anyKey(d)}
			fn := "async-" + name
			doneURL, done := there.queue("done-" + name)
			failedURL, failed := there.queue("failed-" + name)
			deadURL, dead := there.queue("dead-" + name)
			s.create(fn, values{
				"Code": values{"ZipFile": kiln.Zip(map[string]string{"f.py": asked})}, "Timeout": 1,
				"DeadLetterConfig": values{"TargetArn": string(dead)},
			})
			s.must("PublishVersion", values{"FunctionName": fn})
			s.must("CreateAlias", values{"FunctionName": fn, "Name": "live", "FunctionVersion": "1"})
			for _, q := range []string{"$LATEST", "live"} {
				s.must("PutFunctionEventInvokeConfig", values{"FunctionName": fn, "Qualifier": q, "DestinationConfig": values{
					"OnSuccess": values{"Destination": string(done)}, "OnFailure": values{"Destination": string(failed)},
				}})
			}
			send := func(in values) {
				t.Helper()
				in["InvocationType"] = "Event"
				if _, ok := in["FunctionName"]; !ok {
					in["FunctionName"] = fn
				}
				out := s.must("Invoke", in)
				want(t, "status", out["StatusCode"], 202)
				for _, none := range []string{"ExecutedVersion", "FunctionError", "LogResult"} {
					want(t, none, out[none], nil)
				}
				if payload, _ := out["Payload"].([]byte); len(payload) > 0 {
					t.Errorf("payload: %q", payload)
				}
			}
			recorded := func(url string) (r record) {
				t.Helper()
				if err := json.Unmarshal([]byte(*there.received(url).Body), &r); err != nil {
					t.Fatal(err)
				}
				return r
			}

			send(values{"Payload": []byte(`{"n": 1}`)})
			r := recorded(doneURL)
			want(t, "condition", r.RequestContext.Condition, "Success")
			want(t, "function", r.RequestContext.FunctionARN, arnPrefix+fn+":$LATEST")
			want(t, "invokes", r.RequestContext.ApproximateInvokeCount, 1)
			want(t, "version", r.ResponseContext.ExecutedVersion, "$LATEST")
			if d := cmp.Diff(map[string]any{"event": map[string]any{"n": 1.0}, "arn": arnPrefix + fn, "custom": nil}, r.ResponsePayload); d != "" {
				t.Error(d)
			}
			if name != "cli" { // whose payload is a file
				large := `{"large":"` + strings.Repeat("x", 200_000) + `"}`
				send(values{"Payload": []byte(large)})
				if b, _ := json.Marshal(recorded(doneURL).RequestPayload); string(b) != large {
					t.Errorf("a large event has come as one of %d bytes", len(b))
				}
			}
			send(values{"Payload": []byte(`{}`), "Qualifier": "live", "ClientContext": "eyJjdXN0b20iOnsiYSI6ImIifX0="})
			r = recorded(doneURL)
			want(t, "function by alias", r.RequestContext.FunctionARN, arnPrefix+fn+":live")
			want(t, "version by alias", r.ResponseContext.ExecutedVersion, "1")
			if d := cmp.Diff(map[string]any{"event": map[string]any{}, "arn": arnPrefix + fn + ":live", "custom": map[string]any{"a": "b"}}, r.ResponsePayload); d != "" {
				t.Error(d)
			}

			send(values{"Payload": []byte(`{"fail":"never"}`)})
			r = recorded(failedURL)
			want(t, "condition of a failure", r.RequestContext.Condition, "RetriesExhausted")
			want(t, "invokes of a failure", r.RequestContext.ApproximateInvokeCount, 3)
			want(t, "error", r.ResponseContext.FunctionError, "Unhandled")
			want(t, "message", r.ResponsePayload.(map[string]any)["errorMessage"], "no: never")
			letter := there.received(deadURL)
			want(t, "dead letter", *letter.Body, `{"fail":"never"}`)
			for attribute, value := range map[string]string{"RequestID": r.RequestContext.RequestID, "ErrorCode": "200", "ErrorMessage": "no: never"} {
				want(t, attribute, *letter.MessageAttributes[attribute].StringValue, value)
			}

			s.must("UpdateFunctionEventInvokeConfig", values{"FunctionName": fn, "MaximumRetryAttempts": 0})
			send(values{"Payload": []byte(`{"hang":true}`)})
			r = recorded(failedURL)
			want(t, "invokes without retries", r.RequestContext.ApproximateInvokeCount, 1)
			if m := fmt.Sprint(r.ResponsePayload.(map[string]any)["errorMessage"]); !strings.Contains(m, "Task timed out after 1.00 seconds") {
				t.Errorf("a timeout: %s", m)
			}
			there.received(deadURL)

			s.must("PutFunctionConcurrency", values{"FunctionName": fn, "ReservedConcurrentExecutions": 0})
			send(values{"Payload": []byte(`{}`)})
			r = recorded(failedURL)
			want(t, "condition without concurrency", r.RequestContext.Condition, "ZeroReservedConcurrency")
			want(t, "invokes without concurrency", r.RequestContext.ApproximateInvokeCount, 0)
			there.received(deadURL)
			s.must("DeleteFunctionConcurrency", values{"FunctionName": fn})

			if name != "cli" { // whose command checks less
				s.refused("Invoke", values{"FunctionName": fn, "InvocationType": "Event", "Payload": []byte(`{`)}, 400, "InvalidRequestContentException",
					"Could not parse request body into json: Could not parse payload into json: unexpected end of JSON input\n at [Source: REDACTED; line: 1, column: 1]")
				s.refused("Invoke", values{"FunctionName": fn, "InvocationType": "Event", "Payload": []byte(`"` + strings.Repeat("x", 1<<20) + `"`)}, 413, "RequestTooLargeException",
					"Request must be smaller than 1048576 bytes for the InvokeFunction operation")
			}
			s.refused("Invoke", values{"FunctionName": "absent", "InvocationType": "Event"}, 404, missing, "Function not found: "+arnPrefix+"absent:$LATEST")

			out := s.must("InvokeAsync", values{"FunctionName": fn, "InvokeArgs": []byte(`{"old":true}`)})
			want(t, "status of InvokeAsync", out["Status"], 202)
			if d := cmp.Diff(map[string]any{"old": true}, recorded(doneURL).RequestPayload); d != "" {
				t.Error(d)
			}
		})
	})
	for metric, least := range map[string]float64{
		"kiln_async_events_received_total": 6, "kiln_async_event_age_seconds_count": 7, "kiln_async_events_dropped_total": 3,
	} {
		if n := d.Metric(metric + "{"); n < least {
			t.Errorf("%s is %v", metric, n)
		}
	}
}
