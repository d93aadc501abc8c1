// Package clienttest runs a runtime client of package bootstrap against a real Runtime
// API, without a sandbox. The tests of the clients for Python and Ruby use it.
package clienttest

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
	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
)

// Patience bounds every wait; none of them comes near it.
const Patience = 30 * time.Second

// Function is what a test runs.
type Function struct {
	Files   map[string]string // by path below /var/task
	Handler string            // app.handler unless given
	Env     map[string]string
	Layer   map[string]string // files below /opt
	Plain   bool              // without a descriptor for log frames
}

// Frame is one log record as it was framed.
type Frame struct {
	Kind uint32
	Text string
}

// Running is a started runtime with its Runtime API.
type Running struct {
	Server *runtimeapi.Server
	Cmd    *exec.Cmd
	Task   string
	Exited chan struct{}
	Err    error        // of the process; valid after Exited
	Output bytes.Buffer // stdout and stderr; valid after Exited

	t      testing.TB
	frames bytes.Buffer // valid after Exited
}

// boundless has room for every answer.
func boundless(context.Context, int64) (func(), error) { return func() {}, nil }

// Start starts the runtime; the test's end ends it.
func Start(t testing.TB, rt *bootstrap.Runtime, f Function) *Running {
	t.Helper()
	dir := t.TempDir()
	l := bootstrap.Layout{
		Task: filepath.Join(dir, "task"), Opt: filepath.Join(dir, "opt"), Tmp: dir,
		Runtime: rt.Client, Lang: rt.Installation.Prefix,
	}
	Write(t, l.Task, f.Files)
	Write(t, l.Opt, f.Layer)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Running{t: t, Server: runtimeapi.New(runtimeapi.Config{Room: boundless, Log: slog.New(slog.DiscardHandler)}), Task: l.Task, Exited: make(chan struct{})}
	var background sync.WaitGroup
	background.Go(func() { _ = r.Server.Serve(listener) })

	launch := rt.Launch(l)
	handler := f.Handler
	if handler == "" {
		handler = "app.handler"
	}
	r.Cmd = &exec.Cmd{Path: launch.Path, Args: launch.Args, Dir: launch.Dir, Env: environ(launch, map[string]string{
		"AWS_LAMBDA_RUNTIME_API": listener.Addr().String(), "_HANDLER": handler,
		"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
		"AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f", "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
	}, f.Env)}
	r.Cmd.Stdout, r.Cmd.Stderr = &r.Output, &r.Output
	if !f.Plain {
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Cmd.ExtraFiles = []*os.File{in}
		r.Cmd.Env = append(r.Cmd.Env, "_LAMBDA_TELEMETRY_LOG_FD=3")
		background.Go(func() { _, _ = io.Copy(&r.frames, out); _ = out.Close() })
		defer in.Close()
	}
	if err := r.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan struct{})
	go func() { defer close(waited); r.Err = r.Cmd.Wait() }()
	t.Cleanup(func() {
		_ = r.Cmd.Process.Kill()
		<-r.Exited
	})
	go func() {
		<-waited
		_ = r.Server.Close()
		background.Wait()
		close(r.Exited)
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

// Write writes files below dir.
func Write(t testing.TB, dir string, files map[string]string) {
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

// RequestID is that of every Event.
const RequestID = "00000000-0000-4000-8000-000000000001"

// Event is an invocation with that payload.
func Event(payload string) *lambda.Invocation {
	return &lambda.Invocation{
		ID:          RequestID,
		ARN:         lambda.FunctionARN{Scope: lambda.Scope{Account: lambda.DefaultAccount, Region: lambda.DefaultRegion}, Name: "f"},
		Payload:     []byte(payload),
		TraceHeader: "Root=1-2-3;Parent=4;Sampled=1",
		Deadline:    time.Now().Add(time.Minute),
	}
}

// ErrExited is what Try returns when the runtime ended without an answer.
var ErrExited = errors.New("the runtime's process ended")

// Try gives the runtime an event and waits for its answer and for its readiness
// for the next.
func (r *Running) Try(inv *lambda.Invocation) (runtimeapi.Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	x := r.Server.Offer(inv)
	select {
	case a := <-x.Answer():
		select {
		case <-x.Idle():
		case <-r.Exited:
		case <-ctx.Done():
			return a, errors.New("answered, and never asked for the next event")
		}
		return a, nil
	case <-r.Exited:
		return runtimeapi.Answer{}, ErrExited
	case <-ctx.Done():
		return runtimeapi.Answer{}, ctx.Err()
	}
}

// Invoke is Try of an event that must be answered.
func (r *Running) Invoke(payload string) runtimeapi.Answer {
	r.t.Helper()
	a, err := r.Try(Event(payload))
	if err != nil {
		<-r.Stop()
		r.t.Fatalf("%v; output:\n%s", err, r.Output.String())
	}
	return a
}

// Answer is the payload with the task's folder written as on AWS.
func (r *Running) Answer(payload string) string {
	r.t.Helper()
	return r.AWS(string(r.Invoke(payload).Payload))
}

// AWS is a text with the task's folder written as on AWS.
func (r *Running) AWS(s string) string { return strings.ReplaceAll(s, r.Task, "/var/task") }

// Stop kills the runtime, and returns what is closed at its end.
func (r *Running) Stop() <-chan struct{} {
	_ = r.Cmd.Process.Kill()
	return r.Exited
}

// Logged stops the runtime and returns what it printed and its frames.
func (r *Running) Logged() (output string, frames []Frame) {
	r.t.Helper()
	<-r.Stop()
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
		frames = append(frames, Frame{binary.BigEndian.Uint32(rest), r.AWS(string(rest[16 : 16+size]))})
		rest = rest[16+size:]
	}
	return r.AWS(r.Output.String()), frames
}

// InitError waits for the document of a failed init, and for that exit status.
func (r *Running) InitError(status int) runtimeapi.Report {
	r.t.Helper()
	select {
	case report := <-r.Server.InitFailed():
		<-r.Exited
		if code := r.Cmd.ProcessState.ExitCode(); code != status {
			r.t.Errorf("exit status %d, want %d", code, status)
		}
		report.Payload = []byte(r.AWS(string(report.Payload)))
		return report
	case <-r.Server.Ready():
		r.t.Fatal("the handler was loaded")
	case <-r.Exited:
		r.t.Fatalf("ended without a report; output:\n%s", r.Output.String())
	case <-time.After(Patience):
		r.t.Fatal("no report")
	}
	panic("unreachable")
}
