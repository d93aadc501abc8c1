package handlers

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"kiln/test/kiln"
)

func decode(text string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	return string(b), err
}

// TestLinux is every behaviour on the driver that seals functions in, where this
// machine has it, in the newest version of each language.
func TestLinux(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments()...)
	sealed := strings.Contains(d.Log.String(), "(driver linux,")
	for _, l := range languages(t, true) {
		t.Run(l.name, func(t *testing.T) {
			for _, b := range behaviours {
				if b.sealed && !sealed || b.skips(l.name) {
					continue
				}
				t.Run(b.name, func(t *testing.T) {
					t.Parallel()
					b.test(t, l, d)
				})
			}
		})
	}
}

// TestProcess is what does not need a sandbox, in plain processes: nothing above
// the driver cares.
func TestProcess(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments("--driver", "process")...)
	available := languages(t, true)
	// Root's functions have users of their own, to whom an interpreter in a home folder is closed.
	for _, l := range available {
		t.Run(l.name, func(t *testing.T) {
			err := d.TryCreate("probe-"+l.name, l.runtime, l.handler, l.code, nil)
			if err != nil && strings.Contains(err.Error(), "may not enter") {
				t.Skip(err)
			}
			for _, b := range behaviours {
				if b.sealed || !b.process || b.skips(l.name) {
					continue
				}
				t.Run(b.name, func(t *testing.T) {
					t.Parallel()
					b.test(t, l, d)
				})
			}
		})
	}
}

// TestVersions is the shortest tour through every installed version.
func TestVersions(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments()...)
	for _, l := range languages(t, false) {
		t.Run(l.runtime, func(t *testing.T) {
			t.Parallel()
			reuse(t, l, d)
			t.Run("errors", func(t *testing.T) { handlerError(t, l, d) })
			t.Run("context", func(t *testing.T) { contextFields(t, l, d) })
		})
	}
}

// behaviour is one thing that every language does alike.
type behaviour struct {
	name    string
	test    func(t *testing.T, l language, d *kiln.Daemon)
	sealed  bool   // only in a sandbox
	process bool   // also without
	except  string // languages that it means nothing to
}

func (b behaviour) skips(language string) bool { return strings.Contains(b.except, language) }

var behaviours = []behaviour{
	{name: "reuse", test: reuse, process: true},
	{name: "duration", test: duration, process: true},
	{name: "error", test: handlerError, process: true},
	{name: "timeout", test: timeouts, process: true},
	{name: "exit", test: exits, process: true},
	{name: "init exit", test: initExits, process: true},
	{name: "init error", test: initError, except: "go", process: true},
	{name: "init once", test: initOnce, except: "go", sealed: true},
	{name: "out of memory", test: outOfMemory, sealed: true},
	{name: "size", test: sizes, process: true},
	{name: "environment", test: environment, process: true},
	{name: "time zone", test: timeZone, except: "go", process: true},
	{name: "wrapper", test: wrappers, except: "go", process: true},
	{name: "memory", test: memoryUsed, process: true},
	{name: "log", test: logLines, process: true},
	{name: "context", test: contextFields, process: true},
	{name: "sandbox", test: look, sealed: true},
}

var durations = regexp.MustCompile(`\tDuration: ([\d.]+) ms\tBilled Duration: (\d+) ms\tMemory Size: (\d+) MB\tMax Memory Used: (\d+) MB\t(?:Init Duration: ([\d.]+) ms\t)?`)

// figures are those of a REPORT line.
func figures(t *testing.T, r reply) (duration, billed, used, init float64) {
	t.Helper()
	m := durations.FindStringSubmatch(r.tail)
	if m == nil {
		t.Fatalf("no REPORT line in\n%s", r.tail)
	}
	number := func(s string) float64 {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil && s != "" {
			t.Fatal(err)
		}
		return n
	}
	return number(m[1]), number(m[2]), number(m[4]), number(m[5])
}

