package handlers

import (
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"kiln/test/kiln"
)

// TestExtensions has external and internal extensions in a real daemon, sealed in
// where this machine allows it: what they listen on is inside.
func TestExtensions(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime", "--idle-timeout", "1s")
	sealed := strings.Contains(d.Log.String(), "(driver linux,")

	t.Run("telemetry", func(t *testing.T) {
		t.Parallel()
		if !sealed {
			t.Skip("the extensions listen on fixed ports, under a name that only a sandbox has")
		}
		listener := source(t, "listener.py")
		layer := publish(t, d, "listeners", map[string]string{"extensions/http!": listener, "extensions/tcp!": listener})
		f := anyPython(t).create(t, d, all(timeout(30), layers(layer)))
		var count int
		r := f.ok(event{}, &count)
		f.ok(event{"do": "print", "lines": []string{"one", "two"}}, new(any))
		log := ended(f, "http ends with ", "tcp ends with ")
		const cold = "platform.initStart function platform.initRuntimeDone platform.initReport"
		const invocation = " platform.start%s platform.runtimeDone platform.report"
		for _, name := range []string{"http", "tcp"} {
			want := name + " ends with spindown " + cold + strings.ReplaceAll(invocation, "%s", "") + strings.ReplaceAll(invocation, "%s", "( function)+")
			if !regexp.MustCompile("(?m)^" + want + "$").MatchString(log) {
				t.Errorf("no line %q in\n%s", want, log)
			}
			if line := "TELEMETRY\tName: " + name + "\tState: Subscribed\tTypes: [Platform, Function]"; !strings.Contains(log, line) {
				t.Errorf("no line %q in\n%s", line, log)
			}
		}
		if _, _, _, init := figures(t, r); init <= 0 {
			t.Errorf("no Init Duration in %s", r.tail)
		}
	})
	t.Run("reasons", func(t *testing.T) {
		t.Parallel()
		layer := publish(t, d, "reasons", map[string]string{"extensions/reason!": reasons})
		f := anyPython(t).create(t, d, all(timeout(2), layers(layer)))
		f.fails(event{"do": "sleep", "seconds": 60}, "Sandbox.Timedout", "RequestId: <id> Error: Task timed out after 2.00 seconds")
		f.fails(event{"do": "exit", "code": 1}, "Runtime.ExitError", "RequestId: <id> Error: Runtime exited with error: exit status 1")
		var count int
		if f.ok(event{}, &count); count != 1 {
			t.Errorf("the new environment counts %d", count)
		}
		ended(f, "ends with timeout\n", "ends with failure\n", "ends with spindown\n")
	})
	t.Run("crash", func(t *testing.T) {
		t.Parallel()
		layer := publish(t, d, "crashes", map[string]string{"extensions/crash!": "#!/bin/sh\necho I crash\nexit 3\n"})
		f := anyPython(t).create(t, d, all(timeout(30), layers(layer)))
		for range 2 {
			f.fails(event{}, "Extension.Crash", "RequestId: <id> Error: exit status 3")
		}
		if log := f.log(2); !strings.Contains(log, "I crash\n") || !strings.Contains(log, "EXTENSION\tName: crash\tState: Exited\tEvents: []\tError Type: Extension.Crash") {
			t.Errorf("got the log\n%s", log)
		}
	})
	t.Run("internal", func(t *testing.T) {
		t.Parallel()
		l := anyPython(t)
		l.handler, l.code = "internal.handler", kiln.Zip(map[string]string{"internal.py": source(t, "internal.py")})
		f := l.create(t, d, timeout(30))
		for range 3 {
			var told bool
			r := f.ok(event{}, &told)
			if !told {
				t.Errorf("the extension was not told of the invocation")
			}
			if took, billed, _, init := figures(t, r); took < 90 || billed < math.Floor(took+init) {
				t.Errorf("Duration %v, Billed Duration %v: the extension takes 100 ms", took, billed)
			}
		}
		if log := f.log(3); !strings.Contains(log, "EXTENSION\tName: inside\tState: Ready\tEvents: [INVOKE]\n") {
			t.Errorf("got the log\n%s", log)
		}
		if n := d.Metric("kiln_post_runtime_extensions_duration_seconds_count{", `function="`+f.name+`"`); n != 3 {
			t.Errorf("%v invocations with extensions are counted", n)
		}
	})
	t.Run("rust", func(t *testing.T) {
		t.Parallel()
		if !sealed {
			t.Skip("this client listens on a fixed port")
		}
		layer := publish(t, d, "rust", map[string]string{"extensions/rust!": rust(t, "extension")})
		f := anyPython(t).create(t, d, all(timeout(30), layers(layer)))
		var count int
		r := f.ok(event{}, &count)
		log := ended(f, "rust ends with ")
		want := `(?m)^rust ends with spindown: PlatformInitStart PlatformTelemetrySubscription Function\(module begins\) PlatformInitRuntimeDone PlatformExtension PlatformInitReport PlatformStart PlatformRuntimeDone PlatformReport$`
		if !regexp.MustCompile(want).MatchString(log) || !strings.Contains(log, "rust invoked for "+r.id+"\n") {
			t.Errorf("want %s in\n%s", want, log)
		}
	})
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		if !sealed {
			t.Skip("only a sandbox knows what a runtime that is gone has left")
		}
		layer := publish(t, d, "streams", map[string]string{"extensions/reason!": reasons})
		l := language{"bash", "provided.al2023", "any", kiln.Bash("begin; chunk one; sleep 0.5; trap '' TERM; sleep 1000 & exit 3")}
		f := l.create(t, d, all(timeout(60), layers(layer)))
		begin := time.Now()
		// The child holds the connection on which the answer has not ended.
		if s := f.stream(goStreamer, event{}, "", nil); s.complete.ErrorCode != "Runtime.TruncatedResponse" {
			t.Errorf("got %+v", s)
		}
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("the end of the answer came after %s", took)
		}
		ended(f, "ends with failure\n")
	})
	t.Run("SIGTERM", func(t *testing.T) {
		t.Parallel()
		f := golang(t).create(t, d, variables("INIT", "sigterm"))
		var count int
		f.ok(event{}, &count)
		ended(f, "terminated\n")
	})
}

