package python_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/environment/clienttest"
)

func TestExceptions(t *testing.T) {
	document := func(message, kind, stack string) string {
		return `{"errorMessage": "` + message + `", "errorType": "` + kind + `", "requestId": "` + clienttest.RequestID + `", "stackTrace": [` + stack + `]}`
	}
	cases := []struct{ name, app, want string }{
		{"own", "def handler(event, context):\n    f(event)\n\ndef f(e):\n    raise ValueError('bad ' + e['k'])",
			document("bad v", "ValueError", `"  File \"/var/task/app.py\", line 2, in handler\n    f(event)\n", "  File \"/var/task/app.py\", line 5, in f\n    raise ValueError('bad ' + e['k'])\n"`)},
		{"no message", "def handler(event, context):\n    raise ValueError",
			document("", "ValueError", `"  File \"/var/task/app.py\", line 2, in handler\n    raise ValueError\n"`)},
		{"nested class", "class A:\n    class B(Exception): pass\ndef handler(event, context):\n    raise A.B('q')",
			document("q", "B", `"  File \"/var/task/app.py\", line 4, in handler\n    raise A.B('q')\n"`)},
		{"chained", "def handler(event, context):\n    try: 1/0\n    except Exception as e: raise KeyError('k') from e",
			document("'k'", "KeyError", `"  File \"/var/task/app.py\", line 3, in handler\n    except Exception as e: raise KeyError('k') from e\n"`)},
		{"compiled", "def handler(event, context):\n    exec('1/0')",
			document("division by zero", "ZeroDivisionError", `"  File \"/var/task/app.py\", line 2, in handler\n    exec('1/0')\n", "  File \"<string>\", line 1, in <module>\n"`)},
		{"unprintable", "class X(Exception):\n    def __str__(self): raise RuntimeError('no')\ndef handler(event, context):\n    raise X()",
			document("<exception str() failed>", "X", `"  File \"/var/task/app.py\", line 4, in handler\n    raise X()\n"`)},
	}
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		for _, c := range cases {
			r := clienttest.Start(t, rt, code(c.app))
			for range 2 { // an error ends an invocation, not the process
				if got := r.Answer(`{"k": "v"}`); got != c.want {
					t.Errorf("%s\n got %s\nwant %s", c.name, got, c.want)
				}
			}
		}
	})
}

// The cause for X-Ray travels in a header, and is left out where it would be too long.
func TestCause(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		causes := make(chan string, 3)
		var asked atomic.Int32
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				causes <- r.Header.Get("Lambda-Runtime-Function-XRay-Error-Cause")
				w.WriteHeader(http.StatusAccepted)
				return
			}
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", clienttest.RequestID)
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn")
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, []string{`"é"`, `1`, `{bad`, `"wait"`}[asked.Add(1)-1])
		}))
		t.Cleanup(api.Close)
		f := code("import time\ndef handler(event, context):\n    if event == 'wait': time.sleep(60)\n    raise ValueError(event if event != 1 else 'x' * 1100000)")
		f.Env = map[string]string{"AWS_LAMBDA_RUNTIME_API": strings.TrimPrefix(api.URL, "http://")}
		r := clienttest.Start(t, rt, f)
		for _, want := range []string{
			`{"working_directory": "/var/task", "exceptions": [{"message": "\u00e9", "type": "ValueError", "stack": [{"label": "handler", "path": "/var/task/app.py", "line": 4}]}], "paths": ["/var/task/app.py"]}`,
			"",
			`{"working_directory": "/var/task", "exceptions": [{"message": "Unable to unmarshal input: `,
		} {
			select {
			case got := <-causes:
				if got = r.AWS(got); got != want && (want == "" || !strings.HasPrefix(got, want)) {
					t.Errorf("got %.400s\nwant %s", got, want)
				}
			case <-r.Exited:
				t.Fatalf("ended: %s", r.Output.String())
			}
		}
	})
}

