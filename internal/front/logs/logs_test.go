package logs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"kiln/internal/aws/logsapi"
	"kiln/internal/front"
	frontlogs "kiln/internal/front/logs"
	"kiln/internal/lambda"
	"kiln/internal/telemetry/logs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fataler is a test, or a run of a property.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// server is the door over a real store.
type server struct {
	store   *logs.Store
	handler http.Handler
}

var here = lambda.Scope{Account: "123456789012", Region: "us-east-1"}

func serve(t *testing.T) *server {
	t.Helper()
	store, err := logs.Open(context.Background(), filepath.Join(t.TempDir(), "logs.db"), logs.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{store: store}
	stopping, stop := context.WithCancel(context.Background())
	t.Cleanup(func() {
		stop()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	door := frontlogs.New(frontlogs.Config{
		Access: front.NewAccess(front.Config{Account: here.Account, Region: here.Region}), Store: store,
		Admit:    func(context.Context, int64) (func(), error) { return func() {}, nil },
		Stopping: stopping, Log: slog.New(slog.DiscardHandler),
	})
	s.handler = door.Handler(false)
	return s
}

// send makes a request as a client would; the region is the signature's.
func (s *server) send(operation, body string, header map[string]string) *http.Response {
	r := httptest.NewRequest("POST", "http://localhost:4566/", strings.NewReader(body))
	r.Header.Set("X-Amz-Target", "Logs_20140328."+operation)
	r.Header.Set("X-Amz-Date", "20260101T000000Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/logs/aws4_request, SignedHeaders=host, Signature="+strings.Repeat("0", 64))
	for name, value := range header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w.Result()
}

// call asks for an answer that is no error.
func (s *server) call(t fataler, operation string, in, out any) http.Header {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	r := s.send(operation, string(body), nil)
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 200 {
		t.Fatalf("%s %s: %d %s %v", operation, body, r.StatusCode, b, err)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			t.Fatal(err)
		}
	}
	return r.Header
}

// changing are the parts of an answer that differ from run to run.
var changing = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`"(creationTime|ingestionTime|lastIngestionTime)":\d{13}`), `"$1":T`},
	{regexp.MustCompile(`"storedBytes":[1-9]\d*`), `"storedBytes":N`},
	{regexp.MustCompile(`"(uploadSequenceToken|nextSequenceToken|eventId)":"\d{56}"`), `"$1":"D"`},
	{regexp.MustCompile(`\d{56}/s`), `D/s`},
}

