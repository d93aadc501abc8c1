package api_test

import "testing"

func TestTags(t *testing.T) {
	t.Parallel()
	const (
		at        = "/2017-03-31/tags/"
		qualified = "Tags on function aliases and versions are not supported. Please specify a function ARN."
		csc       = "arn:aws:lambda:us-east-1:123456789012:code-signing-config:csc-0123456789abcdef0"
		mapping   = "arn:aws:lambda:us-east-1:123456789012:event-source-mapping:" + uuid
	)
	newRig(t).table([]step{
		get("of what is missing", at+arn+"f", 404, missing, "Function not found: "+arn+"f"),
		get("of a mapping that is missing", at+mapping, 404, missing, "Event source mapping not found: "+mapping),
		creation("", `,"Publish":true,"Tags":{"a":"1"}`, 201, "", `{}`),
		{method: "GET", path: path + "/f/configuration", status: 200, want: `{}`, keep: "RevisionId"},
		get("as created", at+arn+"f", 200, "", `{"Tags":{"a":"1"}}`),
		get("of a version", at+arn+"f:1", 400, invalid, qualified),
		post("a version", at+arn+"f:1", `{"Tags":{"b":"2"}}`, 400, invalid, qualified),
		post("none", at+arn+"f", `{"Tags":{}}`, 400, invalid, "An error occurred and the request cannot be processed."),
		post("no Tags", at+arn+"f", `{}`, 400, violation, "1 validation error detected: Value null at 'tags' failed to satisfy constraint: Member must not be null"),
		post("one more", at+arn+"f", `{"Tags":{"b":"2"}}`, 204, "", ""),
		get("both", at+arn+"f", 200, "", `{"Tags":{"a":"1","b":"2"}}`),
		change("the revision is another", "configuration", `{"RevisionId":"$REVISIONID"}`, 412, stale, notLatest),
		post("51", at+arn+"f", `{"Tags":{`+numbered(49)+`}}`, 400, invalid, "Number of tags exceeds resource tag limit."),
		post("50", at+arn+"f", `{"Tags":{`+numbered(48)+`}}`, 204, "", ""),
		remove("no keys", at+arn+"f", 400, violation, "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"),
		remove("one, and one that is missing", at+arn+"f?tagKeys=a&tagKeys=absent", 204, "", ""),
		get("without it", at+arn+"f", 200, "", `{"Tags":{"a":null,"b":"2"}}`),
		remove("of what is missing", at+arn+"absent?tagKeys=a", 404, missing, "Function not found: "+arn+"absent"),
	})
}

func TestRecursionAndRuntimes(t *testing.T) {
	t.Parallel()
	const (
		recursion = "/2024-08-31/functions/f/recursion-config"
		runtimes  = "/2021-07-20/functions/f/runtime-management-config"
	)
	newRig(t).table([]step{
		get("of what is missing", recursion, 404, missing, "Function not found: "+arn+"f"),
		put("of what is missing", recursion, `{"RecursiveLoop":"Allow"}`, 404, missing, "Function not found: "+arn+"f"),
		get("of what is missing", runtimes, 404, missing, "Function not found: "+arn+"f"),
		creation("", "", 201, "", `{}`),
		get("by default", recursion, 200, "", `{"RecursiveLoop":"Terminate"}`),
		put("another word", recursion, `{"RecursiveLoop":"Loop"}`, 400, violation, "1 validation error detected: Value 'Loop' at 'recursiveLoop' failed to satisfy constraint: Member must satisfy enum value set: [Allow, Terminate]"),
		put("allowed", recursion, `{"RecursiveLoop":"Allow"}`, 200, "", `{"RecursiveLoop":"Allow"}`),
		get("as it is", recursion, 200, "", `{"RecursiveLoop":"Allow"}`),
		get("by default", runtimes, 200, "", `{"UpdateRuntimeOn":"Auto","FunctionArn":"*","RuntimeVersionArn":null}`),
		put("with each change", runtimes, `{"UpdateRuntimeOn":"FunctionUpdate"}`, 200, "", `{"UpdateRuntimeOn":"FunctionUpdate","FunctionArn":"*"}`),
		get("as it is", runtimes, 200, "", `{"UpdateRuntimeOn":"FunctionUpdate"}`),
	})
}
