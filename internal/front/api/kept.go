package api

import (
	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
)

// warnKept tells the operator of what a change sets that Kiln keeps and shows, as AWS
// does, and that has no effect here: whoever relies on it should learn of that once,
// and not with each invocation. sourceKey is that of code.
func (c *call) warnKept(arn lambda.FunctionARN, in *lambdaapi.UpdateFunctionConfigurationInput, sourceKey *string) {
	for _, s := range []struct {
		set           bool
		name, instead string
	}{
		{in.VpcConfig != nil && len(in.VpcConfig.SubnetIds) > 0, "VpcConfig", "the function joins no VPC: network in kiln.toml says what it reaches"},
		{len(in.FileSystemConfigs) > 0, "FileSystemConfigs", "nothing is mounted: the path is not there"},
		{lambdaapi.Value(in.KMSKeyArn) != "", "KMSKeyArn", "environment variables are sealed under Kiln's master key"},
		{lambdaapi.Value(sourceKey) != "", "SourceKMSKeyArn", "packages lie on the disk as they came"},
		{in.TracingConfig != nil && lambdaapi.Value(in.TracingConfig.Mode) == "Active", "TracingConfig", "no traces are sampled or sent"},
		{in.SnapStart != nil && lambdaapi.Value(in.SnapStart.ApplyOn) == "PublishedVersions", "SnapStart", "no snapshot is made: versions start as others do"},
	} {
		if s.set {
			c.door.Log.Warn("a setting of a function is kept and has no effect", "function", arn.String(), "setting", s.name, "instead", s.instead)
		}
	}
}