func TestUnusualExceptionsLeaveTheRuntimeAlive(t *testing.T) {
	cases := []struct{ name, body, contains string }{
		{"recursion", "return handler(event, context)", `"errorType": "RecursionError"`},
		{"too many arguments", "return len()", `"errorType": "TypeError"`},
		{"large", "raise ValueError('x' * 3000000)", `"errorType": "ValueError"`},
	}
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		for _, c := range cases {
			r := clienttest.Start(t, rt, code("def handler(event, context):\n    if event == 1: return 1\n    "+c.body))
			if got := r.Answer(`0`); !strings.Contains(got, c.contains) {
				t.Errorf("%s: got %.300s", c.name, got)
			}
			if got := r.Answer(`1`); got != `1` {
				t.Errorf("%s: then %s", c.name, got)
			}
		}
		if minor(rt) >= 11 {
			r := clienttest.Start(t, rt, code("def handler(event, context):\n    raise ExceptionGroup('g', [ValueError(1)])"))
			if got := r.Answer(`0`); !strings.Contains(got, `"errorMessage": "g (1 sub-exception)", "errorType": "ExceptionGroup"`) {
				t.Errorf("group: got %s", got)
			}
		}
	})
}

func TestExit(t *testing.T) {
	cases := []struct {
		body   string
		status int
	}{
		{"import sys; sys.exit(0)", 0},
		{"import sys; sys.exit('last words')", 1},
		{"import os; os._exit(7)", 7},
		{"raise GeneratorExit", 1},
	}
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		for _, c := range cases {
			r := clienttest.Start(t, rt, code("def handler(event, context):\n    print('printed')\n    "+c.body))
			if a, err := r.Try(clienttest.Event(`{}`)); err == nil {
				t.Fatalf("%s: answered %s", c.body, a.Payload)
			}
			<-r.Exited
			if got := r.Cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("%s: exit status %d, want %d", c.body, got, c.status)
			}
			if !strings.Contains(r.Output.String(), "printed\n") {
				t.Errorf("%s: output is %q", c.body, r.Output.String())
			}
		}
	})
}

func TestInitErrors(t *testing.T) {
	cases := []struct {
		name, handler, app string
		kind, message      string
		stack              string // what the document's stackTrace must hold; "" for an empty one
	}{
		{"no dot", "app", "", "Runtime.MalformedHandlerName", "Bad handler 'app': not enough values to unpack (expected 2, got 1)", ""},
		{"built in", "sys.exit", "", "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module", ""},
		{"no module", "nope.handler", "", "Runtime.ImportModuleError", "Unable to import module 'nope': No module named 'nope'", ""},
		{"its import", "", "import nope", "Runtime.ImportModuleError", "Unable to import module 'app': No module named 'nope'", ""},
		{"syntax", "", "def handler(:\n  pass", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app': invalid syntax (app.py, line 1)", `"  File \"/var/task/app.py\" Line 1\n    def handler(:\n"`},
		{"no handler", "", "x = 1", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'", ""},
		{"raises", "", "def f():\n    raise ValueError('at import')\nf()", "ValueError", "at import", `"  File \"/var/task/app.py\", line 3, in <module>\n    f()\n", "  File \"/var/task/app.py\", line 2, in f\n    raise ValueError('at import')\n"]`},
		{"with threads", "", "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n1/0", "ZeroDivisionError", "division by zero", `<module>\n    1/0\n"]`},
	}
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		for _, c := range cases {
			f := code(c.app)
			f.Handler = c.handler
			r := clienttest.Start(t, rt, f)
			report := r.InitError(1)
			want := `{"errorMessage": "` + c.message + `", "errorType": "` + c.kind + `", "requestId": "", "stackTrace": [`
			if c.stack == "" {
				want += "]}"
			}
			if got := string(report.Payload); !strings.HasPrefix(got, want) || !strings.Contains(got, c.stack) {
				t.Errorf("%s:\n got %s\nwant %s … %s", c.name, got, want, c.stack)
			}
			if strings.Contains(string(report.Payload), "kiln_runtime") {
				t.Errorf("%s: the client's own frames are in %s", c.name, report.Payload)
			}
			_, frames := logged(r)
			if len(frames) != 2 || !strings.HasPrefix(frames[0].Text, "[WARNING]\t") || !strings.Contains(frames[0].Text, "\t\tLAMBDA_WARNING: Unhandled exception.") ||
				!strings.HasPrefix(frames[1].Text, "[ERROR] "+c.kind+": "+c.message+"\nTraceback (most recent call last):") {
				t.Errorf("%s: logged %+v", c.name, frames)
			}
		}
	})
}

func TestExitAtImport(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code("import sys\nprint('bye')\nsys.exit(4)"))
		<-r.Exited
		if got := r.Cmd.ProcessState.ExitCode(); got != 4 || r.Output.String() != "bye\n" {
			t.Errorf("exit status %d, output %q", got, r.Output.String())
		}
	})
}
