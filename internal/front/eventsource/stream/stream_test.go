package stream

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kiln/internal/front/eventsource"
	"kiln/internal/lambda"
)

// rig is a mapping of a stream of one shard, unless a test adds others, with a function
// that a test scripts.
type rig struct {
	t       *testing.T
	source  lambda.EventSource
	mapping lambda.MappingSettings
	// answer is the function. Nil answers null.
	answer  func(call int, e event) (lambda.Result, error)
	deliver error // what the destination answers

	mu        sync.Mutex
	tape      map[string]*tape
	gone      map[string]bool // iterators
	disk      map[string][]byte
	saves     int
	events    []event
	discarded []eventsource.Failure
	told      []string
	counts    map[string]int
}

type tape struct {
	records []record
	parents []string
	closed  bool
	trimmed int // records at the beginning
}

// event is what the function gets.
type event struct {
	Records                 []int
	Window                  *struct{ Start, End time.Time }
	State                   json.RawMessage
	ShardID                 string
	IsFinalInvokeForWindow  bool
	IsWindowTerminatedEarly bool
}

const shardA = "shard-a"

func newRig(t *testing.T) *rig {
	return &rig{
		t: t, tape: map[string]*tape{shardA: {}}, disk: map[string][]byte{}, counts: map[string]int{},
		source: lambda.EventSource{ARN: "arn:aws:kinesis:us-east-1:000000000000:stream/s", StartingPosition: "TRIM_HORIZON"},
	}
}

// put adds records, which are numbers.
func (r *rig) put(shard string, numbers ...int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range numbers {
		r.tape[shard].records = append(r.tape[shard].records, record{
			sequence: strconv.Itoa(n), key: fmt.Sprint(n % 7), arrived: time.Now(), event: []byte(strconv.Itoa(n)), view: []byte(strconv.Itoa(n)),
		})
	}
}

func (r *rig) interval() time.Duration { return time.Second }
func (r *rig) batch() (string, string) { return "KinesisBatchInfo", "2006-01-02T15:04:05.000Z" }

func (r *rig) shards(context.Context) (list []shard, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(r.tape)) {
		list = append(list, shard{id, r.tape[id].parents, r.tape[id].closed})
	}
	return list, nil
}

func (r *rig) iterator(_ context.Context, id string, at place) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tape[id]
	i := t.trimmed
	switch {
	case at.latest:
		i = len(t.records)
	case at.after != "":
		if i = slices.IndexFunc(t.records, func(r record) bool { return compare(r.sequence, at.after) > 0 }); i < 0 {
			i = len(t.records)
		}
	}
	return strconv.Itoa(i), nil
}

func (r *rig) read(_ context.Context, id, iterator string) (p page, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tape[id]
	i, _ := strconv.Atoi(iterator)
	switch {
	case i < t.trimmed:
		return p, errTrimmed
	case r.gone[iterator]:
		delete(r.gone, iterator)
		return p, errExpired
	}
	p.records = slices.Clone(t.records[i:])
	if p.next = strconv.Itoa(len(t.records)); t.closed {
		p.next = ""
	}
	return p, nil
}

func (r *rig) Get(shard string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.disk[shard]
}

func (r *rig) Shards() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.disk))
}

func (r *rig) Save(_ context.Context, shard string, value []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saves++
	if r.disk[shard] = value; value == nil {
		delete(r.disk, shard)
	}
	return nil
}

func (r *rig) Match(view []byte) bool { return !bytes.HasSuffix(view, []byte("3")) }

func (r *rig) Invoke(payload []byte, _ string) (lambda.Result, error) {
	var e event
	if err := json.Unmarshal(payload, &e); err != nil && len(payload) < 1000 {
		r.t.Errorf("an event that is no JSON: %s", payload)
	}
	if len(payload) > maxEvent {
		r.t.Errorf("an event of %d bytes", len(payload))
	}
	r.mu.Lock()
	r.events = append(r.events, e)
	call := len(r.events)
	r.mu.Unlock()
	if r.answer == nil {
		return lambda.Result{Payload: []byte("null")}, nil
	}
	return r.answer(call, e)
}

func (r *rig) Discard(_ context.Context, f eventsource.Failure) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.discarded = append(r.discarded, f)
	return r.deliver
}

func (r *rig) Tell(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.told) == 0 || r.told[len(r.told)-1] != what {
		r.told = append(r.told, what)
	}
}

// counted is a Counter.
type counted struct{ *rig }

