package handlers

import (
	"os/exec"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestRuby runs Kiln's client for Ruby in an environment, on whatever Ruby is here.
func TestRuby(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ruby"); err != nil {
		t.Skip("there is no Ruby: ", err)
	}
	d := kiln.Start(t, "--any-runtime")
	l := language{"ruby", "ruby3.4", "handler.handler", kiln.Zip(map[string]string{"handler.rb": source(t, "handler.rb")})}
	layer := publish(t, d, "ruby", map[string]string{"ruby/lib/of_layer.rb": "OF_LAYER = __FILE__"})
	f := l.create(t, d, all(memory(256), timeout(2), layers(layer), variables("OWN", "value")))

	r := f.ok(event{"event": "x"}, &struct{}{})
	if !strings.Contains(r.payload, `"event":{"event":"x"}`) || !strings.Contains(r.payload, `"id":"`+r.id+`"`) {
		t.Errorf("got %s", r.payload)
	}
	var environment map[string]string
	f.ok(event{"do": "environment"}, &environment)
	for name, want := range map[string]string{
		"OWN": "value", "GEM_HOME": "/var/runtime", "_HANDLER": "handler.handler", "LAMBDA_TASK_ROOT": "/var/task",
		"AWS_EXECUTION_ENV": "AWS_Lambda_ruby3.4", "RUBYLIB": "/var/task:/var/runtime/lib:/opt/ruby/lib", "_LAMBDA_TELEMETRY_LOG_FD": "",
	} {
		if environment[name] != want {
			t.Errorf("%s is %q, want %q", name, environment[name], want)
		}
	}
	var fromLayer []any
	if f.ok(event{"do": "layer"}, &fromLayer); fromLayer[0] != "/opt/ruby/lib/of_layer.rb" {
		t.Errorf("the layer's library is %v", fromLayer)
	}
	if r := f.invoke(event{"do": "raw"}); r.payload != "raw" || r.failed != "" {
		t.Errorf("got %q %s", r.failed, r.payload)
	}
	var network string
	if f.ok(event{"do": "aws"}, &network); !strings.HasPrefix(network, "Errno::") {
		t.Errorf("the machine's metadata answers: %s", network)
	}

	var logged string
	r = f.ok(event{"do": "log"}, &logged)
	matches(t, r.tail, start, `two\nlines`, `W, \[[^\]]+ #\d+\]  WARN `+r.id+` -- : careful`, end, report)
	r = f.invoke(event{"do": "raise", "message": "bad"})
	if !strings.HasPrefix(r.payload, `{"errorMessage":"bad","errorType":"Function<ArgumentError>","stackTrace":["/var/task/handler.rb:15:in `) || r.failed != "Unhandled" {
		t.Errorf("got %q %s", r.failed, r.payload)
	}
	matches(t, r.tail, start, `Error raised from handler method`, `\{\n  "errorMessage": "bad",\n.*\}`, end, report)

	// What ends the process: a new one serves the next invocation.
	r = f.invoke(event{"do": "critical"})
	if !strings.Contains(r.payload, `"errorType":"Function<NoMethodError>"`) {
		t.Errorf("got %s", r.payload)
	}
	f.fails(event{"do": "exit", "status": 3}, "Runtime.ExitError", "RequestId: <id> Error: Runtime exited with error: exit status 3")
	f.fails(event{"do": "sleep"}, "Sandbox.Timedout", "RequestId: <id> Error: Task timed out after 2.00 seconds")
	f.ok(event{}, &struct{}{})

	plain := kiln.Start(t, "--any-runtime", "--driver", "process")
	p := function{t, plain, "plain"}
	if err := plain.TryCreate(p.name, l.runtime, l.handler, l.code, nil); err != nil {
		t.Fatal(err)
	}
	if r := p.ok(event{"do": "log"}, &logged); !strings.Contains(r.tail, "\ntwo\nlines\nW, [") {
		t.Errorf("logged %s", r.tail)
	}

	missing := language{"ruby", "ruby3.4", "nope.handler", l.code}
	g := function{t, d, "missing"}
	if err := d.TryCreate(g.name, missing.runtime, missing.handler, missing.code, nil); err != nil {
		t.Fatal(err)
	}
	if r := g.invoke(event{}); !strings.HasPrefix(r.payload, `{"errorMessage":"cannot load such file -- nope","errorType":"Init<LoadError>","stackTrace":[`) {
		t.Errorf("got %s", r.payload)
	}
}
