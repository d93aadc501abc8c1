package api_test

import "testing"

func TestFunctionPolicies(t *testing.T) {
	t.Parallel()
	const (
		at     = path + "/f/policy"
		allow  = `"Action":"lambda:InvokeFunction","Principal":"s3.amazonaws.com"`
		exists = "The statement id (s) provided already exists. Please provide a new statement id, or remove the existing statement."
	)
	statement := func(resource string) string {
		return `{"Statement":"{\"Sid\":\"s\",\"Effect\":\"Allow\",\"Principal\":{\"Service\":\"s3.amazonaws.com\"},\"Action\":\"lambda:InvokeFunction\",\"Resource\":\"` + resource + `\"}"}`
	}
	newRig(t).table([]step{
		post("of what is missing", at, `{"StatementId":"s",`+allow+`}`, 404, missing, "Function not found: "+arn+"f"),
		remove("of what is missing", at+"/s", 404, missing, "No policy found for: "+arn+"f"),
		get("of what is missing", at, 404, missing, "The resource you requested does not exist."),
		creation("", `,"Publish":true`, 201, "", `{}`),
		post("", path+"/f/aliases", `{"Name":"live","FunctionVersion":"1"}`, 201, "", `{}`),
		get("none yet", at, 404, missing, "The resource you requested does not exist."),
		remove("none yet", at+"/s", 404, missing, "No policy is associated with the given resource."),
		post("$LATEST", at+"?Qualifier=$LATEST", `{"StatementId":"s",`+allow+`}`, 400, invalid, "We currently do not support adding policies for $LATEST."),
		post("a principal that is none", at, `{"StatementId":"s","Action":"lambda:InvokeFunction","Principal":"nobody"}`, 400, invalid, "The provided principal was invalid. Please check the principal and try again."),
		post("an alias that is missing", at+"?Qualifier=dead", `{"StatementId":"s",`+allow+`}`, 404, missing, "Cannot find alias arn: "+arn+"f:dead"),
		post("a version that is missing", at+"?Qualifier=42", `{"StatementId":"s",`+allow+`}`, 404, missing, "Function not found: "+arn+"f:42"),
		{method: "GET", path: path + "/f/configuration", status: 200, want: `{}`, keep: "RevisionId"},
		post("one", at, `{"StatementId":"s",`+allow+`,"RevisionId":"$REVISIONID"}`, 201, "", statement(arn+"f")),
		post("twice", at, `{"StatementId":"s",`+allow+`}`, 409, conflict, exists),
		post("an old revision", at, `{"StatementId":"t",`+allow+`,"RevisionId":"$REVISIONID"}`, 412, stale, notLatest),
		post("an alias has its own", at+"?Qualifier=live", `{"StatementId":"s",`+allow+`}`, 201, "", statement(arn+"f:live")),
		post("a version too", path+"/f:1/policy", `{"StatementId":"s",`+allow+`}`, 201, "", statement(arn+"f:1")),
		post("its old revision", at+"?Qualifier=live", `{"StatementId":"t",`+allow+`,"RevisionId":"`+uuid+`"}`, 412, stale,
			"The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the latest Revision Id"),
		post("all conditions", at, `{"StatementId":"c","Action":"lambda:InvokeFunction","Principal":"210987654321","SourceArn":"arn:aws:s3:::b","SourceAccount":"210987654321","EventSourceToken":"x","PrincipalOrgID":"o-0123456789"}`, 201, "", `{"Statement":"*"}`),
		{name: "as it is", method: "GET", path: at, status: 200, want: `{"Policy":"*","RevisionId":"*"}`, keep: "RevisionId"},
		get("whose revision is the function's", path+"/f/configuration", 200, "", `{"RevisionId":"$REVISIONID"}`),
		remove("a statement that is missing", at+"/t", 404, missing, "Statement t is not found in resource policy."),
		remove("an old revision", at+"/s?RevisionId="+uuid, 412, stale, notLatest),
		remove("the revision", at+"/s?RevisionId=$REVISIONID", 204, "", ""),
		remove("the other", at+"/c", 204, "", ""),
		get("none any more", at, 404, missing, "The resource you requested does not exist."),
		get("the alias keeps its own", at+"?Qualifier=live", 200, "", `{"Policy":"{\"Version\":\"2012-10-17\",\"Id\":\"default\",\"Statement\":[{\"Sid\":\"s\",\"Effect\":\"Allow\",\"Principal\":{\"Service\":\"s3.amazonaws.com\"},\"Action\":\"lambda:InvokeFunction\",\"Resource\":\"`+arn+`f:live\"}]}"}`),
	})
}
