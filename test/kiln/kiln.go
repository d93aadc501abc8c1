// Package kiln starts real daemons for the tests that look at Kiln from outside:
// the built program, its own data directory and port, stopped and checked for
// leftovers at the end of the test. It is used by the packages beside it only.
package kiln

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

// startTimeout bounds the wait for the ready line: a loaded machine is slow.
const startTimeout = 30 * time.Second

// stopTimeout bounds a graceful stop.
const stopTimeout = 60 * time.Second

// Role is any role's ARN: Kiln keeps it and assumes none.
const Role = "arn:aws:iam::000000000000:role/test"

// Root is the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("KILN_BINARY"); path != "" {
		return path, nil
	}
	path := filepath.Join(Root(), "bin", "kiln")
	cmd := exec.Command("make", "build")
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kiln: %w\n%s", err, out)
	}
	return path, nil
})

// Binary builds the program once; KILN_BINARY names one that is there already.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Daemon is a running kiln.
type Daemon struct {
	URL  string
	Data string // the data directory
	Log  *Buffer

	transport http.Transport // of all clients

	t    testing.TB
	args []string
	env  []string // of the daemon, besides this process's
	cmd  *exec.Cmd
	done chan struct{}
	code int // after done

	ended atomic.Bool // as a test wanted, which has seen it
}

// Start runs `kiln up` with further arguments on a free port, and stops it, with
// a check of its exit code, when the test ends.
func Start(t testing.TB, args ...string) *Daemon {
	t.Helper()
	return StartEnv(t, nil, args...)
}

// StartEnv is Start with further variables in the daemon's environment.
func StartEnv(t testing.TB, env []string, args ...string) *Daemon {
	t.Helper()
	return StartIn(t, filepath.Join(t.TempDir(), "data"), env, args...)
}

