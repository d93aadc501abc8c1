package load

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"kiln/test/kiln"
)

func versionOf(n int) []byte { return kiln.Bash(fmt.Sprintf("answer=%d", n)) }

// Once an update is reported as Successful, no invocation that begins afterwards
// is answered by older code; none fails meanwhile.
func TestUpdateUnderLoad(t *testing.T) {
	const clients, updates = 8, 20
	d, c, calm := start(t)
	d.Create("updated", "provided.al2023", "x", versionOf(0), kiln.Timeout(120))
	var reported atomic.Int64 // the newest code that is reported as Successful
	var served atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wait sync.WaitGroup
	for range clients {
		wait.Go(func() {
			for ctx.Err() == nil {
				least := reported.Load()
				r, err := c.invoke(context.Background(), "updated", "1")
				if err != nil || !r.ok() {
					t.Errorf("during updates: %v, %v", r, err)
					return
				}
				if got, err := strconv.ParseInt(r.body, 10, 64); err != nil || got < least {
					t.Errorf("answered by code %s; code %d was reported before the request", r.body, least)
				}
				served.Add(1)
			}
		})
	}
	client := d.Client()
	name := "updated"
	for n := 1; n <= updates; n++ {
		before := served.Load()
		if _, err := client.UpdateFunctionCode(ctx, &lambda.UpdateFunctionCodeInput{FunctionName: &name, ZipFile: versionOf(n)}); err != nil {
			t.Fatal(err)
		}
		kiln.Eventually(t, patience, func() error {
			f, err := client.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &name})
			if err == nil && f.LastUpdateStatus != types.LastUpdateStatusSuccessful {
				err = errors.New(string(f.LastUpdateStatus))
			}
			return err
		})
		reported.Store(int64(n))
		kiln.Eventually(t, patience, func() error { // between two updates some run
			if served.Load() < before+clients && !t.Failed() {
				return errors.New("no invocation is answered")
			}
			return nil
		})
	}
	stop()
	wait.Wait()
	t.Logf("%d invocations", served.Load())
	calm()
}

// While functions come and go under load, each invocation is answered by its
// function, or told that there is none.
func TestDeleteUnderLoad(t *testing.T) {
	const clients, rounds = 8, 10
	d, c, calm := start(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var answered, missing atomic.Int64
	var wait sync.WaitGroup
	for range clients {
		wait.Go(func() {
			for ctx.Err() == nil {
				r, err := c.invoke(context.Background(), "comes-and-goes", "1")
				switch {
				case err != nil:
					t.Error(err)
				case r.ok():
					answered.Add(1)
				case r.status == http.StatusNotFound && r.code() == "ResourceNotFoundException":
					missing.Add(1)
				default:
					t.Errorf("while its function comes and goes an invocation gets %v", r)
				}
			}
		})
	}
	client := d.Client()
	name := "comes-and-goes"
	for n := range rounds {
		a, m := answered.Load(), missing.Load()
		d.Create(name, "provided.al2023", "x", versionOf(n), nil)
		kiln.Eventually(t, patience, func() error {
			if answered.Load() < a+clients && !t.Failed() {
				return errors.New("no invocation is answered")
			}
			return nil
		})
		if _, err := client.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &name}); err != nil {
			t.Fatal(err)
		}
		kiln.Eventually(t, patience, func() error {
			if missing.Load() < m+clients && !t.Failed() {
				return errors.New("no invocation is told that there is no function")
			}
			return nil
		})
	}
	stop()
	wait.Wait()
	t.Logf("%d answered, %d without a function", answered.Load(), missing.Load())
	calm()
}

// Exactly as many invocations run as the account may; the others are told so.
func TestConcurrencyLimit(t *testing.T) {
	const limit, clients = 5, 40
	d, c, calm := start(t, "--concurrency", strconv.Itoa(limit))
	d.Create("gated", "python3.12", "gate.handler", kiln.Gate(), kiln.Timeout(120))
	replies := make(chan reply, clients)
	for range clients {
		go func() { // each has a reply, for which there is room
			r, err := c.invoke(context.Background(), "gated", "{}")
			if err != nil {
				t.Error(err)
			}
			replies <- r
		}()
	}
	for range clients - limit {
		r := <-replies
		if r.status != http.StatusTooManyRequests || r.code() != "TooManyRequestsException" || r.header.Get("Retry-After") == "" {
			t.Errorf("an invocation too many gets %v, Retry-After %q", r, r.header.Get("Retry-After"))
		}
		const reason = `"Reason":"ConcurrentInvocationLimitExceeded"`
		if len(r.body) < len(reason) || r.body[1:1+len(reason)] != reason {
			t.Errorf("it is told %s", r.body)
		}
	}
	kiln.Eventually(t, patience, func() error {
		if n := d.Metric("kiln_environments", `function="gated"`, `state="busy"`); n != limit {
			return fmt.Errorf("%v run, the limit is %d", n, limit)
		}
		return nil
	})
	if n := d.Metric("kiln_throttles_total", `function="gated"`); n != clients-limit {
		t.Errorf("%v throttles are counted, %d happened", n, clients-limit)
	}
	d.Open("gated")
	for range limit {
		if r := <-replies; !r.ok() {
			t.Errorf("an invocation within the limit gets %v", r)
		}
	}
	calm()
}
