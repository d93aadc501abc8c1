package environment_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kiln/internal/environment"
	"kiln/internal/environment/environmenttest"
	"kiln/internal/lambda"
	"kiln/internal/telemetry/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is one environment.
type rig struct {
	*environment.Environment
	*environmenttest.Fixture
	t  *testing.T
	fn *lambda.Function
}

func newRig(t *testing.T, bootstrap string, change func(*lambda.Function)) *rig {
	t.Helper()
	f := environmenttest.New(t)
	fn := f.Function("f", bootstrap)
	if change != nil {
		change(fn)
	}
	return rigOf(t, f, fn)
}

func rigOf(t *testing.T, f *environmenttest.Fixture, fn *lambda.Function) *rig {
	t.Helper()
	e, err := f.New(t.Context(), fn)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{e, f, t, fn}
	t.Cleanup(func() {
		if err := errors.Join(e.Close(context.Background()), e.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	return r
}

// invoke carries one event; an answer comes exactly once.
func (r *rig) invoke(inv *lambda.Invocation) (lambda.Result, environment.Outcome) {
	r.t.Helper()
	var answers []lambda.Result
	answered := 0
	outcome := r.Invoke(r.t.Context(), inv, func(a lambda.Result) { answers = append(answers, a) }, func() { answered++ })
	if len(answers) != 1 || answered != 1 {
		r.t.Fatalf("%d answers, complete %d times", len(answers), answered)
	}
	return answers[0], outcome
}

// logged compares the log with patterns; ID is the last invocation's.
func (r *rig) logged(id lambda.RequestID, patterns ...string) {
	r.t.Helper()
	got := r.Log()
	if len(got) != len(patterns) {
		r.t.Fatalf("%d lines, want %d:\n%s", len(got), len(patterns), strings.Join(got, "\n"))
	}
	for i, p := range patterns {
		p = strings.NewReplacer("ID", string(id), "MS", `\d+\.\d\d ms`, "BILLED", `\d+ ms`, "USED", `\d+ MB`, "TIME", `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`).Replace(p)
		if !regexp.MustCompile("^(?s:" + p + ")$").MatchString(got[i]) {
			r.t.Errorf("line %d is %q, want %q", i, got[i], p)
		}
	}
}

const (
	begin  = `START RequestId: ID Version: \$LATEST`
	end    = `END RequestId: ID`
	report = "REPORT RequestId: ID\tDuration: MS\tBilled Duration: BILLED\tMemory Size: 128 MB\tMax Memory Used: USED\t"
)

func TestSuccess(t *testing.T) {
	t.Parallel()
	r := newRig(t, environmenttest.Bootstrap(`echo starting`, `echo "out $event"; echo "err" >&2; printf half; answer=$event`), nil)
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	inv := environmenttest.Invocation(r.fn, `{"a":1}`)
	inv.Tail = true
	result, outcome := r.invoke(inv)
	if string(result.Payload) != `{"a":1}` || result.FunctionError != "" || result.ExecutedVersion != lambda.Latest {
		t.Errorf("%+v", result)
	}
	if outcome.Init <= 0 || outcome.Duration <= 0 || outcome.Error != metrics.NoError || outcome.MaxMemory <= 0 {
		t.Errorf("%+v", outcome)
	}
	got := r.Log()
	slices.Sort(got[2:5]) // two pipes have no order between them
	for i, want := range []string{"starting", "START RequestId: " + string(inv.ID) + " Version: $LATEST", "err", "half", `out {"a":1}`, "END RequestId: " + string(inv.ID)} {
		if got[i] != want {
			t.Errorf("line %d is %q, want %q", i, got[i], want)
		}
	}
	if tail := string(result.LogTail); !strings.HasPrefix(tail, "START RequestId: ") || !strings.Contains(tail, "half\n") || !strings.HasSuffix(tail, "\t\n") || strings.Contains(tail, "starting") {
		t.Errorf("the tail is %q", tail)
	}
	if !strings.Contains(got[6], "\tInit Duration: ") {
		t.Errorf("the first report is %q", got[6])
	}
	if _, outcome = r.invoke(environmenttest.Invocation(r.fn, "2")); outcome.Init != 0 {
		t.Errorf("the second invocation: %+v", outcome)
	}
	if lines := r.Log(); strings.Contains(lines[len(lines)-1], "Init Duration") {
		t.Errorf("the second report is %q", lines[len(lines)-1])
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	const marker = "\t"
	for what, c := range map[string]struct {
		before, answer string
		change         func(*lambda.Function)
		errorType      string // in the answer
		message        string
		kind           metrics.ErrorKind
		log            []string
	}{
		"handler error": {
			answer: `post "invocation/$id/error" '{"errorType":"T","errorMessage":"m"}'; continue`, errorType: "T", message: "m", kind: metrics.Handler,
			log: []string{begin, end, report},
		},
		"exit": {
			answer: "exit 3", errorType: "Runtime.ExitError", message: "RequestId: ID Error: Runtime exited with error: exit status 3", kind: metrics.Exit,
			log: []string{begin, "RequestId: ID Error: Runtime exited with error: exit status 3\nRuntime.ExitError", end, report + "Status: error\tError Type: Runtime.ExitError"},
		},
		"exit 0": {
			answer: "exit 0", errorType: "Runtime.ExitError", message: "RequestId: ID Error: Runtime exited without providing a reason", kind: metrics.Exit,
			log: []string{begin, "RequestId: ID Error: Runtime exited without providing a reason\nRuntime.ExitError", end, report + "Status: error\tError Type: Runtime.ExitError"},
		},
		"signal": {
			answer: "kill -9 $$", errorType: "Runtime.ExitError", message: "RequestId: ID Error: Runtime exited with error: signal: killed", kind: metrics.Exit,
			log: []string{begin, "RequestId: ID Error: Runtime exited with error: signal: killed\nRuntime.ExitError", end, report + "Status: error\tError Type: Runtime.ExitError"},
		},
		"timeout": {
			answer: "sleep 1000", change: func(f *lambda.Function) { f.Settings.Timeout = time.Second },
			errorType: "Sandbox.Timedout", message: "RequestId: ID Error: Task timed out after 1.00 seconds", kind: metrics.Timeout,
			log: []string{begin, "TIME ID Task timed out after 1.00 seconds", end, report + "Status: timeout"},
		},
		"timeout within the answer": {
			answer: "begin; chunk one; sleep 1000", change: func(f *lambda.Function) { f.Settings.Timeout = time.Second },
			errorType: "Sandbox.Timedout", message: "RequestId: ID Error: Task timed out after 1.00 seconds", kind: metrics.Timeout,
			log: []string{begin, "TIME ID Task timed out after 1.00 seconds", end, report + "Status: timeout"},
		},
		"answered, then exit": {
			answer: `answer=1; post "invocation/$id/response" "$answer"; exit 1`, kind: metrics.NoError,
			log: []string{begin, "RequestId: ID Error: Runtime exited with error: exit status 1\nRuntime.ExitError", end, report + "Status: error\tError Type: Runtime.ExitError"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, environmenttest.Bootstrap(c.before, `if [ "$event" = 7 ]; then answer=7; else `+c.answer+"; fi"), c.change)
			if err := r.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			inv := environmenttest.Invocation(r.fn, "1")
			result, outcome := r.invoke(inv)
			message := strings.ReplaceAll(c.message, "ID", string(inv.ID))
			if c.errorType == "" {
				if result.FunctionError != "" {
					t.Errorf("%+v", result)
				}
			} else if result.FunctionError != "Unhandled" || !strings.Contains(string(result.Payload), fmt.Sprintf("%q", c.errorType)) || !strings.Contains(string(result.Payload), fmt.Sprintf("%q", message)) {
				t.Errorf("%s %s, want %s: %s", result.FunctionError, result.Payload, c.errorType, message)
			}
			if outcome.Error != c.kind {
				t.Errorf("kind %q, want %q", outcome.Error, c.kind)
			}
			want := slices.Clone(c.log)
			last := len(want) - 1
			if rest, ok := strings.CutPrefix(want[last], report); ok {
				want[last] = report + "Init Duration: MS" + marker + rest
			}
			r.logged(inv.ID, want...)
			// The next invocation has a runtime again, if need be a new one.
			if result, _ := r.invoke(environmenttest.Invocation(r.fn, "7")); string(result.Payload) != "7" {
				t.Errorf("the next invocation gets %+v", result)
			}
		})
	}
}

func TestInitFails(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		bootstrap, status, errorType, answer string
	}{
		"exit":         {environmenttest.Bootstrap("exit 4", ""), "error\tError Type: Runtime.ExitError", "Runtime.ExitError", "exit status 4"},
		"init error":   {environmenttest.Bootstrap(`post init/error '{"errorType":"Mine","errorMessage":"no"}'; exit 1`, ""), "error\tError Type: Runtime.Unknown", "Mine", "no"},
		"no bootstrap": {"", "error\tError Type: Runtime.InvalidEntrypoint", "Runtime.InvalidEntrypoint", "bootstrap"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.bootstrap, nil)
			if err := r.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 2 { // it is tried again within each invocation
				result, outcome := r.invoke(environmenttest.Invocation(r.fn, "1"))
				if result.FunctionError != "Unhandled" || !strings.Contains(string(result.Payload), fmt.Sprintf("%q", c.errorType)) || !strings.Contains(string(result.Payload), c.answer) || outcome.Error != metrics.Init || outcome.Init != 0 {
					t.Errorf("%+v, %s, %+v", result, result.Payload, outcome)
				}
			}
			var phases []string
			for _, line := range r.Log() {
				if _, rest, ok := strings.Cut(line, "\tPhase: "); ok && strings.HasPrefix(line, "INIT_REPORT Init Duration: ") {
					phases = append(phases, rest)
				}
			}
			if want := []string{"init\tStatus: " + c.status, "invoke\tStatus: " + c.status, "invoke\tStatus: " + c.status}; !slices.Equal(phases, want) {
				t.Errorf("INIT_REPORT lines end %q, want %q", phases, want)
			}
		})
	}
}

