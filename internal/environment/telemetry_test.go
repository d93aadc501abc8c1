package environment_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kiln/internal/environment/environmenttest"
	"kiln/internal/lambda"
)

// inbox is what one extension was sent. It listens outside of the environment,
// which has the network of the machine here.
type inbox struct {
	mu     sync.Mutex
	events []sent // guarded by mu
}

type sent struct {
	Time, Type string
	Record     json.RawMessage
}

func (b *inbox) add(list ...sent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, list...)
}

func (b *inbox) list() []sent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.events)
}

// http returns a destination over HTTP.
func (b *inbox) http(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var list []sent
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			t.Error(err)
		}
		b.add(list...)
	}))
	t.Cleanup(server.Close)
	return fmt.Sprintf(`{'protocol': 'HTTP', 'URI': 'http://sandbox.localdomain:%d'}`, server.Listener.Addr().(*net.TCPAddr).Port)
}

// tcp returns a destination over TCP.
func (b *inbox) tcp(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for lines := bufio.NewReader(c); ; {
				text, err := lines.ReadBytes('\n')
				if err != nil {
					break
				}
				var e sent
				if err := json.Unmarshal(text, &e); err != nil {
					t.Errorf("%s: %v", text, err)
				}
				b.add(e)
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); work.Wait() })
	return fmt.Sprintf(`{'protocol': 'TCP', 'port': %d}`, l.Addr().(*net.TCPAddr).Port)
}

// subscribes is what a Python extension does to subscribe.
func subscribes(path, schema, types, destination string) string {
	return fmt.Sprintf(`
reply = call('PUT', '%s', {'schemaVersion': '%s', 'types': %s, 'destination': %s, 'buffering': {'timeoutMs': 25}})
if reply[0] != 200: sys.exit(str(reply))
`, path, schema, types, destination)
}

// compare compares what was sent with patterns, each TYPE RECORD. Lines of the
// function and the extensions come in any order.
func (b *inbox) compare(t *testing.T, what string, id lambda.RequestID, want []string) {
	t.Helper()
	var got []string
	var lines []string
	for _, e := range b.list() {
		if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`).MatchString(e.Time) {
			t.Errorf("%s: time %q", what, e.Time)
		}
		text := e.Type + " " + string(e.Record)
		if strings.HasPrefix(e.Type, "platform.") {
			got = append(got, text)
		} else {
			lines = append(lines, text)
		}
	}
	slices.Sort(lines)
	got = append(got, lines...)
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) {
			t.Errorf("%s: %d events, want %d:\n%s", what, len(got), len(want), strings.Join(got, "\n"))
			return
		}
		pattern := strings.NewReplacer(
			"MS", `[\d.]+`, "ID", string(id), "SPANS", `"spans":\[(\{"name":"(responseLatency|responseDuration|runtimeOverhead)","start":"[^"]+","durationMs":[\d.]+\},?){3}\]`,
			"OVERHEAD", `"spans":\[\{"name":"extensionOverhead","start":"[^"]+","durationMs":[\d.]+\}\]`,
		).Replace(want[i])
		if !regexp.MustCompile("^" + pattern + "$").MatchString(got[i]) {
			t.Errorf("%s: event %d is\n%s\nwant\n%s", what, i, got[i], pattern)
		}
	}
}

// TestTelemetry has subscribers of every schema, over HTTP and TCP, and compares
// all they get in a life with a success, a failure and a timeout. The log's format
// and level change nothing but the form of lines.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"Text", "JSON"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			testTelemetry(t, format)
		})
	}
}

