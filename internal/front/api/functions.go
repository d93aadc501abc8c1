package api

import (
	"context"
	"encoding/base64"
	"net/url"
	"time"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// CreateFunction makes a function from a zip.
func (c *call) CreateFunction(ctx context.Context, in *lambdaapi.CreateFunctionInput) (*lambdaapi.CreateFunctionOutput, error) {
	arn, err := c.function(in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	if arn.Qualifier != "" {
		return nil, lambda.InvalidParameter("The function name of a function that is created has no qualifier: %s", *in.FunctionName)
	}
	if err := checkBuilt(in); err != nil {
		return nil, err
	}
	zip, err := inlineCode(in.Code.ZipFile, in.Code.S3Bucket, in.Code.ImageUri)
	if err != nil {
		return nil, err
	}
	f, err := c.door.Registry.Create(ctx, registry.Create{
		By:       c.caller.Principal,
		ARN:      arn,
		Settings: newSettings(in),
		Layers:   in.Layers,
		Zip:      zip,
		Tags:     in.Tags,
	})
	if err != nil {
		return nil, err
	}
	return c.configuration(f, lambda.Qualifier("")), nil
}

// checkBuilt refuses what a function cannot have yet.
func checkBuilt(in *lambdaapi.CreateFunctionInput) error {
	switch {
	case lambdaapi.Value(in.PackageType) == string(lambda.Image):
		return lambda.NotBuilt("PackageType Image")
	case lambdaapi.Value(in.Publish) || in.PublishTo != nil:
		return lambda.NotBuilt("Publishing a version")
	case in.CapacityProviderConfig != nil:
		return lambda.NotBuilt("CapacityProviderConfig")
	case in.DurableConfig != nil:
		return lambda.NotBuilt("DurableConfig")
	case in.TenancyConfig != nil:
		return lambda.NotBuilt("TenancyConfig")
	case lambdaapi.Value(in.CodeSigningConfigArn) != "": // none can be made yet
		return lambdaapi.NewFault("CodeSigningConfigNotFoundException", "The code signing configuration cannot be found. Check that the provided configuration is not deleted: "+*in.CodeSigningConfigArn+".")
	}
	return nil
}

// inlineCode returns the one form of code that is built.
func inlineCode(zip []byte, bucket, image *string) ([]byte, error) {
	switch {
	case bucket != nil:
		return nil, lambda.NotBuilt("Code from S3 (S3Bucket, S3Key)")
	case image != nil:
		return nil, lambda.NotBuilt("Code from an image (ImageUri)")
	case zip == nil:
		return nil, lambda.InvalidParameter("Please provide a source for function code.")
	}
	return zip, nil
}

// GetFunction shows a function, with a link to its code.
func (c *call) GetFunction(_ context.Context, in *lambdaapi.GetFunctionInput) (*lambdaapi.GetFunctionOutput, error) {
	arn, f, err := c.get(in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	path := "/_kiln/code/" + url.PathEscape(string(f.ARN.Region)) + "/" + url.PathEscape(string(f.ARN.Name)) + "/" + url.PathEscape(base64.RawURLEncoding.EncodeToString([]byte(f.Code.SHA256)))
	link, err := c.door.Access.Link(c.base, path, f.ARN.Region, linkLife)
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.GetFunctionOutput{
		Configuration: c.configuration(f, arn.Qualifier),
		Code:          &lambdaapi.FunctionCodeLocation{RepositoryType: new("S3"), Location: &link},
	}
	if len(f.Tags) > 0 {
		out.Tags = f.Tags
	}
	return out, nil
}

// GetFunctionConfiguration shows a function's settings.
func (c *call) GetFunctionConfiguration(_ context.Context, in *lambdaapi.GetFunctionConfigurationInput) (*lambdaapi.GetFunctionConfigurationOutput, error) {
	arn, f, err := c.get(in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	return c.configuration(f, arn.Qualifier), nil
}

func (c *call) get(name, qualifier *string) (lambda.FunctionARN, *lambda.Function, error) {
	arn, err := c.function(name, qualifier)
	if err != nil {
		return arn, nil, err
	}
	f, err := c.door.Registry.Get(arn)
	return arn, f, err
}

// ListFunctions shows a page of functions.
func (c *call) ListFunctions(_ context.Context, in *lambdaapi.ListFunctionsInput) (*lambdaapi.ListFunctionsOutput, error) {
	if err := c.door.Access.Authorise(c.caller.Principal, c.operation.Action, lambda.FunctionARN{Scope: c.caller.Scope, Name: "*"}); err != nil {
		return nil, err
	}
	after, err := readMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	page, more := c.door.Registry.List(c.caller.Scope, lambda.FunctionName(after), pageSize(in.MaxItems))
	out := &lambdaapi.ListFunctionsOutput{Functions: []lambdaapi.FunctionConfiguration{}}
	for _, f := range page {
		qualifier := lambda.Qualifier("")
		if in.FunctionVersion != nil { // ALL: every version by its own ARN
			qualifier = f.Version
		}
		out.Functions = append(out.Functions, *listed(c.configuration(f, qualifier)))
	}
	if more {
		out.NextMarker = writeMarker(string(page[len(page)-1].ARN.Name))
	}
	return out, nil
}

// listed takes away what AWS leaves out of lists.
func listed(f *lambdaapi.FunctionConfiguration) *lambdaapi.FunctionConfiguration {
	f.State, f.StateReason, f.StateReasonCode = nil, nil, nil
	f.LastUpdateStatus, f.LastUpdateStatusReason, f.LastUpdateStatusReasonCode = nil, nil, nil
	f.RuntimeVersionConfig = nil
	return f
}

// UpdateFunctionCode gives a function other code.
func (c *call) UpdateFunctionCode(ctx context.Context, in *lambdaapi.UpdateFunctionCodeInput) (*lambdaapi.UpdateFunctionCodeOutput, error) {
	arn, err := c.function(in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	if lambdaapi.Value(in.Publish) || in.PublishTo != nil {
		return nil, lambda.NotBuilt("Publishing a version")
	}
	if _, err := c.door.Registry.Get(arn); err != nil {
		return nil, err
	}
	if in.ImageUri != nil {
		return nil, lambda.InvalidParameter("Please don't provide ImageUri when updating a function with packageType Zip.")
	}
	zip, err := inlineCode(in.ZipFile, in.S3Bucket, nil)
	if err != nil {
		return nil, err
	}
	u := registry.UpdateCode{
		ARN:      arn,
		Zip:      zip,
		Revision: lambda.RevisionID(lambdaapi.Value(in.RevisionId)),
		DryRun:   lambdaapi.Value(in.DryRun),
	}
	if len(in.Architectures) > 0 {
		u.Architecture = lambda.Architecture(in.Architectures[0])
	}
	f, err := c.door.Registry.UpdateCode(ctx, u)
	if err != nil {
		return nil, err
	}
	return c.configuration(f, ""), nil
}

// UpdateFunctionConfiguration changes a function's settings.
func (c *call) UpdateFunctionConfiguration(ctx context.Context, in *lambdaapi.UpdateFunctionConfigurationInput) (*lambdaapi.UpdateFunctionConfigurationOutput, error) {
	arn, err := c.function(in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	switch {
	case in.CapacityProviderConfig != nil:
		return nil, lambda.NotBuilt("CapacityProviderConfig")
	case in.DurableConfig != nil:
		return nil, lambda.NotBuilt("DurableConfig")
	case in.ImageConfig != nil:
		return nil, lambda.InvalidParameter("Please don't provide ImageConfig when updating a function with packageType Zip.")
	}
	f, err := c.door.Registry.UpdateConfiguration(ctx, registry.UpdateConfiguration{
		By:       c.caller.Principal,
		ARN:      arn,
		Revision: lambda.RevisionID(lambdaapi.Value(in.RevisionId)),
		Layers:   in.Layers,
		Apply:    func(s *lambda.Settings) { change(s, in) },
	})
	if err != nil {
		return nil, err
	}
	return c.configuration(f, ""), nil
}

// DeleteFunction removes a function.
func (c *call) DeleteFunction(ctx context.Context, in *lambdaapi.DeleteFunctionInput) (*lambdaapi.DeleteFunctionOutput, error) {
	arn, err := c.function(in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	if err := c.door.Registry.Delete(ctx, arn); err != nil {
		return nil, err
	}
	return &lambdaapi.DeleteFunctionOutput{StatusCode: new(204)}, nil
}

// configuration is a function as the API shows it, under the qualifier asked for.
func (c *call) configuration(f *lambda.Function, asked lambda.Qualifier) *lambdaapi.FunctionConfiguration {
	s := &f.Settings
	arn := f.ARN
	arn.Qualifier = asked
	out := &lambdaapi.FunctionConfiguration{
		FunctionName:     new(string(f.ARN.Name)),
		FunctionArn:      new(arn.String()),
		Runtime:          new(string(s.Runtime)),
		Role:             &s.Role,
		Handler:          &s.Handler,
		CodeSize:         &f.Code.Size,
		CodeSha256:       &f.Code.SHA256,
		Description:      &s.Description,
		Timeout:          new(int(s.Timeout / time.Second)),
		MemorySize:       &s.MemoryMB,
		LastModified:     lambdaapi.ISO8601(f.Modified),
		Version:          new(string(f.Version)),
		TracingConfig:    &lambdaapi.TracingConfigResponse{Mode: &s.TracingMode},
		RevisionId:       new(string(f.Revision)),
		State:            new(string(f.State)),
		PackageType:      new(string(s.PackageType)),
		Architectures:    []string{string(s.Architecture)},
		EphemeralStorage: &lambdaapi.EphemeralStorage{Size: &s.EphemeralMB},
		SnapStart:        &lambdaapi.SnapStartResponse{ApplyOn: &s.SnapStart, OptimizationStatus: new("Off")},
		LoggingConfig: &lambdaapi.LoggingConfig{
			LogFormat:           &s.Logging.Format,
			LogGroup:            &s.Logging.Group,
			ApplicationLogLevel: optional(s.Logging.ApplicationLevel),
			SystemLogLevel:      optional(s.Logging.SystemLevel),
		},
		KMSKeyArn:        optional(s.KMSKeyARN),
		LastUpdateStatus: optional(string(f.UpdateStatus)),
	}
	if f.State == lambda.Pending {
		out.StateReason, out.StateReasonCode = optional(f.Reason), optional(f.ReasonCode)
	} else if f.UpdateStatus == lambda.UpdateInProgress {
		out.LastUpdateStatusReason, out.LastUpdateStatusReasonCode = optional(f.Reason), optional(f.ReasonCode)
	}
	if s.Environment != nil {
		out.Environment = &lambdaapi.EnvironmentResponse{Variables: s.Environment}
	}
	if s.DeadLetterTarget != "" {
		out.DeadLetterConfig = &lambdaapi.DeadLetterConfig{TargetArn: &s.DeadLetterTarget}
	}
	if v := s.VPC; v != nil {
		out.VpcConfig = &lambdaapi.VpcConfigResponse{SubnetIds: v.SubnetIDs, SecurityGroupIds: v.SecurityGroupIDs, VpcId: new(""), Ipv6AllowedForDualStack: &v.IPv6DualStack}
	}
	for _, fs := range s.FileSystems {
		out.FileSystemConfigs = append(out.FileSystemConfigs, lambdaapi.FileSystemConfig{Arn: &fs.ARN, LocalMountPath: &fs.LocalMountPath})
	}
	for _, l := range s.Layers {
		out.Layers = append(out.Layers, lambdaapi.Layer{Arn: new(l.ARN.String()), CodeSize: new(l.Code.Size)})
	}
	if arn := c.door.Runtimes.VersionARN(s.Runtime, f.ARN.Region); arn != "" {
		out.RuntimeVersionConfig = &lambdaapi.RuntimeVersionConfig{RuntimeVersionArn: &arn}
	}
	return out
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
