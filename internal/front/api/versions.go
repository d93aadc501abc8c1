package api

import (
	"context"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// PublishVersion freezes $LATEST as a version.
func (c *call) PublishVersion(ctx context.Context, in *lambdaapi.PublishVersionInput) (*lambdaapi.PublishVersionOutput, error) {
	arn, err := c.function(in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	if in.PublishTo != nil {
		return nil, lambda.NotBuilt("PublishTo")
	}
	f, err := c.door.Registry.Publish(ctx, registry.Publish{
		ARN:         arn,
		CodeSHA256:  lambdaapi.Value(in.CodeSha256),
		Description: in.Description,
		Revision:    lambda.RevisionID(lambdaapi.Value(in.RevisionId)),
	})
	if err != nil {
		return nil, err
	}
	return c.configuration(f, f.Version), nil
}

// ListVersionsByFunction shows a page of a function's versions, $LATEST first.
func (c *call) ListVersionsByFunction(_ context.Context, in *lambdaapi.ListVersionsByFunctionInput) (*lambdaapi.ListVersionsByFunctionOutput, error) {
	arn, err := c.function(in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	marker, err := readMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	after := int64(-1)
	if marker != "" {
		after = lambda.Qualifier(marker).Number()
	}
	page, more, err := c.door.Registry.Versions(arn, after, pageSize(in.MaxItems))
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.ListVersionsByFunctionOutput{Versions: []lambdaapi.FunctionConfiguration{}}
	for _, f := range page {
		out.Versions = append(out.Versions, *listed(c.configuration(f, f.Version)))
	}
	if more {
		out.NextMarker = writeMarker(string(page[len(page)-1].Version))
	}
	return out, nil
}