func (c counted) add(name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[name] += n
}
func (c counted) Polled(n int)                { c.add("polled", n) }
func (c counted) FilteredOut(n int)           { c.add("filtered", n) }
func (c counted) Invoked(n int)               { c.add("invoked", n) }
func (c counted) Failed(n int)                { c.add("failed", n) }
func (c counted) Deleted(n int)               { c.add("deleted", n) }
func (c counted) Dropped(n int)               { c.add("dropped", n) }
func (c counted) Delivered(n int)             { c.add("delivered", n) }
func (c counted) DestinationFailed()          { c.add("unreached", 1) }
func (c counted) IteratorAge(a time.Duration) { c.add("ages", 1) }

// run polls for a time, which is not real.
func (r *rig) run(d time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), d)
	defer cancel()
	r.events, r.told = nil, nil
	if err := r.poll().run(ctx); err != nil {
		r.t.Errorf("the poll ended: %v", err)
	}
}

func (r *rig) poll() *poll {
	m := &lambda.EventSourceMapping{
		ARN:      lambda.MappingARN{Scope: lambda.Scope{Account: "000000000000", Region: "us-east-1"}, ID: "an-id"},
		Function: lambda.FunctionARN{Scope: lambda.Scope{Account: "000000000000", Region: "us-east-1"}, Name: "f"}, Source: r.source, Settings: r.mapping,
	}
	w := &eventsource.Work{Mapping: m, Positions: r, Counter: counted{r}, Log: slog.New(slog.DiscardHandler)}
	if r.mapping.Filters != nil {
		w.Filter = r
	}
	return newPoll(firstBackoff, r, w, r)
}

// want compares the batches that the function got.
func (r *rig) want(batches ...string) {
	r.t.Helper()
	var got []string
	for _, e := range r.events {
		got = append(got, strings.Trim(fmt.Sprint(e.Records), "[]"))
	}
	if !slices.Equal(got, batches) {
		r.t.Errorf("the function got %q, not %q", got, batches)
	}
}

func (r *rig) count(name string, n int) {
	r.t.Helper()
	if r.counts[name] != n {
		r.t.Errorf("%s: %d, not %d", name, r.counts[name], n)
	}
}

func fails(payload string) lambda.Result {
	return lambda.Result{FunctionError: "Unhandled", Payload: []byte(payload), ExecutedVersion: lambda.Latest}
}

func simulate(t *testing.T, name string, test func(*rig)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) { test(newRig(t)) })
	})
}

func TestBatches(t *testing.T) {
	t.Parallel()
	simulate(t, "of a size", func(r *rig) {
		r.mapping.BatchSize = new(3)
		r.put(shardA, 1, 2, 3, 4)
		r.run(time.Minute)
		r.want("1 2 3", "4")
		r.count("invoked", 4)
		r.count("ages", 2)
		if !slices.Equal(r.told, []string{"No records processed", "OK"}) && !slices.Equal(r.told, []string{"OK", "No records processed", "OK"}) {
			r.t.Errorf("told %q", r.told)
		}
		r.put(shardA, 5)
		r.run(time.Minute)
		r.want("5")
		if !slices.Equal(r.told, []string{"OK"}) {
			r.t.Errorf("after a restart, told %q", r.told)
		}
	})
	simulate(t, "that wait", func(r *rig) {
		r.mapping.BatchSize, r.mapping.BatchingWindow = new(4), new(10)
		go func() {
			for i := range 6 {
				time.Sleep(4 * time.Second)
				r.put(shardA, i+1)
			}
		}()
		r.run(time.Minute)
		r.want("1 2 3", "4 5 6")
	})
	simulate(t, "of 6 MB", func(r *rig) {
		r.put(shardA, 1, 2, 3, 4, 5)
		for i, size := range []int{3 << 20, 3<<20 - 14, 1, 7 << 20, 1} {
			r.tape[shardA].records[i].event = bytes.Repeat([]byte("1"), size)
		}
		r.run(time.Minute)
		if len(r.events) != 3 {
			r.t.Errorf("%d batches", len(r.events))
		}
		r.count("dropped", 1)
	})
	simulate(t, "that are filtered", func(r *rig) {
		r.mapping.Filters = []string{"one"}
		r.put(shardA, 3, 13, 14)
		r.run(time.Minute)
		r.want("14")
		r.saves = 0
		for i := range 50 {
			r.put(shardA, 23+10*i)
		}
		r.run(time.Minute)
		r.want()
		r.count("filtered", 52)
		if r.saves != 1 {
			r.t.Errorf("saved %d times", r.saves)
		}
		r.put(shardA, 1004)
		r.run(time.Minute)
		r.want("1004")
		r.count("filtered", 52)
	})
	simulate(t, "of an end", func(r *rig) {
		r.mapping.BatchingWindow = new(300)
		r.tape["child"] = &tape{parents: []string{shardA, "long-gone"}}
		r.put("child", 11)
		r.put(shardA, 1)
		r.tape[shardA].closed = true
		r.run(time.Minute)
		r.want("1")
		r.run(10 * time.Minute)
		r.want("11")
		if string(r.disk[shardA]) != `{"end":true}` {
			r.t.Errorf("the shard that ended is remembered as %s", r.disk[shardA])
		}
		delete(r.tape, shardA)
		r.run(time.Minute)
		if _, ok := r.disk[shardA]; ok {
			r.t.Error("a shard that is gone is not forgotten")
		}
	})
}

