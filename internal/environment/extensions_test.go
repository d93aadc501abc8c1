package environment_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kiln/internal/environment/environmenttest"
	"kiln/internal/lambda"
	"kiln/internal/telemetry/metrics"
)

// ext is an extension that registers for both events.
func ext(before, each string) string {
	return environmenttest.Extension([]string{"INVOKE", "SHUTDOWN"}, before, each)
}

// newExtended is a rig with external extensions.
func newExtended(t *testing.T, bootstrap string, programs map[string]string, change func(*lambda.Function)) *rig {
	t.Helper()
	if _, err := os.Stat("/usr/bin/env"); err != nil {
		t.Skip(err)
	}
	f := environmenttest.New(t)
	fn := f.Function("f", bootstrap)
	f.Extend(fn, programs)
	if change != nil {
		change(fn)
	}
	return rigOf(t, f, fn)
}

// said returns the log lines of one extension, without its name.
func (r *rig) said(name string) (list []string) {
	for _, line := range r.Log() {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			list = append(list, text)
		}
	}
	return list
}

func (r *rig) end() {
	r.t.Helper()
	if err := r.Close(context.Background()); err != nil {
		r.t.Error(err)
	}
}

// TestExtension follows an external extension from before the runtime to the end.
func TestExtension(t *testing.T) {
	t.Parallel()
	r := newExtended(t, environmenttest.Bootstrap("echo the runtime starts", "answer=$event"), map[string]string{
		"whole": ext(`time.sleep(0.2); say('registered')`, `say(json.dumps(event)); time.sleep(0.5)`),
		"quiet": environmenttest.Extension(nil, "", "say('an event')"),
		"slow":  strings.Replace(ext("", ""), "status, headers, body", "time.sleep(0.3); say('registers')\nstatus, headers, body", 1),
	}, nil)
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	log := r.Log()
	if at := slices.Index(log, "the runtime starts"); at < slices.Index(log, "slow registers") || slices.Index(log, "slow registers") < 0 {
		t.Errorf("the runtime started before every extension had registered: %q", log)
	}
	inv := environmenttest.Invocation(r.fn, `"in"`)
	inv.TraceHeader = "Root=1"
	var answered time.Time
	begin := time.Now()
	outcome := r.Invoke(t.Context(), inv, func(a lambda.Result) {
		answered = time.Now()
		if string(a.Payload) != `"in"` {
			t.Errorf("%s", a.Payload)
		}
	}, func() {})
	if took := time.Since(begin); took < 500*time.Millisecond || answered.Sub(begin) > took-50*time.Millisecond {
		t.Errorf("answered after %s of %s: the extension takes 500 ms", answered.Sub(begin), took)
	}
	if outcome.Error != metrics.NoError || outcome.Extensions < 50*time.Millisecond || outcome.Duration < outcome.Extensions || outcome.Init < 300*time.Millisecond {
		t.Errorf("%+v", outcome)
	}
	r.invoke(environmenttest.Invocation(r.fn, "2"))
	r.end()

	said := r.said("whole")
	if len(said) != 4 {
		t.Fatalf("the extension said %q", said)
	}
	for i, want := range []string{
		"registered",
		fmt.Sprintf(`{"eventType": "INVOKE", "deadlineMs": %d, "requestId": "%s", "invokedFunctionArn": "%s", "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1"}}`, inv.Deadline.UnixMilli(), inv.ID, inv.ARN),
		`\{"eventType": "INVOKE", "deadlineMs": \d+, "requestId": "[^"]+", "invokedFunctionArn": "[^"]+"\}`,
		`\{"eventType": "SHUTDOWN", "shutdownReason": "spindown", "deadlineMs": \d+\}`,
	} {
		if said[i] != want && !regexp.MustCompile("^"+want+"$").MatchString(said[i]) {
			t.Errorf("the extension said %q, want %q", said[i], want)
		}
	}
	if said := r.said("quiet"); said != nil {
		t.Errorf("an extension that registered for no event said %q", said)
	}
	log = r.Log()
	for _, want := range []string{
		"EXTENSION\tName: whole\tState: Ready\tEvents: [INVOKE, SHUTDOWN]",
		"EXTENSION\tName: quiet\tState: Ready\tEvents: []",
	} {
		if i := slices.Index(log, want); i < 0 || i > slices.Index(log, "START RequestId: "+string(inv.ID)+" Version: $LATEST") {
			t.Errorf("no %q before START in %q", want, log)
		}
	}
}

