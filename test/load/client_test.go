package load

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"kiln/test/kiln"
)

// patience bounds every wait: a loaded machine is slow.
const patience = time.Minute

// authorization is well formed, which is what a Kiln without keys asks for.
var authorization = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=" + strings.Repeat("0", 64)

// client speaks HTTP by itself, because tests look at headers and connections.
type client struct {
	t    testing.TB
	d    *kiln.Daemon
	http *http.Client
}

func newClient(t testing.TB, d *kiln.Daemon) *client {
	transport := &http.Transport{MaxIdleConnsPerHost: 1000}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{t: t, d: d, http: &http.Client{Transport: transport}}
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

// code is the error's, or "".
func (r reply) code() string { return r.header.Get("X-Amzn-Errortype") }

func (r reply) String() string { return fmt.Sprintf("%d %s %.300s", r.status, r.code(), r.body) }

// ok reports whether a function answered without an error.
func (r reply) ok() bool {
	return r.status == http.StatusOK && r.header.Get("X-Amz-Function-Error") == ""
}

func (c *client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.d.URL+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", authorization)
	r.Header.Set("X-Amz-Date", "20260101T000000Z")
	return r, nil
}

func (c *client) do(ctx context.Context, method, path string, body []byte) (reply, error) {
	r, err := c.request(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	return c.send(r)
}

func (c *client) send(r *http.Request) (reply, error) {
	response, err := c.http.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, string(answer)}, err
}

const api = "/2015-03-31/functions/"

func (c *client) invoke(ctx context.Context, function, event string) (reply, error) {
	return c.do(ctx, http.MethodPost, api+function+"/invocations", []byte(event))
}

// must invokes the function, which must answer without an error.
func (c *client) must(function, event string) string {
	c.t.Helper()
	r, err := c.invoke(context.Background(), function, event)
	if err != nil || !r.ok() {
		c.t.Fatalf("invoke %s: %v, %v", function, r, err)
	}
	return r.body
}

// resources are what a daemon holds while nothing happens, without the first processes of sandboxes
// that wait: how many do depends on what was wanted of late.
type resources struct {
	goroutines, descriptors float64
	processes               int
}

// held is how many descriptors the daemon has of each first process that waits: itself, its
// control socket and its /tmp.
const held = 3

func (r resources) String() string {
	return fmt.Sprintf("%v goroutines, %v descriptors, %d processes", r.goroutines, r.descriptors, r.processes)
}

// slack is how far two readings of an idle daemon may differ: connections of the
// clients that ask, and what runs now and then.
const slack = 6

// start starts a daemon without spare runtimes whose environments end soon after their work, and notes
// what it holds then. The returned function checks that it holds no more again.
func start(t *testing.T, args ...string) (*kiln.Daemon, *client, func()) {
	t.Helper()
	d := kiln.Start(t, append([]string{"--account", kiln.Account(), "--idle-timeout", "1s", "--spare-bytes", "0", "--any-runtime"}, args...)...)
	c := newClient(t, d)
	d.Create("warm", "provided.al2023", "x", kiln.Bash("answer=$event"), nil)
	c.must("warm", "1")
	var before resources
	calm := func() error {
		c.http.CloseIdleConnections()
		d.CloseIdleConnections()
		if n := d.Metric("kiln_environments"); n != 0 {
			return fmt.Errorf("%v environments live", n)
		}
		return nil
	}
	read := func() resources {
		waiting := d.Metric("kiln_first_processes")
		return resources{d.Metric("go_goroutines"), d.Metric("process_open_fds") - held*waiting, len(d.Living().Processes) - int(waiting)}
	}
	kiln.Eventually(t, patience, func() error {
		if err := calm(); err != nil {
			return err
		}
		last := before
		if before = read(); before != last {
			return fmt.Errorf("resources still change: %v, %v", last, before)
		}
		return nil
	})
	return d, c, func() {
		t.Helper()
		kiln.Eventually(t, patience, func() error {
			if err := calm(); err != nil {
				return err
			}
			if now := read(); now.goroutines > before.goroutines+slack || now.descriptors > before.descriptors+slack || now.processes > before.processes {
				return fmt.Errorf("the daemon holds %v; before it held %v:\n%s", now, before, strings.Join(d.Living().Processes, "\n"))
			}
			return nil
		})
		if log := d.Log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "panic") {
			t.Errorf("the daemon logged errors:\n%s", log)
		}
	}
}

// createInput is shorter to write.
type createInput = lambda.CreateFunctionInput

func int32p(n int32) *int32 { return &n }

// peakMemory is the most memory that the daemon had, in bytes.
func peakMemory(t *testing.T, d *kiln.Daemon) int64 {
	t.Helper()
	return memory(t, d, "VmHWM")
}

// memory is one of the kernel's figures of the daemon, in bytes.
func memory(t *testing.T, d *kiln.Daemon, figure string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Pid()))
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == figure+":" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Skip("the kernel does not tell " + figure)
	return 0
}
