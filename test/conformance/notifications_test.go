package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"net/url"
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
	"github.com/aws/aws-sdk-go-v2/service/sns"
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

	const short = "short-lived"
	for range 2 { // a bucket made again has none of it
		_, err = store.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(short)})
		must(err)
		none, err := store.GetBucketNotificationConfiguration(t.Context(), &s3.GetBucketNotificationConfigurationInput{Bucket: aws.String(short)})
		must(err)
		if len(none.QueueConfigurations) != 0 {
			t.Errorf("a new bucket has %v", none.QueueConfigurations)
		}
		_, err = store.PutBucketNotificationConfiguration(t.Context(), &s3.PutBucketNotificationConfigurationInput{Bucket: aws.String(short), NotificationConfiguration: &types.NotificationConfiguration{QueueConfigurations: all.QueueConfigurations}})
		must(err)
		_, err = store.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String(short)})
		must(err)
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
		if got = printed(logs); len(got) != 11 {
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
		if len(messages) < 5 {
			return fmt.Errorf("the queue has %d messages", len(messages))
		}
		return nil
	})
	if text := strings.Join(messages, "\n"); !strings.Contains(text, `{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"`) || strings.Count(text, `"key":"queued/one"`) != 2 {
		t.Errorf("the queue has %s", text)
	}
}

// printed are the events that the watching function has printed.
func printed(logs session) (list []string) {
	out, f := logs.call(logs.to, "FilterLogEvents", values{"logGroupName": "/aws/lambda/watcher", "filterPattern": "EVENT"})
	if f != nil {
		return nil // it has not run yet
	}
	for _, e := range out["events"].([]any) {
		list = append(list, strings.TrimPrefix(strings.TrimSpace(e.(map[string]any)["message"].(string)), "EVENT "))
	}
	return list
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

// TestThumbnail is the example: a picture that is copied into a bucket has a thumbnail.
func TestThumbnail(t *testing.T) {
	t.Parallel()
	code, err := os.ReadFile(filepath.Join(kiln.Root(), "examples", "thumbnail", "thumbnail.py"))
	if err != nil {
		t.Fatal(err)
	}
	d := kiln.Start(t, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	s.create("watcher", values{"Runtime": "python3.12", "Handler": "thumbnail.handler", "Timeout": 60, "MemorySize": 512, "Code": values{"ZipFile": kiln.Zip(map[string]string{"thumbnail.py": string(code)})}})
	s.must("AddPermission", values{"FunctionName": "watcher", "StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com", "SourceArn": "arn:aws:s3:::pictures"})
	store := s3.New(s3.Options{BaseEndpoint: &d.URL, UsePathStyle: true, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
	bucket := aws.String("pictures")
	picture := image.NewRGBA(image.Rect(0, 0, 300, 200))
	for i := range picture.Pix {
		picture.Pix[i] = byte(i * i >> 5)
	}
	var encoded bytes.Buffer
	if err := png.Encode(&encoded, picture); err != nil {
		t.Fatal(err)
	}
	_, err = store.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket})
	if err == nil {
		_, err = store.PutBucketNotificationConfiguration(t.Context(), &s3.PutBucketNotificationConfigurationInput{Bucket: bucket, NotificationConfiguration: &types.NotificationConfiguration{
			LambdaFunctionConfigurations: []types.LambdaFunctionConfiguration{watching("png", "in/", ".png", types.EventS3ObjectCreated)},
		}})
	}
	if err == nil {
		_, err = store.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: aws.String("in/a cat + ü.png"), Body: bytes.NewReader(encoded.Bytes())})
	}
	if err != nil {
		t.Fatal(err)
	}
	kiln.Eventually(t, eventsPatience, func() error {
		got, err := store.GetObject(t.Context(), &s3.GetObjectInput{Bucket: bucket, Key: aws.String("thumbnails/a cat + ü.png")})
		if err != nil {
			return err
		}
		defer got.Body.Close()
		small, err := png.Decode(got.Body)
		if err != nil || small.Bounds().Dx() != 128 || small.Bounds().Dy() != 85 {
			t.Fatalf("%v, %v", err, small)
		}
		return nil
	})
}

