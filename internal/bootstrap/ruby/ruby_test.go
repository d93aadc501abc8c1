package ruby_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/ruby"
	"kiln/internal/environment/clienttest"
)

func TestResults(t *testing.T) {
	t.Parallel()
	rt := newest(t)
	cases := []struct{ name, app, event, want, contentType string }{
		{"hash", "def handler(event:, context:) = { hello: event['name'], 'n' => [1, 1.5, true, nil] }", `{"name":"ü"}`, `{"hello":"ü","n":[1,1.5,true,null]}`, "application/json"},
		{"nil", "def handler(event:, context:) = nil", `{}`, `null`, "application/json"},
		{"string", "def handler(event:, context:) = event + '!'", `"a\"b"`, `"a\"b!"`, "application/json"},
		{"splat", "def handler(**args) = args.keys", `{}`, `["event","context"]`, "application/json"},
		{"own to_json", "class X; def to_json(*) = '{\"x\":1}'; end\ndef handler(event:, context:) = X.new", `{}`, `{"x":1}`, "application/json"},
		{"StringIO", "def handler(event:, context:) = StringIO.new(\"\\xff raw\")", `{}`, "\xff raw", "application/unknown"},
		{"file", "def handler(event:, context:) = File.open(__FILE__)", `{}`, "def handler(event:, context:) = File.open(__FILE__)", "application/unknown"},
		{"large", "def handler(event:, context:) = event", `"` + strings.Repeat("x", 3<<20) + `"`, `"` + strings.Repeat("x", 3<<20) + `"`, "application/json"},
		{"own marshaller", "class AwsLambda::Marshaller\n  def self.marshall_response(r) = [StringIO.new(\"<#{r}>\"), 'application/unknown']\nend\ndef handler(event:, context:) = event", `1`, "<1>", "application/unknown"},
		{"state is kept", "$n = 0\ndef handler(event:, context:) = $n += 1", `1`, `1`, "application/json"},
	}
	for _, c := range cases {
		r := clienttest.Start(t, rt, code(c.app))
		a := r.Invoke(c.event)
		if got := string(a.Payload); got != c.want || a.ContentType != c.contentType {
			t.Errorf("%s: got %s %.200s, want %s %.200s", c.name, a.ContentType, got, c.contentType, c.want)
		}
		if c.name == "state is kept" {
			if got := r.Answer(`1`); got != `2` {
				t.Errorf("second: %s", got)
			}
		}
	}
}

func TestEventThatIsNotJSON(t *testing.T) {
	t.Parallel()
	r := clienttest.Start(t, newest(t), code("def handler(event:, context:) = event.class.to_s + event"))
	inv := clienttest.Event("{half")
	inv.ContentType = "text/plain"
	if a, err := r.Try(inv); err != nil || string(a.Payload) != `"String{half"` {
		t.Errorf("got %s, %v", a.Payload, err)
	}
}

