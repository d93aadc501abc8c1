package api

import (
	"context"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
)

// GetAccountSettings shows what the caller's account has, and may have, in the region.
func (c *call) GetAccountSettings(context.Context, *lambdaapi.GetAccountSettingsInput) (*lambdaapi.GetAccountSettingsOutput, error) {
	if err := c.may(lambda.Anything{Scope: c.caller.Scope}); err != nil {
		return nil, err
	}
	a := c.door.Registry.Account(c.caller.Scope)
	return &lambdaapi.GetAccountSettingsOutput{
		AccountLimit: &lambdaapi.AccountLimit{
			TotalCodeSize:                  &a.CodeStorage,
			CodeSizeUnzipped:               new(int64(lambda.MaxUnzipped)),
			CodeSizeZipped:                 new(int64(lambda.MaxZipped)),
			ConcurrentExecutions:           &a.Concurrency,
			UnreservedConcurrentExecutions: &a.Unreserved,
		},
		AccountUsage: &lambdaapi.AccountUsage{TotalCodeSize: &a.CodeSize, FunctionCount: new(int64(a.Functions))},
	}, nil
}
