package api

import (
	"context"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
)

// AddPermission lets others use a function, a version or an alias.
func (c *call) AddPermission(ctx context.Context, in *lambdaapi.AddPermissionInput) (*lambdaapi.AddPermissionOutput, error) {
	arn, err := c.permission(in.FunctionName, in.Qualifier, in.Principal, in.FunctionUrlAuthType)
	if err != nil {
		return nil, err
	}
	const invoke, invokeURL = "lambda:InvokeFunction", "lambda:InvokeFunctionUrl"
	switch {
	case !lambda.ValidPrincipal(*in.Principal):
		return nil, lambda.InvalidParameter("The provided principal was invalid. Please check the principal and try again.")
	case in.FunctionUrlAuthType != nil && *in.Action != invokeURL:
		return nil, lambda.InvalidParameter("FunctionUrlAuthType is only supported for %s action", invokeURL)
	case in.InvokedViaFunctionUrl != nil && *in.Action != invoke:
		return nil, lambda.InvalidParameter("InvokedViaFunctionUrl is only supported for %s action", invoke)
	}
	s := lambda.Statement{
		ID: *in.StatementId, Action: *in.Action, Principal: *in.Principal,
		Organization:     lambdaapi.Value(in.PrincipalOrgID),
		SourceARN:        lambdaapi.Value(in.SourceArn),
		SourceAccount:    lambdaapi.Value(in.SourceAccount),
		EventSourceToken: lambdaapi.Value(in.EventSourceToken),
		URLAuthType:      lambdaapi.Value(in.FunctionUrlAuthType),
		ViaURL:           in.InvokedViaFunctionUrl,
	}
	if err := c.door.Registry.AddPermission(ctx, arn, s, lambda.RevisionID(lambdaapi.Value(in.RevisionId))); err != nil {
		return nil, err
	}
	return &lambdaapi.AddPermissionOutput{Statement: new(s.JSON(arn.String()))}, nil
}

// RemovePermission takes a permission back.
func (c *call) RemovePermission(ctx context.Context, in *lambdaapi.RemovePermissionInput) (*lambdaapi.RemovePermissionOutput, error) {
	arn, err := c.permission(in.FunctionName, in.Qualifier, nil, nil)
	if err != nil {
		return nil, err
	}
	if _, err := c.door.Registry.Owner(arn.Unqualified()); err != nil {
		return nil, lambda.NotFound("No policy found for: %s", arn)
	}
	return &lambdaapi.RemovePermissionOutput{}, c.door.Registry.RemovePermission(ctx, arn, *in.StatementId, lambda.RevisionID(lambdaapi.Value(in.RevisionId)))
}

// GetPolicy shows who may use a function, a version or an alias.
func (c *call) GetPolicy(_ context.Context, in *lambdaapi.GetPolicyInput) (*lambdaapi.GetPolicyOutput, error) {
	arn, err := c.function(in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	o, err := c.door.Registry.Owner(arn)
	if err != nil || len(o.Attached.Policy.Statements) == 0 {
		return nil, noResource()
	}
	return &lambdaapi.GetPolicyOutput{Policy: new(o.Attached.Policy.JSON(arn.String())), RevisionId: new(string(o.Revision))}, nil
}

// permission names what has the policy that a request changes.
func (c *call) permission(name, qualifier, principal, authType *string) (lambda.FunctionARN, error) {
	keys := policy.Keys{}
	if principal != nil {
		keys.Set("lambda:Principal", *principal)
	}
	if authType != nil {
		keys.Set("lambda:FunctionUrlAuthType", *authType)
	}
	arn, err := c.functionWith(name, qualifier, keys)
	if err == nil && arn.Qualifier == lambda.Latest {
		err = lambda.InvalidParameter("We currently do not support adding policies for $LATEST.")
	}
	return arn, err
}
