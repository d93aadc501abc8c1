package handlers

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"kiln/test/kiln"
)

// anyPython runs on whatever version is there; the daemon has --any-runtime.
func anyPython(t *testing.T) language { return python(t, "python3.12") }

// TestConcurrency has two invocations at once: they get environments of their
// own, which then serve one after the other.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	d.Create("gate", "python3.12", "gate.handler", kiln.Gate(), kiln.Timeout(120))
	f := function{t, d, "gate"}
	const count = 3
	streams := make(chan string, count)
	var work sync.WaitGroup
	for range count {
		work.Go(func() {
			r, err := f.try(event{})
			if err != nil {
				t.Error(err)
			}
			streams <- r.payload
		})
	}
	kiln.Await(t, "three busy environments", func() bool { return d.Metric("kiln_environments{", `state="busy"`) == count })
	d.Open("gate")
	work.Wait()
	close(streams)
	different := map[string]bool{}
	for s := range streams {
		different[s] = true
	}
	if len(different) != count {
		t.Errorf("%d invocations at once ran in the environments %v", count, different)
	}
}

// TestIdle closes what is not used.
func TestIdle(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime", "--idle-timeout", "1s")
	f := anyPython(t).create(t, d, nil)
	f.invoke(event{})
	kiln.Await(t, "the environment's end", func() bool { return d.Metric("kiln_environments{") == 0 })
	var count int
	if f.ok(event{}, &count); count != 1 {
		t.Errorf("after the idle timeout, the environment counts %d", count)
	}
	kiln.Await(t, "the second environment's end", func() bool { return d.Metric("kiln_environments{") == 0 })
}

