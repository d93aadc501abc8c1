package api_test

import (
	"strings"
	"testing"
)

func TestLayers(t *testing.T) {
	t.Parallel()
	const at = "/2018-10-31/layers"
	content := `"Content":{"ZipFile":"` + code("layer") + `"}`
	long := strings.Repeat("d", 257)
	newRig(t).table([]step{
		post("no content", at+"/l/versions", `{}`, 400, violation, "1 validation error detected: Value null at 'content' failed to satisfy constraint: Member must not be null"),
		post("no source", at+"/l/versions", `{"Content":{}}`, 400, invalid, "Please provide a source for layer content."),
		post("two sources", at+"/l/versions", `{"Content":{"ZipFile":"`+code("x")+`","S3Bucket":"bucket","S3Key":"k"}}`, 400, invalid, "Please do not provide other LayerVersionContent parameters when providing a ZipFile."),
		post("no zip", at+"/l/versions", `{"Content":{"ZipFile":"eA=="}}`, 400, invalid, "Could not unzip uploaded file. Please check your file, then try to upload again."),
		post("a long description", at+"/l/versions", `{`+content+`,"Description":"`+long+`"}`, 400, violation,
			"1 validation error detected: Value '"+long+"' at 'description' failed to satisfy constraint: Member must have length less than or equal to 256"),
		post("the least", at+"/l/versions", `{`+content+`}`, 201, "", `{"Version":1,"LayerArn":"`+layers+`l","LayerVersionArn":"`+layers+`l:1","Description":"","CreatedDate":"*",
			"CompatibleRuntimes":[],"CompatibleArchitectures":[],"LicenseInfo":null,"Content":{"Location":"*","CodeSha256":"*","CodeSize":"*"}}`),
		post("all, from S3", at+"/l/versions", `{"Content":{"S3Bucket":"bucket","S3Key":"k"},"Description":"d","LicenseInfo":"MIT","CompatibleRuntimes":["python3.13"],"CompatibleArchitectures":["arm64"]}`, 201, "",
			`{"Version":2,"Description":"d","LicenseInfo":"MIT","CompatibleRuntimes":["python3.13"],"CompatibleArchitectures":["arm64"]}`),
		get("one", at+"/l/versions/2", 200, "", `{"LayerVersionArn":"`+layers+`l:2","LicenseInfo":"MIT"}`),
		get("by its ARN", at+"?find=LayerVersion&Arn="+layers+"l:1", 200, "", `{"LayerVersionArn":"`+layers+`l:1"}`),
		get("missing", at+"/l/versions/9", 404, missing, "The resource you requested does not exist."),
		get("zero", at+"/l/versions/0", 400, invalid, "Layer Version Cannot be less than 1"),
		get("versions", at+"/l/versions", 200, "", `{"LayerVersions":[{"Version":2},{"Version":1}],"NextMarker":null}`),
		{method: "GET", path: at + "/l/versions?MaxItems=1", status: 200, want: `{"LayerVersions":[{"Version":2}]}`, keep: "NextMarker"},
		get("the next page", at+"/l/versions?MaxItems=1&Marker=$NEXTMARKER", 200, "", `{"LayerVersions":[{"Version":1}],"NextMarker":null}`),
		get("51 at once", at+"/l/versions?MaxItems=51", 400, violation, "1 validation error detected: Value '51' at 'maxItems' failed to satisfy constraint: Member must have value less than or equal to 50"),
		get("a marker of nobody's", at+"/l/versions?Marker=%21", 400, invalid, "The provided Marker is not one that a list returned: !"),
		get("those for a runtime", at+"/l/versions?CompatibleRuntime=python3.13", 200, "", `{"LayerVersions":[{"Version":2}]}`),
		get("versions of what is missing", at+"/absent/versions", 200, "", `{"LayerVersions":[]}`),
		get("all layers", at, 200, "", `{"Layers":[{"LayerName":"l","LayerArn":"`+layers+`l","LatestMatchingVersion":{"Version":2}}],"NextMarker":null}`),
		get("layers for an architecture", at+"?CompatibleArchitecture=x86_64", 200, "", `{"Layers":[]}`),
		creation("two of one", `,"Layers":["`+layers+`l:1","`+layers+`l:2"]`, 400, invalid,
			"Two different versions of the same layer are not allowed to be referenced in the same function. "+layers+"l:1 and "+layers+"l:2 are versions of the same layer."),
		creation("a function with one", `,"Layers":["`+layers+`l:1"]`, 201, "", `{"Layers":[{"Arn":"`+layers+`l:1","CodeSize":"*"}]}`),
		remove("", at+"/l/versions/1", 204, "", ""),
		remove("once more", at+"/l/versions/1", 204, "", ""),
		get("the function keeps it", path+"/f/configuration", 200, "", `{"Layers":[{"Arn":"`+layers+`l:1"}]}`),
		remove("", at+"/l/versions/2", 204, "", ""),
		post("a number is not used again", at+"/l/versions", `{`+content+`}`, 201, "", `{"Version":3}`),
	})
}

func TestLayerPolicies(t *testing.T) {
	t.Parallel()
	const (
		at     = "/2018-10-31/layers/l/versions/1/policy"
		allow  = `"Action":"lambda:GetLayerVersion","Principal":"*"}`
		absent = "Layer version " + layers + "l:1 does not exist."
		old    = "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the latest Revision Id"
	)
	newRig(t).table([]step{
		post("of what is missing", at, `{"StatementId":"s",`+allow, 404, missing, absent),
		get("of what is missing", at, 404, missing, absent),
		post("", "/2018-10-31/layers/l/versions", `{"Content":{"ZipFile":"`+code("layer")+`"}}`, 201, "", `{}`),
		get("none yet", at, 404, missing, "No policy is associated with the given resource."),
		post("another action", at, `{"StatementId":"s","Action":"lambda:GetFunction","Principal":"*"}`, 400, violation,
			"1 validation error detected: Value 'lambda:GetFunction' at 'action' failed to satisfy constraint: Member must satisfy regular expression pattern: lambda:GetLayerVersion"),
		{method: "POST", path: at, body: `{"StatementId":"s",` + allow, status: 201, keep: "RevisionId",
			want: `{"Statement":"{\"Sid\":\"s\",\"Effect\":\"Allow\",\"Principal\":\"*\",\"Action\":\"lambda:GetLayerVersion\",\"Resource\":\"` + layers + `l:1\"}"}`},
		post("twice", at, `{"StatementId":"s",`+allow, 409, conflict, "The statement id (s) provided already exists. Please provide a new statement id, or remove the existing statement."),
		get("as it is", at, 200, "", `{"Policy":"*","RevisionId":"$REVISIONID"}`),
		post("a second, by the revision", at+"?RevisionId=$REVISIONID", `{"StatementId":"t",`+allow, 201, "", `{}`),
		post("by an old one", at+"?RevisionId=$REVISIONID", `{"StatementId":"u",`+allow, 412, stale, old),
		remove("by an old one", at+"/s?RevisionId=$REVISIONID", 412, stale, old),
		remove("no such statement", at+"/u", 404, missing, "Statement u is not found in resource policy."),
		remove("", at+"/s", 204, "", ""),
		remove("", at+"/t", 204, "", ""),
		get("none any more", at, 404, missing, "No policy is associated with the given resource."),
	})
}