func reuse(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, nil)
	for want := 1; want <= 3; want++ {
		var got int
		r := f.ok(event{}, &got)
		if got != want {
			t.Errorf("invocation %d is number %d of its environment", want, got)
		}
		pattern := report
		if want == 1 {
			pattern = coldReport
		}
		matches(t, r.tail, start, end, pattern)
		took, billed, _, init := figures(t, r)
		// The two figures are rounded, so their sum may be off by their last digit.
		if sum := took + init; billed < math.Ceil(sum-.011) || billed > math.Ceil(sum+.011) {
			t.Errorf("billed %v ms for %v + %v ms", billed, took, init)
		}
	}
	// Node.js prints module-level lines in its own form.
	module := `(?:[^\n]*\t)?module begins`
	first := initStart + `\n` + module
	if l.name == "go" { // an OS-only runtime has no version
		first = module
	}
	matches(t, f.log(3), first, start, end, coldReport, start, end, report, start, end, report)
}

func duration(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, nil)
	r := f.invoke(event{"do": "sleep", "seconds": 0.2})
	if took, billed, _, init := figures(t, r); took < 200 || billed < 200 || init <= 0 {
		t.Errorf("slept 200 ms, and got Duration %v, Billed Duration %v, Init Duration %v", took, billed, init)
	}
}

func handlerError(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, nil)
	for range 2 { // the environment lives on
		r := f.invoke(event{"do": "fail"})
		pattern := map[string]string{
			"python": `^\{"errorMessage": ?"boom (ü|\\u00fc)", ?"errorType": ?"ValueError", ?"requestId": ?"` + r.id + `", ?"stackTrace": ?\[.*/handler.py.*do_fail.*\]\}$`,
			"nodejs": `^\{"errorType":"TypeError","errorMessage":"boom ü","trace":\["TypeError: boom ü","    at .*handler.js:\d+:\d+\)".*\]\}$`,
			"go":     `^\{"errorMessage":"boom ü","errorType":"errorString"\}$`,
		}[l.name]
		if r.failed != "Unhandled" || !regexp.MustCompile(pattern).MatchString(r.payload) {
			t.Errorf("got %q %s, want %s", r.failed, r.payload, pattern)
		}
		if !strings.Contains(r.tail, "boom") || strings.Contains(r.tail, "Status:") {
			t.Errorf("got the log\n%s", r.tail)
		}
	}
	var count int
	if f.ok(event{}, &count); count != 3 {
		t.Errorf("after two errors, the environment counts %d", count)
	}
	if l.name == "go" {
		r := f.invoke(event{"do": "panic"})
		if !strings.HasPrefix(r.payload, `{"errorMessage":"at the disco","errorType":"string","stackTrace":[{"path":`) {
			t.Errorf("panic: got %s", r.payload)
		}
		if f.ok(event{}, &count); count != 1 {
			t.Errorf("after a panic, the environment counts %d", count)
		}
	}
}

func timeouts(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, timeout(1))
	sealed := strings.Contains(d.Log.String(), "(driver linux,") // else /tmp is the machine's
	var nothing any
	var count int
	if sealed {
		f.ok(event{"do": "write"}, &nothing)
	}
	r := f.fails(event{"do": "sleep", "seconds": 60}, "Sandbox.Timedout", "RequestId: <id> Error: Task timed out after 1.00 seconds")
	matches(t, r.tail, start, `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z `+r.id+` Task timed out after 1\.00 seconds`, end, anyReport+"Status: timeout")
	if took, billed, _, _ := figures(t, r); took < 1000 || billed < 1000 {
		t.Errorf("got Duration %v, Billed Duration %v", took, billed)
	}
	r = f.ok(event{}, &count)
	if count != 1 {
		t.Errorf("after a timeout, the runtime counts %d", count)
	}
	if _, _, _, init := figures(t, r); init != 0 {
		t.Errorf("the suppressed init shows an Init Duration: %s", r.tail)
	}
	var note string
	if sealed {
		if f.ok(event{"do": "read"}, &note); note != "kept" {
			t.Errorf("after a timeout, /tmp holds %q", note)
		}
	}
}

