package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/invoke"
	"kiln/internal/lambda"
)

// Invoke runs a function and waits for its answer.
func (c *call) Invoke(ctx context.Context, in *lambdaapi.InvokeInput) (*lambdaapi.InvokeOutput, error) {
	arn, err := lambda.ParseFunction(*in.FunctionName, lambda.Qualifier(lambdaapi.Value(in.Qualifier)), c.caller.Scope)
	if err != nil {
		return nil, err
	}
	kind := lambda.InvocationType(lambdaapi.Value(in.InvocationType))
	switch {
	case kind == lambda.Event:
		return nil, lambda.NotBuilt("Asynchronous invocation (InvocationType Event)")
	case in.DurableExecutionName != nil:
		return nil, lambda.NotBuilt("Durable execution")
	case in.TenantId != nil:
		return nil, lambda.InvalidParameter("The function is not tenant-isolated; remove the tenant id from the request.")
	}
	trace := traceHeader(c.trace, time.Now())
	result, err := c.door.Invoke.Invoke(ctx, invoke.Request{
		Principal:     c.caller.Principal,
		ID:            c.id,
		ARN:           arn,
		Type:          kind,
		Payload:       in.Payload,
		Tail:          lambdaapi.Value(in.LogType) == "Tail",
		ClientContext: lambdaapi.Value(in.ClientContext),
		TraceHeader:   trace,
	})
	if err != nil {
		return nil, err
	}
	c.done = result.Free
	if kind == lambda.DryRun {
		return &lambdaapi.InvokeOutput{StatusCode: new(http.StatusNoContent)}, nil
	}
	c.header["X-Amzn-Trace-Id"] = []string{trace}
	c.header["X-Amzn-Remapped-Content-Length"] = []string{"0"}
	out := &lambdaapi.InvokeOutput{
		StatusCode:      new(http.StatusOK),
		Payload:         result.Payload,
		ExecutedVersion: new(string(result.ExecutedVersion)),
	}
	if result.FunctionError != "" {
		out.FunctionError = &result.FunctionError
	}
	if result.LogTail != nil {
		out.LogResult = new(base64.StdEncoding.EncodeToString(result.LogTail))
	}
	return out, nil
}

// traceHeader passes the caller's trace on, or begins one that is not sampled:
// Kiln keeps no traces yet.
func traceHeader(incoming string, now time.Time) string {
	if strings.Contains(incoming, "Root=") && len(incoming) < 1024 && !strings.ContainsAny(incoming, "\r\n") {
		return incoming
	}
	hex := strings.ReplaceAll(lambda.NewUUID()+lambda.NewUUID(), "-", "")
	return fmt.Sprintf("Root=1-%08x-%s;Parent=%s;Sampled=0", now.Unix(), hex[:24], hex[32:48])
}
