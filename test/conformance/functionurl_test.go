package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kiln/test/kiln"
)

const webHandler = `
import json, os, urllib.request
def handler(event, context):
    if event["rawPath"] == "/fail":
        raise ValueError("no")
    if event["rawPath"] == "/other":  # by Kiln's endpoint, as it is seen from within
        with urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/_kiln/url/" + event["rawQueryString"] + "/within") as answer:
            return json.load(answer)
    return {
        "statusCode": 201, "cookies": ["a=1; Path=/", "b=2"], "headers": {"x-id": context.aws_request_id, "x-arn": context.invoked_function_arn},
        "body": json.dumps({"path": event["rawPath"], "query": event.get("queryStringParameters"), "cookies": event.get("cookies"), "body": event.get("body"),
            "base64": event["isBase64Encoded"], "id": event["requestContext"]["requestId"],
            "user": event["requestContext"].get("authorizer", {}).get("iam", {}).get("userArn")}),
    }
`

const streamHandler = `
export const handler = awslambda.streamifyResponse(async (event, stream) => {
  stream = awslambda.HttpResponseStream.from(stream, { statusCode: 202, headers: { "content-type": "text/event-stream" }, cookies: ["s=1"] });
  stream.write("data: 1\n\n");
  if (event.rawPath === "/hang") await new Promise((r) => setTimeout(r, 60000));
  stream.write("data: 2\n\n");
  stream.end();
});
`

// publicURL gives a function a URL that anybody may call, as it must be done since
// October 2025, and returns it.
func (s session) publicURL(name string, more values) string {
	s.t.Helper()
	in := values{"FunctionName": name, "AuthType": "NONE"}
	for m, v := range more {
		in[m] = v
	}
	made := s.must("CreateFunctionUrlConfig", in)
	s.must("AddPermission", values{"FunctionName": name, "StatementId": "url", "Action": "lambda:InvokeFunctionUrl", "Principal": "*", "FunctionUrlAuthType": "NONE"})
	s.must("AddPermission", values{"FunctionName": name, "StatementId": "invoke", "Action": "lambda:InvokeFunction", "Principal": "*", "InvokedViaFunctionUrl": true})
	return made["FunctionUrl"].(string)
}

// byPath is a function URL for clients that do not look names below localhost up.
func byPath(d *kiln.Daemon, url string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ".")
	return d.URL + "/_kiln/url/" + id + "/"
}