// A runtime that dies while nobody calls is replaced by the next invocation.
func TestDiesWhileIdle(t *testing.T) {
	t.Parallel()
	r := newRig(t, environmenttest.Bootstrap("", `answer=$BASHPID; { sleep 0.05; kill -9 $$; } >/dev/null 2>&1 & `), nil)
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 3 {
		result, _ := r.invoke(environmenttest.Invocation(r.fn, "1"))
		if result.FunctionError == "" {
			seen[string(result.Payload)] = true
		} else if !strings.Contains(string(result.Payload), "signal: killed") { // it died with the event in its hands
			t.Errorf("%s", result.Payload)
		}
		time.Sleep(100 * time.Millisecond) // its life goes on by the clock
	}
	if len(seen) == 0 {
		t.Error("no invocation was answered")
	}
}

// A function's own variables win over defaults, and what is reserved over them.
func TestVariables(t *testing.T) {
	t.Parallel()
	r := newRig(t, environmenttest.Bootstrap("", `answer=$(env | tr '\n' '|')`), func(f *lambda.Function) {
		f.Settings.Environment = map[string]string{
			"MINE": "a b=c", "LANG": "C.mine", "AWS_ENDPOINT_URL": "http://mine", "AWS_EC2_METADATA_DISABLED": "false",
			"AWS_REGION": "mine", "_HANDLER": "mine", "LAMBDA_TASK_ROOT": "mine", // the registry refuses these
		}
		f.Settings.Handler = "a.handler"
	})
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	result, _ := r.invoke(environmenttest.Invocation(r.fn, "1"))
	got := map[string]string{}
	for v := range strings.SplitSeq(string(result.Payload), "|") {
		name, value, _ := strings.Cut(v, "=")
		got[name] = value
	}
	for name, want := range map[string]string{
		"MINE": "a b=c", "LANG": "C.mine", "AWS_ENDPOINT_URL": "http://mine", "AWS_EC2_METADATA_DISABLED": "false",
		"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "_HANDLER": "a.handler", "AWS_LAMBDA_FUNCTION_NAME": "f",
		"AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token",
		"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": "", // Kiln forwards
	} {
		if got[name] != want {
			t.Errorf("%s=%s, want %s", name, got[name], want)
		}
	}
	if got["LAMBDA_TASK_ROOT"] == "mine" || got["_LAMBDA_TELEMETRY_LOG_FD"] != "" {
		t.Errorf("LAMBDA_TASK_ROOT=%s, _LAMBDA_TELEMETRY_LOG_FD=%s", got["LAMBDA_TASK_ROOT"], got["_LAMBDA_TELEMETRY_LOG_FD"])
	}
	if !regexp.MustCompile(`^\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}$`).MatchString(got["AWS_LAMBDA_LOG_STREAM_NAME"]) {
		t.Errorf("stream %s", got["AWS_LAMBDA_LOG_STREAM_NAME"])
	}
}