func exits(t *testing.T, l language, d *kiln.Daemon) {
	for _, test := range []struct {
		name    string
		event   event
		message string
	}{
		{"0", event{"do": "exit", "code": 0}, "Runtime exited without providing a reason"},
		{"1", event{"do": "exit", "code": 1}, "Runtime exited with error: exit status 1"},
		{"137", event{"do": "exit", "code": 137}, "Runtime exited with error: exit status 137"},
		{"killed", event{"do": "kill", "signal": 9}, "Runtime exited with error: signal: killed"},
		{"segfault", event{"do": "kill", "signal": 11}, "Runtime exited with error: signal: segmentation fault"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := l.create(t, d, timeout(30))
			if l.name == "go" && test.name == "segfault" {
				// Go's own handler of the signal prints a trace and exits.
				if r := f.invoke(test.event); r.failed == "" || !strings.Contains(r.payload, "Runtime.ExitError") {
					t.Errorf("got %s", r.payload)
				}
				return
			}
			r := f.fails(test.event, "Runtime.ExitError", "RequestId: <id> Error: "+test.message)
			matches(t, r.tail, start, "RequestId: "+r.id+" Error: "+regexp.QuoteMeta(test.message), `Runtime\.ExitError`, end, coldReport+`Status: error\tError Type: Runtime\.ExitError`)
			var count int
			if f.ok(event{}, &count); count != 1 {
				t.Errorf("after the exit, the runtime counts %d", count)
			}
		})
	}
}

func initExits(t *testing.T, l language, d *kiln.Daemon) {
	for _, test := range []struct{ init, code, message string }{
		{"exit", "0", "Runtime exited without providing a reason"},
		{"exit", "1", "Runtime exited with error: exit status 1"},
		{"exit", "137", "Runtime exited with error: exit status 137"},
		{"segfault", "", "Runtime exited with error: signal: segmentation fault"},
	} {
		t.Run(test.init+test.code, func(t *testing.T) {
			t.Parallel()
			if l.name == "go" && test.init == "segfault" {
				t.Skip("Go's own handler of the signal prints a trace and exits")
			}
			f := l.create(t, d, all(timeout(30), variables("INIT", test.init, "CODE", test.code)))
			r := f.fails(event{}, "Runtime.ExitError", "RequestId: <id> Error: "+test.message)
			if !strings.Contains(r.tail, "\tStatus: error\tError Type: Runtime.ExitError\n") {
				t.Errorf("got the log\n%s", r.tail)
			}
		})
	}
}

// initError fails at the top of the module: it runs in the init phase, and again
// within the first invocation.
func initError(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, all(timeout(30), variables("INIT", "fail")))
	errorType := map[string]string{"python": "ValueError", "nodejs": "TypeError"}[l.name]
	for range 2 {
		r := f.invoke(event{})
		var document struct{ ErrorType, ErrorMessage string }
		if err := json.Unmarshal([]byte(r.payload), &document); err != nil || r.failed != "Unhandled" || document.ErrorType != errorType || document.ErrorMessage != "no init" {
			t.Errorf("got %q %s", r.failed, r.payload)
		}
	}
	// What the runtime's client prints of the error is its own, and comes by another descriptor than
	// what the module prints: on a busy machine the later may be read first.
	const module = `(?:(?:[^\n]*\t)?module begins\n.*no init.*|.*no init.*\n(?:[^\n]*\t)?module begins)`
	const failed = `Status: error\tError Type: [A-Z][A-Za-z.]+`
	matches(t, f.log(2), initStart, module, initReport+`init\t`+failed, module, initReport+`invoke\t`+failed,
		start, end, report+failed, module, initReport+`invoke\t`+failed, start, end, report+failed)
}

// initOnce fails the first time only: the caller sees nothing of it.
func initOnce(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, all(timeout(30), variables("INIT", "once")))
	var count int
	r := f.ok(event{}, &count)
	if _, _, _, init := figures(t, r); init != 0 {
		t.Errorf("the suppressed init shows an Init Duration: %s", r.tail)
	}
	const module = `(?:[^\n]*\t)?module begins`
	matches(t, f.log(1), initStart, `(?:`+module+`\n.*the first time.*|.*the first time.*\n`+module+`)`, initReport+`init\tStatus: error\tError Type: [A-Z][A-Za-z.]+`, module, start, end, report)
}