// TestUpdates replaces environments when code or configuration changes.
func TestUpdates(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	l := anyPython(t)
	f := l.create(t, d, nil)
	var count int
	f.ok(event{}, &count)
	updated := func() {
		t.Helper()
		err := lambda.NewFunctionUpdatedV2Waiter(d.Client()).Wait(context.Background(), &lambda.GetFunctionInput{FunctionName: &f.name}, 60e9)
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Client().UpdateFunctionConfiguration(context.Background(), &lambda.UpdateFunctionConfigurationInput{
		FunctionName: &f.name, Environment: &types.Environment{Variables: map[string]string{"KEY": "new"}},
	}); err != nil {
		t.Fatal(err)
	}
	updated()
	var env map[string]string
	if f.ok(event{"do": "env"}, &env); env["KEY"] != "new" {
		t.Errorf("after the update, KEY is %q", env["KEY"])
	}
	if f.ok(event{}, &count); count != 2 {
		t.Errorf("the new environment counts %d", count)
	}
	if _, err := d.Client().UpdateFunctionCode(context.Background(), &lambda.UpdateFunctionCodeInput{
		FunctionName: &f.name, ZipFile: kiln.Zip(map[string]string{"handler.py": "def handler(event, context):\n    return 'new code'\n"}),
	}); err != nil {
		t.Fatal(err)
	}
	updated()
	if r := f.invoke(event{}); r.payload != `"new code"` {
		t.Errorf("after the update, the answer is %s", r.payload)
	}
	kiln.Await(t, "the end of the replaced environments", func() bool {
		return d.Metric("kiln_environments{") == 1 && d.Metric("kiln_environments{", `state="idle"`) == 1
	})
	if _, err := d.Client().DeleteFunction(context.Background(), &lambda.DeleteFunctionInput{FunctionName: &f.name}); err != nil {
		t.Fatal(err)
	}
	kiln.Await(t, "the end of the last environment", func() bool { return d.Metric("kiln_environments{") == 0 })
}

// TestSlowInit takes longer than the init phase may: it is cut off after ten
// seconds and run again within the invocation.
func TestSlowInit(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	if !strings.Contains(d.Log.String(), "(driver linux,") {
		t.Skip("the module remembers in /tmp that it ran, which is the machine's own here")
	}
	f := anyPython(t).create(t, d, all(timeout(60), variables("INIT", "slow")))
	var count int
	r := f.ok(event{}, &count)
	if _, _, _, init := figures(t, r); init != 0 {
		t.Errorf("the suppressed init shows an Init Duration: %s", r.tail)
	}
	log := f.log(1)
	matches(t, log, initStart, "module begins", initReport+`init\tStatus: timeout`, "module begins", start, end, report)
	m := regexp.MustCompile(`INIT_REPORT Init Duration: (\d+)\.`).FindStringSubmatch(log)
	if ms, err := strconv.Atoi(m[1]); err != nil || ms < 10000 {
		t.Errorf("the init phase was cut off after %v ms", m[1])
	}
}

// TestTmp is the size of /tmp that a function asked for. That it is enforced, the
// drivers' suite shows.
func TestTmp(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	if strings.Contains(d.Log.String(), "a limit on the size of /tmp") || !strings.Contains(d.Log.String(), "(driver linux,") {
		t.Skip("the driver does not bound /tmp here")
	}
	py := anyPython(t)
	py.code = kiln.Zip(map[string]string{"handler.py": "import os\ndef handler(event, context):\n    s = os.statvfs('/tmp')\n    return s.f_bavail * s.f_frsize >> 20\n"})
	for _, mb := range []int32{512, 2000} {
		t.Run(fmt.Sprint(mb), func(t *testing.T) {
			f := py.create(t, d, func(in *lambda.CreateFunctionInput) { in.EphemeralStorage = &types.EphemeralStorage{Size: &mb} })
			var free int32
			if f.ok(event{}, &free); free < mb || free > mb+mb/16 {
				t.Errorf("%d MB are %d", mb, free)
			}
		})
	}
}

// TestFlood writes a hundred megabytes of lines, and some records on the descriptor
// for logs. Kiln stays small, and says what it dropped.
func TestFlood(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments("--any-runtime", "--logs-group-bytes", "8MiB", "--logs-total-bytes", "64MiB")...)
	for _, c := range []struct {
		do string
		mb int
		l  language
	}{
		{"flood", 100, anyPython(t)},
		{"flood_records", 30, anyPython(t)},
		{"flood", 30, nodejs(t, "nodejs22.x")},
	} {
		t.Run(c.l.name+" "+c.do, func(t *testing.T) { // one after the other, for the memory's sake
			f := c.l.create(t, d, timeout(300))
			first := f.invoke(event{})
			var nothing any
			r := f.ok(event{"do": c.do, "mb": c.mb}, &nothing)
			if len(r.tail) != 4096 {
				t.Errorf("the tail has %d bytes", len(r.tail))
			}
			if !strings.Contains(r.tail, "yyyy") || !strings.Contains(r.tail, "\nEND RequestId: ") || !strings.Contains(r.tail, "\nREPORT RequestId: ") {
				t.Errorf("the tail is %q … %q", r.tail[:10], r.tail[len(r.tail)-200:])
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Pid()))
			if err != nil {
				t.Fatal(err)
			}
			peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
			if kb, err := strconv.Atoi(string(peak[1])); err != nil || kb > 200<<10 {
				t.Errorf("the daemon took %s kB", peak[1])
			}
			var count int
			if f.ok(event{}, &count); count != 3 {
				t.Errorf("after that, the environment counts %d", count)
			}
			// Every line is in the log, or among those that the log says were dropped,
			// unless so many are that the log's beginning had to go.
			log := f.log(2)
			if !strings.Contains(log, first.id) {
				return
			}
			lines := strings.Count(log, strings.Repeat("y", 1023)+"\n")
			for _, m := range regexp.MustCompile(`(?m)^\[kiln\] (\d+) log events \(\d+ bytes\) were dropped: `).FindAllStringSubmatch(log, -1) {
				dropped, err := strconv.Atoi(m[1])
				if err != nil {
					t.Fatal(err)
				}
				lines += dropped
			}
			if lines != c.mb<<10 {
				t.Errorf("the log accounts for %d of %d lines", lines, c.mb<<10)
			}
		})
	}
}

