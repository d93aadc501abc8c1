package iam

import (
	"context"
	"slices"
	"strings"

	"kiln/internal/aws/iamapi"
	"kiln/internal/aws/wire"
	"kiln/internal/identity"
)

// defaultSession is how long sessions of a role last at most that does not say, in seconds.
const defaultSession = 3600

func (c *call) CreateRole(ctx context.Context, in *iamapi.CreateRoleInput) (*iamapi.CreateRoleOutput, error) {
	r := identity.Role{
		Account: c.account, Name: *in.RoleName, Path: "/", Description: wire.Value(in.Description), MaxSession: defaultSession,
		Trust: *in.AssumeRolePolicyDocument, Boundary: wire.Value(in.PermissionsBoundary),
	}
	if in.Path != nil {
		r.Path = *in.Path
	}
	if in.MaxSessionDuration != nil {
		r.MaxSession = *in.MaxSessionDuration
	}
	if err := c.may(r.ARN(), about("iam:PermissionsBoundary", in.PermissionsBoundary)); err != nil {
		return nil, err
	}
	var err error
	if r.Tags, err = readTags(in.Tags); err != nil {
		return nil, err
	}
	made, err := c.store.CreateRole(ctx, r)
	if err != nil {
		return nil, err
	}
	return &iamapi.CreateRoleOutput{Role: showWhole(made)}, nil
}

func (c *call) GetRole(_ context.Context, in *iamapi.GetRoleInput) (*iamapi.GetRoleOutput, error) {
	r, err := c.role(in.RoleName)
	if err != nil {
		return nil, err
	}
	shown := showWhole(r)
	shown.RoleLastUsed = &iamapi.RoleLastUsed{} // nobody counts
	return &iamapi.GetRoleOutput{Role: shown}, nil
}

// ListRoles shows a page of roles, without what AWS leaves out there.
func (c *call) ListRoles(_ context.Context, in *iamapi.ListRolesInput) (*iamapi.ListRolesOutput, error) {
	path := "/"
	if in.PathPrefix != nil {
		path = *in.PathPrefix
	}
	if err := c.may(identity.RoleARN{Account: c.account, Path: path}, nil); err != nil {
		return nil, err
	}
	roles := c.store.Roles(c.account, path)
	slices.SortFunc(roles, func(a, b *identity.Role) int { return strings.Compare(a.Name, b.Name) })
	cut, truncated, next, err := page(roles, func(r *identity.Role) string { return r.Name }, in.Marker, in.MaxItems)
	out := &iamapi.ListRolesOutput{Roles: []iamapi.Role{}, IsTruncated: truncated, Marker: next}
	for _, r := range cut {
		out.Roles = append(out.Roles, *show(r))
	}
	return out, err
}

func show(r *identity.Role) *iamapi.Role {
	shown := &iamapi.Role{
		Path: &r.Path, RoleName: &r.Name, RoleId: &r.ID, Arn: new(r.ARN().String()), CreateDate: &r.Created,
		AssumeRolePolicyDocument: encoded(r.Trust), MaxSessionDuration: &r.MaxSession,
	}
	if r.Description != "" {
		shown.Description = &r.Description
	}
	return shown
}

func showWhole(r *identity.Role) *iamapi.Role {
	shown := show(r)
	if len(r.Tags) > 0 {
		shown.Tags = showTags(r.Tags)
	}
	if r.Boundary != "" {
		shown.PermissionsBoundary = &iamapi.AttachedPermissionsBoundary{PermissionsBoundaryType: new("Policy"), PermissionsBoundaryArn: &r.Boundary}
	}
	return shown
}

func (c *call) UpdateRole(ctx context.Context, in *iamapi.UpdateRoleInput) (*iamapi.UpdateRoleOutput, error) {
	if err := c.mayRole(in.RoleName, nil); err != nil {
		return nil, err
	}
	return nil, c.store.ChangeRole(ctx, c.account, *in.RoleName, func(r *identity.Role) error {
		if in.Description != nil {
			r.Description = *in.Description
		}
		if in.MaxSessionDuration != nil {
			r.MaxSession = *in.MaxSessionDuration
		}
		return nil
	})
}