// TestExtensionVariables compares an extension's environment with AWS's.
func TestExtensionVariables(t *testing.T) {
	t.Parallel()
	r := newExtended(t, environmenttest.Bootstrap("", ""), map[string]string{
		"x": ext(`say(json.dumps({'cwd': os.getcwd(), **os.environ}))`, ""),
	}, func(f *lambda.Function) {
		f.Settings.Environment = map[string]string{"MINE": "1", "TZ": "mine", "AWS_XRAY_CONTEXT_MISSING": "x"}
		f.Settings.Logging.Format, f.Settings.Logging.ApplicationLevel = "JSON", "INFO"
	})
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if said := r.said("x"); len(said) != 1 || json.Unmarshal([]byte(said[0]), &got) != nil {
		t.Fatalf("%q", r.Log())
	}
	for name, want := range map[string]string{
		"MINE": "1", "TZ": "mine", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_LAMBDA_FUNCTION_NAME": "f",
		"AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
		"AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token", "cwd": "/", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		if got[name] != want {
			t.Errorf("%s=%s, want %s", name, got[name], want)
		}
	}
	for _, name := range []string{"AWS_LAMBDA_RUNTIME_API", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "PATH"} {
		if got[name] == "" {
			t.Errorf("no %s", name)
		}
	}
	for name := range got {
		if slices.Contains([]string{
			"AWS_EXECUTION_ENV", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL",
			"LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "AWS_XRAY_CONTEXT_MISSING", "AWS_XRAY_DAEMON_ADDRESS",
		}, name) || strings.HasPrefix(name, "_") {
			t.Errorf("%s=%s", name, got[name])
		}
	}
}

