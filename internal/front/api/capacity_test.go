package api_test

import "testing"

func TestCapacityProviders(t *testing.T) {
	t.Parallel()
	const (
		at     = "/2025-11-30/capacity-providers"
		prefix = "arn:aws:lambda:us-east-1:123456789012:capacity-provider:"
		gone   = "Capacity provider not found: " + prefix + "p"
	)
	body := func(name, more string) string {
		return `{"CapacityProviderName":"` + name + `","VpcConfig":{"SubnetIds":["subnet-0123456789abcdef0"],"SecurityGroupIds":["sg-0123456789abcdef0"]},"PermissionsConfig":{"CapacityProviderOperatorRoleArn":"arn:aws:iam::123456789012:role/r"}` + more + `}`
	}
	scaled := func(n string) string { return `,"CapacityProviderScalingConfig":{"MaxVCpuCount":` + n + `}` }
	newRig(t).table([]step{
		get("missing", at+"/p", 404, missing, gone),
		put("missing", at+"/p", `{}`, 404, missing, gone),
		remove("missing", at+"/p", 404, missing, gone),
		get("versions on what is missing", at+"/p/function-versions", 404, missing, gone),
		get("none", at, 200, "", `{"CapacityProviders":[],"NextMarker":null}`),
		post("nothing", at, `{"CapacityProviderName":"p"}`, 400, violation,
			"2 validation errors detected: Value null at 'vpcConfig' failed to satisfy constraint: Member must not be null; Value null at 'permissionsConfig' failed to satisfy constraint: Member must not be null"),
		post("fewer processors than may be", at, body("p", scaled("1")), 400, violation,
			"1 validation error detected: Value '1' at 'capacityProviderScalingConfig.maxVCpuCount' failed to satisfy constraint: Member must have value greater than or equal to 2"),
		post("more", at, body("p", scaled("15001")), 400, violation,
			"1 validation error detected: Value '15001' at 'capacityProviderScalingConfig.maxVCpuCount' failed to satisfy constraint: Member must have value less than or equal to 15000"),
		post("the least", at, body("p", scaled("2")), 202, "", `{"CapacityProvider":{"CapacityProviderArn":"`+prefix+`p","State":"Pending","CapacityProviderScalingConfig":{"MaxVCpuCount":2},"LastModified":"*"}}`),
		post("again", at, body("p", ""), 409, conflict, "Capacity provider already exists: "+prefix+"p"),
		get("by name", at+"/p", 200, "", `{"CapacityProvider":{"State":"Active","VpcConfig":{"SubnetIds":["subnet-0123456789abcdef0"],"SecurityGroupIds":["sg-0123456789abcdef0"]}}}`),
		get("by ARN", at+"/"+prefix+"p", 200, "", `{"CapacityProvider":{"CapacityProviderArn":"`+prefix+`p"}}`),
		put("the most", at+"/p", `{"CapacityProviderScalingConfig":{"MaxVCpuCount":15000}}`, 202, "", `{"CapacityProvider":{"CapacityProviderScalingConfig":{"MaxVCpuCount":15000}}}`),
		put("nothing", at+"/p", `{}`, 202, "", `{"CapacityProvider":{"CapacityProviderScalingConfig":{"MaxVCpuCount":15000}}}`),
		post("another", at, body("q", ""), 202, "", `{}`),
		{name: "a page", method: "GET", path: at + "?MaxItems=1", status: 200, want: `{"CapacityProviders":[{"CapacityProviderArn":"` + prefix + `p"}]}`, keep: "NextMarker"},
		get("the rest", at+"?Marker=$NEXTMARKER", 200, "", `{"CapacityProviders":[{"CapacityProviderArn":"`+prefix+`q"}],"NextMarker":null}`),
		get("a marker of nobody's", at+"?Marker=!", 400, invalid, "The provided Marker is not one that a list returned: !"),
		get("those that fail", at+"?State=Failed", 200, "", `{"CapacityProviders":[]}`),
		get("no versions", at+"/p/function-versions", 200, "", `{"FunctionVersions":[],"CapacityProviderArn":"`+prefix+`p"}`),
		creation("a function on it", `,"CapacityProviderConfig":{"LambdaManagedInstancesCapacityProviderConfig":{"CapacityProviderArn":"`+prefix+`p"}}`, 400, invalid,
			"CapacityProviderConfig is not supported: Kiln runs functions on its own machine, and on no instances that a capacity provider describes. Leave it out."),
		remove("with its name free again", at+"/p", 202, "", `{"CapacityProvider":{"State":"Deleting"}}`),
		get("gone", at+"/p", 404, missing, gone),
		post("again", at, body("p", ""), 202, "", `{"CapacityProvider":{"CapacityProviderScalingConfig":null}}`),
	})
}

