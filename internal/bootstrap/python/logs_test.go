package python_test

import (
	"regexp"
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/environment/clienttest"
)

const logging = `
import logging
def handler(event, context):
    print("printed\nlines")
    logging.getLogger("my").warning("warn %s", 1)
    root = logging.getLogger()
    root.info("info"); root.error("two\nlines é"); root.debug("debug")
    try: 1/0
    except Exception: root.exception("failed")
    root.log(45, "between", extra={"k": {"a": 1}, "o": object})
    return [root.level, [type(h).__name__ for h in root.handlers]]
`

var timestamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z`)

func scrub(s string) string { return timestamp.ReplaceAllString(s, "TIME") }

func TestLogging(t *testing.T) {
	const (
		text = 0xa55a0003
		json = 0xa55a0002
	)
	id := clienttest.RequestID
	cases := []struct {
		name   string
		env    map[string]string
		answer string
		frames []frame // {MARKS} stands for what 3.11 and later print below a line
	}{
		{"text", nil, `[30, ["LambdaLoggerHandler"]]`, []frame{
			{text, "[WARNING]\tTIME\t" + id + "\twarn 1\n"},
			{text, "[ERROR]\tTIME\t" + id + "\ttwo\nlines é\n"},
			{text, "[ERROR]\tTIME\t" + id + "\tfailed\nTraceback (most recent call last):\n  File \"/var/task/app.py\", line 8, in handler\n    try: 1/0\n{MARKS}ZeroDivisionError: division by zero"},
			{text, "[Level 45]\tTIME\t" + id + "\tbetween\n"},
		}},
		{"text with a level", map[string]string{"AWS_LAMBDA_LOG_LEVEL": "FATAL"}, `[50, ["LambdaLoggerHandlerWithFrameType"]]`, nil},
		{"everything", map[string]string{"AWS_LAMBDA_LOG_LEVEL": "TRACE"}, `[10, ["LambdaLoggerHandlerWithFrameType"]]`, []frame{
			{text | 0x10, "[WARNING]\tTIME\t" + id + "\twarn 1\n"},
			{text | 0x0c, "[INFO]\tTIME\t" + id + "\tinfo\n"},
			{text | 0x14, "[ERROR]\tTIME\t" + id + "\ttwo\nlines é\n"},
			{text | 0x08, "[DEBUG]\tTIME\t" + id + "\tdebug\n"},
			{text | 0x14, "[ERROR]\tTIME\t" + id + "\tfailed\nTraceback (most recent call last):\n  File \"/var/task/app.py\", line 8, in handler\n    try: 1/0\n{MARKS}ZeroDivisionError: division by zero"},
			{text | 0x14, "[Level 45]\tTIME\t" + id + "\tbetween\n"},
		}},
		{"JSON", map[string]string{"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"}, `[20, ["LambdaLoggerHandlerWithFrameType"]]`, []frame{
			{json | 0x10, `{"timestamp": "TIME", "level": "WARNING", "message": "warn 1", "logger": "my", "requestId": "` + id + "\"}\n"},
			{json | 0x0c, `{"timestamp": "TIME", "level": "INFO", "message": "info", "logger": "root", "requestId": "` + id + "\"}\n"},
			{json | 0x14, `{"timestamp": "TIME", "level": "ERROR", "message": "two\nlines é", "logger": "root", "requestId": "` + id + "\"}\n"},
			{json | 0x14, `{"timestamp": "TIME", "level": "ERROR", "message": "failed", "logger": "root", "stackTrace": ["  File \"/var/task/app.py\", line 8, in handler\n    try: 1/0\n{MARKS}"], "errorType": "ZeroDivisionError", "errorMessage": "division by zero", "requestId": "` + id + `", "location": "/var/task/app.py:handler:9"}` + "\n"},
			{json | 0x14, `{"timestamp": "TIME", "level": "ERROR", "message": "between", "logger": "root", "requestId": "` + id + `", "k": {"a": 1}, "o": "<class 'object'>"}` + "\n"},
		}},
	}
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		for _, c := range cases {
			f := code(logging)
			f.Env = c.env
			r := clienttest.Start(t, rt, f)
			if got := r.Answer(`{}`); got != c.answer {
				t.Errorf("%s: answered %s, want %s", c.name, got, c.answer)
			}
			output, frames := logged(r)
			if output != "printed\nlines\n" {
				t.Errorf("%s: printed %q", c.name, output)
			}
			if len(frames) != len(c.frames) {
				t.Errorf("%s: %d frames, want %d: %+v", c.name, len(frames), len(c.frames), frames)
				continue
			}
			for i, want := range c.frames {
				got := frames[i]
				got.Text = scrub(got.Text)
				marks := ""
				if minor(rt) >= 11 {
					marks = "         ~^~\n"
				}
				if want.Kind&^0x1c == json {
					marks = strings.ReplaceAll(marks, "\n", `\n`)
				}
				want.Text = strings.ReplaceAll(want.Text, "{MARKS}", marks)
				if want.Kind&^0x1c == json { // written with \n for legibility, above
					want.Text = strings.ReplaceAll(strings.TrimSuffix(want.Text, "\n"), "\n", `\n`) + "\n"
				}
				if got != want {
					t.Errorf("%s:\n got %#x %q\nwant %#x %q", c.name, got.Kind, got.Text, want.Kind, want.Text)
				}
			}
		}
	})
}

