package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"kiln/test/kiln"
)

// language is one runtime with the handler that does what its event asks for.
type language struct {
	name    string // python, nodejs or go
	runtime string
	handler string
	code    []byte
}

func source(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// goBootstrap builds the handler in Go once.
var goBootstrap = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "kiln-handlers-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "bootstrap")
	cmd := exec.Command("go", "build", "-tags", "lambda.norpc", "-ldflags", "-s -w", "-o", path, "./testdata/gohandler")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return out, err
	}
	return os.ReadFile(path)
})

func python(t *testing.T, runtime string) language {
	t.Helper()
	return language{"python", runtime, "handler.handler", kiln.Zip(map[string]string{"handler.py": source(t, "handler.py"), "wrapper!": wrapper})}
}

func nodejs(t *testing.T, runtime string) language {
	t.Helper()
	return language{"nodejs", runtime, "handler.handler", kiln.Zip(map[string]string{"handler.js": source(t, "handler.js"), "wrapper!": wrapper})}
}

func golang(t *testing.T) language {
	t.Helper()
	program, err := goBootstrap()
	if err != nil {
		t.Fatalf("%v\n%s", err, program)
	}
	return language{"go", "provided.al2023", "any", kiln.Zip(map[string]string{"bootstrap!": string(program)})}
}

// wrapper is an AWS_LAMBDA_EXEC_WRAPPER.
const wrapper = "#!/bin/sh\nexport WRAPPED=\"$#\"\nexec \"$@\"\n"

// nodes are the Node.js versions that scripts/test.sh installed.
func nodes() string {
	found, _ := filepath.Glob(filepath.Join(kiln.Root(), ".cache", "node", "*", "bin")) // the pattern is well formed
	return strings.Join(found, ",")
}

// arguments of a daemon that finds those versions.
func arguments(more ...string) []string {
	if paths := nodes(); paths != "" {
		return append([]string{"--runtime-paths", paths}, more...)
	}
	return more
}