// TestRecords has records of several lines, which are one event each on the
// descriptor for logs; what is printed is an event a line.
func TestRecords(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments("--any-runtime")...)
	for _, c := range []struct {
		l         language
		record    string // a pattern
		unhandled string
	}{
		{nodejs(t, "nodejs22.x"), `Z\t` + id + `\tERROR\tone\ntwo`, `Z\t` + id + `\tERROR\tInvoke Error \t\{"errorType":"TypeError",.*`},
		{anyPython(t), `\[ERROR\]\t.*Z\t` + id + `\tone\ntwo`, `\[ERROR\] ValueError: boom ü\nTraceback \(most recent call last\):\n.*`},
	} {
		t.Run(c.l.name, func(t *testing.T) {
			t.Parallel()
			f := c.l.create(t, d, nil)
			var nothing any
			f.ok(event{"do": "record"}, &nothing)
			f.ok(event{"do": "print", "lines": []string{"three\nfour"}}, &nothing)
			f.invoke(event{"do": "fail"})
			f.log(3)
			events := f.events()
			for _, want := range []string{c.record, "three", "four", c.unhandled} {
				pattern := regexp.MustCompile(`^(?s:.*` + want + `)\n?$`)
				n := 0
				for _, e := range events {
					if pattern.MatchString(e) && (want == c.record || want == c.unhandled || e == want) {
						n++
					}
				}
				if n != 1 {
					t.Errorf("%d events are like %s among %q", n, want, events)
				}
			}
		})
	}
}

// TestLogGroups is where logs go and how they look, as LoggingConfig says.
func TestLogGroups(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	t.Run("group", func(t *testing.T) {
		t.Parallel()
		group := "/shared/group"
		f := anyPython(t).create(t, d, func(in *lambda.CreateFunctionInput) { in.LoggingConfig = &types.LoggingConfig{LogGroup: &group} })
		var got struct{ Group, Stream string }
		f.ok(event{"do": "context"}, &got)
		if got.Group != group || !regexp.MustCompile(`^\d{4}/\d\d/\d\d/`+f.name+`\[\$LATEST\][0-9a-f]{32}$`).MatchString(got.Stream) {
			t.Errorf("got %+v", got)
		}
		matches(t, f.log(1), initStart, "module begins", start, end, coldReport)
	})
	t.Run("json", func(t *testing.T) {
		t.Parallel()
		f := anyPython(t).create(t, d, func(in *lambda.CreateFunctionInput) {
			in.LoggingConfig = &types.LoggingConfig{LogFormat: types.LogFormatJson, ApplicationLogLevel: types.ApplicationLogLevelDebug}
		})
		var env map[string]string
		f.ok(event{"do": "env"}, &env)
		if env["AWS_LAMBDA_LOG_FORMAT"] != "JSON" || env["AWS_LAMBDA_LOG_LEVEL"] != "DEBUG" {
			t.Errorf("AWS_LAMBDA_LOG_FORMAT is %q, AWS_LAMBDA_LOG_LEVEL %q", env["AWS_LAMBDA_LOG_FORMAT"], env["AWS_LAMBDA_LOG_LEVEL"])
		}
		r := f.invoke(event{"do": "fail"})
		var line struct{ Timestamp, ErrorType, ErrorMessage, RequestID string }
		for text := range strings.Lines(r.tail) {
			if json.Unmarshal([]byte(text), &line) == nil && line.ErrorType != "" {
				break
			}
		}
		if line.ErrorType != "ValueError" || line.RequestID != r.id {
			t.Errorf("no JSON line about the error in\n%s", r.tail)
		}
	})
	t.Run("system", func(t *testing.T) {
		t.Parallel()
		const at = `\{"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","type":"platform\.`
		const request = `"requestId":"` + id + `"`
		const metrics = `"metrics":\{"durationMs":[\d.]+,"billedDurationMs":\d+,"memorySizeMB":128,"maxMemoryUsedMB":\d+`
		for level, patterns := range map[types.SystemLogLevel][]string{
			types.SystemLogLevelInfo: {
				at + `initStart","record":\{"initializationType":"on-demand","phase":"init","runtimeVersion":"python:3\.\d+\.v\d+","runtimeVersionArn":"arn:aws:lambda:us-east-1::runtime:[0-9a-f]{64}","functionName":"TestLogGroups-system-INFO","functionVersion":"\$LATEST",` +
					`"functionArn":"arn:aws:lambda:us-east-1:000000000000:function:TestLogGroups-system-INFO","instanceId":"[0-9a-f]{32}","instanceMaxMemory":128\}\}`,
				"module begins",
				at + `start","record":\{` + request + `,"version":"\$LATEST","tracing":\{"type":"X-Amzn-Trace-Id","value":"Root=[^"]+"\}\}\}`,
				at + `report","record":\{` + request + `,` + metrics + `,"initDurationMs":[\d.]+\},"status":"success"\}\}`,
				at + `start","record":\{` + request + `,.*\}\}`,
				at + `report","record":\{` + request + `,` + metrics + `\},"status":"timeout"\}\}`,
			},
			types.SystemLogLevelDebug: {
				at + `initStart",.*`, "module begins",
				at + `initRuntimeDone","record":\{"initializationType":"on-demand","phase":"init","status":"success"\}\}`,
				at + `initReport","record":\{"initializationType":"on-demand","phase":"init","metrics":\{"durationMs":[\d.]+\},"status":"success"\}\}`,
				at + `start",.*`,
				at + `runtimeDone","record":\{` + request + `,"status":"success","metrics":\{"durationMs":[\d.]+,"producedBytes":1\},"spans":\[.*\]\}\}`,
				at + `report",.*`, at + `start",.*`,
				at + `runtimeDone","record":\{` + request + `,"status":"timeout","metrics":\{"durationMs":[\d.]+,"producedBytes":0\}\}\}`,
				at + `report",.*`,
			},
			types.SystemLogLevelWarn: {"module begins", at + `runtimeDone",.*"status":"timeout".*`, at + `report",.*"status":"timeout"\}\}`},
		} {
			t.Run(string(level), func(t *testing.T) {
				t.Parallel()
				f := anyPython(t).create(t, d, all(timeout(2), func(in *lambda.CreateFunctionInput) {
					in.LoggingConfig = &types.LoggingConfig{LogFormat: types.LogFormatJson, SystemLogLevel: level}
				}))
				f.invoke(event{})
				f.invoke(event{"do": "sleep", "seconds": 60})
				var log string
				kiln.Await(t, "the last report", func() bool {
					log = f.log(0)
					return strings.Contains(log, `"status":"timeout"}}`)
				})
				matches(t, log, patterns...)
			})
		}
	})
}