// What cannot be made leaves nothing, and is the platform's error.
func TestNewFails(t *testing.T) {
	t.Parallel()
	f := environmenttest.New(t)
	fn := f.Function("f", "")
	f.Break(environmenttest.ErrBroken)
	if _, err := f.New(t.Context(), fn); !errors.Is(err, environmenttest.ErrBroken) {
		t.Error(err)
	}
	f.Break(nil)
	fn.Settings.Runtime = "cobol"
	if _, err := f.New(t.Context(), fn); lambda.AsError(err) == nil {
		t.Errorf("a runtime that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	fn.Settings.Runtime = "provided.al2023"
	if e, err := f.New(ctx, fn); err == nil {
		t.Error("made after the end")
		_ = e.Close(context.Background())
	}
	if n := f.Environments(); n != 0 {
		t.Errorf("%d environments are left", n)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	f := environmenttest.New(t)
	fn := f.Function("f", "MZ\x90\x00")
	check := func(s lambda.Settings, code lambda.Code) string {
		e := lambda.AsError(f.Check(t.Context(), &s, code))
		if e == nil {
			return ""
		}
		if e.Status != http.StatusBadRequest {
			t.Errorf("%v", e)
		}
		return e.Message
	}
	if got := check(fn.Settings, fn.Code); !strings.Contains(got, "Windows") {
		t.Errorf("a Windows program: %q", got)
	}
	if got := check(fn.Settings, f.Function("g", "#!/bin/sh").Code); got != "" {
		t.Errorf("a script: %q", got)
	}
	if got := check(fn.Settings, f.Function("h", "").Code); got != "" {
		t.Errorf("no bootstrap, which the first invocation finds: %q", got)
	}
	other := fn.Settings
	other.Architecture = "sparc"
	if got := check(other, fn.Code); !strings.Contains(got, "sparc") {
		t.Errorf("another machine: %q", got)
	}
}
