package handlers

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"kiln/test/kiln"
)

// documented is the page whose table lists where Kiln's clients differ from AWS's.
const documented = "docs/runtime-clients.md"

// A subject is a function that both clients run.
type subject struct {
	name    string // in the page's table
	handler string
	vars    []string
	number  int    // among those of its runtime
	cases   string // a pattern of the names that it answers an event without one with; "" for one event, {}
}

// TestClients runs AWS's own runtime clients and Kiln's with the same functions
// and events. Each difference in what the caller gets or the log holds must be in
// the page's table, and each of the table must show.
func TestClients(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments("--concurrency", "100")...)
	if !strings.Contains(d.Log.String(), "(driver linux,") {
		t.Skip("AWS's clients are started from /var/task, which is a folder of its own here")
	}
	known := readDifferences(t)
	runs := map[string][]subject{
		"nodejs22.x": append(nodeSubjects("handler", ".", "AWS_LAMBDA_NODEJS_DISABLE_CALLBACK_WARNING", "1"), subject{name: "warned", handler: "index.handler"}),
		"nodejs24.x": nodeSubjects("modern", "^streams: "),
		"python3.11": pythonSubjects()[:2], // it escapes what later ones do not
		"python3.13": pythonSubjects(),
	}
	for runtime := range known {
		if runs[runtime] == nil {
			t.Errorf("%s: there is no comparison for the runtime %q", documented, runtime)
		}
	}
	for _, runtime := range slices.Sorted(maps.Keys(runs)) {
		for i := range runs[runtime] {
			runs[runtime][i].number = i
		}
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			need(t, runtime)
			code := both(t, runtime)
			found := map[string]bool{}
			var mu sync.Mutex // of found
			// Two at once: the machine's cores are all that more would wait for.
			limit := make(chan struct{}, 2)
			t.Run("subjects", func(t *testing.T) {
				for _, s := range runs[runtime] {
					t.Run(s.name, func(t *testing.T) {
						t.Parallel()
						limit <- struct{}{}
						defer func() { <-limit }()
						ours, theirs := observe(t, d, runtime, code, s, "kiln"), observe(t, d, runtime, code, s, "aws")
						if len(ours) != len(theirs) {
							t.Fatalf("%d observations of Kiln's client, %d of AWS's", len(ours), len(theirs))
						}
						for i, want := range theirs {
							got := ours[i]
							for _, field := range want.differs(got) {
								key := strings.Join([]string{s.name, want.event, field}, " | ")
								mu.Lock()
								found[key] = true
								mu.Unlock()
								if !known[runtime][key] {
									t.Errorf("%s\nAWS's:  %s\nKiln's: %s", key, want.field(field), got.field(field))
								}
							}
						}
					})
				}
			})
			for key := range known[runtime] {
				if !found[key] {
					t.Errorf("%s lists a difference that is none: %s", documented, key)
				}
			}
		})
	}
}

func nodeSubjects(export, streams string, vars ...string) []subject {
	list := []subject{
		{name: "text", handler: "index." + export, cases: "."},
		{name: "JSON", handler: "index." + export, vars: []string{"AWS_LAMBDA_LOG_FORMAT", "JSON"}, cases: "^(logs|errors|ends): "},
		{name: "level", handler: "index." + export, vars: []string{"AWS_LAMBDA_LOG_LEVEL", "warn"}, cases: "^logs: "},
		{name: "streamed", handler: "index.streamed", cases: streams},
		{name: "no globals", handler: "index.nested.deep.handler", vars: []string{"AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA", "1"}, cases: "surroundings: symbols"},
		{name: "init in JSON", handler: "throws.handler", vars: []string{"AWS_LAMBDA_LOG_FORMAT", "JSON"}},
	}
	for _, handler := range []string{
		"index.variables", "index.nested.deep.handler", "index.absent", "index.nested.absent.handler", "index.number", "index.three", "index.request", "index.low",
		"index", "a.b/index", "../index.handler", "absent.handler", "absent/index.handler", "syntax.handler", "throws.handler", "text.handler", "needs.handler",
		"exits.handler", "logs.handler", "module.handler", "module.other", "module.default.other", "imports.handler", "waits.handler",
		"throwing.handler", "common.handler", "typed/app.handler", "folder.handler", "folder/index.handler", "guess.handler", "requires.handler", "bare.handler",
		"broken/app.handler",
	} {
		list = append(list, subject{name: handler, handler: handler})
	}
	for i := range list {
		list[i].vars = append(list[i].vars, vars...)
	}
	return list
}

