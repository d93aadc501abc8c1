package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"kiln/test/kiln"
)

// logsOf is CloudWatch Logs of the Kiln.
func logsOf(d *kiln.Daemon) target {
	to := anyKey(d)
	to.service = "logs"
	return to
}

// awsLogs is a client that knows CloudWatch Logs.
func awsLogs(t *testing.T) client {
	t.Helper()
	c, err := boto3()
	if err != nil {
		t.Skip(err)
	}
	return c
}

// eachLogs is each, for the clients that know CloudWatch Logs.
func eachLogs(t *testing.T, test func(t *testing.T, name string, c client)) {
	each(t, func(t *testing.T, name string, c client) {
		if name != "boto3" && name != "cli" {
			t.Skip("asks for Lambda only")
		}
		test(t, name, c)
	})
}

// strings of a member of each of a list.
func column(list any, member string) (texts []string) {
	items, _ := list.([]any)
	for _, item := range items {
		texts = append(texts, fmt.Sprint(item.(map[string]any)[member]))
	}
	return texts
}

// TestLogs goes through the operations as their users do, with others' clients.
func TestLogs(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	eachLogs(t, func(t *testing.T, name string, c client) {
		s := session{c, t, logsOf(d)}
		group := "/app/" + name
		arn := "arn:aws:logs:us-east-1:000000000000:log-group:" + group
		in := func(more values) values {
			all := values{"logGroupName": group}
			for k, v := range more {
				all[k] = v
			}
			return all
		}
		s.refused("CreateLogStream", in(values{"logStreamName": "s"}), 400, "ResourceNotFoundException", "The specified log group does not exist.")
		s.must("CreateLogGroup", in(values{"tags": values{"team": "red"}}))
		s.refused("CreateLogGroup", in(nil), 400, "ResourceAlreadyExistsException", "The specified log group already exists")
		s.must("PutRetentionPolicy", in(values{"retentionInDays": 7}))
		s.must("TagResource", values{"resourceArn": arn, "tags": values{"stage": "test"}})
		want(t, "tags", s.must("ListTagsForResource", values{"resourceArn": arn})["tags"], "map[stage:test team:red]")
		described := s.must("DescribeLogGroups", values{"logGroupNamePrefix": group})["logGroups"].([]any)[0].(map[string]any)
		for member, value := range map[string]string{"arn": arn + ":*", "logGroupArn": arn, "retentionInDays": "7", "storedBytes": "0", "metricFilterCount": "0", "logGroupClass": "STANDARD"} {
			want(t, member, described[member], value)
		}
		for _, stream := range []string{"s1", "s2", "s3"} {
			s.must("CreateLogStream", in(values{"logStreamName": stream}))
		}
		s.refused("CreateLogStream", in(values{"logStreamName": "s1"}), 400, "ResourceAlreadyExistsException", "The specified log stream already exists")

		now := time.Now().UnixMilli()
		event := func(ago int64, message string) values { return values{"timestamp": now - ago, "message": message} }
		put := func(stream string, events ...values) values {
			return s.must("PutLogEvents", in(values{"logStreamName": stream, "logEvents": events}))
		}
		put("s1", event(5000, "one"), event(3000, "three ERROR"))
		out := put("s2", event(4000, `{"level":"ERROR","ms":75}`), event(2000, "ü four"), event(-3*60*60*1000, "too new"))
		want(t, "rejected", out["rejectedLogEventsInfo"], "map[tooNewLogEventStartIndex:2]")
		s.refused("PutLogEvents", in(values{"logStreamName": "s1", "logEvents": []values{event(1, "b"), event(2, "a")}}), 400,
			"InvalidParameterException", "Log events in a single PutLogEvents request must be in chronological order.")
		s.refused("PutLogEvents", in(values{"logStreamName": "none", "logEvents": []values{event(1, "b")}}), 400,
			"ResourceNotFoundException", "The specified log stream does not exist.")

		all := []string{"one", `{"level":"ERROR","ms":75}`, "three ERROR", "ü four"}
		for pattern, messages := range map[string][]string{"": all, "ERROR": {all[1], all[2]}, "ERROR -three": {all[1]}, "{ $.ms >= 75 }": {all[1]}, "%^ü|^o%": nil, "[a, b]": {all[2], all[3]}} {
			if pattern == "%^ü|^o%" {
				s.refused("FilterLogEvents", in(values{"filterPattern": pattern}), 400, "InvalidParameterException", "Invalid character(s) in term 'ü'")
				continue
			}
			if got := column(s.must("FilterLogEvents", in(values{"filterPattern": pattern}))["events"], "message"); !reflect.DeepEqual(got, messages) {
				t.Errorf("%s: got %q, want %q", pattern, got, messages)
			}
		}
		first := s.must("GetLogEvents", values{"logGroupIdentifier": arn, "logStreamName": "s2", "startFromHead": true, "limit": 1})
		want(t, "the first event", column(first["events"], "message"), "["+all[1]+"]")
		second := s.must("GetLogEvents", in(values{"logStreamName": "s2", "nextToken": first["nextForwardToken"]}))
		want(t, "the second", column(second["events"], "message"), "["+all[3]+"]")
		end := s.must("GetLogEvents", in(values{"logStreamName": "s2", "nextToken": second["nextForwardToken"]}))
		want(t, "the token at the end", end["nextForwardToken"], second["nextForwardToken"].(string))

		list := s.must("DescribeLogStreams", in(values{"orderBy": "LastEventTime", "descending": true}))["logStreams"]
		want(t, "streams by time", column(list, "logStreamName"), "[s2 s1 s3]")
		want(t, "its last event", fmt.Sprintf("%.0f", list.([]any)[0].(map[string]any)["lastEventTimestamp"]), fmt.Sprint(now-2000))

		s.must("DeleteLogStream", in(values{"logStreamName": "s1"}))
		s.must("DeleteRetentionPolicy", in(nil))
		s.must("UntagResource", values{"resourceArn": arn, "tagKeys": []string{"team"}})
		s.must("DeleteLogGroup", in(nil))
		s.refused("FilterLogEvents", in(nil), 400, "ResourceNotFoundException", "The specified log group does not exist.")
		if _, f := s.call(s.to, "DescribeMetricFilters", values{}); f == nil || f.Code != "NotImplementedException" {
			t.Errorf("an operation that is not built: %v", f)
		}
	})
}