// TestFunctionURLCalls calls functions by their URLs with the clients that people have.
func TestFunctionURLCalls(t *testing.T) {
	t.Parallel()
	d, root := keyed(t, "--any-runtime")
	s := session{goSDK{}, t, target{d.URL, root.ID, root.Secret, "us-east-1", "lambda"}}
	s.create("web", values{"Code": values{"ZipFile": kiln.Zip(map[string]string{"f.py": webHandler})}})
	web := s.publicURL("web", nil)
	s.create("stream", values{"Runtime": "nodejs20.x", "Timeout": 2, "Code": values{"ZipFile": kiln.Zip(map[string]string{"f.mjs": streamHandler})}})
	stream := s.publicURL("stream", values{"InvokeMode": "RESPONSE_STREAM"})

	t.Run("curl", func(t *testing.T) {
		program, err := exec.LookPath("curl")
		if err != nil {
			t.Skip("curl is not installed")
		}
		out, err := exec.Command(program, "--noproxy", "*", "-sSi", "-H", "Content-Type: application/json", "-H", "Cookie: x=1; y=2", "-d", `{"k":1}`, web+"a/b%20c?q=1&q=2").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		head, body, _ := strings.Cut(string(out), "\r\n\r\n")
		var got map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want(t, "answer", fmt.Sprint(got["path"], got["query"], got["cookies"], got["body"], got["base64"], got["user"]), `/a/b%20cmap[q:1,2] [x=1 y=2]{"k":1}false <nil>`)
		for _, line := range []string{"HTTP/1.1 201 Created", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2", "X-Arn: " + arnPrefix + "web", "X-Id: " + fmt.Sprint(got["id"]), "X-Amzn-Requestid: " + fmt.Sprint(got["id"])} {
			if !strings.Contains(head+"\r\n", line+"\r\n") {
				t.Errorf("no %q in\n%s", line, head)
			}
		}
		// Nothing of it is left for the next request on the same connection.
		out, err = exec.Command(program, "--noproxy", "*", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{num_connects} ", web+"fail", "-o", "/dev/null", web, "-I", "-o", "/dev/null").CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "502 1 201 0 ") {
			t.Errorf("%v: %s", err, out)
		}
	})

	t.Run("Node.js", func(t *testing.T) {
		const script = `
const [web, stream] = process.argv.slice(1);
const r = await fetch(web + "x?y=z", { method: "PUT", body: new Uint8Array([0, 255]) });
const s = await fetch(stream);
let pieces = "";
for await (const piece of s.body) pieces += Buffer.from(piece).toString();
console.log(JSON.stringify({ status: r.status, cookies: r.headers.getSetCookie(), body: await r.json(), streamed: [s.status, s.headers.get("content-type"), s.headers.getSetCookie(), pieces] }));`
		out, err := exec.Command("node", "--input-type=module", "-e", script, byPath(d, web), byPath(d, stream)).Output()
		var got map[string]any
		if err != nil || json.Unmarshal(out, &got) != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want(t, "status", got["status"], 201)
		want(t, "cookies", got["cookies"], "[a=1; Path=/ b=2]")
		want(t, "path", member(got, "body", "path"), "/x")
		want(t, "body", fmt.Sprint(member(got, "body", "body"), member(got, "body", "base64")), "AP8=true")
		want(t, "streamed", got["streamed"], "[202 text/event-stream [s=1] data: 1\n\ndata: 2\n\n]")
	})

	t.Run("botocore", func(t *testing.T) {
		program, err := python()
		if err != nil {
			t.Skip(err)
		}
		s.create("signed", values{"Code": values{"ZipFile": kiln.Zip(map[string]string{"f.py": webHandler})}})
		url := s.must("CreateFunctionUrlConfig", values{"FunctionName": "signed", "AuthType": "AWS_IAM"})["FunctionUrl"].(string)
		policy := func(actions string) string {
			return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[` + actions + `],"Resource":"` + arnPrefix + `signed"}]}`
		}
		both := root.newKey(t, d, "000000000000", "both", policy(`"lambda:InvokeFunctionUrl","lambda:InvokeFunction"`))
		one := root.newKey(t, d, "000000000000", "one", policy(`"lambda:InvokeFunctionUrl"`))
		foreign := root.newKey(t, d, "111122223333", "foreign", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"lambda:*","Resource":"*"}]}`)
		call := func(url string, key *key, secret string) (got struct {
			Status     int
			Kind, Body string
		}) {
			t.Helper()
			out, err := exec.Command(program, filepath.Join("testdata", "signed_url.py"), url, key.ID, secret, `{"k":"ü"}`).Output()
			if err != nil || json.Unmarshal(out, &got) != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return got
		}
		for _, at := range []string{url + "a%20b?x=y%20z&x=1", byPath(d, url) + "a"} {
			if got := call(at, both, both.Secret); got.Status != 201 || !strings.Contains(got.Body, `"user": "arn:aws:iam::000000000000:user/both"`) {
				t.Errorf("%s: got %+v", at, got)
			}
		}
		for what, c := range map[string]struct {
			key          *key
			secret, kind string
		}{
			"one action":      {one, one.Secret, "AccessDeniedException"},
			"another account": {foreign, foreign.Secret, "AccessDeniedException"},
			"another secret":  {both, one.Secret, "InvalidSignatureException"},
		} {
			if got := call(url, c.key, c.secret); got.Status != 403 || got.Kind != c.kind {
				t.Errorf("%s: got %+v", what, got)
			}
		}
		// A policy of the function lets another account in, by the URL and no other way.
		s.must("AddPermission", values{"FunctionName": "signed", "StatementId": "url", "Action": "lambda:InvokeFunctionUrl", "Principal": "111122223333", "FunctionUrlAuthType": "AWS_IAM"})
		s.must("AddPermission", values{"FunctionName": "signed", "StatementId": "invoke", "Action": "lambda:InvokeFunction", "Principal": "111122223333", "InvokedViaFunctionUrl": true})
		if got := call(url, foreign, foreign.Secret); got.Status != 201 {
			t.Errorf("another account that may: got %+v", got)
		}
		other := session{goSDK{}, t, target{d.URL, foreign.ID, foreign.Secret, "us-east-1", "lambda"}}
		other.refusedIf("Invoke", values{"FunctionName": arnPrefix + "signed"}, 403, "AccessDeniedException", "a refusal", func(string) bool { return true })
	})

	t.Run("cut off", func(t *testing.T) {
		r, err := http.Get(byPath(d, stream) + "hang")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		piece := make([]byte, len("data: 1\n\n"))
		if _, err := io.ReadFull(r.Body, piece); err != nil || string(piece) != "data: 1\n\n" {
			t.Errorf("got %q, %v", piece, err)
		}
		if busy := d.Metric("kiln_environments{", `state="busy"`, `function="stream"`); busy != 1 {
			t.Errorf("%v environments are busy when the first piece is here", busy)
		}
		if rest, err := io.ReadAll(r.Body); err == nil { // it timed out
			t.Errorf("what was cut off looks whole: %q", rest)
		}
	})
	if n := d.Metric("kiln_url_requests_total{", `function="web"`, `class="5xx"`); n != 1 {
		t.Errorf("%v requests failed", n)
	}

	// From within an environment, and to a function that may not run.
	s.must("UpdateFunctionUrlConfig", values{"FunctionName": "stream", "InvokeMode": "BUFFERED"})
	s.create("caller", values{"Code": values{"ZipFile": kiln.Zip(map[string]string{"f.py": webHandler})}})
	caller := byPath(d, s.publicURL("caller", nil))
	webID, _, _ := strings.Cut(strings.TrimPrefix(web, "http://"), ".")
	if status, answer := send(t, "GET", caller+"other?"+webID, "", nil); status != 200 || answer["path"] != "/within" {
		t.Errorf("from within: %d %v", status, answer)
	}
	if r, err := http.Get(byPath(d, stream)); err != nil || r.StatusCode != 202 || r.ContentLength != 18 { // what it streams, whole
		t.Errorf("buffered: %v %v", r, err)
	}
	s.must("PutFunctionConcurrency", values{"FunctionName": "stream", "ReservedConcurrentExecutions": 0})
	if status, answer := send(t, "GET", byPath(d, stream), "", nil); status != 429 || answer["Reason"] != "ReservedFunctionConcurrentInvocationLimitExceeded" {
		t.Errorf("throttled: %d %v", status, answer)
	}

	// What is taken away is gone, and an alias has a URL of its own.
	s.must("CreateAlias", values{"FunctionName": "web", "Name": "live", "FunctionVersion": "$LATEST"})
	alias := s.must("CreateFunctionUrlConfig", values{"FunctionName": "web", "Qualifier": "live", "AuthType": "NONE"})["FunctionUrl"].(string)
	for _, in := range []values{
		{"StatementId": "url", "Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"}, {"StatementId": "invoke", "Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": true},
	} {
		in["FunctionName"], in["Qualifier"], in["Principal"] = "web", "live", "*"
		s.must("AddPermission", in)
	}
	if r, err := http.Get(byPath(d, alias)); err != nil || r.StatusCode != 201 || r.Header.Get("X-Arn") != arnPrefix+"web:live" {
		t.Errorf("by an alias: %v %v", r, err)
	}
	s.must("DeleteAlias", values{"FunctionName": "web", "Name": "live"})
	s.must("DeleteFunctionUrlConfig", values{"FunctionName": "web"})
	for _, url := range []string{alias, web} {
		status, answer := send(t, "GET", byPath(d, url), "", nil)
		if _, there := answer["Message"]; status != 403 || !there || answer["Message"] != nil {
			t.Errorf("taken away: %d %v", status, answer)
		}
	}
}
