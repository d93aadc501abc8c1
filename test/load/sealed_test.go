package load

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"kiln/test/kiln"
)

const victimPython = `
import time
def handler(event, context):
    print("mine is", context.aws_request_id)
    time.sleep(event)
    return "the victim's"
`

const thiefPython = `
import http.client, os
def handler(event, context):
    got = []
    for what, body in ("response", '"the thief\'s"'), ("error", '{"errorType":"thief"}'):
        c = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"], timeout=10)
        c.request("POST", "/2018-06-01/runtime/invocation/" + event + "/" + what, body)
        got.append(c.getresponse().status)
    return got
`

// A request is answered by the environment that has it, whoever knows its id.
func TestAnotherAnswers(t *testing.T) {
	d, c, calm := start(t)
	d.Create("victim", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": victimPython}), kiln.Timeout(30))
	d.Create("thief", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": thiefPython}), kiln.Timeout(30))
	answered := make(chan reply, 1)
	go func() { // there is room for its reply
		r, err := c.invoke(context.Background(), "victim", "5")
		if err != nil {
			t.Error(err)
		}
		answered <- r
	}()
	id := ""
	kiln.Eventually(t, patience, func() error {
		_, text := kiln.Run(t, "logs", "victim", "--endpoint", d.URL)
		_, rest, ok := strings.Cut(text, "mine is ")
		if !ok {
			return fmt.Errorf("the victim has not begun: %s", text)
		}
		id, _, _ = strings.Cut(rest, "\n")
		return nil
	})
	if got := c.must("thief", strconv.Quote(id)); got != "[400, 400]" {
		t.Errorf("answering another's request: %s", got)
	}
	if r := <-answered; r.body != `"the victim's"` {
		t.Errorf("the victim's answer: %v", r)
	}
	calm()
}

// With cpu_limit a function gets the processor time that its memory buys.
func TestCPULimit(t *testing.T) {
	d, c, calm := start(t, "--cpu-limit")
	if strings.Contains(d.Log.String(), "processor time by memory") {
		t.Skip("this machine has no limit on processor time, and Kiln says so")
	}
	d.Create("busy", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": `
import time
def handler(event, context):
    begin, used = time.monotonic(), time.process_time()
    while time.monotonic() < begin + 1: pass
    return (time.process_time() - used) / (time.monotonic() - begin)
`}), kiln.Timeout(30))
	for range 2 { // in a new environment, and in one that was idle
		if part, err := strconv.ParseFloat(c.must("busy", "1"), 64); err != nil || part > 0.15 {
			t.Errorf("128 MB buy %v of a processor, %v; want a fourteenth", part, err)
		}
	}
	calm()
}
