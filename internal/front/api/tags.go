package api

import (
	"context"
	"strings"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
)

// TagResource sets tags of a function or of another resource.
func (c *call) TagResource(ctx context.Context, in *lambdaapi.TagResourceInput) (*lambdaapi.TagResourceOutput, error) {
	arn, err := c.tagged(in.Resource, withTags(policy.Keys{}, in.Tags))
	if err != nil {
		return nil, err
	}
	if len(in.Tags) == 0 {
		return nil, lambda.InvalidParameter("An error occurred and the request cannot be processed.")
	}
	return &lambdaapi.TagResourceOutput{}, c.retag(ctx, arn, in.Tags, nil)
}

// UntagResource removes tags.
func (c *call) UntagResource(ctx context.Context, in *lambdaapi.UntagResourceInput) (*lambdaapi.UntagResourceOutput, error) {
	keys := policy.Keys{}
	if len(in.TagKeys) > 0 {
		keys.Set("aws:TagKeys", in.TagKeys...)
	}
	arn, err := c.tagged(in.Resource, keys)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.UntagResourceOutput{}, c.retag(ctx, arn, nil, in.TagKeys)
}

// ListTags shows the tags of a resource.
func (c *call) ListTags(_ context.Context, in *lambdaapi.ListTagsInput) (*lambdaapi.ListTagsOutput, error) {
	arn, err := c.tagged(in.Resource, nil)
	if err != nil {
		return nil, err
	}
	tags, err := c.tags(arn)
	if err != nil {
		return nil, err
	}
	if tags == nil {
		tags = map[string]string{}
	}
	return &lambdaapi.ListTagsOutput{Tags: tags}, nil
}

// tagged names the resource whose tags a request is about, and checks that the
// caller may do this to it.
func (c *call) tagged(resource *string, keys policy.Keys) (lambda.ARN, error) {
	arn, err := lambda.ParseResource(*resource)
	if err != nil {
		return nil, err
	}
	if err := c.mayWith(arn, keys); err != nil {
		return nil, err
	}
	f, isFunction := arn.(lambda.FunctionARN)
	if region := lambda.Region(strings.Split(*resource, ":")[3]); region != c.caller.Scope.Region {
		what := "Resources"
		if isFunction {
			what = "Functions"
		}
		return nil, lambda.NotFound("%s from '%s' are not reachable in this region ('%s')", what, region, c.caller.Scope.Region)
	}
	if isFunction && f.Qualifier != "" {
		return nil, lambda.InvalidParameter("Tags on function aliases and versions are not supported. Please specify a function ARN.")
	}
	return arn, nil
}

func (c *call) retag(ctx context.Context, arn lambda.ARN, set map[string]string, remove []string) error {
	switch a := arn.(type) {
	case lambda.FunctionARN:
		return c.door.Registry.Tag(ctx, a, set, remove)
	case lambda.MappingARN:
		return c.door.Mappings.Tag(ctx, a, set, remove)
	case lambda.SigningConfigARN:
		return c.door.Signing.Tag(ctx, a, set, remove)
	default:
		return c.door.Capacity.Tag(ctx, arn.(lambda.CapacityProviderARN), set, remove)
	}
}

func (c *call) tags(arn lambda.ARN) (map[string]string, error) {
	switch a := arn.(type) {
	case lambda.FunctionARN:
		return c.door.Registry.Tags(a)
	case lambda.MappingARN:
		return c.door.Mappings.Tags(a)
	case lambda.SigningConfigARN:
		config, err := c.door.Signing.Get(a)
		if err != nil {
			return nil, err
		}
		return config.Tags, nil
	default:
		p, err := c.door.Capacity.Get(arn.(lambda.CapacityProviderARN))
		if err != nil {
			return nil, err
		}
		return p.Tags, nil
	}
}
