package runtimeapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
	"kiln/internal/telemetry/delivery"
)

const extensions = "/2020-01-01/extension/"

func (r *rig) register(name, body string) reply {
	r.t.Helper()
	return r.do("POST", extensions+"register", body, "Lambda-Extension-Name", name)
}

// enrol registers an extension, and returns what it identifies itself with.
func (r *rig) enrol(name string, events ...string) string {
	r.t.Helper()
	body, err := json.Marshal(map[string][]string{"events": events})
	if err != nil {
		r.t.Fatal(err)
	}
	got := r.register(name, string(body))
	if got.status != http.StatusOK {
		r.t.Fatalf("register %s: %d %s", name, got.status, got.body)
	}
	return got.header.Get("Lambda-Extension-Identifier")
}

func (r *rig) event(id string) reply {
	r.t.Helper()
	return r.do("GET", extensions+"event/next", "", "Lambda-Extension-Identifier", id)
}

// later is the reply to a request that waits; empty when the server ends first.
func (r *rig) later(path string, headers ...string) <-chan reply {
	c := make(chan reply, 1)
	go func() { // ends with the server at the latest
		got, _ := r.try("GET", path, "", headers...)
		c <- got
	}()
	return c
}

func (r *rig) laterNext() <-chan reply { return r.later(prefix + "invocation/next") }

