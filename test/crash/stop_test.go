package crash

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"kiln/test/kiln"
)

// answer is what a client got of an invocation.
type answer struct {
	payload, functionError string
	err                    error
}

// begin invokes the function so many times at once, and returns when all run.
func begin(t *testing.T, d *kiln.Daemon, name string, n int) <-chan answer {
	t.Helper()
	answers := make(chan answer, n)
	client := d.Client()
	for i := range n {
		go func() { // ends with its answer, for which there is room
			out, err := client.Invoke(context.Background(), &lambda.InvokeInput{FunctionName: &name, Payload: fmt.Appendf(nil, "%d", i)})
			if err != nil {
				answers <- answer{err: err}
				return
			}
			answers <- answer{payload: string(out.Payload), functionError: aws.ToString(out.FunctionError)}
		}()
	}
	busy := fmt.Sprintf(`function="%s",region="us-east-1",state="busy"} %d`, name, n)
	kiln.Eventually(t, 20*time.Second, func() error {
		if !strings.Contains(d.Metrics(), busy) {
			return fmt.Errorf("%d invocations do not run yet", n)
		}
		return nil
	})
	return answers
}

// slow sets the function's timeout.
func slow(seconds int32) func(*lambda.CreateFunctionInput) {
	return func(in *lambda.CreateFunctionInput) { in.Timeout = &seconds }
}

func TestTerminateLetsInvocationsFinish(t *testing.T) {
	t.Parallel()
	const n = 5
	d := kiln.Start(t, "--account", kiln.Account())
	d.Create("slow", "provided.al2023", "x", kiln.Bash("sleep 2; answer=$event"), slow(60))
	answers := begin(t, d, "slow", n)
	d.Terminate()
	address := strings.TrimPrefix(d.URL, "http://")
	kiln.Eventually(t, time.Second, func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return fmt.Errorf("%s takes connections after SIGTERM", address)
		}
		return nil
	})
	seen := map[string]bool{}
	for range n {
		a := <-answers
		if a.err != nil || a.functionError != "" || seen[a.payload] {
			t.Errorf("an invocation that ran at SIGTERM got %+v", a)
		}
		seen[a.payload] = true
	}
	if code := d.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0; log:\n%s", code, d.Log)
	}
	if strings.Contains(d.Log.String(), "level=ERROR") {
		t.Errorf("the log has errors:\n%s", d.Log)
	}
	d.NothingLeft()
}

func TestTerminateCutsOff(t *testing.T) {
	t.Parallel()
	const n = 3
	d := kiln.Start(t, "--account", kiln.Account(), "--shutdown-timeout", "200ms")
	d.Create("stuck", "provided.al2023", "x", kiln.Bash("sleep 600; answer=$event"), slow(900))
	answers := begin(t, d, "stuck", n)
	d.Terminate()
	for range n {
		if a := <-answers; a.err == nil && !strings.Contains(a.payload, "Sandbox.Failure") {
			t.Errorf("an invocation that was cut off got %+v", a)
		}
	}
	if code := d.Wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if !strings.Contains(d.Log.String(), "cut off") || !strings.Contains(d.Log.String(), "shutdown_timeout passed") {
		t.Errorf("the log does not say what happened:\n%s", d.Log)
	}
	d.NothingLeft()
}

// Requests that wait for something, and connections that nobody uses, do not
// hold up the end.
func TestTerminateDoesNotWaitForIdlers(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--account", kiln.Account(), "--shutdown-timeout", "1h")
	d.Create("quiet", "provided.al2023", "x", kiln.Bash("answer=$event"), nil)
	if _, err := d.Client().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("quiet"), Payload: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	half, err := net.Dial("tcp", strings.TrimPrefix(d.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	follow, _ := follower(t, d, "quiet")
	defer follow.Close()
	begin := time.Now()
	d.Terminate()
	if code := d.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0; log:\n%s", code, d.Log)
	}
	t.Logf("ended after %v", time.Since(begin))
	d.NothingLeft()
}

// follower begins a request for log events that are still to come, on a
// connection of its own, and returns when the daemon has it.
func follower(t *testing.T, d *kiln.Daemon, function string) (net.Conn, *http.Request) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(d.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, d.URL, strings.NewReader(`{"logGroupName":"/aws/lambda/`+function+`","startTime":4102444800000}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/logs/aws4_request, SignedHeaders=host, Signature="+strings.Repeat("0", 64))
	r.Header.Set("X-Amz-Date", "20260101T000000Z")
	r.Header.Set("X-Amz-Target", "Logs_20140328.FilterLogEvents")
	r.Header.Set("X-Kiln-Wait", "30")
	if err := r.Write(c); err != nil {
		t.Fatal(err)
	}
	return c, r
}

func TestOneDaemonPerDataDirectory(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--account", kiln.Account())
	code, output := kiln.Run(t, "up", "--listen", "127.0.0.1:0", "--data", d.Data)
	if code != 1 || !strings.Contains(output, "another") || !strings.Contains(output, d.Data) {
		t.Errorf("a second daemon on one data directory: exit code %d, %q", code, output)
	}
	d.Create("still", "provided.al2023", "x", kiln.Bash("answer=$event"), nil)
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--account", kiln.Account())
	address := strings.TrimPrefix(d.URL, "http://")
	code, output := kiln.Run(t, "up", "--listen", address, "--data", filepath.Join(t.TempDir(), "other"))
	if code != 1 || !strings.Contains(output, "listen on "+address) || !strings.Contains(output, "--listen") {
		t.Errorf("a second daemon on one port: exit code %d, %q", code, output)
	}
}