func TestHandlerSettings(t *testing.T) {
	t.Parallel()
	rt := newest(t)
	files := map[string]string{
		"app.rb":       "def handler(event:, context:) = 'top'\nmodule A\n  class B\n    def self.run(event:, context:) = \"class #{event}\"\n  end\nend",
		"dir/in.rb":    "require 'helper'\ndef go(event:, context:) = Helper",
		"helper.rb":    "Helper = 'helped'",
		"lib/inner.rb": "Inner = 1",
	}
	for handler, want := range map[string]string{"app.handler": `"top"`, "app.A::B.run": `"class 1"`, "dir/in.go": `"helped"`} {
		if got := clienttest.Start(t, rt, function{Files: files, Handler: handler}).Answer(`1`); got != want {
			t.Errorf("%s: got %s", handler, got)
		}
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	r := clienttest.Start(t, newest(t), code(`
def handler(event:, context:)
  left = context.get_remaining_time_in_millis
  { id: context.aws_request_id, arn: context.invoked_function_arn, name: context.function_name, version: context.function_version,
    memory: context.memory_limit_in_mb, group: context.log_group_name, stream: context.log_stream_name, left: left > 59_000 && left <= 60_000,
    deadline: context.deadline_ms.class, identity: context.identity, client: context.client_context, tenant: context.tenant_id,
    trace: ENV['_X_AMZN_TRACE_ID'], fd: ENV['_LAMBDA_TELEMETRY_LOG_FD'], env: ENV['AWS_EXECUTION_ENV'], cwd: Dir.pwd }
end`))
	inv := clienttest.Event(`{}`)
	inv.ClientContext = `{"custom":{"k":"v"}}`
	a, err := r.Try(inv)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"` + clienttest.RequestID + `","arn":"arn:aws:lambda:us-east-1:000000000000:function:f","name":"f","version":"$LATEST","memory":"128","group":"/aws/lambda/f","stream":"stream","left":true,"deadline":"Integer","identity":null,"client":{"custom":{"k":"v"}},"tenant":null,"trace":"Root=1-2-3;Parent=4;Sampled=1","fd":null,"env":"AWS_Lambda_ruby3.4","cwd":"/var/task"}`
	if got := r.AWS(string(a.Payload)); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// document is what an error document holds.
type document struct {
	ErrorMessage, ErrorType string
	StackTrace              []string
}

func TestErrors(t *testing.T) {
	t.Parallel()
	rt := newest(t)
	cases := []struct {
		name, body string
		kind       string
		message    string // a regular expression
		status     int    // with which the process ends; -1 when it lives on
		log        string
	}{
		{"own class", "raise Class.new(StandardError) { def self.to_s = 'Bad'; def self.name = 'Bad' }, 'no good'", "Function<Bad>", "no good", -1, "Error raised from handler method"},
		{"standard", "raise 'plain'", "Function<RuntimeError>", "plain", -1, "Error raised from handler method"},
		{"argument", "raise ArgumentError", "Function<ArgumentError>", "ArgumentError", -1, "Error raised from handler method"},
		{"result", "Float::NAN", "Function<JSON::GeneratorError>", ".*NaN.*", -1, "Error raised from handler method"},
		{"no method", "nil.nope", "Function<NoMethodError>", "undefined method .nope' for nil.*", 255, "Critical exception from handler"},
		{"no name", "nope", "Function<NameError>", "undefined local variable or method .nope'.*", 255, "Critical exception from handler"},
		{"exit", "exit 3", "Function<SystemExit>", "exit", 255, "Critical exception from handler"},
		{"deep", "handler(event: 1, context: 2)", "Function<SystemStackError>", "stack level too deep", 255, "Critical exception from handler"},
		{"not UTF-8", `raise "\xff"`, "Function<RuntimeError>", "\uFFFD", -1, "Error raised from handler method"},
	}
	for _, c := range cases {
		r := clienttest.Start(t, rt, code("def handler(event:, context:)\n  return 'well' if event == 2\n  "+c.body+"\nend"))
		a, err := r.Try(clienttest.Event(`1`))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var d document
		if err := json.Unmarshal(a.Payload, &d); err != nil {
			t.Errorf("%s: %v in %s", c.name, err, a.Payload)
		}
		if d.ErrorType != c.kind || !regexp.MustCompile(`(?s)\A`+c.message+`\z`).MatchString(d.ErrorMessage) || a.ErrorType != "Runtime.Unknown" { // which the platform makes of every name of Ruby's
			t.Errorf("%s: got %s %s, want %s %s", c.name, a.ErrorType, a.Payload, c.kind, c.message)
		}
		if len(d.StackTrace) == 0 && c.name != "result" || len(d.StackTrace) > 100 || len(d.StackTrace) > 0 && !strings.HasPrefix(r.AWS(d.StackTrace[0]), "/var/task/app.rb:") && c.name != "result" ||
			strings.Contains(strings.Join(d.StackTrace, " "), "kiln_runtime") {
			t.Errorf("%s: stack %q", c.name, d.StackTrace)
		}
		if c.status < 0 {
			if got := r.Answer(`2`); got != `"well"` {
				t.Errorf("%s: then %s", c.name, got)
			}
		} else {
			<-r.Exited
			if got := r.Cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("%s: exit status %d, want %d", c.name, got, c.status)
			}
		}
		_, frames := r.Logged()
		if len(frames) != 2 || frames[0].Text != c.log || !strings.HasPrefix(frames[1].Text, "{\n  \"errorMessage\": ") {
			t.Errorf("%s: logged %+v", c.name, frames)
		}
	}
}

func TestExitWithoutAnswer(t *testing.T) {
	t.Parallel()
	r := clienttest.Start(t, newest(t), code("def handler(event:, context:)\n  puts 'last'\n  exit!(7)\nend"))
	if a, err := r.Try(clienttest.Event(`1`)); err == nil {
		t.Fatalf("answered %s", a.Payload)
	}
	<-r.Exited
	if got := r.Cmd.ProcessState.ExitCode(); got != 7 {
		t.Errorf("exit status %d", got)
	}
}

func TestInitErrors(t *testing.T) {
	t.Parallel()
	rt := newest(t)
	cases := []struct{ name, handler, app, kind, message string }{
		{"no file", "nope.handler", "", "Init<LoadError>", "cannot load such file -- nope"},
		{"no dot", "app", "", "Init<ArgumentError>", `Invalid handler \["app"\], must be of form FILENAME.METHOD or .*class-level method\.`},
		{"syntax", "", "def handler(", "Init<SyntaxError>", ".*app.rb:1: .*"},
		{"raises", "", "raise 'at load'", "Init<RuntimeError>", "at load"},
		{"exits", "", "exit 0", "Init<SystemExit>", "exit"},
	}
	for _, c := range cases {
		f := code(c.app)
		f.Handler = c.handler
		r := clienttest.Start(t, rt, f)
		report := r.InitError(252)
		var d document
		if err := json.Unmarshal(report.Payload, &d); err != nil {
			t.Errorf("%s: %v in %s", c.name, err, report.Payload)
		}
		if d.ErrorType != c.kind || !regexp.MustCompile(`(?s)\A`+c.message+`\z`).MatchString(d.ErrorMessage) {
			t.Errorf("%s: got %s", c.name, report.Payload)
		}
		if _, frames := r.Logged(); len(frames) != 2 || frames[0].Text != "Init error when loading handler " || !strings.HasPrefix(frames[1].Text, "{\n  \"errorMessage\": ") {
			t.Errorf("%s: logged %+v", c.name, frames)
		}
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	app := `
require 'logger'
LOG = Logger.new($stdout)
def handler(event:, context:)
  puts 'one', ['two', 3]
  $stdout.puts 'raw'
  print "also raw\n"
  LOG.info("logged\nin lines")
  Logger.new($stderr, progname: 'p').warn('w')
  Logger.new(nil).error(RuntimeError.new('e'))
  Logger.new('/dev/null').error('elsewhere')
  LOG.level = :error
  LOG.info('not this')
end`
	line := func(initial, severity, rest string) string {
		return `\A` + initial + `, \[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6} #\d+\] +` + severity + ` ` + clienttest.RequestID + ` -- ` + rest + `\n\z`
	}
	r := clienttest.Start(t, newest(t), code(app))
	r.Invoke(`{}`)
	output, frames := r.Logged()
	if output != "raw\nalso raw\n" {
		t.Errorf("printed %q", output)
	}
	want := []string{`\Aone\ntwo\n3\z`, line("I", "INFO", ": logged\nin lines"), line("W", "WARN", "p: w"), line("E", "ERROR", `: e \(RuntimeError\)\n`)}
	if len(frames) != len(want) {
		t.Fatalf("framed %+v", frames)
	}
	for i, f := range frames {
		if f.Kind != 0xa55a0003 || !regexp.MustCompile(want[i]).MatchString(f.Text) {
			t.Errorf("frame %x %q, want %s", f.Kind, f.Text, want[i])
		}
	}

	// Without the descriptor all of it is standard output.
	f := code(app)
	f.Plain = true
	r = clienttest.Start(t, newest(t), f)
	r.Invoke(`{}`)
	output, _ = r.Logged()
	if !strings.HasPrefix(output, "one\ntwo\n3\nraw\nalso raw\nI, [") {
		t.Errorf("printed %q", output)
	}
}

