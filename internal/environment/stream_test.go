package environment_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kiln/internal/environment"
	"kiln/internal/environment/environmenttest"
	"kiln/internal/lambda"
	"kiln/internal/telemetry/metrics"
)

// streams is a bootstrap whose events are what it does with its streamed answer.
// Before it exits it waits until somebody writes to the named pipe $GATE.
var streams = environmenttest.Bootstrap("", `
case $event in
\"whole\") begin; chunk one; chunk two; finish; continue ;;
\"logs\") echo before; begin; chunk one; echo after; finish; continue ;;
\"fails\") begin; chunk one; finish $'Lambda-Runtime-Function-Error-Type: Function.Own\r\nLambda-Runtime-Function-Error-Body: eyJhIjoxfQ==\r\n'; continue ;;
\"exits\") begin; chunk one; read -r _ <"$GATE"; chunk two; exit 3 ;;
\"completes\") begin; chunk one; read -r _ <"$GATE"; printf '0\r\n\r\n' >&9; exit 3 ;;
\"child\") begin; chunk one; read -r _ <"$GATE"; sleep 1000 & chunk two; exit 3 ;;
\"sleeps\") begin; chunk one; sleep 1000 ;;
\"floods\") begin; printf -v much '%65536s' x; while chunk "$much"; do :; done ;;
\"much\") begin; printf -v much '%65536s' x; for i in {1..20}; do chunk "$much"; done; finish; continue ;;
*) answer=$event ;;
esac
`)

// streamed is what a caller got.
type streamed struct {
	body string
	end  lambda.StreamEnd
	environment.Outcome
}

// stream carries one event whose caller takes the answer as it comes.
func (r *rig) stream(ctx context.Context, inv *lambda.Invocation, read func(*lambda.Stream) string) streamed {
	r.t.Helper()
	inv.Stream = true
	var answered atomic.Int32
	got := make(chan streamed, 1)
	outcome := r.Invoke(ctx, inv, func(result lambda.Result) {
		if result.Stream == nil || result.ContentType != "text/x" || result.ExecutedVersion != lambda.Latest {
			r.t.Errorf("result %+v", result)
			got <- streamed{}
			return
		}
		go func() { // the channel is read below
			defer result.Free()
			body := read(result.Stream)
			if n := answered.Load(); n != 1 && body != "left" {
				r.t.Errorf("the end of the answer is known, and it is complete %d times", n)
			}
			got <- streamed{body: body, end: result.Stream.End()}
		}()
	}, func() { answered.Add(1) })
	s := <-got
	if s.Outcome = outcome; answered.Load() != 1 {
		r.t.Errorf("complete %d times", answered.Load())
	}
	return s
}

