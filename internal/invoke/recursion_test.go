package invoke_test

import (
	"context"
	"strings"
	"testing"

	"kiln/internal/invoke"
	"kiln/internal/lambda"
)

// A function that is invoked again and again in one chain, by itself or over others, is
// stopped after sixteen times, unless it may loop.
func TestRecursion(t *testing.T) {
	t.Parallel()
	const root = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
	var passed string
	e := &engine{invoke: func(ctx context.Context, fn *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error) {
		passed = inv.TraceHeader
		return echo(ctx, fn, inv, over)
	}}
	s := invoke.New(byName{e}, e, e, e, invoke.Config{Concurrency: 1})
	call := func(name, trace string) error {
		f := arn
		f.Name = lambda.FunctionName(name)
		_, err := s.Invoke(t.Context(), invoke.Request{ARN: f, TraceHeader: trace})
		return err
	}
	// ping and pong call each other, with what the SDK passes on, which escapes it in
	// some languages.
	trace := root
	for i := range 16 {
		for _, name := range []string{"ping", "pong"} {
			if err := call(name, trace); err != nil {
				t.Fatalf("%s, %d times: %v", name, i+1, err)
			}
			if !strings.HasPrefix(passed, root+";Lineage=") || strings.Contains(passed, "%") {
				t.Fatalf("the function got %q", passed)
			}
			trace = passed
			if i%2 == 1 {
				trace = strings.ReplaceAll(trace, "|", "%7C")
			}
		}
	}
	if len(trace) > 200 {
		t.Errorf("the header has grown to %d bytes: %s", len(trace), trace)
	}
	err := lambda.AsError(call("ping", trace))
	if err == nil || err.Code != "RecursiveInvocationException" || err.Status != 400 || e.recursive != 1 {
		t.Errorf("the 17th time: %v, counted %d", err, e.recursive)
	}
	if err := call("third", trace); err != nil {
		t.Errorf("a function that is new in the chain: %v", err)
	}
	if err := call("ping", root); err != nil {
		t.Errorf("another chain: %v", err)
	}
	e.mayLoop = true
	if err := call("ping", trace); err != nil {
		t.Errorf("one that may loop: %v", err)
	}
	e.mayLoop = false
	for _, odd := range []string{"", ";;", "Lineage=", "Lineage=:|:|", root + ";Lineage=zz:99|x", "Root=1;Lineage=" + strings.Repeat("00000000:1|", 100)} {
		if err := call("ping", odd); err != nil {
			t.Errorf("%q: %v", odd, err)
		}
		if len(passed) > 300 {
			t.Errorf("%d bytes from %q", len(passed), odd)
		}
	}
	// Prepared now and run later, it is the same.
	inv, perr := s.Prepare(t.Context(), invoke.Request{ARN: arn, TraceHeader: root})
	if perr != nil {
		t.Fatal(perr)
	}
	if _, err := s.Run(t.Context(), inv); err != nil || passed != inv.TraceHeader {
		t.Errorf("%q, %v", passed, err)
	}
}
