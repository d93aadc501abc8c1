package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"kiln/test/kiln"
)

// echo returns what it was given, and some of what it sees.
const echo = `
def handler(event, context):
    print("echoing")
    c = context.client_context
    return {"event": event, "arn": context.invoked_function_arn, "custom": c.custom if c else None}
`

const arnPrefix = "arn:aws:lambda:us-east-1:000000000000:function:"

// upgraded is other code for the same handler.
const upgraded = `
def handler(event, context):
    return "upgraded"
`

func create(name string, more values) values {
	in := values{
		"FunctionName": name, "Runtime": "python3.12", "Handler": "f.handler", "Role": kiln.Role,
		"Code": values{"ZipFile": kiln.Zip(map[string]string{"f.py": echo})},
	}
	for member, v := range more {
		in[member] = v
	}
	return in
}

// session is a client at work on one Kiln.
type session struct {
	client
	t  *testing.T
	to target
}

// must makes a call that succeeds.
func (s session) must(operation string, in values) values {
	s.t.Helper()
	out, f := s.call(s.to, operation, in)
	if f != nil {
		s.t.Fatalf("%s: %v", operation, f)
	}
	return out
}

// refused makes a call that fails as AWS does: with that exception, and the very
// text of its message.
func (s session) refused(operation string, in values, status int, code, message string) {
	s.t.Helper()
	s.refusedIf(operation, in, status, code, message, func(got string) bool { return got == message })
}

func (s session) refusedIf(operation string, in values, status int, code, message string, ok func(string) bool) {
	s.t.Helper()
	out, f := s.call(s.to, operation, in)
	switch {
	case f == nil:
		s.t.Errorf("%s: got %v, want %s", operation, out, code)
	case f.Code != code || f.Status != 0 && f.Status != status || !ok(f.Message):
		s.t.Errorf("%s:\n got %v\nwant %s (%d): %s", operation, f, code, status, message)
	case f.Class != "" && modelled[code] && strings.TrimSuffix(f.Class, "Error") != strings.TrimSuffix(code, "Error"):
		s.t.Errorf("%s: got an error of class %s, want %s", operation, f.Class, code)
	}
}

// modelled are exceptions that clients have types for.
var modelled = map[string]bool{
	"ResourceNotFoundException": true, "ResourceConflictException": true, "InvalidParameterValueException": true,
	"TooManyRequestsException": true, "RequestTooLargeException": true, "InvalidRequestContentException": true,
	"PreconditionFailedException": true,
}

func (s session) create(name string, more values) values {
	s.t.Helper()
	out := s.must("CreateFunction", create(name, more))
	if f := s.wait(s.to, "FunctionActiveV2", name); f != nil {
		s.t.Fatal(f)
	}
	return out
}

func (s session) invoke(in values) (result values, payload string) {
	s.t.Helper()
	out := s.must("Invoke", in)
	b, _ := out["Payload"].([]byte)
	return out, string(b)
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if a, b := fmt.Sprint(got), fmt.Sprint(want); a != b {
		t.Errorf("%s: got %s, want %s", what, a, b)
	}
}

