package api_test

import "testing"

func TestCodeSigning(t *testing.T) {
	t.Parallel()
	const (
		at     = "/2020-04-22/code-signing-configs"
		of     = "/2020-06-30/functions/f/code-signing-config"
		absent = "arn:aws:lambda:us-east-1:123456789012:code-signing-config:csc-0123456789abcdef0"
		gone   = "The code signing configuration cannot be found. Check that the provided configuration is not deleted: " + absent + "."
	)
	publishers := `"AllowedPublishers":{"SigningProfileVersionArns":["arn:aws:signer:us-east-1:123456789012:/signing-profiles/p/0123456789"]}`
	newRig(t).table([]step{
		get("missing", at+"/"+absent, 404, missing, "The Lambda code signing configuration "+absent+" can not be found."),
		post("no publishers", at, `{}`, 400, violation, "1 validation error detected: Value null at 'allowedPublishers' failed to satisfy constraint: Member must not be null"),
		post("no publisher", at, `{"AllowedPublishers":{"SigningProfileVersionArns":[]}}`, 400, violation, "1 validation error detected: Value '[]' at 'allowedPublishers.signingProfileVersionArns' failed to satisfy constraint: Member must have length greater than or equal to 1"),
		post("one", at, `{`+publishers+`}`, 201, "", `{"CodeSigningConfig":{"CodeSigningConfigArn":"*","CodeSigningConfigId":"*","CodeSigningPolicies":{"UntrustedArtifactOnDeployment":"Warn"},"LastModified":"*"}}`),
		put("one that is missing, before the function", of, `{"CodeSigningConfigArn":"`+absent+`"}`, 404, "CodeSigningConfigNotFoundException", gone),
		creation("", "", 201, "", `{}`),
		get("of a function without", of, 200, "", `{"CodeSigningConfigArn":null}`),
		remove("of a function without", of, 204, "", ""),
		{name: "all", method: "GET", path: at + "?MaxItems=1", status: 200, want: `{"CodeSigningConfigs":[{"CodeSigningConfigArn":"*"}],"NextMarker":null}`},
		put("missing", at+"/"+absent, `{}`, 404, missing, "The Lambda code signing configuration "+absent+" can not be found."),
		remove("missing", at+"/"+absent, 404, missing, "The Lambda code signing configuration "+absent+" can not be found."),
		get("functions of what is missing", at+"/"+absent+"/functions", 404, missing, "The Lambda code signing configuration "+absent+" can not be found."),
		{name: "another", method: "POST", path: at, body: `{"Description":"second",` + publishers + `,"CodeSigningPolicies":{"UntrustedArtifactOnDeployment":"Enforce"}}`, status: 201,
			want: `{"CodeSigningConfig":{"Description":"second"}}`},
		{name: "a page of two", method: "GET", path: at + "?MaxItems=1", status: 200, want: `{"CodeSigningConfigs":[{"CodeSigningConfigArn":"*"}]}`, keep: "NextMarker"},
		get("the rest", at+"?Marker=$NEXTMARKER", 200, "", `{"CodeSigningConfigs":[{"CodeSigningConfigArn":"*"}],"NextMarker":null}`),
	})
}
