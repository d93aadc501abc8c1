package conformance

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// signed is an Authorization header as any client writes it; who wrote it does
// not matter to a Kiln without keys.
const signed = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"

// send makes a request by hand. The header "Host" sets the host.
func send(t *testing.T, method, url, body string, header map[string]string) (status int, answer map[string]any) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		if r.Header.Set(name, value); name == "Host" {
			r.Host = value
		}
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &answer); err != nil {
			t.Fatalf("%v in %s", err, b)
		}
	}
	if answer == nil {
		answer = map[string]any{}
	}
	if kind := response.Header.Get("X-Amzn-Errortype"); kind != "" {
		answer["error"] = kind
	}
	return response.StatusCode, answer
}

func date() map[string]string {
	return map[string]string{"Authorization": signed, "X-Amz-Date": "20260101T000000Z"}
}

// TestAccess is who comes in at the one port, without keys.
func TestAccess(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--hosts", "kiln.example.com,*.lambda.example.com")
	port := d.URL[strings.LastIndex(d.URL, ":"):]
	tests := []struct {
		name   string
		header map[string]string // besides the signature's
		bare   bool              // without a signature
		status int
		code   string
		says   string
	}{
		{name: "no signature", bare: true, status: 403, code: "MissingAuthenticationTokenException", says: "Missing Authentication Token"},
		{name: "not SigV4", bare: true, header: map[string]string{"Authorization": "Basic dGVzdDp0ZXN0"}, status: 403},
		{name: "any key", status: 200},
		{name: "localhost", header: map[string]string{"Host": "localhost" + port}, status: 200},
		{name: "below localhost", header: map[string]string{"Host": "kiln.localhost" + port}, status: 200},
		{name: "IPv6", header: map[string]string{"Host": "[::1]" + port}, status: 200},
		{name: "configured host", header: map[string]string{"Host": "kiln.example.com"}, status: 200},
		{name: "configured hosts", header: map[string]string{"Host": "x.lambda.example.com"}, status: 200},
		{name: "rebound name", header: map[string]string{"Host": "evil.example.com" + port}, status: 403, code: "AccessDeniedException", says: "neither a loopback name nor configured"},
		{name: "name that ends like a host", header: map[string]string{"Host": "evilkiln.example.com"}, status: 403, code: "AccessDeniedException"},
		{name: "name that begins like localhost", header: map[string]string{"Host": "localhost.example.com"}, status: 403, code: "AccessDeniedException"},
		{name: "private address", header: map[string]string{"Host": "192.168.1.2" + port}, status: 403, code: "AccessDeniedException"},
		{name: "own origin", header: map[string]string{"Origin": d.URL}, status: 200},
		{name: "foreign origin", header: map[string]string{"Origin": "https://example.com"}, status: 403, code: "AccessDeniedException", says: "another origin (https://example.com)"},
		{name: "origin at another port", header: map[string]string{"Origin": "http://127.0.0.1:1"}, status: 403, code: "AccessDeniedException"},
		{name: "opaque origin", header: map[string]string{"Origin": "null"}, status: 403, code: "AccessDeniedException"},
		{name: "cross-site", header: map[string]string{"Sec-Fetch-Site": "cross-site"}, status: 403, code: "AccessDeniedException"},
		{name: "same-site", header: map[string]string{"Sec-Fetch-Site": "same-site"}, status: 403, code: "AccessDeniedException"},
		{name: "same-origin", header: map[string]string{"Sec-Fetch-Site": "same-origin"}, status: 200},
		{name: "address bar", header: map[string]string{"Sec-Fetch-Site": "none"}, status: 200},
	}
	for _, test := range tests {
		header := date()
		if test.bare {
			header = map[string]string{}
		}
		for name, value := range test.header {
			header[name] = value
		}
		status, answer := send(t, "GET", d.URL+"/2015-03-31/functions", "", header)
		message, _ := answer["message"].(string)
		if message == "" {
			message, _ = answer["Message"].(string)
		}
		if status != test.status || test.code != "" && answer["error"] != test.code || !strings.Contains(message, test.says) {
			t.Errorf("%s: got status %d and %v, want %d %s: … %s …", test.name, status, answer, test.status, test.code, test.says)
		}
	}

	// Of Kiln's own paths, health and metrics are open to any program here, and to no page.
	for path, status := range map[string]int{"/_kiln/health": 200, "/_kiln/runtimes": 403, "/_kiln/nothing": 404} {
		if got, answer := send(t, "GET", d.URL+path, "", nil); got != status {
			t.Errorf("%s: got status %d and %v, want %d", path, got, answer, status)
		}
		if got, _ := send(t, "GET", d.URL+path, "", map[string]string{"Origin": "https://example.com"}); got != 403 {
			t.Errorf("%s from a page: got status %d", path, got)
		}
	}
	if status, answer := send(t, "POST", d.URL+"/", "Action=GetCallerIdentity&Version=2011-06-15", map[string]string{
		"Authorization": strings.Replace(signed, "/lambda/", "/dynamodb/", 1), "X-Amz-Date": "20260101T000000Z", "Content-Type": "application/x-amz-json-1.0",
	}); status != 501 || !strings.Contains(answer["message"].(string), "AWS_ENDPOINT_URL_DYNAMODB") {
		t.Errorf("another service: got status %d and %v", status, answer)
	}
}

// TestKeys signs with the right key, with its wrong secret and with another key.
func TestKeys(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the-secret/of+root\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := kiln.Start(t, "--any-runtime", "--access-key", "AKIAROOT", "--secret-key-file", secret)
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, target{d.URL, "AKIAROOT", "the-secret/of+root", "us-east-1", "lambda"}}
		s.create("keys-"+name, nil)
		_, payload := s.invoke(values{"FunctionName": "keys-" + name + ":$LATEST", "Payload": []byte(`{"a b": "ü+/%"}`)})
		if !strings.Contains(payload, "a b") {
			t.Errorf("got %s", payload)
		}
		link := s.must("GetFunction", values{"FunctionName": "keys-" + name})["Code"].(map[string]any)["Location"].(string)
		if r, err := http.Get(link); err != nil || r.StatusCode != 200 {
			t.Errorf("Location: got %v %v", r, err)
		}
		s.to.secret = "another"
		s.refused("ListFunctions", nil, 403, "InvalidSignatureException",
			"The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
		s.to = target{d.URL, "AKIAOTHER", "the-secret/of+root", "us-east-1", "lambda"}
		s.refused("ListFunctions", nil, 403, "UnrecognizedClientException", "The security token included in the request is invalid.")
	})
	if status, answer := send(t, "GET", d.URL+"/2015-03-31/functions", "", nil); status != 403 || answer["error"] != "MissingAuthenticationTokenException" {
		t.Errorf("without a signature: got status %d and %v", status, answer)
	}
}

// A Kiln that others can reach has keys, or does not start.
func TestListenWithoutKeys(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(kiln.Binary(t), "up", "--listen", "0.0.0.0:0", "--data", filepath.Join(t.TempDir(), "data"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	err := cmd.Run()
	const advice = "set access_key and secret_key_file, or listen on localhost"
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), advice) {
		t.Errorf("got %v and %q, want exit code 1 and %q", err, errs.String(), advice)
	}
}