func (r *rig) laterEvent(id string) <-chan reply {
	return r.later(extensions+"event/next", "Lambda-Extension-Identifier", id)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// until waits for the server to notice something.
func until(t failer, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

func (r *rig) state(name string) runtimeapi.ExtensionState {
	for _, x := range r.Extensions() {
		if x.Name == name {
			return x.State
		}
	}
	return ""
}

func (r *rig) inState(name string, state runtimeapi.ExtensionState) {
	r.t.Helper()
	until(r.t, name+" "+string(state), func() bool { return r.state(name) == state })
}

func TestRegister(t *testing.T) {
	t.Parallel()
	r := newRig(t, "ext.sh")
	defer r.close()
	if closed(r.Registered()) {
		t.Error("all registered before any did")
	}
	got := r.do("POST", extensions+"register", `{"events":["INVOKE","SHUTDOWN","INVOKE"]}`,
		"Lambda-Extension-Name", "ext.sh", "Lambda-Extension-Accept-Feature", "other, accountId")
	if got.status != 200 || got.body != `{"functionName":"f","functionVersion":"7","handler":"a.b","accountId":"123456789012"}` || len(got.header.Get("Lambda-Extension-Identifier")) != 36 {
		t.Errorf("got %+v", got)
	}
	if !closed(r.Registered()) {
		t.Error("not all registered after the last did")
	}
	if got := r.register("internal", `{"events":["INVOKE"]}`); got.body != `{"functionName":"f","functionVersion":"7","handler":"a.b"}` {
		t.Errorf("got %+v", got)
	}
	want := []runtimeapi.Extension{
		{Name: "ext.sh", External: true, State: "Registered", Events: []string{"INVOKE", "SHUTDOWN"}},
		{Name: "internal", State: "Registered", Events: []string{"INVOKE"}},
	}
	if list := r.Extensions(); fmt.Sprint(list) != fmt.Sprint(want) {
		t.Errorf("the extensions are %v, want %v", list, want)
	}
}

// TestExtensionRefusals has every refusal of the Extensions API.
func TestExtensionRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t, "one", "two")
	defer r.close()
	refused := func(what string, got reply, status int, errorType, message string) {
		t.Helper()
		var document lambda.ErrorDocument
		if err := json.Unmarshal([]byte(got.body), &document); err != nil || got.status != status || document.Type != errorType || !regexp.MustCompile("^(?:"+message+")$").MatchString(document.Message) || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %d %s, want %d %s %s", what, got.status, got.body, status, errorType, message)
		}
	}
	const none = `{"events":[]}`
	refused("no name", r.register("", none), 403, "Extension.InvalidExtensionName", "Empty extension name")
	refused("long name", r.register(strings.Repeat("x", 256), none), 403, "Extension.InvalidExtensionName", ".*255 bytes")
	refused("no file's name", r.register("three", none), 403, "Extension.InvalidExtensionName", `No file in /opt/extensions is called "three".*`)
	refused("no JSON", r.register("one", "{"), 403, "InvalidRequestFormat", ".*unexpected end.*")
	refused("no body", r.register("one", ""), 403, "InvalidRequestFormat", ".*unexpected end.*")
	refused("other JSON", r.register("one", `{"events":7}`), 403, "InvalidRequestFormat", ".*cannot unmarshal.*")
	refused("large", r.register("one", strings.Repeat(" ", 1<<17)), 403, "InvalidRequestFormat", "body of more than 65536 bytes")
	refused("configurationKeys", r.register("one", `{"events":[],"configurationKeys":["a"]}`), 403, "InvalidRequestFormat", "configurationKeys are deprecated.*")
	refused("unknown event", r.register("one", `{"events":["INVOKE","RESTORE"]}`), 403, "Extension.InvalidEventType", "RESTORE: .+")
	refused("wrong method", r.do("GET", extensions+"register", ""), 405, "MethodNotAllowed", ".+")
	refused("wrong path", r.do("GET", extensions+"event", ""), 404, "NotFound", ".+")
	refused("wrong version", r.do("POST", "/2019-01-01/extension/register", ""), 404, "NotFound", ".+")
	one := r.enrol("one", "INVOKE")
	refused("twice", r.register("one", none), 403, "Extension.InvalidExtensionState", "State transition from Registered to Registered failed for extension one. Error: State transition is not allowed")
	two := r.enrol("two")

	refused("internal SHUTDOWN", r.register("inside", `{"events":["SHUTDOWN"]}`), 403, "Extension.InvalidEventType", "SHUTDOWN: .*internal.*")
	inside := r.enrol("inside")
	refused("internal twice", r.register("inside", none), 403, "Extension.InvalidExtensionState", "Extension with this name already registered")
	for n := 4; n <= runtimeapi.MaxExtensions; n++ {
		r.enrol(fmt.Sprint("inside", n))
	}
	refused("eleventh", r.register("inside11", none), 403, "Extension.TooManyExtensions", `Extension limit \(10\) reached`)

	for _, path := range []string{"GET event/next", "POST init/error", "POST exit/error"} {
		method, path, _ := strings.Cut(path, " ")
		ask := func(id string) reply {
			return r.do(method, extensions+path, "", "Lambda-Extension-Identifier", id, "Lambda-Extension-Function-Error-Type", "x")
		}
		refused(path, r.do(method, extensions+path, ""), 403, "Extension.MissingExtensionIdentifier", ".+")
		refused(path, ask("one"), 403, "Extension.InvalidExtensionIdentifier", ".+")
		refused(path, ask(lambda.NewUUID()), 403, "Extension.UnknownExtensionIdentifier", "Unknown extension .*")
		refused(path, r.do("PUT", extensions+path, ""), 405, "MethodNotAllowed", ".+")
	}
	fail := func(id, path, errorType, body string) reply {
		headers := []string{"Lambda-Extension-Identifier", id}
		if errorType != "" {
			headers = append(headers, "Lambda-Extension-Function-Error-Type", errorType)
		}
		return r.do("POST", extensions+path, body, headers...)
	}
	refused("no error type", fail(one, "init/error", "", ""), 403, "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found")
	refused("no error type", fail(one, "exit/error", "", ""), 403, "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found")
	transition := func(from, to, id string) string {
		return "State transition from " + from + " to " + to + " failed for extension " + id + ". Error: State transition is not allowed"
	}

	waiting := r.laterEvent(one)
	r.inState("one", "Ready")
	refused("next while waiting", r.event(one), 403, "Extension.InvalidExtensionState", transition("Ready", "Ready", one))
	refused("init/error after next", fail(one, "init/error", "x", ""), 403, "Extension.InvalidExtensionState", transition("Ready", "InitError", one))

	for range 2 { // the second time is the first's echo
		if got := fail(two, "init/error", "Extension.NoConfig", `{"errorMessage":"no file","errorType":"E","stackTrace":[]}`); got.status != 202 || got.body != `{"status":"OK"}` {
			t.Errorf("init/error: got %+v", got)
		}
	}
	refused("next after init/error", r.event(two), 403, "Extension.InvalidExtensionState", transition("InitError", "Ready", two))
	refused("exit/error after init/error", fail(two, "exit/error", "x", ""), 403, "Extension.InvalidExtensionState", transition("InitError", "ExitError", two))
	if got := fail(inside, "exit/error", "mine", "no JSON"); got.status != 202 {
		t.Errorf("exit/error: got %+v", got)
	}
	for _, want := range []runtimeapi.ExtensionReport{
		{Extension: runtimeapi.Extension{Name: "two", External: true, State: "InitError", ErrorType: "Extension.NoConfig"}, Message: "no file"},
		{Extension: runtimeapi.Extension{Name: "inside", State: "ExitError", ErrorType: "Extension.ExitError"}},
	} {
		if got := <-r.ExtensionFailed(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("reported %v, want %v", got, want)
		}
	}

	next := r.laterNext()
	<-r.Ready()
	refused("late", r.register("late", none), 403, "Extension.RegistrationClosed", "Extension registration closed already")
	if closed(r.ExtensionsReady()) {
		t.Error("all are ready although most did not ask for an event")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	<-waiting
	<-next
}