func testTelemetry(t *testing.T, format string) {
	var old, current, newest, logs, logs2021, functionOnly inbox
	const all, telemetry, logsAPI = "['platform', 'function', 'extension']", "/2022-07-01/telemetry", "/2020-08-15/logs"
	quiet := func(before string) string { return environmenttest.Extension([]string{"SHUTDOWN"}, before, "") }
	r := newExtended(t, environmenttest.Bootstrap(`echo "module"`, `
		case $event in
		1) echo '{"level":"INFO"}'; answer=11 ;;
		2) post "invocation/$id/error" '{"errorType":"T"}'; continue ;;
		3) sleep 1000 ;;
		esac`), map[string]string{
		"a-old":     quiet(subscribes(telemetry, "2022-07-01", all, old.tcp(t))),
		"b-current": ext(subscribes(telemetry, "2022-12-13", all, current.http(t))+"say('hello')", "time.sleep(0.3)"),
		"c-newest":  quiet(subscribes(telemetry, "2025-01-29", "['platform']", newest.tcp(t))),
		"d-logs":    quiet(subscribes(logsAPI, "2020-08-15", all, logs.http(t))),
		"e-logs":    quiet(subscribes(logsAPI, "2021-03-18", "['platform']", logs2021.tcp(t))),
		"f-lines":   quiet(subscribes(telemetry, "2022-12-13", "['function']", functionOnly.http(t))),
	}, func(f *lambda.Function) {
		f.Settings.Timeout = 2 * time.Second
		f.Settings.Logging.Format = format
		if format == "JSON" {
			f.Settings.Logging.SystemLevel, f.Settings.Logging.ApplicationLevel = "WARN", "ERROR"
		}
	})
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := lambda.NewRequestID()
	for n := range 3 {
		inv := environmenttest.Invocation(r.fn, fmt.Sprint(n+1))
		inv.ID = id
		if n == 0 {
			inv.TraceHeader = "Root=1"
		}
		r.invoke(inv)
	}
	r.end()
	if t.Failed() {
		t.Log(strings.Join(r.Log(), "\n"))
	}

	const subscribed = `platform.%sSubscription \{"name":"%s","state":"Subscribed","types":\[%s\]\}`
	const everything = `"platform","function","extension"`
	// Subscriptions come in any order, and those of the others are told too.
	drop := func(b *inbox) *inbox {
		var kept inbox
		for _, e := range b.list() {
			if !strings.HasSuffix(e.Type, "Subscription") && e.Type != "platform.extension" {
				kept.add(e)
			}
		}
		return &kept
	}
	for name, b := range map[string]*inbox{"a-old": &old, "b-current": &current, "c-newest": &newest, "d-logs": &logs, "e-logs": &logs2021} {
		counts := map[string]int{}
		for _, e := range b.list() {
			counts[e.Type]++
		}
		if counts["platform.telemetrySubscription"] != 4 || counts["platform.logsSubscription"] != 2 || counts["platform.extension"] != 6 {
			t.Errorf("%s: %v", name, counts)
		}
	}
	own := fmt.Sprintf(subscribed, "telemetry", "b-current", everything)
	if !slices.ContainsFunc(current.list(), func(e sent) bool {
		return regexp.MustCompile("^" + own + "$").MatchString(e.Type + " " + string(e.Record))
	}) {
		t.Errorf("no %s", own)
	}
	if !slices.ContainsFunc(logs.list(), func(e sent) bool {
		return e.Type == "platform.extension" && string(e.Record) == `{"name":"b-current","state":"Ready","events":["INVOKE","SHUTDOWN"]}`
	}) {
		t.Error("no platform.extension of b-current")
	}

	const init = `\{"initializationType":"on-demand","phase":"init",`
	const start = `platform.start \{"requestId":"ID","version":"\$LATEST"`
	const metrics = `"metrics":\{"durationMs":MS,"billedDurationMs":\d+,"memorySizeMB":128,"maxMemoryUsedMB":\d+`
	platform := []string{
		`platform.initStart ` + init + `"functionName":"f","functionVersion":"\$LATEST","functionArn":"arn:aws:lambda:us-east-1:000000000000:function:f","instanceId":"[0-9a-f]{32}","instanceMaxMemory":128\}`,
		`platform.initRuntimeDone ` + init + `"status":"success"\}`,
		`platform.initReport ` + init + `"metrics":\{"durationMs":MS\},"status":"success"\}`,
		start + `,"tracing":\{"type":"X-Amzn-Trace-Id","value":"Root=1"\}\}`,
		`platform.runtimeDone \{"requestId":"ID","status":"success","metrics":\{"durationMs":MS,"producedBytes":2\},SPANS\}`,
		`platform.report \{"requestId":"ID",` + metrics + `,"initDurationMs":MS\},"status":"success",OVERHEAD\}`,
		start + `\}`,
		`platform.runtimeDone \{"requestId":"ID","status":"error","metrics":\{"durationMs":MS,"producedBytes":17\},SPANS\}`,
		`platform.report \{"requestId":"ID",` + metrics + `\},"status":"error",OVERHEAD\}`,
		start + `\}`,
		`platform.runtimeDone \{"requestId":"ID","status":"timeout","metrics":\{"durationMs":MS,"producedBytes":0\}\}`,
		`platform.report \{"requestId":"ID",` + metrics + `\},"status":"timeout"\}`,
	}
	done := func(status string) string {
		return `platform.runtimeDone \{"requestId":"ID","status":"` + status + `"\}`
	}
	const fault = `platform.fault ".*Task timed out after 2.00 seconds"`
	const end = `platform.end \{"requestId":"ID"\}`
	const report = `platform.report \{"requestId":"ID",` + metrics + `\}\}`
	const cold = `platform.report \{"requestId":"ID",` + metrics + `,"initDurationMs":MS\}\}`
	line := `function "\{\\"level\\":\\"INFO\\"\}"`
	object := line
	if format == "JSON" {
		object = `function \{"level":"INFO"\}`
	}
	const hello, module = `extension "b-current hello"`, `function "module"`
	drop(&old).compare(t, "2022-07-01", id, append(slices.Clone(platform), hello, module, line))
	drop(&current).compare(t, "2022-12-13", id, append(slices.Clone(platform), hello, module, object))
	drop(&newest).compare(t, "2025-01-29", id, platform)
	drop(&logs).compare(t, "2020-08-15", id, []string{start + `\}`, end, cold, start + `\}`, end, report, start + `\}`, fault, end, report, hello, module, line})
	drop(&logs2021).compare(t, "2021-03-18", id, []string{
		start + `\}`, done("success"), end, cold, start + `\}`, done("error"), end, report, start + `\}`, done("timeout"), fault, end, report,
	})
	drop(&functionOnly).compare(t, "function only", id, []string{module, object})

	log := strings.Join(r.Log(), "\n")
	inLog := []string{"TELEMETRY\tName: b-current\tState: Subscribed\tTypes: [Platform, Function, Extension]", "LOGS\tName: e-logs\tState: Subscribed\tTypes: [Platform]"}
	if format == "JSON" {
		inLog = []string{`"type":"platform.runtimeDone","record":{"requestId":"` + string(id) + `","status":"timeout"`}
		if strings.Contains(log, "platform.start") || strings.Contains(log, "Subscription") {
			t.Errorf("the log has what is below its level:\n%s", log)
		}
	}
	for _, want := range inLog {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

// TestTelemetrySlow has subscribers that answer nothing or do not listen: the
// invocations are as quick as without.
func TestTelemetrySlow(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-stop
	}))
	defer server.Close()
	defer close(stop)
	const all = "['platform', 'function', 'extension']"
	mute := fmt.Sprintf(`{'protocol': 'HTTP', 'URI': 'http://sandbox:%d/'}`, server.Listener.Addr().(*net.TCPAddr).Port)
	r := newExtended(t, environmenttest.Bootstrap("", `for i in {1..1000}; do echo "a line of output number $i"; done; answer=$event`), map[string]string{
		"mute":   environmenttest.Extension(nil, subscribes("/2022-07-01/telemetry", "2022-12-13", all, mute), ""),
		"absent": environmenttest.Extension(nil, subscribes("/2022-07-01/telemetry", "2022-12-13", all, `{'protocol': 'TCP', 'port': 1}`), ""),
	}, nil)
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n := range 50 {
		result, outcome := r.invoke(environmenttest.Invocation(r.fn, fmt.Sprint(n)))
		if string(result.Payload) != fmt.Sprint(n) || outcome.Duration > 5*time.Second {
			t.Errorf("%+v, %s", outcome, result.Payload)
		}
	}
	begin := time.Now()
	r.end()
	if took := time.Since(begin); took > 1900*time.Millisecond {
		t.Errorf("the end took %s", took)
	}
	if n := len(r.Log()); n < 50_000 {
		t.Errorf("%d lines are logged", n)
	}
}
