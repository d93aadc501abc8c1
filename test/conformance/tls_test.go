package conformance

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"kiln/test/kiln"
)

func TestSelfSignedTLS(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--tls", "self-signed")
	authority := filepath.Join(d.Data, "tls", "ca.pem")
	if said := afterwards(t, d, "AWS_CA_BUNDLE="); !strings.HasPrefix(d.URL, "https://") || !strings.HasPrefix(said, authority+" ") {
		t.Fatalf("it serves %s and says %s", d.URL, said)
	}
	text, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := lambda.New(lambda.Options{
		Region: "us-east-1", BaseEndpoint: &d.URL, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
		HTTPClient:  &http.Client{Transport: transport},
	})
	// The function asks Kiln for itself, by plain HTTP within its environment.
	_, err = client.CreateFunction(t.Context(), &lambda.CreateFunctionInput{
		FunctionName: aws.String("f"), Runtime: "provided.al2023", Handler: aws.String("x"), Role: aws.String(kiln.Role),
		Code: &types.FunctionCode{ZipFile: kiln.Bash(`answer="\"$AWS_ENDPOINT_URL\""`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := lambda.NewFunctionActiveV2Waiter(client).Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: aws.String("f")}, time.Minute); err != nil {
		t.Fatal(err)
	}
	// Its URL, by the name that the certificate is for as well.
	made, err := client.CreateFunctionUrlConfig(t.Context(), &lambda.CreateFunctionUrlConfigInput{FunctionName: aws.String("f"), AuthType: "NONE"})
	if err != nil {
		t.Fatal(err)
	}
	at := strings.TrimPrefix(d.URL, "https://")
	byName := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, at)
	}}
	defer byName.CloseIdleConnections()
	if r, err := (&http.Client{Transport: byName}).Get(*made.FunctionUrl); err != nil || r.StatusCode != 403 { // it has no permission
		t.Errorf("%s: %v, %v", *made.FunctionUrl, r, err)
	}
	environment := append(d.Environ(), "AWS_CA_BUNDLE="+authority)
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = environment
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	big := filepath.Join(t.TempDir(), "event")
	if err := os.WriteFile(big, append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 5<<20)...), '"'), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run(kiln.Binary(t), "invoke", "f", "--payload", "@"+big); !strings.Contains(got, `"http://`) {
		t.Errorf("the function's endpoint is %s", got)
	}
	streamed, err := client.InvokeWithResponseStream(t.Context(), &lambda.InvokeWithResponseStreamInput{FunctionName: aws.String("f")})
	if err != nil {
		t.Fatal(err)
	}
	var pieces []byte
	for event := range streamed.GetStream().Events() {
		if piece, ok := event.(*types.InvokeWithResponseStreamResponseEventMemberPayloadChunk); ok {
			pieces = append(pieces, piece.Value.Payload...)
		}
	}
	if err := streamed.GetStream().Close(); err != nil || !strings.HasPrefix(string(pieces), `"http://`) {
		t.Errorf("streamed: %s, %v", pieces, err)
	}
	f, err := client.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: aws.String("f")})
	if err != nil {
		t.Fatal(err)
	}
	link, err := (&http.Client{Transport: transport}).Get(*f.Code.Location)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Body.Close()
	if n, err := io.Copy(io.Discard, link.Body); err != nil || n != f.Configuration.CodeSize || link.ProtoMajor != 1 {
		t.Errorf("the link %s gives %d bytes by %s, %v", *f.Code.Location, n, link.Proto, err)
	}
	if python, err := exec.LookPath("python3"); err == nil && exec.Command(python, "-c", "import boto3").Run() == nil {
		if got := run(python, "-c", `import boto3; print(boto3.client("lambda").invoke(FunctionName="f", Payload=b"{}")["StatusCode"])`); got != "200\n" {
			t.Errorf("boto3 says %s", got)
		}
	}
	// Whoever speaks plain HTTP is told so.
	plain, err := net.Dial("tcp", strings.TrimPrefix(d.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := io.WriteString(plain, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(plain), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if says, _ := io.ReadAll(answer.Body); answer.StatusCode != 400 || !strings.Contains(string(says), "HTTPS") {
		t.Errorf("plain HTTP gets %s %s", answer.Status, says)
	}
}

func TestAdminListener(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--admin-listen", "127.0.0.1:0")
	admin := strings.TrimSuffix(afterwards(t, d, "Health and metrics are at "), ".")
	for _, c := range []struct {
		url    string
		status int
		says   string
	}{
		{admin + "/_kiln/health", 200, `"status":"ok"`},
		{admin + "/metrics", 200, "kiln_"},
		{admin + "/_kiln/runtimes", 404, "NotFoundException"},
		{admin + "/2015-03-31/functions/", 404, "NotFoundException"},
		{d.URL + "/_kiln/health", 404, admin},
		{d.URL + "/metrics", 404, "admin_listen"},
	} {
		r, err := http.Get(c.url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if says := string(body) + r.Header.Get("X-Amzn-Errortype"); r.StatusCode != c.status || !strings.Contains(says, c.says) {
			t.Errorf("%s: %s %s, want %d with %q", c.url, r.Status, says, c.status, c.says)
		}
	}
	r, err := http.NewRequest("GET", admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "evil.com"
	if answer, err := http.DefaultClient.Do(r); err != nil || answer.StatusCode != 403 {
		t.Errorf("another host: %v, %v", answer, err)
	} else {
		answer.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}

// afterwards waits for the daemon to say something, and returns the rest of the line.
func afterwards(t *testing.T, d *kiln.Daemon, words string) string {
	t.Helper()
	line, ok := "", false
	kiln.Await(t, "kiln to say "+words, func() bool {
		_, after, _ := strings.Cut(d.Log.String(), words)
		line, _, ok = strings.Cut(after, "\n")
		return ok
	})
	return line
}