func TestUnhandledErrorIsOneLogEvent(t *testing.T) {
	const nbsp = "\u00a0"
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		app := "def handler(event, context):\n    raise ValueError('é')"
		lines := []string{"[ERROR] ValueError: é", "Traceback (most recent call last):",
			nbsp + nbsp + `File "/var/task/app.py", line 2, in handler`, nbsp + nbsp + nbsp + nbsp + `raise ValueError('é')`}

		r := clienttest.Start(t, rt, code(app))
		r.Invoke(`{}`)
		if _, frames := logged(r); len(frames) != 1 || frames[0] != (frame{0xa55a0017, strings.Join(lines, "\n")}) {
			t.Errorf("framed: %+v", frames)
		}

		f := code(app)
		f.Plain = true
		r = clienttest.Start(t, rt, f)
		r.Invoke(`{}`)
		if output, _ := logged(r); output != strings.Join(lines, "\r")+"\n" {
			t.Errorf("printed: %q", output)
		}

		f = code(app)
		f.Env = map[string]string{"AWS_LAMBDA_LOG_FORMAT": "JSON"}
		r = clienttest.Start(t, rt, f)
		r.Invoke(`{}`)
		message := "é"
		if minor(rt) <= 11 {
			message = `\u00e9`
		}
		want := `{"timestamp": "TIME", "level": "ERROR", "errorMessage": "` + message + `", "errorType": "ValueError", "requestId": "` + clienttest.RequestID +
			`", "stackTrace": ["  File \"/var/task/app.py\", line 2, in handler\n    raise ValueError('` + message + `')\n"]}`
		if _, frames := logged(r); len(frames) != 1 || frames[0].Kind != 0xa55a0016 || scrub(frames[0].Text) != want {
			t.Errorf("JSON: %+v\nwant %s", frames, want)
		}
	})
}

func TestLogOfTheInit(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code("import logging, os\nlogging.getLogger().error('early')\nprint('loaded')\n"+
			"def handler(event, context):\n    context.log('a\\nb'); context.log(5)\n    return '_LAMBDA_TELEMETRY_LOG_FD' in os.environ"))
		if got := r.Answer(`{}`); got != `false` {
			t.Errorf("the descriptor's variable is seen by the function: %s", got)
		}
		output, frames := logged(r)
		if output != "loaded\n" || len(frames) != 3 || scrub(frames[0].Text) != "[ERROR]\tTIME\t\tearly\n" ||
			frames[1] != (frame{0xa55a0003, "a\nb"}) || frames[2] != (frame{0xa55a0003, "5"}) {
			t.Errorf("printed %q, logged %+v", output, frames)
		}
	})
}

// What is printed must be there when the answer is: the environment may be frozen then.
func TestOutputComesBeforeTheAnswer(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code("import sys\nn = 0\ndef handler(event, context):\n    global n\n    n += 1\n"+
			"    sys.stdout.write('part %d ' % n)\n    if n == 2: sys.stdout.close()"))
		for range 3 {
			r.Invoke(`{}`)
		}
		if output, _ := logged(r); output != "part 1 part 2 " {
			t.Errorf("printed %q", output)
		}
	})
}