// TestFunctionLife takes a function from its creation to its end with each client.
func TestFunctionLife(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "life-" + name
		made := s.create(fn, values{"Description": "first"})
		want(t, "State", made["State"], "Pending")
		want(t, "FunctionArn", made["FunctionArn"], arnPrefix+fn)

		got := s.must("GetFunction", values{"FunctionName": fn})
		configuration := got["Configuration"].(map[string]any)
		want(t, "State", configuration["State"], "Active")
		want(t, "LastUpdateStatus", configuration["LastUpdateStatus"], "Successful")
		checkLocation(t, d, got["Code"].(map[string]any)["Location"].(string), kiln.Zip(map[string]string{"f.py": echo}))

		// References to it, in all of AWS's forms.
		for reference, arn := range map[string]string{
			fn:                            fn,
			"000000000000:function:" + fn: fn,
			arnPrefix + fn:                fn,
			fn + ":$LATEST":               fn + ":$LATEST",
			arnPrefix + fn + ":$LATEST":   fn + ":$LATEST",
		} {
			if name == "cli" && strings.HasPrefix(reference, "arn") {
				continue // a process for each call; the other clients show the rest
			}
			want(t, "FunctionArn of "+reference, s.must("GetFunctionConfiguration", values{"FunctionName": reference})["FunctionArn"], arnPrefix+arn)
		}
		latest := s.must("GetFunctionConfiguration", values{"FunctionName": fn, "Qualifier": "$LATEST"})
		want(t, "FunctionArn of $LATEST", latest["FunctionArn"], arnPrefix+fn+":$LATEST")

		// Optimistic concurrency.
		revision := latest["RevisionId"].(string)
		s.refused("UpdateFunctionConfiguration", values{"FunctionName": fn, "Timeout": 9, "RevisionId": "00000000-0000-4000-8000-000000000000"}, 412,
			"PreconditionFailedException", "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id")
		updated := s.must("UpdateFunctionConfiguration", values{"FunctionName": fn, "Timeout": 9, "RevisionId": revision})
		want(t, "Timeout", updated["Timeout"], 9)
		want(t, "Description", updated["Description"], "first")
		want(t, "LastUpdateStatus", updated["LastUpdateStatus"], "InProgress")
		if updated["RevisionId"] == revision {
			t.Error("an update left the revision id")
		}
		if f := s.wait(s.to, "FunctionUpdatedV2", fn); f != nil {
			t.Fatal(f)
		}
		s.refused("UpdateFunctionCode", values{"FunctionName": fn, "ZipFile": kiln.Zip(map[string]string{"f.py": upgraded}), "RevisionId": revision}, 412,
			"PreconditionFailedException", "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id")
		dry := s.must("UpdateFunctionCode", values{"FunctionName": fn, "ZipFile": kiln.Zip(map[string]string{"f.py": upgraded}), "DryRun": true})
		if dry["CodeSha256"] == made["CodeSha256"] {
			t.Error("a dry run does not show the digest of the new code")
		}
		if _, payload := s.invoke(values{"FunctionName": fn}); payload == `"upgraded"` {
			t.Error("a dry run changed the code")
		}
		s.must("UpdateFunctionCode", values{"FunctionName": fn, "ZipFile": kiln.Zip(map[string]string{"f.py": upgraded})})
		if f := s.wait(s.to, "FunctionUpdatedV2", fn); f != nil {
			t.Fatal(f)
		}
		_, payload := s.invoke(values{"FunctionName": fn})
		want(t, "payload after the update", payload, `"upgraded"`)

		s.must("DeleteFunction", values{"FunctionName": fn})
		s.refused("GetFunction", values{"FunctionName": fn}, 404, "ResourceNotFoundException", "Function not found: "+arnPrefix+fn)
	})
}

// checkLocation downloads a package as anyone with the link can, and as nobody
// with another link can.
func checkLocation(t *testing.T, d *kiln.Daemon, link string, zip []byte) {
	t.Helper()
	if !strings.HasPrefix(link, d.URL+"/") {
		t.Fatalf("Location leads elsewhere: %s", link)
	}
	get := func(link string) (int, []byte) {
		r, err := http.Get(link)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, b
	}
	if status, b := get(link); status != 200 || !bytes.Equal(b, zip) {
		t.Errorf("Location: got status %d and %d bytes, want the %d bytes of the package", status, len(b), len(zip))
	}
	tampered := []string{
		strings.Replace(link, "life-", "lifo-", 1),
		strings.Replace(link, "X-Amz-Expires=600", "X-Amz-Expires=6000", 1),
		link[:len(link)-1] + map[bool]string{true: "0", false: "1"}[link[len(link)-1] == '1'],
		strings.Split(link, "?")[0],
	}
	for _, other := range tampered {
		if status, _ := get(other); other == link || status != 403 {
			t.Errorf("a tampered Location got status %d: %s", status, other)
		}
	}
}

