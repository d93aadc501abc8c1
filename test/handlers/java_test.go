package handlers

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"kiln/test/kiln"
)

// javas are the Java runtimes that this machine has a JDK for, the newest first.
func javas(t *testing.T) (ids []string) {
	t.Helper()
	out, err := exec.Command(kiln.Binary(t), "doctor", "--json").Output()
	if err != nil {
		t.Fatalf("kiln doctor: %v", err)
	}
	var found struct {
		Runtimes []struct{ ID, Missing string }
	}
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	for _, r := range found.Runtimes {
		if strings.Contains(r.Missing, "kiln runtime add "+r.ID) && strings.HasPrefix(r.ID, "java") {
			ids = append(ids, r.ID)
		}
	}
	if _, err := exec.LookPath("javac"); err != nil || len(ids) == 0 {
		t.Skip("there is no JDK for a runtime of Java's")
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		t.Skip("there is no Maven to fetch AWS's runtime client with")
	}
	return ids
}

// add runs `kiln runtime add` and returns the folder of what was added.
func add(t *testing.T, d *kiln.Daemon, id string) string {
	t.Helper()
	out, err := exec.Command(kiln.Binary(t), "runtime", "add", id, "--endpoint", d.URL).CombinedOutput()
	if err != nil {
		t.Fatalf("kiln runtime add %s: %v\n%s", id, err, out)
	}
	folders, _ := filepath.Glob(filepath.Join(d.Data, "runtimes", "bundle-"+id+"-*"))
	if len(folders) != 1 {
		t.Fatalf("%s has %d folders", id, len(folders))
	}
	return folders[0]
}

