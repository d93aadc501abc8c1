package api

import (
	"maps"
	"slices"
	"strings"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
)

// may checks that the caller may do this to the resource.
func (c *call) may(resource lambda.ARN) error { return c.mayWith(resource, nil) }

// mayWith is may for an operation that has condition keys of its own.
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_awslambda.html
func (c *call) mayWith(resource lambda.ARN, keys policy.Keys) error {
	c.resource = resource
	return c.door.Access.AuthoriseWith(c.caller.Principal, c.operation.Action, resource, keys)
}

// function resolves the function that a request is about, and checks that the
// caller may do this to it.
func (c *call) function(name, qualifier *string) (lambda.FunctionARN, error) {
	return c.functionWith(name, qualifier, nil)
}

func (c *call) functionWith(name, qualifier *string, keys policy.Keys) (lambda.FunctionARN, error) {
	arn, err := lambda.ParseFunction(lambdaapi.Value(name), lambda.Qualifier(lambdaapi.Value(qualifier)), c.caller.Scope)
	if err != nil {
		return arn, err
	}
	return arn, c.mayWith(arn, keys)
}

// configurationKeys are the condition keys of what a function is made of.
func configurationKeys(layers []string, signing *string, tags map[string]string) policy.Keys {
	keys := policy.Keys{}
	if len(layers) > 0 {
		keys.Set("lambda:Layer", layers...)
	}
	if signing != nil {
		keys.Set("lambda:CodeSigningConfigArn", *signing)
	}
	return withTags(keys, tags)
}

// withTags adds the condition keys of tags that a request gives.
func withTags(keys policy.Keys, tags map[string]string) policy.Keys {
	if len(tags) > 0 {
		keys.Set("aws:TagKeys", slices.Sorted(maps.Keys(tags))...)
	}
	for name, value := range tags {
		keys.Set("aws:RequestTag/"+name, value)
	}
	return keys
}

// mayUse checks that a caller with a policy may give a function its role, and read
// its layers: else what its own policy denies it, a function could do for it.
func (c *call) mayUse(role *string, layers []string) error {
	if c.door.Access.Unrestricted(c.caller.Principal) {
		return nil // others' layers are the registry's to refuse
	}
	if role != nil {
		passed := roleARN(*role)
		if passed.Owner() != c.caller.Scope.Account {
			return lambda.AccessDenied("Cross-account pass role is not allowed.")
		}
		keys := policy.Keys{}
		keys.Set("iam:PassedToService", "lambda.amazonaws.com")
		if err := c.door.Access.AuthoriseWith(c.caller.Principal, "iam:PassRole", passed, keys); err != nil {
			return err
		}
	}
	for _, name := range layers {
		arn, err := lambda.ParseLayerVersion(name)
		if err != nil {
			return err
		}
		if err := c.door.Access.Authorise(c.caller.Principal, "lambda:GetLayerVersion", arn); err != nil {
			return foreignLayer(c.caller, arn, err)
		}
	}
	return nil
}

// checkRole refuses a role that Kiln knows and that Lambda may not assume. One that
// it does not know is kept: those who develop write any.
func (c *call) checkRole(arn lambda.FunctionARN, role *string) error {
	if role == nil {
		return nil
	}
	known, trusts := c.door.Access.RoleFor("lambda.amazonaws.com", arn.Unqualified(), *role)
	switch {
	case known && !trusts:
		return lambda.InvalidParameter("The role defined for the function cannot be assumed by Lambda.")
	case !known && c.door.Access.Keyed():
		c.door.Log.Warn("a function's role is none that was made here: its credentials may do nothing; create it with IAM's CreateRole", "role", *role)
	}
	return nil
}

// roleARN is a role's, as a request names it.
type roleARN string

func (a roleARN) String() string { return string(a) }

func (a roleARN) Owner() lambda.AccountID {
	if part := strings.Split(string(a), ":"); len(part) > 4 {
		return lambda.AccountID(part[4])
	}
	return ""
}