// TestInvoke is the Invoke operation with each of its options.
func TestInvoke(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "invoke-" + name
		s.create(fn, nil)

		context := base64.StdEncoding.EncodeToString([]byte(`{"custom":{"k":"v"},"client":{},"env":{}}`))
		out, payload := s.invoke(values{"FunctionName": fn, "Payload": []byte(`{"n":[1,"é"]}`), "LogType": "Tail", "ClientContext": context})
		var answer struct {
			Event  json.RawMessage
			Arn    string
			Custom map[string]string
		}
		if err := json.Unmarshal([]byte(payload), &answer); err != nil {
			t.Fatalf("%v in %s", err, payload)
		}
		want(t, "ClientContext", answer.Custom["k"], "v")
		want(t, "invoked ARN", answer.Arn, arnPrefix+fn)
		var event struct{ N []any }
		if err := json.Unmarshal(answer.Event, &event); err != nil || fmt.Sprint(event.N) != "[1 é]" {
			t.Errorf("event: got %s", answer.Event)
		}
		want(t, "StatusCode", out["StatusCode"], 200)
		want(t, "ExecutedVersion", out["ExecutedVersion"], "$LATEST")
		want(t, "FunctionError", out["FunctionError"], nil)
		tail, err := base64.StdEncoding.DecodeString(fmt.Sprint(out["LogResult"]))
		if err != nil || !bytes.HasPrefix(tail, []byte("START RequestId: ")) || !bytes.Contains(tail, []byte("\nechoing\nEND RequestId: ")) {
			t.Errorf("LogResult: got %v %q", err, tail)
		}

		_, payload = s.invoke(values{"FunctionName": fn})
		if !strings.Contains(payload, `"event": {}`) {
			t.Errorf("no payload arrives as %s, want {}", payload)
		}
		for reference, arn := range map[string]string{
			"000000000000:function:" + fn: fn,
			arnPrefix + fn:                fn,
			fn + ":$LATEST":               fn + ":$LATEST",
		} {
			if _, payload := s.invoke(values{"FunctionName": reference}); !strings.Contains(payload, arnPrefix+arn+`"`) {
				t.Errorf("invoked as %s: got %s, want the ARN of %s", reference, payload, arn)
			}
		}
		if _, payload := s.invoke(values{"FunctionName": fn, "Qualifier": "$LATEST"}); !strings.Contains(payload, fn+`:$LATEST"`) {
			t.Errorf("with the qualifier $LATEST: got %s", payload)
		}
		out, payload = s.invoke(values{"FunctionName": fn, "InvocationType": "DryRun"})
		want(t, "StatusCode of a dry run", out["StatusCode"], 204)
		want(t, "payload of a dry run", payload, "")

		for _, q := range []string{"7", "live", "$latest"} {
			s.refused("Invoke", values{"FunctionName": fn, "Qualifier": q}, 404, "ResourceNotFoundException", "Function not found: "+arnPrefix+fn+":"+q)
		}
		s.refused("Invoke", values{"FunctionName": fn + ":1", "Qualifier": "2"}, 400, "InvalidParameterValueException",
			"The derived qualifier from the function name does not match the specified qualifier.")
		s.refused("Invoke", values{"FunctionName": "absent-" + name}, 404, "ResourceNotFoundException", "Function not found: "+arnPrefix+"absent-"+name+":$LATEST")
		s.refused("Invoke", values{"FunctionName": "arn:aws:lambda:eu-west-1:000000000000:function:" + fn}, 404,
			"ResourceNotFoundException", "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')")
		s.refused("Invoke", values{"FunctionName": "arn:aws:lambda:us-east-1:111122223333:function:" + fn}, 403, "AccessDeniedException",
			"User: arn:aws:iam::000000000000:root is not authorized to perform: lambda:InvokeFunction on resource: arn:aws:lambda:us-east-1:111122223333:function:"+fn+" because no resource-based policy allows the lambda:InvokeFunction action")
		s.refusedIf("Invoke", values{"FunctionName": fn, "Payload": []byte(`{"a":`)}, 400, "InvalidRequestContentException", "Could not parse …",
			func(got string) bool {
				return strings.HasPrefix(got, "Could not parse request body into json: Could not parse payload into json: ")
			})
		s.refused("Invoke", values{"FunctionName": fn, "Payload": bytes.Repeat([]byte("1"), 6<<20+1)}, 413, "RequestTooLargeException",
			"Request must be smaller than 6291456 bytes for the InvokeFunction operation")
	})
}

