package iam

import (
	"context"
	"slices"
	"strings"

	"kiln/internal/aws/iamapi"
	"kiln/internal/aws/wire"
	"kiln/internal/identity"
)

func (c *call) CreatePolicy(ctx context.Context, in *iamapi.CreatePolicyInput) (*iamapi.CreatePolicyOutput, error) {
	p := identity.ManagedPolicy{Account: c.account, Name: *in.PolicyName, Path: "/", Description: wire.Value(in.Description)}
	if in.Path != nil {
		p.Path = *in.Path
	}
	err := c.may(p.ARN(), nil)
	if err == nil {
		p.Tags, err = readTags(in.Tags)
	}
	if err != nil {
		return nil, err
	}
	made, err := c.store.CreatePolicy(ctx, p, *in.PolicyDocument)
	if err != nil {
		return nil, err
	}
	return &iamapi.CreatePolicyOutput{Policy: c.showPolicy(made)}, nil
}

func (c *call) GetPolicy(_ context.Context, in *iamapi.GetPolicyInput) (*iamapi.GetPolicyOutput, error) {
	p, err := c.policy(in.PolicyArn)
	if err != nil {
		return nil, err
	}
	shown := c.showPolicy(p)
	if p.Description != "" {
		shown.Description = &p.Description
	}
	if shown.Tags == nil {
		shown.Tags = []iamapi.Tag{}
	}
	return &iamapi.GetPolicyOutput{Policy: shown}, nil
}

// showPolicy leaves the description out, as AWS does nearly everywhere.
func (c *call) showPolicy(p *identity.ManagedPolicy) *iamapi.Policy {
	arn := p.ARN().String()
	attached, bounded := c.store.Attachments(c.account, arn)
	shown := &iamapi.Policy{
		PolicyName: &p.Name, PolicyId: &p.ID, Arn: &arn, Path: &p.Path, DefaultVersionId: &p.Default, IsAttachable: new(true),
		AttachmentCount: new(len(attached)), PermissionsBoundaryUsageCount: new(len(bounded)), CreateDate: &p.Created, UpdateDate: &p.Updated,
	}
	if len(p.Tags) > 0 {
		shown.Tags = showTags(p.Tags)
	}
	return shown
}

func (c *call) ListPolicies(_ context.Context, in *iamapi.ListPoliciesInput) (*iamapi.ListPoliciesOutput, error) {
	if err := c.may(identity.PolicyARN{Account: c.account, Path: "/"}, nil); err != nil {
		return nil, err
	}
	var list []*identity.ManagedPolicy
	for _, p := range c.store.Policies(c.account) {
		own := p.Account == c.account
		attached, bounded := c.store.Attachments(c.account, p.ARN().String())
		switch {
		case wire.Value(in.Scope) == "AWS" && own, wire.Value(in.Scope) == "Local" && !own,
			!strings.HasPrefix(p.Path, wire.Value(in.PathPrefix)),
			wire.Value(in.OnlyAttached) && len(attached)+len(bounded) == 0,
			wire.Value(in.PolicyUsageFilter) == "PermissionsPolicy" && len(attached) == 0,
			wire.Value(in.PolicyUsageFilter) == "PermissionsBoundary" && len(bounded) == 0:
		default:
			list = append(list, p)
		}
	}
	name := func(p *identity.ManagedPolicy) string { return p.ARN().String() }
	slices.SortFunc(list, func(a, b *identity.ManagedPolicy) int { return strings.Compare(name(a), name(b)) })
	cut, truncated, next, err := page(list, name, in.Marker, in.MaxItems)
	out := &iamapi.ListPoliciesOutput{Policies: []iamapi.Policy{}, IsTruncated: truncated, Marker: next}
	for _, p := range cut {
		shown := c.showPolicy(p)
		shown.Tags = nil
		out.Policies = append(out.Policies, *shown)
	}
	return out, err
}

func (c *call) DeletePolicy(ctx context.Context, in *iamapi.DeletePolicyInput) (*iamapi.DeletePolicyOutput, error) {
	if err := c.mayPolicy(in.PolicyArn); err != nil {
		return nil, err
	}
	return nil, c.store.DeletePolicy(ctx, c.account, *in.PolicyArn)
}

func (c *call) TagPolicy(ctx context.Context, in *iamapi.TagPolicyInput) (*iamapi.TagPolicyOutput, error) {
	if err := c.mayPolicy(in.PolicyArn); err != nil {
		return nil, err
	}
	tags, err := readTags(in.Tags)
	if err != nil {
		return nil, err
	}
	return nil, c.store.TagPolicy(ctx, c.account, *in.PolicyArn, func(onto map[string]string) { mergeTags(onto, tags) })
}

func (c *call) UntagPolicy(ctx context.Context, in *iamapi.UntagPolicyInput) (*iamapi.UntagPolicyOutput, error) {
	if err := c.mayPolicy(in.PolicyArn); err != nil {
		return nil, err
	}
	return nil, c.store.TagPolicy(ctx, c.account, *in.PolicyArn, func(from map[string]string) { removeTags(from, in.TagKeys) })
}

