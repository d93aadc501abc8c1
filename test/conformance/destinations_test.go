package conformance

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	eventtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
	"kiln/test/kiln"
)

// services are queues, topics, buses and buckets that others wrote.
type services struct {
	t      *testing.T
	sqs    *sqs.Client
	sns    *sns.Client
	events *eventbridge.Client
	s3     *s3.Client
}

func newServices(t *testing.T, url string) services {
	config := aws.Config{BaseEndpoint: &url, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("moto", "moto", "")}
	return services{t, sqs.NewFromConfig(config), sns.NewFromConfig(config), eventbridge.NewFromConfig(config), s3.NewFromConfig(config, func(o *s3.Options) { o.UsePathStyle = true })}
}

// must is what came of setting a service up.
func must[T any](t *testing.T) func(out T, err error) T {
	return func(out T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// queue makes a queue.
func (s services) queue(name string) (url string, arn lambda.Destination) {
	s.t.Helper()
	made := must[*sqs.CreateQueueOutput](s.t)(s.sqs.CreateQueue(s.t.Context(), &sqs.CreateQueueInput{QueueName: &name}))
	return *made.QueueUrl, lambda.Destination("arn:aws:sqs:us-east-1:123456789012:" + name)
}

// received takes the one message out of a queue.
func (s services) received(url string) types.Message {
	s.t.Helper()
	return s.take(url, 10)
}

// next takes one message out of a queue.
func (s services) next(url string) types.Message {
	s.t.Helper()
	return s.take(url, 1)
}

func (s services) take(url string, most int32) types.Message {
	s.t.Helper()
	got := must[*sqs.ReceiveMessageOutput](s.t)(s.sqs.ReceiveMessage(s.t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: most, WaitTimeSeconds: 10, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	}))
	if len(got.Messages) != 1 {
		s.t.Fatalf("%d messages", len(got.Messages))
	}
	must[*sqs.DeleteMessageOutput](s.t)(s.sqs.DeleteMessage(s.t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: got.Messages[0].ReceiptHandle}))
	return got.Messages[0]
}

