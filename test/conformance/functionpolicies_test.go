package conformance

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestFunctionPolicies adds, shows and removes permissions with each client.
func TestFunctionPolicies(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "policy-" + name
		s.create(fn, nil)
		s.must("PublishVersion", values{"FunctionName": fn})
		s.must("CreateAlias", values{"FunctionName": fn, "Name": "live", "FunctionVersion": "1"})
		s.refused("GetPolicy", values{"FunctionName": fn}, 404, missing, "The resource you requested does not exist.")
		for i, p := range []struct {
			in        values // beyond the statement's id and function
			statement string // before Resource
			condition string // after it
		}{
			{values{"Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com", "SourceArn": "arn:aws:s3:::bucket", "SourceAccount": "000000000000"},
				`"Principal":{"Service":"s3.amazonaws.com"},"Action":"lambda:InvokeFunction"`, `,"Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::bucket"},"StringEquals":{"AWS:SourceAccount":"000000000000"}}`},
			{values{"Action": "lambda:InvokeFunction", "Principal": "111122223333"}, `"Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"lambda:InvokeFunction"`, ""},
			{values{"Action": "lambda:*", "Principal": "arn:aws:iam::111122223333:role/path/r"}, `"Principal":{"AWS":"arn:aws:iam::111122223333:role/path/r"},"Action":"lambda:*"`, ""},
			{values{"Action": "lambda:InvokeFunctionUrl", "Principal": "*", "FunctionUrlAuthType": "NONE"}, `"Principal":"*","Action":"lambda:InvokeFunctionUrl"`, `,"Condition":{"StringEquals":{"lambda:FunctionUrlAuthType":"NONE"}}`},
			{values{"Action": "lambda:InvokeFunction", "Principal": "*", "PrincipalOrgID": "o-1234567890", "Qualifier": "live"}, `"Principal":"*","Action":"lambda:InvokeFunction"`, `,"Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1234567890"}}`},
			{values{"Action": "lambda:InvokeFunction", "Principal": "alexa-appkit.amazon.com", "EventSourceToken": "amzn1.ask.skill.x", "Qualifier": "1"}, `"Principal":{"Service":"alexa-appkit.amazon.com"},"Action":"lambda:InvokeFunction"`, `,"Condition":{"StringEquals":{"lambda:EventSourceToken":"amzn1.ask.skill.x"}}`},
		} {
			id := fmt.Sprint("s", i)
			in := values{"FunctionName": fn, "StatementId": id}
			resource := arnPrefix + fn
			for member, value := range p.in {
				in[member] = value
			}
			about := values{"FunctionName": fn}
			if q, qualified := p.in["Qualifier"]; qualified {
				about["Qualifier"] = q
				resource += ":" + fmt.Sprint(q)
			}
			statement := `{"Sid":"` + id + `","Effect":"Allow",` + p.statement + `,"Resource":"` + resource + `"` + p.condition + `}`
			want(t, "Statement", s.must("AddPermission", in)["Statement"], statement)
			got := s.must("GetPolicy", about)
			if policy := fmt.Sprint(got["Policy"]); !strings.HasPrefix(policy, `{"Version":"2012-10-17","Id":"default","Statement":[{`) || !strings.HasSuffix(policy, statement+`]}`) {
				t.Errorf("%s: the policy is %s", id, policy)
			}
			if about["Qualifier"] == nil {
				want(t, "RevisionId", got["RevisionId"], s.must("GetFunctionConfiguration", about)["RevisionId"])
			}
			if name == "cli" && i == 1 {
				break // a process for each call
			}
		}
		s.refused("AddPermission", values{"FunctionName": fn, "StatementId": "s0", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}, 409, "ResourceConflictException",
			"The statement id (s0) provided already exists. Please provide a new statement id, or remove the existing statement.")
		s.must("RemovePermission", values{"FunctionName": fn, "StatementId": "s0"})
		s.refused("RemovePermission", values{"FunctionName": fn, "StatementId": "s0"}, 404, missing, "Statement s0 is not found in resource policy.")
		if name == "cli" {
			return
		}
		add := func(more values) values {
			in := values{"FunctionName": fn, "StatementId": "x", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
			for member, value := range more {
				in[member] = value
			}
			return in
		}
		const invalid = "InvalidParameterValueException"
		s.refused("AddPermission", add(values{"Qualifier": "$LATEST"}), 400, invalid, "We currently do not support adding policies for $LATEST.")
		for _, principal := range []string{"nobody", "1111222233334", "arn:aws:iam::1:root", "arn:aws:s3:::bucket", "S3.amazonaws.com", "s3.amazonaws.com.evil.org"} {
			s.refused("AddPermission", add(values{"Principal": principal}), 400, invalid, "The provided principal was invalid. Please check the principal and try again.")
		}
		s.refused("AddPermission", add(values{"FunctionUrlAuthType": "NONE"}), 400, invalid, "FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action")
		s.refused("AddPermission", add(values{"RevisionId": "11111111-2222-3333-4444-555555555555"}), 412, "PreconditionFailedException",
			"The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id")
		s.refused("AddPermission", add(values{"Qualifier": "42"}), 404, missing, "Function not found: "+arnPrefix+fn+":42")
		s.refused("AddPermission", add(values{"Qualifier": "none"}), 404, missing, "Cannot find alias arn: "+arnPrefix+fn+":none")
		s.refused("AddPermission", add(values{"FunctionName": "absent"}), 404, missing, "Function not found: "+arnPrefix+"absent")
		s.refused("RemovePermission", values{"FunctionName": "absent", "StatementId": "s"}, 404, missing, "No policy found for: "+arnPrefix+"absent")
		s.must("CreateAlias", values{"FunctionName": fn, "Name": "bare", "FunctionVersion": "1"})
		s.refused("RemovePermission", values{"FunctionName": fn, "StatementId": "s", "Qualifier": "bare"}, 404, missing, "No policy is associated with the given resource.")
		s.refused("GetPolicy", values{"FunctionName": "absent"}, 404, missing, "The resource you requested does not exist.")
		s.refusedIf("AddPermission", add(values{"Action": "s3:GetObject", "StatementId": "not valid"}), 400, "ValidationException", "two violations", func(got string) bool {
			return strings.HasPrefix(got, "2 validation errors detected: ") && strings.Contains(got, "'action'") && strings.Contains(got, "'statementId'")
		})
	})
}