// TestHandlerSettings is what becomes of a Handler that leads nowhere.
func TestHandlerSettings(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments("--any-runtime")...)
	for i, test := range []struct {
		runtime, handler, errorType, message string
		files                                map[string]string
	}{
		{"python3.12", "handler", "Runtime.MalformedHandlerName", "Bad handler 'handler': not enough values to unpack (expected 2, got 1)", nil},
		{"python3.12", "absent.handler", "Runtime.ImportModuleError", "Unable to import module 'absent': No module named 'absent'", nil},
		{"python3.12", "handler.absent", "Runtime.HandlerNotFound", "Handler 'absent' missing on module 'handler'", nil},
		{"python3.12", "sys.exit", "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module", nil},
		{"python3.12", "f.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'f': …", map[string]string{"f.py": "def handler(:\n"}},
		{"nodejs22.x", "handler", "Runtime.MalformedHandlerName", "Bad handler", nil},
		{"nodejs22.x", "../handler.x", "Runtime.MalformedHandlerName", "'../handler.x' is not a valid handler name. Use absolute paths when specifying root directories in handler names.", nil},
		{"nodejs22.x", "absent.handler", "Runtime.ImportModuleError", "Error: Cannot find module 'absent'\nRequire stack:\n- …", nil},
		{"nodejs22.x", "handler.absent", "Runtime.HandlerNotFound", "handler.absent is undefined or not exported", nil},
		{"nodejs22.x", "f.handler", "Runtime.UserCodeSyntaxError", "SyntaxError: …", map[string]string{"f.js": "exports.handler = ("}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			l := anyPython(t)
			if strings.HasPrefix(test.runtime, "nodejs") {
				l = nodejs(t, test.runtime)
			}
			l.handler = test.handler
			if test.files != nil {
				l.code = kiln.Zip(test.files)
			}
			r := l.create(t, d, timeout(30)).invoke(event{})
			var got struct{ ErrorType, ErrorMessage string }
			if err := json.Unmarshal([]byte(r.payload), &got); err != nil {
				t.Fatalf("%v in %s", err, r.payload)
			}
			begin, _, cut := strings.Cut(test.message, "…")
			if r.failed != "Unhandled" || got.ErrorType != test.errorType || got.ErrorMessage != test.message && !(cut && strings.HasPrefix(got.ErrorMessage, begin)) {
				t.Errorf("%s %s: got %q %s", test.runtime, test.handler, r.failed, r.payload)
			}
		})
	}
}

