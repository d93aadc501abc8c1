package api

import (
	"context"
	"regexp"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
)

// Kiln runs no durable executions: none can be begun, because no function can have
// a DurableConfig. So these answer what AWS answers of executions that are not there.

// GetDurableExecution knows of none.
func (c *call) GetDurableExecution(_ context.Context, in *lambdaapi.GetDurableExecutionInput) (*lambdaapi.GetDurableExecutionOutput, error) {
	return nil, c.noExecution(in.DurableExecutionArn)
}

// GetDurableExecutionHistory knows of none.
func (c *call) GetDurableExecutionHistory(_ context.Context, in *lambdaapi.GetDurableExecutionHistoryInput) (*lambdaapi.GetDurableExecutionHistoryOutput, error) {
	return nil, c.noExecution(in.DurableExecutionArn)
}

// StopDurableExecution knows of none.
func (c *call) StopDurableExecution(_ context.Context, in *lambdaapi.StopDurableExecutionInput) (*lambdaapi.StopDurableExecutionOutput, error) {
	return nil, c.noExecution(in.DurableExecutionArn)
}

// GetDurableExecutionState is for the running invocation of an execution, of which there is none.
func (c *call) GetDurableExecutionState(_ context.Context, in *lambdaapi.GetDurableExecutionStateInput) (*lambdaapi.GetDurableExecutionStateOutput, error) {
	return nil, c.noInvocation(in.DurableExecutionArn)
}

// CheckpointDurableExecution is for the running invocation of an execution, of which there is none.
func (c *call) CheckpointDurableExecution(_ context.Context, in *lambdaapi.CheckpointDurableExecutionInput) (*lambdaapi.CheckpointDurableExecutionOutput, error) {
	return nil, c.noInvocation(in.DurableExecutionArn)
}

// SendDurableExecutionCallbackSuccess knows of no callback.
func (c *call) SendDurableExecutionCallbackSuccess(_ context.Context, in *lambdaapi.SendDurableExecutionCallbackSuccessInput) (*lambdaapi.SendDurableExecutionCallbackSuccessOutput, error) {
	return nil, c.noCallback(in.CallbackId)
}

// SendDurableExecutionCallbackFailure knows of no callback.
func (c *call) SendDurableExecutionCallbackFailure(_ context.Context, in *lambdaapi.SendDurableExecutionCallbackFailureInput) (*lambdaapi.SendDurableExecutionCallbackFailureOutput, error) {
	return nil, c.noCallback(in.CallbackId)
}

// SendDurableExecutionCallbackHeartbeat knows of no callback.
func (c *call) SendDurableExecutionCallbackHeartbeat(_ context.Context, in *lambdaapi.SendDurableExecutionCallbackHeartbeatInput) (*lambdaapi.SendDurableExecutionCallbackHeartbeatOutput, error) {
	return nil, c.noCallback(in.CallbackId)
}

// ListDurableExecutionsByFunction shows that a function has none.
func (c *call) ListDurableExecutionsByFunction(_ context.Context, in *lambdaapi.ListDurableExecutionsByFunctionInput) (*lambdaapi.ListDurableExecutionsByFunctionOutput, error) {
	if _, _, err := c.get(in.FunctionName, in.Qualifier); err != nil {
		return nil, err
	}
	return &lambdaapi.ListDurableExecutionsByFunctionOutput{DurableExecutions: []lambdaapi.DurableExecution{}}, nil
}

// execution checks that the caller may do this to an execution.
func (c *call) execution(reference *string) error {
	m := executionARN.FindStringSubmatch(*reference)
	if m == nil {
		return lambda.InvalidParameter("%q is not the ARN of a durable execution", *reference)
	}
	return c.may(execution{lambda.Scope{Account: lambda.AccountID(m[2]), Region: lambda.Region(m[1])}, *reference})
}

var executionARN = regexp.MustCompile(`^arn:[^:]+:lambda:([^:]+):(\d{12}):function:`)

// execution is the ARN of a durable execution.
type execution struct {
	lambda.Scope
	arn string
}

func (e execution) String() string { return e.arn }

func (c *call) noExecution(reference *string) error {
	if err := c.execution(reference); err != nil {
		return err
	}
	return lambda.NotFound("Durable execution not found: %s", *reference)
}

// noInvocation begins as the SDKs of durable functions know it: the invocation ends.
func (c *call) noInvocation(reference *string) error {
	if err := c.execution(reference); err != nil {
		return err
	}
	return lambda.InvalidParameter("Invalid Checkpoint Token: no invocation of %s is running", *reference)
}

func (c *call) noCallback(id *string) error {
	if err := c.may(lambda.Anything{Scope: c.caller.Scope}); err != nil {
		return err
	}
	return lambda.NotFound("Callback not found: %s", *id)
}