func outOfMemory(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, timeout(60))
	r := f.fails(event{"do": "allocate", "mb": 400}, "Runtime.ExitError", "RequestId: <id> Error: Runtime exited with error: signal: killed")
	if !strings.Contains(r.tail, "\tMemory Size: 128 MB\tMax Memory Used: 128 MB\t") || !strings.Contains(r.tail, "Status: error\tError Type: Runtime.OutOfMemory\n") {
		t.Errorf("got the log\n%s", r.tail)
	}
	var count int
	if f.ok(event{}, &count); count != 1 {
		t.Errorf("after that, the runtime counts %d", count)
	}
}

func sizes(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, all(timeout(60), memory(512)))
	const most = 6 << 20
	r := f.invoke(event{"do": "size", "bytes": most - len(`""`)})
	if r.failed != "" || len(r.payload) != most {
		t.Errorf("6 MiB: got %q and %d bytes", r.failed, len(r.payload))
	}
	r = f.fails(event{"do": "size", "bytes": most + 101 - len(`""`)}, "Function.ResponseSizeTooLarge",
		fmt.Sprintf("Response payload size (%d bytes) exceeded maximum allowed payload size (6291556 bytes).", most+101))
	var count int
	if f.ok(event{}, &count); count != 3 && count != 1 { // a client may end over it
		t.Errorf("after that, the runtime counts %d", count)
	}
}

func environment(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, variables("KEY", "välue with spaces\nand lines", "EMPTY", "", "LANG", "de_DE.UTF-8", "PATH", "/var/task:/usr/bin:/bin"))
	var env map[string]string
	f.ok(event{"do": "env"}, &env)
	for name, want := range map[string]string{
		"KEY": "välue with spaces\nand lines", "EMPTY": "", "LANG": "de_DE.UTF-8", "PATH": "/var/task:/usr/bin:/bin", "TZ": ":UTC",
		"_HANDLER": l.handler, "AWS_REGION": "us-east-1", "AWS_LAMBDA_FUNCTION_NAME": f.name, "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/" + f.name,
		"AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		if got, ok := env[name]; !ok || got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	want := "AWS_Lambda_" + l.runtime
	if l.name == "go" {
		want = ""
	}
	if got := env["AWS_EXECUTION_ENV"]; got != want {
		t.Errorf("AWS_EXECUTION_ENV: got %q, want %q", got, want)
	}
	if _, ok := env["_LAMBDA_TELEMETRY_LOG_FD"]; ok {
		t.Error("_LAMBDA_TELEMETRY_LOG_FD reaches the handler")
	}
}

func timeZone(t *testing.T, l language, d *kiln.Daemon) {
	for zone, want := range map[string]string{"": "00", "TST-3": "03"} {
		t.Run("zone"+want, func(t *testing.T) {
			t.Parallel()
			if l.name == "nodejs" && zone != "" {
				zone = "Etc/GMT-3" // it takes names only
			}
			change := variables("KEY", "x")
			if zone != "" {
				change = variables("TZ", zone)
			}
			var hour string
			if l.create(t, d, change).ok(event{"do": "zone"}, &hour); hour != want {
				t.Errorf("in %q the epoch is at %s, want %s", zone, hour, want)
			}
		})
	}
}

func wrappers(t *testing.T, l language, d *kiln.Daemon) {
	t.Run("there", func(t *testing.T) {
		t.Parallel()
		var env map[string]string
		l.create(t, d, variables("AWS_LAMBDA_EXEC_WRAPPER", "/var/task/wrapper")).ok(event{"do": "env"}, &env)
		if n, err := strconv.Atoi(env["WRAPPED"]); err != nil || n < 1 {
			t.Errorf("the wrapper did not run: %v", env)
		}
	})
	t.Run("not executable", func(t *testing.T) {
		t.Parallel()
		if !strings.Contains(d.Log.String(), "(driver linux,") {
			t.Skip("the code's folder has a name of its own")
		}
		l.create(t, d, variables("AWS_LAMBDA_EXEC_WRAPPER", "/var/task/handler."+map[string]string{"nodejs": "js", "python": "py"}[l.name])).fails(event{}, "Runtime.ExitError",
			"RequestId: <id> Error: Runtime exited with error: exit status 126")
	})
	t.Run("missing", func(t *testing.T) {
		t.Parallel()
		l.create(t, d, variables("AWS_LAMBDA_EXEC_WRAPPER", "/opt/absent")).fails(event{}, "Runtime.ExitError",
			"RequestId: <id> Error: Runtime exited with error: exit status 127")
	})
}

