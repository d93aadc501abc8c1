package handlers

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"kiln/test/kiln"
)

// A compiled case is one event for a program that brings its own client.
type compiled struct {
	name, event string
	want        string // a pattern of the payload
	failed      bool
	logs        string // a pattern of a line, or ""
}

// mobileClient is a client context with all fields: Rust's client wants every one.
const mobileClient = `{"client":{"installation_id":"i","app_title":"t","app_version_name":"1","app_version_code":"1","app_package_name":"p"},"custom":{"k":"v"},"env":{"e":"f"}}`

func (c compiled) check(t *testing.T, f function) {
	t.Helper()
	o := f.raw(c.event, base64.StdEncoding.EncodeToString([]byte(mobileClient)))
	if (o.failed != "") != c.failed || !regexp.MustCompile(`^(?s:`+c.want+`)$`).MatchString(o.reply) {
		t.Errorf("%s: got %q %s, want %s", c.name, o.failed, o.reply, c.want)
	}
	if c.logs != "" && !regexp.MustCompile(`(?m)`+c.logs).MatchString(f.log(0)) {
		t.Errorf("%s: no line like %s in\n%s", c.name, c.logs, f.log(0))
	}
}

// TestGo has handlers of every form that AWS's client for Go takes, and of those
// that it refuses: at each invocation, not at init.
func TestGo(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	l := golang(t)
	plain := func(kind, errorType string) string {
		return `{"errorMessage":"` + kind + `","errorType":"` + errorType + `"}`
	}
	const frames = `,"stackTrace":\[\{"path":"[^"]+","line":\d+,"label":"[^"]+"\}.*\]\}`
	for _, c := range []compiled{
		{"number", `1`, plain("handler kind int is not func", "errorString"), true, ""},
		{"nil", `1`, plain("handler is nil", "errorString"), true, ""},
		{"three arguments", `1`, plain("handlers may not take more than two arguments, but handler takes 3", "errorString"), true, ""},
		{"no context first", `1`, plain("handler takes two arguments, but the first is not Context. got string", "errorString"), true, ""},
		{"three results", `1`, plain("handler may not return more than two values", "errorString"), true, ""},
		{"no error second", `1`, plain("handler returns two values, but the second does not implement error", "errorString"), true, ""},
		{"no error", `1`, plain("handler returns a single value, but it does not implement error", "errorString"), true, ""},
		{"nothing", `1`, `null`, false, ""},
		{"error", `1`, `null`, false, ""},
		{"in", `"x"`, `null`, false, ""},
		{"out", `1`, `"<out>"`, false, ""},
		{"in and out", `"é"`, `"éé"`, false, ""},
		{"context", `1`, `null`, false, ""},
		{"handler", `[1, 2]`, `\{"raw":\[1, 2\]\}`, false, ""},
		{"wrong in", `"x"`, `\{"errorMessage":"json: cannot unmarshal string into Go value of type int","errorType":"UnmarshalTypeError"\}`, true, ""},
		{"value", `1`, plain("v", "value"), true, `"errorType":"value"`},
		{"pointer", `1`, plain("p", "value"), true, ""},
		{"wrapped", `1`, plain("outer: inner", "wrapError"), true, ""},
		{"document", `1`, plain("own", "Own"), true, ""},
		{"panic of error", `1`, `\{"errorMessage":"panicked","errorType":"value"` + frames, true, `calling the handler function resulted in a panic, the process should exit`},
		{"panic of nil", `1`, `\{"errorMessage":"assignment to entry in nil map","errorType":"plainError"` + frames + `|.*"errorType":"Error".*`, true, ""},
		{"reader", `1`, `read`, false, ""},
		{"typed", `1`, `<p>`, false, ""},
		{"broken", `1`, `\{"errorMessage":"the other half","errorType":"value"\}`, true, ""},
		{"who", `1`, `\{"client":\{[^}]*"app_title":"t"[^}]*\},"custom":\{"k":"v"\},"env":\{"e":"f"\},"identity":"","trace":"Root=1-[^"]+"\}`, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := l.create(t, d, all(timeout(30), variables("KIND", c.name)))
			for range 2 { // whatever came of the first, the second is served
				c.check(t, f)
			}
		})
	}
}