// TestRefusals is what the control plane refuses, in AWS's words.
func TestRefusals(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "refused-" + name
		s.create(fn, nil)
		s.refused("CreateFunction", create(fn, nil), 409, "ResourceConflictException", "Function already exist: "+fn)
		s.refused("CreateFunction", create("f", values{"MemorySize": 99999, "Timeout": 901}), 400, "ValidationException",
			"2 validation errors detected: Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900; Value '99999' at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to 10240")
		s.refused("DeleteFunction", values{"FunctionName": fn, "Qualifier": "$LATEST"}, 400, "InvalidParameterValueException",
			"$LATEST version cannot be deleted without deleting the function.")
		s.must("GetFunction", values{"FunctionName": fn}) // nothing of this has harmed it
		if name == "cli" {
			return // a process for each call; the other clients show the rest
		}
		s.refused("CreateFunction", create("f", values{"Environment": values{"Variables": values{"AWS_REGION": "x", "_HANDLER": "y"}}}), 400, "ValidationException",
			"1 validation error detected: Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]")
		s.refused("CreateFunction", create("f", values{"Environment": values{"Variables": values{"AWS_REGION": "x", "LAMBDA_TASK_ROOT": "y"}}}), 400, "InvalidParameterValueException",
			"Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: AWS_REGION, LAMBDA_TASK_ROOT")
		long := strings.Repeat("x", 4096)
		s.refused("CreateFunction", create("f", values{"Environment": values{"Variables": values{"LONG": long}}}), 400, "InvalidParameterValueException",
			`Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: {"LONG":"`+long+`"}`)
		s.refused("UpdateFunctionConfiguration", values{"FunctionName": "absent", "Timeout": 9}, 404, "ResourceNotFoundException", "Function not found: "+arnPrefix+"absent")
		s.refused("UpdateFunctionCode", values{"FunctionName": "absent", "ZipFile": kiln.Zip(map[string]string{"a": ""})}, 404, "ResourceNotFoundException", "Function not found: "+arnPrefix+"absent")
		s.refused("DeleteFunction", values{"FunctionName": "absent"}, 404, "ResourceNotFoundException", "Function not found: "+arnPrefix+"absent")
		s.refused("UpdateFunctionConfiguration", values{"FunctionName": fn, "LoggingConfig": values{"LogFormat": "Text", "SystemLogLevel": "INFO"}}, 400, "InvalidParameterValueException",
			`LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change the LogFormat to "JSON" and try again.`)
		s.refused("CreateFunction", create("f", values{"Code": values{"ZipFile": []byte("not a zip")}}), 400, "InvalidParameterValueException",
			"Could not unzip uploaded file. Please check your file, then try to upload again.")
	})
}

// TestSettings creates a function with everything that can be stored.
func TestSettings(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "settings-" + name
		settings := values{
			"Description": "everything", "Timeout": 17, "MemorySize": 256,
			"VpcConfig":        values{"SubnetIds": []string{"subnet-0123456789abcdef0"}, "SecurityGroupIds": []string{"sg-0123456789abcdef0"}, "Ipv6AllowedForDualStack": true},
			"KMSKeyArn":        "arn:aws:kms:us-east-1:000000000000:key/11111111-2222-3333-4444-555555555555",
			"DeadLetterConfig": values{"TargetArn": "arn:aws:sqs:us-east-1:000000000000:dead"},
			"TracingConfig":    values{"Mode": "Active"},
			"Tags":             values{"team": "red", "cost": "high"},
			"EphemeralStorage": values{"Size": 1024},
			"LoggingConfig":    values{"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "SystemLogLevel": "WARN", "LogGroup": "/custom/group"},
			"Environment":      values{"Variables": values{"KEY": "välue"}},
		}
		s.create(fn, settings)
		got := s.must("GetFunction", values{"FunctionName": fn})
		configuration := got["Configuration"].(map[string]any)
		settings["VpcConfig"].(values)["VpcId"] = ""
		want(t, "Tags", canonical(got["Tags"]), canonical(settings["Tags"]))
		delete(settings, "Tags")
		for member, value := range settings {
			want(t, member, canonical(configuration[member]), canonical(value))
		}

		// What an update clears is gone; what it does not name stays.
		s.must("UpdateFunctionConfiguration", values{"FunctionName": fn,
			"VpcConfig":        values{"SubnetIds": []string{}, "SecurityGroupIds": []string{}},
			"DeadLetterConfig": values{"TargetArn": ""}, "LoggingConfig": values{"LogFormat": "Text"}, "Environment": values{"Variables": values{}},
			"Description": "", "KMSKeyArn": "", "Layers": []string{}, "FileSystemConfigs": []any{}})
		now := s.must("GetFunctionConfiguration", values{"FunctionName": fn})
		for _, cleared := range []string{"DeadLetterConfig", "KMSKeyArn", "Environment", "Layers", "FileSystemConfigs"} {
			want(t, cleared, now[cleared], nil)
		}
		want(t, "Description", now["Description"], "")
		want(t, "VpcConfig", canonical(now["VpcConfig"]), `{"Ipv6AllowedForDualStack":false,"SecurityGroupIds":[],"SubnetIds":[],"VpcId":""}`)
		want(t, "LoggingConfig", canonical(now["LoggingConfig"]), `{"LogFormat":"Text","LogGroup":"/custom/group"}`)
		want(t, "MemorySize", now["MemorySize"], 256)
		want(t, "TracingConfig", canonical(now["TracingConfig"]), `{"Mode":"Active"}`)

		s.must("UpdateFunctionConfiguration", values{"FunctionName": fn, "Environment": values{"Variables": values{"OTHER": "value"}}})
		s.must("UpdateFunctionConfiguration", values{"FunctionName": fn, "Timeout": 4})
		now = s.must("GetFunctionConfiguration", values{"FunctionName": fn})
		want(t, "Environment", canonical(now["Environment"]), `{"Variables":{"OTHER":"value"}}`)
		s.refused("UpdateFunctionConfiguration", values{"FunctionName": fn, "VpcConfig": values{"SubnetIds": []string{"subnet-1"}}}, 400, "InvalidParameterValueException",
			"SubnetIds and SecurityIds must coexist or be both empty list.")

		// The log says once, when it is set, what has no effect.
		for _, kept := range []string{"VpcConfig", "KMSKeyArn", "TracingConfig"} {
			line := `msg="a setting of a function is kept and has no effect" function=` + arnPrefix + fn + " setting=" + kept + " "
			if n := strings.Count(d.Log.String(), line); n != 1 {
				t.Errorf("the log says %d times that %s has no effect", n, kept)
			}
		}
	})
}

