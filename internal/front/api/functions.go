package api

import (
	"context"
	"encoding/base64"
	"net/url"
	"strings"
	"time"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// CreateFunction makes a function from a zip or an image.
func (c *call) CreateFunction(ctx context.Context, in *lambdaapi.CreateFunctionInput) (*lambdaapi.CreateFunctionOutput, error) {
	arn, err := c.functionWith(in.FunctionName, nil, configurationKeys(in.Layers, in.CodeSigningConfigArn, in.Tags))
	if err == nil {
		err = c.mayUse(in.Role, in.Layers)
	}
	if err == nil {
		err = c.checkRole(arn, in.Role)
	}
	if err != nil {
		return nil, err
	}
	if arn.Qualifier != "" {
		return nil, lambda.InvalidParameter("The function name of a function that is created has no qualifier: %s", *in.FunctionName)
	}
	if err := checkBuilt(in); err != nil {
		return nil, err
	}
	from, err := c.code(lambda.PackageType(lambdaapi.Value(in.PackageType)), in.Code)
	if err != nil {
		return nil, err
	}
	f, err := c.create(ctx, registry.Create{
		By:       c.caller.Principal,
		ARN:      arn,
		Settings: newSettings(in),
		Layers:   in.Layers,
		Zip:      from.zip,
		Object:   from.object,
		Key:      lambdaapi.Value(in.Code.SourceKMSKeyArn),
		Image:    from.image,
		Tags:     in.Tags,
		Publish:  lambdaapi.Value(in.Publish),
	}, lambdaapi.Value(in.CodeSigningConfigArn))
	if err != nil {
		return nil, err
	}
	c.warnKept(arn, given(in), in.Code.SourceKMSKeyArn)
	return c.configuration(f, published(f)), nil
}

// published is the qualifier of what an operation made: none, unless that is a version.
func published(f *lambda.Function) lambda.Qualifier {
	if f.Version == lambda.Latest {
		return ""
	}
	return f.Version
}

// checkBuilt refuses what a function cannot have in Kiln.
func checkBuilt(in *lambdaapi.CreateFunctionInput) error {
	switch {
	case in.PublishTo != nil:
		return noPublishTo()
	case in.CapacityProviderConfig != nil:
		return noCapacityProvider()
	case in.DurableConfig != nil:
		return noDurability()
	case in.TenancyConfig != nil:
		return lambda.InvalidParameter("TenancyConfig is not supported: Kiln keeps no execution environments apart by tenant. Leave it out, or make a function for each tenant.")
	case in.ImageConfig != nil && lambdaapi.Value(in.PackageType) != string(lambda.Image):
		return lambda.InvalidParameter("Please don't provide ImageConfig when the intended function PackageType is Zip.")
	}
	return nil
}

func noPublishTo() error {
	return lambda.InvalidParameter("PublishTo is supported only for functions with a CapacityProviderConfig, which Kiln has none of. Publish makes a version.")
}

func noCapacityProvider() error {
	return lambda.InvalidParameter("CapacityProviderConfig is not supported: Kiln runs functions on its own machine, and on no instances that a capacity provider describes. Leave it out.")
}

func noDurability() error {
	return lambda.InvalidParameter("DurableConfig is not supported: Kiln has no durable executions yet. Leave it out.")
}

// GetFunction shows a function, with a link to its code or the name of its image.
func (c *call) GetFunction(_ context.Context, in *lambdaapi.GetFunctionInput) (*lambdaapi.GetFunctionOutput, error) {
	arn, f, err := c.get(in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	location, err := c.location(f)
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.GetFunctionOutput{
		Configuration: c.configuration(f, arn.Qualifier),
		Code:          location,
	}
	if out.Tags, err = c.door.Registry.Tags(arn); err != nil { // versions have the function's
		return nil, err
	}
	if share := c.door.Registry.Share(arn); share.Reserves {
		out.Concurrency = &lambdaapi.Concurrency{ReservedConcurrentExecutions: &share.Reserved}
	}
	return out, nil
}

func (c *call) location(f *lambda.Function) (*lambdaapi.FunctionCodeLocation, error) {
	if f.Code.IsImage() {
		return &lambdaapi.FunctionCodeLocation{RepositoryType: new("ECR"), ImageUri: &f.Code.ImageURI, ResolvedImageUri: &f.Code.ResolvedImageURI}, nil
	}
	path := "/_kiln/code/" + url.PathEscape(string(f.ARN.Account)) + "/" + url.PathEscape(string(f.ARN.Region)) + "/" + url.PathEscape(string(f.ARN.Name)) + "/" + url.PathEscape(string(f.Version)) + "/" + url.PathEscape(base64.RawURLEncoding.EncodeToString([]byte(f.Code.SHA256)))
	link, err := c.door.Access.Link(c.base, path, f.ARN.Scope, linkLife)
	return &lambdaapi.FunctionCodeLocation{RepositoryType: new("S3"), Location: &link, SourceKMSKeyArn: optional(f.Code.SourceKMSKeyARN)}, err
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
	if err := c.may(lambda.Anything{Scope: c.caller.Scope}); err != nil {
		return nil, err
	}
	marker, err := readMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.ListFunctionsOutput{Functions: []lambdaapi.FunctionConfiguration{}}
	if in.FunctionVersion == nil {
		page, more := c.door.Registry.List(c.caller.Scope, lambda.FunctionName(marker), pageSize(in.MaxItems))
		for _, f := range page {
			out.Functions = append(out.Functions, *listed(c.configuration(f, "")))
		}
		if more {
			out.NextMarker = writeMarker(string(page[len(page)-1].ARN.Name))
		}
		return out, nil
	}
	// ALL: every version by its own ARN.
	name, version, _ := strings.Cut(marker, ":")
	page, more := c.door.Registry.ListAll(c.caller.Scope, registry.Position{Name: lambda.FunctionName(name), Version: lambda.Qualifier(version).Number()}, pageSize(in.MaxItems))
	for _, f := range page {
		out.Functions = append(out.Functions, *listed(c.configuration(f, f.Version)))
	}
	if more {
		last := page[len(page)-1]
		out.NextMarker = writeMarker(string(last.ARN.Name) + ":" + string(last.Version))
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
	if in.PublishTo != nil {
		return nil, noPublishTo()
	}
	was, err := c.door.Registry.Get(arn)
	if err != nil {
		return nil, err
	}
	from, err := c.newCode(was.Settings.PackageType, in)
	if err != nil {
		return nil, err
	}
	u := registry.UpdateCode{
		ARN:      arn,
		Zip:      from.zip,
		Object:   from.object,
		Key:      lambdaapi.Value(in.SourceKMSKeyArn),
		Image:    from.image,
		Revision: lambda.RevisionID(lambdaapi.Value(in.RevisionId)),
		Publish:  lambdaapi.Value(in.Publish),
		DryRun:   lambdaapi.Value(in.DryRun),
	}
	if len(in.Architectures) > 0 {
		u.Architecture = lambda.Architecture(in.Architectures[0])
	}
	if err := c.verify(arn); err != nil {
		return nil, err
	}
	f, err := c.door.Registry.UpdateCode(ctx, u)
	if err != nil {
		return nil, err
	}
	if !u.DryRun {
		c.warnKept(arn, &lambdaapi.UpdateFunctionConfigurationInput{}, in.SourceKMSKeyArn)
	}
	return c.configuration(f, published(f)), nil
}

// UpdateFunctionConfiguration changes a function's settings.
func (c *call) UpdateFunctionConfiguration(ctx context.Context, in *lambdaapi.UpdateFunctionConfigurationInput) (*lambdaapi.UpdateFunctionConfigurationOutput, error) {
	arn, err := c.functionWith(in.FunctionName, nil, configurationKeys(in.Layers, nil, nil))
	if err == nil {
		err = c.mayUse(in.Role, in.Layers)
	}
	if err == nil {
		err = c.checkRole(arn, in.Role)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case in.CapacityProviderConfig != nil:
		return nil, noCapacityProvider()
	case in.DurableConfig != nil:
		return nil, noDurability()
	case len(in.Layers) > 0:
		if err := c.verify(arn); err != nil {
			return nil, err
		}
	}
	if in.ImageConfig != nil {
		was, err := c.door.Registry.Get(arn)
		if err != nil {
			return nil, err
		}
		if was.Settings.PackageType != lambda.Image {
			return nil, lambda.InvalidParameter("Please don't provide ImageConfig when updating a function with packageType Zip.")
		}
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
	c.warnKept(arn, in, nil)
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
		Runtime:          optional(string(s.Runtime)),
		Role:             &s.Role,
		Handler:          optional(s.Handler),
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
	if f.State == lambda.Pending || f.State == lambda.Failed {
		out.StateReason, out.StateReasonCode = optional(f.Reason), optional(f.ReasonCode)
	}
	if f.UpdateStatus == lambda.UpdateInProgress || f.UpdateStatus == lambda.UpdateFailed {
		out.LastUpdateStatusReason, out.LastUpdateStatusReasonCode = optional(f.Reason), optional(f.ReasonCode)
	}
	if i := s.Image; i != nil {
		out.ImageConfigResponse = &lambdaapi.ImageConfigResponse{ImageConfig: &lambdaapi.ImageConfig{
			EntryPoint: i.EntryPoint, Command: i.Command, WorkingDirectory: optional(i.WorkingDirectory),
		}}
	}
	if s.Environment != nil {
		out.Environment = &lambdaapi.EnvironmentResponse{Variables: s.Environment}
	}
	if s.DeadLetterTarget != "" {
		out.DeadLetterConfig = &lambdaapi.DeadLetterConfig{TargetArn: &s.DeadLetterTarget}
	}
	if v := s.VPC; v != nil {
		out.VpcConfig = &lambdaapi.VpcConfigResponse{SubnetIds: append([]string{}, v.SubnetIDs...), SecurityGroupIds: append([]string{}, v.SecurityGroupIDs...), VpcId: new(""), Ipv6AllowedForDualStack: &v.IPv6DualStack}
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
