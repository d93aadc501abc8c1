package iam

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"kiln/internal/aws/iamapi"
	"kiln/internal/aws/wire"
	"kiln/internal/identity"
)

func missingInline(name string) error {
	return &wire.Fault{Code: "NoSuchEntity", Status: http.StatusNotFound, Message: "The role policy with name " + name + " cannot be found."}
}

func (c *call) PutRolePolicy(ctx context.Context, in *iamapi.PutRolePolicyInput) (*iamapi.PutRolePolicyOutput, error) {
	if err := c.mayRole(in.RoleName, nil); err != nil {
		return nil, err
	}
	return nil, c.store.ChangeRole(ctx, c.account, *in.RoleName, func(r *identity.Role) error {
		if r.Inline == nil {
			r.Inline = map[string]string{}
		}
		r.Inline[*in.PolicyName] = *in.PolicyDocument
		return nil
	})
}

func (c *call) GetRolePolicy(_ context.Context, in *iamapi.GetRolePolicyInput) (*iamapi.GetRolePolicyOutput, error) {
	r, err := c.role(in.RoleName)
	if err != nil {
		return nil, err
	}
	document, ok := r.Inline[*in.PolicyName]
	if !ok {
		return nil, missingInline(*in.PolicyName)
	}
	return &iamapi.GetRolePolicyOutput{RoleName: &r.Name, PolicyName: in.PolicyName, PolicyDocument: encoded(document)}, nil
}

func (c *call) ListRolePolicies(_ context.Context, in *iamapi.ListRolePoliciesInput) (*iamapi.ListRolePoliciesOutput, error) {
	r, err := c.role(in.RoleName)
	if err != nil {
		return nil, err
	}
	cut, truncated, next, err := page(slices.Sorted(maps.Keys(r.Inline)), func(name string) string { return name }, in.Marker, in.MaxItems)
	return &iamapi.ListRolePoliciesOutput{PolicyNames: cut, IsTruncated: truncated, Marker: next}, err
}

func (c *call) DeleteRolePolicy(ctx context.Context, in *iamapi.DeleteRolePolicyInput) (*iamapi.DeleteRolePolicyOutput, error) {
	if err := c.mayRole(in.RoleName, nil); err != nil {
		return nil, err
	}
	return nil, c.store.ChangeRole(ctx, c.account, *in.RoleName, func(r *identity.Role) error {
		if _, ok := r.Inline[*in.PolicyName]; !ok {
			return missingInline(*in.PolicyName)
		}
		delete(r.Inline, *in.PolicyName)
		return nil
	})
}

func (c *call) AttachRolePolicy(ctx context.Context, in *iamapi.AttachRolePolicyInput) (*iamapi.AttachRolePolicyOutput, error) {
	if err := c.mayRole(in.RoleName, about("iam:PolicyARN", in.PolicyArn)); err != nil {
		return nil, err
	}
	if _, ok := identity.ParsePolicyARN(*in.PolicyArn); !ok {
		return nil, invalid("ValidationError", "ARN "+*in.PolicyArn+" is not valid.")
	}
	return nil, c.store.AttachPolicy(ctx, c.account, *in.RoleName, *in.PolicyArn)
}

func (c *call) DetachRolePolicy(ctx context.Context, in *iamapi.DetachRolePolicyInput) (*iamapi.DetachRolePolicyOutput, error) {
	if err := c.mayRole(in.RoleName, about("iam:PolicyARN", in.PolicyArn)); err != nil {
		return nil, err
	}
	return nil, c.store.DetachPolicy(ctx, c.account, *in.RoleName, *in.PolicyArn)
}

func (c *call) ListAttachedRolePolicies(_ context.Context, in *iamapi.ListAttachedRolePoliciesInput) (*iamapi.ListAttachedRolePoliciesOutput, error) {
	r, err := c.role(in.RoleName)
	if err != nil {
		return nil, err
	}
	var below []string
	for _, arn := range r.Attached {
		if a, _ := identity.ParsePolicyARN(arn); in.PathPrefix == nil || strings.HasPrefix(a.Path, *in.PathPrefix) {
			below = append(below, arn)
		}
	}
	cut, truncated, next, err := page(below, func(arn string) string { return arn }, in.Marker, in.MaxItems)
	out := &iamapi.ListAttachedRolePoliciesOutput{AttachedPolicies: []iamapi.AttachedPolicy{}, IsTruncated: truncated, Marker: next}
	for _, arn := range cut {
		a, _ := identity.ParsePolicyARN(arn)
		out.AttachedPolicies = append(out.AttachedPolicies, iamapi.AttachedPolicy{PolicyName: &a.Name, PolicyArn: &arn})
	}
	return out, err
}
