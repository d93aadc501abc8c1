package api_test

import "testing"

func TestFunctionURLs(t *testing.T) {
	t.Parallel()
	const (
		at     = "/2021-10-31/functions/f/url"
		absent = "The resource you requested does not exist."
	)
	exists := func(arn string) string {
		return "Failed to create function url config for [functionArn = " + arn + "]. Error message:  FunctionUrlConfig exists for this Lambda function"
	}
	put := func(name, query, body string, status int, code, want string) step {
		return step{name: name, method: "PUT", path: at + query, body: body, status: status, code: code, want: want}
	}
	newRig(t).table([]step{
		post("of what is missing", at, `{"AuthType":"NONE"}`, 404, missing, "Function does not exist"),
		creation("", `,"Publish":true`, 201, "", `{}`),
		post("", path+"/f/aliases", `{"Name":"live","FunctionVersion":"1"}`, 201, "", `{}`),
		post("an alias that is missing", at+"?Qualifier=dead", `{"AuthType":"NONE"}`, 404, missing, "Function does not exist"),
		post("a version", at+"?Qualifier=1", `{"AuthType":"NONE"}`, 400, violation,
			`1 validation error detected: Value '1' at 'qualifier' failed to satisfy constraint: Member must satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)`),
		post("no AuthType", at, `{}`, 400, violation, "1 validation error detected: Value null at 'authType' failed to satisfy constraint: Member must not be null"),
		post("another AuthType", at, `{"AuthType":"ALL"}`, 400, violation, "1 validation error detected: Value 'ALL' at 'authType' failed to satisfy constraint: Member must satisfy enum value set: [NONE, AWS_IAM]"),
		post("MaxAge of more than a day", at, `{"AuthType":"NONE","Cors":{"MaxAge":86401}}`, 400, violation, "1 validation error detected: Value '86401' at 'cors.maxAge' failed to satisfy constraint: Member must have value less than or equal to 86400"),
		get("none yet", at, 404, missing, absent),
		put("none yet", "", `{"AuthType":"NONE"}`, 404, missing, absent),
		remove("none yet", at, 404, missing, absent),
		post("one", at, `{"AuthType":"NONE"}`, 201, "", `{"FunctionUrl":"*","FunctionArn":"`+arn+`f","AuthType":"NONE","CreationTime":"*","InvokeMode":null,"Cors":null}`),
		post("twice", at, `{"AuthType":"NONE"}`, 409, conflict, exists(arn+"f")),
		get("as it is", at, 200, "", `{"FunctionUrl":"*","InvokeMode":"BUFFERED","LastModifiedTime":"*"}`),
		post("of an alias", at+"?Qualifier=live", `{"AuthType":"AWS_IAM","InvokeMode":"RESPONSE_STREAM","Cors":{"MaxAge":86400,"AllowOrigins":["*"]}}`, 201, "",
			`{"FunctionArn":"`+arn+`f:live","InvokeMode":"RESPONSE_STREAM","Cors":{"MaxAge":86400,"AllowOrigins":["*"]}}`),
		put("what is not named stays", "?Qualifier=live", `{"AuthType":"NONE"}`, 200, "", `{"AuthType":"NONE","InvokeMode":null,"Cors":{"MaxAge":86400}}`),
		get("all", "/2021-10-31/functions/f/urls", 200, "", `{"FunctionUrlConfigs":[{"FunctionArn":"`+arn+`f"},{"FunctionArn":"`+arn+`f:live"}],"NextMarker":null}`),
		{method: "GET", path: "/2021-10-31/functions/f/urls?MaxItems=1", status: 200, want: `{"FunctionUrlConfigs":[{"FunctionArn":"` + arn + `f"}]}`, keep: "NextMarker"},
		get("the next page", "/2021-10-31/functions/f/urls?MaxItems=1&Marker=$NEXTMARKER", 200, "", `{"FunctionUrlConfigs":[{"FunctionArn":"`+arn+`f:live"}],"NextMarker":null}`),
		remove("", at+"?Qualifier=live", 204, "", ""),
		remove("", at, 204, "", ""),
		remove("once more", at, 404, missing, absent),
	})
}

func TestEventInvokeConfigs(t *testing.T) {
	t.Parallel()
	const (
		at     = "/2019-09-25/functions/f/event-invoke-config"
		none   = "The function " + arn + "f:$LATEST doesn't have an EventInvokeConfig"
		absent = "The function doesn't exist."
		given  = "You must specify at least one of error handling or destination setting."
	)
	put := func(name, body string, status int, code, want string) step {
		return step{name: name, method: "PUT", path: at, body: body, status: status, code: code, want: want}
	}
	destination := func(arn string) string { return `{"DestinationConfig":{"OnSuccess":{"Destination":"` + arn + `"}}}` }
	newRig(t).table([]step{
		put("of what is missing", `{"MaximumRetryAttempts":1}`, 404, missing, absent),
		post("a change of what is missing", at, `{"MaximumRetryAttempts":1}`, 404, missing, absent),
		get("all of what is missing", at+"/list", 404, missing, absent),
		creation("", "", 201, "", `{}`),
		get("none yet", at, 404, missing, none),
		post("a change of none", at, `{"MaximumRetryAttempts":1}`, 404, missing, none),
		remove("none yet", at, 404, missing, none),
		get("none in the list", at+"/list", 200, "", `{"FunctionEventInvokeConfigs":[],"NextMarker":null}`),
		put("nothing", `{}`, 400, invalid, given),
		put("outside of both ranges", `{"MaximumRetryAttempts":3,"MaximumEventAgeInSeconds":59}`, 400, violation,
			"2 validation errors detected: Value '3' at 'maximumRetryAttempts' failed to satisfy constraint: Member must have value less than or equal to 2; Value '59' at 'maximumEventAgeInSeconds' failed to satisfy constraint: Member must have value greater than or equal to 60"),
		put("itself", destination(arn+"f"), 400, invalid, "You can't specify the function as a destination for itself."),
		put("a function that is missing", destination(arn+"absent"), 400, invalid, "The destination ARN "+arn+"absent is invalid."),
		put("another service", destination("arn:aws:dynamodb:us-east-1:123456789012:table/t"), 400, invalid,
			"The provided destination config DestinationConfig(onSuccess=OnSuccess(destination=arn:aws:dynamodb:us-east-1:123456789012:table/t), onFailure=null) is invalid."),
		put("retries", `{"MaximumRetryAttempts":0}`, 200, "", `{"FunctionArn":"`+arn+`f:$LATEST","MaximumRetryAttempts":0,"MaximumEventAgeInSeconds":null,"LastModified":"*","DestinationConfig":{"OnSuccess":{},"OnFailure":{}}}`),
		post("merged", at, `{"MaximumEventAgeInSeconds":21600}`, 200, "", `{"MaximumRetryAttempts":0,"MaximumEventAgeInSeconds":21600}`),
		put("replaced", destination("arn:aws:sqs:us-east-1:123456789012:q"), 200, "", `{"MaximumRetryAttempts":null,"MaximumEventAgeInSeconds":null,"DestinationConfig":{"OnSuccess":{"Destination":"arn:aws:sqs:us-east-1:123456789012:q"},"OnFailure":{}}}`),
		get("as it is", at, 200, "", `{"DestinationConfig":{"OnSuccess":{"Destination":"arn:aws:sqs:us-east-1:123456789012:q"}}}`),
		get("all", at+"/list", 200, "", `{"FunctionEventInvokeConfigs":[{"FunctionArn":"`+arn+`f:$LATEST"}]}`),
		remove("", at, 204, "", ""),
		get("none any more", at, 404, missing, none),
	})
}
