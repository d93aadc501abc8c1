package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"kiln/test/kiln"
)

// echo is a function in one language that answers with the event's nonce, its own
// name and the request's id, and logs the nonce.
type echo struct {
	name, runtime, handler string
	code                   []byte
}

const nodeEcho = `
exports.handler = async (event, context) => {
	console.log("nonce " + event.nonce)
	await new Promise(done => setTimeout(done, event.pause))
	return { nonce: event.nonce, name: context.functionName, id: context.awsRequestId, arn: context.invokedFunctionArn }
}`

const pythonEcho = `
import time
def handler(event, context):
    print("nonce", event["nonce"])
    time.sleep(event["pause"] / 1000)
    return {"nonce": event["nonce"], "name": context.function_name, "id": context.aws_request_id, "arn": context.invoked_function_arn}
`

const bashEcho = `
nonce=${event#*\"nonce\":\"} nonce=${nonce%%\"*}
echo "nonce $nonce"
sleep 0.01
answer="{\"nonce\":\"$nonce\",\"name\":\"$AWS_LAMBDA_FUNCTION_NAME\",\"id\":\"$id\",\"arn\":\"\"}"
`

func echoes() (list []echo) {
	for _, n := range []string{"a", "b"} {
		list = append(list,
			echo{"node-" + n, "nodejs22.x", "index.handler", kiln.Zip(map[string]string{"index.js": nodeEcho})},
			echo{"python-" + n, "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": pythonEcho})},
			echo{"bash-" + n, "provided.al2023", "x", kiln.Bash(bashEcho)})
	}
	return list
}

func TestNothingIsMixedUp(t *testing.T) {
	const clients, each = 200, 3
	d, c, calm := start(t)
	list := echoes()
	for _, e := range list {
		d.Create(e.name, e.runtime, e.handler, e.code, kiln.Timeout(120))
	}
	type call struct{ function, nonce string }
	var mu sync.Mutex
	calls := map[string]call{} // by request id
	counts := map[string]int{} // by function
	var wait sync.WaitGroup
	for i := range clients {
		wait.Go(func() {
			for n := range each {
				name := list[(i+n)%len(list)].name
				nonce := fmt.Sprintf("n%d.%d", i, n)
				r, err := c.invoke(context.Background(), name, fmt.Sprintf(`{"nonce":%q,"pause":%d}`, nonce, i%20))
				if err != nil || !r.ok() {
					t.Errorf("%s: %v, %v", name, r, err)
					continue
				}
				var got struct{ Nonce, Name, ID, ARN string }
				if err := json.Unmarshal([]byte(r.body), &got); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				id := r.header.Get("X-Amzn-Requestid")
				if got.Nonce != nonce || got.Name != name || got.ID != id || got.ARN != "" && !strings.HasSuffix(got.ARN, ":"+name) {
					t.Errorf("%s with %s and request id %s was answered by %+v", name, nonce, id, got)
				}
				mu.Lock()
				calls[id] = call{name, nonce}
				counts[name]++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if len(calls) != clients*each {
		t.Fatalf("%d request ids for %d invocations", len(calls), clients*each)
	}
	for name, want := range counts {
		label := `function="` + name + `"`
		kiln.Eventually(t, patience, func() error {
			if got := d.Metric("kiln_invocations_total", label); got != float64(want) {
				return fmt.Errorf("%s: %v invocations are counted, %d were made", name, got, want)
			}
			return nil
		})
		if got := d.Metric("kiln_invocation_errors_total", label) + d.Metric("kiln_throttles_total", label); got != 0 {
			t.Errorf("%s: %v errors and throttles", name, got)
		}
		if got := d.Metric("kiln_invocation_duration_seconds_count", label); got != float64(want) {
			t.Errorf("%s: %v durations, %d invocations", name, got, want)
		}
	}
	calm() // the last REPORT line is written before an environment ends
	for _, e := range list {
		running := map[string]string{} // request id by stream
		seen := map[string]int{}       // lines of the three kinds, by request id
		for _, l := range c.logs(e.name) {
			id := running[l.Stream]
			switch word := strings.Fields(l.Message); {
			case len(word) > 2 && word[0] == "START":
				if id != "" {
					t.Errorf("%s: %s begins before %s ends, in stream %s", e.name, word[2], id, l.Stream)
				}
				running[l.Stream] = word[2]
				seen[word[2]]++
			case strings.Contains(l.Message, "nonce "):
				if want := calls[id]; want.function != e.name || !strings.HasSuffix(l.Message, "nonce "+want.nonce) {
					t.Errorf("%s, request %s, which is %v, logged %q", e.name, id, want, l.Message)
				}
				seen[id]++
			case len(word) > 2 && word[0] == "REPORT":
				if word[2] != id {
					t.Errorf("%s: REPORT of %s while %s runs", e.name, word[2], id)
				}
				delete(running, l.Stream)
				seen[id]++
			}
		}
		if len(seen) != counts[e.name] {
			t.Errorf("%s: the log has %d requests, there were %d", e.name, len(seen), counts[e.name])
		}
		for id, n := range seen {
			if n != 3 {
				t.Errorf("%s: %d of START, nonce and REPORT of %s are in the log", e.name, n, id)
			}
		}
	}
}

type logLine struct {
	Stream  string `json:"logStreamName"`
	Message string
}

// logs reads the function's whole log.
func (c *client) logs(function string) (list []logLine) {
	c.t.Helper()
	for token := ""; ; {
		in := map[string]string{"logGroupName": "/aws/lambda/" + function}
		if token != "" {
			in["nextToken"] = token
		}
		body, err := json.Marshal(in)
		if err != nil {
			c.t.Fatal(err)
		}
		request, err := c.request(context.Background(), http.MethodPost, "/", bytes.NewReader(body))
		if err != nil {
			c.t.Fatal(err)
		}
		request.Header.Set("Authorization", strings.Replace(authorization, "/lambda/", "/logs/", 1))
		request.Header.Set("X-Amz-Target", "Logs_20140328.FilterLogEvents")
		r, err := c.send(request)
		if err != nil || r.status != http.StatusOK {
			c.t.Fatalf("logs of %s: %v, %v", function, r, err)
		}
		var page struct {
			Events    []logLine
			NextToken string
		}
		if err := json.Unmarshal([]byte(r.body), &page); err != nil {
			c.t.Fatal(err)
		}
		list = append(list, page.Events...)
		if token = page.NextToken; token == "" {
			return list
		}
	}
}
