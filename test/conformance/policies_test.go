package conformance

import (
	"encoding/base64"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestPolicies has keys with policies do what is more than one action, or has
// conditions.
func TestPolicies(t *testing.T) {
	t.Parallel()
	d, root := keyed(t)
	code := base64.StdEncoding.EncodeToString(kiln.Bash(`answer='"x"'`))
	layer := base64.StdEncoding.EncodeToString(kiln.Zip(map[string]string{"f": "x"}))
	const (
		functionARN = "arn:aws:lambda:us-east-1:000000000000:function:"
		layerARN    = "arn:aws:lambda:us-east-1:000000000000:layer:l:1"
		role        = "arn:aws:iam::000000000000:role/r"
	)
	if status, text, _ := root.as(t, "lambda", "POST", d.URL+"/2018-10-31/layers/l/versions", `{"Content":{"ZipFile":"`+layer+`"}}`); status != 201 {
		t.Fatalf("%d %s", status, text)
	}
	body := func(name, more string) string {
		return `{"FunctionName":"` + name + `","Runtime":"provided.al2023","Handler":"x","Role":"` + role + `","Code":{"ZipFile":"` + code + `"}` + more + `}`
	}
	if status, text, _ := root.as(t, "lambda", "POST", d.URL+functionsPath, body("blue", `,"Tags":{"team":"blue"}`)); status != 201 {
		t.Fatalf("%d %s", status, text)
	}
	statement := func(action, resource, condition string) string {
		if condition != "" {
			condition = `,"Condition":{` + condition + `}`
		}
		return `{"Effect":"Allow","Action":"` + action + `","Resource":"` + resource + `"` + condition + `}`
	}
	inS3 := strings.Replace(body("s3", ""), `"ZipFile":"`+code+`"`, `"S3Bucket":"bkt","S3Key":"k"`, 1)
	create, pass := statement("lambda:CreateFunction", "*", ""), statement("iam:PassRole", role, "")
	for _, c := range []struct {
		name               string
		policy             []string
		method, path, body string
		status             int
		says               string // of a refusal
	}{
		{"a role that may not be passed", []string{create}, "POST", functionsPath, body("a", ""), 403, "iam:PassRole on resource: " + role + " because no identity-based policy allows the iam:PassRole action"},
		{"passed to another service", []string{create, statement("iam:PassRole", "*", `"StringEquals":{"iam:PassedToService":"ecs-tasks.amazonaws.com"}`)}, "POST", functionsPath, body("b", ""), 403, "iam:PassRole"},
		{"another account's role", []string{create, statement("iam:PassRole", "*", "")}, "POST", functionsPath, strings.Replace(body("c", ""), role, strings.Replace(role, ownAccount, foreignAccount, 1), 1), 403, "Cross-account pass role is not allowed."},
		{"a role that may be passed", []string{create, statement("iam:PassRole", role, `"StringEquals":{"iam:PassedToService":"lambda.amazonaws.com"}`)}, "POST", functionsPath, body("d", ""), 201, ""},
		{"a layer that may not be read", []string{create, pass}, "POST", functionsPath, body("e", `,"Layers":["`+layerARN+`"]`), 403, "lambda:GetLayerVersion on resource: " + layerARN + " because no identity-based policy allows the lambda:GetLayerVersion action"},
		{"a layer that may be read", []string{create, pass, statement("lambda:GetLayerVersion", "*", "")}, "POST", functionsPath, body("f", `,"Layers":["`+layerARN+`"]`), 201, ""},
		{"layers of others", []string{statement("lambda:CreateFunction", "*", `"ForAllValues:StringLike":{"lambda:Layer":"arn:aws:lambda:*:111122223333:layer:*"}`), pass}, "POST", functionsPath, body("g", `,"Layers":["`+layerARN+`"]`), 403, "lambda:CreateFunction"},
		{"a tag that is wanted", []string{statement("lambda:CreateFunction", "*", `"StringEquals":{"aws:RequestTag/team":"red"}`), pass}, "POST", functionsPath, body("h", `,"Tags":{"team":"blue"}`), 403, "lambda:CreateFunction"},
		{"a tag that is there", []string{statement("lambda:CreateFunction", "*", `"StringEquals":{"aws:RequestTag/team":"red"}`), pass}, "POST", functionsPath, body("i", `,"Tags":{"team":"red"}`), 201, ""},
		{"code that may not be read", []string{create, pass}, "POST", functionsPath, inS3, 403, "Your access has been denied by S3, please make sure your request credentials have permission to GetObject for bkt/k. S3 Error Code: AccessDenied. S3 Error Message: User: "},
		{"code that may be read", []string{create, pass, statement("s3:GetObject", "arn:aws:s3:::bkt/*", "")}, "POST", functionsPath, inS3, 400, "S3 Error Code: NoSuchBucket."},
		{"a function's tag", []string{statement("lambda:GetFunction", "*", `"StringEquals":{"aws:ResourceTag/team":"blue"}`)}, "GET", functionsPath + "/blue", "", 200, ""},
		{"another tag", []string{statement("lambda:GetFunction", "*", `"StringEquals":{"aws:ResourceTag/team":"red"}`)}, "GET", functionsPath + "/blue", "", 403, "lambda:GetFunction"},
		{"one's own name", []string{statement("lambda:GetFunction", functionARN+"${aws:username}", "")}, "GET", functionsPath + "/blue", "", 403, "lambda:GetFunction"},
		{"from here", []string{statement("lambda:GetFunction", "*", `"IpAddress":{"aws:SourceIp":"127.0.0.0/8"}`)}, "GET", functionsPath + "/blue", "", 200, ""},
		{"from elsewhere", []string{statement("lambda:GetFunction", "*", `"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}`)}, "GET", functionsPath + "/blue", "", 403, "lambda:GetFunction"},
		{"not in clear", []string{statement("lambda:GetFunction", "*", `"Bool":{"aws:SecureTransport":"true"}`)}, "GET", functionsPath + "/blue", "", 403, "lambda:GetFunction"},
		{"unqualified only", []string{statement("lambda:InvokeFunction", functionARN+"blue", "")}, "POST", functionsPath + "/blue/invocations?Qualifier=%24LATEST", "{}", 403, "lambda:InvokeFunction on resource: " + functionARN + "blue:$LATEST"},
		{"unqualified", []string{statement("lambda:InvokeFunction", functionARN+"blue", "")}, "POST", functionsPath + "/blue/invocations", "{}", 200, ""},
		{"a list of a function", []string{statement("lambda:ListFunctions", functionARN+"*", "")}, "GET", functionsPath, "", 403, "lambda:ListFunctions on resource: * because"},
		{"a list", []string{statement("lambda:ListFunctions", "*", "")}, "GET", functionsPath, "", 200, ""},
		{"a mapping of another function", []string{statement("lambda:CreateEventSourceMapping", "*", `"ArnLike":{"lambda:FunctionArn":"`+functionARN+`red"}`)}, "POST", "/2015-03-31/event-source-mappings", `{"FunctionName":"blue","EventSourceArn":"arn:aws:sqs:us-east-1:000000000000:q"}`, 403, "lambda:CreateEventSourceMapping on resource: *"},
		{"a mapping", []string{statement("lambda:CreateEventSourceMapping", "*", `"ArnLike":{"lambda:FunctionArn":"`+functionARN+`blue"}`)}, "POST", "/2015-03-31/event-source-mappings", `{"FunctionName":"blue","EventSourceArn":"arn:aws:sqs:us-east-1:000000000000:q"}`, 202, ""},
	} {
		k := root.newKey(t, d, "", strings.ReplaceAll(strings.ReplaceAll(c.name, " ", "-"), "'", ""), `{"Version":"2012-10-17","Statement":[`+strings.Join(c.policy, ",")+`]}`)
		status, answer, _ := k.as(t, "lambda", c.method, d.URL+c.path, c.body)
		if status != c.status || !strings.Contains(answer, c.says) {
			t.Errorf("%s: %d %s, want %d %s", c.name, status, answer, c.status, c.says)
		}
	}

	// A key of the account that runs Kiln may be given the right to make others, of any.
	maker := root.newKey(t, d, "", "maker", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"kiln:CreateKey","Resource":"arn:aws:iam::*:user/ci-*"}}`)
	for order, want := range map[string]int{`{"name":"ci-1"}`: 200, `{"name":"x"}`: 403, `{"name":"ci-1","account":"` + foreignAccount + `"}`: 200} {
		if status, answer, _ := maker.as(t, "kiln", "POST", d.URL+"/_kiln/keys", order); status != want {
			t.Errorf("%s: %d %s, want %d", order, status, answer, want)
		}
	}
}

// TestDeniedClients shows each client a refusal.
func TestDeniedClients(t *testing.T) {
	t.Parallel()
	d, root := keyed(t, "--any-runtime")
	reader := root.newKey(t, d, "", "reader", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"lambda:Get*","Resource":"*"}}`)
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, target{d.URL, reader.ID, reader.Secret, "us-east-1", "lambda"}}
		s.refused("DeleteFunction", values{"FunctionName": "f"}, 403, "AccessDeniedException",
			"User: arn:aws:iam::000000000000:user/reader is not authorized to perform: lambda:DeleteFunction on resource: arn:aws:lambda:us-east-1:000000000000:function:f because no identity-based policy allows the lambda:DeleteFunction action")
	})
}