// TestLogsSurviveKill: what PutLogEvents answered is there after kill -9.
func TestLogsSurviveKill(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	s := session{awsLogs(t), t, logsOf(d)}
	s.must("CreateLogGroup", values{"logGroupName": "g"})
	s.must("CreateLogStream", values{"logGroupName": "g", "logStreamName": "s"})
	var put []string
	for i := range 20 {
		put = append(put, fmt.Sprint("event ", i))
		s.must("PutLogEvents", values{"logGroupName": "g", "logStreamName": "s", "logEvents": []values{{"timestamp": time.Now().UnixMilli(), "message": put[i]}}})
	}
	d.Kill()
	d.Start()
	s.to = logsOf(d)
	if got := column(s.must("FilterLogEvents", values{"logGroupName": "g"})["events"], "message"); !reflect.DeepEqual(got, put) {
		t.Errorf("got %q", got)
	}
}

// TestFunctionLogs is what a function left, as CloudWatch Logs shows it, and what
// `aws logs tail --follow` would: it asks FilterLogEvents again and again from the
// time of its last event on, and tells events apart by their id. A restart keeps
// all of it.
func TestFunctionLogs(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	b := awsLogs(t)
	lambda, s := session{b, t, anyKey(d)}, session{b, t, logsOf(d)}
	lambda.create("talks", nil)
	const group = "/aws/lambda/talks"
	seen, since := map[string]bool{}, 0.0
	var messages []string
	tail := func() {
		for token := any(nil); ; {
			in := values{"logGroupName": group, "interleaved": true}
			if since > 0 {
				in["startTime"] = int64(since)
			}
			if token != nil {
				in["nextToken"] = token
			}
			page := s.must("FilterLogEvents", in)
			for _, item := range page["events"].([]any) {
				e := item.(map[string]any)
				if id := e["eventId"].(string); !seen[id] {
					seen[id] = true
					messages = append(messages, strings.TrimSpace(e["message"].(string)))
				}
				since = max(since, e["timestamp"].(float64))
			}
			if token = page["nextToken"]; token == nil {
				return
			}
		}
	}
	for n := 1; n <= 3; n++ {
		lambda.invoke(values{"FunctionName": "talks", "Payload": []byte(`{}`)})
		kiln.Await(t, "the report of an invocation", func() bool {
			tail()
			return strings.Count(strings.Join(messages, "\n"), "REPORT RequestId") == n
		})
	}
	if n := strings.Count(strings.Join(messages, "\n"), "START RequestId"); n != 3 {
		t.Errorf("%d STARTs in %q", n, messages)
	}
	g := s.must("DescribeLogGroups", values{"logGroupNamePrefix": group})["logGroups"].([]any)[0].(map[string]any)
	want(t, "arn", g["arn"], "arn:aws:logs:us-east-1:000000000000:log-group:"+group+":*")
	if g["storedBytes"].(float64) <= 0 || time.Since(time.UnixMilli(int64(g["creationTime"].(float64)))) > time.Hour {
		t.Errorf("the group: %v", g)
	}
	stream := s.must("DescribeLogStreams", values{"logGroupName": group})["logStreams"].([]any)[0].(map[string]any)
	for _, member := range []string{"creationTime", "firstEventTimestamp", "lastEventTimestamp", "lastIngestionTime", "uploadSequenceToken"} {
		if stream[member] == nil {
			t.Errorf("the stream has no %s: %v", member, stream)
		}
	}
	want(t, "arn of the stream", stream["arn"], "arn:aws:logs:us-east-1:000000000000:log-group:"+group+":log-stream:"+stream["logStreamName"].(string))

	d.Stop()
	d.Start()
	s.to = logsOf(d)
	before := messages
	seen, since, messages = map[string]bool{}, 0, nil
	tail()
	if !reflect.DeepEqual(messages, before) {
		t.Errorf("after a restart: %q, before it: %q", messages, before)
	}

	// kiln logs waits for what is new, and is told at once.
	lambda.to = anyKey(d)
	follow := exec.Command(kiln.Binary(t), "logs", "talks", "--follow", "--json", "--endpoint", d.URL)
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = follow.Process.Kill()
		_ = follow.Wait()
	}()
	lines := json.NewDecoder(out)
	next := func() string {
		var e struct{ Message string }
		if err := lines.Decode(&e); err != nil {
			t.Fatal(err)
		}
		return e.Message
	}
	for range before {
		next()
	}
	lambda.invoke(values{"FunctionName": "talks", "Payload": []byte(`{}`)})
	began := time.Now()
	for !strings.HasPrefix(next(), "REPORT RequestId: ") {
	}
	t.Logf("the report was shown %v after the answer", time.Since(began))
}