// TestWire is a conversation, byte by byte: what each operation answers where it
// succeeds and where it does not, as AWS does.
func TestWire(t *testing.T) {
	t.Parallel()
	s := serve(t)
	now := time.Now().Truncate(time.Millisecond)
	ms := func(ago time.Duration) string { return strconv.FormatInt(now.Add(-ago).UnixMilli(), 10) }
	const group, stream = `"logGroupName":"/app/one"`, `"logStreamName":"s1"`
	const arn = "arn:aws:logs:us-east-1:123456789012:log-group:/app/one"
	fault := func(code, message string) string { return `{"__type":"` + code + `","message":"` + message + `"}` }
	noGroup := fault("ResourceNotFoundException", "The specified log group does not exist.")
	noStream := fault("ResourceNotFoundException", "The specified log stream does not exist.")
	invalid := func(message string) string { return fault("InvalidParameterException", message) }
	violated := func(value, path, rule string) string {
		return invalid("1 validation error detected: Value '" + value + "' at '" + path + "' failed to satisfy constraint: " + rule)
	}
	described := `{"logGroupName":"/app/one","creationTime":T,"retentionInDays":7,"metricFilterCount":0,"arn":"` + arn + `:*","storedBytes":0,"logGroupClass":"STANDARD","logGroupArn":"` + arn + `","deletionProtectionEnabled":false}`
	bare := func(name string) string {
		arn := "arn:aws:logs:us-east-1:123456789012:log-group:" + name
		return `{"logGroupName":"` + name + `","creationTime":T,"metricFilterCount":0,"arn":"` + arn + `:*","storedBytes":0,"logGroupClass":"STANDARD","logGroupArn":"` + arn + `","deletionProtectionEnabled":false}`
	}
	event := func(ago time.Duration, message string) string {
		return `{"timestamp":` + ms(ago) + `,"message":"` + message + `","ingestionTime":T}`
	}
	filtered := func(stream string, ago time.Duration, message string) string {
		return `{"logStreamName":"` + stream + `","timestamp":` + ms(ago) + `,"message":"` + message + `","ingestionTime":T,"eventId":"D"}`
	}
	put := func(events ...string) string {
		return `{` + group + `,` + stream + `,"logEvents":[` + strings.Join(events, ",") + `]}`
	}
	in := func(ago time.Duration, message string) string {
		return `{"timestamp":` + ms(ago) + `,"message":"` + message + `"}`
	}
	const day = 24 * time.Hour
	const accepted = `{"nextSequenceToken":"D"`
	for i, c := range []struct{ operation, in, want string }{
		{"CreateLogStream", `{` + group + `,` + stream + `}`, noGroup},
		{"PutLogEvents", put(in(0, "x")), noGroup},
		{"PutRetentionPolicy", `{` + group + `,"retentionInDays":7}`, noGroup},
		{"ListTagsForResource", `{"resourceArn":"` + arn + `"}`, noGroup},
		{"DeleteLogGroup", `{` + group + `}`, noGroup},
		{"CreateLogGroup", `{"logGroupName":"a b"}`, violated("a b", "logGroupName", `Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+`)},
		{"CreateLogGroup", `{}`, invalid("1 validation error detected: Value null at 'logGroupName' failed to satisfy constraint: Member must not be null")},
		{"CreateLogGroup", `{"logGroupName":1}`, fault("SerializationException", "NUMBER_VALUE can not be converted to String")},
		{"CreateLogGroup", `{` + group + `,"tags":{"a":"b"}}`, ``},
		{"CreateLogGroup", `{` + group + `}`, fault("ResourceAlreadyExistsException", "The specified log group already exists")},
		{"CreateLogGroup", `{"logGroupName":"/app/two","logGroupClass":"INFREQUENT_ACCESS","kmsKeyId":"k","deletionProtectionEnabled":true}`, ``},
		{"PutRetentionPolicy", `{` + group + `,"retentionInDays":2}`, violated("2", "retentionInDays", "Member must satisfy enum value set: [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653]")},
		{"PutRetentionPolicy", `{` + group + `,"retentionInDays":7}`, ``},
		{"DescribeLogGroups", `{"logGroupNamePrefix":"/app/o"}`, `{"logGroups":[` + described + `]}`},
		{"DescribeLogGroups", `{"logGroupNamePattern":"pp/two"}`, `{"logGroups":[` + strings.NewReplacer("STANDARD", "INFREQUENT_ACCESS", `"storedBytes":0,`, `"storedBytes":0,"kmsKeyId":"k",`, "Enabled\":false", "Enabled\":true").Replace(bare("/app/two")) + `]}`},
		{"DescribeLogGroups", `{"limit":1}`, `{"logGroups":[` + described + `],"nextToken":"1-/app/one"}`},
		{"DescribeLogGroups", `{"nextToken":"1-/app/two"}`, `{"logGroups":[]}`},
		{"DescribeLogGroups", `{"nextToken":"x"}`, invalid("The specified nextToken is invalid.")},
		{"DescribeLogGroups", `{"logGroupClass":"STANDARD"}`, `{"logGroups":[` + described + `]}`},
		{"DescribeLogGroups", `{"logGroupIdentifiers":["` + arn + `","none"]}`, `{"logGroups":[` + described + `]}`},
		{"DescribeLogGroups", `{"logGroupNamePrefix":"a","logGroupNamePattern":"b"}`, invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")},
		{"DescribeLogGroups", `{"limit":51}`, violated("51", "limit", "Member must have value less than or equal to 50")},
		{"DeleteLogGroup", `{"logGroupName":"/app/two"}`, fault("ValidationException", "The log group has deletion protection enabled. Disable it with PutLogGroupDeletionProtection first.")},
		{"PutLogGroupDeletionProtection", `{"logGroupIdentifier":"/app/two","deletionProtectionEnabled":false}`, ``},
		{"DeleteLogGroup", `{"logGroupName":"/app/two"}`, ``},
		{"DeleteRetentionPolicy", `{` + group + `}`, ``},
		{"DescribeLogGroups", `{}`, `{"logGroups":[` + bare("/app/one") + `]}`},

		{"TagResource", `{"resourceArn":"` + arn + `","tags":{"c":"d"}}`, ``},
		{"TagLogGroup", `{` + group + `,"tags":{"e":"f"}}`, ``},
		{"ListTagsForResource", `{"resourceArn":"` + arn + `"}`, `{"tags":{"a":"b","c":"d","e":"f"}}`},
		{"UntagResource", `{"resourceArn":"` + arn + `","tagKeys":["a"]}`, ``},
		{"UntagLogGroup", `{` + group + `,"tags":["c"]}`, ``},
		{"ListTagsLogGroup", `{` + group + `}`, `{"tags":{"e":"f"}}`},
		{"UntagLogGroup", `{` + group + `,"tags":["e"]}`, ``},
		{"ListTagsLogGroup", `{` + group + `}`, `{"tags":{}}`},
		{"ListTagsForResource", `{"resourceArn":"arn:aws:lambda:us-east-1:123456789012:function:f"}`, invalid(`The ARN \"arn:aws:lambda:us-east-1:123456789012:function:f\" is not that of a log group, such as arn:aws:logs:us-east-1:123456789012:log-group:NAME`)},
		{"ListTagsForResource", `{"resourceArn":"arn:aws:logs:eu-west-1:123456789012:log-group:/app/one"}`, noGroup},
		{"ListTagsForResource", `{"resourceArn":"arn:aws:logs:us-east-1:111122223333:log-group:/app/one"}`, fault("AccessDeniedException", "User: arn:aws:iam::123456789012:root is not authorized to perform: logs:ListTagsForResource on resource: arn:aws:logs:us-east-1:111122223333:log-group:/app/one because no resource-based policy allows the logs:ListTagsForResource action")},

		{"PutLogEvents", put(in(0, "x")), noStream},
		{"GetLogEvents", `{` + group + `,` + stream + `}`, noStream},
		{"DeleteLogStream", `{` + group + `,` + stream + `}`, noStream},
		{"CreateLogStream", `{` + group + `,"logStreamName":"a:b"}`, violated("a:b", "logStreamName", "Member must satisfy regular expression pattern: [^:*]*")},
		{"CreateLogStream", `{` + group + `,` + stream + `}`, ``},
		{"CreateLogStream", `{` + group + `,` + stream + `}`, fault("ResourceAlreadyExistsException", "The specified log stream already exists")},
		{"DescribeLogStreams", `{` + group + `}`, `{"logStreams":[{"logStreamName":"s1","creationTime":T,"arn":"` + arn + `:log-stream:s1","storedBytes":0}]}`},
		{"GetLogEvents", `{` + group + `,` + stream + `}`, `{"events":[],"nextForwardToken":"f/D/s","nextBackwardToken":"b/D/s"}`},

		{"PutLogEvents", put(in(0, "b"), in(time.Second, "a")), invalid("Log events in a single PutLogEvents request must be in chronological order.")},
		{"PutLogEvents", put(in(25*time.Hour, "a"), in(0, "b")), invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")},
		{"PutLogEvents", put(in(0, strings.Repeat("x", 1<<20-25))), invalid("Upload too large: 1048577 bytes exceeds limit of 1048576")},
		{"PutLogEvents", put(in(0, "")), violated("", "logEvents.1.member.message", "Member must have length greater than or equal to 1")},
		{"PutLogEvents", put(), violated("[]", "logEvents", "Member must have length greater than or equal to 1")},
		{"PutLogEvents", put(in(15*day, "old"), in(14*day+time.Hour, "old")), accepted + `,"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":2}}`},
		{"PutLogEvents", put(in(-2*time.Hour+time.Minute, "future"), in(-3*time.Hour, "too new"), in(-4*time.Hour, "too new")), accepted + `,"rejectedLogEventsInfo":{"tooNewLogEventStartIndex":1}}`},
		{"PutLogEvents", put(in(3*time.Second, "three")), accepted + `}`},
		{"PutLogEvents", put(in(2*time.Second, `two <&> \"ü\" \u0001`), in(time.Second, `{\"level\":\"ERROR\"}`)), accepted + `}`},
		{"GetLogEvents", `{` + group + `,` + stream + `,"startFromHead":true,"limit":2}`, `{"events":[` + event(3*time.Second, "three") + `,` + event(2*time.Second, `two <&> \"ü\" \u0001`) + `],"nextForwardToken":"f/D/s","nextBackwardToken":"b/D/s"}`},
		{"GetLogEvents", `{"logGroupIdentifier":"` + arn + `",` + stream + `,"limit":2}`, `{"events":[` + event(time.Second, `{\"level\":\"ERROR\"}`) + `,` + event(-2*time.Hour+time.Minute, "future") + `],"nextForwardToken":"f/D/s","nextBackwardToken":"b/D/s"}`},
		{"GetLogEvents", `{"logGroupIdentifier":"/app/one",` + stream + `,"startTime":` + ms(3*time.Second) + `,"endTime":` + ms(2*time.Second) + `}`, `{"events":[` + event(3*time.Second, "three") + `],"nextForwardToken":"f/D/s","nextBackwardToken":"b/D/s"}`},
		{"GetLogEvents", `{` + group + `,` + stream + `,"nextToken":"invalid-token"}`, invalid("The specified nextToken is invalid.")},
		{"GetLogEvents", `{` + group + `,` + stream + `,"limit":10001}`, violated("10001", "limit", "Member must have value less than or equal to 10000")},
		{"GetLogEvents", `{"logGroupName":"none",` + stream + `}`, noGroup},
		{"GetLogEvents", `{` + group + `,"logGroupIdentifier":"x",` + stream + `}`, fault("ValidationException", "LogGroup name and LogGroup ARN are mutually exclusive parameters.")},
		{"GetLogEvents", `{` + stream + `}`, fault("ValidationException", "Either LogGroup name or LogGroup ARN must be specified.")},

		{"CreateLogStream", `{` + group + `,"logStreamName":"s2"}`, ``},
		{"PutLogEvents", strings.Replace(put(in(2500*time.Millisecond, "between ERROR")), `"s1"`, `"s2"`, 1), accepted + `}`},
		{"FilterLogEvents", `{` + group + `,"endTime":` + ms(2*time.Second) + `}`, `{"events":[` + filtered("s1", 3*time.Second, "three") + `,` + filtered("s2", 2500*time.Millisecond, "between ERROR") + `,` + filtered("s1", 2*time.Second, `two <&> \"ü\" \u0001`) + `],"searchedLogStreams":[]}`},
		{"FilterLogEvents", `{` + group + `,"filterPattern":"ERROR","logStreamNames":["s2","s3"]}`, `{"events":[` + filtered("s2", 2500*time.Millisecond, "between ERROR") + `],"searchedLogStreams":[]}`},
		{"FilterLogEvents", `{` + group + `,"filterPattern":"{ $.level = ERR* }","logStreamNamePrefix":"s"}`, `{"events":[` + filtered("s1", time.Second, `{\"level\":\"ERROR\"}`) + `],"searchedLogStreams":[]}`},
		{"FilterLogEvents", `{` + group + `,"filterPattern":"a:b"}`, invalid("Invalid character(s) in term ':'")},
		{"FilterLogEvents", `{` + group + `,"filterPattern":"` + strings.Repeat("x", 1025) + `"}`, violated(strings.Repeat("x", 1025), "filterPattern", "Member must have length less than or equal to 1024")},
		{"FilterLogEvents", `{` + group + `,"nextToken":"x"}`, invalid("The specified nextToken is invalid.")},
		{"FilterLogEvents", `{` + group + `,"logStreamNames":["a"],"logStreamNamePrefix":"b"}`, invalid("logStreamNames and logStreamNamePrefix are mutually exclusive parameters.")},
		{"FilterLogEvents", `{"logGroupName":"none"}`, noGroup},
		{"DescribeLogStreams", `{` + group + `,"orderBy":"LastEventTime","limit":1}`, `{"logStreams":[{"logStreamName":"s2","creationTime":T,"firstEventTimestamp":` + ms(2500*time.Millisecond) + `,"lastEventTimestamp":` + ms(2500*time.Millisecond) + `,"lastIngestionTime":T,"uploadSequenceToken":"D","arn":"` + arn + `:log-stream:s2","storedBytes":0}],"nextToken":"…"}`},
		{"DescribeLogStreams", `{` + group + `,"orderBy":"LastEventTime","logStreamNamePrefix":"s"}`, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")},
		{"DescribeLogStreams", `{` + group + `,"nextToken":"x"}`, invalid("The specified nextToken is invalid.")},
		{"DescribeLogStreams", `{"logGroupName":"none"}`, noGroup},
		{"DescribeLogStreams", `{` + group + `,"orderBy":"x"}`, violated("x", "orderBy", "Member must satisfy enum value set: [LogStreamName, LastEventTime]")},
		{"DeleteLogStream", `{` + group + `,` + stream + `}`, ``},
		{"FilterLogEvents", `{` + group + `}`, `{"events":[` + filtered("s2", 2500*time.Millisecond, "between ERROR") + `],"searchedLogStreams":[]}`},
		{"DeleteLogGroup", `{` + group + `}`, ``},
		{"FilterLogEvents", `{` + group + `}`, noGroup},

		{"StartQuery", `{}`, fault("NotImplementedException", "StartQuery of CloudWatch Logs is not built yet in Kiln. docs/compatibility.md lists what is.")},
		{"Nonsense", `{}`, fault("UnknownOperationException", "The header X-Amz-Target must name an operation of CloudWatch Logs, such as Logs_20140328.PutLogEvents.")},
	} {
		r := s.send(c.operation, c.in, nil)
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range changing {
			b = x.pattern.ReplaceAll(b, []byte(x.with))
		}
		if strings.Contains(c.want, `"nextToken":"…"`) {
			b = regexp.MustCompile(`"nextToken":"[^"]+"`).ReplaceAll(b, []byte(`"nextToken":"…"`))
		}
		status := 200
		if strings.HasPrefix(c.want, `{"__type"`) {
			status = map[string]int{"Acc": 403, "Not": 501}[c.want[len(`{"__type":"`):][:3]]
			if status == 0 {
				status = 400
			}
		}
		if string(b) != c.want || r.StatusCode != status || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" || len(r.Header.Get("X-Amzn-Requestid")) != 36 {
			t.Errorf("%d %s %.300s\n got %d %.1000s\nwant %d %.1000s", i, c.operation, c.in, r.StatusCode, b, status, c.want)
		}
	}
}

// A request of more events than may be is refused, in fewer bytes than it had.
func TestTooManyEvents(t *testing.T) {
	t.Parallel()
	s := serve(t)
	event := fmt.Sprintf(`{"timestamp":%d,"message":"x"}`, time.Now().UnixMilli())
	body := `{"logGroupName":"g","logStreamName":"s","logEvents":[` + strings.Repeat(event+",", 10_000) + event + `]}`
	b, err := io.ReadAll(s.send("PutLogEvents", body, nil).Body)
	if err != nil || len(b) > 20_000 || !strings.Contains(string(b), `"InvalidParameterException"`) || !strings.Contains(string(b), "at 'logEvents' failed to satisfy constraint: Member must have length less than or equal to 10000") {
		t.Errorf("%d bytes: %.200s … %v", len(b), b, err)
	}
}

// Expired events are those beyond the group's own retention.
func TestExpired(t *testing.T) {
	t.Parallel()
	s := serve(t)
	group, stream := new("g"), new("s")
	s.call(t, "CreateLogGroup", logsapi.CreateLogGroupInput{LogGroupName: group}, nil)
	s.call(t, "CreateLogStream", logsapi.CreateLogStreamInput{LogGroupName: group, LogStreamName: stream}, nil)
	s.call(t, "PutRetentionPolicy", logsapi.PutRetentionPolicyInput{LogGroupName: group, RetentionInDays: new(3)}, nil)
	var list []logsapi.InputLogEvent
	for _, age := range []time.Duration{73 * time.Hour, 72*time.Hour + time.Minute, 71 * time.Hour} {
		list = append(list, logsapi.InputLogEvent{Timestamp: new(time.Now().Add(-age).UnixMilli()), Message: new(age.String())})
	}
	var out logsapi.PutLogEventsOutput
	s.call(t, "PutLogEvents", logsapi.PutLogEventsInput{LogGroupName: group, LogStreamName: stream, LogEvents: list}, &out)
	if diff := cmp.Diff(&logsapi.RejectedLogEventsInfo{ExpiredLogEventEndIndex: new(2)}, out.RejectedLogEventsInfo); diff != "" {
		t.Error(diff)
	}
	var page logsapi.FilterLogEventsOutput
	s.call(t, "FilterLogEvents", logsapi.FilterLogEventsInput{LogGroupName: group}, &page)
	if len(page.Events) != 1 || *page.Events[0].Message != "71h0m0s" {
		t.Errorf("%+v", page)
	}
}

// Whoever pages through a log, forwards or backwards or both, gets every event
// once and in order, and the same token again at the end.
func TestEveryEventOnce(t *testing.T) {
	t.Parallel()
	s := serve(t)
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		group, stream := new(fmt.Sprint("g", runs)), new("s")
		s.call(rt, "CreateLogGroup", logsapi.CreateLogGroupInput{LogGroupName: group}, nil)
		s.call(rt, "CreateLogStream", logsapi.CreateLogStreamInput{LogGroupName: group, LogStreamName: stream}, nil)
		base := time.Now().Add(-time.Hour).UnixMilli()
		n := 0
		for range rapid.IntRange(0, 4).Draw(rt, "puts") {
			var list []logsapi.InputLogEvent
			at := base + int64(rapid.IntRange(0, 10).Draw(rt, "begin"))
			for range rapid.IntRange(1, 12).Draw(rt, "events") {
				at += int64(rapid.IntRange(0, 2).Draw(rt, "step")) // many have one time
				list = append(list, logsapi.InputLogEvent{Timestamp: new(at), Message: new(fmt.Sprint(n))})
				n++
			}
			s.call(rt, "PutLogEvents", logsapi.PutLogEventsInput{LogGroupName: group, LogStreamName: stream, LogEvents: list}, nil)
		}
		limit := rapid.IntRange(1, 8).Draw(rt, "limit")
		page := func(token *string, head bool) (out logsapi.GetLogEventsOutput, ids []string) {
			s.call(rt, "GetLogEvents", logsapi.GetLogEventsInput{LogGroupName: group, LogStreamName: stream, Limit: &limit, NextToken: token, StartFromHead: &head}, &out)
			for i, e := range out.Events {
				if i > 0 && *e.Timestamp < *out.Events[i-1].Timestamp {
					rt.Fatalf("event of %d after that of %d", *e.Timestamp, *out.Events[i-1].Timestamp)
				}
				ids = append(ids, *e.Message)
			}
			return out, ids
		}
		// walk reads from token to the end of its direction.
		walk := func(token *string, backward bool) (all []string, last string) {
			for {
				out, ids := page(token, false)
				next := out.NextForwardToken
				if backward {
					next = out.NextBackwardToken
					all = append(ids, all...)
				} else {
					all = append(all, ids...)
				}
				if *next == *token {
					if len(ids) > 0 {
						rt.Fatal("the end has events")
					}
					return all, *token
				}
				token = next
			}
		}
		head, ids := page(nil, true)
		rest, end := walk(head.NextForwardToken, false)
		forwards := append(ids, rest...)
		tail, ids := page(nil, false)
		rest, start := walk(tail.NextBackwardToken, true)
		backwards := append(rest, ids...)
		seen := map[string]bool{}
		for _, id := range forwards {
			seen[id] = true
		}
		if len(forwards) != n || len(seen) != n {
			rt.Fatalf("forwards: %d events, %d different, of %d", len(forwards), len(seen), n)
		}
		if diff := cmp.Diff(forwards, backwards); n > 0 && diff != "" {
			rt.Fatal(diff)
		}
		// From either end back again.
		if n > 0 {
			endPage, _ := page(&end, false)
			if again, _ := walk(endPage.NextBackwardToken, true); !cmp.Equal(again, forwards) {
				rt.Fatalf("from the end back: %v, want %v", again, forwards)
			}
			startPage, _ := page(&start, false)
			if again, _ := walk(startPage.NextForwardToken, false); !cmp.Equal(again, forwards) {
				rt.Fatalf("from the start on: %v, want %v", again, forwards)
			}
			// From anywhere, both directions together are all.
			middle, ids := page(head.NextForwardToken, false)
			before, _ := walk(middle.NextBackwardToken, true)
			after, _ := walk(middle.NextForwardToken, false)
			if got := append(append(before, ids...), after...); !cmp.Equal(got, forwards) {
				rt.Fatalf("from the second page: %v, want %v", got, forwards)
			}
		}
		var filtered []string
		for token := (*string)(nil); ; {
			var out logsapi.FilterLogEventsOutput
			s.call(rt, "FilterLogEvents", logsapi.FilterLogEventsInput{LogGroupName: group, Limit: &limit, NextToken: token}, &out)
			for _, e := range out.Events {
				filtered = append(filtered, *e.Message)
			}
			if token = out.NextToken; token == nil {
				break
			}
		}
		if diff := cmp.Diff(forwards, filtered); n > 0 && diff != "" {
			rt.Fatal(diff)
		}
		// The end's token stays good.
		s.call(rt, "PutLogEvents", logsapi.PutLogEventsInput{LogGroupName: group, LogStreamName: stream, LogEvents: []logsapi.InputLogEvent{{Timestamp: new(time.Now().UnixMilli()), Message: new("later")}}}, nil)
		if _, ids := page(&end, false); len(ids) != 1 || ids[0] != "later" {
			rt.Fatalf("after the end: %v", ids)
		}
	})
}