func (c *call) UpdateRoleDescription(ctx context.Context, in *iamapi.UpdateRoleDescriptionInput) (*iamapi.UpdateRoleDescriptionOutput, error) {
	if err := c.mayRole(in.RoleName, nil); err != nil {
		return nil, err
	}
	var shown *iamapi.Role
	err := c.store.ChangeRole(ctx, c.account, *in.RoleName, func(r *identity.Role) error {
		r.Description = *in.Description
		shown = showWhole(r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iamapi.UpdateRoleDescriptionOutput{Role: shown}, nil
}

func (c *call) UpdateAssumeRolePolicy(ctx context.Context, in *iamapi.UpdateAssumeRolePolicyInput) (*iamapi.UpdateAssumeRolePolicyOutput, error) {
	if err := c.mayRole(in.RoleName, nil); err != nil {
		return nil, err
	}
	return nil, c.store.ChangeRole(ctx, c.account, *in.RoleName, func(r *identity.Role) error {
		r.Trust = *in.PolicyDocument
		return nil
	})
}

func (c *call) DeleteRole(ctx context.Context, in *iamapi.DeleteRoleInput) (*iamapi.DeleteRoleOutput, error) {
	if err := c.mayRole(in.RoleName, nil); err != nil {
		return nil, err
	}
	return nil, c.store.DeleteRole(ctx, c.account, *in.RoleName)
}

func (c *call) TagRole(ctx context.Context, in *iamapi.TagRoleInput) (*iamapi.TagRoleOutput, error) {
	if err := c.mayRole(in.RoleName, nil); err != nil {
		return nil, err
	}
	tags, err := readTags(in.Tags)
	if err != nil {
		return nil, err
	}
	return nil, c.store.ChangeRole(ctx, c.account, *in.RoleName, func(r *identity.Role) error {
		if r.Tags == nil {
			r.Tags = map[string]string{}
		}
		mergeTags(r.Tags, tags)
		return nil
	})
}

func (c *call) UntagRole(ctx context.Context, in *iamapi.UntagRoleInput) (*iamapi.UntagRoleOutput, error) {
	if err := c.mayRole(in.RoleName, nil); err != nil {
		return nil, err
	}
	return nil, c.store.ChangeRole(ctx, c.account, *in.RoleName, func(r *identity.Role) error {
		removeTags(r.Tags, in.TagKeys)
		return nil
	})
}

func (c *call) ListRoleTags(_ context.Context, in *iamapi.ListRoleTagsInput) (*iamapi.ListRoleTagsOutput, error) {
	r, err := c.role(in.RoleName)
	if err != nil {
		return nil, err
	}
	cut, truncated, next, err := page(showTags(r.Tags), func(t iamapi.Tag) string { return *t.Key }, in.Marker, in.MaxItems)
	return &iamapi.ListRoleTagsOutput{Tags: cut, IsTruncated: truncated, Marker: next}, err
}

func (c *call) PutRolePermissionsBoundary(ctx context.Context, in *iamapi.PutRolePermissionsBoundaryInput) (*iamapi.PutRolePermissionsBoundaryOutput, error) {
	if err := c.mayRole(in.RoleName, about("iam:PermissionsBoundary", in.PermissionsBoundary)); err != nil {
		return nil, err
	}
	return nil, c.store.ChangeRole(ctx, c.account, *in.RoleName, func(r *identity.Role) error {
		r.Boundary = *in.PermissionsBoundary
		return nil
	})
}

func (c *call) DeleteRolePermissionsBoundary(ctx context.Context, in *iamapi.DeleteRolePermissionsBoundaryInput) (*iamapi.DeleteRolePermissionsBoundaryOutput, error) {
	if err := c.mayRole(in.RoleName, nil); err != nil {
		return nil, err
	}
	return nil, c.store.ChangeRole(ctx, c.account, *in.RoleName, func(r *identity.Role) error {
		r.Boundary = ""
		return nil
	})
}

// ListInstanceProfilesForRole is asked before a role is deleted.
func (c *call) ListInstanceProfilesForRole(_ context.Context, in *iamapi.ListInstanceProfilesForRoleInput) (*iamapi.ListInstanceProfilesForRoleOutput, error) {
	_, err := c.role(in.RoleName)
	return &iamapi.ListInstanceProfilesForRoleOutput{InstanceProfiles: []iamapi.InstanceProfile{}, IsTruncated: new(false)}, err
}

// CreateServiceLinkedRole is refused: such a role is for a service that would use it.
func (c *call) CreateServiceLinkedRole(_ context.Context, in *iamapi.CreateServiceLinkedRoleInput) (*iamapi.CreateServiceLinkedRoleOutput, error) {
	return nil, invalid("InvalidInput", "Kiln has no service-linked roles: "+*in.AWSServiceName+" does not run here. Leave the role out of the deployment.")
}
