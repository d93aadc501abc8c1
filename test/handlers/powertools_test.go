package handlers

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestPowertools has Powertools for AWS Lambda in real functions: its logger's and
// metrics' lines are each one event, with what it takes from the context, and a batch
// with failures is answered in part.
func TestPowertools(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments("--any-runtime")...)
	for _, c := range []struct {
		runtime, handler, main, prefix string
		wholeFailure                   string // errorType when every record fails
		errorName                      string
		location                       string // of the name of the error in a log line
	}{
		{"nodejs24.x", "index.handler", "index.mjs", "node_modules/", "FullBatchFailureError", "Error", "error.name"},
		{"python3.13", "app.handler", "app.py", "", "BatchProcessingError", "ValueError", "exception_name"},
	} {
		t.Run(c.runtime, func(t *testing.T) {
			t.Parallel()
			family := strings.TrimRight(c.runtime, "0123456789.x")
			from := filepath.Join(kiln.Root(), ".cache", "powertools", family, c.prefix)
			if _, err := os.Stat(from); err != nil {
				t.Skip("Powertools is not installed: scripts/test.sh does that")
			}
			files := map[string]string{c.main: source(t, "powertools/"+c.main)}
			addTree(t, files, c.prefix, from)
			l := language{family, c.runtime, c.handler, kiln.Zip(files)}
			f := l.create(t, d, all(timeout(30), memory(512)))

			for i, cold := range []bool{true, false} {
				var request string
				r := f.ok(event{"id": 7 + i}, &request)
				var seen []string
				for line := range strings.Lines(r.tail) {
					var e map[string]any
					if json.Unmarshal([]byte(line), &e) != nil {
						continue // the platform's
					}
					if aws, ok := e["_aws"].(map[string]any); ok {
						spec := aws["CloudWatchMetrics"].([]any)[0].(map[string]any)
						name := spec["Metrics"].([]any)[0].(map[string]any)["Name"].(string)
						value := e[name]
						if list, ok := value.([]any); ok {
							value = list[0]
						}
						seen = append(seen, fmt.Sprintf("metric %s/%s %v %v %v", spec["Namespace"], name, value, e["service"], e["kind"]))
						continue
					}
					if e["function_request_id"] != request || e["cold_start"] != cold || e["service"] != "orders" || e["function_name"] != f.name ||
						e["function_memory_size"] != "512" || !strings.HasPrefix(fmt.Sprint(e["function_arn"]), "arn:aws:lambda:") || !strings.HasPrefix(fmt.Sprint(e["xray_trace_id"]), "1-") {
						t.Errorf("the line has not what is in the context: %s", line)
					}
					text := fmt.Sprint(e["level"], " ", e["message"])
					if order, ok := e["order"].(map[string]any); ok {
						text += fmt.Sprint(" ", order["id"])
					}
					var at any = e
					for _, key := range strings.Split(c.location, ".") {
						if m, ok := at.(map[string]any); ok {
							at = m[key]
						}
					}
					if at != nil {
						text += fmt.Sprint(" ", at)
					}
					seen = append(seen, text)
				}
				want := []string{fmt.Sprintf("INFO an order %d", 7+i), "ERROR failed " + c.errorName, "metric Shop/sold 2 orders book"}
				for _, w := range want {
					if !slices.Contains(seen, w) {
						t.Errorf("%q is not among %q in\n%s", w, seen, r.tail)
					}
				}
				metric := "metric Shop/ColdStart 1 orders <nil>"
				if slices.Contains(seen, metric) != cold {
					t.Errorf("cold: %t; saw %q", cold, seen)
				}
			}

			batch := func(bodies ...string) event {
				var records []event
				for i, body := range bodies {
					records = append(records, event{
						"messageId": fmt.Sprint("m", i), "receiptHandle": "r", "body": body, "attributes": event{}, "messageAttributes": event{},
						"md5OfBody": "", "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:q", "awsRegion": "us-east-1",
					})
				}
				return event{"Records": records}
			}
			var answer struct {
				BatchItemFailures []struct{ ItemIdentifier string }
			}
			f.ok(batch("good", "bad", "good", "bad"), &answer)
			if got := fmt.Sprint(answer.BatchItemFailures); got != "[{m1} {m3}]" {
				t.Errorf("the failures are %s", got)
			}
			f.ok(batch("good"), &answer)
			if len(answer.BatchItemFailures) != 0 {
				t.Errorf("the failures are %v", answer.BatchItemFailures)
			}
			if r := f.invoke(batch("bad", "bad")); r.failed != "Unhandled" || !strings.Contains(r.payload, c.wholeFailure) {
				t.Errorf("when all fail: %q %s", r.failed, r.payload)
			}
		})
	}
}
