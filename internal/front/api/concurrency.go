package api

import (
	"context"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// PutFunctionConcurrency gives a function concurrent executions to itself, and no more.
func (c *call) PutFunctionConcurrency(ctx context.Context, in *lambdaapi.PutFunctionConcurrencyInput) (*lambdaapi.PutFunctionConcurrencyOutput, error) {
	arn, err := c.reserving(in.FunctionName)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.PutFunctionConcurrencyOutput{ReservedConcurrentExecutions: in.ReservedConcurrentExecutions}, c.door.Registry.Reserve(ctx, arn.Qualified(lambda.Latest), in.ReservedConcurrentExecutions)
}

// GetFunctionConcurrency shows what a function has to itself.
func (c *call) GetFunctionConcurrency(_ context.Context, in *lambdaapi.GetFunctionConcurrencyInput) (*lambdaapi.GetFunctionConcurrencyOutput, error) {
	arn, err := c.reserving(in.FunctionName)
	if err != nil {
		return nil, err
	}
	o, err := c.door.Registry.Owner(arn)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.GetFunctionConcurrencyOutput{ReservedConcurrentExecutions: o.Attached.Reserved}, nil
}

// DeleteFunctionConcurrency lets a function share with the others again.
func (c *call) DeleteFunctionConcurrency(ctx context.Context, in *lambdaapi.DeleteFunctionConcurrencyInput) (*lambdaapi.DeleteFunctionConcurrencyOutput, error) {
	arn, err := c.reserving(in.FunctionName)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.DeleteFunctionConcurrencyOutput{}, c.door.Registry.Reserve(ctx, arn, nil)
}

// reserving names the function whose concurrency a request is about.
func (c *call) reserving(name *string) (lambda.FunctionARN, error) {
	arn, err := c.function(name, nil)
	if err == nil && arn.Qualifier != "" {
		err = lambda.InvalidParameter("This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please specify either a function name or an unqualified function ARN.")
	}
	return arn, err
}

// PutProvisionedConcurrencyConfig has environments of a version or an alias kept ready.
func (c *call) PutProvisionedConcurrencyConfig(ctx context.Context, in *lambdaapi.PutProvisionedConcurrencyConfigInput) (*lambdaapi.PutProvisionedConcurrencyConfigOutput, error) {
	arn, err := c.provisioned(in.FunctionName, in.Qualifier, "Provisioned Concurrency Configs cannot be applied to unpublished function versions.")
	if err != nil {
		return nil, err
	}
	p, err := c.door.Registry.Provision(ctx, arn, *in.ProvisionedConcurrentExecutions)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.PutProvisionedConcurrencyConfigOutput{
		RequestedProvisionedConcurrentExecutions: &p.Requested,
		AvailableProvisionedConcurrentExecutions: new(0),
		AllocatedProvisionedConcurrentExecutions: new(0),
		Status:                                   new("IN_PROGRESS"),
		LastModified:                             lambdaapi.ISO8601(p.Modified),
	}, nil
}

// GetProvisionedConcurrencyConfig shows what is kept ready.
func (c *call) GetProvisionedConcurrencyConfig(_ context.Context, in *lambdaapi.GetProvisionedConcurrencyConfigInput) (*lambdaapi.GetProvisionedConcurrencyConfigOutput, error) {
	arn, err := c.provisioned(in.FunctionName, in.Qualifier, notPublished)
	if err != nil {
		return nil, err
	}
	o, err := c.door.Registry.Owner(arn)
	switch {
	case err != nil:
		return nil, err
	case o.Attached.Provisioned == nil:
		return nil, lambda.NoProvisionedConcurrency()
	}
	p := c.showProvisioned(o)
	return &lambdaapi.GetProvisionedConcurrencyConfigOutput{
		RequestedProvisionedConcurrentExecutions: p.RequestedProvisionedConcurrentExecutions,
		AvailableProvisionedConcurrentExecutions: p.AvailableProvisionedConcurrentExecutions,
		AllocatedProvisionedConcurrentExecutions: p.AllocatedProvisionedConcurrentExecutions,
		Status:                                   p.Status,
		StatusReason:                             p.StatusReason,
		LastModified:                             p.LastModified,
	}, nil
}

// ListProvisionedConcurrencyConfigs shows a page of what of a function is kept ready.
func (c *call) ListProvisionedConcurrencyConfigs(_ context.Context, in *lambdaapi.ListProvisionedConcurrencyConfigsInput) (*lambdaapi.ListProvisionedConcurrencyConfigsOutput, error) {
	page, next, err := c.owners(in.FunctionName, in.Marker, in.MaxItems, func(a *lambda.Attached) bool { return a.Provisioned != nil }, nil)
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.ListProvisionedConcurrencyConfigsOutput{ProvisionedConcurrencyConfigs: []lambdaapi.ProvisionedConcurrencyConfigListItem{}, NextMarker: next}
	for _, o := range page {
		out.ProvisionedConcurrencyConfigs = append(out.ProvisionedConcurrencyConfigs, c.showProvisioned(o))
	}
	return out, nil
}

// DeleteProvisionedConcurrencyConfig ends keeping environments ready.
func (c *call) DeleteProvisionedConcurrencyConfig(ctx context.Context, in *lambdaapi.DeleteProvisionedConcurrencyConfigInput) (*lambdaapi.DeleteProvisionedConcurrencyConfigOutput, error) {
	arn, err := c.provisioned(in.FunctionName, in.Qualifier, notPublished)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.DeleteProvisionedConcurrencyConfigOutput{}, c.door.Registry.Unprovision(ctx, arn)
}

const notPublished = "The function resource provided must be an alias or a published version."

// provisioned names the version or alias that a request is about; unpublished says
// why that is not $LATEST.
func (c *call) provisioned(name, qualifier *string, unpublished string) (lambda.FunctionARN, error) {
	arn, err := c.function(name, qualifier)
	if err == nil && (arn.Qualifier == "" || arn.Qualifier == lambda.Latest) {
		err = lambda.InvalidParameter("%s", unpublished)
	}
	return arn, err
}

// showProvisioned shows what is asked for, and how much of it there is. It stays in
// progress while environments are started, also in place of those that were lost.
func (c *call) showProvisioned(o registry.Owner) lambdaapi.ProvisionedConcurrencyConfigListItem {
	p := o.Attached.Provisioned
	allocated, available, failed := c.door.Provisioned(o.ARN)
	status := "IN_PROGRESS"
	switch {
	case available >= p.Requested:
		status, failed = "READY", ""
	case failed != "":
		status = "FAILED"
	}
	return lambdaapi.ProvisionedConcurrencyConfigListItem{
		FunctionArn:                              new(o.ARN.String()),
		RequestedProvisionedConcurrentExecutions: &p.Requested,
		AvailableProvisionedConcurrentExecutions: &available,
		AllocatedProvisionedConcurrentExecutions: &allocated,
		Status:                                   &status,
		StatusReason:                             optional(failed),
		LastModified:                             lambdaapi.ISO8601(p.Modified),
	}
}
