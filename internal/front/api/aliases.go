package api

import (
	"context"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// CreateAlias names a version.
func (c *call) CreateAlias(ctx context.Context, in *lambdaapi.CreateAliasInput) (*lambdaapi.CreateAliasOutput, error) {
	arn, err := c.aliasOf(in.FunctionName, in.Name)
	if err != nil {
		return nil, err
	}
	a, err := c.door.Registry.CreateAlias(ctx, registry.CreateAlias{
		ARN:         arn,
		Version:     lambda.Qualifier(*in.FunctionVersion),
		Description: lambdaapi.Value(in.Description),
		Routing:     routing(in.RoutingConfig),
	})
	if err != nil {
		return nil, err
	}
	return showAlias(a), nil
}

// GetAlias shows an alias.
func (c *call) GetAlias(_ context.Context, in *lambdaapi.GetAliasInput) (*lambdaapi.GetAliasOutput, error) {
	arn, err := c.aliasOf(in.FunctionName, in.Name)
	if err != nil {
		return nil, err
	}
	a, err := c.door.Registry.Alias(arn)
	if err != nil {
		return nil, err
	}
	return showAlias(a), nil
}

// ListAliases shows a page of a function's aliases in the order of their names.
func (c *call) ListAliases(_ context.Context, in *lambdaapi.ListAliasesInput) (*lambdaapi.ListAliasesOutput, error) {
	arn, err := c.function(in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	after, err := readMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	page, more, err := c.door.Registry.Aliases(arn, lambda.Qualifier(lambdaapi.Value(in.FunctionVersion)), lambda.Qualifier(after), pageSize(in.MaxItems))
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.ListAliasesOutput{Aliases: []lambdaapi.AliasConfiguration{}}
	for _, a := range page {
		out.Aliases = append(out.Aliases, *showAlias(a))
	}
	if more {
		out.NextMarker = writeMarker(string(page[len(page)-1].ARN.Qualifier))
	}
	return out, nil
}

// UpdateAlias changes what an alias leads to.
func (c *call) UpdateAlias(ctx context.Context, in *lambdaapi.UpdateAliasInput) (*lambdaapi.UpdateAliasOutput, error) {
	arn, err := c.aliasOf(in.FunctionName, in.Name)
	if err != nil {
		return nil, err
	}
	a, err := c.door.Registry.UpdateAlias(ctx, registry.UpdateAlias{
		ARN:         arn,
		Version:     (*lambda.Qualifier)(in.FunctionVersion),
		Description: in.Description,
		Routing:     routing(in.RoutingConfig),
		Revision:    lambda.RevisionID(lambdaapi.Value(in.RevisionId)),
	})
	if err != nil {
		return nil, err
	}
	return showAlias(a), nil
}

// DeleteAlias removes an alias, if it is there.
func (c *call) DeleteAlias(ctx context.Context, in *lambdaapi.DeleteAliasInput) (*lambdaapi.DeleteAliasOutput, error) {
	arn, err := c.aliasOf(in.FunctionName, in.Name)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.DeleteAliasOutput{}, c.door.Registry.DeleteAlias(ctx, arn)
}

// aliasOf is the ARN of an alias of the function, which the caller may use.
func (c *call) aliasOf(function, name *string) (lambda.FunctionARN, error) {
	arn, err := c.function(function, nil)
	if err != nil {
		return arn, err
	}
	if arn.Qualifier != "" {
		return arn, lambda.InvalidParameter("The function of an alias is named without a qualifier: %s", *function)
	}
	return arn.Qualified(lambda.Qualifier(*name)), nil
}

// routing is nil where none was given.
func routing(in *lambdaapi.AliasRoutingConfiguration) registry.Routing {
	if in == nil {
		return nil
	}
	out := registry.Routing{}
	for version, weight := range in.AdditionalVersionWeights {
		out[lambda.Qualifier(version)] = weight
	}
	return out
}

func showAlias(a *lambda.Alias) *lambdaapi.AliasConfiguration {
	out := &lambdaapi.AliasConfiguration{
		AliasArn:        new(a.ARN.String()),
		Name:            new(string(a.ARN.Qualifier)),
		FunctionVersion: new(string(a.Version)),
		Description:     &a.Description,
		RevisionId:      new(string(a.Revision)),
	}
	if v := a.Additional; v != nil {
		out.RoutingConfig = &lambdaapi.AliasRoutingConfiguration{AdditionalVersionWeights: map[string]float64{string(v.Version): v.Weight}}
	}
	return out
}
