package api

import (
	"context"
	"strings"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
)

// CreateCapacityProvider keeps what describes instances that Kiln does not have.
func (c *call) CreateCapacityProvider(ctx context.Context, in *lambdaapi.CreateCapacityProviderInput) (*lambdaapi.CreateCapacityProviderOutput, error) {
	arn, err := c.capacityProvider(in.CapacityProviderName)
	if err == nil {
		err = c.mayUse(in.PermissionsConfig.CapacityProviderOperatorRoleArn, nil)
	}
	if err != nil {
		return nil, err
	}
	p := lambda.CapacityProvider{
		ARN:              arn,
		SubnetIDs:        in.VpcConfig.SubnetIds,
		SecurityGroupIDs: in.VpcConfig.SecurityGroupIds,
		OperatorRole:     *in.PermissionsConfig.CapacityProviderOperatorRoleArn,
		Scaling:          scaling(in.CapacityProviderScalingConfig),
		KMSKeyARN:        lambdaapi.Value(in.KmsKeyArn),
		Tags:             in.Tags,
	}
	if r := in.InstanceRequirements; r != nil {
		p.Instances = &lambda.InstanceRequirements{Allowed: r.AllowedInstanceTypes, Excluded: r.ExcludedInstanceTypes}
		for _, a := range r.Architectures {
			p.Instances.Architectures = append(p.Instances.Architectures, lambda.Architecture(a))
		}
	}
	made, err := c.door.Capacity.Create(ctx, p)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.CreateCapacityProviderOutput{CapacityProvider: showCapacity(made)}, nil
}

// GetCapacityProvider shows a capacity provider.
func (c *call) GetCapacityProvider(_ context.Context, in *lambdaapi.GetCapacityProviderInput) (*lambdaapi.GetCapacityProviderOutput, error) {
	arn, err := c.capacityProvider(in.CapacityProviderName)
	if err != nil {
		return nil, err
	}
	p, err := c.door.Capacity.Get(arn)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.GetCapacityProviderOutput{CapacityProvider: showCapacity(p)}, nil
}

// ListCapacityProviders shows a page of capacity providers.
func (c *call) ListCapacityProviders(_ context.Context, in *lambdaapi.ListCapacityProvidersInput) (*lambdaapi.ListCapacityProvidersOutput, error) {
	if err := c.may(lambda.Anything{Scope: c.caller.Scope}); err != nil {
		return nil, err
	}
	after, err := readMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	page, more := c.door.Capacity.List(c.caller.Scope, lambda.CapacityState(lambdaapi.Value(in.State)), after, pageSize(in.MaxItems))
	out := &lambdaapi.ListCapacityProvidersOutput{CapacityProviders: []lambdaapi.CapacityProvider{}}
	for _, p := range page {
		out.CapacityProviders = append(out.CapacityProviders, *showCapacity(p))
	}
	if more {
		out.NextMarker = writeMarker(page[len(page)-1].ARN.Name)
	}
	return out, nil
}

// UpdateCapacityProvider changes how a capacity provider scales.
func (c *call) UpdateCapacityProvider(ctx context.Context, in *lambdaapi.UpdateCapacityProviderInput) (*lambdaapi.UpdateCapacityProviderOutput, error) {
	arn, err := c.capacityProvider(in.CapacityProviderName)
	if err != nil {
		return nil, err
	}
	p, err := c.door.Capacity.Scale(ctx, arn, scaling(in.CapacityProviderScalingConfig))
	if err != nil {
		return nil, err
	}
	return &lambdaapi.UpdateCapacityProviderOutput{CapacityProvider: showCapacity(p)}, nil
}

// DeleteCapacityProvider removes a capacity provider.
func (c *call) DeleteCapacityProvider(ctx context.Context, in *lambdaapi.DeleteCapacityProviderInput) (*lambdaapi.DeleteCapacityProviderOutput, error) {
	arn, err := c.capacityProvider(in.CapacityProviderName)
	if err != nil {
		return nil, err
	}
	p, err := c.door.Capacity.Delete(ctx, arn)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.DeleteCapacityProviderOutput{CapacityProvider: showCapacity(p)}, nil
}

