package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/invoke"
	"kiln/internal/lambda"
)

// Invoke runs a function and waits for its answer.
func (c *call) Invoke(ctx context.Context, in *lambdaapi.InvokeInput) (*lambdaapi.InvokeOutput, error) {
	kind := lambda.InvocationType(lambdaapi.Value(in.InvocationType))
	if in.DurableExecutionName != nil {
		return nil, lambda.NotBuilt("Durable execution")
	}
	if kind == lambda.Event {
		err := c.accept(ctx, in.FunctionName, in.Qualifier, in.TenantId, invoke.Request{Payload: in.Payload, ClientContext: lambdaapi.Value(in.ClientContext)})
		return &lambdaapi.InvokeOutput{StatusCode: new(http.StatusAccepted)}, err
	}
	result, err := c.invoke(ctx, in.FunctionName, in.Qualifier, in.TenantId, invoke.Request{
		Type:          kind,
		Payload:       in.Payload,
		Tail:          lambdaapi.Value(in.LogType) == "Tail",
		ClientContext: lambdaapi.Value(in.ClientContext),
	})
	if err != nil {
		return nil, err
	}
	if kind == lambda.DryRun {
		return &lambdaapi.InvokeOutput{StatusCode: new(http.StatusNoContent)}, nil
	}
	c.header["X-Amzn-Remapped-Content-Length"] = []string{"0"}
	out := &lambdaapi.InvokeOutput{
		StatusCode:      new(http.StatusOK),
		Payload:         result.Payload,
		ExecutedVersion: new(string(result.ExecutedVersion)),
		LogResult:       encoded(result.LogTail),
	}
	if result.FunctionError != "" {
		out.FunctionError = &result.FunctionError
	}
	return out, nil
}

// InvokeAsync is what Invoke was for asynchronous invocations before.
func (c *call) InvokeAsync(ctx context.Context, in *lambdaapi.InvokeAsyncInput) (*lambdaapi.InvokeAsyncOutput, error) {
	err := c.accept(ctx, in.FunctionName, nil, nil, invoke.Request{Payload: in.InvokeArgs})
	return &lambdaapi.InvokeAsyncOutput{Status: new(http.StatusAccepted)}, err
}

// accept has the function that the names mean invoked later.
func (c *call) accept(ctx context.Context, name, qualifier, tenant *string, r invoke.Request) error {
	if err := c.name(&r, name, qualifier, tenant); err != nil {
		return err
	}
	err := c.door.Async.Accept(ctx, r)
	if err == nil {
		c.header["X-Amzn-Trace-Id"] = []string{r.TraceHeader}
	}
	return err
}

// invoke runs the function that the names mean. What the result holds is given
// back when the request is over.
func (c *call) invoke(ctx context.Context, name, qualifier, tenant *string, r invoke.Request) (lambda.Result, error) {
	if err := c.name(&r, name, qualifier, tenant); err != nil {
		return lambda.Result{}, err
	}
	result, err := c.door.Invoke.Invoke(ctx, r)
	if err != nil {
		return lambda.Result{}, err
	}
	c.done = result.Free
	if r.Type != lambda.DryRun {
		c.header["X-Amzn-Trace-Id"] = []string{r.TraceHeader}
	}
	return result, nil
}

// name fills in who invokes what.
func (c *call) name(r *invoke.Request, name, qualifier, tenant *string) error {
	arn, err := lambda.ParseFunction(*name, lambda.Qualifier(lambdaapi.Value(qualifier)), c.caller.Scope)
	if err != nil {
		return err
	}
	if tenant != nil {
		return lambda.InvalidParameter("The function is not tenant-isolated; remove the tenant id from the request.")
	}
	c.resource = arn
	r.Principal, r.ID, r.ARN, r.TraceHeader = c.caller.Principal, c.id, arn, invoke.Trace(c.trace, time.Now())
	return nil
}

// encoded is the end of a log as answers carry it.
func encoded(tail []byte) *string {
	if tail == nil {
		return nil
	}
	return new(base64.StdEncoding.EncodeToString(tail))
}
