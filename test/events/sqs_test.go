package events

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"kiln/test/kiln"
)

// rig is a daemon with an SQS that others wrote.
type rig struct {
	testing.TB
	*ledger
	d    *kiln.Daemon
	moto string
	sqs  *sqs.Client
	// aside counts what is asked of a way to the same SQS that is configured for one queue.
	aside atomic.Int64
}

// elsewhere is that queue.
const elsewhere = "arn:aws:sqs:us-east-1:123456789012:elsewhere"

func newRig(t testing.TB) *rig {
	moto := kiln.Moto(t)
	to, err := url.Parse(moto)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		TB: t, ledger: newLedger(t), moto: moto,
		sqs: sqs.New(sqs.Options{BaseEndpoint: &moto, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("moto", "moto", "")}),
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // what is cut off when the daemon ends
	aside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { r.aside.Add(1); proxy.ServeHTTP(w, q) }))
	t.Cleanup(aside.Close)
	r.d = kiln.StartEnv(t, []string{"AWS_ACCESS_KEY_ID=kiln", "AWS_SECRET_ACCESS_KEY=kiln", "KILN_ENDPOINTS=sqs=" + moto, "KILN_SOURCE_ENDPOINTS=" + elsewhere + "=" + aside.URL},
		"--account", kiln.Account(), "--any-runtime", "--network", "host")
	return r
}

// queue makes one whose messages are seen again after a number of seconds.
func (r *rig) queue(name string, visibility int, more ...string) (url *string, arn string) {
	r.Helper()
	attributes := map[string]string{"VisibilityTimeout": strconv.Itoa(visibility)}
	for i := 0; i < len(more); i += 2 {
		attributes[more[i]] = more[i+1]
	}
	made, err := r.sqs.CreateQueue(r.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		r.Fatal(err)
	}
	return made.QueueUrl, "arn:aws:sqs:us-east-1:123456789012:" + name
}

// send puts messages into a queue.
func (r *rig) send(url *string, bodies ...string) {
	r.Helper()
	for part := range slices.Chunk(bodies, 10) {
		in := &sqs.SendMessageBatchInput{QueueUrl: url}
		for i, body := range part {
			in.Entries = append(in.Entries, sqstypes.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: &body})
		}
		if out, err := r.sqs.SendMessageBatch(r.Context(), in); err != nil || len(out.Failed) > 0 {
			r.Fatal(err, out)
		}
	}
}

// left is how many messages a queue has, those in flight too.
func (r *rig) left(url *string) int {
	out, err := r.sqs.GetQueueAttributes(r.Context(), &sqs.GetQueueAttributesInput{QueueUrl: url, AttributeNames: []sqstypes.QueueAttributeName{"All"}})
	if err != nil {
		r.Fatal(err)
	}
	seen, _ := strconv.Atoi(out.Attributes["ApproximateNumberOfMessages"])
	unseen, _ := strconv.Atoi(out.Attributes["ApproximateNumberOfMessagesNotVisible"])
	return seen + unseen
}

// mapping has a function called with what a queue has, and returns its id.
func (r *rig) mapping(source, function string, change func(*lambda.CreateEventSourceMappingInput)) string {
	r.Helper()
	in := &lambda.CreateEventSourceMappingInput{EventSourceArn: &source, FunctionName: &function}
	if change != nil {
		change(in)
	}
	out, err := r.d.Client().CreateEventSourceMapping(r.Context(), in)
	if err != nil {
		r.Fatal(err)
	}
	return *out.UUID
}

// also runs a part of the test beside the others.
func (r *rig) also(name string, part func(t *testing.T, r *rig)) {
	r.TB.(*testing.T).Run(name, func(t *testing.T) {
		t.Parallel()
		part(t, &rig{TB: t, ledger: r.ledger, d: r.d, moto: r.moto, sqs: r.sqs})
	})
}

func (r *rig) await(what string, condition func() bool) {
	r.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("still waiting for %s\n%s", what, r.d.Log)
		}
	}
}

func numbers(prefix string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%s%d", prefix, i))
	}
	return list
}

