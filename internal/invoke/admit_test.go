package invoke_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"kiln/internal/invoke"
	"kiln/internal/lambda"
)

// Whatever is invoked, answered, abandoned and configured, in any order: what runs is
// never one more than the account, the function or the qualifier may, and an
// invocation is refused only when a plain count of all that run says that it must be.
func TestAdmitsExactly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		const concurrency = 12
		type run struct {
			arn  lambda.FunctionARN
			in   string // the share that it was counted in
			over func()
		}
		var running []*run
		var begun *run
		broken := errors.New("no environment")
		fate := ""
		e := &engine{reserved: map[lambda.FunctionName]int{}, provides: map[lambda.FunctionARN]int{}}
		e.invoke = func(ctx context.Context, _ *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error) {
			if fate == "fails" {
				over()
				return lambda.Result{}, broken
			}
			begun = &run{arn: inv.ARN, over: over}
			return lambda.Result{}, context.Cause(ctx)
		}
		s := invoke.New(byName{e}, e, e, e, invoke.Config{Concurrency: concurrency})
		of := func(name string, q lambda.Qualifier) lambda.FunctionARN {
			return lambda.FunctionARN{Scope: arn.Scope, Name: lambda.FunctionName(name), Qualifier: q}
		}
		count := func(match func(*run) bool) (n int) {
			for _, r := range running {
				if match(r) {
					n++
				}
			}
			return n
		}
		// expect says which share an invocation belongs to, or why it is refused.
		expect := func(arn lambda.FunctionARN) (share, refused string) {
			left, kept := concurrency, 0
			for _, n := range e.reserved {
				left -= n
			}
			for owner, n := range e.provides {
				if _, reserves := e.reserved[owner.Name]; !reserves {
					left -= n
				}
				if owner.Name == arn.Name {
					kept += n
				}
			}
			in := func(share string) int { return count(func(r *run) bool { return r.in == share }) }
			own, reserves := e.reserved[arn.Name]
			mine := "provisioned " + arn.String()
			switch {
			case reserves && count(func(r *run) bool { return r.arn.Name == arn.Name }) >= own:
				return "", "ReservedFunctionConcurrentInvocationLimitExceeded"
			case len(running) >= concurrency:
				return "", "ConcurrentInvocationLimitExceeded"
			case in(mine) < e.provides[arn]:
				return mine, ""
			case reserves && in("reserved "+string(arn.Name)) >= own-kept:
				return "", "ReservedFunctionConcurrentInvocationLimitExceeded"
			case reserves:
				return "reserved " + string(arn.Name), ""
			case in("shared") >= left:
				return "", "ConcurrentInvocationLimitExceeded"
			}
			return "shared", ""
		}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			who := of(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "function"), rapid.SampledFrom([]lambda.Qualifier{"", "1", "live"}).Draw(rt, "qualifier"))
			fate = rapid.SampledFrom([]string{"runs", "runs", "runs", "is abandoned", "fails", "ends", "ends", "reserve", "share", "provision", "unprovision"}).Draw(rt, "step")
			switch fate {
			case "runs", "is abandoned", "fails":
				share, refused := expect(who)
				ctx, cancel := context.WithCancel(t.Context())
				if fate == "is abandoned" { // its caller is gone, it runs on
					cancel()
				}
				begun = nil
				_, err := s.Invoke(ctx, invoke.Request{ARN: who})
				cancel()
				reason := ""
				if refusal := lambda.AsError(err); refusal != nil {
					reason = refusal.Reason
				} else if fate == "fails" && !errors.Is(err, broken) {
					rt.Fatalf("an invocation that fails: %v", err)
				}
				if reason != refused {
					rt.Fatalf("%s: refused for %q, want %q", who, reason, refused)
				}
				if begun != nil {
					begun.in = share
					running = append(running, begun)
				}
			case "ends":
				if len(running) > 0 {
					i := rapid.IntRange(0, len(running)-1).Draw(rt, "which")
					running[i].over()
					running = append(running[:i], running[i+1:]...)
				}
			case "reserve":
				e.reserved[who.Name] = rapid.IntRange(0, 4).Draw(rt, "n")
			case "share":
				delete(e.reserved, who.Name)
			case "provision":
				kept := 0
				for owner, n := range e.provides {
					if owner.Name == who.Name && owner != who {
						kept += n
					}
				}
				if own, reserves := e.reserved[who.Name]; who.Qualifier != "" && (!reserves || kept < own) {
					e.provides[who] = rapid.IntRange(1, 3).Draw(rt, "n")
				}
			case "unprovision":
				delete(e.provides, who)
			}
			if len(running) > concurrency {
				rt.Fatalf("%d run at once, the account may %d", len(running), concurrency)
			}
		}
		for _, r := range running {
			r.over()
		}
		running = nil
		clear(e.reserved)
		clear(e.provides)
		fate = "runs"
		for i := range concurrency { // nothing is left in any count
			if _, err := s.Invoke(t.Context(), invoke.Request{ARN: of(fmt.Sprint("f", i), "")}); err != nil {
				rt.Fatalf("after all: %v", err)
			}
		}
		if _, err := s.Invoke(t.Context(), invoke.Request{ARN: of("f", "")}); lambda.AsError(err) == nil {
			rt.Fatal("one more than the account may run")
		}
	})
}