func TestFailures(t *testing.T) {
	t.Parallel()
	// bad fails batches with that record.
	bad := func(n int) func(int, event) (lambda.Result, error) {
		return func(_ int, e event) (lambda.Result, error) {
			if slices.Contains(e.Records, n) {
				return fails("{}"), nil
			}
			return lambda.Result{}, nil
		}
	}
	destination := new("arn:aws:sqs:us-east-1:000000000000:q")
	simulate(t, "attempts", func(r *rig) {
		r.mapping.MaximumRetryAttempts, r.mapping.OnFailure, r.mapping.BatchSize = new(2), destination, new(3)
		r.answer = bad(2)
		r.put(shardA, 1, 2, 3, 4)
		began := time.Now().UTC()
		r.run(time.Minute)
		r.want("1 2 3", "1 2 3", "1 2 3", "4")
		r.count("invoked", 10)
		r.count("failed", 9)
		r.count("delivered", 3)
		r.count("dropped", 0)
		if len(r.discarded) != 1 {
			r.t.Fatalf("%d records of failures", len(r.discarded))
		}
		f := r.discarded[0]
		at := began.Format("2006-01-02T15:04:05.000Z")
		id := strings.SplitN(strings.TrimPrefix(string(f.Record), `{"requestContext":{"requestId":"`), `"`, 2)[0]
		const form = "2006-01-02T15:04:05.000Z"
		later := began.Add(1500 * time.Millisecond) // two pauses
		wanted := `{"requestContext":{"requestId":"` + id + `","functionArn":"arn:aws:lambda:us-east-1:000000000000:function:f","condition":"RetryAttemptsExhausted","approximateInvokeCount":3},` +
			`"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},"version":"1.0","timestamp":"` + later.Format(form) + `",` +
			`"KinesisBatchInfo":{"shardId":"shard-a","startSequenceNumber":"1","endSequenceNumber":"3","approximateArrivalOfFirstRecord":"` + at + `","approximateArrivalOfLastRecord":"` + at + `","batchSize":3,"streamArn":"arn:aws:kinesis:us-east-1:000000000000:stream/s"}}`
		if string(f.Record) != wanted {
			r.t.Errorf("the record is\n%s, not\n%s", f.Record, wanted)
		}
		if object := strings.TrimSuffix(wanted, "}") + `,"payload":{"Records":[1,2,3]}}`; string(f.Object) != object {
			r.t.Errorf("the object is %s", f.Object)
		}
		if key := "aws/lambda/an-id/shard-a/" + later.Format("2006/01/02/2006-01-02T15.04.05-"); !strings.HasPrefix(f.Key, key) {
			r.t.Errorf("the key is %s, not %s…", f.Key, key)
		}
	})
	simulate(t, "a destination that fails", func(r *rig) {
		r.mapping.MaximumRetryAttempts, r.mapping.OnFailure = new(0), destination
		r.deliver = errors.New("down")
		r.answer = bad(1)
		r.put(shardA, 1, 2)
		r.run(time.Minute)
		r.want("1 2")
		r.count("dropped", 2)
		r.count("unreached", 1)
		r.run(time.Minute)
		r.want()
	})
	simulate(t, "halves", func(r *rig) {
		r.mapping.MaximumRetryAttempts, r.mapping.BisectBatch = new(1), new(true)
		r.answer = bad(3)
		r.put(shardA, 1, 2, 3, 4)
		r.run(time.Minute)
		r.want("1 2 3 4", "1 2", "3 4", "3", "3", "4")
		r.count("dropped", 1)
	})
	simulate(t, "age", func(r *rig) {
		r.mapping.MaximumRecordAge, r.mapping.OnFailure = new(60), destination
		r.answer = bad(1)
		r.put(shardA, 1)
		go func() {
			time.Sleep(30 * time.Second)
			r.put(shardA, 2)
		}()
		r.run(10 * time.Minute)
		if n := len(r.events); !slices.Equal(r.events[n-1].Records, []int{2}) || n < 6 || n > 12 {
			r.t.Errorf("invoked %d times, at last with %v", n, r.events[n-1].Records)
		}
		if len(r.discarded) != 1 || !strings.Contains(string(r.discarded[0].Record), `"condition":"RecordAgeExceeded","approximateInvokeCount":`+strconv.Itoa(len(r.events)-1)+`},"version"`) {
			r.t.Errorf("given up: %s", r.discarded)
		}
		// What is too old already is not tried.
		r.put(shardA, 3)
		r.tape[shardA].records[2].arrived = time.Now().Add(-time.Hour)
		r.put(shardA, 4)
		r.run(time.Minute)
		r.want("4")
	})
	simulate(t, "throttles are no attempts", func(r *rig) {
		r.mapping.MaximumRetryAttempts = new(0)
		r.answer = func(call int, _ event) (lambda.Result, error) {
			if call < 5 {
				return lambda.Result{}, lambda.Throttled("ConcurrentInvocationLimitExceeded")
			}
			return lambda.Result{}, nil
		}
		r.put(shardA, 1)
		r.run(time.Minute)
		r.want("1", "1", "1", "1", "1")
		r.count("invoked", 1)
		r.count("dropped", 0)
		if !slices.Contains(r.told, "PROBLEM: Rate Exceeded.") || r.told[len(r.told)-1] != "OK" {
			r.t.Errorf("told %q", r.told)
		}
	})
	simulate(t, "an end stops attempts", func(r *rig) {
		r.answer = bad(1)
		r.put(shardA, 1)
		r.run(2 * time.Second)
		r.want("1", "1", "1")
		if r.told[len(r.told)-1] != "PROBLEM: Function call failed" {
			r.t.Errorf("told %q", r.told)
		}
		r.answer = nil
		r.run(time.Minute)
		r.want("1")
	})
	simulate(t, "what is done is saved at an end", func(r *rig) {
		r.answer = func(int, event) (lambda.Result, error) {
			time.Sleep(10 * time.Second)
			return lambda.Result{}, nil
		}
		r.put(shardA, 1)
		r.run(2 * time.Second)
		r.want("1")
		r.run(time.Minute)
		r.want()
	})
}