// ListFunctionVersionsByCapacityProvider shows that no function runs on a capacity
// provider: none can be made to.
func (c *call) ListFunctionVersionsByCapacityProvider(_ context.Context, in *lambdaapi.ListFunctionVersionsByCapacityProviderInput) (*lambdaapi.ListFunctionVersionsByCapacityProviderOutput, error) {
	arn, err := c.capacityProvider(in.CapacityProviderName)
	if err == nil {
		_, err = readMarker(in.Marker)
	}
	if err == nil {
		_, err = c.door.Capacity.Get(arn)
	}
	if err != nil {
		return nil, err
	}
	return &lambdaapi.ListFunctionVersionsByCapacityProviderOutput{CapacityProviderArn: new(arn.String()), FunctionVersions: []lambdaapi.FunctionVersionsByCapacityProviderListItem{}}, nil
}

// capacityProvider names the capacity provider that a request is about, by its name
// or ARN, and checks that the caller may do this to it.
func (c *call) capacityProvider(reference *string) (lambda.CapacityProviderARN, error) {
	arn := lambda.CapacityProviderARN{Scope: c.caller.Scope, Name: *reference}
	if strings.HasPrefix(*reference, "arn:") {
		parsed, err := lambda.ParseResource(*reference)
		if err != nil {
			return arn, err
		}
		arn = parsed.(lambda.CapacityProviderARN) // the pattern of the name lets no other through
	}
	if err := c.may(arn); err != nil {
		return arn, err
	}
	if arn.Region != c.caller.Scope.Region {
		return arn, lambda.NotFound("Capacity provider not found: %s", arn)
	}
	return arn, nil
}

func scaling(in *lambdaapi.CapacityProviderScalingConfig) *lambda.CapacityScaling {
	if in == nil {
		return nil
	}
	s := &lambda.CapacityScaling{MaxVCPUs: in.MaxVCpuCount, Mode: lambdaapi.Value(in.ScalingMode)}
	for _, p := range in.ScalingPolicies {
		s.Policies = append(s.Policies, lambda.ScalingPolicy{Metric: *p.PredefinedMetricType, Target: *p.TargetValue})
	}
	return s
}

func showCapacity(p *lambda.CapacityProvider) *lambdaapi.CapacityProvider {
	out := &lambdaapi.CapacityProvider{
		CapacityProviderArn: new(p.ARN.String()),
		State:               new(string(p.State)),
		VpcConfig:           &lambdaapi.CapacityProviderVpcConfig{SubnetIds: p.SubnetIDs, SecurityGroupIds: p.SecurityGroupIDs},
		PermissionsConfig:   &lambdaapi.CapacityProviderPermissionsConfig{CapacityProviderOperatorRoleArn: &p.OperatorRole},
		KmsKeyArn:           optional(p.KMSKeyARN),
		LastModified:        lambdaapi.ISO8601(p.Modified),
	}
	if r := p.Instances; r != nil {
		out.InstanceRequirements = &lambdaapi.InstanceRequirements{AllowedInstanceTypes: r.Allowed, ExcludedInstanceTypes: r.Excluded}
		for _, a := range r.Architectures {
			out.InstanceRequirements.Architectures = append(out.InstanceRequirements.Architectures, string(a))
		}
	}
	if s := p.Scaling; s != nil {
		out.CapacityProviderScalingConfig = &lambdaapi.CapacityProviderScalingConfig{MaxVCpuCount: s.MaxVCPUs, ScalingMode: optional(s.Mode)}
		for _, policy := range s.Policies {
			out.CapacityProviderScalingConfig.ScalingPolicies = append(out.CapacityProviderScalingConfig.ScalingPolicies, lambdaapi.TargetTrackingScalingPolicy{PredefinedMetricType: &policy.Metric, TargetValue: &policy.Target})
		}
	}
	return out
}
