package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"kiln/test/kiln"
)

const (
	watcher = "arn:aws:lambda:us-east-1:000000000000:function:watcher"
	// eventsPatience bounds the wait for events, on a busy machine.
	eventsPatience = 30 * time.Second
)

// watching is a configuration that has the function called.
func watching(id, prefix, suffix string, events ...types.Event) types.LambdaFunctionConfiguration {
	return types.LambdaFunctionConfiguration{Id: &id, LambdaFunctionArn: aws.String(watcher), Events: events, Filter: &types.NotificationConfigurationFilter{
		Key: &types.S3KeyFilter{FilterRules: []types.FilterRule{{Name: types.FilterRuleNamePrefix, Value: &prefix}, {Name: types.FilterRuleNameSuffix, Value: &suffix}}},
	}}
}

// TestNotifications has a function called by what becomes of objects, and looks at the
// events, which testdata/golden has as AWS writes them.
func TestNotifications(t *testing.T) {
	t.Parallel()
	moto := kiln.Moto(t)
	// Kiln serves S3 itself, queues are moto's.
	d := kiln.StartEnv(t, []string{"KILN_ENDPOINTS=sqs=" + moto, "AWS_ACCESS_KEY_ID=kiln", "AWS_SECRET_ACCESS_KEY=kiln"}, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	s.create("watcher", values{"Runtime": "python3.12", "Handler": "f.handler", "Code": values{"ZipFile": kiln.Zip(map[string]string{
		"f.py": "import json\ndef handler(event, context):\n    print('EVENT', json.dumps(event))\n",
	})}})
	store := s3.New(s3.Options{BaseEndpoint: &d.URL, UsePathStyle: true, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
	bucket := aws.String("watched.bucket")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := store.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket})
	must(err)
	configure := func(c types.NotificationConfiguration) error {
		_, err := store.PutBucketNotificationConfiguration(t.Context(), &s3.PutBucketNotificationConfigurationInput{Bucket: bucket, NotificationConfiguration: &c})
		return err
	}
	functions := func(list ...types.LambdaFunctionConfiguration) types.NotificationConfiguration {
		return types.NotificationConfiguration{LambdaFunctionConfigurations: list}
	}
	const (
		unreachable = "Unable to validate the following destination configurations"
		overlap     = "Configurations overlap. Configurations on the same bucket cannot share a common event type."
		ambiguous   = "Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules if the prefixes are overlapping for the same event type."
	)
	plain := watching("plain", "", "", types.EventS3ObjectCreated)
	if err := configure(functions(plain)); !refusedWith(err, unreachable) { // S3 may not call it yet
		t.Errorf("without permission: %v", err)
	}
	s.must("AddPermission", values{"FunctionName": "watcher", "StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com", "SourceArn": "arn:aws:s3:::watched.bucket", "SourceAccount": "000000000000"})
	elsewhere := plain
	elsewhere.LambdaFunctionArn = aws.String(watcher + "2")
	region := plain
	region.LambdaFunctionArn = aws.String(strings.Replace(watcher, "us-east-1", "eu-west-1", 1))
	queue := func(arn string) types.NotificationConfiguration {
		return types.NotificationConfiguration{QueueConfigurations: []types.QueueConfiguration{{QueueArn: &arn, Events: []types.Event{types.EventS3ObjectRemoved}}}}
	}
	for what, c := range map[string]struct {
		in   types.NotificationConfiguration
		want string
	}{
		"no such function":    {functions(elsewhere), unreachable},
		"another region":      {functions(region), "The notification destination service region is not valid for the bucket location constraint"},
		"the same":            {functions(plain, watching("b", "", "", types.EventS3ObjectCreatedPut)), overlap},
		"overlapping filters": {functions(watching("a", "in/", ".png", types.EventS3ObjectCreated), watching("b", "in/x", "", types.EventS3ObjectCreatedCopy)), ambiguous},
		"the same id":         {functions(plain, watching("plain", "", "", types.EventS3ObjectRemoved)), "Same ID used for multiple configurations. IDs must be unique"},
		"an unknown event":    {functions(watching("a", "", "", "s3:ObjectEaten:*")), "The event 's3:ObjectEaten:*' is not supported for notifications"},
		"no such queue":       {queue("arn:aws:sqs:us-east-1:123456789012:absent"), unreachable},
		"a FIFO queue":        {queue("arn:aws:sqs:us-east-1:123456789012:q.fifo"), unreachable},
		"no endpoint":         {types.NotificationConfiguration{TopicConfigurations: []types.TopicConfiguration{{TopicArn: aws.String("arn:aws:sns:us-east-1:123456789012:t"), Events: []types.Event{types.EventS3ObjectRemoved}}}}, unreachable},
		"no queue":            {queue("queue"), "The ARN could not be parsed"},
	} {
		if err := configure(c.in); !refusedWith(err, c.want) {
			t.Errorf("%s: %v, want %s", what, err, c.want)
		}
	}

	queues := sqs.New(sqs.Options{BaseEndpoint: &moto, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("moto", "moto", "")})
	made, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("watching")})
	must(err)
	all := queue("arn:aws:sqs:us-east-1:123456789012:watching")
	all.QueueConfigurations[0].Filter = watching("", "queued/", "").Filter
	all.LambdaFunctionConfigurations = []types.LambdaFunctionConfiguration{
		watching("made", "in/", "", types.EventS3ObjectCreated, types.EventS3ObjectTagging), watching("gone", "in/", "", types.EventS3ObjectRemovedDelete, types.EventS3ObjectRemovedDeleteMarkerCreated),
	}
	must(configure(all))
	shown, err := store.GetBucketNotificationConfiguration(t.Context(), &s3.GetBucketNotificationConfigurationInput{Bucket: bucket})
	must(err)
	if len(shown.LambdaFunctionConfigurations) != 2 || len(shown.QueueConfigurations) != 1 || *shown.LambdaFunctionConfigurations[0].Filter.Key.FilterRules[0].Value != "in/" {
		t.Errorf("it shows %+v", shown)
	}

	put := func(key string) {
		t.Helper()
		_, err := store.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader("content")})
		must(err)
	}
	remove := func(key string) {
		t.Helper()
		_, err := store.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: bucket, Key: &key})
		must(err)
	}
	const odd = "in/my file+ü&?#%.txt"
	put(odd)
	put("out/ignored")
	_, err = store.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("in/copy"), CopySource: aws.String("watched.bucket/out/ignored")})
	must(err)
	upload, err := store.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: bucket, Key: aws.String("in/parts")})
	must(err)
	part, err := store.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: bucket, Key: aws.String("in/parts"), UploadId: upload.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("part")})
	must(err)
	_, err = store.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: aws.String("in/parts"), UploadId: upload.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: part.ETag, PartNumber: aws.Int32(1)}}}})
	must(err)
	_, err = store.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: bucket, Key: aws.String("in/copy"), Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}}})
	must(err)
	remove(odd)
	for _, quiet := range []bool{false, true} {
		put("in/several")
		_, err = store.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Quiet: &quiet, Objects: []types.ObjectIdentifier{{Key: aws.String("in/several")}, {Key: aws.String("queued/one")}}}})
		must(err)
	}
	_, err = store.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	must(err)
	put("in/versions")
	remove("in/versions")

	logs := session{awsLogs(t), t, logsOf(d)}
	var got []string
	kiln.Eventually(t, eventsPatience, func() error {
		found := logs.must("FilterLogEvents", values{"logGroupName": "/aws/lambda/watcher", "filterPattern": "EVENT"})["events"].([]any)
		got = got[:0]
		for _, e := range found {
			got = append(got, strings.TrimPrefix(strings.TrimSpace(e.(map[string]any)["message"].(string)), "EVENT "))
		}
		if len(got) != 11 {
			return fmt.Errorf("%d events", len(got))
		}
		return nil
	})
	checkEvents(t, got)

	var messages []string
	kiln.Eventually(t, eventsPatience, func() error {
		received, err := queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: made.QueueUrl, MaxNumberOfMessages: 10})
		must(err)
		for _, m := range received.Messages {
			messages = append(messages, *m.Body)
		}
		if len(messages) < 3 {
			return fmt.Errorf("the queue has %d messages", len(messages))
		}
		return nil
	})
	if text := strings.Join(messages, "\n"); !strings.Contains(text, `{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"`) || strings.Count(text, `"key":"queued/one"`) != 2 {
		t.Errorf("the queue has %s", text)
	}
}

// refusedWith tells whether S3 refused with that message.
func refusedWith(err error, message string) bool {
	var answer smithy.APIError
	return errors.As(err, &answer) && answer.ErrorCode() == "InvalidArgument" && answer.ErrorMessage() == message
}

var differs = regexp.MustCompile(`"(eventTime|x-amz-request-id|x-amz-id-2|versionId|sequencer)": "[^"]+"`)

// checkEvents compares events with the golden ones, in the order of their sequencers.
func checkEvents(t *testing.T, got []string) {
	t.Helper()
	sequencer := func(event string) string {
		var e struct {
			Records []struct {
				S3 struct{ Object struct{ Sequencer string } }
			}
		}
		if err := json.Unmarshal([]byte(event), &e); err != nil || len(e.Records) != 1 {
			t.Fatalf("%v: %s", err, event)
		}
		return e.Records[0].S3.Object.Sequencer
	}
	slices.SortFunc(got, func(a, b string) int { return strings.Compare(sequencer(a), sequencer(b)) })
	text := differs.ReplaceAllString(strings.Join(got, "\n")+"\n", `"$1": "…"`)
	path := filepath.Join("testdata", "golden", "s3-events.jsonl")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("got\n%swant\n%s", text, want)
	}
}
