package queue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kiln/internal/front/eventsource"
	"kiln/internal/front/eventsource/queue"
	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/lease"
	"kiln/internal/telemetry/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const source = "arn:aws:sqs:us-east-1:123456789012:q.fifo"

var scope = lambda.Scope{Account: "123456789012", Region: "us-east-1"}

// rig is pollers with one mapping, whose function is a Go function.
type rig struct {
	mapping *lambda.EventSourceMapping
	handle  func(payload []byte) (lambda.Result, error)
}

func (r *rig) All() []*lambda.EventSourceMapping { return []*lambda.EventSourceMapping{r.mapping} }

func (r *rig) Invoke(_ context.Context, _ lambda.FunctionARN, payload []byte, _ string) (lambda.Result, error) {
	return r.handle(payload)
}

func (r *rig) Function(context.Context, lambda.FunctionARN) (*lambda.Function, error) {
	return &lambda.Function{Settings: lambda.Settings{Timeout: 100 * time.Millisecond}}, nil
}

func (r *rig) Authorise(lambda.Principal, string, lambda.ARN) error { return nil }

func (r *rig) Acting(*lambda.Function) lambda.Principal { return lambda.Principal{} }

// watched is the driver, which must not end but with its context or an error.
type watched struct{ t *testing.T }

func (d watched) Poll(ctx context.Context, w *eventsource.Work) error {
	err := queue.New().Poll(ctx, w)
	if err == nil && ctx.Err() == nil {
		d.t.Error("the poller has ended by itself")
	}
	return err
}

// nothing is a State that remembers no record: one node needs none.
type nothing struct{}

func (nothing) All(context.Context, string) ([]state.Record, error) { return nil, nil }

func (nothing) Commit(_ context.Context, changes ...state.Change) ([]state.Revision, error) {
	return make([]state.Revision, len(changes)), nil
}

// start polls the queue for the mapping until the returned function is called.
func (r *rig) start(t *testing.T, q *fifo, settings lambda.MappingSettings) (stop func()) {
	server := httptest.NewServer(q)
	t.Setenv("AWS_ACCESS_KEY_ID", "k")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "k")
	r.mapping = &lambda.EventSourceMapping{
		ARN: lambda.MappingARN{Scope: scope, ID: "m"}, State: lambda.MappingEnabled, Settings: settings,
		Source: lambda.EventSource{Kind: lambda.SQS, ARN: source}, Function: lambda.FunctionARN{Scope: scope, Name: "f"},
	}
	leases := lease.New(nothing{}, lease.Config{Node: "n"})
	counts := metrics.New(metrics.Config{})
	p := eventsource.New(eventsource.Config{
		Sources:  map[lambda.SourceKind]eventsource.Source{lambda.SQS: {Driver: watched{t}}},
		Mappings: r, Invoker: r, Roles: r, State: nothing{}, Leases: leases,
		Endpoint: func(string, string) string { return server.URL },
		Counter:  func(m *lambda.EventSourceMapping) eventsource.Counter { return counts.Source(m.ARN, m.Function) },
		Log:      slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { leases.Run(ctx) })
	work.Go(func() { _ = p.Run(ctx) })
	return func() { cancel(); work.Wait(); server.CloseClientConnections(); server.Close() }
}

type event struct {
	Records []struct {
		MessageID  string `json:"messageId"`
		Body       string
		Attributes struct{ MessageGroupId string } //nolint:revive // AWS's name
	}
}