func readAll(s *lambda.Stream) string {
	b, err := io.ReadAll(s)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestStreams(t *testing.T) {
	t.Parallel()
	left := func(_ *rig, s *lambda.Stream) string {
		_, _ = io.ReadFull(s, make([]byte, 3))
		s.Close()
		return "left"
	}
	all := func(_ *rig, s *lambda.Stream) string { return readAll(s) }
	begun := func(r *rig, s *lambda.Stream) string {
		b := make([]byte, 3)
		if _, err := io.ReadFull(s, b); err != nil {
			return err.Error()
		}
		if err := os.WriteFile(r.fn.Settings.Environment["GATE"], []byte("\n"), 0); err != nil {
			return err.Error()
		}
		return string(b) + readAll(s)
	}
	const exit = "RequestId: ID Error: Runtime exited with error: exit status 3\nRuntime.ExitError"
	for what, c := range map[string]struct {
		event         string
		read          func(*rig, *lambda.Stream) string // nil for all
		body          string
		code, details string // ID stands for the request's
		kind          metrics.ErrorKind
		log           []string
	}{
		"whole":             {event: "whole", body: "onetwo", log: []string{begin, end, report}},
		"failed":            {event: "fails", body: "one", code: "Function.Own", details: `{"a":1}`, kind: metrics.Handler, log: []string{begin, end, report}},
		"exit":              {event: "exits", read: begun, body: "onetwo", code: "Runtime.TruncatedResponse", kind: metrics.Exit, log: []string{begin, exit, end, report + "Status: error\tError Type: Runtime.ExitError"}},
		"exit at the end":   {event: "completes", read: begun, body: "one", log: []string{begin, exit, end, report + "Status: error\tError Type: Runtime.ExitError"}},
		"exit with a child": {event: "child", read: begun, body: "onetwo", code: "Runtime.TruncatedResponse", kind: metrics.Exit, log: []string{begin, exit, end, report + "Status: error\tError Type: Runtime.ExitError"}},
		"timeout": {event: "sleeps", body: "one", code: "Sandbox.Timedout", details: `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: ID Error: Task timed out after 1.00 seconds"}`, kind: metrics.Timeout,
			log: []string{begin, "TIME ID Task timed out after 1.00 seconds", end, report + "Status: timeout"}},
		"timeout while the caller is slow": {event: "floods", read: func(_ *rig, s *lambda.Stream) string {
			for { // it gets what was written before, and then the end
				if _, err := io.CopyN(io.Discard, s, 1<<10); err != nil {
					return ""
				}
				time.Sleep(time.Millisecond) // a megabyte in a second
			}
		}, code: "Sandbox.Timedout", details: `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: ID Error: Task timed out after 1.00 seconds"}`, kind: metrics.Timeout,
			log: []string{begin, "TIME ID Task timed out after 1.00 seconds", end, report + "Status: timeout"}},
		"the caller leaves": {event: "much", read: left, body: "left", log: []string{begin, end, report}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			gate := filepath.Join(t.TempDir(), "gate")
			if err := syscall.Mkfifo(gate, 0o600); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, streams, func(f *lambda.Function) {
				f.Settings.Environment = map[string]string{"GATE": gate}
				if c.kind == metrics.Timeout {
					f.Settings.Timeout = time.Second
				}
			})
			if err := r.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			if c.read == nil {
				c.read = all
			}
			inv := environmenttest.Invocation(r.fn, `"`+c.event+`"`)
			got := r.stream(t.Context(), inv, func(s *lambda.Stream) string { return c.read(r, s) })
			if got.body != c.body || got.Error != c.kind {
				t.Errorf("%q and kind %q, want %q and %q", got.body, got.Error, c.body, c.kind)
			}
			if details := strings.ReplaceAll(c.details, "ID", string(inv.ID)); got.end.ErrorCode != c.code || string(got.end.ErrorDetails) != details || got.end.LogTail != nil {
				t.Errorf("end %s %s, want %s %s", got.end.ErrorCode, got.end.ErrorDetails, c.code, details)
			}
			last := len(c.log) - 1
			if rest, ok := strings.CutPrefix(c.log[last], report); ok {
				c.log[last] = report + "Init Duration: MS\t" + rest
			}
			r.logged(inv.ID, c.log...)
			// The next invocation has a runtime again, if need be a new one.
			if result, _ := r.invoke(environmenttest.Invocation(r.fn, "7")); string(result.Payload) != "7" {
				t.Errorf("the next invocation gets %+v", result)
			}
		})
	}
}

// The end of the log is a part of the answer's end, when it is asked for, also
// where the runtime's answer comes in one piece.
func TestStreamTail(t *testing.T) {
	t.Parallel()
	r := newRig(t, streams, func(f *lambda.Function) {
		f.Settings.Logging.Format, f.Settings.Logging.SystemLevel = "JSON", "DEBUG"
	})
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	inv := environmenttest.Invocation(r.fn, `"logs"`)
	inv.Tail = true
	got := r.stream(t.Context(), inv, readAll)
	if tail := string(got.end.LogTail); got.body != "one" || !strings.HasPrefix(tail, `{"time":`) || !strings.Contains(tail, "\nbefore\nafter\n") ||
		!strings.Contains(tail, `"producedBytes":3}`) || !strings.Contains(tail, `"type":"platform.report"`) {
		t.Errorf("%q with the tail %s", got.body, tail)
	}
	inv = environmenttest.Invocation(r.fn, "12345")
	inv.Tail, inv.Stream = true, true
	result, _ := r.invoke(inv)
	if tail := string(result.LogTail); string(result.Payload) != "12345" || result.Stream != nil || !strings.Contains(tail, `"producedBytes":5}`) {
		t.Errorf("%+v with the tail %s", result, tail)
	}
}

// Kiln's own end cuts a stream off, and says so.
func TestStreamIsCutOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, streams, nil)
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := r.stream(ctx, environmenttest.Invocation(r.fn, `"sleeps"`), func(s *lambda.Stream) string {
		defer cancel()
		b := make([]byte, 3)
		if _, err := io.ReadFull(s, b); err != nil {
			return err.Error()
		}
		cancel()
		return string(b) + readAll(s)
	})
	if got.body != "one" || got.end.ErrorCode != "Sandbox.Failure" || got.Error != metrics.Platform {
		t.Errorf("%+v", got)
	}
}
