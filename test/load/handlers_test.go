package load

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"kiln/test/kiln"
)

// hostilePython does what its event says, and answers "ok" to any other event.
const hostilePython = `
import http.client, os, signal, socket, sys, threading, time

api = os.environ["AWS_LAMBDA_RUNTIME_API"]

def post(path, body, headers={}):
    c = http.client.HTTPConnection(api, timeout=10)
    c.request("POST", "/2018-06-01/runtime/" + path, body, headers)
    return c.getresponse().status

def raw(data):
    s = socket.create_connection(api.split(":"), timeout=10)
    try:
        s.sendall(data)
        return s.recv(1000).decode("latin1").split("\r\n")[0]
    except OSError as e:
        return "closed"

def second(event, context):
    return post("invocation/" + context.aws_request_id + "/response", '"mine"')

def another(event, context):
    return [post("invocation/00000000-0000-4000-8000-000000000000/response", '"mine"'),
            post("invocation/../../x/error", '"mine"'), post("invocation//response", '"mine"')]

def malformed(event, context):
    return [raw(b"nonsense\r\n\r\n"), raw(b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"),
            raw(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 3_000_000 + b"\r\n\r\n")]

def early(event, context):
    c = http.client.HTTPConnection(api, timeout=10)
    c.request("GET", "/2018-06-01/runtime/invocation/next")
    return c.getresponse().status

def late(event, context):
    return post("init/error", '{"errorType":"x"}')

def thief(event, context):  # takes the next event away from the runtime
    def steal():
        c = http.client.HTTPConnection(api)
        while True:
            try:
                c.request("GET", "/2018-06-01/runtime/invocation/next")
                c.getresponse().read()
            except Exception:
                c.close()
            time.sleep(0.001)
    threading.Thread(target=steal, daemon=True).start()
    return "ok"

def hoard(event, context):  # announces large bodies that never come
    global kept
    kept = []
    for i in range(200):
        s = socket.create_connection(api.split(":"))
        s.sendall(b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: x\r\nContent-Length: 6000000\r\n\r\n{")
        kept.append(s)
    return "ok"

def hoard_on(event, context):
    hoard(event, context)
    time.sleep(20)
    return "ok"

def connections(event, context):  # as many as there can be
    global kept
    kept = []
    try:
        while True:
            kept.append(socket.create_connection(api.split(":")))
    except OSError:
        pass
    for s in kept[-50:]:
        s.close()
    return len(kept) > 500

def forks(event, context):
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)

def daemons(event, context):
    for i in range(5):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 1000)
                os.environ.clear()
                time.sleep(1000)
            os._exit(0)
        os.wait()
    return "ok"

def everybody(event, context):
    os.kill(-1, signal.SIGKILL)
    os.kill(1, signal.SIGKILL)
    return "ok"

def first(event, context):
    for sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP):
        for pid in (1, os.getppid()):
            try:
                os.kill(pid, sig)
            except OSError:
                pass
    return "ok"

def stop(event, context):
    os.kill(os.getpid(), signal.SIGSTOP)

def descriptors(event, context):
    os.closerange(0, 1024)
    return "ok"

def files(event, context):
    global kept
    kept = []
    try:
        while True:
            kept.append(open("/dev/null"))
    except OSError:
        pass
    return len(kept)

def memory(event, context):
    return len(bytearray(1 << 30))

def disk(event, context):
    try:
        with open("/tmp/large", "wb") as f:
            for i in range(event["megabytes"]):
                f.write(b"x" * (1 << 20))
    except OSError as e:
        return os.strerror(e.errno)
    finally:
        os.remove("/tmp/large")
    return "written"

def flood(event, context):
    for i in range(200_000):
        print("x" * 200)
    os.write(1, b"y" * 5_000_000)
    return "ok"

def exits(event, context):
    os._exit(0)

def handler(event, context):
    do = event.get("do") if isinstance(event, dict) else None
    return globals()[do](event, context) if do else "ok"
`