// StartIn is StartEnv with a data directory of the caller's.
func StartIn(t testing.TB, data string, env []string, args ...string) *Daemon {
	t.Helper()
	// Functions of the process driver have users of their own, who must get in.
	for _, dir := range []string{filepath.Dir(data), filepath.Dir(filepath.Dir(data))} {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	d := &Daemon{t: t, Data: data, args: args, env: env, Log: &Buffer{}}
	d.Start()
	t.Cleanup(d.Stop)
	return d
}

var readyLine = regexp.MustCompile(`(?m)^Kiln is ready at (https?://\S+)`)

// Start starts the daemon, again after Kill or Stop.
func (d *Daemon) Start() {
	d.t.Helper()
	args := append([]string{"up", "--listen", "127.0.0.1:0", "--data", d.Data, "--free-space-floor", "1MiB"}, d.args...)
	d.cmd = exec.Command(Binary(d.t), args...)
	d.cmd.Stderr = d.Log
	d.cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=")
	d.cmd.Env = append(d.cmd.Env, d.env...)
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := Spawn(d.cmd); err != nil {
		d.t.Fatal(err)
	}
	d.ended.Store(false)
	ready := make(chan string, 1)
	d.done = make(chan struct{})
	go func() {
		defer close(d.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(d.Log, lines.Text())
			if m := readyLine.FindStringSubmatch(lines.Text()); m != nil {
				ready <- m[1]
			}
		}
		_ = d.cmd.Wait()
		d.code = d.cmd.ProcessState.ExitCode()
	}()
	select {
	case d.URL = <-ready:
	case <-d.done:
		d.t.Fatalf("kiln ended with exit code %d before it was ready:\n%s", d.code, d.Log)
	case <-time.After(startTimeout):
		d.Kill()
		d.t.Fatalf("kiln was not ready after %v:\n%s", startTimeout, d.Log)
	}
}

// spawns are the commands for the thread that starts them.
var spawns = sync.OnceValue(func() chan func() {
	jobs := make(chan func())
	go func() { // ends with the process
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

// Spawn starts a command that is killed when this process ends. The kernel does that at
// the end of the thread which started it, and Go ends threads: this one stays.
func Spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	spawns() <- func() { started <- cmd.Start() }
	return <-started
}

// Kill kills the daemon, as kill -9 does, and waits for it.
func (d *Daemon) Kill() {
	d.ended.Store(true)
	_ = d.cmd.Process.Kill()
	<-d.done
}

// Stop ends the daemon as an operator does, and fails the test unless it exits with 0.
func (d *Daemon) Stop() {
	d.t.Helper()
	d.CloseIdleConnections()
	if d.ended.Swap(true) {
		<-d.done
		return // Kill, or an earlier Stop
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(stopTimeout):
		d.Kill()
		d.t.Errorf("kiln did not end within %v of SIGTERM:\n%s", stopTimeout, d.Log)
		return
	}
	if d.code != 0 {
		d.t.Errorf("kiln ended with exit code %d:\n%s", d.code, d.Log)
	}
	if d.t.Failed() {
		d.t.Logf("log of kiln:\n%s", d.Log)
	}
}

// Pid is the daemon's process id.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Client is the Go SDK's client, with retries off.
func (d *Daemon) Client() *lambda.Client {
	return lambda.New(lambda.Options{
		Region:           "us-east-1",
		BaseEndpoint:     aws.String(d.URL),
		Credentials:      credentials.NewStaticCredentialsProvider("test", "test", ""),
		RetryMaxAttempts: 1,
		HTTPClient:       &http.Client{Transport: whole{&d.transport}},
	})
}

// whole sends a request's body at once. The SDK closes the body as soon as the
// answer begins, which on one machine can be while net/http still looks for the
// body's end; that looks like an error, and cuts the answer off.
type whole struct{ transport http.RoundTripper }

func (w whole) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return w.transport.RoundTrip(r)
}

// CloseIdleConnections drops those that clients keep for later.
func (d *Daemon) CloseIdleConnections() {
	d.transport.CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
}

// Environ is the environment of a client program that is to call this daemon.
func (d *Daemon) Environ() []string {
	return append(os.Environ(),
		"AWS_ENDPOINT_URL="+d.URL, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_SESSION_TOKEN=",
		"AWS_DEFAULT_REGION=us-east-1", "AWS_REGION=us-east-1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
		"AWS_MAX_ATTEMPTS=1", "AWS_PAGER=")
}

// Metrics returns the text of /metrics.
func (d *Daemon) Metrics() string {
	d.t.Helper()
	r, err := http.Get(d.URL + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

// Create makes a function and waits until it is active. change, if not nil,
// edits the request.
func (d *Daemon) Create(name, runtimeID, handler string, code []byte, change func(*lambda.CreateFunctionInput)) {
	d.t.Helper()
	if err := d.TryCreate(name, runtimeID, handler, code, change); err != nil {
		d.t.Fatalf("create %s: %v", name, err)
	}
}

// Zip makes a package from files by name. Names that end in ! are executable.
func Zip(files map[string]string) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, text := range files {
		mode := os.FileMode(0o644)
		if n, ok := strings.CutSuffix(name, "!"); ok {
			name, mode = n, 0o755
		}
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(f, text)
		}
		if err != nil {
			panic(err) // writing to memory does not fail
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Buffer is a bytes.Buffer that several goroutines may use.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TryCreate is Create for a function that may be refused.
func (d *Daemon) TryCreate(name, runtimeID, handler string, code []byte, change func(*lambda.CreateFunctionInput)) error {
	in := createInput(name, runtimeID, handler, code)
	if change != nil {
		change(in)
	}
	client := d.Client()
	if _, err := client.CreateFunction(context.Background(), in); err != nil {
		return err
	}
	return lambda.NewFunctionActiveV2Waiter(client, func(o *lambda.FunctionActiveV2WaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 100*time.Millisecond
	}).Wait(context.Background(), &lambda.GetFunctionInput{FunctionName: &name}, startTimeout)
}

func createInput(name, runtimeID, handler string, code []byte) *lambda.CreateFunctionInput {
	return &lambda.CreateFunctionInput{
		FunctionName: &name,
		Runtime:      types.Runtime(runtimeID),
		Handler:      &handler,
		Role:         aws.String(Role),
		Code:         &types.FunctionCode{ZipFile: code},
	}
}

// Terminate asks the daemon to end and does not wait.
func (d *Daemon) Terminate() { _ = d.cmd.Process.Signal(syscall.SIGTERM) }

// Wait waits for the daemon's end and returns its exit code.
func (d *Daemon) Wait() int {
	d.t.Helper()
	select {
	case <-d.done:
		d.ended.Store(true)
		return d.code
	case <-time.After(stopTimeout):
		d.Kill()
		d.t.Fatalf("kiln did not end within %v:\n%s", stopTimeout, d.Log)
		return -1
	}
}

// Run runs the program to its end, with AWS_ENDPOINT_URL unset, and returns its
// exit code and everything that it printed.
func Run(t testing.TB, args ...string) (code int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t), args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