// TestCustomRuntimes is the OS-only runtime with all that a bootstrap may be.
func TestCustomRuntimes(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	create := func(t *testing.T, files map[string]string) function {
		return language{"provided", "provided.al2023", "some.handler", kiln.Zip(files)}.create(t, d, timeout(30))
	}
	t.Run("shell", func(t *testing.T) {
		t.Parallel()
		f := create(t, map[string]string{"bootstrap!": `#!/bin/sh
set -eu
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime
while true; do
	headers=$(mktemp)
	event=$(curl -sS -D "$headers" "$api/invocation/next")
	id=$(grep -i lambda-runtime-aws-request-id "$headers" | tr -d '\r' | cut -d' ' -f2)
	echo "handling $_HANDLER in $(pwd)"
	case $event in
	*fail*) curl -sS -X POST "$api/invocation/$id/error" -H 'Lambda-Runtime-Function-Error-Type: Function.Own' -d '{"errorMessage":"own","errorType":"Own"}' ;;
	*) curl -sS -X POST "$api/invocation/$id/response" -d "{\"got\":$event}" ;;
	esac >/dev/null
done
`})
		r := f.invoke(event{"a": 1})
		if r.failed != "" || r.payload != `{"got":{"a":1}}` {
			t.Errorf("got %q %s\n%s", r.failed, r.payload, r.tail)
		}
		if !strings.Contains(r.tail, "\nhandling some.handler in ") {
			t.Errorf("got the log\n%s", r.tail)
		}
		if r := f.invoke(event{"do": "fail"}); r.failed != "Unhandled" || r.payload != `{"errorMessage":"own","errorType":"Own"}` {
			t.Errorf("got %q %s", r.failed, r.payload)
		}
	})
	for name, files := range map[string]map[string]string{
		"missing":        {"readme": ""},
		"not executable": {"bootstrap": "#!/bin/sh\n"},
		"no interpreter": {"bootstrap!": "#!/absent/interpreter\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := create(t, files)
			for range 2 {
				r := f.invoke(event{})
				var got struct{ ErrorType, ErrorMessage string }
				if err := json.Unmarshal([]byte(r.payload), &got); err != nil || r.failed != "Unhandled" || got.ErrorType != "Runtime.InvalidEntrypoint" {
					t.Errorf("got %q %s", r.failed, r.payload)
				}
				if strings.Contains(got.ErrorMessage, d.Data) || strings.Contains(got.ErrorMessage, "/proc/") {
					t.Errorf("the message tells of the machine: %s", got.ErrorMessage)
				}
			}
		})
	}
	t.Run("other machine", func(t *testing.T) {
		t.Parallel()
		for what, program := range map[string][]byte{"aarch64 or x86_64": otherMachine(t), "macOS": {0xcf, 0xfa, 0xed, 0xfe, 0, 0, 0, 0}, "Windows": []byte("MZ\x00\x00\x00")} {
			err := d.TryCreate("other-"+what[:5], "provided.al2023", "x", kiln.Zip(map[string]string{"bootstrap!": string(program)}), nil)
			if err == nil || !strings.Contains(err.Error(), "InvalidParameterValueException: The bootstrap of this function cannot run: it is ") {
				t.Errorf("%s: got %v", what, err)
			}
		}
	})
}

