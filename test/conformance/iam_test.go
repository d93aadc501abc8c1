package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"

	"kiln/test/kiln"
)

// iamOf is IAM of the Kiln.
func iamOf(d *kiln.Daemon) target {
	to := anyKey(d)
	to.service = "iam"
	return to
}

const (
	managedBasic = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
	lambdaTrust  = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	rootTrust    = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"000000000000","Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
)

// may is a policy that allows the actions.
func may(actions ...string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}]}`
}

// compact is a document as a client shows it, decoded.
func compact(document any) string {
	b, err := json.Marshal(document)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// sameJSON makes texts of the same JSON equal.
func sameJSON(text string) string {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return text
	}
	return compact(v)
}

// TestIAM goes through the operations as their users do, with others' clients.
func TestIAM(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	eachLogs(t, func(t *testing.T, name string, c client) {
		s := session{c, t, iamOf(d)}
		if name == "cli" { // which shares its library with boto3, and takes a second for each call
			s.refused("GetRole", values{"RoleName": "no"}, 404, "NoSuchEntity", "The role with name no cannot be found.")
			s.must("CreateRole", values{"RoleName": "cli", "AssumeRolePolicyDocument": lambdaTrust})
			s.must("AttachRolePolicy", values{"RoleName": "cli", "PolicyArn": managedBasic})
			want(t, "Arn", s.must("GetRole", values{"RoleName": "cli"})["Role"].(map[string]any)["Arn"], "arn:aws:iam::000000000000:role/cli")
			s.to.service = "sts"
			want(t, "caller", s.must("GetCallerIdentity", values{})["Arn"], "arn:aws:iam::000000000000:root")
			return
		}
		role := values{"RoleName": "role-" + name}
		in := func(more values) values {
			all := values{}
			for k, v := range role {
				all[k] = v
			}
			for k, v := range more {
				all[k] = v
			}
			return all
		}
		missing := "The role with name role-" + name + " cannot be found."
		s.refused("GetRole", role, 404, "NoSuchEntity", missing)
		s.refused("CreateRole", values{"RoleName": "a b", "AssumeRolePolicyDocument": lambdaTrust}, 400, "ValidationError",
			"The specified value for roleName is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-")
		s.refused("CreateRole", in(values{"AssumeRolePolicyDocument": "{"}), 400, "MalformedPolicyDocument", "Syntax errors in policy.")
		s.refused("CreateRole", in(values{"AssumeRolePolicyDocument": may("s3:*")}), 400, "MalformedPolicyDocument", "AssumeRole policy may only specify STS AssumeRole actions.")
		s.refused("CreateRole", in(values{"AssumeRolePolicyDocument": lambdaTrust, "Path": "app"}), 400, "ValidationError",
			"The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.")
		s.refused("CreateRole", in(values{"AssumeRolePolicyDocument": lambdaTrust, "MaxSessionDuration": 43201}), 400, "ValidationError",
			"1 validation error detected: Value '43201' at 'maxSessionDuration' failed to satisfy constraint: Member must have value less than or equal to 43200")
		s.refused("CreateRole", in(values{"AssumeRolePolicyDocument": lambdaTrust, "Tags": []any{values{"Key": "a", "Value": "1"}, values{"Key": "A", "Value": "2"}}}), 400, "InvalidInput",
			"Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		made := s.must("CreateRole", in(values{"AssumeRolePolicyDocument": lambdaTrust, "Path": "/app/", "Description": "it works", "Tags": []any{values{"Key": "team", "Value": "red"}}}))["Role"].(map[string]any)
		arn := "arn:aws:iam::000000000000:role/app/role-" + name
		want(t, "Arn", made["Arn"], arn)
		s.refused("CreateRole", in(values{"AssumeRolePolicyDocument": lambdaTrust}), 409, "EntityAlreadyExists", "Role with name role-"+name+" already exists.")
		shown := s.must("GetRole", role)["Role"].(map[string]any)
		for member, value := range map[string]string{"Path": "/app/", "RoleId": made["RoleId"].(string), "Description": "it works", "MaxSessionDuration": "3600", "Tags": "[map[Key:team Value:red]]", "RoleLastUsed": "map[]"} {
			want(t, member, shown[member], value)
		}
		want(t, "trust", compact(shown["AssumeRolePolicyDocument"]), sameJSON(lambdaTrust))

		s.must("UpdateRole", in(values{"Description": "better", "MaxSessionDuration": 7200}))
		s.must("UpdateAssumeRolePolicy", in(values{"PolicyDocument": rootTrust}))
		s.refused("UpdateAssumeRolePolicy", in(values{"PolicyDocument": "{}"}), 400, "MalformedPolicyDocument", "Syntax errors in policy.")
		want(t, "Description", s.must("UpdateRoleDescription", in(values{"Description": "best"}))["Role"].(map[string]any)["Description"], "best")
		s.must("TagRole", in(values{"Tags": []any{values{"Key": "Team", "Value": "blue"}, values{"Key": "stage", "Value": ""}}}))
		want(t, "Tags", s.must("ListRoleTags", role)["Tags"], "[map[Key:Team Value:blue] map[Key:stage Value:]]")
		s.must("UntagRole", in(values{"TagKeys": []any{"stage"}}))
		want(t, "Tags", s.must("ListRoleTags", role)["Tags"], "[map[Key:Team Value:blue]]")
		s.must("PutRolePermissionsBoundary", in(values{"PermissionsBoundary": managedBasic}))
		shown = s.must("GetRole", role)["Role"].(map[string]any)
		want(t, "boundary", shown["PermissionsBoundary"], "map[PermissionsBoundaryArn:"+managedBasic+" PermissionsBoundaryType:Policy]")
		want(t, "MaxSessionDuration", shown["MaxSessionDuration"], "7200")
		s.must("DeleteRolePermissionsBoundary", role)
		if s.must("GetRole", role)["Role"].(map[string]any)["PermissionsBoundary"] != nil {
			t.Error("the boundary is still there")
		}

		inline := in(values{"PolicyName": "in"})
		s.refused("GetRolePolicy", inline, 404, "NoSuchEntity", "The role policy with name in cannot be found.")
		s.refused("DeleteRolePolicy", inline, 404, "NoSuchEntity", "The role policy with name in cannot be found.")
		s.refused("PutRolePolicy", in(values{"PolicyName": "in", "PolicyDocument": lambdaTrust}), 400, "MalformedPolicyDocument", "Policy statement must contain resources.")
		s.must("PutRolePolicy", in(values{"PolicyName": "in", "PolicyDocument": may("s3:*")}))
		want(t, "inline", compact(s.must("GetRolePolicy", inline)["PolicyDocument"]), sameJSON(may("s3:*")))
		want(t, "inline", s.must("ListRolePolicies", role)["PolicyNames"], "[in]")

		own := "arn:aws:iam::000000000000:policy/own-" + name
		about := values{"PolicyArn": own}
		s.refused("GetPolicy", about, 404, "NoSuchEntity", "Policy "+own+" was not found.")
		p := s.must("CreatePolicy", values{"PolicyName": "own-" + name, "PolicyDocument": may("sqs:*"), "Description": "queues"})["Policy"].(map[string]any)
		want(t, "Arn", p["Arn"], own)
		s.refused("CreatePolicy", values{"PolicyName": "own-" + name, "PolicyDocument": may("sqs:*")}, 409, "EntityAlreadyExists", "A policy called own-"+name+" already exists. Duplicate names are not allowed.")
		s.refused("AttachRolePolicy", in(values{"PolicyArn": own + "x"}), 404, "NoSuchEntity", "Policy "+own+"x does not exist or is not attachable.")
		s.must("AttachRolePolicy", in(about))
		s.must("AttachRolePolicy", in(values{"PolicyArn": managedBasic}))
		want(t, "attached", s.must("ListAttachedRolePolicies", role)["AttachedPolicies"], "[map[PolicyArn:"+own+" PolicyName:own-"+name+"] map[PolicyArn:"+managedBasic+" PolicyName:AWSLambdaBasicExecutionRole]]")
		want(t, "attached below", len(s.must("ListAttachedRolePolicies", in(values{"PathPrefix": "/service-role/"}))["AttachedPolicies"].([]any)), "1")
		p = s.must("GetPolicy", about)["Policy"].(map[string]any)
		for member, value := range map[string]string{"AttachmentCount": "1", "DefaultVersionId": "v1", "Description": "queues", "IsAttachable": "true", "Tags": "[]"} {
			want(t, member, p[member], value)
		}
		want(t, "entities", s.must("ListEntitiesForPolicy", about)["PolicyRoles"], "[map[RoleId:"+made["RoleId"].(string)+" RoleName:role-"+name+"]]")
		s.must("TagPolicy", values{"PolicyArn": own, "Tags": []any{values{"Key": "a", "Value": "b"}}})
		want(t, "Tags", s.must("ListPolicyTags", about)["Tags"], "[map[Key:a Value:b]]")
		s.must("UntagPolicy", values{"PolicyArn": own, "TagKeys": []any{"a"}})
		want(t, "Tags", s.must("ListPolicyTags", about)["Tags"], "[]")

		version := s.must("CreatePolicyVersion", values{"PolicyArn": own, "PolicyDocument": may("sns:*"), "SetAsDefault": true})["PolicyVersion"].(map[string]any)
		want(t, "VersionId", version["VersionId"], "v2")
		version = s.must("GetPolicyVersion", values{"PolicyArn": own, "VersionId": "v2"})["PolicyVersion"].(map[string]any)
		want(t, "document", compact(version["Document"]), sameJSON(may("sns:*")))
		want(t, "versions", len(s.must("ListPolicyVersions", about)["Versions"].([]any)), "2")
		s.must("SetDefaultPolicyVersion", values{"PolicyArn": own, "VersionId": "v1"})
		s.refused("DeletePolicyVersion", values{"PolicyArn": own, "VersionId": "v1"}, 409, "DeleteConflict", "Cannot delete the default version of a policy.")
		s.refused("GetPolicyVersion", values{"PolicyArn": own, "VersionId": "v9"}, 404, "NoSuchEntity", "Policy "+own+" version v9 does not exist or is not attachable.")
		version = s.must("GetPolicyVersion", values{"PolicyArn": managedBasic, "VersionId": s.must("GetPolicy", values{"PolicyArn": managedBasic})["Policy"].(map[string]any)["DefaultVersionId"]})["PolicyVersion"].(map[string]any)
		if !strings.Contains(compact(version["Document"]), "logs:PutLogEvents") {
			t.Errorf("AWS's policy is %v", version["Document"])
		}

		s.refused("DeletePolicy", about, 409, "DeleteConflict", "Cannot delete a policy attached to entities.")
		s.refused("DeleteRole", role, 409, "DeleteConflict", "Cannot delete entity, must detach all policies first.")
		s.must("DetachRolePolicy", in(about))
		s.refused("DetachRolePolicy", in(about), 404, "NoSuchEntity", "Policy "+own+" was not found.")
		s.must("DetachRolePolicy", in(values{"PolicyArn": managedBasic}))
		s.refused("DeleteRole", role, 409, "DeleteConflict", "Cannot delete entity, must delete policies first.")
		s.must("DeleteRolePolicy", inline)
		s.refused("DeletePolicy", about, 409, "DeleteConflict", "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.")
		s.must("DeletePolicyVersion", values{"PolicyArn": own, "VersionId": "v2"})
		s.must("DeletePolicy", about)
		want(t, "profiles", s.must("ListInstanceProfilesForRole", role)["InstanceProfiles"], "[]")
		s.must("DeleteRole", role)
		s.refused("DeleteRole", role, 404, "NoSuchEntity", missing)
		s.refused("PutRolePolicy", in(values{"PolicyName": "in", "PolicyDocument": may("s3:*")}), 404, "NoSuchEntity", missing)

		want(t, "aliases", s.must("ListAccountAliases", nil)["AccountAliases"], "[]")
		want(t, "user", s.must("GetUser", nil)["User"].(map[string]any)["Arn"], "arn:aws:iam::000000000000:root")
		s.refused("GetUser", values{"UserName": "nobody"}, 404, "NoSuchEntity", "The user with name nobody cannot be found.")
		s.refused("ListUsers", nil, 501, "NotImplemented", "ListUsers of IAM is not built in Kiln. docs/compatibility.md lists what is.")
		s.refused("CreateServiceLinkedRole", values{"AWSServiceName": "ecs.amazonaws.com"}, 400, "InvalidInput", "Kiln has no service-linked roles: ecs.amazonaws.com does not run here. Leave the role out of the deployment.")
		s.to.service = "sts"
		want(t, "caller", s.must("GetCallerIdentity", values{})["Arn"], "arn:aws:iam::000000000000:root")
		s.refused("GetSessionToken", nil, 501, "NotImplemented", "GetSessionToken of STS is not built in Kiln. docs/compatibility.md lists what is.")
	})
}

// TestIAMPages goes through lists page by page.
func TestIAMPages(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	s := session{awsLogs(t), t, iamOf(d)}
	for i := range 5 {
		s.must("CreateRole", values{"RoleName": fmt.Sprint("r", i), "AssumeRolePolicyDocument": lambdaTrust})
	}
	pages := func(operation, list string, size int) any {
		t.Helper()
		out, f := s.client.(*script).do(s.to, "paginate", operation, values{"PageSize": size, "List": list})
		if f != nil {
			t.Fatal(f)
		}
		return out["Sizes"]
	}
	want(t, "pages of roles", pages("ListRoles", "Roles", 2), "[2 2 1]")
	want(t, "one page", pages("ListRoles", "Roles", 5), "[5]")
	all := len(s.must("ListPolicies", values{"MaxItems": 1000})["Policies"].([]any))
	want(t, "pages of policies", pages("ListPolicies", "Policies", all-1), fmt.Sprintf("[%d 1]", all-1))
	s.refused("ListRoles", values{"Marker": "!"}, 400, "ValidationError", "Invalid Marker.")
}

// with is Lambda of the Kiln, with a key.
func (k *key) with(d *kiln.Daemon) target {
	return target{d.URL, k.ID, k.Secret, "us-east-1", "lambda"}
}

// refusal is an error's code and message, or "".
func refusal(err error) string {
	if err == nil {
		return ""
	}
	f := goFailure(err)
	return f.Code + ": " + f.Message
}

// TestAssumeRole has sessions of roles, with the SDK for Go.
func TestAssumeRole(t *testing.T) {
	t.Parallel()
	d, key := keyed(t)
	root := key.with(d)
	iam := root
	iam.service = "iam"
	s := session{awsLogs(t), t, iam}
	s.must("CreateRole", values{"RoleName": "reader", "AssumeRolePolicyDocument": rootTrust})
	s.must("PutRolePolicy", values{"RoleName": "reader", "PolicyName": "p", "PolicyDocument": may("lambda:List*", "lambda:GetAccountSettings", "sts:AssumeRole")})
	s.must("CreateRole", values{"RoleName": "closed", "AssumeRolePolicyDocument": lambdaTrust})
	ctx := context.Background()
	stsAs := func(key, secret, token string) *sts.Client {
		return sts.New(sts.Options{Region: "eu-west-1", BaseEndpoint: &d.URL, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider(key, secret, token)})
	}
	lambdaAs := func(c *ststypes.Credentials) *lambda.Client {
		return lambda.New(lambda.Options{Region: "us-east-1", BaseEndpoint: &d.URL, RetryMaxAttempts: 1,
			Credentials: credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)})
	}
	reader := "arn:aws:iam::000000000000:role/reader"
	asRoot := stsAs(root.key, root.secret, "")
	assume := func(c *sts.Client, change func(*sts.AssumeRoleInput)) (*sts.AssumeRoleOutput, error) {
		in := &sts.AssumeRoleInput{RoleArn: &reader, RoleSessionName: aws.String("me")}
		change(in)
		return c.AssumeRole(ctx, in)
	}
	nothing := func(*sts.AssumeRoleInput) {}
	out, err := assume(asRoot, nothing)
	if err != nil {
		t.Fatal(err)
	}
	as := stsAs(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
	const who = "arn:aws:sts::000000000000:assumed-role/reader/me"
	me, err := as.GetCallerIdentity(ctx, nil)
	if err != nil || *me.Arn != who || *me.UserId != *out.AssumedRoleUser.AssumedRoleId {
		t.Fatalf("got %+v, %v", me, err)
	}
	c := lambdaAs(out.Credentials)
	if _, err := c.ListFunctions(ctx, &lambda.ListFunctionsInput{}); err != nil {
		t.Error(err)
	}
	_, err = c.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: aws.String("f")})
	want(t, "what the role does not allow", refusal(err), "AccessDeniedException: User: "+who+" is not authorized to perform: lambda:DeleteFunction on resource: arn:aws:lambda:us-east-1:000000000000:function:f because no identity-based policy allows the lambda:DeleteFunction action")

	limited, err := assume(asRoot, func(in *sts.AssumeRoleInput) { in.Policy = aws.String(may("lambda:Delete*")) })
	if err != nil {
		t.Fatalf("got %+v, %v", limited, err)
	}
	_, err = lambdaAs(limited.Credentials).ListFunctions(ctx, &lambda.ListFunctionsInput{})
	want(t, "what the session's policy does not allow", refusal(err), "AccessDeniedException: User: "+who+" is not authorized to perform: lambda:ListFunctions on resource: * because no session policy allows the lambda:ListFunctions action")
	s.must("PutRolePermissionsBoundary", values{"RoleName": "reader", "PermissionsBoundary": managedBasic})
	_, err = c.ListFunctions(ctx, &lambda.ListFunctionsInput{})
	want(t, "what the boundary does not allow", refusal(err), "AccessDeniedException: User: "+who+" is not authorized to perform: lambda:ListFunctions on resource: * because no permissions boundary allows the lambda:ListFunctions action")
	s.must("DeleteRolePermissionsBoundary", values{"RoleName": "reader"})

	refused := func(arn string) string {
		return "AccessDenied: User: arn:aws:iam::000000000000:root is not authorized to perform: sts:AssumeRole on resource: " + arn
	}
	for name, test := range map[string]struct {
		change func(*sts.AssumeRoleInput)
		want   string
	}{
		"no such role":   {func(in *sts.AssumeRoleInput) { in.RoleArn = aws.String(reader + "s") }, refused(reader + "s")},
		"it trusts none": {func(in *sts.AssumeRoleInput) { in.RoleArn = aws.String("arn:aws:iam::000000000000:role/closed") }, refused("arn:aws:iam::000000000000:role/closed")},
		"no role's ARN":  {func(in *sts.AssumeRoleInput) { in.RoleArn = aws.String("arn:aws:iam::000000000000:user/x") }, "ValidationError: arn:aws:iam::000000000000:user/x is invalid"},
		"too long":       {func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(7200) }, "ValidationError: The requested DurationSeconds exceeds the MaxSessionDuration set for this role."},
		"too short":      {func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(899) }, "ValidationError: 1 validation error detected: Value '899' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"},
		"a bad name":     {func(in *sts.AssumeRoleInput) { in.RoleSessionName = aws.String("a b") }, `ValidationError: 1 validation error detected: Value 'a b' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]*`},
		"no policy":      {func(in *sts.AssumeRoleInput) { in.Policy = aws.String("{}") }, "MalformedPolicyDocument: Syntax errors in policy."},
		"a long policy":  {func(in *sts.AssumeRoleInput) { in.Policy = aws.String(may("s3:" + strings.Repeat("G", 2048))) }, "PackedPolicyTooLarge: Serialized token too large for session"},
	} {
		if _, err := assume(asRoot, test.change); refusal(err) != test.want {
			t.Errorf("%s:\n got %s\nwant %s", name, refusal(err), test.want)
		}
	}
	// A session may have another, for an hour at most.
	if _, err := assume(as, nothing); err != nil {
		t.Error(err)
	}
	s.must("UpdateRole", values{"RoleName": "reader", "MaxSessionDuration": 7200})
	_, err = assume(as, func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(3601) })
	want(t, "chained", refusal(err), "ValidationError: The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")

	for name, test := range map[string]struct {
		client *sts.Client
		want   string
	}{
		"a wrong secret": {stsAs(*out.Credentials.AccessKeyId, "wrong", *out.Credentials.SessionToken), "SignatureDoesNotMatch: "},
		"a wrong token":  {stsAs(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, "x"), "InvalidClientTokenId: The security token included in the request is invalid."},
		"no token":       {stsAs(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, ""), "InvalidClientTokenId: The security token included in the request is invalid."},
		"nobody's key":   {stsAs("AKIANOBODY", "x", ""), "InvalidClientTokenId: The security token included in the request is invalid."},
	} {
		if _, err := test.client.GetCallerIdentity(ctx, nil); !strings.HasPrefix(refusal(err), test.want) {
			t.Errorf("%s: got %s", name, refusal(err))
		}
	}
	info, err := asRoot.GetAccessKeyInfo(ctx, &sts.GetAccessKeyInfoInput{AccessKeyId: aws.String("AKIANOBODYKNOWSIT")})
	if refusal(err) != "ValidationError: There is no access key AKIANOBODYKNOWSIT here." {
		t.Errorf("got %+v, %v", info, err)
	}

	// Sessions outlive the daemon, and end with their role.
	d.Stop()
	d.Start()
	as = stsAs(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
	if me, err := as.GetCallerIdentity(ctx, nil); err != nil || *me.Arn != who {
		t.Errorf("after a restart: %+v, %v", me, err)
	}
	s.to.endpoint = d.URL
	s.must("DeleteRolePolicy", values{"RoleName": "reader", "PolicyName": "p"})
	s.must("DeleteRole", values{"RoleName": "reader"})
	if _, err := as.GetCallerIdentity(ctx, nil); refusal(err) != "InvalidClientTokenId: The security token included in the request is invalid." {
		t.Errorf("after the end of its role: %v", err)
	}
}

// TestPermitted runs functions whose roles do and do not allow what they do.
func TestPermitted(t *testing.T) {
	t.Parallel()
	d, key := keyed(t, "--any-runtime")
	root := key.with(d)
	iam := root
	iam.service = "iam"
	roles := session{awsLogs(t), t, iam}
	s := session{goSDK{}, t, root}
	for name, policy := range map[string]string{
		"allowed": may("lambda:InvokeFunction"), "assuming": may("sts:AssumeRole"),
		"denied": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"lambda:InvokeFunction","Resource":"*"}]}`,
	} {
		roles.must("CreateRole", values{"RoleName": name, "AssumeRolePolicyDocument": rootTrust})
		roles.must("PutRolePolicy", values{"RoleName": name, "PolicyName": "p", "PolicyDocument": policy})
	}
	roles.must("CreateRole", values{"RoleName": "closed", "AssumeRolePolicyDocument": strings.Replace(lambdaTrust, "lambda.", "ec2.", 1)})
	bound := strings.Replace(lambdaTrust, `"Action"`, `"Condition":{"StringEquals":{"aws:SourceAccount":"000000000000"},"ArnLike":{"aws:SourceArn":"arn:aws:lambda:*:*:function:target"}},"Action"`, 1)
	roles.must("UpdateAssumeRolePolicy", values{"RoleName": "closed", "PolicyDocument": bound}) // closed to other functions
	const prefix = "arn:aws:iam::000000000000:role/"
	code := withBoto3(t, "permitted.py")
	s.refused("CreateFunction", create("closed", values{"Role": prefix + "closed"}), 400, "InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda.")
	function := func(name, role string) {
		t.Helper()
		s.create(name, values{"Handler": "permitted.handler", "Role": prefix + role, "Timeout": 120, "MemorySize": 512, "Code": values{"ZipFile": code}})
	}
	function("target", "closed")
	for _, role := range []string{"allowed", "denied", "unknown", "assuming"} {
		function("as-"+role, role)
	}
	refused := func(name, why string) string {
		return "AccessDeniedException: User: arn:aws:sts::000000000000:assumed-role/" + name + " is not authorized to perform: lambda:InvokeFunction on resource: arn:aws:lambda:us-east-1:000000000000:function:target " + why
	}
	for role, want := range map[string]string{
		"allowed":  "done",
		"denied":   refused("denied/as-denied", "with an explicit deny in an identity-based policy"),
		"unknown":  refused("unknown/as-unknown", "because no identity-based policy allows the lambda:InvokeFunction action"),
		"assuming": refused("assuming/as-assuming", "because no identity-based policy allows the lambda:InvokeFunction action"),
	} {
		event := values{}
		if role == "assuming" {
			event["assume"] = prefix + "allowed"
		}
		out, payload := s.invoke(values{"FunctionName": "as-" + role, "Payload": []byte(compact(event))})
		var got map[string]string
		if err := json.Unmarshal([]byte(payload), &got); err != nil || out["FunctionError"] != nil {
			t.Fatalf("%s: %v: %s", role, err, payload)
		}
		if got["invoke"] != want || got["who"] != "arn:aws:sts::000000000000:assumed-role/"+role+"/as-"+role || role == "assuming" && got["as another"] != "done" {
			t.Errorf("%s: got %v\nwant %s", role, got, want)
		}
	}
}