// TestExtensionFails has every way in which an extension fails in an init, which is
// then run again within the invocation.
func TestExtensionFails(t *testing.T) {
	t.Parallel()
	const path = `fork/exec \S+/extensions/x: `
	many := map[string]string{}
	for n := range 11 {
		many[fmt.Sprint("x", n)] = ext("", "")
	}
	for what, c := range map[string]struct {
		program   string
		programs  map[string]string
		errorType string
		message   string
		line      string
	}{
		"exit before it registers": {program: "#!/bin/sh\nexit 3", errorType: "Extension.Crash", message: "exit status 3", line: "State: Exited\tEvents: []\tError Type: Extension.Crash"},
		"exit after":               {program: ext("sys.exit(0)", ""), errorType: "Extension.Crash", message: "exit code 0", line: "State: Exited\tEvents: [INVOKE, SHUTDOWN]\tError Type: Extension.Crash"},
		"signal":                   {program: ext("os.kill(os.getpid(), 9)", ""), errorType: "Extension.Crash", message: "signal: killed", line: "State: Exited\tEvents: [INVOKE, SHUTDOWN]\tError Type: Extension.Crash"},
		"init error": {program: ext(`call('POST', '/2020-01-01/extension/init/error', {'errorMessage': 'no file'}, Lambda_Extension_Function_Error_Type='Extension.NoConfig'); sys.exit(1)`, ""),
			errorType: "Extension.InitError", message: "extension x reported Extension.NoConfig: no file", line: "State: InitError\tEvents: [INVOKE, SHUTDOWN]\tError Type: Extension.NoConfig"},
		"exit error": {program: ext(`call('POST', '/2020-01-01/extension/exit/error', Lambda_Extension_Function_Error_Type='whatever')`, ""),
			errorType: "Extension.ExitError", message: "extension x reported Extension.ExitError", line: "State: ExitError\tEvents: [INVOKE, SHUTDOWN]\tError Type: Extension.ExitError"},
		"not executable": {program: "locked", errorType: "Extension.LaunchError", message: path + "permission denied", line: "State: LaunchError\tEvents: []\tError Type: PermissionDenied"},
		"no interpreter": {program: "#!/no/such/program\n", errorType: "Extension.LaunchError", message: path + "no such file or directory", line: "State: LaunchError\tEvents: []\tError Type: UnknownError"},
		"no program":     {program: "?", errorType: "Extension.LaunchError", message: path + "exec format error", line: "State: LaunchError\tEvents: []\tError Type: UnknownError"},
		"eleven":         {programs: many, errorType: "Extension.LaunchError", message: `Extension limit \(10\) reached`, line: "State: LaunchError\tEvents: []\tError Type: TooManyExtensions"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			if c.programs == nil {
				c.programs = map[string]string{"x": c.program}
			}
			r := newExtended(t, environmenttest.Bootstrap("", ""), c.programs, func(f *lambda.Function) {
				if c.program != "locked" {
					return
				}
				if err := os.Chmod(filepath.Join(f.Settings.Layers[0].Code.SHA256, "extensions", "x"), 0o644); err != nil {
					t.Fatal(err)
				}
			})
			if err := r.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			inv := environmenttest.Invocation(r.fn, "1")
			result, outcome := r.invoke(inv)
			var document lambda.ErrorDocument
			if err := json.Unmarshal(result.Payload, &document); err != nil || result.FunctionError != "Unhandled" || document.Type != c.errorType ||
				!regexp.MustCompile("^RequestId: "+string(inv.ID)+" Error: "+c.message+"$").MatchString(document.Message) {
				t.Errorf("%+v, %s", result, result.Payload)
			}
			if outcome.Error != metrics.Init || outcome.Init != 0 {
				t.Errorf("%+v", outcome)
			}
			log := strings.Join(r.Log(), "\n")
			for _, want := range []string{
				c.line, "\tPhase: init\tStatus: error\tError Type: " + c.errorType + "\n", "\tPhase: invoke\tStatus: error\tError Type: " + c.errorType + "\n",
				"\tStatus: error\tError Type: " + c.errorType,
			} {
				if !strings.Contains(log, want) {
					t.Errorf("no %q in\n%s", want, log)
				}
			}
		})
	}
}

// TestExtensionNeverReady has extensions that never get as far as to ask for an
// event, within an invocation's time.
func TestExtensionNeverReady(t *testing.T) {
	t.Parallel()
	for what, program := range map[string]string{
		"never registers": "#!/bin/sh\nsleep 1000",
		"never asks":      ext("time.sleep(1000)", ""),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newExtended(t, environmenttest.Bootstrap("echo the runtime starts", ""), map[string]string{"x": program}, func(f *lambda.Function) {
				f.Settings.Timeout = 2 * time.Second
			})
			result, outcome := r.invoke(environmenttest.Invocation(r.fn, "1")) // with the init in it
			if errorType(result) != "Sandbox.Timedout" || outcome.Error != metrics.Timeout || outcome.Duration < 2*time.Second {
				t.Errorf("%+v, %s", outcome, result.Payload)
			}
			log := r.Log()
			if got := slices.Contains(log, "the runtime starts"); got != (what == "never asks") {
				t.Errorf("the runtime started: %t", got)
			}
			if !slices.ContainsFunc(log, func(line string) bool { return strings.HasSuffix(line, "\tPhase: invoke\tStatus: timeout") }) {
				t.Errorf("no INIT_REPORT in %q", log)
			}
		})
	}
}