func TestGemsAndLayers(t *testing.T) {
	t.Parallel()
	rt := newest(t)
	abi := strings.Join(strings.Split(rt.Installation.Version, ".")[:2], ".") + ".0"
	spec := func(name string) string {
		return "Gem::Specification.new { |s| s.name = '" + name + "'; s.version = '1.0'; s.summary = 'x'; s.authors = ['x']; s.files = ['lib/" + name + ".rb']; s.require_paths = ['lib'] }"
	}
	gem := func(root, name string) map[string]string {
		return map[string]string{
			root + "specifications/" + name + "-1.0.gemspec":   spec(name),
			root + "gems/" + name + "-1.0/lib/" + name + ".rb": "$from = '" + root + "'",
		}
	}
	f := function{Files: gem("vendor/bundle/ruby/"+abi+"/", "mine"), Layer: gem("ruby/gems/"+abi+"/", "layered")}
	f.Files["app.rb"] = "require 'mine'\nA = $from\nrequire 'layered'\nB = $from\nrequire 'plain'\nrequire 'shared'\nrequire 'rexml/document' rescue nil\ndef handler(event:, context:) = [A, B, PLAIN, SHARED, ENV['GEM_HOME'] == ENV['LAMBDA_RUNTIME_DIR']]"
	f.Layer["ruby/lib/plain.rb"] = "PLAIN = 'of the layer'"
	f.Layer["ruby/lib/shared.rb"] = "SHARED = 'of the layer'"
	f.Files["shared.rb"] = "SHARED = 'of the function'"
	want := `["vendor/bundle/ruby/` + abi + `/","ruby/gems/` + abi + `/","of the layer","of the function",true]`
	if got := clienttest.Start(t, rt, f).Answer(`1`); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestResponseThatIsTooLarge(t *testing.T) {
	t.Parallel()
	r := clienttest.Start(t, newest(t), code("def handler(event:, context:) = 'x' * event"))
	if a := r.Invoke(`7000000`); a.ErrorType != "Function.ResponseSizeTooLarge" {
		t.Errorf("got %s %.200s", a.ErrorType, a.Payload)
	}
	if got := r.Answer(`1`); got != `"x"` {
		t.Errorf("then %s", got)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, script, want string }{
		{"old", "echo ruby; echo 2.7.8; echo /usr", "3.1 is the oldest"},
		{"another implementation", "echo jruby; echo 3.1.4; echo /x", "is jruby"},
		{"something else", "echo hello", "does not answer as Ruby does"},
		{"broken", "echo 'no libruby' >&2; exit 127", "no libruby"},
		{"fine", "echo ruby; echo 3.4.1; echo /opt/rubies/3.4.1", ""},
	}
	for _, c := range cases {
		path := filepath.Join(t.TempDir(), "ruby")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		in, err := ruby.New().Probe(t.Context(), path)
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) || c.want == "" && (err != nil || in.Version != "3.4.1" || in.Prefix != "/opt/rubies/3.4.1") {
			t.Errorf("%s: %+v, %v", c.name, in, err)
		}
	}
}