// TestOrder has a function fail in every way that it can, by a random plan, and asserts
// that of each group it handles one message after the other, in order, and all of them.
func TestOrder(t *testing.T) {
	for _, reports := range []bool{true, false} {
		t.Run(fmt.Sprint("reports ", reports), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			q := &fifo{t: t, visibility: 60 * time.Millisecond, fails: 37}
			const groups, each = 5, 40
			for i := range groups * each {
				q.add(strconv.Itoa(i%groups), strconv.Itoa(i/groups))
			}
			// Ids are one a message over all groups.
			for i, m := range q.messages {
				m.id = fmt.Sprint("m", i)
			}
			var mu sync.Mutex
			next, busy := map[string]int{}, map[string]bool{}
			runs, failures := 0, 0
			r := &rig{}
			r.handle = func(payload []byte) (lambda.Result, error) {
				var e event
				if err := json.Unmarshal(payload, &e); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				runs++
				mine := map[string]bool{}
				for _, m := range e.Records {
					mine[m.Attributes.MessageGroupId] = true
				}
				for g := range mine {
					if busy[g] {
						t.Errorf("group %s is with the function twice", g)
					}
					busy[g] = true
				}
				plan := random.IntN(10)
				mu.Unlock()
				time.Sleep(time.Millisecond)
				mu.Lock()
				defer func() {
					for g := range mine {
						delete(busy, g)
					}
				}()
				switch plan {
				case 0:
					failures++
					return lambda.Result{FunctionError: "Unhandled"}, nil
				case 1:
					return lambda.Result{}, lambda.Throttled("ConcurrentInvocationLimitExceeded")
				case 2:
					if reports {
						failures++
						return lambda.Result{Payload: []byte(`{"batchItemFailures":[{"itemIdentifier":""}]}`)}, nil
					}
				}
				var failed []string
				stuck := map[string]bool{}
				for _, m := range e.Records {
					g := m.Attributes.MessageGroupId
					if stuck[g] || reports && random.IntN(12) == 0 {
						stuck[g] = true // and with it all later ones of its group
						failed = append(failed, fmt.Sprintf(`{"itemIdentifier":%q}`, m.MessageID))
						continue
					}
					n, _ := strconv.Atoi(m.Body)
					if n > next[g] {
						t.Errorf("group %s: %d came before %d", g, n, next[g])
					}
					next[g] = max(next[g], n+1)
				}
				failures += len(failed)
				return lambda.Result{Payload: []byte(`{"batchItemFailures":[` + strings.Join(failed, ",") + `]}`)}, nil
			}
			settings := lambda.MappingSettings{BatchSize: new(4), BatchingWindow: new(0)}
			if reports {
				settings.ResponseTypes = []string{eventsource.ReportBatchItemFailures}
			}
			stop := r.start(t, q, settings)
			for end := time.Now().Add(time.Minute); q.left() > 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			stop()
			if n := q.left(); n > 0 {
				t.Fatalf("%d messages are left", n)
			}
			for g := range groups {
				if n := next[strconv.Itoa(g)]; n != each {
					t.Errorf("group %d: %d of %d handled", g, n, each)
				}
			}
			if failures == 0 {
				t.Errorf("only %d failures in %d runs: the test shows little", failures, runs)
			}
		})
	}
}

func TestFailedItems(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		``: "[]", `null`: "[]", `{}`: "[]", `""`: "[]", `[]`: "[]",
		`{"batchItemFailures":[]}`: "[]", `{"batchItemFailures":null}`: "[]",
		`{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"b","more":1}]}`: "[a b]",
		`{"batchItemFailures":[{"itemIdentifier":""}]}`:                                  "missing",
		`{"batchItemFailures":[{"itemIdentifier":null}]}`:                                "missing",
		`{"batchItemFailures":[{"itemIdentifier":1}]}`:                                   "missing",
		`{"batchItemFailures":[{"itemidentifier":"a"}]}`:                                 "missing",
		`{"batchItemFailures":[null]}`:                                                   "missing",
		`{"batchItemFailures":[{"itemIdentifier":"z"}]}`:                                 "not in the batch",
		`{"batchItemFailures":{"itemIdentifier":"a"}}`:                                   "not a list",
		`{"batchItemFailures":["a"]}`:                                                    "not a list",
		`"done"`:                                                                         "not an object", `[1]`: "not an object", `{"batchItemFailures"`: "not an object",
	} {
		names, err := eventsource.FailedItems([]byte(answer), func(name string) bool { return slices.Contains([]string{"a", "b"}, name) })
		if got := fmt.Sprint(names); err == nil && got != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v, want %s", answer, got, err, want)
		}
	}
}