// TestExtensionFailsLater has extensions fail while an event is worked on, or after
// the answer. The next invocation has a new environment.
func TestExtensionFailsLater(t *testing.T) {
	t.Parallel()
	const once = `
    if os.path.exists(os.environ['AGAIN']): continue
    open(os.environ['AGAIN'], 'w').close()
    `
	for what, c := range map[string]struct {
		answer, each string
		errorType    string // of the answer; "": it is the function's
		reported     string // in REPORT
		kind         metrics.ErrorKind
		timeout      time.Duration
		reason       string // that extensions are told
	}{
		"crash":              {"sleep 1000", "sys.exit(7)", "Extension.Crash", "error\tError Type: Extension.Crash", metrics.Extension, 0, "failure"},
		"exit error":         {"sleep 1000", "call('POST', '/2020-01-01/extension/exit/error', Lambda_Extension_Function_Error_Type='x')", "Extension.ExitError", "error\tError Type: Extension.ExitError", metrics.Extension, 0, "failure"},
		"crash after answer": {"answer=1", "time.sleep(0.5); sys.exit(7)", "", "error\tError Type: Extension.Crash", metrics.NoError, 0, "failure"},
		"never next":         {"answer=1", "time.sleep(1000)", "", "timeout", metrics.NoError, time.Second, "timeout"},
		"function timeout":   {"sleep 1000", "pass", "Sandbox.Timedout", "timeout", metrics.Timeout, time.Second, "timeout"},
		"runtime exit":       {"exit 1", "pass", "Runtime.ExitError", "error\tError Type: Runtime.ExitError", metrics.Exit, 0, "failure"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newExtended(t, environmenttest.Bootstrap("", `if [ "$event" = 7 ]; then answer=7; else `+c.answer+"; fi"), map[string]string{
				"x": ext("", once+c.each),
				"y": ext("", "say(event['eventType'], event.get('shutdownReason'))"),
			}, func(f *lambda.Function) {
				f.Settings.Environment = map[string]string{"AGAIN": t.TempDir() + "/again"}
				if c.timeout > 0 {
					f.Settings.Timeout = c.timeout
				}
			})
			if err := r.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			inv := environmenttest.Invocation(r.fn, "1")
			result, outcome := r.invoke(inv)
			if got := errorType(result); got != c.errorType || c.errorType == "" && string(result.Payload) != "1" {
				t.Errorf("%+v, %s", result, result.Payload)
			}
			if outcome.Error != c.kind || c.timeout > 0 && outcome.Duration < c.timeout || outcome.Duration > 30*time.Second {
				t.Errorf("%+v", outcome)
			}
			if said := r.said("y"); !slices.Equal(said, []string{"INVOKE None", "SHUTDOWN " + c.reason}) {
				t.Errorf("the other extension said %q", said)
			}
			if log := r.Log(); !slices.ContainsFunc(log, func(line string) bool {
				return strings.HasPrefix(line, "REPORT RequestId: "+string(inv.ID)) && strings.HasSuffix(line, "Status: "+c.reported)
			}) {
				t.Errorf("no report with %q in %q", c.reported, log)
			}
			if result, outcome := r.invoke(environmenttest.Invocation(r.fn, "7")); string(result.Payload) != "7" || outcome.Error != metrics.NoError || outcome.Init != 0 {
				t.Errorf("the next invocation gets %+v, %s", outcome, result.Payload)
			}
		})
	}
}

// The caller of an invocation that timed out does not wait for a runtime that takes
// its time to end.
func TestTimeoutIsAnsweredFirst(t *testing.T) {
	t.Parallel()
	r := newExtended(t, environmenttest.Bootstrap("trap '' TERM", "sleep 1000"), map[string]string{"x": ext("", "")}, func(f *lambda.Function) {
		f.Settings.Timeout = time.Second
	})
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	var answered time.Time
	outcome := r.Invoke(t.Context(), environmenttest.Invocation(r.fn, "1"), func(a lambda.Result) {
		answered = time.Now()
		if errorType(a) != "Sandbox.Timedout" {
			t.Errorf("%s", a.Payload)
		}
	}, func() {})
	if after := time.Since(answered); after < 250*time.Millisecond || outcome.Duration > 30*time.Second {
		t.Errorf("Invoke returned %s after the answer, which the runtime's 300 ms stand after; %+v", after, outcome)
	}
}