// TestDestinations sends records and dead letters to services that others wrote, and
// reads them there.
func TestDestinations(t *testing.T) {
	t.Parallel()
	moto := kiln.Moto(t)
	there := newServices(t, moto)
	sender := destination.New(destination.Config{
		Endpoint:    func(string) string { return moto },
		Credentials: credentials.NewStaticCredentialsProvider("kiln", "kiln", ""),
	})
	t.Cleanup(sender.Close)
	outcome := destination.Outcome{
		RequestID: "c6af9ac6-7b61-11e6-9a41-93e8deadbeef", Condition: destination.RetriesExhausted, Invokes: 3, At: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		Function: lambda.FunctionARN{Scope: lambda.Scope{Account: "123456789012", Region: "us-east-1"}, Name: "f", Qualifier: "live"},
		Payload:  []byte("{\"order\" : 1,\n\"text\":\"é \uFFFE \U0001F600\"}"),
		Response: &destination.Response{StatusCode: 200, ExecutedVersion: "7", FunctionError: "Unhandled", Payload: []byte(`{"errorMessage":"no"}`)},

		TraceHeader: "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
	}
	record := string(outcome.Record())
	url, queue := there.queue("records")
	topicURL, topicQueue := there.queue("of-topic")
	topic := must[*sns.CreateTopicOutput](t)(there.sns.CreateTopic(t.Context(), &sns.CreateTopicInput{Name: aws.String("records")})).TopicArn
	must[*sns.SubscribeOutput](t)(there.sns.Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: topic, Protocol: aws.String("sqs"), Endpoint: aws.String(string(topicQueue))}))

	t.Run("SQS", func(t *testing.T) {
		if err := sender.Record(t.Context(), queue, outcome); err != nil {
			t.Fatal(err)
		}
		got := there.received(url)
		want(t, "body", *got.Body, record)
		want(t, "trace header", got.Attributes["AWSTraceHeader"], outcome.TraceHeader)
	})
	t.Run("SNS", func(t *testing.T) {
		if err := sender.Record(t.Context(), lambda.Destination(*topic), outcome); err != nil {
			t.Fatal(err)
		}
		var got struct{ Type, TopicArn, Message string }
		if err := json.Unmarshal([]byte(*there.received(topicURL).Body), &got); err != nil {
			t.Fatal(err)
		}
		want(t, "message", got.Message, record)
		want(t, "topic", got.TopicArn, *topic)
	})
	t.Run("EventBridge", func(t *testing.T) {
		busURL, busQueue := there.queue("of-bus")
		bus := must[*eventbridge.CreateEventBusOutput](t)(there.events.CreateEventBus(t.Context(), &eventbridge.CreateEventBusInput{Name: aws.String("records")})).EventBusArn
		must[*eventbridge.PutRuleOutput](t)(there.events.PutRule(t.Context(), &eventbridge.PutRuleInput{
			Name: aws.String("failures"), EventBusName: aws.String("records"),
			EventPattern: aws.String(`{"source":["lambda"],"detail-type":["Lambda Function Invocation Result - Failure"],"detail":{"requestContext":{"condition":["RetriesExhausted"]}}}`),
		}))
		must[*eventbridge.PutTargetsOutput](t)(there.events.PutTargets(t.Context(), &eventbridge.PutTargetsInput{
			Rule: aws.String("failures"), EventBusName: aws.String("records"), Targets: []eventtypes.Target{{Id: aws.String("1"), Arn: aws.String(string(busQueue))}},
		}))
		if err := sender.Record(t.Context(), lambda.Destination(*bus), outcome); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Resources []string
			Detail    any
		}
		if err := json.Unmarshal([]byte(*there.received(busURL).Body), &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{*bus, "arn:aws:lambda:us-east-1:123456789012:function:f:live"}, got.Resources); d != "" {
			t.Error(d)
		}
		var detail any
		_ = json.Unmarshal([]byte(record), &detail)
		if d := cmp.Diff(detail, got.Detail); d != "" {
			t.Error(d)
		}
	})
	t.Run("S3", func(t *testing.T) {
		bucket := aws.String("records")
		must[*s3.CreateBucketOutput](t)(there.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket}))
		large := outcome
		large.Response = &destination.Response{StatusCode: 200, ExecutedVersion: "7", Payload: []byte(`"` + strings.Repeat("a", 6<<20) + `"`)}
		for range 2 { // a record that is sent again replaces itself
			if err := sender.Record(t.Context(), "arn:aws:s3:::records", large); err != nil {
				t.Fatal(err)
			}
		}
		list := must[*s3.ListObjectsV2Output](t)(there.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: bucket})).Contents
		if len(list) != 1 || !strings.HasPrefix(*list[0].Key, "aws/lambda/async/f/2026/03/04/2026-03-04T05.06.07-") {
			t.Fatalf("objects: %v", list)
		}
		got := must[*s3.GetObjectOutput](t)(there.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: bucket, Key: list[0].Key}))
		defer got.Body.Close()
		if b, err := io.ReadAll(got.Body); err != nil || string(b) != string(large.Record()) {
			t.Errorf("%d bytes of %d: %v", len(b), len(large.Record()), err)
		}
	})

	letter := destination.Letter{RequestID: outcome.RequestID, Payload: []byte(`{"raise_error": 1}`), ErrorCode: 200, ErrorMessage: "\x1b[31mno" + strings.Repeat("é", 1000), TraceHeader: outcome.TraceHeader}
	message := "\uFFFD[31mno" + strings.Repeat("é", 507)
	t.Run("dead letter to SQS", func(t *testing.T) {
		if err := sender.DeadLetter(t.Context(), queue, letter); err != nil {
			t.Fatal(err)
		}
		got := there.received(url)
		want(t, "body", *got.Body, `{"raise_error": 1}`)
		for name, value := range map[string][2]string{"RequestID": {"String", string(letter.RequestID)}, "ErrorCode": {"Number", "200"}, "ErrorMessage": {"String", message}} {
			if a := got.MessageAttributes[name]; aws.ToString(a.DataType) != value[0] || aws.ToString(a.StringValue) != value[1] {
				t.Errorf("%s: %s %q", name, aws.ToString(a.DataType), aws.ToString(a.StringValue))
			}
		}
	})
	t.Run("dead letter to SNS", func(t *testing.T) {
		if err := sender.DeadLetter(t.Context(), lambda.Destination(*topic), letter); err != nil {
			t.Fatal(err)
		}
		type attribute struct{ Type, Value string }
		var got struct {
			Message           string
			MessageAttributes map[string]attribute
		}
		if err := json.Unmarshal([]byte(*there.received(topicURL).Body), &got); err != nil {
			t.Fatal(err)
		}
		want(t, "message", got.Message, `{"raise_error": 1}`)
		wanted := map[string]attribute{"RequestID": {"String", string(letter.RequestID)}, "ErrorCode": {"Number", "200"}, "ErrorMessage": {"String", message}}
		if d := cmp.Diff(wanted, got.MessageAttributes); d != "" {
			t.Error(d)
		}
	})
	t.Run("of the greatest size", func(t *testing.T) {
		large := letter
		large.Payload, large.ErrorMessage = []byte(`"`+strings.Repeat("a", 1<<20-1000)+`"`), "no"
		if err := sender.DeadLetter(t.Context(), queue, large); err != nil {
			t.Fatal(err)
		}
		if got := there.received(url); *got.Body != string(large.Payload) {
			t.Errorf("%d bytes came", len(*got.Body))
		}
	})
	t.Run("made again", func(t *testing.T) {
		must[*sqs.DeleteQueueOutput](t)(there.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}))
		if err := sender.Record(t.Context(), queue, outcome); !destination.Permanent(err) {
			t.Errorf("to a queue that is gone: %v", err)
		}
		url, _ := there.queue("records")
		if err := sender.Record(t.Context(), queue, outcome); err != nil {
			t.Fatal(err)
		}
		want(t, "body", *there.received(url).Body, record)
	})
	t.Run("not there", func(t *testing.T) {
		for _, to := range []lambda.Destination{
			"arn:aws:sqs:us-east-1:123456789012:absent", "arn:aws:sqs:eu-west-1:123456789012:records", "arn:aws:sns:us-east-1:123456789012:absent",
			"arn:aws:sns:eu-west-1:123456789012:records", "arn:aws:events:us-east-1:123456789012:event-bus/absent", "arn:aws:s3:::absent",
		} {
			if err := sender.Record(t.Context(), to, outcome); !destination.Permanent(err) {
				t.Errorf("%s: %v", to, err)
			}
		}
	})
}