func (c *call) ListPolicyTags(_ context.Context, in *iamapi.ListPolicyTagsInput) (*iamapi.ListPolicyTagsOutput, error) {
	p, err := c.policy(in.PolicyArn)
	if err != nil {
		return nil, err
	}
	cut, truncated, next, err := page(showTags(p.Tags), func(t iamapi.Tag) string { return *t.Key }, in.Marker, in.MaxItems)
	return &iamapi.ListPolicyTagsOutput{Tags: cut, IsTruncated: truncated, Marker: next}, err
}

// ListEntitiesForPolicy shows the roles that have the policy: there are no users or
// groups with policies of that kind.
func (c *call) ListEntitiesForPolicy(_ context.Context, in *iamapi.ListEntitiesForPolicyInput) (*iamapi.ListEntitiesForPolicyOutput, error) {
	if _, err := c.policy(in.PolicyArn); err != nil {
		return nil, err
	}
	attached, bounded := c.store.Attachments(c.account, *in.PolicyArn)
	roles := attached
	switch wire.Value(in.PolicyUsageFilter) {
	case "PermissionsBoundary":
		roles = bounded
	case "":
		for _, r := range bounded {
			if !slices.Contains(attached, r) {
				roles = append(roles, r)
			}
		}
	}
	if filter := wire.Value(in.EntityFilter); filter != "" && filter != "Role" {
		roles = nil
	}
	roles = slices.DeleteFunc(roles, func(r *identity.Role) bool { return !strings.HasPrefix(r.Path, wire.Value(in.PathPrefix)) })
	name := func(r *identity.Role) string { return r.Name }
	slices.SortFunc(roles, func(a, b *identity.Role) int { return strings.Compare(a.Name, b.Name) })
	cut, truncated, next, err := page(roles, name, in.Marker, in.MaxItems)
	out := &iamapi.ListEntitiesForPolicyOutput{PolicyGroups: []iamapi.PolicyGroup{}, PolicyUsers: []iamapi.PolicyUser{}, PolicyRoles: []iamapi.PolicyRole{}, IsTruncated: truncated, Marker: next}
	for _, r := range cut {
		out.PolicyRoles = append(out.PolicyRoles, iamapi.PolicyRole{RoleName: &r.Name, RoleId: &r.ID})
	}
	return out, err
}

func (c *call) CreatePolicyVersion(ctx context.Context, in *iamapi.CreatePolicyVersionInput) (*iamapi.CreatePolicyVersionOutput, error) {
	if err := c.mayPolicy(in.PolicyArn); err != nil {
		return nil, err
	}
	isDefault := wire.Value(in.SetAsDefault)
	v, err := c.store.CreatePolicyVersion(ctx, c.account, *in.PolicyArn, *in.PolicyDocument, isDefault)
	if err != nil {
		return nil, err
	}
	return &iamapi.CreatePolicyVersionOutput{PolicyVersion: &iamapi.PolicyVersion{VersionId: &v.ID, IsDefaultVersion: &isDefault, CreateDate: &v.Created}}, nil
}

func (c *call) GetPolicyVersion(_ context.Context, in *iamapi.GetPolicyVersionInput) (*iamapi.GetPolicyVersionOutput, error) {
	p, err := c.policy(in.PolicyArn)
	if err != nil {
		return nil, err
	}
	v := p.Version(*in.VersionId)
	if v == nil {
		return nil, identity.NoSuchVersion(*in.PolicyArn, *in.VersionId)
	}
	return &iamapi.GetPolicyVersionOutput{PolicyVersion: &iamapi.PolicyVersion{
		Document: encoded(v.Document), VersionId: &v.ID, IsDefaultVersion: new(v.ID == p.Default), CreateDate: &v.Created,
	}}, nil
}

// ListPolicyVersions shows versions, the newest first.
func (c *call) ListPolicyVersions(_ context.Context, in *iamapi.ListPolicyVersionsInput) (*iamapi.ListPolicyVersionsOutput, error) {
	p, err := c.policy(in.PolicyArn)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListPolicyVersionsOutput{Versions: []iamapi.PolicyVersion{}, IsTruncated: new(false)} // there are few
	for _, v := range slices.Backward(p.Versions) {
		out.Versions = append(out.Versions, iamapi.PolicyVersion{VersionId: &v.ID, IsDefaultVersion: new(v.ID == p.Default), CreateDate: &v.Created})
	}
	return out, nil
}

func (c *call) SetDefaultPolicyVersion(ctx context.Context, in *iamapi.SetDefaultPolicyVersionInput) (*iamapi.SetDefaultPolicyVersionOutput, error) {
	if err := c.mayPolicy(in.PolicyArn); err != nil {
		return nil, err
	}
	return nil, c.store.SetDefaultVersion(ctx, c.account, *in.PolicyArn, *in.VersionId)
}

func (c *call) DeletePolicyVersion(ctx context.Context, in *iamapi.DeletePolicyVersionInput) (*iamapi.DeletePolicyVersionOutput, error) {
	if err := c.mayPolicy(in.PolicyArn); err != nil {
		return nil, err
	}
	return nil, c.store.DeletePolicyVersion(ctx, c.account, *in.PolicyArn, *in.VersionId)
}
