package api

import (
	"context"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// enforce is the policy that refuses code without a signature; the other is Warn.
const enforce = "Enforce"

// CreateCodeSigningConfig makes a code signing configuration.
func (c *call) CreateCodeSigningConfig(ctx context.Context, in *lambdaapi.CreateCodeSigningConfigInput) (*lambdaapi.CreateCodeSigningConfigOutput, error) {
	if err := c.mayWith(lambda.Anything{Scope: c.caller.Scope}, withTags(policy.Keys{}, in.Tags)); err != nil {
		return nil, err
	}
	made, err := c.door.Signing.Create(ctx, lambda.SigningConfig{
		ARN:         lambda.SigningConfigARN{Scope: c.caller.Scope},
		Description: lambdaapi.Value(in.Description),
		Publishers:  in.AllowedPublishers.SigningProfileVersionArns,
		Enforced:    in.CodeSigningPolicies != nil && lambdaapi.Value(in.CodeSigningPolicies.UntrustedArtifactOnDeployment) == enforce,
		Tags:        in.Tags,
	})
	if err != nil {
		return nil, err
	}
	return &lambdaapi.CreateCodeSigningConfigOutput{CodeSigningConfig: showSigning(made)}, nil
}

// GetCodeSigningConfig shows a code signing configuration.
func (c *call) GetCodeSigningConfig(_ context.Context, in *lambdaapi.GetCodeSigningConfigInput) (*lambdaapi.GetCodeSigningConfigOutput, error) {
	arn, err := c.signing(in.CodeSigningConfigArn)
	if err != nil {
		return nil, err
	}
	config, err := c.door.Signing.Get(arn)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.GetCodeSigningConfigOutput{CodeSigningConfig: showSigning(config)}, nil
}

// ListCodeSigningConfigs shows a page of code signing configurations.
func (c *call) ListCodeSigningConfigs(_ context.Context, in *lambdaapi.ListCodeSigningConfigsInput) (*lambdaapi.ListCodeSigningConfigsOutput, error) {
	if err := c.may(lambda.Anything{Scope: c.caller.Scope}); err != nil {
		return nil, err
	}
	after, err := readMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	page, more := c.door.Signing.List(c.caller.Scope, after, pageSize(in.MaxItems))
	out := &lambdaapi.ListCodeSigningConfigsOutput{CodeSigningConfigs: []lambdaapi.CodeSigningConfig{}}
	for _, config := range page {
		out.CodeSigningConfigs = append(out.CodeSigningConfigs, *showSigning(config))
	}
	if more {
		out.NextMarker = writeMarker(page[len(page)-1].ARN.ID)
	}
	return out, nil
}

// UpdateCodeSigningConfig changes a code signing configuration. Functions that have it keep their code.
func (c *call) UpdateCodeSigningConfig(ctx context.Context, in *lambdaapi.UpdateCodeSigningConfigInput) (*lambdaapi.UpdateCodeSigningConfigOutput, error) {
	arn, err := c.signing(in.CodeSigningConfigArn)
	if err != nil {
		return nil, err
	}
	config, err := c.door.Signing.Update(ctx, arn, func(s *lambda.SigningConfig) {
		set(&s.Description, in.Description)
		if in.AllowedPublishers != nil {
			s.Publishers = in.AllowedPublishers.SigningProfileVersionArns
		}
		if p := in.CodeSigningPolicies; p != nil && p.UntrustedArtifactOnDeployment != nil {
			s.Enforced = *p.UntrustedArtifactOnDeployment == enforce
		}
	})
	if err != nil {
		return nil, err
	}
	return &lambdaapi.UpdateCodeSigningConfigOutput{CodeSigningConfig: showSigning(config)}, nil
}

// DeleteCodeSigningConfig removes a code signing configuration that no function has.
func (c *call) DeleteCodeSigningConfig(ctx context.Context, in *lambdaapi.DeleteCodeSigningConfigInput) (*lambdaapi.DeleteCodeSigningConfigOutput, error) {
	arn, err := c.signing(in.CodeSigningConfigArn)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.DeleteCodeSigningConfigOutput{}, c.door.Signing.Delete(ctx, arn)
}

// ListFunctionsByCodeSigningConfig shows a page of the functions that have a configuration.
func (c *call) ListFunctionsByCodeSigningConfig(_ context.Context, in *lambdaapi.ListFunctionsByCodeSigningConfigInput) (*lambdaapi.ListFunctionsByCodeSigningConfigOutput, error) {
	arn, err := c.signing(in.CodeSigningConfigArn)
	if err != nil {
		return nil, err
	}
	if _, err := c.door.Signing.Get(arn); err != nil {
		return nil, err
	}
	after, err := readMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	page, more := c.door.Registry.Attaching(arn.Scope, func(a *lambda.Attached) bool { return a.CodeSigning == arn.String() }, lambda.FunctionName(after), pageSize(in.MaxItems))
	out := &lambdaapi.ListFunctionsByCodeSigningConfigOutput{FunctionArns: []string{}}
	for _, function := range page {
		out.FunctionArns = append(out.FunctionArns, function.String())
	}
	if more {
		out.NextMarker = writeMarker(string(page[len(page)-1].Name))
	}
	return out, nil
}

// PutFunctionCodeSigningConfig gives a function a configuration, for the code that it gets from then on.
func (c *call) PutFunctionCodeSigningConfig(ctx context.Context, in *lambdaapi.PutFunctionCodeSigningConfigInput) (*lambdaapi.PutFunctionCodeSigningConfigOutput, error) {
	arn, err := c.signed(in.FunctionName, in.CodeSigningConfigArn)
	if err != nil {
		return nil, err
	}
	config, err := c.ownSigning(*in.CodeSigningConfigArn)
	if err != nil {
		return nil, err
	}
	err = c.door.Signing.Use(config, func(*lambda.SigningConfig) error {
		f, err := c.door.Registry.Get(arn)
		if err == nil && f.Settings.PackageType == lambda.Image {
			err = unsignable()
		}
		if err != nil {
			return err
		}
		return c.attachSigning(ctx, arn, config.String())
	})
	if err != nil {
		return nil, err
	}
	return &lambdaapi.PutFunctionCodeSigningConfigOutput{CodeSigningConfigArn: new(config.String()), FunctionName: new(string(arn.Name))}, nil
}

// GetFunctionCodeSigningConfig shows which configuration a function has.
func (c *call) GetFunctionCodeSigningConfig(_ context.Context, in *lambdaapi.GetFunctionCodeSigningConfigInput) (*lambdaapi.GetFunctionCodeSigningConfigOutput, error) {
	arn, err := c.signed(in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	owner, err := c.door.Registry.Owner(arn)
	if err != nil {
		return nil, err
	}
	if owner.Attached.CodeSigning == "" {
		return &lambdaapi.GetFunctionCodeSigningConfigOutput{}, nil
	}
	return &lambdaapi.GetFunctionCodeSigningConfigOutput{CodeSigningConfigArn: &owner.Attached.CodeSigning, FunctionName: new(string(arn.Name))}, nil
}

// DeleteFunctionCodeSigningConfig takes a function's configuration away.
func (c *call) DeleteFunctionCodeSigningConfig(ctx context.Context, in *lambdaapi.DeleteFunctionCodeSigningConfigInput) (*lambdaapi.DeleteFunctionCodeSigningConfigOutput, error) {
	arn, err := c.signed(in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.DeleteFunctionCodeSigningConfigOutput{}, c.attachSigning(ctx, arn, "")
}

func (c *call) attachSigning(ctx context.Context, arn lambda.FunctionARN, config string) error {
	return c.door.Registry.Attach(ctx, arn, func(o *registry.Owner) error {
		o.Attached.CodeSigning = config
		return nil
	})
}

// signing names the configuration that a request is about, and checks that the
// caller may do this to it.
func (c *call) signing(reference *string) (lambda.SigningConfigARN, error) {
	arn, err := lambda.ParseResource(*reference)
	if err != nil {
		return lambda.SigningConfigARN{}, err
	}
	config, ok := arn.(lambda.SigningConfigARN)
	if !ok {
		return config, lambda.InvalidParameter("%s is not the ARN of a code signing configuration", *reference)
	}
	if err := c.may(config); err != nil {
		return config, err
	}
	if config.Region != c.caller.Scope.Region { // another region's is not there
		return config, lambda.NotFound("The Lambda code signing configuration %s can not be found.", config)
	}
	return config, nil
}

// signed names the function whose configuration a request is about: all its versions have one.
func (c *call) signed(name, config *string) (lambda.FunctionARN, error) {
	arn, err := c.functionWith(name, nil, configurationKeys(nil, config, nil))
	return arn.Unqualified(), err
}

// ownSigning names a configuration that a function of the caller is to have: no
// other account's or region's can be.
func (c *call) ownSigning(reference string) (lambda.SigningConfigARN, error) {
	arn, err := lambda.ParseResource(reference)
	config, ok := arn.(lambda.SigningConfigARN)
	if err != nil || !ok || config.Scope != c.caller.Scope {
		return config, lambda.NoSigningConfig(reference)
	}
	return config, nil
}

func unsignable() error {
	return lambda.InvalidParameter("Code signing is not supported for functions with PackageType Image.")
}

// create makes the function, under its code signing configuration if it gets one.
func (c *call) create(ctx context.Context, in registry.Create, signing string) (f *lambda.Function, err error) {
	if signing == "" {
		return c.door.Registry.Create(ctx, in)
	}
	config, err := c.ownSigning(signing)
	if err != nil {
		return nil, err
	}
	err = c.door.Signing.Use(config, func(s *lambda.SigningConfig) error {
		switch {
		case in.Settings.PackageType == lambda.Image:
			return unsignable()
		case s.Enforced:
			return lambda.CodeVerificationFailed(in.ARN.Name)
		}
		in.Attached.CodeSigning = config.String()
		f, err = c.door.Registry.Create(ctx, in)
		return err
	})
	return f, err
}

// verify refuses other code or layers for a function whose configuration enforces signatures.
func (c *call) verify(arn lambda.FunctionARN) error {
	owner, err := c.door.Registry.Owner(arn.Unqualified())
	if err != nil || owner.Attached.CodeSigning == "" {
		return err
	}
	config, err := c.ownSigning(owner.Attached.CodeSigning)
	if err != nil {
		return err
	}
	s, err := c.door.Signing.Get(config)
	if err == nil && s.Enforced {
		err = lambda.CodeVerificationFailed(arn.Name)
	}
	return err
}

func showSigning(s *lambda.SigningConfig) *lambdaapi.CodeSigningConfig {
	policy := "Warn"
	if s.Enforced {
		policy = enforce
	}
	return &lambdaapi.CodeSigningConfig{
		CodeSigningConfigId:  &s.ARN.ID,
		CodeSigningConfigArn: new(s.ARN.String()),
		Description:          &s.Description,
		AllowedPublishers:    &lambdaapi.AllowedPublishers{SigningProfileVersionArns: s.Publishers},
		CodeSigningPolicies:  &lambdaapi.CodeSigningPolicies{UntrustedArtifactOnDeployment: &policy},
		LastModified:         lambdaapi.ISO8601(s.Modified),
	}
}
