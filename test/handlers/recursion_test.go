package handlers

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"kiln/test/kiln"
)

// callers invoke the next of the functions that the event names, by AWS's SDK as it is
// published, until the event says that it was often enough.
var callers = map[string]map[string]string{
	"python": {"app.py": `
import boto3, json
from botocore.exceptions import ClientError
client = boto3.client("lambda")

def handler(event, context):
    for record in event.get("Records", []): # of a bucket, which gets one more
        boto3.client("s3").put_object(Bucket=record["s3"]["bucket"]["name"], Key="again", Body=b"")
    n, names = event.get("n", 0), event.get("names")
    if not names or n == event.get("most"):
        return n
    try:
        answer = client.invoke(FunctionName=names[(n + 1) % len(names)], InvocationType=event["type"], Payload=json.dumps({**event, "n": n + 1}))
    except ClientError as e:
        return [n, e.response["Error"]["Code"], e.response["ResponseMetadata"]["HTTPStatusCode"], type(e) is client.exceptions.RecursiveInvocationException]
    return json.loads(answer["Payload"].read() or "null")
`},
	"nodejs": {"app.mjs": `
import { LambdaClient, InvokeCommand, RecursiveInvocationException } from '@aws-sdk/client-lambda';
const client = new LambdaClient({});

export const handler = async (event) => {
  const { n = 0, names } = event;
  if (!names || n === event.most) return n;
  try {
    const answer = await client.send(new InvokeCommand({ FunctionName: names[(n + 1) % names.length], InvocationType: event.type, Payload: JSON.stringify({ ...event, n: n + 1 }) }));
    return JSON.parse(Buffer.from(answer.Payload).toString() || 'null');
  } catch (e) {
    return [n, e.name, e.$metadata?.httpStatusCode, e instanceof RecursiveInvocationException];
  }
};
`},
}