// A follower that waits is told at once, also of a group that begins meanwhile,
// and misses nothing of what several write.
func TestFollow(t *testing.T) {
	t.Parallel()
	s := serve(t)
	const writers, each = 4, 50
	var wg sync.WaitGroup
	defer wg.Wait()
	for w := range writers {
		stream := s.store.Stream(here, "g", fmt.Sprint("s", w))
		wg.Go(func() {
			for i := range each {
				stream.Append(time.Now(), fmt.Appendf(nil, "%d/%d", w, i))
				if i%10 == 0 {
					_ = s.store.Flush(context.Background())
				}
			}
		})
	}
	seen := map[string]bool{}
	token := ""
	for len(seen) < writers*each {
		in := map[string]any{"logGroupName": "g", "limit": 7}
		if token != "" {
			in["nextToken"] = token
		}
		body, _ := json.Marshal(in)
		r := s.send("FilterLogEvents", string(body), map[string]string{frontlogs.WaitHeader: "20"})
		var page logsapi.FilterLogEventsOutput
		if err := json.NewDecoder(r.Body).Decode(&page); err != nil || r.StatusCode != 200 {
			t.Fatal(r.Status, err)
		}
		for _, e := range page.Events {
			if seen[*e.Message] {
				t.Fatalf("%s came twice", *e.Message)
			}
			seen[*e.Message] = true
		}
		if token = r.Header.Get(frontlogs.FollowHeader); page.NextToken != nil {
			token = *page.NextToken
		}
	}
	began := time.Now()
	if r := s.send("FilterLogEvents", `{"logGroupName":"g","nextToken":"`+token+`"}`, map[string]string{frontlogs.WaitHeader: "0.05"}); r.StatusCode != 200 || time.Since(began) < 50*time.Millisecond {
		t.Errorf("%s after %v", r.Status, time.Since(began))
	}
	if r := s.send("FilterLogEvents", `{"logGroupName":"g"}`, map[string]string{frontlogs.WaitHeader: "-1"}); r.StatusCode != 400 {
		t.Error(r.Status)
	}
	b, err := io.ReadAll(s.send("FilterLogEvents", `{"logGroupName":"none"}`, map[string]string{frontlogs.WaitHeader: "0.01"}).Body)
	if err != nil || !strings.Contains(string(b), "ResourceNotFoundException") {
		t.Errorf("%s %v", b, err)
	}
}
