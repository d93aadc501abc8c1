package conformance

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"kiln/internal/front/operator"
	"kiln/internal/invoke/async"
	"kiln/test/kiln"
)

// command runs kiln with a daemon, and returns what it prints.
func command(t *testing.T, d *kiln.Daemon, args ...string) string {
	t.Helper()
	cmd := exec.Command(kiln.Binary(t), args...)
	cmd.Env = d.Environ()
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kiln %s: %v\n%s%s", strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

// TestQueue parks events because their queue is not there, sees them with kiln queue over
// a restart, and has them told anew to a queue of an SQS that others wrote.
func TestQueue(t *testing.T) {
	t.Parallel()
	moto := kiln.Moto(t)
	there := newServices(t, moto)
	d := kiln.StartEnv(t, []string{"AWS_ACCESS_KEY_ID=kiln", "AWS_SECRET_ACCESS_KEY=kiln", "KILN_ENDPOINTS=sqs=" + moto}, "--any-runtime", "--async-retry-delay", "100ms")
	s := session{goSDK{}, t, anyKey(d)}
	absent := "arn:aws:sqs:us-east-1:123456789012:not-yet"
	s.create("f", values{"Code": values{"ZipFile": kiln.Zip(map[string]string{"f.py": asked})}, "DeadLetterConfig": values{"TargetArn": absent}})
	s.must("PutFunctionEventInvokeConfig", values{"FunctionName": "f", "DestinationConfig": values{"OnFailure": values{"Destination": absent}}})
	for range 3 {
		s.must("Invoke", values{"FunctionName": "f", "InvocationType": "Event", "Payload": []byte(`{"fail":"always"}`)})
	}
	parked := func() async.Waiting {
		t.Helper()
		var list []async.Waiting
		for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			if err := json.Unmarshal([]byte(command(t, d, "queue", "--json")), &list); err != nil {
				t.Fatal(err)
			}
			if len(list) == 1 && list[0].Parked == 3 && list[0].Events() == 3 {
				return list[0]
			}
			if time.Now().After(end) {
				t.Fatalf("waiting: %+v\n%s", list, d.Log)
			}
		}
	}
	before := parked()
	if !strings.Contains(before.Error, "not-yet") {
		t.Errorf("the error: %s", before.Error)
	}
	want(t, "told", d.Metric(`kiln_destination_delivery_failures_total{`) >= 3, true)

	// There is another queue now, and the function knows it.
	d.Stop()
	url, now := there.queue("now")
	d.Start()
	s.to = anyKey(d)
	s.must("UpdateFunctionConfiguration", values{"FunctionName": "f", "DeadLetterConfig": values{"TargetArn": string(now)}})
	s.must("UpdateFunctionEventInvokeConfig", values{"FunctionName": "f", "DestinationConfig": values{"OnFailure": values{"Destination": string(now)}}})
	if after := parked(); after.Oldest.Sub(before.Oldest).Abs() > 2*time.Second {
		t.Errorf("the oldest was accepted at %v, and after a restart at %v", before.Oldest, after.Oldest)
	}
	var all operator.QueueEvents
	if err := json.Unmarshal([]byte(command(t, d, "queue", "show", "f", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for _, e := range all.Events {
		ids[string(e.ID)] = 2 // a record and a dead letter
		want(t, "condition", string(e.Condition), "RetriesExhausted")
		want(t, "invoked", e.Invoked, 3)
		want(t, "whom", len(e.Untold), 2)
	}
	want(t, "redriven", command(t, d, "queue", "redrive", "f", "--yes"), "3 events are told anew, of f; kiln queue shows what cannot be.\n")
	for range 6 {
		m := there.next(url)
		id := ""
		if a, letter := m.MessageAttributes["RequestID"]; letter {
			id = *a.StringValue
			want(t, "dead letter", *m.Body, `{"fail":"always"}`)
		} else {
			var r record
			if err := json.Unmarshal([]byte(*m.Body), &r); err != nil {
				t.Fatal(err)
			}
			id = r.RequestContext.RequestID
			want(t, "condition", r.RequestContext.Condition, "RetriesExhausted")
		}
		if ids[id]--; ids[id] < 0 {
			t.Errorf("a message about %s", id)
		}
	}
	want(t, "left", command(t, d, "queue"), "No events wait.\n")
}