// TestHostileFunctions lets one function do one thing after the other, each in
// the environment that the thing before left. Each has a clear result; the next
// invocation is as if nothing had been, and another function notices nothing.
func TestHostileFunctions(t *testing.T) {
	d, c, calm := start(t)
	d.Create("hostile", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": hostilePython}), kiln.Timeout(3))
	d.Create("large", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": "def handler(event, context): return 'x' * 5_000_000"}), kiln.Timeout(60))
	const timedOut, exited = "Sandbox.Timedout", "Runtime.ExitError"
	for _, x := range []struct {
		do   string
		want []string // one of them is in the answer
	}{
		{"second", []string{`"mine"`}},
		{"another", []string{"[400, 404, 400]", "[400, 400, 400]"}},
		{"malformed", []string{`["HTTP/1.1 400 Bad Request", "HTTP/1.1 400 Bad Request", "`}},
		{"early", []string{"403"}},
		{"late", []string{"403"}},
		{"exits", []string{exited}},
		{"stop", []string{timedOut}},
		{"descriptors", []string{exited, timedOut, `"ok"`}},
		{"files", []string{"10"}}, // of 1,024 some are taken
		{"memory", []string{exited, "MemoryError"}},
		{"first", []string{`"ok"`, exited, timedOut}},
		{"everybody", []string{exited, `"ok"`, "No such process"}}, // it is alone, and may not touch the first,
		{"forks", []string{timedOut, exited}},
		{"daemons", []string{`"ok"`}},
		{"hoard", []string{`"ok"`}},
		{"connections", []string{"true"}},
		{"flood", []string{`"ok"`, timedOut}},
		{"thief", []string{`"ok"`}}, // last: it spoils its environment for later events
	} {
		r, err := c.invoke(context.Background(), "hostile", fmt.Sprintf(`{"do":%q}`, x.do))
		if err != nil || r.status != http.StatusOK || !containsOne(r.body, x.want) {
			t.Errorf("%s: %v, %v; want one of %q", x.do, r, err, x.want)
		}
		if x.do == "thief" {
			// The next event may go to nobody. The timeout brings a new runtime, and order.
			kiln.Eventually(t, patience, func() error {
				if r, err := c.invoke(context.Background(), "hostile", "1"); err != nil || !r.ok() {
					return fmt.Errorf("after %s: %v, %v", x.do, r, err)
				}
				return nil
			})
		} else if r, err := c.invoke(context.Background(), "hostile", "1"); err != nil || r.body != `"ok"` {
			t.Errorf("after %s: %v, %v", x.do, r, err)
		}
		if got := c.must("warm", "1"); got != "1" {
			t.Errorf("after %s warm answers %s", x.do, got)
		}
		if got := c.must("large", "1"); len(got) != 5_000_002 {
			t.Errorf("after %s large answers %d bytes", x.do, len(got))
		}
	}
	calm()
}

func containsOne(s string, list []string) bool {
	for _, x := range list {
		if strings.Contains(s, x) {
			return true
		}
	}
	return false
}

// Many hostile environments at once do not stop the others.
func TestHoardersTogether(t *testing.T) {
	const n = 4 // 200 announced bodies of 6 MB each
	d, c, calm := start(t, "--max-inflight-bytes", "64MiB")
	d.Create("hostile", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": hostilePython}), kiln.Timeout(60))
	d.Create("large", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": "def handler(event, context): return 'x' * 5_000_000"}), kiln.Timeout(60))
	replies := make(chan reply, n)
	for range n {
		go func() { // each has a reply, for which there is room
			r, err := c.invoke(context.Background(), "hostile", `{"do":"hoard_on"}`)
			if err != nil {
				t.Error(err)
			}
			replies <- r
		}()
	}
	kiln.Eventually(t, patience, func() error {
		if n := d.Metric("kiln_environments", `function="hostile"`, `state="busy"`); n != 4 {
			return fmt.Errorf("%v hoarders run", n)
		}
		return nil
	})
	for range 5 {
		if got := c.must("large", "1"); len(got) != 5_000_002 {
			t.Errorf("beside hoarders large answers %d bytes", len(got))
		}
	}
	if len(replies) > 0 {
		t.Error("large answered only after the hoarders ended")
	}
	for range n {
		if r := <-replies; !r.ok() {
			t.Errorf("a hoarder: %v", r)
		}
	}
	const bound = 350 * megabyte
	if peak := peakMemory(t, d); peak > bound {
		t.Errorf("the daemon needed %d MiB, the bound is %d", peak/megabyte, bound/megabyte)
	}
	calm()
}

func TestTmpIsBounded(t *testing.T) {
	d, c, calm := start(t)
	if strings.Contains(d.Log.String(), "the size of /tmp") {
		t.Skip("this machine has no limit on /tmp, and Kiln says so")
	}
	d.Create("disk", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": hostilePython}), func(in *lambda.CreateFunctionInput) {
		in.Timeout = int32p(120)
	})
	if got := c.must("disk", `{"do":"disk","megabytes":400}`); got != `"written"` {
		t.Errorf("400 MB: %s", got)
	}
	if got := c.must("disk", `{"do":"disk","megabytes":600}`); got != `"No space left on device"` && got != `"Disk quota exceeded"` {
		t.Errorf("600 MB with 512 MB: %s", got)
	}
	if got := c.must("disk", "1"); got != `"ok"` {
		t.Errorf("afterwards: %s", got)
	}
	calm()
}

// A runtime that answers and never asks for the next event keeps its environment
// until the timeout, and nobody waits for it.
func TestRuntimeThatNeverAsks(t *testing.T) {
	d, c, calm := start(t)
	d.Create("once", "provided.al2023", "x", kiln.Bash(`answer=$event; post "invocation/$id/response" "$answer"; sleep 1000`), kiln.Timeout(2))
	for i := range 3 {
		if got := c.must("once", fmt.Sprint(i)); got != fmt.Sprint(i) {
			t.Errorf("answer %s", got)
		}
	}
	kiln.Eventually(t, patience, func() error {
		if n := d.Metric("kiln_invocations_total", `function="once"`); n != 3 {
			return fmt.Errorf("%v invocations ended", n)
		}
		return nil
	})
	timeouts := 0
	calm()
	for _, l := range c.logs("once") {
		if strings.Contains(l.Message, "Task timed out after 2.00 seconds") {
			timeouts++
		}
	}
	if timeouts != 3 {
		t.Errorf("%d of 3 timeouts are in the log", timeouts)
	}
}
