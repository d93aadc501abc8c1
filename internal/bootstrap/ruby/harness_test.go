package ruby_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/ruby"
	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
)

// patience bounds every wait of these tests; none of them comes near it.
const patience = 30 * time.Second

// catalog is shared: looking for interpreters takes a second, and its result is immutable.
var catalog = sync.OnceValue(func() *bootstrap.Catalog {
	dir, err := os.MkdirTemp("", "kiln-ruby-test-")
	if err != nil {
		panic(err)
	}
	clients = dir
	return bootstrap.New([]bootstrap.Family{ruby.New()}, bootstrap.Config{Dir: dir, Getenv: os.Getenv, AnyRuntime: true})
})

var clients string

func TestMain(m *testing.M) {
	code := m.Run()
	if clients != "" {
		_ = os.RemoveAll(clients)
	}
	os.Exit(code)
}

// newest is the newest Ruby here, for whichever identifier it serves.
func newest(t testing.TB) *bootstrap.Runtime {
	t.Helper()
	return resolve(t, ruby.New().Identifiers()[0].ID)
}

func resolve(t testing.TB, id lambda.RuntimeID) *bootstrap.Runtime {
	t.Helper()
	rt, err := catalog().Resolve(t.Context(), id)
	if err != nil {
		t.Skip(err)
	}
	return rt
}

// function is what a test runs.
type function struct {
	files   map[string]string // app.rb is the handler's file
	handler string            // app.handler unless given
	env     map[string]string
	layer   map[string]string // files below /opt
	plain   bool              // without a descriptor for log frames
}

func code(app string) function { return function{files: map[string]string{"app.rb": app}} }

// frame is one log record as it was framed.
type frame struct {
	kind uint32
	text string
}

// running is a started runtime with its Runtime API.
type running struct {
	t      testing.TB
	server *runtimeapi.Server
	cmd    *exec.Cmd
	task   string
	exited chan struct{}
	err    error // of the process; valid after exited

	output bytes.Buffer // stdout and stderr; valid after exited
	frames bytes.Buffer // valid after exited
}

// boundless has room for every answer.
func boundless(context.Context, int64) (func(), error) { return func() {}, nil }

func start(t testing.TB, rt *bootstrap.Runtime, f function) *running {
	t.Helper()
	dir := t.TempDir()
	l := bootstrap.Layout{
		Task: filepath.Join(dir, "task"), Opt: filepath.Join(dir, "opt"), Tmp: dir,
		Runtime: rt.Client, Lang: rt.Installation.Prefix,
	}
	write(t, l.Task, f.files)
	write(t, l.Opt, f.layer)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, server: runtimeapi.New(runtimeapi.Config{Room: boundless, Log: slog.New(slog.DiscardHandler)}), task: l.Task, exited: make(chan struct{})}
	var background sync.WaitGroup
	background.Go(func() { _ = r.server.Serve(listener) })

	launch := rt.Launch(l)
	handler := f.handler
	if handler == "" {
		handler = "app.handler"
	}
	r.cmd = &exec.Cmd{Path: launch.Path, Args: launch.Args, Dir: launch.Dir, Env: environ(launch, map[string]string{
		"AWS_LAMBDA_RUNTIME_API": listener.Addr().String(), "_HANDLER": handler,
		"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
		"AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f", "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
	}, f.env)}
	r.cmd.Stdout, r.cmd.Stderr = &r.output, &r.output
	if !f.plain {
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.cmd.ExtraFiles = []*os.File{in}
		r.cmd.Env = append(r.cmd.Env, "_LAMBDA_TELEMETRY_LOG_FD=3")
		background.Go(func() { _, _ = io.Copy(&r.frames, out); _ = out.Close() })
		defer in.Close()
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan struct{})
	go func() { defer close(waited); r.err = r.cmd.Wait() }()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.exited
	})
	go func() {
		<-waited
		_ = r.server.Close()
		background.Wait()
		close(r.exited)
	}()
	return r
}

func environ(l bootstrap.Launch, layers ...map[string]string) (list []string) {
	all := map[string]string{}
	for _, vars := range append([]map[string]string{l.Defaults}, append(layers, l.Reserved)...) {
		for k, v := range vars {
			all[k] = v
		}
	}
	for k, v := range all {
		list = append(list, k+"="+v)
	}
	return list
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const requestID = "00000000-0000-4000-8000-000000000001"

func event(payload string) *lambda.Invocation {
	return &lambda.Invocation{
		ID:          requestID,
		ARN:         lambda.FunctionARN{Scope: lambda.Scope{Account: lambda.DefaultAccount, Region: lambda.DefaultRegion}, Name: "f"},
		Payload:     []byte(payload),
		TraceHeader: "Root=1-2-3;Parent=4;Sampled=1",
		Deadline:    time.Now().Add(time.Minute),
	}
}

var errExited = errors.New("the runtime's process ended")

// try gives the runtime an event and waits for its answer and for its readiness
// for the next.
func (r *running) try(inv *lambda.Invocation) (runtimeapi.Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	x := r.server.Offer(inv)
	select {
	case a := <-x.Answer():
		select {
		case <-x.Idle():
		case <-r.exited:
		case <-ctx.Done():
			return a, errors.New("answered, and never asked for the next event")
		}
		return a, nil
	case <-r.exited:
		return runtimeapi.Answer{}, errExited
	case <-ctx.Done():
		return runtimeapi.Answer{}, ctx.Err()
	}
}

func (r *running) invoke(payload string) runtimeapi.Answer {
	r.t.Helper()
	a, err := r.try(event(payload))
	if err != nil {
		<-r.stop()
		r.t.Fatalf("%v; output:\n%s", err, r.output.String())
	}
	return a
}

// answer is the payload with the task's folder written as on AWS.
func (r *running) answer(payload string) string {
	r.t.Helper()
	return r.aws(string(r.invoke(payload).Payload))
}

func (r *running) aws(s string) string { return strings.ReplaceAll(s, r.task, "/var/task") }

func (r *running) stop() <-chan struct{} {
	_ = r.cmd.Process.Kill()
	return r.exited
}

// logged stops the runtime and returns what it printed and its frames.
func (r *running) logged() (output string, frames []frame) {
	r.t.Helper()
	<-r.stop()
	rest := r.frames.Bytes()
	for len(rest) > 0 {
		if len(rest) < 16 {
			r.t.Fatalf("half a frame: %q", rest)
		}
		size := int(binary.BigEndian.Uint32(rest[4:]))
		at := time.UnixMicro(int64(binary.BigEndian.Uint64(rest[8:])))
		if d := time.Since(at); d < 0 || d > time.Hour {
			r.t.Errorf("a frame of %s", at)
		}
		frames = append(frames, frame{binary.BigEndian.Uint32(rest), r.aws(string(rest[16 : 16+size]))})
		rest = rest[16+size:]
	}
	return r.aws(r.output.String()), frames
}

// initError waits for the document of a failed init, and for the exit status.
func (r *running) initError() runtimeapi.Report {
	r.t.Helper()
	select {
	case report := <-r.server.InitFailed():
		<-r.exited
		if code := r.cmd.ProcessState.ExitCode(); code != 252 {
			r.t.Errorf("exit status %d, want 252", code)
		}
		report.Payload = []byte(r.aws(string(report.Payload)))
		return report
	case <-r.server.Ready():
		r.t.Fatal("the handler was loaded")
	case <-r.exited:
		r.t.Fatalf("ended without a report; output:\n%s", r.output.String())
	case <-time.After(patience):
		r.t.Fatal("no report")
	}
	panic("unreachable")
}
