package api

import (
	"context"
	"net/url"
	"strconv"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/front"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// PublishLayerVersion makes a layer's next version from a zip.
func (c *call) PublishLayerVersion(ctx context.Context, in *lambdaapi.PublishLayerVersionInput) (*lambdaapi.PublishLayerVersionOutput, error) {
	arn, err := c.layer(in.LayerName)
	if err != nil {
		return nil, err
	}
	from, err := c.zip("layer content", "LayerVersionContent", in.Content.ZipFile, in.Content.S3Bucket, in.Content.S3Key, in.Content.S3ObjectVersion)
	if err != nil {
		return nil, err
	}
	p := registry.PublishLayer{
		ARN:         arn,
		Zip:         from.zip,
		Object:      from.object,
		Description: lambdaapi.Value(in.Description),
		License:     lambdaapi.Value(in.LicenseInfo),
	}
	for _, id := range in.CompatibleRuntimes {
		p.Runtimes = append(p.Runtimes, lambda.RuntimeID(id))
	}
	for _, a := range in.CompatibleArchitectures {
		p.Architectures = append(p.Architectures, lambda.Architecture(a))
	}
	v, err := c.door.Registry.PublishLayer(ctx, p)
	if err != nil {
		return nil, err
	}
	out, err := c.showLayerVersion(v)
	return (*lambdaapi.PublishLayerVersionOutput)(out), err
}

// GetLayerVersion shows a layer version, with a link to its content.
func (c *call) GetLayerVersion(_ context.Context, in *lambdaapi.GetLayerVersionInput) (*lambdaapi.GetLayerVersionOutput, error) {
	arn, err := c.parseLayerVersion(in.LayerName, in.VersionNumber)
	if err != nil {
		return nil, err
	}
	return c.getLayerVersion(arn)
}

// GetLayerVersionByArn shows a layer version, with a link to its content.
func (c *call) GetLayerVersionByArn(_ context.Context, in *lambdaapi.GetLayerVersionByArnInput) (*lambdaapi.GetLayerVersionByArnOutput, error) {
	arn, err := lambda.ParseLayerVersion(*in.Arn)
	if err != nil {
		return nil, err
	}
	return c.getLayerVersion(arn)
}

func (c *call) getLayerVersion(arn lambda.LayerVersionARN) (*lambdaapi.GetLayerVersionOutput, error) {
	if arn.Region != c.caller.Scope.Region {
		return nil, lambda.NotFound("Layers from '%s' are not reachable in this region ('%s')", arn.Region, c.caller.Scope.Region)
	}
	if err := c.may(arn); err != nil {
		return nil, foreignLayer(c.caller, arn, err)
	}
	v, err := c.door.Registry.LayerVersion(c.caller.Principal, arn)
	if err != nil {
		return nil, err
	}
	return c.showLayerVersion(v)
}

// foreignLayer says more of a refusal to those who expect AWS's layers here.
func foreignLayer(by front.Caller, arn lambda.LayerVersionARN, err error) error {
	if refused := lambda.AsError(err); refused != nil && arn.Account != by.Scope.Account {
		return lambda.AccessDenied("%s. (Kiln has only layers that were published to it: publish the content of this one, and use that.)", refused.Message)
	}
	return err
}

// ListLayers shows a page of layers, each with its newest version that matches.
func (c *call) ListLayers(_ context.Context, in *lambdaapi.ListLayersInput) (*lambdaapi.ListLayersOutput, error) {
	if err := c.may(lambda.Anything{Scope: c.caller.Scope}); err != nil {
		return nil, err
	}
	after, err := readMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	page, more := c.door.Registry.Layers(c.caller.Scope, filter(in.CompatibleRuntime, in.CompatibleArchitecture), lambda.LayerName(after), pageSize(in.MaxItems))
	out := &lambdaapi.ListLayersOutput{Layers: []lambdaapi.LayersListItem{}}
	for _, v := range page {
		item := layerItem(v)
		out.Layers = append(out.Layers, lambdaapi.LayersListItem{LayerName: new(string(v.ARN.Name)), LayerArn: new(v.ARN.LayerARN.String()), LatestMatchingVersion: &item})
	}
	if more {
		out.NextMarker = writeMarker(string(page[len(page)-1].ARN.Name))
	}
	return out, nil
}

// ListLayerVersions shows a page of a layer's versions, the newest first.
func (c *call) ListLayerVersions(_ context.Context, in *lambdaapi.ListLayerVersionsInput) (*lambdaapi.ListLayerVersionsOutput, error) {
	arn, err := c.layer(in.LayerName)
	if err != nil {
		return nil, err
	}
	marker, err := readMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	below := int64(0)
	if marker != "" {
		if below, err = strconv.ParseInt(marker, 10, 64); err != nil {
			return nil, badMarker(*in.Marker)
		}
	}
	page, more := c.door.Registry.LayerVersions(arn, filter(in.CompatibleRuntime, in.CompatibleArchitecture), below, pageSize(in.MaxItems))
	out := &lambdaapi.ListLayerVersionsOutput{LayerVersions: []lambdaapi.LayerVersionsListItem{}}
	for _, v := range page {
		out.LayerVersions = append(out.LayerVersions, layerItem(v))
	}
	if more {
		out.NextMarker = writeMarker(strconv.FormatInt(page[len(page)-1].ARN.Version, 10))
	}
	return out, nil
}

// DeleteLayerVersion removes a layer version.
func (c *call) DeleteLayerVersion(ctx context.Context, in *lambdaapi.DeleteLayerVersionInput) (*lambdaapi.DeleteLayerVersionOutput, error) {
	arn, err := c.layerVersion(in.LayerName, in.VersionNumber)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.DeleteLayerVersionOutput{}, c.door.Registry.DeleteLayerVersion(ctx, arn)
}

// AddLayerVersionPermission lets others use a layer version.
func (c *call) AddLayerVersionPermission(ctx context.Context, in *lambdaapi.AddLayerVersionPermissionInput) (*lambdaapi.AddLayerVersionPermissionOutput, error) {
	arn, err := c.layerVersion(in.LayerName, in.VersionNumber)
	if err != nil {
		return nil, err
	}
	s := lambda.Statement{ID: *in.StatementId, Action: *in.Action, Principal: *in.Principal, Organization: lambdaapi.Value(in.OrganizationId)}
	v, err := c.door.Registry.AddLayerPermission(ctx, arn, s, lambda.RevisionID(lambdaapi.Value(in.RevisionId)))
	if err != nil {
		return nil, err
	}
	return &lambdaapi.AddLayerVersionPermissionOutput{Statement: new(s.JSON(arn.String())), RevisionId: new(string(v.Policy.Revision))}, nil
}

// RemoveLayerVersionPermission takes a permission back.
func (c *call) RemoveLayerVersionPermission(ctx context.Context, in *lambdaapi.RemoveLayerVersionPermissionInput) (*lambdaapi.RemoveLayerVersionPermissionOutput, error) {
	arn, err := c.layerVersion(in.LayerName, in.VersionNumber)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.RemoveLayerVersionPermissionOutput{}, c.door.Registry.RemoveLayerPermission(ctx, arn, *in.StatementId, lambda.RevisionID(lambdaapi.Value(in.RevisionId)))
}

// GetLayerVersionPolicy shows who may use a layer version.
func (c *call) GetLayerVersionPolicy(_ context.Context, in *lambdaapi.GetLayerVersionPolicyInput) (*lambdaapi.GetLayerVersionPolicyOutput, error) {
	arn, err := c.layerVersion(in.LayerName, in.VersionNumber)
	if err != nil {
		return nil, err
	}
	policy, err := c.door.Registry.LayerPolicy(arn)
	if err != nil {
		return nil, err
	}
	return &lambdaapi.GetLayerVersionPolicyOutput{Policy: new(policy.JSON(arn.String())), RevisionId: new(string(policy.Revision))}, nil
}

// layer resolves the layer that a request is about, and checks that the caller
// may do this to it.
func (c *call) layer(name *string) (lambda.LayerARN, error) {
	arn, err := lambda.ParseLayer(*name, c.caller.Scope)
	if err != nil {
		return arn, err
	}
	return arn, c.may(arn)
}

// layerVersion does the same for a layer version.
func (c *call) layerVersion(name *string, version *int64) (lambda.LayerVersionARN, error) {
	arn, err := c.parseLayerVersion(name, version)
	if err != nil {
		return arn, err
	}
	return arn, c.may(arn)
}

func (c *call) parseLayerVersion(name *string, version *int64) (lambda.LayerVersionARN, error) {
	arn, err := lambda.ParseLayer(*name, c.caller.Scope)
	if err == nil && *version < 1 {
		err = lambda.InvalidParameter("Layer Version Cannot be less than 1")
	}
	return lambda.LayerVersionARN{LayerARN: arn, Version: *version}, err
}

func (c *call) showLayerVersion(v *lambda.LayerVersion) (*lambdaapi.GetLayerVersionOutput, error) {
	path := "/_kiln/layers/" + url.PathEscape(string(v.ARN.Account)) + "/" + url.PathEscape(string(v.ARN.Region)) + "/" + url.PathEscape(string(v.ARN.Name)) + "/" + strconv.FormatInt(v.ARN.Version, 10)
	link, err := c.door.Access.Link(c.base, path, v.ARN.Scope, linkLife)
	if err != nil {
		return nil, err
	}
	item := layerItem(v)
	return &lambdaapi.GetLayerVersionOutput{
		Content:                 &lambdaapi.LayerVersionContentOutput{Location: &link, CodeSha256: &v.Code.SHA256, CodeSize: &v.Code.Size},
		LayerArn:                new(v.ARN.LayerARN.String()),
		LayerVersionArn:         item.LayerVersionArn,
		Description:             item.Description,
		CreatedDate:             item.CreatedDate,
		Version:                 item.Version,
		CompatibleRuntimes:      item.CompatibleRuntimes,
		LicenseInfo:             item.LicenseInfo,
		CompatibleArchitectures: item.CompatibleArchitectures,
	}, nil
}

func layerItem(v *lambda.LayerVersion) lambdaapi.LayerVersionsListItem {
	item := lambdaapi.LayerVersionsListItem{
		LayerVersionArn:         new(v.ARN.String()),
		Version:                 &v.ARN.Version,
		Description:             &v.Description,
		CreatedDate:             lambdaapi.ISO8601(v.Created),
		CompatibleRuntimes:      []string{},
		LicenseInfo:             optional(v.License),
		CompatibleArchitectures: []string{},
	}
	for _, id := range v.Runtimes {
		item.CompatibleRuntimes = append(item.CompatibleRuntimes, string(id))
	}
	for _, a := range v.Architectures {
		item.CompatibleArchitectures = append(item.CompatibleArchitectures, string(a))
	}
	return item
}

func filter(runtime, architecture *string) registry.LayerFilter {
	return registry.LayerFilter{Runtime: lambda.RuntimeID(lambdaapi.Value(runtime)), Architecture: lambda.Architecture(lambdaapi.Value(architecture))}
}
