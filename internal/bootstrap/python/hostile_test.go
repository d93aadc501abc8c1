package python_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/environment/clienttest"
)

// What a handler does to its process must not reach the next invocation.
func TestHostileHandlers(t *testing.T) {
	cases := []struct{ name, body string }{
		{"patches json", "import json, _json; json.loads = json.dumps = _json.make_encoder = None"},
		{"patches socket", "import socket, _socket; socket.socket = _socket.socket = None; socket.setdefaulttimeout(0.001)"},
		{"patches builtins", "import builtins; builtins.print = builtins.open = builtins.str = None"},
		{"patches time", "import time; time.time = time.time_ns = None"},
		{"replaces the environment", "import os; os.environ = None"},
		{"clears the environment", "import os; os.environ.clear()"},
		{"closes output", "import sys; sys.stdout.close(); sys.stderr = None"},
		{"closes descriptors", "import os; os.closerange(0, 3); os.closerange(4, 64)"},
		{"empties modules", "import sys; sys.modules.pop('kiln_runtime', None); sys.path[:] = []; sys.meta_path[:] = []"},
		{"changes directory", "import os; os.chdir('/')"},
		{"sets a default timeout", "import socket; socket.setdefaulttimeout(0.001)"},
		{"forks and returns", "import os\n        if os.fork() == 0: return 'child'"},
		{"leaves a thread", "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()"},
		{"lowers the recursion limit", "import sys; sys.setrecursionlimit(60)"},
		{"traces", "import sys; sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)"},
		{"disables collection", "import gc; gc.disable(); gc.set_threshold(0)"},
		{"drops handlers", "import logging; logging.getLogger().handlers.clear(); logging.disable()"},
		{"ignores signals", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"},
	}
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		for _, c := range cases {
			r := clienttest.Start(t, rt, code("n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    if event == 1:\n        "+c.body+"\n    return [n, event]"))
			for i, want := range []string{`[1, 1]`, `[2, {"k": "v"}]`, `[3, [2.5]]`} {
				payload := []string{`1`, `{"k": "v"}`, `[2.5]`}[i]
				a, err := r.Try(clienttest.Event(payload))
				if err != nil || string(a.Payload) != want {
					<-r.Stop()
					t.Errorf("%s: event %d: got %s, %v; output: %s", c.name, i+1, a.Payload, err, r.Output.String())
					break
				}
			}
		}
	})
}

func TestErrorsAfterHostileHandlers(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		for _, body := range []string{
			"import sys; sys.stdout = None",
			"import traceback; traceback.extract_tb = None",
			"import os; os.closerange(0, 64)",
			"import sys; sys.path[:] = []",
		} {
			r := clienttest.Start(t, rt, code("def handler(event, context):\n    if event == 1:\n        "+body+"\n    raise ValueError('v')"))
			for range 2 {
				if got := r.Answer(`1`); !strings.HasPrefix(got, `{"errorMessage": "v", "errorType": "ValueError"`) {
					t.Errorf("%s: got %s", body, got)
				}
			}
		}
	})
}

func TestLargeOutputDoesNotBlock(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code("import logging\ndef handler(event, context):\n    print('x' * 3000000)\n    logging.error('y' * 3000000)\n    return 1"))
		r.Invoke(`{}`)
		if output, frames := logged(r); len(output) != 3000001 || len(frames) != 1 || len(frames[0].Text) < 3000000 {
			t.Errorf("%d bytes printed, %d frames", len(output), len(frames))
		}
	})
}

func TestMemoryStaysLevel(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 invocations")
	}
	t.Parallel()
	r := clienttest.Start(t, resolve(t, "python3.12"), code("def handler(event, context):\n    if event.get('fail'): raise ValueError('x')\n    return event"))
	invoke := func(n int) {
		for i := range n {
			payload := `{"k": [1, 2, 3]}`
			if i%10 == 0 {
				payload = `{"fail": true}`
			}
			r.Invoke(payload)
		}
	}
	invoke(2000)
	before := resident(t, r.Cmd.Process.Pid)
	invoke(10000)
	if grown := resident(t, r.Cmd.Process.Pid) - before; grown > 1<<20 {
		t.Errorf("grew by %d bytes in 10,000 invocations", grown)
	}
}

func resident(t *testing.T, pid int) int {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(content))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