// What functions answered to AWS, and what it did.
func TestPartialFailures(t *testing.T) {
	t.Parallel()
	for answer, next := range map[string]string{
		`{"batchItemFailures":[]}`:   "",
		`{"batchItemFailures":null}`: "",
		`{}`:                         "",
		`null`:                       "",
		`[]`:                         "",
		`""`:                         "",
		``:                           "",
		`{"batchItemFailures":[{"itemIdentifier":"2"}]}`:                        "2 3",
		`{"batchItemFailures":[{"itemIdentifier":"3"},{"itemIdentifier":"2"}]}`: "2 3",
		`{"batchItemFailures":[{"itemIdentifier":"3"}]}`:                        "3",
		`{"batchItemFailures":[{"itemIdentifier":"1"}]}`:                        "1 2 3",
		`{"batchItemFailures":[{"itemIdentifier":""}]}`:                         "1 2 3",
		`{"batchItemFailures":[{"itemIdentifier":null}]}`:                       "1 2 3",
		`{"batchItemFailures":[{"ItemIdentifier":"2"}]}`:                        "1 2 3",
		`{"batchItemFailures":[{}]}`:                                            "1 2 3",
		`{"batchItemFailures":[{"itemIdentifier":"2"},{"itemIdentifier":"9"}]}`: "1 2 3",
		`{"batchItemFailures":[{"itemIdentifier":2}]}`:                          "1 2 3",
		`{"batchItemFailures":"2"}`:                                             "1 2 3",
		`"done"`:                                                                "1 2 3",
		`{`:                                                                     "1 2 3",
	} {
		for _, bisect := range []bool{false, true} {
			simulate(t, fmt.Sprint(answer, bisect), func(r *rig) {
				r.mapping.ResponseTypes, r.mapping.BisectBatch = []string{"ReportBatchItemFailures"}, &bisect
				r.answer = func(call int, _ event) (lambda.Result, error) {
					if call == 1 {
						return lambda.Result{Payload: []byte(answer)}, nil
					}
					return lambda.Result{}, nil
				}
				r.put(shardA, 1, 2, 3)
				r.run(time.Minute)
				switch {
				case next == "":
					r.want("1 2 3")
					r.count("failed", 0)
				case next == "1 2 3" && bisect:
					r.want("1 2 3", "1", "2 3")
				default:
					r.want("1 2 3", next)
				}
			})
		}
	}
	simulate(t, "attempts", func(r *rig) {
		r.mapping.ResponseTypes, r.mapping.MaximumRetryAttempts, r.mapping.OnFailure = []string{"ReportBatchItemFailures"}, new(1), new("arn:aws:sqs:us-east-1:000000000000:q")
		r.answer = func(_ int, e event) (lambda.Result, error) {
			return lambda.Result{Payload: []byte(`{"batchItemFailures":[{"itemIdentifier":"2"}]}`), ExecutedVersion: "7"}, nil
		}
		r.put(shardA, 1, 2, 3)
		r.run(time.Minute)
		r.want("1 2 3", "2 3")
		r.count("failed", 2)
		r.count("delivered", 2)
		if f := string(r.discarded[0].Record); !strings.Contains(f, `"responseContext":{"statusCode":200,"executedVersion":"7","functionError":null}`) || !strings.Contains(f, `"startSequenceNumber":"2","endSequenceNumber":"3"`) {
			r.t.Errorf("given up: %s", f)
		}
	})
}