func pythonSubjects() []subject {
	list := []subject{
		{name: "text", handler: "app.handler", cases: "."},
		{name: "JSON", handler: "app.handler", vars: []string{"AWS_LAMBDA_LOG_FORMAT", "JSON", "AWS_LAMBDA_LOG_LEVEL", "INFO"}, cases: "^(logs|errors): |surroundings: (handlers|thread that)"},
		{name: "level", handler: "app.handler", vars: []string{"AWS_LAMBDA_LOG_LEVEL", "DEBUG"}, cases: "^logs: |surroundings: handlers"},
		{name: "init in JSON", handler: "raises.handler", vars: []string{"AWS_LAMBDA_LOG_FORMAT", "JSON"}},
	}
	for _, handler := range []string{
		"app", "app.absent", "app.number", "app.one", "app.defaults", "app.instance", "app.instance.method", "app.Callable", "sys.exit", "absent.handler", "pkg.absent.handler",
		"syntax.handler", "tabs.handler", "raises.handler", "needs.handler", "exits.handler", "prints.handler", "logs.handler", "threads.handler", "base.handler", "nul.handler",
		"pkg.handler", "pkg.sub.mod.handler", "pkg/sub/mod.handler", "pkg/sub.mod.handler", "unicode_é.handler", ".handler", "app.", "/app.handler",
	} {
		list = append(list, subject{name: handler, handler: handler})
	}
	return list
}

// both is a package with the functions, AWS's client, and a wrapper for each client.
func both(t *testing.T, runtime string) []byte {
	t.Helper()
	family := strings.TrimRight(runtime, "0123456789.x")
	files := map[string]string{"wrapper-kiln!": unwrapped + "exec \"$@\"\n"}
	addTree(t, files, "", filepath.Join("testdata", "clients", family))
	client := filepath.Join(kiln.Root(), ".cache", "clients", runtime)
	if _, err := os.Stat(client); err != nil {
		t.Skipf("AWS's client for %s is not installed: scripts/test.sh does that", runtime)
	}
	switch family {
	case "nodejs":
		for _, name := range []string{"index.mjs", "rapid-client.node"} {
			b, err := os.ReadFile(filepath.Join(client, name))
			if err != nil {
				t.Fatal(err)
			}
			files["aws/"+name] = string(b)
		}
		files["aws/main.mjs"] = "import * as client from './index.mjs'\nawait client.run?.(process.env.LAMBDA_TASK_ROOT, process.env._HANDLER)\n" // from 4.0 on it runs by itself
		files["wrapper-aws!"] = unwrapped + lastArgument + "exec \"$@\" /var/task/aws/main.mjs\n"
	case "python":
		addTree(t, files, "aws/", client)
		files["aws-client.py"] = "import os, sys\nsys.path[0] = '/var/task/aws'\nfrom awslambdaric.__main__ import main\nsys.path[0:1] = ['/var/task', '/var/task/aws']\nmain(['', os.environ['_HANDLER']])\n"
		files["wrapper-aws!"] = unwrapped + lastArgument + "exec \"$@\" /var/task/aws-client.py\n"
	}
	return kiln.Zip(files)
}

// unwrapped begins both wrappers, so that functions see the same variables.
const unwrapped = "#!/bin/sh\nunset AWS_LAMBDA_EXEC_WRAPPER\n"

// lastArgument takes the last argument, which is the client, off.
const lastArgument = "n=$#; for a; do shift; n=$((n-1)); [ $n = 0 ] || set -- \"$@\" \"$a\"; done\n"