func canonical(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestList pages through sixty functions.
func TestList(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	const count = 60
	var names []string
	first := session{goSDK{}, t, anyKey(d)}
	for i := range count {
		name := fmt.Sprintf("f%02d", (i*37)%count) // not in order
		names = append(names, name)
		first.must("CreateFunction", create(name, nil))
	}
	slices.Sort(names)
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		for _, size := range []int{1, 7, 50, 1000} {
			if size == 1 && name == "cli" {
				continue // sixty requests show nothing more here
			}
			pages, f := s.pages(s.to, size)
			if f != nil {
				t.Fatal(f)
			}
			for i, page := range pages {
				if name != "cli" && i < len(pages)-1 && len(page) != min(size, 50) {
					t.Errorf("page %d of size %d has %d functions", i, size, len(page))
				}
			}
			if got := slices.Concat(pages...); !slices.Equal(got, names) {
				t.Errorf("pages of %d: got %v", size, got)
			}
		}
		if name == "cli" {
			return // it does not show what the service answers
		}
		page := s.must("ListFunctions", values{"MaxItems": 10, "FunctionVersion": "ALL"})
		list := page["Functions"].([]any)
		want(t, "functions of a page", len(list), 10)
		item := list[0].(map[string]any)
		want(t, "FunctionArn with FunctionVersion ALL", item["FunctionArn"], arnPrefix+names[0]+":$LATEST")
		for _, member := range []string{"State", "LastUpdateStatus", "RuntimeVersionConfig"} {
			want(t, member+" in a list", item[member], nil)
		}
		if page["NextMarker"] == nil {
			t.Error("the page has no NextMarker")
		}
		rest := s.must("ListFunctions", values{"Marker": page["NextMarker"]})
		want(t, "functions of the rest", len(rest["Functions"].([]any)), 50)
		want(t, "NextMarker at the end", rest["NextMarker"], nil)
		other := s
		other.to.region = "eu-west-1"
		want(t, "functions of another region", len(other.must("ListFunctions", nil)["Functions"].([]any)), 0)
	})
}

// TestThrottle holds the one invocation that Kiln allows here, and has each
// client turned away.
func TestThrottle(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime", "--concurrency", "1")
	d.Create("held", "python3.12", "gate.handler", kiln.Gate(), kiln.Timeout(300))
	held := make(chan *failure, 1)
	go func() {
		_, f := goSDK{}.call(anyKey(d), "Invoke", values{"FunctionName": "held"})
		held <- f
	}()
	kiln.Await(t, "an invocation that is under way", func() bool { return d.Metric(`kiln_environments{`, `state="busy"`) == 1 })
	for name := range clients { // not at once: they would wait for other tests, and the one that is held has 300 s
		t.Run(name, func(t *testing.T) {
			s := session{newClient(t, name), t, anyKey(d)}
			s.refused("Invoke", values{"FunctionName": "held"}, 429, "TooManyRequestsException", "Rate Exceeded.")
		})
	}
	r, err := http.Get(d.URL + "/_kiln/health") // what is not an invocation goes on
	if err != nil || r.StatusCode != 200 {
		t.Error(r, err)
	}
	d.Open("held")
	select {
	case f := <-held:
		if f != nil {
			t.Error(f)
		}
	case <-time.After(time.Minute):
		t.Error("the held invocation does not end")
	}
	want(t, "throttles", d.Metric("kiln_throttles_total{", `reason="ConcurrentInvocationLimitExceeded"`), 4)
}