// TestExtensionEvents follows an environment with an extension of each sort.
func TestExtensionEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t, "both", "silent")
	defer r.close()
	both, silent := r.enrol("both", "INVOKE", "SHUTDOWN"), r.enrol("silent")
	inside := r.enrol("inside", "INVOKE")
	quiet := r.laterEvent(silent)
	first := r.laterEvent(both)
	next := r.laterNext()
	<-r.Ready()
	if closed(r.ExtensionsReady()) {
		t.Error("all are ready although one did not ask for an event")
	}
	within := r.laterEvent(inside)
	<-r.ExtensionsReady()

	inv := invocation()
	inv.TraceHeader = "Root=1-2-3"
	x := r.Offer(inv)
	want := fmt.Sprintf(`{"eventType":"INVOKE","deadlineMs":1800000000123,"requestId":"%s","invokedFunctionArn":"%s","tracing":{"type":"X-Amzn-Trace-Id","value":"Root=1-2-3"}}`, inv.ID, arn)
	for _, c := range []<-chan reply{first, within} {
		if got := <-c; got.status != 200 || got.body != want || len(got.header.Get("Lambda-Extension-Event-Identifier")) != 36 {
			t.Errorf("got %+v, want %s", got, want)
		}
	}
	<-next
	if got := r.do("POST", prefix+"invocation/"+string(inv.ID)+"/response", "1"); got.status != 202 {
		t.Errorf("response: %+v", got)
	}
	r.answer(x)
	next = r.laterNext()
	<-x.Idle()
	first = r.laterEvent(both)
	r.inState("both", "Ready")
	if closed(x.ExtensionsIdle()) {
		t.Error("the extensions are idle although one works on")
	}
	within = r.laterEvent(inside)
	<-x.ExtensionsIdle()

	deadline := time.UnixMilli(1_800_000_000_456)
	r.Shutdown("timeout", deadline)
	if got := <-first; got.body != `{"eventType":"SHUTDOWN","shutdownReason":"timeout","deadlineMs":1800000000456}` || got.header.Get("Lambda-Extension-Event-Identifier") != "" {
		t.Errorf("got %+v", got)
	}
	if err := r.Close(); err != nil { // the others are told nothing
		t.Error(err)
	}
	for _, c := range []<-chan reply{quiet, within, next} {
		if got := <-c; got.body != "" {
			t.Errorf("got %+v", got)
		}
	}
}