func TestLaunch(t *testing.T) {
	t.Parallel()
	prefix := t.TempDir()
	arch := filepath.Join(prefix, "lib", "ruby", "3.4.0", "x86_64-linux")
	if err := os.MkdirAll(arch, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(arch+"/rbconfig.rb", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	in := bootstrap.Installation{Program: prefix + "/bin/ruby", Prefix: prefix, Version: "3.4.1"}
	l := ruby.New().Launch("ruby3.4", in, bootstrap.Layout{Task: "/var/task", Opt: "/opt", Runtime: "/var/runtime", Lang: "/var/lang", Tmp: "/tmp"})
	if got := strings.Join(l.Args, " "); got != "/var/lang/bin/ruby -I/var/lang/lib/ruby/3.4.0 -I/var/lang/lib/ruby/3.4.0/x86_64-linux /var/runtime/bootstrap.rb" {
		t.Errorf("args %s", got)
	}
	for name, want := range map[string]string{
		"GEM_HOME": "/var/runtime",
		"GEM_PATH": "/var/task/vendor/bundle/ruby/3.4.0:/opt/ruby/gems/3.4.0:/var/runtime:/var/runtime/ruby/3.4.0:",
		"RUBYLIB":  "/var/task:/var/runtime/lib:/opt/ruby/lib",
	} {
		if l.Defaults[name] != want {
			t.Errorf("%s is %s", name, l.Defaults[name])
		}
	}
	if l.Reserved["AWS_EXECUTION_ENV"] != "AWS_Lambda_ruby3.4" {
		t.Errorf("reserved %v", l.Reserved)
	}
}
