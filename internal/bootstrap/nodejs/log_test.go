package nodejs_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const everyLevel = `exports.handler = async () => {
	console.trace("t"); console.debug("d"); console.info("i"); console.log("l %d", 1, {a: 1}); console.warn("w"); console.error("e\nf"); console.fatal("f"); console.log(); console.group("g"); console.log("h") }`

func TestTextLog(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, node interpreter) {
		p := start(t, function{node: node, code: files{"index.js": `console.log("init");` + everyLevel}})
		before := time.Now()
		p.wantAnswer(`{}`, `null`)
		p.awaitLog("INFO\th")
		id := requestID + "\t"
		init := "undefined"
		if node.major >= 24 {
			init = "-"
		}
		want := []string{init + "\tINFO\tinit", id + "TRACE\tt", id + "DEBUG\td", id + "INFO\ti", id + "INFO\tl 1 { a: 1 }", id + "WARN\tw",
			id + "ERROR\te\nf", id + "FATAL\tf", id + "INFO\tundefined", id + "INFO\tg", id + "INFO\th"}
		if got := strings.Join(p.logs(), "|"); got != strings.Join(want, "|") {
			t.Errorf("logged %q", got)
		}
		kinds := []uint32{0xa55a000f, 0xa55a0007, 0xa55a000b, 0xa55a000f, 0xa55a000f, 0xa55a0013, 0xa55a0017, 0xa55a001b}
		for i, f := range p.logged() {
			if i < len(kinds) && f.kind != kinds[i] {
				t.Errorf("frame %d is of type %x, want %x", i, f.kind, kinds[i])
			}
			if stamp := f.at.UTC().Format("2006-01-02T15:04:05.000Z"); !strings.HasPrefix(f.text, stamp+"\t") || !strings.HasSuffix(f.text, "\n") {
				t.Errorf("frame of %s is %q", stamp, f.text)
			}
			if f.at.Before(before.Add(-patience)) || f.at.After(time.Now().Add(time.Second)) {
				t.Errorf("frame of %s", f.at)
			}
		}
	})
}

func TestTextLogWithoutFrames(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, node interpreter) {
		p := start(t, function{node: node, unframed: true, code: files{"index.js": `exports.handler = async () => { console.log("a\nb"); process.stdout.write("raw\n"); console.error("c"); setTimeout(process.exit, 1) }`}})
		p.invoke(`{}`)
		p.exit()
		want := regexp.MustCompile(`^\S+Z\t` + requestID + "\tINFO\ta\rb\nraw\n" + `\S+Z\t` + requestID + "\tERROR\tc\n$")
		if got := p.stdout.String(); !want.MatchString(got) {
			t.Errorf("standard output %q", got)
		}
	})
}

func TestLogLevel(t *testing.T) {
	t.Parallel()
	p := start(t, function{node: find(t, 22), code: files{"index.js": everyLevel}, vars: map[string]string{"AWS_LAMBDA_LOG_LEVEL": "warn"}})
	p.wantAnswer(`{}`, `null`)
	p.awaitLog("FATAL")
	if got := strings.Join(p.logs(), "|"); got != strings.ReplaceAll("@WARN\tw|@ERROR\te\nf|@FATAL\tf", "@", requestID+"\t") {
		t.Errorf("logged %q", got)
	}
	p = start(t, function{node: find(t, 22), code: files{"index.js": `exports.handler = async () => { throw 1 }`}, vars: map[string]string{"AWS_LAMBDA_LOG_LEVEL": "FATAL"}})
	p.invoke(`{}`)
	p.awaitIdle()
	if len(p.logs()) != 0 {
		t.Errorf("logged %q", p.logs())
	}
}

func TestJSONLog(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, node interpreter) {
		p := start(t, function{node: node, vars: map[string]string{"AWS_LAMBDA_LOG_FORMAT": "JSON"}, code: files{"index.js": `
			console.log("init")
			class MyError extends Error {}
			exports.handler = async () => {
				console.log({a: 1}); console.info(5); console.warn("a %s", "b"); console.error(Object.assign(new MyError("m"), {code: 7}))
				console.error("x", new TypeError("y")); const c = {}; c.c = c; console.debug(c); console.fatal({nested: new MyError("n")}, 1)
				throw new RangeError("r")
			}`}})
		p.invoke(`{}`)
		p.awaitLog("RangeError")
		frames := p.logged()
		want := []struct{ level, message, errorType string }{
			{"INFO", `"init"`, ""}, {"INFO", `{"a":1}`, ""}, {"INFO", `5`, ""}, {"WARN", `"a b"`, ""}, {"ERROR", `{"errorType":"MyError","errorMessage":"m","stackTrace":["Error: m"`, ""},
			{"ERROR", `"x TypeError: y`, "TypeError"}, {"DEBUG", `"<ref *1> { c: [Circular *1] }"`, ""}, {"FATAL", `"{\n  nested: MyError: n`, ""}, {"ERROR", `{"errorType":"RangeError","errorMessage":"r",`, ""},
		}
		if len(frames) != len(want) {
			t.Fatalf("logged %q", p.logs())
		}
		for i, f := range frames {
			var got struct {
				Timestamp, Level, RequestID, ErrorType string
				Message                                json.RawMessage
			}
			if err := json.Unmarshal([]byte(f.text), &got); err != nil {
				t.Fatalf("%v in %s", err, f.text)
			}
			id := requestID
			if i == 0 {
				id = ""
				if node.major >= 24 {
					id = "-"
				}
			}
			message := want[i].message
			if node.major >= 20 && strings.Contains(message, "nested") && !strings.HasPrefix(string(got.Message), message) {
				message = `"{\n  nested: Error: n` // how a subclass is shown differs by version
			}
			if got.Level != want[i].level || !strings.HasPrefix(string(got.Message), message) || got.ErrorType != want[i].errorType || got.RequestID != id {
				t.Errorf("record %d is %s, want %+v", i, f.text, want[i])
			}
			if f.kind&^0x1c != 0xa55a0002&^0x1c || got.Timestamp != f.at.UTC().Format("2006-01-02T15:04:05.000Z") {
				t.Errorf("frame %d of type %x at %s: %s", i, f.kind, f.at, f.text)
			}
		}
	})
}

// Everything that a handler logged is out before its answer is.
func TestLogBeforeAnswer(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, node interpreter) {
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		p := start(t, function{node: node, unframed: true, stdout: out, code: files{"index.js": `exports.handler = async () => { for (let i = 0; i < 2000; i++) console.log("line") }`}})
		p.wantAnswer(`{}`, `null`)
		written, err := os.ReadFile(out.Name())
		if n := bytes.Count(written, []byte("line\n")); err != nil || n != 2000 {
			t.Errorf("%d of 2000 lines were out when the answer was (%v)", n, err)
		}
	})
}