// An extension whose request was lost may ask again, and gets the event.
func TestLostNext(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	defer r.close()
	id := r.enrol("inside", "INVOKE")
	next := r.laterNext()
	<-r.Ready()
	ctx, cancel := context.WithCancel(t.Context())
	q, err := http.NewRequestWithContext(ctx, "GET", "http://"+r.address+extensions+"event/next", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Lambda-Extension-Identifier", id)
	lost := make(chan struct{})
	go func() { // ended by cancel
		defer close(lost)
		if response, err := r.client.Do(q); err == nil {
			_ = response.Body.Close()
			t.Error("an event came out of nothing")
		}
	}()
	r.inState("inside", "Ready")
	cancel()
	<-lost
	again := r.laterEvent(id)
	for noticed := false; !noticed; {
		select {
		case got := <-again: // the server has not noticed yet
			if got.status != 403 {
				t.Fatalf("got %+v", got)
			}
			again = r.laterEvent(id)
		case <-time.After(100 * time.Millisecond): // a refusal comes at once
			noticed = true
		}
	}
	inv := invocation()
	x := r.Offer(inv)
	<-next
	if got := <-again; got.status != 200 || !strings.Contains(got.body, string(inv.ID)) {
		t.Errorf("got %+v", got)
	}
	if closed(x.ExtensionsIdle()) {
		t.Error("the extension has the event and counts as idle")
	}
	again = r.laterEvent(id)
	<-x.ExtensionsIdle()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	<-again
}

// TestExtensionMachine drives one extension through random calls and compares each
// reply with the state machine that is drawn above ExtensionState.
func TestExtensionMachine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t, "x")
		defer r.close()
		state := runtimeapi.ExtensionStarted
		id := lambda.NewUUID()
		var waiting <-chan reply
		var next <-chan reply
		var exchange *runtimeapi.Exchange
		expect := func(what string, got reply, ok bool, status int) {
			if (got.status == status) != ok || !ok && got.status != 403 {
				t.Fatalf("%s while %s: got %d %s", what, state, got.status, got.body)
			}
		}
		registered := func() bool {
			return slices.Contains([]runtimeapi.ExtensionState{"Registered", "Ready", "Running"}, state)
		}
		t.Repeat(map[string]func(*rapid.T){
			"register": func(t *rapid.T) {
				got := r.register("x", `{"events":["INVOKE"]}`)
				expect("register", got, state == "Started", 200)
				if got.status == 200 {
					id, state = got.header.Get("Lambda-Extension-Identifier"), "Registered"
					next = r.laterNext()
					<-r.Ready()
				}
			},
			"next": func(t *rapid.T) {
				if state != "Registered" && state != "Running" {
					expect("next", r.event(id), false, 200)
					return
				}
				waiting = r.laterEvent(id)
				r.inState("x", "Ready")
				if exchange != nil {
					<-exchange.ExtensionsIdle()
				}
				state = "Ready"
			},
			"invoke": func(t *rapid.T) {
				if state != "Ready" || exchange != nil {
					t.Skip("nobody would")
				}
				x := r.Offer(invocation())
				exchange = &x
				expect("event", <-waiting, true, 200)
				waiting = nil
				state = "Running"
			},
			"init/error": func(t *rapid.T) {
				got := r.do("POST", extensions+"init/error", "", "Lambda-Extension-Identifier", id, "Lambda-Extension-Function-Error-Type", "x")
				expect("init/error", got, state == "Registered" || state == "InitError", 202)
				if state == "Registered" {
					state = "InitError"
				}
			},
			"exit/error": func(t *rapid.T) {
				got := r.do("POST", extensions+"exit/error", "", "Lambda-Extension-Identifier", id, "Lambda-Extension-Function-Error-Type", "x")
				expect("exit/error", got, registered() || state == "ExitError", 202)
				if registered() {
					state = "ExitError"
				}
			},
			"ended": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "luck") > 0 {
					t.Skip("or little else would be seen")
				}
				r.ExtensionEnded("x", runtimeapi.ExtensionExited, "Extension.Crash")
				if state != "InitError" && state != "ExitError" {
					state = "Exited"
				}
			},
			"": func(t *rapid.T) {
				if got := r.state("x"); got != state {
					t.Fatalf("the state is %s, want %s", got, state)
				}
				if ready := closed(r.ExtensionsReady()); ready && state == "Registered" {
					t.Fatal("the extension counts as ready")
				}
			},
		})
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		for _, c := range []<-chan reply{waiting, next} {
			if c != nil {
				<-c
			}
		}
	})
}