// TestRecursion has functions invoke themselves and each other, by AWS's SDKs and by
// destinations: each runs sixteen times, and what would be the seventeenth goes where
// failures go.
func TestRecursion(t *testing.T) {
	t.Parallel()
	moto := kiln.Moto(t)
	queues := sqs.New(sqs.Options{BaseEndpoint: &moto, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("moto", "moto", "")})
	d := kiln.StartEnv(t, []string{"AWS_ACCESS_KEY_ID=kiln", "AWS_SECRET_ACCESS_KEY=kiln", "KILN_ENDPOINTS=sqs=" + moto}, arguments()...)
	client := d.Client()
	for _, l := range languages(t, true) {
		files, ok := callers[l.name]
		if !ok {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			add(t, d, l.runtime)
			queue := func(name string) (url, arn string) {
				made, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(l.name + "-" + name)})
				if err != nil {
					t.Fatal(err)
				}
				return *made.QueueUrl, "arn:aws:sqs:us-east-1:123456789012:" + l.name + "-" + name
			}
			received := func(url string) string {
				t.Helper()
				got, err := queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 20})
				if err != nil || len(got.Messages) != 1 {
					t.Fatalf("%d messages, %v", len(got.Messages), err)
				}
				_, _ = queues.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: got.Messages[0].ReceiptHandle})
				return *got.Messages[0].Body
			}
			failedURL, failed := queue("failed")
			deadURL, dead := queue("dead")
			create := func(name string) string {
				name = l.name + "-" + name
				if err := d.TryCreate(name, l.runtime, "app.handler", kiln.Zip(files), all(memory(256), timeout(60), func(in *lambda.CreateFunctionInput) {
					in.DeadLetterConfig = &types.DeadLetterConfig{TargetArn: &dead}
				})); err != nil {
					t.Fatal(err)
				}
				return name
			}
			destinations := func(name string, onSuccess *string) {
				in := &lambda.PutFunctionEventInvokeConfigInput{FunctionName: &name, DestinationConfig: &types.DestinationConfig{OnFailure: &types.OnFailure{Destination: &failed}}}
				if onSuccess != nil {
					in.DestinationConfig.OnSuccess = &types.OnSuccess{Destination: onSuccess}
				}
				if _, err := client.PutFunctionEventInvokeConfig(t.Context(), in); err != nil {
					t.Fatal(err)
				}
			}
			send := func(name string, event any) {
				t.Helper()
				payload, _ := json.Marshal(event)
				if _, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name, InvocationType: types.InvocationTypeEvent, Payload: payload}); err != nil {
					t.Fatal(err)
				}
			}
			// ran checks how often a function has run: the end of a chain is told before its last
			// invocation is over.
			ran := func(name string, times float64) {
				t.Helper()
				n := -1.0
				for end := time.Now().Add(30 * time.Second); n != times; time.Sleep(50 * time.Millisecond) {
					if n = d.Metric("kiln_invocations_total{", `function="`+name+`"`); n > times || time.Now().After(end) {
						t.Fatalf("%s ran %v times, not %v", name, n, times)
					}
				}
			}
			stopped := func(name string) float64 {
				return d.Metric("kiln_recursive_invocations_dropped_total{", `function="`+name+`"`)
			}
			// ends checks how a chain ended: before the nth invocation, which is one of the function.
			ends := func(name string, n int) {
				t.Helper()
				var record struct {
					RequestContext struct {
						FunctionARN, Condition string
						ApproximateInvokeCount int
					}
					RequestPayload struct{ N int }
				}
				if err := json.Unmarshal([]byte(received(failedURL)), &record); err != nil {
					t.Fatal(err)
				}
				c := record.RequestContext
				if c.Condition != "RecursiveInvocation" || !strings.HasSuffix(c.FunctionARN, ":"+name+":$LATEST") || c.ApproximateInvokeCount != 0 || n > 0 && record.RequestPayload.N != n {
					t.Errorf("the record of %s: %+v", name, record)
				}
				if letter := received(deadURL); n > 0 && !strings.Contains(letter, fmt.Sprintf(`"n":%d`, n)) && !strings.Contains(letter, fmt.Sprintf(`"n": %d`, n)) {
					t.Errorf("the dead letter: %s", letter)
				}
				if n := stopped(name); n != 1 {
					t.Errorf("%s was stopped %v times", name, n)
				}
				ran(name, 16)
			}

			self := create("self")
			destinations(self, nil)
			send(self, map[string]any{"type": "Event", "names": []string{self}})
			ends(self, 16)

			ping, pong := create("ping"), create("pong")
			destinations(ping, nil)
			send(ping, map[string]any{"type": "Event", "names": []string{ping, pong}})
			ends(ping, 32)
			ran(pong, 16)

			if l.name == "python" { // by a bucket of Kiln's own
				filler := create("filler")
				destinations(filler, nil)
				fill(t, d, filler)
				ends(filler, 0)
			}

			free := create("free")
			if _, err := client.PutFunctionRecursionConfig(t.Context(), &lambda.PutFunctionRecursionConfigInput{FunctionName: &free, RecursiveLoop: types.RecursiveLoopAllow}); err != nil {
				t.Fatal(err)
			}
			send(free, map[string]any{"type": "Event", "names": []string{free}, "most": 20})
			ran(free, 21)
			if n := stopped(free); n != 0 {
				t.Errorf("a function that may loop was stopped %v times", n)
			}

			nested := create("nested")
			got, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &nested, Payload: fmt.Appendf(nil, `{"type":"RequestResponse","names":[%q]}`, nested)})
			if want := `[15,"RecursiveInvocationException",400,true]`; err != nil || strings.ReplaceAll(string(got.Payload), " ", "") != want || stopped(nested) != 1 {
				t.Errorf("the innermost of synchronous invocations: %s, %v; want %s", got.Payload, err, want)
			}

			there, back := create("there"), create("back")
			arn := func(name string) *string { return aws.String("arn:aws:lambda:us-east-1:000000000000:function:" + name) }
			destinations(there, arn(back))
			destinations(back, arn(there))
			send(there, map[string]any{})
			ends(there, 0)
			ran(back, 16)
		})
	}
}

// fill has a bucket call the function, and puts the first object into it.
func fill(t *testing.T, d *kiln.Daemon, function string) {
	c := s3.New(s3.Options{BaseEndpoint: &d.URL, Region: "us-east-1", UsePathStyle: true, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
	bucket := aws.String("filled")
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	f, err := d.Client().AddPermission(t.Context(), &lambda.AddPermissionInput{
		FunctionName: &function, StatementId: aws.String("s3"), Action: aws.String("lambda:InvokeFunction"), Principal: aws.String("s3.amazonaws.com"),
	})
	if err != nil {
		t.Fatal(err, f)
	}
	got, err := d.Client().GetFunctionConfiguration(t.Context(), &lambda.GetFunctionConfigurationInput{FunctionName: &function})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutBucketNotificationConfiguration(t.Context(), &s3.PutBucketNotificationConfigurationInput{Bucket: bucket, NotificationConfiguration: &s3types.NotificationConfiguration{
		LambdaFunctionConfigurations: []s3types.LambdaFunctionConfiguration{{LambdaFunctionArn: got.FunctionArn, Events: []s3types.Event{"s3:ObjectCreated:*"}}},
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: aws.String("first"), Body: strings.NewReader("x")}); err != nil {
		t.Fatal(err)
	}
}