func memoryUsed(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, all(timeout(60), memory(512)))
	_, _, before, _ := figures(t, f.invoke(event{}))
	var n int
	_, _, after, _ := figures(t, f.ok(event{"do": "allocate", "mb": 60}, &n))
	if before <= 0 || after < before+55 || after > before+200 {
		t.Errorf("Max Memory Used was %v MB and is %v MB after 60 MB", before, after)
	}
	if _, _, later, _ := figures(t, f.invoke(event{})); later < after {
		t.Errorf("Max Memory Used fell from %v to %v MB", after, later)
	}
}

func logLines(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, nil)
	r := f.invoke(event{"do": "print", "lines": []string{"one", "two\ttabs", "three\nfour", "fünf"}})
	matches(t, strings.NewReplacer("on stderr\n", "", "without an end\n", "").Replace(r.tail), start, "one", "two\ttabs", "three", "four", "fünf", end, coldReport)
	for _, line := range []string{"on stderr", "without an end"} {
		if !strings.Contains(r.tail, "\n"+line+"\n") {
			t.Errorf("%q is missing in\n%s", line, r.tail)
		}
	}
	if log := f.log(1); !strings.HasSuffix(log, r.tail) {
		t.Errorf("the log\n%sdoes not end as the tail\n%s", log, r.tail)
	}
}

func contextFields(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, timeout(60))
	client := base64.StdEncoding.EncodeToString([]byte(`{"custom":{"k":"v"},"client":{"app_title":"x"},"env":{"e":"f"}}`))
	qualifier := "$LATEST"
	out, err := d.Client().Invoke(context.Background(), &lambda.InvokeInput{
		FunctionName: &f.name, Qualifier: &qualifier, Payload: []byte(`{"do":"context"}`), ClientContext: &client,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ID, Name, Version, ARN, Memory, Group, Stream, Trace string
		Left                                                 int
		Custom                                               map[string]string
	}
	if err := json.Unmarshal(out.Payload, &got); err != nil || out.FunctionError != nil {
		t.Fatalf("%v in %s", err, out.Payload)
	}
	for what, pair := range map[string][2]string{
		"name": {got.Name, f.name}, "version": {got.Version, "$LATEST"}, "memory": {got.Memory, "128"}, "group": {got.Group, "/aws/lambda/" + f.name},
		"arn": {got.ARN, "arn:aws:lambda:us-east-1:000000000000:function:" + f.name + ":$LATEST"}, "custom": {got.Custom["k"], "v"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %q, want %q", what, pair[0], pair[1])
		}
	}
	for what, pair := range map[string][2]string{
		"id": {got.ID, `^` + id + `$`}, "stream": {got.Stream, `^\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}$`},
		"trace": {got.Trace, `^Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01]`},
	} {
		if !regexp.MustCompile(pair[1]).MatchString(pair[0]) {
			t.Errorf("%s: got %q, want %s", what, pair[0], pair[1])
		}
	}
	if got.Left <= 0 || got.Left > 60000 {
		t.Errorf("%d ms are left of 60 s", got.Left)
	}
}

// look is what a handler sees of the sandbox.
func look(t *testing.T, l language, d *kiln.Daemon) {
	f := l.create(t, d, nil)
	var got struct {
		Cwd, Read      string
		UID            int
		Task, Tmp, Etc bool
		Files          []string
	}
	f.ok(event{"do": "look"}, &got)
	if got.Cwd != "/var/task" || got.Read != "" || got.UID == 0 || got.Task || !got.Tmp || got.Etc {
		t.Errorf("got %+v", got)
	}
	for _, file := range got.Files {
		if strings.HasPrefix(file, "/") && !strings.HasPrefix(file, "/dev/null") && !strings.HasPrefix(file, "/proc/") && !strings.HasPrefix(file, "/dev/urandom") {
			t.Errorf("the handler holds %s open", file)
		}
	}
}
