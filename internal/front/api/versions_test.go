package api_test

import "testing"

func TestPublishVersion(t *testing.T) {
	t.Parallel()
	const versions = path + "/f/versions"
	newRig(t).table([]step{
		post("of what is missing", versions, `{}`, 404, missing, "Function not found: "+arn+"f"),
		creation("", `,"Description":"latest"`, 201, "", `{}`),
		{method: "GET", path: path + "/f/configuration", status: 200, want: `{}`, keep: "RevisionId"},
		{method: "GET", path: path + "/f/configuration", status: 200, want: `{}`, keep: "CodeSha256"},
		post("another code", versions, `{"CodeSha256":"x"}`, 400, invalid, "CodeSHA256 (x) is different from current CodeSHA256 in $LATEST ($CODESHA256). Please try again with the CodeSHA256 in $LATEST."),
		post("an old revision", versions, `{"RevisionId":"`+uuid+`"}`, 412, stale, notLatest),
		post("the first", versions, `{"CodeSha256":"$CODESHA256","RevisionId":"$REVISIONID","Description":"first"}`, 201, "",
			`{"Version":"1","FunctionArn":"`+arn+`f:1","Description":"first","State":"Active","LastUpdateStatus":"Successful"}`),
		post("nothing has changed", versions, `{}`, 201, "", `{"Version":"1","Description":"first"}`),
		change("", "configuration", `{"Timeout":9}`, 200, "", `{}`),
		post("the second", versions, ``, 201, "", `{"Version":"2","Description":"latest","Timeout":9}`),
		get("the first is as it was", path+"/f:1", 200, "", `{"Configuration":{"Timeout":3,"Description":"first"}}`),
		remove("", path+"/f?Qualifier=2", 204, "", ""),
		change("", "configuration", `{"Timeout":10}`, 200, "", `{}`),
		post("a number is not used again", versions, `{}`, 201, "", `{"Version":"3"}`),
		{method: "GET", path: versions + "?MaxItems=1", status: 200, want: `{"Versions":[{"Version":"$LATEST"}]}`, keep: "NextMarker"},
		get("the next page", versions+"?MaxItems=2&Marker=$NEXTMARKER", 200, "", `{"Versions":[{"Version":"1"},{"Version":"3"}],"NextMarker":null}`),
		get("a marker of nobody's", versions+"?Marker=%21", 400, invalid, "The provided Marker is not one that a list returned: !"),
	})
}

func TestAliases(t *testing.T) {
	t.Parallel()
	const (
		aliases = path + "/f/aliases"
		live    = arn + "f:live"
		weights = `"RoutingConfig":{"AdditionalVersionWeights":`
	)
	newRig(t).table([]step{
		post("of what is missing", aliases, `{"Name":"live","FunctionVersion":"1"}`, 404, missing, "Function not found: "+arn+"f:1"),
		creation("", `,"Publish":true`, 201, "", `{}`),
		change("", "configuration", `{"Timeout":9}`, 200, "", `{}`),
		post("", path+"/f/versions", `{}`, 201, "", `{"Version":"2"}`),
		post("a number for a name", aliases, `{"Name":"1","FunctionVersion":"1"}`, 400, violation,
			"1 validation error detected: Value '1' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)"),
		post("without version", aliases, `{"Name":"live"}`, 400, violation, "1 validation error detected: Value null at 'functionVersion' failed to satisfy constraint: Member must not be null"),
		post("a version that is missing", aliases, `{"Name":"live","FunctionVersion":"7"}`, 404, missing, "Function not found: "+arn+"f:7"),
		post("two more versions", aliases, `{"Name":"live","FunctionVersion":"1",`+weights+`{"1":0.1,"2":0.1}}}`, 400, invalid, "Number of items in AdditionalVersionWeights cannot be greater than 1"),
		post("the same version", aliases, `{"Name":"live","FunctionVersion":"1",`+weights+`{"1":0.1}}}`, 400, invalid,
			"Invalid function version 1. Function version 1 is already included in routing configuration."),
		post("$LATEST and another", aliases, `{"Name":"live","FunctionVersion":"$LATEST",`+weights+`{"1":0.1}}}`, 400, invalid, "$LATEST is not supported for an alias pointing to more than 1 version"),
		post("one", aliases, `{"Name":"live","FunctionVersion":"1","Description":"d",`+weights+`{"2":0.25}}}`, 201, "",
			`{"AliasArn":"`+live+`","Name":"live","FunctionVersion":"1","Description":"d","RevisionId":"*","RoutingConfig":{"AdditionalVersionWeights":{"2":0.25}}}`),
		post("twice", aliases, `{"Name":"live","FunctionVersion":"1"}`, 409, conflict, "Alias already exists: "+live),
		{name: "as it is", method: "GET", path: aliases + "/live", status: 200, want: `{"AliasArn":"` + live + `","Description":"d"}`, keep: "RevisionId"},
		get("one that is missing", aliases+"/dead", 404, missing, "Cannot find alias arn: "+arn+"f:dead"),
		{name: "the weights are cleared", method: "PUT", path: aliases + "/live", body: `{` + weights + `{}},"RevisionId":"$REVISIONID"}`, status: 200, want: `{"RoutingConfig":null,"FunctionVersion":"1","Description":"d"}`},
		{name: "an old revision", method: "PUT", path: aliases + "/live", body: `{"FunctionVersion":"2","RevisionId":"$REVISIONID"}`, status: 412, code: stale, want: notLatest},
		{name: "another version", method: "PUT", path: aliases + "/live", body: `{"FunctionVersion":"2","Description":""}`, status: 200, want: `{"FunctionVersion":"2","Description":""}`},
		{name: "a change of what is missing", method: "PUT", path: aliases + "/dead", body: `{"Description":"x"}`, status: 404, code: missing, want: "Alias not found: " + arn + "f:dead"},
		post("", aliases, `{"Name":"beta","FunctionVersion":"$LATEST"}`, 201, "", `{"FunctionVersion":"$LATEST","Description":"","RoutingConfig":null}`),
		get("all", aliases, 200, "", `{"Aliases":[{"Name":"beta"},{"Name":"live"}],"NextMarker":null}`),
		get("those of a version", aliases+"?FunctionVersion=2", 200, "", `{"Aliases":[{"Name":"live"}]}`),
		{method: "GET", path: aliases + "?MaxItems=1", status: 200, want: `{"Aliases":[{"Name":"beta"}]}`, keep: "NextMarker"},
		get("the next page", aliases+"?MaxItems=1&Marker=$NEXTMARKER", 200, "", `{"Aliases":[{"Name":"live"}],"NextMarker":null}`),
		get("of what is missing", path+"/absent/aliases", 404, missing, "Function not found: "+arn+"absent"),
		remove("", aliases+"/live", 204, "", ""),
		remove("once more", aliases+"/live", 204, "", ""),
	})
}