// rustPrograms builds the handler and the extension in Rust once, and returns their
// folder. Their crates are compiled once a machine.
var rustPrograms = sync.OnceValues(func() (string, error) {
	target := filepath.Join(kiln.Root(), ".cache", "rust")
	cmd := exec.Command("cargo", "build", "--quiet", "--target-dir", target)
	cmd.Dir = filepath.Join("testdata", "rusthandler")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return filepath.Join(target, "debug"), nil
})

func rust(t *testing.T, program string) string {
	t.Helper()
	if out, err := exec.Command("cargo", "--version").Output(); err != nil || regexp.MustCompile(`^cargo (0|1\.([0-7]\d|8[0-4]|\d))\.`).Match(out) {
		t.Skipf("AWS's client needs Rust 1.85 or newer: %s %v", out, err)
	}
	dir, err := rustPrograms()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, program))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRust has what AWS's client for Rust does.
func TestRust(t *testing.T) {
	t.Parallel()
	program := rust(t, "bootstrap")
	d := kiln.Start(t)
	l := language{"rust", "provided.al2023", "any", kiln.Zip(map[string]string{"bootstrap!": program})}
	const boxed = `&alloc::boxed::Box<dyn core::error::Error \+ core::marker::Send \+ core::marker::Sync>`
	document := func(errorType, message string) string {
		return `\{"errorType":"` + errorType + `","errorMessage":"` + message + `"\}`
	}
	for _, group := range []struct {
		name  string
		vars  []string
		cases []compiled
	}{
		{"plain", []string{"ANSWERS", "plainly"}, []compiled{
			{"event", `{"a":[1,"é",null]}`, `\{"a":\[1,"é",null\]\}`, false, "^main begins$"},
			{"nothing", `{"do":"nothing"}`, `null`, false, ""},
			{"error", `{"do":"fail"}`, document(boxed, "boom ü"), true, "boom ü"},
			{"another type of error", `{"do":"number"}`, document(boxed, "invalid digit found in string"), true, ""},
			{"panic", `{"do":"panic"}`, document(`[^"]+`, "Lambda panicked: at the disco"), true, "at the disco"},
			{"after a panic", `1`, `1`, false, ""},
			{"exit", `{"do":"exit"}`, `\{"errorType":"Runtime.ExitError","errorMessage":"RequestId: ` + id + ` Error: Runtime exited with error: exit status 3"\}`, true, ""},
			{"context", `{"do":"context"}`, `\{"arn":"arn:aws:lambda:us-east-1:000000000000:function:TestRust-plain","custom":\{"k":"v"\},"group":"/aws/lambda/TestRust-plain","id":"` + id +
				`","left":\d+,"memory":"128","name":"TestRust-plain","stream":"[^"]+","tenant":null,"trace":"Root=1-[^"]+","variable":"Root=1-[^"]+","version":"\$LATEST"\}`, false, ""},
			{"log", `{"do":"log"}`, `null`, false, `INFO.*an info line`},
		}},
		{"JSON logs", []string{"AWS_LAMBDA_LOG_FORMAT", "JSON", "AWS_LAMBDA_LOG_LEVEL", "debug"}, []compiled{
			{"log", `{"do":"log"}`, `null`, false, `^\{"level":"DEBUG","fields":\{"message":"a debug line"\},`},
		}},
		{"chosen", []string{"ANSWERS", "chosen errors"}, []compiled{
			{"error", `{"do":"fail"}`, document("Chosen", "boom ü"), true, ""},
		}},
		{"streams", []string{"ANSWERS", "streams"}, []compiled{
			{"whole", `{}`, `\{"statusCode":200,"headers":\{"content-type":"application/octet-stream"\},"cookies":\[\]\}\x00{8}one two`, false, ""},
			// This client writes its trailers into the body.
			{"aborted", `{"do":"fail"}`, `.*one twoLambda-Runtime-Function-Error-Type: Runtime\.StreamError\r\n.*`, false, ""},
			{"after that", `{}`, `.*one two`, false, ""},
		}},
	} {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			f := l.create(t, d, all(timeout(30), variables(group.vars...)))
			for _, c := range group.cases {
				c.check(t, f)
			}
		})
	}
}
