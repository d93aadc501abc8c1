package api

import (
	"context"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// terminate is what becomes of an invocation that leads back to itself, unless the function
// allows it.
const terminate = "Terminate"

// PutFunctionRecursionConfig says whether a function may lead back to itself.
func (c *call) PutFunctionRecursionConfig(ctx context.Context, in *lambdaapi.PutFunctionRecursionConfigInput) (*lambdaapi.PutFunctionRecursionConfigOutput, error) {
	arn, err := c.function(in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	loop := *in.RecursiveLoop
	err = c.door.Registry.Attach(ctx, arn, func(o *registry.Owner) error {
		o.Attached.RecursiveLoop = loop
		if loop == terminate {
			o.Attached.RecursiveLoop = ""
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &lambdaapi.PutFunctionRecursionConfigOutput{RecursiveLoop: &loop}, nil
}

// GetFunctionRecursionConfig shows whether a function may lead back to itself.
func (c *call) GetFunctionRecursionConfig(_ context.Context, in *lambdaapi.GetFunctionRecursionConfigInput) (*lambdaapi.GetFunctionRecursionConfigOutput, error) {
	arn, err := c.function(in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	o, err := c.door.Registry.Owner(arn)
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.GetFunctionRecursionConfigOutput{RecursiveLoop: new(terminate)}
	set(out.RecursiveLoop, optional(o.Attached.RecursiveLoop))
	return out, nil
}

// The modes of runtime management that the code tells apart.
const (
	automatic = "Auto"
	manual    = "Manual"
)

// PutRuntimeManagementConfig says when the runtime of a version is updated. Kiln has one
// version of a runtime at a time, which is the only one that can be asked for.
func (c *call) PutRuntimeManagementConfig(ctx context.Context, in *lambdaapi.PutRuntimeManagementConfigInput) (*lambdaapi.PutRuntimeManagementConfigOutput, error) {
	arn, f, err := c.managed(in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	switch asked := lambdaapi.Value(in.RuntimeVersionArn); {
	case f.Settings.PackageType == lambda.Image:
		return nil, lambda.InvalidParameter("Runtime management is not supported for functions with PackageType Image: their runtime is part of the image.")
	case *in.UpdateRuntimeOn != manual && asked != "":
		return nil, lambda.InvalidParameter("RuntimeVersionArn is only supported when UpdateRuntimeOn is set to Manual.")
	case *in.UpdateRuntimeOn == manual && asked == "":
		return nil, lambda.InvalidParameter("RuntimeVersionArn is required when UpdateRuntimeOn is set to Manual.")
	case asked != "":
		switch has := c.door.Runtimes.VersionARN(f.Settings.Runtime, arn.Region); has {
		case asked:
		case "":
			return nil, lambda.InvalidParameter("The runtime version %s is not there: Kiln has no versions of %s. Use Auto or FunctionUpdate.", asked, f.Settings.Runtime)
		default:
			return nil, lambda.InvalidParameter("The runtime version %s is not there: of %s Kiln has %s alone.", asked, f.Settings.Runtime, has)
		}
	}
	err = c.door.Registry.Attach(ctx, arn, func(o *registry.Owner) error {
		o.Attached.RuntimeManagement = &lambda.RuntimeManagement{UpdateOn: *in.UpdateRuntimeOn, VersionARN: lambdaapi.Value(in.RuntimeVersionArn)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &lambdaapi.PutRuntimeManagementConfigOutput{UpdateRuntimeOn: in.UpdateRuntimeOn, FunctionArn: new(arn.String()), RuntimeVersionArn: in.RuntimeVersionArn}, nil
}

// GetRuntimeManagementConfig shows when the runtime of a version is updated.
func (c *call) GetRuntimeManagementConfig(_ context.Context, in *lambdaapi.GetRuntimeManagementConfigInput) (*lambdaapi.GetRuntimeManagementConfigOutput, error) {
	arn, _, err := c.managed(in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	o, err := c.door.Registry.Owner(arn)
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.GetRuntimeManagementConfigOutput{UpdateRuntimeOn: new(automatic), FunctionArn: new(arn.String())}
	if m := o.Attached.RuntimeManagement; m != nil {
		out.UpdateRuntimeOn, out.RuntimeVersionArn = &m.UpdateOn, optional(m.VersionARN)
	}
	return out, nil
}

// managed finds the version whose runtime a request is about, which no alias names.
func (c *call) managed(name, qualifier *string) (lambda.FunctionARN, *lambda.Function, error) {
	arn, err := c.function(name, qualifier)
	if err != nil {
		return arn, nil, err
	}
	f, err := c.door.Registry.Get(arn)
	if err != nil {
		return arn, nil, err
	}
	if arn.Qualifier == "" {
		arn.Qualifier = lambda.Latest
	}
	if f.Version != arn.Qualifier {
		return arn, nil, lambda.InvalidParameter("Runtimes are managed by version: name %s, the version that the alias leads to, or $LATEST, in place of %s.", f.Version, arn.Qualifier)
	}
	return arn, f, nil
}

// PutFunctionScalingConfig refuses: it is for functions on instances of a capacity provider.
func (c *call) PutFunctionScalingConfig(_ context.Context, in *lambdaapi.PutFunctionScalingConfigInput) (*lambdaapi.PutFunctionScalingConfigOutput, error) {
	return nil, c.unscaled(in.FunctionName, in.Qualifier)
}

// GetFunctionScalingConfig refuses as PutFunctionScalingConfig does.
func (c *call) GetFunctionScalingConfig(_ context.Context, in *lambdaapi.GetFunctionScalingConfigInput) (*lambdaapi.GetFunctionScalingConfigOutput, error) {
	return nil, c.unscaled(in.FunctionName, in.Qualifier)
}

// unscaled says why a function has no scaling configuration.
func (c *call) unscaled(name, qualifier *string) error {
	arn, _, err := c.get(name, qualifier)
	if err != nil {
		return err
	}
	return lambda.InvalidParameter("Scaling configurations are supported only for functions with a CapacityProviderConfig, which %s has none of.", arn)
}