// TestOwnBucket has a bucket of Kiln's own tell a topic of an SNS that others wrote, and
// takes the record of a failure.
func TestOwnBucket(t *testing.T) {
	t.Parallel()
	moto := kiln.Moto(t)
	there := newServices(t, moto)
	url, queue := there.queue("behind")
	topic := must[*sns.CreateTopicOutput](t)(there.sns.CreateTopic(t.Context(), &sns.CreateTopicInput{Name: aws.String("watching")})).TopicArn
	must[*sns.SubscribeOutput](t)(there.sns.Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: topic, Protocol: aws.String("sqs"), Endpoint: aws.String(string(queue))}))
	d := kiln.StartEnv(t, []string{"KILN_ENDPOINTS=sns=" + moto, "AWS_ACCESS_KEY_ID=kiln", "AWS_SECRET_ACCESS_KEY=kiln"}, "--any-runtime")
	store := s3.New(s3.Options{BaseEndpoint: &d.URL, UsePathStyle: true, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
	bucket := aws.String("records")
	must[*s3.CreateBucketOutput](t)(store.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket}))
	must[*s3.PutBucketNotificationConfigurationOutput](t)(store.PutBucketNotificationConfiguration(t.Context(), &s3.PutBucketNotificationConfigurationInput{Bucket: bucket, NotificationConfiguration: &types.NotificationConfiguration{
		TopicConfigurations: []types.TopicConfiguration{{TopicArn: topic, Events: []types.Event{types.EventS3ObjectCreated}}},
	}}))
	must[*s3.PutObjectOutput](t)(store.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: aws.String("key"), Body: strings.NewReader("x")}))
	message := func() string {
		var got struct{ Message string }
		if err := json.Unmarshal([]byte(*there.next(url).Body), &got); err != nil {
			t.Fatal(err)
		}
		return got.Message
	}
	if test := message(); !strings.Contains(test, `"s3:TestEvent"`) {
		t.Errorf("the topic got %s", test)
	}
	if event := message(); !strings.Contains(event, `"ObjectCreated:Put"`) || !strings.Contains(event, `"key":"key"`) {
		t.Errorf("the topic got %s", event)
	}

	s := session{goSDK{}, t, anyKey(d)}
	s.create("f", values{"Code": values{"ZipFile": kiln.Zip(map[string]string{"f.py": asked})}})
	s.must("PutFunctionEventInvokeConfig", values{"FunctionName": "f", "MaximumRetryAttempts": 0, "DestinationConfig": values{"OnFailure": values{"Destination": "arn:aws:s3:::records"}}})
	s.must("Invoke", values{"FunctionName": "f", "InvocationType": "Event", "Payload": []byte(`{"fail":"always"}`)})
	kiln.Eventually(t, eventsPatience, func() error {
		got, err := store.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: bucket, Prefix: aws.String("aws/lambda/async/f/")})
		if err == nil && len(got.Contents) != 1 {
			err = fmt.Errorf("%d records of failures", len(got.Contents))
		}
		return err
	})
}

// TestForeignEvents posts events as other stores write them.
func TestForeignEvents(t *testing.T) {
	t.Parallel()
	const secret = "a secret between the stores"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	d := kiln.StartEnv(t, []string{"KILN_S3_EVENTS_SECRET_FILE=" + file}, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	s.create("watcher", values{"Runtime": "python3.12", "Handler": "f.handler", "Code": values{"ZipFile": kiln.Zip(map[string]string{
		"f.py": "def handler(event, context):\n    r = event['Records'][0]\n    print('EVENT', r['eventSource'], r['eventName'], r['s3']['bucket']['name'], r['s3']['object']['key'])\n",
	})}})
	post := func(query, token, body string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", d.URL+"/_kiln/events/s3"+query, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", token)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	const minio = `{"EventName":"s3:ObjectCreated:Put","Key":"b/a cat.png","Records":[{"eventVersion":"2.0","eventSource":"minio:s3","awsRegion":"","eventName":"s3:ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"a+cat.png","size":1}}}]}`
	if got := post("?function=watcher", "Bearer "+secret, minio); got != 403 { // S3 may not call it yet
		t.Errorf("without permission: %d", got)
	}
	s.must("AddPermission", values{"FunctionName": "watcher", "StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com", "SourceArn": "arn:aws:s3:::b"})
	for _, c := range []struct {
		what, query, token, body string
		want                     int
	}{
		{"MinIO", "?function=watcher", "Bearer " + secret, minio, 200},
		{"Ceph", "?function=watcher&secret=" + url.QueryEscape(secret), "", `{"Records":[{"eventVersion":"2.2","eventSource":"ceph:s3","eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"b"},"object":{"key":"gone"}},"eventId":"1","opaqueData":""}]}`, 200},
		{"SeaweedFS", "?function=watcher", "Bearer " + secret, `{"key":"/buckets/b/in/one","event_type":"create","message":{"new_entry":{"name":"one","attributes":{"file_size":3}}}}`, 200},
		{"a folder of SeaweedFS", "?function=watcher", "Bearer " + secret, `{"key":"/buckets/b/in","event_type":"create","message":{"new_entry":{"name":"in","is_directory":true}}}`, 200},
		{"a bucket that nobody is told of", "", "Bearer " + secret, minio, 200},
		{"a test", "?function=watcher", "Bearer " + secret, `{"Service":"Amazon S3","Event":"s3:TestEvent"}`, 200},
		{"another secret", "?function=watcher", "Bearer x", minio, 403},
		{"no secret", "?function=watcher", "", minio, 403},
		{"no function", "?function=absent", "Bearer " + secret, minio, 403}, // as of one that S3 may not call
		{"no event", "?function=watcher", "Bearer " + secret, `{"hello":1}`, 400},
		{"no JSON", "?function=watcher", "Bearer " + secret, `{`, 400},
		{"a record of nothing", "?function=watcher", "Bearer " + secret, `{"Records":[{}]}`, 400},
		{"too much", "?function=watcher", "Bearer " + secret, strings.Repeat(" ", 1<<20+1), 413},
	} {
		if got := post(c.query, c.token, c.body); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
	logs := session{awsLogs(t), t, logsOf(d)}
	kiln.Eventually(t, eventsPatience, func() error {
		got := printed(logs)
		slices.Sort(got)
		want := []string{"aws:s3 ObjectCreated:Put b a+cat.png", "aws:s3 ObjectCreated:Put b in/one", "aws:s3 ObjectRemoved:Delete b gone"}
		if !slices.Equal(got, want) {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
}
