package api

import (
	"time"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
)

// newSettings are the settings of a function that is created, with AWS's defaults.
func newSettings(in *lambdaapi.CreateFunctionInput) lambda.Settings {
	s := lambda.Settings{
		PackageType: lambda.Zip,
		Timeout:     lambda.DefaultTimeout,
		MemoryMB:    lambda.DefaultMemory,
		EphemeralMB: lambda.DefaultEphemeralStorage,
		TracingMode: "PassThrough",
		SnapStart:   "None",
		Logging:     lambda.Logging{Format: "Text"},
	}
	if in.PackageType != nil {
		s.PackageType = lambda.PackageType(*in.PackageType)
	}
	if len(in.Architectures) > 0 {
		s.Architecture = lambda.Architecture(in.Architectures[0])
	}
	change(&s, given(in))
	return s
}

// given are the settings that a creation names, as a change names them.
func given(in *lambdaapi.CreateFunctionInput) *lambdaapi.UpdateFunctionConfigurationInput {
	return &lambdaapi.UpdateFunctionConfigurationInput{
		Role: in.Role, Handler: in.Handler, Description: in.Description, Timeout: in.Timeout, MemorySize: in.MemorySize,
		VpcConfig: in.VpcConfig, Environment: in.Environment, Runtime: in.Runtime, DeadLetterConfig: in.DeadLetterConfig,
		KMSKeyArn: in.KMSKeyArn, TracingConfig: in.TracingConfig, FileSystemConfigs: in.FileSystemConfigs,
		EphemeralStorage: in.EphemeralStorage, SnapStart: in.SnapStart, LoggingConfig: in.LoggingConfig, ImageConfig: in.ImageConfig,
	}
}

// change applies what the request names; the rest stays.
func change(s *lambda.Settings, in *lambdaapi.UpdateFunctionConfigurationInput) {
	set(&s.Role, in.Role)
	set(&s.Handler, in.Handler)
	set(&s.Description, in.Description)
	set(&s.MemoryMB, in.MemorySize)
	set(&s.KMSKeyARN, in.KMSKeyArn)
	if in.Timeout != nil {
		s.Timeout = time.Duration(*in.Timeout) * time.Second
	}
	if in.Runtime != nil {
		s.Runtime = lambda.RuntimeID(*in.Runtime)
	}
	if in.Environment != nil {
		s.Environment = in.Environment.Variables
		if len(s.Environment) == 0 { // which is shown as none
			s.Environment = nil
		}
	}
	if in.EphemeralStorage != nil {
		set(&s.EphemeralMB, in.EphemeralStorage.Size)
	}
	if in.TracingConfig != nil {
		set(&s.TracingMode, in.TracingConfig.Mode)
	}
	if in.DeadLetterConfig != nil {
		s.DeadLetterTarget = lambdaapi.Value(in.DeadLetterConfig.TargetArn)
	}
	if in.SnapStart != nil {
		set(&s.SnapStart, in.SnapStart.ApplyOn)
	}
	if l := in.LoggingConfig; l != nil {
		set(&s.Logging.Format, l.LogFormat)
		set(&s.Logging.Group, l.LogGroup)
		if s.Logging.Format == "Text" && l.LogFormat != nil { // switching to Text drops the levels
			s.Logging.ApplicationLevel, s.Logging.SystemLevel = "", ""
		}
		set(&s.Logging.ApplicationLevel, l.ApplicationLogLevel)
		set(&s.Logging.SystemLevel, l.SystemLogLevel)
	}
	if i := in.ImageConfig; i != nil {
		s.Image = nil
		if i.EntryPoint != nil || i.Command != nil || i.WorkingDirectory != nil {
			s.Image = &lambda.ImageConfig{EntryPoint: i.EntryPoint, Command: i.Command, WorkingDirectory: lambdaapi.Value(i.WorkingDirectory)}
		}
	}
	if v := in.VpcConfig; v != nil {
		// Replaced whole: what empties it leaves empty lists, which are shown.
		s.VPC = &lambda.VPC{SubnetIDs: v.SubnetIds, SecurityGroupIDs: v.SecurityGroupIds, IPv6DualStack: lambdaapi.Value(v.Ipv6AllowedForDualStack)}
	}
	if in.FileSystemConfigs != nil {
		s.FileSystems = nil
		for _, fs := range in.FileSystemConfigs {
			s.FileSystems = append(s.FileSystems, lambda.FileSystem{ARN: *fs.Arn, LocalMountPath: *fs.LocalMountPath})
		}
	}
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}