func TestStartingPositions(t *testing.T) {
	t.Parallel()
	simulate(t, "the latest is fixed at once", func(r *rig) {
		r.source.StartingPosition = "LATEST"
		r.put(shardA, 1)
		r.tape["old"] = &tape{closed: true}
		r.put("old", 101)
		time.Sleep(time.Hour)
		r.run(5 * time.Second)
		r.want()
		time.Sleep(time.Hour)
		r.put(shardA, 2) // while Kiln is away
		r.tape["new"] = &tape{}
		r.put("new", 201)
		r.run(time.Minute)
		slices.SortFunc(r.events, func(a, b event) int { return cmp.Compare(a.Records[0], b.Records[0]) })
		r.want("2", "201")
	})
	simulate(t, "the latest while it polls", func(r *rig) {
		r.source.StartingPosition = "LATEST"
		r.put(shardA, 1)
		r.gone = map[string]bool{"1": true} // the first iterator
		time.Sleep(time.Hour)
		go func() {
			time.Sleep(15 * time.Second)
			r.mu.Lock()
			r.tape["new"] = &tape{}
			r.mu.Unlock()
			r.put("new", 201)
			r.put(shardA, 2)
		}()
		r.run(time.Minute)
		slices.SortFunc(r.events, func(a, b event) int { return cmp.Compare(a.Records[0], b.Records[0]) })
		r.want("2", "201")
	})
	simulate(t, "a time", func(r *rig) {
		r.put(shardA, 1)
		time.Sleep(time.Hour)
		r.source.StartingPosition, r.source.StartingTime = "AT_TIMESTAMP", new(time.Now())
		r.put(shardA, 2)
		r.run(time.Minute)
		r.want("2")
		r.put(shardA, 3)
		r.run(time.Minute)
		r.want("3")
	})
	simulate(t, "records that are not kept", func(r *rig) {
		r.put(shardA, 1, 2)
		r.run(time.Minute)
		r.put(shardA, 3, 4)
		r.tape[shardA].trimmed = 3
		r.run(time.Minute)
		r.want("4")
		if r.told[0] != "PROBLEM: Records of shard-a were skipped: the stream does not keep them any more." {
			r.t.Errorf("told %q", r.told)
		}
		delete(r.tape, shardA)
		r.tape["b"] = &tape{}
		r.run(time.Minute)
		if len(r.disk) != 0 || r.told[0] != "PROBLEM: Records of shard-a were skipped: the shard is gone." {
			r.t.Errorf("positions %v, told %q", r.disk, r.told)
		}
	})
}

