package async_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"kiln/internal/invoke/async"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
)

// step is what comes of one attempt.
type step struct {
	fate string // succeeds, fails, is throttled, breaks, loops
	took time.Duration
}

// model is the documented life of one event, written down without a queue: when it is
// attempted, and how it ends.
func model(steps []step, retries int, maxAge, delay time.Duration) (attempts []time.Duration, end destination.Condition, invokes int, at time.Duration) {
	now, failures, waits := time.Duration(0), 0, 0
	for _, s := range steps {
		if now > maxAge {
			return attempts, destination.EventAgeExceeded, failures, now
		}
		attempts = append(attempts, now)
		now += s.took
		var wait time.Duration
		switch s.fate {
		case "succeeds":
			return attempts, destination.Success, failures + 1, now
		case "loops":
			return attempts, destination.RecursiveInvocation, failures, now
		case "fails":
			waits = 0
			failures++
			if failures > retries {
				return attempts, destination.RetriesExhausted, failures, now
			}
			wait = delay * time.Duration(failures) // twice as long the second time
		default:
			wait = time.Second
			for range waits {
				wait = min(2*wait, 5*time.Minute)
			}
			waits++
		}
		if now+wait > maxAge {
			return attempts, destination.EventAgeExceeded, failures, now
		}
		now += wait
	}
	return attempts, "", failures, now
}

// An event that got too old while nobody could run it, such as over a long stop of Kiln, is
// not run any more.
func TestTooOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{events: lambda.EventInvokeConfig{OnFailure: "arn:aws:sqs:us-east-1:123456789012:failure"}, run: func(*lambda.Invocation) (lambda.Result, error) {
			t.Error("it runs")
			return lambda.Result{}, nil
		}}
		s, stop := r.start(t)
		stop()
		accept(t, s, function, "1") // by the last of the requests
		time.Sleep(async.DefaultAge + time.Second)
		_, stop = r.start(t)
		time.Sleep(time.Minute)
		stop()
		if len(r.sent) != 1 || r.sent[0].outcome.Condition != destination.EventAgeExceeded || r.sent[0].outcome.Invokes != 0 || left(t, r.queue) != 0 {
			t.Errorf("sent: %+v", r.sent)
		}
	})
}

// Whatever comes of its attempts, an event is tried when AWS says, and ends as AWS says,
// once.
func TestRetries(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		retries := rapid.IntRange(0, 2).Draw(rt, "retries")
		maxAge := rapid.IntRange(60, 21600).Draw(rt, "age")
		delay := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 10 * time.Minute}).Draw(rt, "delay")
		fates := rapid.SampledFrom([]string{"fails", "fails", "is throttled", "is throttled", "breaks", "succeeds", "loops"})
		if rapid.Bool().Draw(rt, "only throttled") {
			fates = rapid.SampledFrom([]string{"is throttled", "breaks", "fails"})
		}
		steps := make([]step, 200) // more than fit into six hours
		for i := range steps {
			steps[i] = step{fates.Draw(rt, "fate"), time.Duration(rapid.IntRange(0, 900).Draw(rt, "took")) * time.Second}
		}
		want, end, invokes, at := model(steps, retries, time.Duration(maxAge)*time.Second, delay)

		const success, failure, dead = "arn:aws:sqs:us-east-1:123456789012:success", "arn:aws:sqs:us-east-1:123456789012:failure", "arn:aws:sqs:us-east-1:123456789012:dead"
		var got []time.Duration
		var told []sent
		var began time.Time
		n := 0
		synctest.Test(t, func(t *testing.T) {
			r := &rig{events: lambda.EventInvokeConfig{MaximumRetryAttempts: &retries, MaximumEventAge: &maxAge, OnSuccess: success, OnFailure: failure}, letters: dead}
			r.config.RetryDelay = delay
			began = time.Now()
			r.run = func(*lambda.Invocation) (lambda.Result, error) {
				got = append(got, time.Since(began))
				s := steps[len(got)-1]
				time.Sleep(s.took)
				switch s.fate {
				case "fails":
					return lambda.Result{FunctionError: "Unhandled", Payload: fmt.Appendf(nil, `{"errorMessage":"failure %d"}`, len(got)), ExecutedVersion: "$LATEST"}, nil
				case "is throttled":
					return lambda.Result{}, lambda.Throttled("ConcurrentInvocationLimitExceeded")
				case "breaks":
					return lambda.Result{}, errors.New("no environment")
				case "loops":
					return lambda.Result{}, &lambda.Error{Code: "RecursiveInvocationException", Status: http.StatusBadRequest}
				}
				return lambda.Result{Payload: []byte(`"well"`), ExecutedVersion: "$LATEST"}, nil
			}
			s, stop := r.start(t)
			accept(t, s, function, `{"n":1}`)
			time.Sleep(12 * time.Hour)
			stop()
			told = r.sent
			n = left(t, r.queue)
		})
		if n != 0 {
			rt.Fatalf("%d events are left", n)
		}
		if len(got) != len(want) {
			rt.Fatalf("attempts at %v, want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				rt.Fatalf("attempts at %v, want %v", got, want)
			}
		}
		var record *destination.Outcome
		letters := 0
		for _, s := range told {
			to := lambda.Destination(failure)
			if end == destination.Success {
				to = success
			}
			switch {
			case s.outcome != nil && record == nil && s.to == to:
				record = s.outcome
			case s.letter != nil && end != destination.Success && s.to == dead && string(s.letter.Payload) == `{"n":1}`:
				letters++
			default:
				rt.Fatalf("sent to %s: %+v %+v", s.to, s.outcome, s.letter)
			}
		}
		if record == nil || (letters == 1) == (end == destination.Success) {
			rt.Fatalf("a record %v and %d dead letters after %s", record, letters, end)
		}
		if record.Condition != end || record.Invokes != invokes || string(record.Payload) != `{"n":1}` || record.At.Sub(began) != at {
			rt.Fatalf("%s after %d invokes at %v; want %s after %d at %v", record.Condition, record.Invokes, record.At.Sub(began), end, invokes, at)
		}
		if end == destination.RetriesExhausted && string(record.Response.Payload) != fmt.Sprintf(`{"errorMessage":"failure %d"}`, len(want)) {
			rt.Fatalf("the record has the answer %s", record.Response.Payload)
		}
	})
}