func TestScaling(t *testing.T) {
	t.Parallel()
	const at = "/2025-11-30/functions/f/function-scaling-config"
	const unscaled = "Scaling configurations are supported only for functions with a CapacityProviderConfig, which " + arn + "f:1 has none of."
	newRig(t).table([]step{
		get("of what is missing", at+"?Qualifier=1", 404, missing, "Function not found: "+arn+"f:1"),
		creation("", `,"Publish":true`, 201, "", `{}`),
		get("no qualifier", at, 400, violation, "1 validation error detected: Value null at 'qualifier' failed to satisfy constraint: Member must not be null"),
		get("of $LATEST", at+"?Qualifier=$LATEST", 400, violation, `1 validation error detected: Value '$LATEST' at 'qualifier' failed to satisfy constraint: Member must satisfy regular expression pattern: (\$LATEST\.PUBLISHED|[0-9]+)`),
		get("of a version", at+"?Qualifier=1", 400, invalid, unscaled),
		put("of a version", at+"?Qualifier=1", `{"FunctionScalingConfig":{"MinExecutionEnvironments":1}}`, 400, invalid, unscaled),
	})
}

// None is ever begun.
func TestDurableExecutions(t *testing.T) {
	t.Parallel()
	const (
		execution = arn + "f:1/durable-execution/e/1"
		at        = "/2025-12-01/durable-executions/" + "arn:aws:lambda:us-east-1:123456789012:function:f:1%2Fdurable-execution%2Fe%2F1"
		callback  = "/2025-12-01/durable-execution-callbacks/aWQ%3D/"
		of        = "/2025-12-01/functions/f/durable-executions"
		gone      = "Durable execution not found: " + execution
		idle      = "Invalid Checkpoint Token: no invocation of " + execution + " is running"
	)
	newRig(t).table([]step{
		get("of what is missing", of, 404, missing, "Function not found: "+arn+"f"),
		creation("", "", 201, "", `{}`),
		get("of a function", of, 200, "", `{"DurableExecutions":[],"NextMarker":null}`),
		get("one", at, 404, missing, gone),
		get("its history", at+"/history", 404, missing, gone),
		post("its end", at+"/stop", `{}`, 404, missing, gone),
		get("no token", at+"/state", 400, violation, "1 validation error detected: Value null at 'checkpointToken' failed to satisfy constraint: Member must not be null"),
		get("its state", at+"/state?CheckpointToken=dG9rZW4%3D", 400, invalid, idle),
		post("a checkpoint", at+"/checkpoint", `{"CheckpointToken":"dG9rZW4="}`, 400, invalid, idle),
		post("a callback that succeeds", callback+"succeed", `{}`, 404, missing, "Callback not found: aWQ="),
		post("a callback that fails", callback+"fail", `{}`, 404, missing, "Callback not found: aWQ="),
		post("a callback that lives", callback+"heartbeat", `{}`, 404, missing, "Callback not found: aWQ="),
		creation("a durable function", `,"FunctionName":"g","DurableConfig":{"ExecutionTimeout":60}`, 400, invalid, "DurableConfig is not supported: Kiln has no durable executions yet. Leave it out."),
	})
}