// TestTail follows a function with version 2 of the AWS CLI, which alone has logs tail.
func TestTail(t *testing.T) {
	t.Parallel()
	program := secondCLI(t)
	d := kiln.Start(t, "--any-runtime")
	lambda := session{goSDK{}, t, anyKey(d)}
	lambda.create("talks", nil)
	lambda.invoke(values{"FunctionName": "talks", "Payload": []byte(`{}`)})

	tail := exec.Command(program, "logs", "tail", "/aws/lambda/talks", "--follow", "--format", "short", "--endpoint-url", d.URL)
	tail.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYTHONUNBUFFERED=1",
		"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_DEFAULT_REGION=us-east-1",
	}
	out, err := tail.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var failed bytes.Buffer
	tail.Stderr = &failed
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		_ = tail.Process.Kill()
		_ = tail.Wait()
	})
	defer end()
	lines := bufio.NewScanner(out)
	report := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d REPORT RequestId: `)
	for n := range 3 { // one from before, two while it follows
		if n > 0 {
			lambda.invoke(values{"FunctionName": "talks", "Payload": []byte(`{}`)})
		}
		for found := false; !found; {
			if !lines.Scan() {
				end()
				t.Fatalf("it ended after %d reports: %v: %s", n, lines.Err(), failed.String())
			}
			found = report.MatchString(lines.Text())
		}
	}
}

// secondCLI is version 2 of the AWS CLI.
func secondCLI(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"aws", "/usr/bin/aws"} {
		if out, err := exec.Command(program, "--version").CombinedOutput(); err == nil && strings.HasPrefix(string(out), "aws-cli/2") {
			return program
		}
	}
	t.Skip("version 2 of the AWS CLI is not installed")
	return ""
}