// otherMachine is our own program with another machine in its header.
func otherMachine(t *testing.T) []byte {
	t.Helper()
	program, err := goBootstrap()
	if err != nil {
		t.Fatal(err)
	}
	other := append([]byte(nil), program...)
	machine := elf.EM_AARCH64
	if elf.Machine(binary.LittleEndian.Uint16(other[18:])) == machine {
		machine = elf.EM_X86_64
	}
	binary.LittleEndian.PutUint16(other[18:], uint16(machine))
	return other
}

// TestMetrics reconciles what was done with what was counted.
func TestMetrics(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime", "--concurrency", "1")
	l := anyPython(t)
	f := l.create(t, d, timeout(1))
	script := []event{
		{}, {}, {"do": "fail"}, {}, {"do": "sleep", "seconds": 60}, {}, {"do": "fail"}, {"do": "exit", "code": 1}, {},
		{"do": "size", "bytes": 7 << 20}, {},
	}
	for _, e := range script {
		f.invoke(e)
	}
	// An init that fails counts as its own kind of error.
	broken := language{l.name, l.runtime, "absent.handler", l.code}
	d.Create("broken", broken.runtime, broken.handler, broken.code, kiln.Timeout(30))
	function{t, d, "broken"}.invoke(event{})

	d.Create("gate", l.runtime, "gate.handler", kiln.Gate(), kiln.Timeout(300))
	gate := function{t, d, "gate"}
	var work sync.WaitGroup
	work.Go(func() {
		if _, err := gate.try(event{}); err != nil {
			t.Error(err)
		}
	})
	kiln.Await(t, "an invocation that is under way", func() bool { return d.Metric("kiln_environments{", `function="gate"`, `state="busy"`) == 1 })
	const throttled = 4
	for range throttled {
		if _, err := f.try(event{}); err == nil || !strings.Contains(err.Error(), "TooManyRequestsException") {
			t.Errorf("beyond the concurrency, got %v", err)
		}
	}
	d.Open("gate")
	work.Wait()
	// The counts follow the answers, and so does the room for the next invocation.
	own := `function="` + f.name + `"`
	kiln.Await(t, "the last invocation's count", func() bool { return d.Metric("kiln_invocations_total{") >= float64(len(script))+2 })
	for _, want := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{float64(len(script)), "kiln_invocations_total{", []string{own, `version="$LATEST"`}},
		{float64(len(script)), "kiln_invocation_duration_seconds_count{", []string{own}},
		{5, "kiln_invocation_errors_total{", []string{own}},
		{2, "kiln_invocation_errors_total{", []string{own, `kind="handler"`}},
		{1, "kiln_invocation_errors_total{", []string{own, `kind="timeout"`}},
		{1, "kiln_invocation_errors_total{", []string{own, `kind="exit"`}},
		{1, "kiln_invocation_errors_total{", []string{own, `kind="response_too_large"`}},
		{1, "kiln_invocation_errors_total{", []string{`function="broken"`, `kind="init"`}},
		{1, "kiln_invocations_total{", []string{`function="broken"`}},
		{throttled, "kiln_throttles_total{", []string{own, `reason="ConcurrentInvocationLimitExceeded"`}},
		{1, "kiln_invocations_total{", []string{`function="gate"`}},
		{0, "kiln_invocation_errors_total{", []string{`function="gate"`}},
		{1, "kiln_init_duration_seconds_count{", []string{own}},
	} {
		if got := d.Metric(want.name, want.labels...); got != want.value {
			t.Errorf("%s%s: got %v, want %v", want.name, strings.Join(want.labels, ","), got, want.value)
		}
	}
	if got := d.Metric("kiln_invocation_duration_seconds_sum{", own); got < 1 {
		t.Errorf("with a timeout after a second, the durations add up to %v s", got)
	}
}
