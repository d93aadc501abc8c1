package api_test

import "testing"

func TestReservedConcurrency(t *testing.T) {
	t.Parallel()
	const (
		put       = "/2017-10-31/functions/"
		show      = "/2019-09-30/functions/"
		qualified = "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please specify either a function name or an unqualified function ARN."
		below     = "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [100]."
	)
	reserve := func(name, function, n string, status int, code, want string) step {
		return step{name: name, method: "PUT", path: put + function + "/concurrency", body: `{"ReservedConcurrentExecutions":` + n + `}`, status: status, code: code, want: want}
	}
	newRig(t).table([]step{
		reserve("of what is missing", "f", "1", 404, missing, "Function not found: "+arn+"f:$LATEST"),
		creation("", `,"Publish":true`, 201, "", `{}`),
		get("none yet", show+"f/concurrency", 200, "", `{"ReservedConcurrentExecutions":null}`),
		reserve("of a version", "f:1", "1", 400, invalid, qualified),
		reserve("below zero", "f", "-1", 400, violation, "1 validation error detected: Value '-1' at 'reservedConcurrentExecutions' failed to satisfy constraint: Member must have value greater than or equal to 0"),
		reserve("no number", "f", "null", 400, violation, "1 validation error detected: Value null at 'reservedConcurrentExecutions' failed to satisfy constraint: Member must not be null"),
		reserve("all but 99", "f", "901", 400, invalid, below),
		reserve("all but 100", "f", "900", 200, "", `{"ReservedConcurrentExecutions":900}`),
		get("as it is", show+"f/concurrency", 200, "", `{"ReservedConcurrentExecutions":900}`),
		get("with the function", path+"/f", 200, "", `{"Concurrency":{"ReservedConcurrentExecutions":900}}`),
		get("the account has less", "/2016-08-19/account-settings", 200, "", `{"AccountLimit":{"ConcurrentExecutions":1000,"UnreservedConcurrentExecutions":100,"CodeSizeUnzipped":262144000,"CodeSizeZipped":52428800},"AccountUsage":{"FunctionCount":1}}`),
		creation("", `,"FunctionName":"g"`, 201, "", `{}`),
		reserve("one more", "g", "1", 400, invalid, below),
		reserve("nothing at all", "g", "0", 200, "", `{"ReservedConcurrentExecutions":0}`),
		remove("", put+"f/concurrency", 204, "", ""),
		remove("once more", put+"f/concurrency", 204, "", ""),
		remove("of what is missing", put+"absent/concurrency", 404, missing, "Function not found: "+arn+"absent"),
		get("none any more", path+"/f", 200, "", `{"Concurrency":null}`),
	})
}

func TestProvisionedConcurrency(t *testing.T) {
	t.Parallel()
	const (
		at   = "/2019-09-30/functions/f/provisioned-concurrency"
		none = "No Provisioned Concurrency Config found for this function"
		code = "ProvisionedConcurrencyConfigNotFoundException"
	)
	put := func(name, qualifier, n string, status int, code, want string) step {
		return step{name: name, method: "PUT", path: at + "?Qualifier=" + qualifier, body: `{"ProvisionedConcurrentExecutions":` + n + `}`, status: status, code: code, want: want}
	}
	newRig(t).table([]step{
		creation("", `,"Publish":true`, 201, "", `{}`),
		post("", path+"/f/aliases", `{"Name":"live","FunctionVersion":"1"}`, 201, "", `{}`),
		put("$LATEST", "$LATEST", "1", 400, invalid, "Provisioned Concurrency Configs cannot be applied to unpublished function versions."),
		get("of $LATEST", at+"?Qualifier=$LATEST", 400, invalid, "The function resource provided must be an alias or a published version."),
		remove("of $LATEST", at+"?Qualifier=$LATEST", 400, invalid, "The function resource provided must be an alias or a published version."),
		get("none yet", at+"?Qualifier=1", 404, code, none),
		put("zero", "1", "0", 400, violation, "1 validation error detected: Value '0' at 'provisionedConcurrentExecutions' failed to satisfy constraint: Member must have value greater than or equal to 1"),
		put("a version", "1", "2", 202, "", `{"RequestedProvisionedConcurrentExecutions":2,"AvailableProvisionedConcurrentExecutions":0,"AllocatedProvisionedConcurrentExecutions":0,"Status":"IN_PROGRESS","LastModified":"*"}`),
		put("the alias of that version", "live", "1", 409, conflict, "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"),
		get("as it is", at+"?Qualifier=1", 200, "", `{"RequestedProvisionedConcurrentExecutions":2}`),
		get("all", at+"?List=ALL", 200, "", `{"ProvisionedConcurrencyConfigs":[{"FunctionArn":"`+arn+`f:1","RequestedProvisionedConcurrentExecutions":2}],"NextMarker":null}`),
		remove("", at+"?Qualifier=1", 204, "", ""),
		put("the alias", "live", "1", 202, "", `{"RequestedProvisionedConcurrentExecutions":1}`),
		put("the version of that alias", "1", "1", 409, conflict, "Version is pointed by a Provisioned Concurrency alias"),
		remove("", at+"?Qualifier=live", 204, "", ""),
		get("none any more", at+"?Qualifier=live", 404, code, none),
	})
}

// What is shown is what there is, and why there is no more.
func TestProvisionedStatus(t *testing.T) {
	t.Parallel()
	const at = "/2019-09-30/functions/f/provisioned-concurrency"
	r := newRig(t)
	r.table([]step{
		creation("", `,"Publish":true`, 201, "", `{}`),
		{name: "", method: "PUT", path: at + "?Qualifier=1", body: `{"ProvisionedConcurrentExecutions":3}`, status: 202, want: `{}`},
	})
	for _, c := range []struct {
		is   environments
		want string
	}{
		{environments{}, `"AvailableProvisionedConcurrentExecutions":0,"AllocatedProvisionedConcurrentExecutions":0,"Status":"IN_PROGRESS","StatusReason":null`},
		{environments{2, 1, ""}, `"AvailableProvisionedConcurrentExecutions":1,"AllocatedProvisionedConcurrentExecutions":2,"Status":"IN_PROGRESS","StatusReason":null`},
		{environments{1, 1, "FUNCTION_ERROR_INIT_FAILURE"}, `"AvailableProvisionedConcurrentExecutions":1,"AllocatedProvisionedConcurrentExecutions":1,"Status":"FAILED","StatusReason":"FUNCTION_ERROR_INIT_FAILURE"`},
		{environments{3, 3, ""}, `"AvailableProvisionedConcurrentExecutions":3,"AllocatedProvisionedConcurrentExecutions":3,"Status":"READY","StatusReason":null`},
	} {
		*r.kept = c.is
		want := `"RequestedProvisionedConcurrentExecutions":3,` + c.want
		r.table([]step{
			get("", at+"?Qualifier=1", 200, "", `{`+want+`}`),
			get("", at+"?List=ALL", 200, "", `{"ProvisionedConcurrencyConfigs":[{`+want+`}]}`),
		})
	}
}