// compile returns the classes of a source, by their paths in a package.
func compile(t *testing.T, source, classPath, release string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("javac", "--release", release, "-cp", classPath, "-d", dir, filepath.Join("testdata", "java", source))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	classes := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		classes[filepath.ToSlash(rel)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return classes
}

// send invokes with an event that may be any JSON, and a client context.
func (f function) send(payload, clientContext string) reply {
	f.t.Helper()
	in := &lambda.InvokeInput{FunctionName: &f.name, Payload: []byte(payload), LogType: types.LogTypeTail}
	if clientContext != "" {
		in.ClientContext = aws.String(base64.StdEncoding.EncodeToString([]byte(clientContext)))
	}
	out, err := f.d.Client().Invoke(context.Background(), in)
	if err != nil {
		f.t.Fatalf("invoke %s with %s: %v", f.name, payload, err)
	}
	tail, err := decode(aws.ToString(out.LogResult))
	if err != nil {
		f.t.Fatal(err)
	}
	return reply{payload: string(out.Payload), failed: aws.ToString(out.FunctionError), tail: tail}
}

// call is one invocation with the answer that it must have, a regular expression.
type call struct{ payload, want string }

// document is the pattern of an error document, whose stack begins with a frame.
func document(message, errorType, frame string) string {
	stack := `\[\]`
	if frame != "" {
		stack = `\["` + frame + `".*\]`
	}
	return `\{"errorMessage":"` + message + `","errorType":"` + errorType + `","stackTrace":` + stack + `.*\}`
}

// TestJava runs AWS's own client for Java in Kiln's environments.
func TestJava(t *testing.T) {
	t.Parallel()
	ids := javas(t)
	d := kiln.Start(t)
	if err := d.TryCreate("early", ids[0], "t.Handlers", kiln.Zip(map[string]string{"x": ""}), nil); err == nil || !strings.Contains(err.Error(), "kiln runtime add "+ids[0]) {
		t.Errorf("before the client was added: %v", err)
	}
	var core string
	for _, id := range ids {
		jars, _ := filepath.Glob(filepath.Join(add(t, d, id), "lib", "aws-lambda-java-core-*.jar"))
		if len(jars) != 1 {
			t.Fatalf("%s has %d jars of aws-lambda-java-core", id, len(jars))
		}
		core = jars[0]
	}
	oldest := ids[len(ids)-1]
	release := strings.TrimPrefix(oldest, "java")
	files := compile(t, "Handlers.java", core, release)
	library := compile(t, "Library.java", "", release)
	jar := string(kiln.Zip(library))
	files["lib/library.jar"] = jar
	code := kiln.Zip(files)
	layer := publish(t, d, "java-library", map[string]string{"java/lib/of-layer.jar": jar})

	create := func(t *testing.T, runtime, handler string, change func(*lambda.CreateFunctionInput)) function {
		t.Helper()
		name := regexp.MustCompile(`[^a-zA-Z0-9]+`).ReplaceAllString(t.Name(), "-")
		more := all(memory(512), timeout(60))
		if change != nil {
			more = all(more, change)
		}
		if err := d.TryCreate(name, runtime, handler, code, more); err != nil {
			t.Fatal(err)
		}
		return function{t, d, name}
	}

	const frame = `t\.Handlers\.`
	cases := []struct {
		name, handler string
		change        func(*lambda.CreateFunctionInput)
		calls         []call
		log           string // a regular expression for the end of the log of the first call
	}{
		{"request handler", "t.Handlers$Typed", nil, []call{{`{"name":"you"}`, `"you"`}}, ""},
		{"its method", "t.Handlers$Typed::handleRequest", nil, []call{{`{"name":"me","x":[]}`, `"me"`}}, ""},
		{"stream handler", "t.Handlers$Streams", nil, []call{{`{"a":[1, "ü"]}`, `\{"A":\[1, "Ü"\]\}`}}, ""},
		{"text", "t.Handlers::text", nil, []call{{`"a\"b"`, `"a\\"b!"`}}, ""},
		{"number", "t.Handlers::number", nil, []call{{`21`, `42`}}, ""},
		{"list", "t.Handlers::sum", nil, []call{{`[1,2,3]`, `6`}}, ""},
		{"nothing", "t.Handlers::nothing", nil, []call{{`{}`, `null`}, {`null`, `null`}}, ""},
		{"context only", "t.Handlers::id", nil, []call{{`{}`, `"[0-9a-f-]{36}"`}}, ""},
		{"bean and record", "t.Handlers::greet", nil, []call{{`{"name":"you","age":41,"more":1}`, `\{"text":"hello you","next":42\}`}}, ""},
		{"streams without context", "t.Handlers::copies", nil, []call{{`{"a" : 1}`, `\{"a" : 1\}`}}, ""},
		{"kept between invocations", "t.Handlers::counts", nil, []call{{`1`, `1`}, {`1`, `2`}}, ""},
		{"jar in lib", "t.Handlers::jar", nil, []call{{`"lib.Library"`, `"/var/task/lib/library.jar"`}}, ""},
		{"options", "t.Handlers::property", variables("JAVA_TOOL_OPTIONS", "-Dkiln.x=honoured -XX:+UseParallelGC -XX:TieredStopAtLevel=4 -Xmx200m"),
			[]call{{`"kiln.x"`, `"honoured"`}}, ""},
		{"heap", "t.Handlers::heap", nil, []call{{`1`, `4[0-3]\d`}}, ""},
		{"start", "t.Handlers::archived", variables("JAVA_TOOL_OPTIONS", "-Xlog:class+load=info:file=/tmp/classes"), []call{{`1`, `[1-9]\d\d`}}, ""},

		{"throws", "t.Handlers::fails", nil, []call{
			{`{"name":"you"}`, document("bad you", `java\.lang\.IllegalStateException`, frame+`fails\(Handlers\.java:\d+\)`)},
			{`{"name":"me"}`, document("bad me", `java\.lang\.IllegalStateException`, frame+"fails.*")},
		}, `bad you: java\.lang\.IllegalStateException\njava\.lang\.IllegalStateException: bad you\n\tat t\.Handlers\.fails\(Handlers\.java:\d+\)`},
		{"throws without words", "t.Handlers::silent", nil, []call{{`1`, document(`java\.lang\.UnsupportedOperationException`, `java\.lang\.UnsupportedOperationException`, frame+".*")}}, ""},
		{"throws with a cause", "t.Handlers::caused", nil, []call{{`1`, document(`outer`, `java\.lang\.RuntimeException`, frame+".*")}}, `Caused by: java\.io\.IOException: inner`},
		{"exits", "t.Handlers::exits", nil, []call{{`3`, `\{"errorType":"Runtime.ExitError","errorMessage":"RequestId: [0-9a-f-]{36} Error: Runtime exited with error: exit status 3"\}`},
			{`0`, `.*Runtime exited without providing a reason"\}`}}, "leaving"},
		{"overflows", "t.Handlers::overflows", nil, []call{{`1`, `\{"errorMessage":"java\.lang\.StackOverflowError","errorType":"java\.lang\.StackOverflowError".*\}`}, {`1`, `.*StackOverflowError.*`}}, ""},
		{"event of another type", "t.Handlers::number", nil, []call{{`"x"`, `\{"errorMessage":"An error occurred during JSON parsing","errorType":"java\.lang\.RuntimeException".*\}`}}, ""},
		{"result without end", "t.Handlers::cyclic", nil, []call{{`1`, `\{"errorMessage":"(An error occurred during JSON serialization of response|.*StackOverflow.*)".*\}`}}, ""},

		{"no such class", "nope.Missing", nil, []call{{`1`, `\{"errorMessage":"Class not found: nope\.Missing","errorType":"java\.lang\.ClassNotFoundException".*\}`}, {`1`, `.*Class not found.*`}}, `Class not found: nope\.Missing`},
		{"no such method", "t.Handlers::nope", nil, []call{{`1`, `\{"errorMessage":"No public method named nope with appropriate method signature found on class t\.Handlers".*\}`}}, ""},
		{"no interface", "t.Handlers", nil, []call{{`1`, `\{"errorMessage":"Class does not implement an appropriate handler interface: t\.Handlers".*\}`}}, ""},
		{"no class", "::x", nil, []call{{`1`, `\{"errorMessage":"Invalid handler: .::x'".*\}`}}, ""},
		{"no constructor", "t.Handlers$NoConstructor::h", nil, []call{{`"x"`, `\{"errorMessage":"Class t\.Handlers\$NoConstructor has no public zero-argument constructor".*\}`}}, ""},
		{"inner class", "t.Handlers$Inner::h", nil, []call{{`"x"`, `\{"errorMessage":"Class t\.Handlers\$Inner cannot be instantiated because it is a non-static inner class".*\}`}}, ""},
		{"cannot be initialised", "t.Handlers$Broken::h", nil, []call{{`"x"`, `\{"errorMessage":"Error loading class t\.Handlers\$Broken.*","errorType":"java\.lang\.ExceptionInInitializerError".*\}`}}, `(?s)loading\n.*INIT_REPORT .*Status: error.*START`},
		{"logs", "t.Handlers::logs", nil, []call{{`1`, `null`}}, `logged\nat once\n\[DEBUG\] a debug message\n\[WARN\] a warning\n`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := create(t, oldest, c.handler, c.change)
			for i, x := range c.calls {
				r := f.send(x.payload, "")
				if !regexp.MustCompile(`(?s)\A`+x.want+`\z`).MatchString(r.payload) || (r.failed != "") != strings.Contains(x.want, "error") && !strings.HasPrefix(x.want, ".*") {
					t.Errorf("%s: got %q %s\nwant %s\n%s", x.payload, r.failed, r.payload, x.want, r.tail)
				}
				if i == 0 && c.log != "" && !regexp.MustCompile(c.log).MatchString(r.tail) {
					t.Errorf("logged\n%s\nwant %s", r.tail, c.log)
				}
			}
		})
	}

	t.Run("process driver", func(t *testing.T) {
		plain := kiln.Start(t, "--driver", "process")
		add(t, plain, oldest)
		if err := plain.TryCreate("plain", oldest, "t.Handlers::greet", code, all(memory(512), timeout(60))); err != nil {
			t.Fatal(err)
		}
		if r := (function{t, plain, "plain"}).send(`{"name":"you","age":41}`, ""); r.payload != `{"text":"hello you","next":42}` || strings.Contains(r.tail, "warning") {
			t.Errorf("got %s\n%s", r.payload, r.tail)
		}
	})
	t.Run("layer", func(t *testing.T) {
		f := create(t, oldest, "t.Handlers::jar", func(in *lambda.CreateFunctionInput) {
			delete(files, "lib/library.jar")
			in.Code.ZipFile = kiln.Zip(files)
			in.Layers = []string{layer}
		})
		if r := f.send(`"lib.Library"`, ""); r.payload != `"/opt/java/lib/of-layer.jar"` {
			t.Errorf("got %s\n%s", r.payload, r.tail)
		}
	})
	t.Run("context", func(t *testing.T) {
		f := create(t, oldest, "t.Handlers::context", nil)
		want := `{"function":"TestJava-context","version":"$LATEST","memory":512,"arn":"arn:aws:lambda:us-east-1:000000000000:function:TestJava-context","group":"/aws/lambda/TestJava-context","stream":true,"left":true,"app":"title","custom":"v","trace":true,"execution":"AWS_Lambda_` + oldest + `"}`
		if r := f.send(`{}`, `{"client":{"app_title":"title"},"custom":{"k":"v"}}`); r.payload != want {
			t.Errorf("got %s\nwant %s\n%s", r.payload, want, r.tail)
		}
	})
	t.Run("JSON logs", func(t *testing.T) {
		f := create(t, oldest, "t.Handlers::logs", func(in *lambda.CreateFunctionInput) {
			in.LoggingConfig = &types.LoggingConfig{LogFormat: types.LogFormatJson, ApplicationLogLevel: types.ApplicationLogLevelWarn}
		})
		r := f.send(`{}`, "")
		if !regexp.MustCompile(`\{"timestamp":"[^"]+Z","message":"a warning","level":"WARN","AWSRequestId":"[0-9a-f-]{36}"\}`).MatchString(r.tail) || strings.Contains(r.tail, "debug message") {
			t.Errorf("logged\n%s", r.tail)
		}
	})
	for _, id := range ids {
		t.Run(id, func(t *testing.T) {
			f := create(t, id, "t.Handlers::greet", nil)
			for range 2 {
				if r := f.send(`{"name":"you","age":41}`, ""); r.payload != `{"text":"hello you","next":42}` || strings.Contains(r.tail, "WARNING") {
					t.Errorf("got %s\n%s", r.payload, r.tail)
				}
			}
		})
	}
}
