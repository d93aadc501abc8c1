package sigv4_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"kiln/internal/aws/sigv4"
)

const (
	key    = "AKIDEXAMPLE"
	secret = "secret"
	host   = "localhost:9000"
)

// cases are requests as clients write them on the wire.
var cases = []struct {
	Name    string            `json:"-"`
	Method  string            `json:"method"`
	Target  string            `json:"target"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Token   string            `json:"token"`
	Presign bool              `json:"presign"`
}{
	{Name: "plain", Method: "GET", Target: "/2015-03-31/functions/"},
	{Name: "body", Method: "POST", Target: "/2015-03-31/functions", Body: `{"FunctionName":"f"}`, Headers: map[string]string{"Content-Type": "application/json"}},
	{Name: "token", Method: "GET", Target: "/2015-03-31/functions", Token: "session/+="},
	{Name: "odd spacing", Method: "POST", Target: "/x", Headers: map[string]string{"X-Amz-Odd": "  a   b    c "}},
	{Name: "header case", Method: "POST", Target: "/x", Headers: map[string]string{"x-AMZ-invocation-TYPE": "Event"}},
	{Name: "repeated query", Method: "DELETE", Target: "/2017-03-31/tags/a?tagKeys=b&tagKeys=a&tagKeys=a%20b&z=&a"},
	{Name: "query with plus and percent", Method: "GET", Target: "/x?a=1%2B1&b=~&c=%2F&d=%C3%A9"},
	{Name: "encoded ARN", Method: "GET", Target: "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aeu-west-1%3A000000000000%3Afunction%3Af"},
	{Name: "plain ARN", Method: "GET", Target: "/2017-03-31/tags/arn:aws:lambda:eu-west-1:000000000000:function:f"},
	{Name: "encoded slash", Method: "GET", Target: "/2025-12-01/durable-executions/a%2Fb%2Fc"},
	{Name: "encoded percent", Method: "GET", Target: "/2015-03-31/functions/a%2525b"},
	{Name: "unicode path", Method: "GET", Target: "/p%C3%A4th/%E2%98%83"},
	{Name: "presigned", Method: "GET", Target: "/code/abc?versionId=1", Presign: true},
	{Name: "presigned with token", Method: "GET", Target: "/code/abc", Token: "session/+=", Presign: true},
	{Name: "presigned unicode", Method: "GET", Target: "/code/%E2%98%83?a=%C3%A9&a=b", Presign: true},
}

// parsed is the request that a server sees of these bytes.
func parsed(t *testing.T, method, target string, headers map[string]string, body string) *http.Request {
	t.Helper()
	var raw strings.Builder
	fmt.Fprintf(&raw, "%s %s HTTP/1.1\r\n", method, target)
	if headers["Host"] == "" {
		fmt.Fprintf(&raw, "Host: %s\r\n", host)
	}
	for k, v := range headers {
		fmt.Fprintf(&raw, "%s: %s\r\n", k, v)
	}
	fmt.Fprintf(&raw, "Content-Length: %d\r\n\r\n%s", len(body), body)
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw.String())))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func verify(r *http.Request, secret, body string, now time.Time) error {
	s, err := sigv4.Parse(r)
	if err != nil {
		return err
	}
	return sigv4.Verify(r, s, secret, sigv4.BodyHash([]byte(body)), now)
}

// accepted checks that a request verifies, and no longer does once anything that
// the signature covers has changed.
func accepted(t *testing.T, r *http.Request, body string) {
	t.Helper()
	now := time.Now()
	if err := verify(r, secret, body, now); err != nil {
		t.Fatalf("refused: %v", err)
	}
	s, _ := sigv4.Parse(r)
	for what, change := range map[string]func(*http.Request){
		"method": func(r *http.Request) { r.Method = "PATCH" },
		"path":   func(r *http.Request) { r.URL.Path += "x"; r.URL.RawPath = "" },
		"query":  func(r *http.Request) { r.URL.RawQuery += "&x=y" },
		"host":   func(r *http.Request) { r.Host = "elsewhere" },
	} {
		changed := r.Clone(t.Context())
		change(changed)
		if err := verify(changed, secret, body, now); code(err) != "InvalidSignatureException" {
			t.Errorf("with another %s: got %v", what, err)
		}
	}
	if !s.Presigned {
		if err := verify(r, secret, body+"x", now); code(err) != "InvalidSignatureException" {
			t.Errorf("with another body: got %v", err)
		}
	}
	if err := verify(r, "other", body, now); code(err) != "InvalidSignatureException" {
		t.Errorf("with another secret: got %v", err)
	}
}

func code(err error) string {
	var e *sigv4.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestSDK(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			r, err := http.NewRequest(c.Method, "http://"+host+c.Target, strings.NewReader(c.Body))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range c.Headers {
				r.Header.Set(k, v)
			}
			credentials := aws.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: c.Token}
			hash := sigv4.BodyHash([]byte(c.Body))
			var target string
			if c.Presign {
				r.URL.RawQuery += "&X-Amz-Expires=60"
				signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), credentials, r, hash, "lambda", "eu-west-1", time.Now())
				if err != nil {
					t.Fatal(err)
				}
				target = strings.TrimPrefix(signed, "http://"+host)
			} else {
				if err := v4.NewSigner().SignHTTP(t.Context(), credentials, r, hash, "lambda", "eu-west-1", time.Now()); err != nil {
					t.Fatal(err)
				}
				target = r.URL.RequestURI()
			}
			headers := map[string]string{}
			for k := range r.Header {
				headers[k] = r.Header.Get(k)
			}
			accepted(t, parsed(t, c.Method, target, headers, c.Body), c.Body)
		})
	}
}

func TestBotocore(t *testing.T) {
	t.Parallel()
	if err := exec.Command("python3", "-c", "import botocore").Run(); err != nil {
		t.Skip("python3 with botocore is not installed:", err)
	}
	var in bytes.Buffer
	for _, c := range cases {
		if err := json.NewEncoder(&in).Encode(c); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("python3", "testdata/sign.py")
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err, string(err.(*exec.ExitError).Stderr))
	}
	d := json.NewDecoder(bytes.NewReader(out))
	for _, c := range cases {
		var signed struct {
			Target  string
			Headers map[string]string
		}
		if err := d.Decode(&signed); err != nil {
			t.Fatal(err)
		}
		t.Run(c.Name, func(t *testing.T) {
			accepted(t, parsed(t, c.Method, signed.Target, signed.Headers, c.Body), c.Body)
		})
	}
}

func TestPresign(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	u, err := sigv4.Presign("http://"+host+"/code/a?versionId=1", key, secret, "eu-west-1", "lambda", 10*time.Minute, now)
	if err != nil {
		t.Fatal(err)
	}
	r := parsed(t, "GET", strings.TrimPrefix(u, "http://"+host), nil, "")
	for after, want := range map[time.Duration]string{
		0:                 "",
		10 * time.Minute:  "",
		601 * time.Second: "Signature expired: 20260131T121000Z is now earlier than 20260131T121001Z",
		-6 * time.Minute:  "Signature not yet current: 20260131T120000Z is still later than 20260131T115900Z (20260131T115400Z + 5 min.)",
	} {
		got := ""
		if err := verify(r, secret, "", now.Add(after)); err != nil {
			got = err.(*sigv4.Error).Message
		}
		if got != want {
			t.Errorf("after %v: got %q, want %q", after, got, want)
		}
	}
}

func TestUnsignedPayload(t *testing.T) {
	t.Parallel()
	for service, want := range map[string]string{"lambda": "InvalidSignatureException", "s3": "<nil>"} {
		r, _ := http.NewRequest("PUT", "http://"+host+"/b/k", strings.NewReader("x"))
		r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
		if err := signer.SignHTTP(t.Context(), aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}, r, "UNSIGNED-PAYLOAD", service, "eu-west-1", time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := verify(r, secret, "x", time.Now()); code(err) != want {
			t.Errorf("%s: got %v, want %s", service, err, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	const good = "AWS4-HMAC-SHA256 Credential=AKID/20260131/eu-west-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"
	const date = "20260131T120000Z"
	for _, c := range []struct{ name, target, authorization, date, code, message string }{
		{"nothing", "/", "", "", "MissingAuthenticationTokenException", "Missing Authentication Token"},
		{"another scheme", "/", "Bearer abc", date, "IncompleteSignatureException", "Unsupported AWS 'algorithm': 'Bearer'."},
		{"asymmetric", "/", strings.Replace(good, "HMAC-SHA256", "ECDSA-P256-SHA256", 1), date, "IncompleteSignatureException", "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256'."},
		{"empty", "/", "AWS4-HMAC-SHA256 a=b", "", "IncompleteSignatureException", "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of exactly one 'X-Amz-Date' header."},
		{"no signature", "/", strings.Replace(good, ", Signature=00", "", 1), date, "IncompleteSignatureException", "Authorization header requires 'Signature' parameter."},
		{"no equal sign", "/", "AWS4-HMAC-SHA256 Credential", date, "IncompleteSignatureException", "'Credential' not a valid key=value pair (missing equal-sign) in Authorization header."},
		{"short scope", "/", strings.Replace(good, "/lambda", "", 1), date, "IncompleteSignatureException", "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/aws4_request, got 'AKID/20260131/eu-west-1/aws4_request'."},
		{"bad date", "/", good, "yesterday", "IncompleteSignatureException", "Date must be in ISO-8601 'basic format'. Got 'yesterday'. See http://en.wikipedia.org/wiki/ISO_8601"},
		{"another day", "/", good, "20260201T000000Z", "InvalidSignatureException", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20260131' != '20260201', from '20260201T000000Z'."},
		{"host unsigned", "/", strings.Replace(good, "host;", "", 1), date, "InvalidSignatureException", "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."},
		{"late", "/", good, "20260131T115459Z", "InvalidSignatureException", "Signature expired: 20260131T115459Z is now earlier than 20260131T115500Z (20260131T120000Z - 5 min.)"},
		{"early", "/", good, "20260131T120501Z", "InvalidSignatureException", "Signature not yet current: 20260131T120501Z is still later than 20260131T120500Z (20260131T120000Z + 5 min.)"},
		{"wrong", "/", good, date, "InvalidSignatureException", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."},
		{"half presigned", "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260131T120000Z&X-Amz-SignedHeaders=host&X-Amz-Signature=0", "", "", "IncompleteSignatureException", "AWS query-string parameters must include 'X-Amz-Credential', once."},
		{"eight days", "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260131T120000Z&X-Amz-SignedHeaders=host&X-Amz-Signature=0&X-Amz-Credential=a&X-Amz-Expires=691200", "", "", "IncompleteSignatureException", "X-Amz-Expires must be a number of seconds from 1 to 604800."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			headers := map[string]string{}
			if c.authorization != "" {
				headers["Authorization"] = c.authorization
			}
			if c.date != "" {
				headers["X-Amz-Date"] = c.date
			}
			err := verify(parsed(t, "GET", c.target, headers, ""), secret, "", now)
			var e *sigv4.Error
			if !errors.As(err, &e) || e.Code != c.code || e.Message != c.message || e.Status != 403 {
				t.Errorf("got %v, want %s: %s", err, c.code, c.message)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKID/20260131/eu-west-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "20260131T120000Z", "")
	f.Add("", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260131T120000Z&X-Amz-SignedHeaders=host&X-Amz-Signature=0&X-Amz-Credential=a%2F20260131%2Fr%2Fs%2Faws4_request&X-Amz-Expires=1")
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, authorization, date, query string) {
		r, err := http.NewRequest("GET", "http://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = query
		r.Header.Set("Authorization", authorization)
		r.Header.Set("X-Amz-Date", date)
		s, err := sigv4.Parse(r)
		var e *sigv4.Error
		if err != nil {
			if !errors.As(err, &e) {
				t.Fatalf("an error of another type: %v", err)
			}
			return
		}
		if err := sigv4.Verify(r, s, "a secret that nobody signs with", sigv4.BodyHash(nil), now); err == nil {
			t.Fatal("accepted")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	r, _ := http.NewRequest("POST", "http://"+host+"/2015-03-31/functions/f/invocations", nil)
	hash := sigv4.BodyHash(nil)
	now := time.Now()
	if err := v4.NewSigner().SignHTTP(b.Context(), aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}, r, hash, "lambda", "eu-west-1", now); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := sigv4.Parse(r)
		if err != nil {
			b.Fatal(err)
		}
		if err := sigv4.Verify(r, s, secret, hash, now); err != nil {
			b.Fatal(err)
		}
	}
}