func addTree(t *testing.T, files map[string]string, prefix, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Contains(path, "__pycache__") {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := strings.CutPrefix(path, dir+"/")
		files[prefix+filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An observation is what the caller and the log got of one event.
type observation struct {
	event                       string
	status, failed, kind, reply string
	log                         string
}

func (o observation) field(name string) string {
	return map[string]string{"status": o.status, "error": o.failed, "type": o.kind, "payload": o.reply, "log": o.log}[name]
}

// differs names the fields in which two observations are not the same.
func (o observation) differs(from observation) (fields []string) {
	for _, name := range []string{"status", "error", "type", "payload", "log"} {
		if o.field(name) != from.field(name) {
			fields = append(fields, name)
		}
	}
	return fields
}

// observe makes the function for one of the clients, and sends it its events.
func observe(t *testing.T, d *kiln.Daemon, runtime string, code []byte, s subject, client string) (list []observation) {
	t.Helper()
	name := fmt.Sprintf("%s-%s-%02d", client, strings.ReplaceAll(runtime, ".", ""), s.number)
	f := function{t, d, name}
	seconds := int32(20)
	if s.name == "streamed" {
		seconds = 2 // one case waits for it
	}
	change := all(timeout(seconds), memory(512), variables(append([]string{"AWS_LAMBDA_EXEC_WRAPPER", "/var/task/wrapper-" + client}, s.vars...)...))
	if err := d.TryCreate(name, runtime, s.handler, code, change); err != nil {
		t.Fatal(err)
	}
	events := []string{"{}"}
	if s.cases != "" {
		var names []string
		if first := f.raw(`{}`, ""); json.Unmarshal([]byte(first.reply), &names) != nil {
			t.Fatalf("%s does not name its cases: %s\n%s", name, first.reply, f.log(1))
		}
		for _, n := range names {
			if regexp.MustCompile(s.cases).MatchString(n) {
				text, err := json.Marshal(map[string]any{"do": n, "k": []any{1, 2.5, nil, "é"}})
				if err != nil {
					t.Fatal(err)
				}
				events = append(events, string(text))
			}
		}
	}
	for i, e := range events {
		if s.cases != "" && i == 0 {
			list = append(list, observation{}) // the event that asked for the names
			continue
		}
		o := f.raw(e, base64.StdEncoding.EncodeToString([]byte(`{"client":{"app_title":"é","installation_id":"i"},"custom":{"a":1},"env":{"e":"f"}}`)))
		var event struct{ Do string }
		_ = json.Unmarshal([]byte(e), &event) // made above
		o.event = event.Do
		list = append(list, o)
	}
	logs := perInvocation(f.log(len(list)))
	if len(logs) != len(list) {
		t.Fatalf("%s: the log shows %d invocations of %d", name, len(logs), len(list))
	}
	for i := range list {
		list[i].log = normal(logs[i], name)
		if s.cases == "" || strings.HasPrefix(list[i].event, "ends: ") || strings.Contains(list[i].log, "RuntimeWarning: ") {
			// Node.js or Python print how they end, and warnings, beside what the client logs, in any order.
			lines := strings.Split(list[i].log, "\n")
			if s.cases == "" && runtime == "nodejs24.x" {
				// It may be ended in the middle of that, when it has reported its init's failure.
				lines = slices.DeleteFunc(lines, func(l string) bool { return !clientLine.MatchString(l) })
			}
			slices.Sort(lines)
			list[i].log = strings.Join(lines, "\n")
		}
		list[i].reply = normal(list[i].reply, name)
	}
	return list
}

// sign gives a request a signature that is well formed, which is what a Kiln without keys asks for.
func sign(r *http.Request) {
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature="+strings.Repeat("0", 64))
	r.Header.Set("X-Amz-Date", "20260101T000000Z")
}

// raw invokes over bare HTTP, where every header shows.
func (f function) raw(event, clientContext string) (o observation) {
	f.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, f.d.URL+"/2015-03-31/functions/"+f.name+"/invocations", strings.NewReader(event))
	if err != nil {
		f.t.Fatal(err)
	}
	sign(r)
	r.Header.Set("X-Amz-Log-Type", "Tail") // the answer then waits until all is logged, and the next event finds the environment
	if clientContext != "" {
		r.Header.Set("X-Amz-Client-Context", clientContext)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return observation{
		status: response.Status, failed: response.Header.Get("X-Amz-Function-Error"), kind: response.Header.Get("Content-Type"), reply: string(body),
	}
}

// platformLine is one that the platform writes, whatever the client.
var platformLine = regexp.MustCompile(`^(START|END|REPORT|INIT_START|INIT_REPORT) `)

// perInvocation is what functions and clients logged up to the end of each invocation.
func perInvocation(log string) (list []string) {
	var now strings.Builder
	for line := range strings.Lines(log) {
		switch {
		case strings.HasPrefix(line, "END RequestId: "):
			list = append(list, now.String())
			now.Reset()
		case !platformLine.MatchString(line):
			now.WriteString(line)
		}
	}
	return list
}

var (
	anyID   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	anyTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	trace   = regexp.MustCompile(`Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0;Lineage=[0-9a-f]{8}:0`)
	stream  = regexp.MustCompile(`\[\$LATEST\][0-9a-f]{32}`)
	address = regexp.MustCompile(`0x[0-9a-f]{6,}`)
	thread  = regexp.MustCompile(`Thread-\d+|\(pid \d+\)`)
	// Frames of a stack that lie in a client or in Node.js itself, and what is left
	// of a stack that had no others.
	clientFrame = regexp.MustCompile(`(,?"|\\n|\n|\r)    +at [^"\\\n\r]*(/var/runtime/|/var/task/aws/|node:)[^"\\\n\r]*"?`)
	// The same for Python, in documents and as printed.
	pythonFrame = regexp.MustCompile(`(, )?"  File \\"(/var/runtime/|/var/task/aws)[^"\\]*\\"(?:[^"\\]|\\.)*"(, )?|(?m:^[ \x{a0}]{2}File "(/var/runtime/|/var/task/aws)[^\n]*\n([ \x{a0}]{4}[^\n]*\n)+)`)
	// Where required modules were required from, which is the client in the end.
	requirer   = regexp.MustCompile(`(- |imported from )(/var/runtime|/var/task/aws)/index\.[cm]js`)
	clientLine = regexp.MustCompile(`^(<time>\t|\{"|RequestId: |Runtime\.ExitError$|loading|about to end)`)
	warning    = regexp.MustCompile(`(?m)^(/var/runtime|/var/task/aws)/\S+:\d+: (RuntimeWarning: .*)\n  .*\n`)
	process    = regexp.MustCompile(`\(node:\d+\)`)
)

// normal leaves out what differs from one run to the next, and what is of a client's insides.
func normal(text, name string) string {
	text = strings.ReplaceAll(text, name, "<name>")
	for pattern, with := range map[*regexp.Regexp]string{
		anyID: "<id>", anyTime: "<time>", trace: "<trace>", stream: "<stream>", address: "<address>", thread: "<thread>",
		clientFrame: "", pythonFrame: "", requirer: "$1<client>", process: "(node)", warning: "<client>: $2\n",
	} {
		text = pattern.ReplaceAllString(text, with)
	}
	if len(text) > 3000 {
		text = text[:3000] + fmt.Sprintf("… %d bytes", len(text))
	}
	return text
}

// readDifferences reads the page's table, by runtime.
func readDifferences(t *testing.T) map[string]map[string]bool {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(kiln.Root(), documented))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]map[string]bool{}
	for _, line := range bytes.Split(page, []byte("\n")) {
		cells := strings.Split(strings.Trim(string(line), "|"), "|")
		if len(cells) != 5 || !strings.Contains(cells[0], "`") {
			continue
		}
		quoted := func(cell string) (list []string) {
			for _, m := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(cell, -1) {
				list = append(list, m[1])
			}
			return list
		}
		for _, runtime := range quoted(cells[0]) {
			if known[runtime] == nil {
				known[runtime] = map[string]bool{}
			}
			for _, where := range quoted(cells[1]) {
				subject, event, _ := strings.Cut(where, " / ")
				for _, field := range strings.Fields(strings.ReplaceAll(cells[2], ",", " ")) {
					known[runtime][strings.Join([]string{subject, event, field}, " | ")] = true
				}
			}
		}
	}
	return known
}