// TestQueues has functions called with the messages of queues.
func TestQueues(t *testing.T) {
	t.Parallel()
	r := newRig(t)

	r.also("event", func(t *testing.T, r *rig) {
		url, arn := r.queue("exact", 30)
		r.function(r.d, "exact", `
def handler(event, context):
    note("exact", event)
    note("trace", os.environ["_X_AMZN_TRACE_ID"])
`, nil)
		r.mapping(arn, "exact", nil)
		sent, err := r.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: url, MessageBody: aws.String("Test <message> & \u2028."),
			MessageAttributes: map[string]sqstypes.MessageAttributeValue{
				"text":   {DataType: aws.String("String"), StringValue: aws.String("a")},
				"number": {DataType: aws.String("Number.int"), StringValue: aws.String("1")},
				"bytes":  {DataType: aws.String("Binary"), BinaryValue: []byte{1, 2, 255}},
			},
			MessageSystemAttributes: map[string]sqstypes.MessageSystemAttributeValue{
				"AWSTraceHeader": {DataType: aws.String("String"), StringValue: aws.String("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1")},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.await("the event", func() bool { return r.count("trace") > 0 })
		r.await("its deletion", func() bool { return r.left(url) == 0 })
		notes := slices.DeleteFunc(r.all(), func(e entry) bool { return e.ID != "exact" && e.ID != "trace" })
		var got map[string][]map[string]any
		if err := json.Unmarshal(notes[0].What, &got); err != nil || len(got["Records"]) != 1 {
			t.Fatal(err, string(notes[0].What))
		}
		record := got["Records"][0]
		attributes := record["attributes"].(map[string]any)
		for _, name := range []string{"SentTimestamp", "ApproximateFirstReceiveTimestamp"} {
			if ms, err := strconv.ParseInt(attributes[name].(string), 10, 64); err != nil || time.Since(time.UnixMilli(ms)).Abs() > time.Minute {
				t.Errorf("%s: %v", name, attributes[name])
			}
			delete(attributes, name)
		}
		if attributes["SenderId"] == nil || record["receiptHandle"] == "" {
			t.Errorf("no sender or receipt: %v", record)
		}
		delete(attributes, "SenderId")
		delete(record, "receiptHandle")
		attribute := func(kind, value, data string) map[string]any {
			return map[string]any{"dataType": kind, value: data, "stringListValues": []any{}, "binaryListValues": []any{}}
		}
		want := map[string]any{
			"messageId": *sent.MessageId, "body": "Test <message> & \u2028.", "md5OfBody": *sent.MD5OfMessageBody, "md5OfMessageAttributes": *sent.MD5OfMessageAttributes,
			"attributes": map[string]any{"ApproximateReceiveCount": "1", "AWSTraceHeader": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"},
			"messageAttributes": map[string]any{
				"text": attribute("String", "stringValue", "a"), "number": attribute("Number.int", "stringValue", "1"), "bytes": attribute("Binary", "binaryValue", "AQL/"),
			},
			"eventSource": "aws:sqs", "eventSourceARN": arn, "awsRegion": "us-east-1",
		}
		if diff := cmp.Diff(want, record); diff != "" {
			t.Error(diff)
		}
		if trace := string(notes[1].What); !strings.HasPrefix(trace, `"Root=1-5759e988-bd862e3fe1be46a994272793;`) {
			t.Errorf("the trace is %s", trace)
		}
	})

	// Some fail by being named, some by an error, some always.
	r.also("failures", func(t *testing.T, r *rig) {
		dead, deadARN := r.queue("dead", 30)
		url, arn := r.queue("failures", 1, "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":6}`, deadARN))
		r.function(r.d, "failures", `
def handler(event, context):
    failed = []
    for r in event["Records"]:
        id = r["body"]
        times = note(id)
        if id == "poison" or id.startswith("named") and times == 1:
            failed.append({"itemIdentifier": r["messageId"]})
        if id.startswith("error") and times == 1:
            raise ValueError(id)
    return {"batchItemFailures": failed}
`, nil)
		r.mapping(arn, "failures", func(in *lambda.CreateEventSourceMappingInput) {
			in.FunctionResponseTypes = []types.FunctionResponseType{types.FunctionResponseTypeReportBatchItemFailures}
			in.MaximumBatchingWindowInSeconds = aws.Int32(1)
		})
		ids := slices.Concat(numbers("named", 7), numbers("good", 12), numbers("error", 3), []string{"poison"})
		r.send(url, ids...)
		r.await("the poison in the dead-letter queue", func() bool { return r.left(dead) == 1 })
		r.await("an empty queue", func() bool { return r.left(url) == 0 })
		if m := r.missing(ids); m != nil {
			t.Errorf("not delivered: %v", m)
		}
		for _, id := range numbers("named", 7) {
			if r.count(id) < 2 {
				t.Errorf("%s was delivered once, and not again", id)
			}
		}
		if n := r.count("poison"); n < 2 || n > 6 { // an error of another in its batch may hide it
			t.Errorf("the poison was delivered %d times", n)
		}
		if n := r.d.Metric("kiln_event_source_events_total", `function="failures"`, `kind="deleted"`); n < float64(len(ids)-1) { // more, where one was slow and came twice
			t.Errorf("%v messages deleted, want %d", n, len(ids)-1)
		}
	})

	r.also("filter", func(t *testing.T, r *rig) {
		url, arn := r.queue("filter", 30)
		r.function(r.d, "filter", `
def handler(event, context):
    for r in event["Records"]:
        note("filter " + json.loads(r["body"])["id"])
`, nil)
		r.mapping(arn, "filter", func(in *lambda.CreateEventSourceMappingInput) {
			in.FilterCriteria = &types.FilterCriteria{Filters: []types.Filter{{Pattern: aws.String(`{"body":{"n":[{"numeric":[">",6]}],"id":[{"prefix":"w"}]}}`)}}}
		})
		bodies := []string{`plain`, `{"id":"w"`, `7`, `{"id":"x","n":7}`}
		for i := range 12 {
			bodies = append(bodies, fmt.Sprintf(`{"id":"w%d","n":%d}`, i, i))
		}
		r.send(url, bodies...)
		r.await("an empty queue", func() bool { return r.left(url) == 0 })
		for i := range 12 {
			if got, want := r.count(fmt.Sprintf("filter w%d", i)), max(0, min(i-6, 1)); got != want {
				t.Errorf("%d came %d times, want %d", i, got, want)
			}
		}
		if n := r.d.Metric("kiln_event_source_events_total", `function="filter"`, `kind="filtered_out"`); n != 11 {
			t.Errorf("%v messages filtered out, want 11", n)
		}
	})

	// Without failures: moto does not keep the order of what it hands out again.
	r.also("fifo", func(t *testing.T, r *rig) {
		url, arn := r.queue("order.fifo", 5, "FifoQueue", "true")
		r.function(r.d, "order", `
def handler(event, context):
    for r in event["Records"]:
        note("fifo " + r["body"], r["attributes"]["MessageGroupId"])
`, nil)
		for i := range 30 {
			_, err := r.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: url, MessageBody: aws.String(strconv.Itoa(i)), MessageGroupId: aws.String("g" + strconv.Itoa(i%3)), MessageDeduplicationId: aws.String(strconv.Itoa(i)),
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		r.mapping(arn, "order", nil)
		r.await("an empty queue", func() bool { return r.left(url) == 0 })
		handled := map[string][]int{}
		for _, e := range r.all() {
			if body, ok := strings.CutPrefix(e.ID, "fifo "); ok {
				i, _ := strconv.Atoi(body)
				handled[string(e.What)] = append(handled[string(e.What)], i)
			}
		}
		for group := range 3 {
			var want []int
			for i := range 10 {
				want = append(want, 3*i+group)
			}
			if got := handled[fmt.Sprintf(`"g%d"`, group)]; !slices.Equal(got, want) {
				t.Errorf("group %d: %v", group, got)
			}
		}
	})

	// A function fills its own queue. SQS takes the trace header of the request as the
	// message's, which moto does not: here the function says it itself.
	r.also("loop", func(t *testing.T, r *rig) {
		dead, deadARN := r.queue("looped", 30)
		url, arn := r.queue("loop", 1, "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":2}`, deadARN))
		r.function(r.d, "loop", `
def handler(event, context):
    note("loop")
    sqs = http.client.HTTPConnection(os.environ["SQS"], timeout=30)
    sqs.request("POST", "/", json.dumps({"QueueUrl": os.environ["QUEUE"], "MessageBody": "again", "MessageSystemAttributes": {
        "AWSTraceHeader": {"DataType": "String", "StringValue": os.environ["_X_AMZN_TRACE_ID"]}}}),
        {"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0", "Authorization": "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/sqs/aws4_request"})
    assert sqs.getresponse().status == 200
`, func(in *lambda.CreateFunctionInput) {
			in.Timeout = aws.Int32(1)
			in.Environment.Variables["SQS"], in.Environment.Variables["QUEUE"] = strings.TrimPrefix(r.moto, "http://"), *url
		})
		r.mapping(arn, "loop", nil)
		r.send(url, "once")
		r.await("the end of the loop", func() bool { return r.left(dead) == 1 && r.left(url) == 0 })
		if n := r.count("loop"); n != 16 {
			t.Errorf("the function ran %d times, want 16", n)
		}
		if n := r.d.Metric("kiln_recursive_invocations_dropped_total", `function="loop"`); n < 1 {
			t.Errorf("%v invocations dropped", n)
		}
	})

	r.also("elsewhere", func(t *testing.T, of *rig) {
		url, arn := of.queue("elsewhere", 30)
		of.function(of.d, "elsewhere", "def handler(event, context):\n    note('elsewhere')\n", nil)
		of.mapping(arn, "elsewhere", nil)
		of.send(url, "x")
		of.await("the message", func() bool { return of.count("elsewhere") == 1 && of.left(url) == 0 })
		if r.aside.Load() < 4 {
			t.Errorf("%d requests at the queue's own endpoint", r.aside.Load())
		}
	})

	r.also("gone", func(t *testing.T, r *rig) {
		url, arn := r.queue("gone", 2)
		r.function(r.d, "gone", `
def handler(event, context):
    for r in event["Records"]:
        note("gone " + r["body"])
`, func(in *lambda.CreateFunctionInput) { in.Timeout = aws.Int32(1) })
		id := r.mapping(arn, "gone", nil)
		reason := func() string {
			m, err := r.d.Client().GetEventSourceMapping(t.Context(), &lambda.GetEventSourceMappingInput{UUID: &id})
			if err != nil {
				t.Fatal(err)
			}
			return *m.StateTransitionReason
		}
		r.send(url, "1")
		r.await("the first", func() bool { return r.count("gone 1") == 1 })
		if got := reason(); got != "USER_INITIATED" {
			t.Errorf("the reason is %s", got)
		}
		if _, err := r.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: url}); err != nil {
			t.Fatal(err)
		}
		r.await("the problem", func() bool {
			return strings.HasPrefix(reason(), "PROBLEM: SQS answers") && strings.Contains(reason(), "NonExistentQueue")
		})
		url, _ = r.queue("gone", 2)
		r.send(url, "2")
		r.await("the second", func() bool { return r.count("gone 2") == 1 })
		// Disabled it leaves the queue alone; enabled again it goes on.
		change := func(enabled bool) {
			_, err := r.d.Client().UpdateEventSourceMapping(t.Context(), &lambda.UpdateEventSourceMappingInput{UUID: &id, Enabled: &enabled})
			if err != nil {
				t.Fatal(err)
			}
		}
		polled := func() float64 {
			return r.d.Metric("kiln_event_source_events_total", `function="gone"`, `kind="polled"`)
		}
		change(false)
		r.send(url, "3")
		before := polled()
		time.Sleep(500 * time.Millisecond) // nothing is to happen
		if r.count("gone 3") != 0 || polled() != before {
			t.Error("a disabled mapping polls")
		}
		change(true)
		r.await("the third", func() bool { return r.count("gone 3") == 1 })
		if _, err := r.d.Client().DeleteEventSourceMapping(t.Context(), &lambda.DeleteEventSourceMappingInput{UUID: &id}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestKillQueues kills the daemon in the middle, again and again: every message comes to
// the function, and leaves the queue after that.
func TestKillQueues(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	url, arn := r.queue("kill", 3)
	r.function(r.d, "kill", `
def handler(event, context):
    time.sleep(0.05)
    for r in event["Records"]:
        note(r["body"])
`, func(in *lambda.CreateFunctionInput) { in.Timeout = aws.Int32(2) })
	r.mapping(arn, "kill", nil)
	var ids []string
	for round := range 4 {
		more := numbers(fmt.Sprintf("%d-", round), 100)
		ids = append(ids, more...)
		r.send(url, more...)
		r.await("some of them", func() bool { return len(r.missing(more)) < 80 })
		r.d.Kill()
		r.d.Start()
	}
	r.await("an empty queue", func() bool { return r.left(url) == 0 })
	if m := r.missing(ids); m != nil {
		t.Errorf("never delivered: %v", m)
	}
	t.Logf("%d messages delivered %d times", len(ids), len(r.all()))
}