func errorType(r lambda.Result) string {
	var document lambda.ErrorDocument
	if r.FunctionError != "" && json.Unmarshal(r.Payload, &document) != nil {
		return "none"
	}
	return document.Type
}

// An extension that dies while nobody calls is replaced by the next invocation.
func TestExtensionDiesWhileIdle(t *testing.T) {
	t.Parallel()
	r := newExtended(t, environmenttest.Bootstrap("", "answer=$BASHPID"), map[string]string{"x": ext(`
import threading
if os.path.exists(os.environ['DIE']): threading.Timer(0.2, lambda: os._exit(1)).start()
`, "")}, func(f *lambda.Function) {
		f.Settings.Environment = map[string]string{"DIE": t.TempDir()}
	})
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // its death goes by the clock
	if !r.Lost() {
		t.Error("an environment that lost its extension is as good as new")
	}
	if err := os.Remove(r.fn.Settings.Environment["DIE"]); err != nil {
		t.Fatal(err)
	}
	if result, _ := r.invoke(environmenttest.Invocation(r.fn, "1")); result.FunctionError != "" {
		t.Errorf("%s", result.Payload)
	}
	if restarts := strings.Count(strings.Join(r.Log(), "\n"), "EXTENSION\tName: x\tState: Ready"); restarts != 2 {
		t.Errorf("the extension was started %d times", restarts)
	}
}

// TestShutdownBudget has processes that obey nothing. The end takes as long as they
// may have, and not longer; extensions that did not ask for SHUTDOWN get no time.
func TestShutdownBudget(t *testing.T) {
	t.Parallel()
	const deaf = `trap '' TERM`
	const internal = deaf + `
printf 'POST /2020-01-01/extension/register HTTP/1.1\r\nHost: x\r\nLambda-Extension-Name: inside\r\nContent-Length: 13\r\n\r\n{"events":[]}' >&9
while IFS= read -r line <&9 && line=${line%$'\r'} && [ -n "$line" ]; do
	case ${line,,} in
	lambda-extension-identifier:*) me=${line#*: } ;;
	content-length:*) length=${line#*: } ;;
	esac
done
body
exec 8<>/dev/tcp/$host/$port
printf 'GET /2020-01-01/extension/event/next HTTP/1.1\r\nHost: x\r\nLambda-Extension-Identifier: %s\r\n\r\n' "$me" >&8
`
	for what, c := range map[string]struct {
		before      string
		programs    map[string]string
		least, most time.Duration
	}{
		"none":           {deaf, nil, 0, 450 * time.Millisecond},
		"obedient":       {"", map[string]string{"x": ext("", "")}, 0, 1900 * time.Millisecond},
		"deaf, internal": {internal, nil, 500 * time.Millisecond, 1900 * time.Millisecond},
		"deaf runtime":   {deaf, map[string]string{"x": ext("", "")}, 300 * time.Millisecond, 1900 * time.Millisecond},
		"no SHUTDOWN":    {"", map[string]string{"x": environmenttest.Extension(nil, "import signal; signal.signal(15, signal.SIG_IGN)", "")}, 0, 1900 * time.Millisecond},
		"deaf, SHUTDOWN": {deaf, map[string]string{"x": ext("", "time.sleep(1000)")}, 2 * time.Second, 4 * time.Second},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newExtended(t, environmenttest.Bootstrap(c.before, ""), c.programs, nil)
			if err := r.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			r.end()
			if took := time.Since(begin); took < c.least || took > c.most {
				t.Errorf("the end took %s, want %s to %s", took, c.least, c.most)
			}
		})
	}
}