func TestTumblingWindows(t *testing.T) {
	t.Parallel()
	// sum adds the records to the state.
	sum := func(_ int, e event) (lambda.Result, error) {
		var s struct{ Sum int }
		_ = json.Unmarshal(e.State, &s)
		for _, n := range e.Records {
			s.Sum += n
		}
		return lambda.Result{Payload: fmt.Appendf(nil, `{"state":{"sum":%d}}`, s.Sum)}, nil
	}
	shape := func(e event) string {
		return fmt.Sprintf("%v %s %s final=%v early=%v", e.Records, e.Window.Start.Format("04:05"), e.State, e.IsFinalInvokeForWindow, e.IsWindowTerminatedEarly)
	}
	want := func(r *rig, events ...string) {
		r.t.Helper()
		var got []string
		for _, e := range r.events {
			got = append(got, shape(e))
		}
		if !slices.Equal(got, events) {
			r.t.Errorf("the function got\n%s, not\n%s", strings.Join(got, "\n"), strings.Join(events, "\n"))
		}
	}
	simulate(t, "state", func(r *rig) { // time begins at a full hour
		r.mapping.TumblingWindow, r.answer = new(30), sum
		go func() {
			for _, n := range []int{1, 2, 3} { // at 10, 20 and 40 seconds
				time.Sleep(10 * time.Second)
				if n == 3 {
					time.Sleep(10 * time.Second)
				}
				r.put(shardA, n)
			}
		}()
		r.run(90 * time.Second)
		want(r, "[1] 00:00 {} final=false early=false", `[2] 00:00 {"sum":1} final=false early=false`, `[] 00:00 {"sum":3} final=true early=false`,
			"[3] 00:30 {} final=false early=false", `[] 00:30 {"sum":3} final=true early=false`)
	})
	simulate(t, "a restart", func(r *rig) {
		r.mapping.TumblingWindow, r.answer = new(60), sum
		r.put(shardA, 1)
		r.run(10 * time.Second)
		want(r, "[1] 00:00 {} final=false early=false")
		r.put(shardA, 2)
		r.run(10 * time.Second)
		want(r, `[2] 00:00 {"sum":1} final=false early=false`)
		time.Sleep(time.Hour)
		r.put(shardA, 3)
		r.run(10 * time.Second)
		want(r, `[] 00:00 {"sum":3} final=true early=false`, "[3] 00:00 {} final=false early=false")
	})
	simulate(t, "an end", func(r *rig) {
		r.mapping.TumblingWindow, r.answer = new(60), sum
		r.put(shardA, 1)
		r.tape[shardA].closed = true
		r.run(10 * time.Second)
		want(r, "[1] 00:00 {} final=false early=false", `[] 00:00 {"sum":1} final=true early=false`)
	})
	simulate(t, "too much state", func(r *rig) {
		r.mapping.TumblingWindow, r.mapping.BatchSize = new(60), new(1)
		r.put(shardA, 1, 2)
		r.answer = func(call int, e event) (lambda.Result, error) {
			if call == 1 {
				return lambda.Result{Payload: []byte(`{"state":"` + strings.Repeat("s", maxState) + `"}`)}, nil
			}
			return sum(call, e)
		}
		r.run(10 * time.Second)
		if len(r.events) != 3 || len(r.events[1].State) != maxState+2 {
			r.t.Fatalf("%d events", len(r.events))
		}
		r.events[1].State = nil
		want(r, "[1] 00:00 {} final=false early=false", "[] 00:00  final=true early=true", "[2] 00:00 {} final=false early=false")
	})
	simulate(t, "failures", func(r *rig) {
		r.mapping.TumblingWindow, r.mapping.MaximumRetryAttempts, r.mapping.ResponseTypes = new(60), new(1), []string{"ReportBatchItemFailures"}
		r.put(shardA, 1, 2, 3)
		r.answer = func(call int, e event) (lambda.Result, error) {
			switch {
			case call == 1:
				return lambda.Result{Payload: []byte(`{"state":{"sum":1},"batchItemFailures":[{"itemIdentifier":"2"}]}`)}, nil
			case e.IsFinalInvokeForWindow:
				return fails("{}"), nil
			}
			return sum(call, e)
		}
		r.run(90 * time.Second)
		want(r, "[1 2 3] 00:00 {} final=false early=false", `[2 3] 00:00 {"sum":1} final=false early=false`,
			`[] 00:00 {"sum":6} final=true early=false`, `[] 00:00 {"sum":6} final=true early=false`)
		if at := string(r.disk[shardA]); at != `{"after":"3"}` {
			r.t.Errorf("the position is %s", at)
		}
	})
}