// reasons is an extension that says why it ends.
const reasons = `#!/usr/bin/env python3
import http.client, json, os, sys
api = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])
api.request('POST', '/2020-01-01/extension/register', '{"events":["SHUTDOWN"]}', {'Lambda-Extension-Name': 'reason'})
reply = api.getresponse()
reply.read()
api.request('GET', '/2020-01-01/extension/event/next', headers={'Lambda-Extension-Identifier': reply.headers['Lambda-Extension-Identifier']})
print('ends with', json.loads(api.getresponse().read())['shutdownReason'], flush=True)
`

// ended waits until the log has all of the texts, which are written at the end of an
// environment, and returns it.
func ended(f function, texts ...string) (log string) {
	f.t.Helper()
	kiln.Await(f.t, "the end of "+f.name+" in its log", func() bool {
		log = f.log(0)
		for _, text := range texts {
			if !strings.Contains(log, text) {
				return false
			}
		}
		return true
	})
	return log
}

// TestExtensionsStop stops a daemon with an environment whose extension obeys
// nothing, and kills another. The end is bounded, and nothing is left.
func TestExtensionsStop(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime", "--account", kiln.Account())
	deaf := strings.Replace(reasons, "print(", "import time, signal\nsignal.signal(15, signal.SIG_IGN)\nprint(", 1) + "time.sleep(1000)\n"
	f := anyPython(t).create(t, d, all(timeout(30), layers(publish(t, d, "deaf", map[string]string{"extensions/reason!": deaf}))))
	var count int
	f.ok(event{}, &count)
	begin := time.Now()
	d.Stop()
	if took := time.Since(begin); took < 2*time.Second || took > 15*time.Second {
		t.Errorf("the stop took %s", took)
	}
	d.NothingLeft()
	d.Start()
	if log := f.log(1); !strings.Contains(log, "ends with spindown\n") {
		t.Errorf("got the log\n%s", log)
	}
	f.ok(event{}, &count)
	d.Kill()
	d.NothingLives()
}