// FuzzSubscription sends anything: what is taken is within its bounds, and goes into
// the environment and nowhere else.
func FuzzSubscription(f *testing.F) {
	for _, body := range []string{
		`{"schemaVersion":"2022-12-13","types":["platform"],"destination":{"protocol":"TCP","port":4243}}`,
		`{"schemaVersion":"2022-07-01","types":["function"],"destination":{"protocol":"HTTP","URI":"http://sandbox:1/@b"},"buffering":{"maxItems":1000}}`,
		`{"schemaVersion":"2025-01-29","types":["extension"],"destination":{"protocol":"HTTP","URI":"http://u@example.com#sandbox"}}`,
		`[]`,
	} {
		f.Add(body)
	}
	r := newRig(f)
	f.Cleanup(r.close)
	id := r.enrol("x")
	f.Fuzz(func(t *testing.T, body string) {
		before := len(r.subscriptions)
		got, err := r.try("PUT", "/2022-07-01/telemetry", body, "Lambda-Extension-Identifier", id)
		if err != nil {
			t.Fatal(err)
		}
		if got.status == 400 && strings.Contains(got.body, `"errorType":"ValidationError"`) && len(r.subscriptions) == before {
			return
		}
		if got.status != 200 || len(r.subscriptions) != before+1 {
			t.Fatalf("%q: got %d %s", body, got.status, got.body)
		}
		s := r.subscriptions[before]
		host := "sandbox"
		if s.URL != "" {
			u, err := url.Parse(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			host = u.Hostname()
		}
		if s.Port < 1 || s.Port > 65535 || host != "sandbox" && host != "sandbox.localdomain" || s.MaxItems < 1000 || s.MaxItems > 10_000 ||
			s.MaxBytes < 256<<10 || s.MaxBytes > 1<<20 || s.Timeout < 25*time.Millisecond || s.Timeout > 30*time.Second || len(s.Kinds) == 0 {
			t.Errorf("%q: made %+v", body, s)
		}
	})
}

// TestSubscriptions has every rule of the Telemetry API's and the Logs API's requests.
func TestSubscriptions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	defer r.close()
	const telemetry, logs = "/2022-07-01/telemetry", "/2020-08-15/logs"
	ids := map[string]string{telemetry: r.enrol("t"), logs: r.enrol("l")}
	ask := func(path, body string) reply {
		return r.do("PUT", path, body, "Lambda-Extension-Identifier", ids[path])
	}
	const good = `"schemaVersion":"2022-12-13","types":["platform"],"destination":{"protocol":"TCP","port":4243}`
	with := func(parts ...string) string { return "{" + strings.Join(parts, ",") + "}" }
	http4243 := delivery.Destination{Port: 4243, URL: "http://sandbox.localdomain:4243/a?b", Method: "POST"}
	put4243 := http4243
	put4243.Method = "PUT"
	defaults := func(s delivery.Subscription) delivery.Subscription {
		if s.MaxItems == 0 {
			s.MaxItems = 10_000
		}
		if s.MaxBytes == 0 {
			s.MaxBytes = 262_144
		}
		if s.Timeout == 0 {
			s.Timeout = time.Second
		}
		if s.Kinds == nil {
			s.Kinds = []delivery.Kind{"platform"}
		}
		if s.Port == 0 {
			s.Port = 4243
		}
		return s
	}
	for _, c := range []struct {
		path, body string
		want       delivery.Subscription
	}{
		{telemetry, with(good), delivery.Subscription{Name: "t", Schema: "2022-12-13"}},
		{telemetry, with(strings.Replace(good, "2022-12-13", "2022-07-01", 1), `"buffering":{"maxItems":1000}`), delivery.Subscription{Name: "t", Schema: "2022-07-01", MaxItems: 1000}},
		{telemetry, with(strings.Replace(good, "2022-12-13", "2025-01-29", 1), `"buffering":{"maxItems":5000,"maxBytes":1048576,"timeoutMs":25}`), delivery.Subscription{Name: "t", Schema: "2025-01-29", MaxItems: 5000, MaxBytes: 1 << 20, Timeout: 25 * time.Millisecond}},
		{telemetry, `{"schemaVersion":"2022-12-13","types":["platform","function","extension"],"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:4243/a?b"}}`,
			delivery.Subscription{Name: "t", Schema: "2022-12-13", Kinds: []delivery.Kind{"platform", "function", "extension"}, Destination: http4243}},
		{telemetry, `{"schemaVersion":"2022-12-13","types":["platform"],"destination":{"protocol":"HTTP","URI":"http://sandbox"}}`,
			delivery.Subscription{Name: "t", Schema: "2022-12-13", Destination: delivery.Destination{Port: 80, URL: "http://sandbox", Method: "POST"}}},
		{logs, `{"types":["platform"],"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:4243/a?b","method":"PUT","encoding":"JSON"}}`,
			delivery.Subscription{Name: "l", Schema: "2020-08-15", Destination: put4243}},
		{logs, `{"schemaVersion":"2021-03-18","types":["platform"],"buffering":{"timeoutMs":30000},"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:4243/a?b"}}`,
			delivery.Subscription{Name: "l", Schema: "2021-03-18", Destination: http4243, Timeout: 30 * time.Second}},
	} {
		if got := ask(c.path, c.body); got.status != 200 || got.body != `"OK"` {
			t.Errorf("%s: got %d %s", c.body, got.status, got.body)
			continue
		}
		if got, want := r.subscriptions[len(r.subscriptions)-1], defaults(c.want); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: made %+v, want %+v", c.body, got, want)
		}
	}
	to := func(destination string) string {
		return `{"schemaVersion":"2022-12-13","types":["platform"],"destination":` + destination + `}`
	}
	for _, c := range []struct{ path, body, message string }{
		{telemetry, "", "unexpected end"},
		{telemetry, "[]", "cannot unmarshal"},
		{telemetry, strings.Replace(with(good), "2022-12-13", "2020-08-15", 1), "schemaVersion"},
		{telemetry, `{"types":["platform"],"destination":{"protocol":"TCP","port":1}}`, "schemaVersion"},
		{logs, with(good), "schemaVersion"},
		{telemetry, strings.Replace(with(good), `["platform"]`, `[]`, 1), "types"},
		{telemetry, strings.Replace(with(good), `["platform"]`, `["platform","traces"]`, 1), "traces"},
		{telemetry, `{"schemaVersion":"2022-12-13","types":["platform"]}`, "destination: required"},
		{telemetry, to(`{"protocol":"UDP","port":1}`), "UDP"},
		{telemetry, to(`{"protocol":"TCP"}`), "port 0"},
		{telemetry, to(`{"protocol":"TCP","port":65536}`), "65536"},
		{telemetry, to(`{"protocol":"HTTP"}`), "want http://sandbox"},
		{telemetry, to(`{"protocol":"HTTP","URI":"https://sandbox:1"}`), "want http://sandbox"},
		{telemetry, to(`{"protocol":"HTTP","URI":"http://example.com:1"}`), "want http://sandbox"},
		{telemetry, to(`{"protocol":"HTTP","URI":"http://u:p@sandbox:1"}`), "want http://sandbox"},
		{telemetry, to(`{"protocol":"HTTP","URI":"http://sandbox:99999"}`), "99999"},
		{telemetry, to(`{"protocol":"HTTP","URI":"http://sandbox:1","method":"PUT"}`), "PUT"},
		{telemetry, with(good, `"buffering":{"maxItems":999}`), "maxItems 999: want 1000 to 10000"},
		{telemetry, with(good, `"buffering":{"maxItems":10001}`), "maxItems"},
		{telemetry, with(good, `"buffering":{"maxBytes":262143}`), "maxBytes"},
		{telemetry, with(good, `"buffering":{"maxBytes":1048577}`), "maxBytes"},
		{telemetry, with(good, `"buffering":{"timeoutMs":24}`), "timeoutMs"},
		{telemetry, with(good, `"buffering":{"timeoutMs":30001}`), "timeoutMs"},
	} {
		got := ask(c.path, c.body)
		if got.status != 400 || !strings.Contains(got.body, `"errorType":"ValidationError"`) || !strings.Contains(got.body, c.message) {
			t.Errorf("%s: got %d %s, want %s", c.body, got.status, got.body, c.message)
		}
	}
	is := func(got reply, status int, errorType string) {
		t.Helper()
		if got.status != status || !strings.Contains(got.body, `"errorType":"`+errorType+`"`) {
			t.Errorf("got %d %s, want %s", got.status, got.body, errorType)
		}
	}
	is(r.do("PUT", telemetry, with(good), "Lambda-Extension-Identifier", ids[logs]), 400, "ValidationError")
	is(r.do("PUT", telemetry, with(good)), 403, "Extension.MissingExtensionIdentifier")
	is(r.do("PUT", logs, with(good), "Lambda-Extension-Identifier", lambda.NewUUID()), 403, "Extension.UnknownExtensionIdentifier")
	is(r.do("POST", logs, with(good)), 405, "MethodNotAllowed")

	waiting := []<-chan reply{r.laterNext()}
	for _, id := range ids {
		waiting = append(waiting, r.laterEvent(id))
	}
	<-r.ExtensionsReady()
	is(ask(telemetry, with(good)), 403, "Telemetry.SubscriptionClosed")
	is(ask(logs, with(good)), 403, "Logs.SubscriptionClosed")
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	for _, c := range waiting {
		<-c
	}
}