// installed are the runtimes that an interpreter of their own version serves here, the newest first.
func installed(t *testing.T) (ids []string) {
	t.Helper()
	cmd := exec.Command(kiln.Binary(t), append([]string{"doctor", "--json"}, arguments()...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kiln doctor: %v", err)
	}
	var found struct {
		Runtimes []struct{ ID, Program, Substitute string }
	}
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	for _, r := range found.Runtimes {
		if r.Program != "" && r.Substitute == "" {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// need skips the test where that runtime is not installed.
func need(t *testing.T, runtime string) {
	t.Helper()
	if !slices.Contains(installed(t), runtime) {
		t.Skipf("there is no %s on this machine", runtime)
	}
}

// languages are all that this machine has; newest only one version of each.
func languages(t *testing.T, newest bool) (list []language) {
	t.Helper()
	have := map[string]bool{}
	for _, id := range installed(t) {
		family := strings.TrimRight(id, "0123456789.x")
		if newest && have[family] {
			continue
		}
		have[family] = true
		switch family {
		case "python":
			list = append(list, python(t, id))
		case "nodejs":
			list = append(list, nodejs(t, id))
		}
	}
	return append(list, golang(t))
}

// function is one that a test made, and the means to invoke it.
type function struct {
	t    *testing.T
	d    *kiln.Daemon
	name string
}

func (l language) create(t *testing.T, d *kiln.Daemon, change func(*lambda.CreateFunctionInput)) function {
	t.Helper()
	name := strings.NewReplacer("/", "-", ".", "", "#", "-").Replace(t.Name())
	if err := d.TryCreate(name, l.runtime, l.handler, l.code, change); err != nil {
		t.Fatal(err)
	}
	return function{t, d, name}
}

// variables is a change for create.
func variables(pairs ...string) func(*lambda.CreateFunctionInput) {
	return func(in *lambda.CreateFunctionInput) {
		in.Environment = &types.Environment{Variables: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			in.Environment.Variables[pairs[i]] = pairs[i+1]
		}
	}
}

func timeout(seconds int32) func(*lambda.CreateFunctionInput) { return kiln.Timeout(seconds) }

func memory(mb int32) func(*lambda.CreateFunctionInput) {
	return func(in *lambda.CreateFunctionInput) { in.MemorySize = &mb }
}

func all(changes ...func(*lambda.CreateFunctionInput)) func(*lambda.CreateFunctionInput) {
	return func(in *lambda.CreateFunctionInput) {
		for _, change := range changes {
			change(in)
		}
	}
}

// event is what the handlers take.
type event map[string]any

// reply is what came of an invocation.
type reply struct {
	payload string
	failed  string // X-Amz-Function-Error
	tail    string // of the log
	id      string // of the request
}

var requestID = regexp.MustCompile(`(?:END RequestId: |"requestId":")([0-9a-f-]{36})`)

func (f function) invoke(e event) reply {
	f.t.Helper()
	r, err := f.try(e)
	if err != nil {
		f.t.Fatalf("invoke with %v: %v", e, err)
	}
	return r
}

func (f function) try(e event) (reply, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return reply{}, err
	}
	out, err := f.d.Client().Invoke(context.Background(), &lambda.InvokeInput{FunctionName: &f.name, Payload: text, LogType: types.LogTypeTail})
	if err != nil {
		return reply{}, err
	}
	tail, err := decode(aws.ToString(out.LogResult))
	r := reply{payload: string(out.Payload), failed: aws.ToString(out.FunctionError), tail: tail}
	if m := requestID.FindStringSubmatch(r.tail); m != nil {
		r.id = m[1]
	}
	return r, err
}

// ok is invoke for what succeeds, with the answer decoded.
func (f function) ok(e event, answer any) reply {
	f.t.Helper()
	r := f.invoke(e)
	if r.failed != "" {
		f.t.Fatalf("%v failed: %s\n%s", e, r.payload, r.tail)
	}
	if err := json.Unmarshal([]byte(r.payload), answer); err != nil {
		f.t.Fatalf("%v in %s", err, r.payload)
	}
	return r
}

// fails is invoke for what ends in a function error with exactly this document.
func (f function) fails(e event, errorType, message string) reply {
	f.t.Helper()
	r := f.invoke(e)
	want, err := json.Marshal(struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}{errorType, strings.ReplaceAll(message, "<id>", r.id)})
	if err != nil {
		f.t.Fatal(err)
	}
	if r.failed != "Unhandled" || r.payload != string(want) {
		f.t.Errorf("%v: got %q %s\nwant %s\n%s", e, r.failed, r.payload, want, r.tail)
	}
	return r
}

// log is the function's whole log, once it holds that many REPORT lines.
func (f function) log(reports int) string {
	f.t.Helper()
	var text []byte
	kiln.Await(f.t, "the log of "+f.name, func() bool {
		text = text[:0]
		for _, message := range f.events() {
			text = append(append(text, strings.TrimSuffix(message, "\n")...), '\n')
		}
		return bytes.Count(text, []byte("REPORT RequestId: "))-bytes.Count(text, []byte("INIT_REPORT RequestId: ")) >= reports
	})
	return string(text)
}

// events are the messages of the function's log events; none where it has no log yet.
func (f function) events() (messages []string) {
	f.t.Helper()
	cmd := exec.Command(kiln.Binary(f.t), "logs", f.name, "--json", "--endpoint", f.d.URL)
	out, err := cmd.Output()
	if err != nil {
		return nil
	}
	for lines := json.NewDecoder(bytes.NewReader(out)); lines.More(); {
		var e struct{ Message string }
		if err := lines.Decode(&e); err != nil {
			f.t.Fatal(err)
		}
		messages = append(messages, e.Message)
	}
	return messages
}

// matches checks a log against a pattern for each of its lines, or for several.
func matches(t *testing.T, log string, patterns ...string) {
	t.Helper()
	whole := `(?s)\A` + strings.Join(patterns, `\n`) + `\n\z`
	if !regexp.MustCompile(whole).MatchString(log) {
		t.Errorf("got the log\n%s\nwant lines that match\n%s", log, strings.Join(patterns, "\n"))
	}
}

// Lines of the platform.
const (
	id         = `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`
	start      = `START RequestId: ` + id + ` Version: \$LATEST`
	end        = `END RequestId: ` + id
	report     = `REPORT RequestId: ` + id + `\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: \d+ MB\tMax Memory Used: \d+ MB\t`
	coldReport = report + `Init Duration: \d+\.\d\d ms\t`
	anyReport  = report + `(?:Init Duration: \d+\.\d\d ms\t)?`
	initStart  = `INIT_START Runtime Version: [a-z]+:[^\t]+\tRuntime Version ARN: arn:aws:lambda:us-east-1::runtime:[0-9a-f]{64}\t?`
	initReport = `INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: `
)