// TestPermissionsJoin has another account invoke what a policy lets it.
func TestPermissionsJoin(t *testing.T) {
	t.Parallel()
	d, root := keyed(t)
	root.deploy(t, d, ownAccount, "shared", "hello")
	function := d.URL + functionsPath + "/arn:aws:lambda:us-east-1:" + ownAccount + ":function:shared"
	all, some := root.newKey(t, d, foreignAccount, "all", ""), root.newKey(t, d, foreignAccount, "some", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"lambda:List*","Resource":"*"}}`)
	ask := func(k *key, status int, says string) {
		t.Helper()
		got, text, _ := k.as(t, "lambda", "POST", function+"/invocations", "{}")
		if got != status || !strings.Contains(text, says) {
			t.Errorf("%s: %d %s, want %d %s", k.ID, got, text, status, says)
		}
	}
	permit := func(id, more string) {
		t.Helper()
		if status, text, _ := root.as(t, "lambda", "POST", function+"/policy", `{"StatementId":"`+id+`","Action":"lambda:InvokeFunction",`+more+`}`); status != 201 {
			t.Fatalf("%d %s", status, text)
		}
	}
	ask(all, 403, "because no resource-based policy allows the lambda:InvokeFunction action")
	permit("unmet", `"Principal":"`+foreignAccount+`","SourceArn":"arn:aws:s3:::b"`)
	permit("elsewhere", `"Principal":"444455556666"`)
	permit("organisation", `"Principal":"*","PrincipalOrgID":"o-1234567890"`)
	ask(all, 403, "because no resource-based policy allows")
	permit("theirs", `"Principal":"`+foreignAccount+`"`)
	ask(all, 200, "hello")
	ask(some, 403, "because no identity-based policy allows the lambda:InvokeFunction action") // its account may, its own policy says no more
	if status, text, _ := all.as(t, "lambda", "GET", function, ""); status != 403 {
		t.Errorf("to invoke is not to read: %d %s", status, text)
	}
	if status, text, _ := root.as(t, "lambda", "DELETE", function+"/policy/theirs", ""); status != 204 {
		t.Errorf("%d %s", status, text)
	}
	ask(all, 403, "because no resource-based policy allows")
	one := root.newKey(t, d, "", "nothing", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"lambda:List*","Resource":"*"}}`)
	ask(one, 403, "because no identity-based policy allows")
	permit("user", `"Principal":"arn:aws:iam::`+ownAccount+`:user/nothing"`)
	ask(one, 200, "hello") // in one account either policy is enough
	code := base64.StdEncoding.EncodeToString([]byte("x"))
	if status, text, _ := one.as(t, "lambda", "PUT", function+"/code", `{"ZipFile":"`+code+`"}`); status != 403 {
		t.Errorf("%d %s", status, text)
	}
}
