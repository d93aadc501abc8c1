package api_test

import (
	"fmt"
	"strings"
	"testing"

	"kiln/internal/lambda"
)

const (
	invalid   = "InvalidParameterValueException"
	violation = "ValidationException"
	missing   = "ResourceNotFoundException"
	conflict  = "ResourceConflictException"
	stale     = "PreconditionFailedException"
	tooLarge  = "RequestEntityTooLargeException"
	denied    = "AccessDeniedException"
)

const notLatest = "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id"

// numbered is n members of a JSON object.
func numbered(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"t%d":"v"`, i))
	}
	return strings.Join(list, ",")
}

// creation is a step that creates a function with more members.
func creation(name, more string, status int, code, want string) step {
	return step{name: name, method: "POST", path: path, body: function("f", more), status: status, code: code, want: want}
}

// environment is an Environment whose compact JSON has that many bytes.
func environment(size int) string {
	return `,"Environment":{"Variables":{"VV":"` + strings.Repeat("x", size-len(`{"VV":""}`)) + `"}}`
}

func TestCreateFunction(t *testing.T) {
	t.Parallel()
	const one = "1 validation error detected: "
	sized := strings.Repeat("x", lambda.MaxEnvironment+1-len(`{"VV":""}`))
	newRig(t).table([]step{
		creation("name of 65", `,"FunctionName":"`+strings.Repeat("n", 65)+`"`, 400, invalid,
			one+"Value '"+strings.Repeat("n", 65)+"' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 64"),
		creation("no role", `,"Role":null`, 400, violation, one+"Value null at 'role' failed to satisfy constraint: Member must not be null"),
		creation("two violations", `,"Timeout":901,"MemorySize":127`, 400, violation,
			"2 validation errors detected: Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900; Value '127' at 'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 128"),
		creation("no timeout", `,"Timeout":0`, 400, violation, one+"Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1"),
		creation("much memory", `,"MemorySize":10241`, 400, violation, one+"Value '10241' at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to 10240"),
		creation("two architectures", `,"Architectures":["x86_64","arm64"]`, 400, violation,
			one+"Value '[x86_64, arm64]' at 'architectures' failed to satisfy constraint: Member must have length less than or equal to 1"),
		creation("an architecture of another maker", `,"Architectures":["riscv"]`, 400, violation,
			one+"Value '[riscv]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"),
		creation("a violation goes before the name's length", `,"FunctionName":"`+strings.Repeat("n", 65)+`","Timeout":0`, 400, violation,
			one+"Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1"),
		creation("large environment", environment(lambda.MaxEnvironment+1), 400, invalid,
			`Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: {"VV":"`+sized+`"}`),
		creation("reserved variables", `,"Environment":{"Variables":{"AWS_REGION":"x","LAMBDA_TASK_ROOT":"y","OK":"z"}}`, 400, invalid,
			"Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: AWS_REGION, LAMBDA_TASK_ROOT"),
		creation("the environment goes before layers", environment(lambda.MaxEnvironment+1)+`,"Layers":["`+layers+`absent:1"]`, 400, invalid,
			`Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: {"VV":"`+sized+`"}`),
		creation("a layer that is missing", `,"Layers":["`+layers+`absent:1"]`, 400, invalid, "Layer version "+layers+"absent:1 does not exist."),
		creation("six layers", `,"Layers":["`+strings.Repeat(layers+`l:1","`, 5)+layers+`l:1"]`, 400, invalid, "Cannot reference more than 5 layers."),
		creation("a layer of another region", `,"Layers":["arn:aws:lambda:eu-west-1:123456789012:layer:l:1"]`, 400, invalid,
			"Layers are not in the same region as the function. Layers are expected to be in region us-east-1."),
		creation("51 tags", `,"Tags":{`+numbered(51)+`}`, 400, invalid, "Number of tags exceeds resource tag limit."),
		creation("no runtime", `,"Runtime":null`, 400, invalid, "Runtime and Handler are mandatory parameters for functions created with deployment packages."),
		creation("no zip", `,"Code":{"ZipFile":"eA=="}`, 400, invalid, "Could not unzip uploaded file. Please check your file, then try to upload again."),
		creation("no code", `,"Code":{}`, 400, invalid, "Please provide a source for function code."),
		creation("two codes", `,"Code":{"ZipFile":"`+code("x")+`","S3Bucket":"bucket","S3Key":"k"}`, 400, invalid, "Please do not provide other FunctionCode parameters when providing a ZipFile."),
		creation("a bucket alone", `,"Code":{"S3Bucket":"bucket"}`, 400, invalid, "Please provide both S3Bucket and S3Key as a source for function code."),
		creation("an image for a zip", `,"Code":{"ImageUri":"image:tag"}`, 400, invalid, "Please don't provide ImageUri when the intended function PackageType is Zip."),
		creation("levels for text", `,"LoggingConfig":{"LogFormat":"Text","SystemLogLevel":"WARN"}`, 400, invalid,
			`LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change the LogFormat to "JSON" and try again.`),
		creation("half a VPC", `,"VpcConfig":{"SecurityGroupIds":["sg-1"]}`, 400, invalid, "SubnetIds and SecurityIds must coexist or be both empty list."),
		creation("a signing configuration that is missing", `,"CodeSigningConfigArn":"arn:aws:lambda:us-east-1:123456789012:code-signing-config:csc-0123456789abcdef0"`, 404, "CodeSigningConfigNotFoundException",
			"The code signing configuration cannot be found. Check that the provided configuration is not deleted: arn:aws:lambda:us-east-1:123456789012:code-signing-config:csc-0123456789abcdef0."),
		creation("another region", `,"FunctionName":"arn:aws:lambda:eu-west-1:123456789012:function:f"`, 404, missing,
			"Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"),

		creation("the least", "", 201, "", `{"FunctionName":"f","FunctionArn":"`+arn+`f","Runtime":"python3.13","Handler":"f.h","Architectures":["x86_64"],"CodeSha256":"*","Description":"",
			"EphemeralStorage":{"Size":512},"Environment":null,"LoggingConfig":{"LogFormat":"Text","LogGroup":"/aws/lambda/f"},"MemorySize":128,"Timeout":3,"PackageType":"Zip","RevisionId":"*",
			"SnapStart":{"ApplyOn":"None","OptimizationStatus":"Off"},"State":"Pending","StateReason":"The function is being created.","StateReasonCode":"Creating","TracingConfig":{"Mode":"PassThrough"},
			"Version":"$LATEST","LastUpdateStatus":null,"Layers":null,"VpcConfig":null,"DeadLetterConfig":null,"KMSKeyArn":null,"FileSystemConfigs":null,"ImageConfigResponse":null}`),
		creation("twice", "", 409, conflict, "Function already exist: f"),
		creation("the zip goes after the name", `,"Code":{"ZipFile":"eA=="}`, 409, conflict, "Function already exist: f"),
		creation("by an ARN, with all that fits", `,"FunctionName":"`+arn+strings.Repeat("n", 64)+`","Timeout":900,"MemorySize":10240,"Tags":{`+numbered(50)+`}`+environment(lambda.MaxEnvironment), 201, "",
			`{"FunctionName":"`+strings.Repeat("n", 64)+`","Timeout":900,"MemorySize":10240}`),
		creation("by a partial ARN, published", `,"FunctionName":"123456789012:function:g","Publish":true`, 201, "", `{"FunctionArn":"`+arn+`g:1","Version":"1","State":"Pending"}`),
		creation("JSON logs", `,"FunctionName":"j","LoggingConfig":{"LogFormat":"JSON"}`, 201, "",
			`{"LoggingConfig":{"LogFormat":"JSON","LogGroup":"/aws/lambda/j","ApplicationLogLevel":"INFO","SystemLogLevel":"INFO"}}`),
		creation("from S3", `,"FunctionName":"s","Code":{"S3Bucket":"bucket","S3Key":"k"}`, 201, "", `{"CodeSize":`+fmt.Sprint(len(archive("k")))+`}`),
		creation("members that nobody knows", `,"FunctionName":"u","Unknown":{"x":[1]}`, 201, "", `{"FunctionName":"u"}`),
	})
}

func TestGetFunction(t *testing.T) {
	t.Parallel()
	const other = "arn:aws:lambda:eu-west-1:123456789012:function:f"
	r := newRig(t)
	r.table([]step{
		creation("", `,"Publish":true,"Tags":{"a":"b"}`, 201, "", `{"Version":"1"}`),
		{method: "POST", path: path + "/f/aliases", body: `{"Name":"live","FunctionVersion":"1"}`, status: 201, want: `{"Name":"live"}`},
		get("by its name", path+"/f", 200, "", `{"Configuration":{"FunctionArn":"`+arn+`f","Version":"$LATEST","State":"Active","StateReason":null,"StateReasonCode":null,"LastUpdateStatus":"Successful","LastUpdateStatusReason":null},
			"Code":{"RepositoryType":"S3","Location":"*"},"Tags":{"a":"b"},"Concurrency":null}`),
		get("by its ARN", path+"/"+arn+"f", 200, "", `{"Configuration":{"FunctionArn":"`+arn+`f"}}`),
		get("by a partial ARN", path+"/123456789012:function:f", 200, "", `{"Configuration":{"FunctionArn":"`+arn+`f"}}`),
		get("by function:", path+"/function:f", 200, "", `{"Configuration":{"FunctionArn":"`+arn+`f"}}`),
		get("a version in the name", path+"/f:1", 200, "", `{"Configuration":{"FunctionArn":"`+arn+`f:1","Version":"1"}}`),
		get("an alias in the ARN", path+"/"+arn+"f:live", 200, "", `{"Configuration":{"FunctionArn":"`+arn+`f:live","Version":"1"}}`),
		get("an alias", path+"/f?Qualifier=live", 200, "", `{"Configuration":{"FunctionArn":"`+arn+`f:live","Version":"1"}}`),
		get("$LATEST", path+"/f/configuration?Qualifier=$LATEST", 200, "", `{"FunctionArn":"`+arn+`f:$LATEST","Version":"$LATEST"}`),
		get("both, the same", path+"/f:live?Qualifier=live", 200, "", `{"Configuration":{"FunctionArn":"`+arn+`f:live"}}`),
		get("both, not the same", path+"/f:1?Qualifier=live", 400, invalid, "The derived qualifier from the function name does not match the specified qualifier."),
		get("$latest", path+"/f?Qualifier=$latest", 404, missing, "Function not found: "+arn+"f:$latest"),
		get("missing", path+"/absent", 404, missing, "Function not found: "+arn+"absent"),
		get("a version that is missing", path+"/f?Qualifier=2", 404, missing, "Function not found: "+arn+"f:2"),
		get("an alias that is missing", path+"/f/configuration?Qualifier=dead", 404, missing, "Function not found: "+arn+"f:dead"),
		get("another region", path+"/"+other, 404, missing, "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"),
	})
}

// change is a step that changes the function f.
func change(name, what, body string, status int, code, want string) step {
	return step{name: name, method: "PUT", path: path + "/f/" + what, body: body, status: status, code: code, want: want}
}

func TestUpdateFunction(t *testing.T) {
	t.Parallel()
	const inProgress = `"LastUpdateStatus":"InProgress","LastUpdateStatusReason":"The function is being created.","LastUpdateStatusReasonCode":"Creating"`
	newRig(t).table([]step{
		creation("", "", 201, "", `{}`),
		change("settings", "configuration", `{"Timeout":9,"Description":"d","Environment":{"Variables":{"KEY":"v"}},"DeadLetterConfig":{"TargetArn":"arn:aws:sqs:us-east-1:123456789012:q"},
			"KMSKeyArn":"arn:aws:kms:us-east-1:123456789012:key/k","VpcConfig":{"SubnetIds":["subnet-1"],"SecurityGroupIds":["sg-1"]},"TracingConfig":{"Mode":"Active"}}`, 200, "",
			`{"Timeout":9,"MemorySize":128,"FunctionArn":"`+arn+`f",`+inProgress+`}`),
		{name: "what is not named stays", method: "PUT", path: path + "/f/configuration", body: `{"MemorySize":256}`, status: 200, keep: "RevisionId",
			want: `{"Timeout":9,"MemorySize":256,"Description":"d","Environment":{"Variables":{"KEY":"v"}},"DeadLetterConfig":{"TargetArn":"arn:aws:sqs:us-east-1:123456789012:q"},"TracingConfig":{"Mode":"Active"},
			"KMSKeyArn":"arn:aws:kms:us-east-1:123456789012:key/k","VpcConfig":{"SubnetIds":["subnet-1"],"SecurityGroupIds":["sg-1"],"VpcId":"","Ipv6AllowedForDualStack":false}}`},
		change("a revision that settling has replaced", "configuration", `{"Timeout":5,"RevisionId":"$REVISIONID"}`, 412, stale, notLatest),
		change("the same for code", "code", `{"ZipFile":"`+code("x")+`","RevisionId":"$REVISIONID"}`, 412, stale, notLatest),
		{name: "the latest revision", method: "GET", path: path + "/f/configuration", status: 200, want: `{"LastUpdateStatus":"Successful","LastUpdateStatusReason":null}`, keep: "RevisionId"},
		change("with it", "configuration", `{"Timeout":5,"RevisionId":"$REVISIONID"}`, 200, "", `{"Timeout":5}`),
		change("the environment is replaced", "configuration", `{"Environment":{"Variables":{"OTHER":"w"}}}`, 200, "", `{"Environment":{"Variables":{"OTHER":"w","KEY":null}}}`),
		change("all is cleared", "configuration", `{"Description":"","Environment":{},"DeadLetterConfig":{"TargetArn":""},"KMSKeyArn":"","VpcConfig":{"SubnetIds":[],"SecurityGroupIds":[]},"FileSystemConfigs":[],"Layers":[]}`, 200, "",
			`{"Description":"","Environment":null,"DeadLetterConfig":null,"KMSKeyArn":null,"VpcConfig":{"SubnetIds":[],"SecurityGroupIds":[],"VpcId":"","Ipv6AllowedForDualStack":false},"FileSystemConfigs":null,"Layers":null}`),
		change("half a VPC", "configuration", `{"VpcConfig":{"SubnetIds":["subnet-1"]}}`, 400, invalid, "SubnetIds and SecurityIds must coexist or be both empty list."),
		change("violations", "configuration", `{"Timeout":0,"MemorySize":1}`, 400, violation,
			"2 validation errors detected: Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1; Value '1' at 'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 128"),
		change("an ImageConfig", "configuration", `{"ImageConfig":{"Command":["x"]}}`, 400, invalid, "Please don't provide ImageConfig when updating a function with packageType Zip."),
		change("a dry run", "code", `{"ZipFile":"`+code("dry")+`","DryRun":true}`, 200, "", `{"CodeSize":`+fmt.Sprint(len(archive("dry")))+`}`),
		get("which changes nothing", path+"/f/configuration", 200, "", `{"CodeSize":`+fmt.Sprint(len(archive("f")))+`,"LastUpdateStatus":"Successful"}`),
		change("a dry run from S3", "code", `{"S3Bucket":"bucket","S3Key":"dry","DryRun":true}`, 200, "", `{"CodeSize":`+fmt.Sprint(len(archive("dry")))+`}`),
		change("a key of the code", "code", `{"ZipFile":"`+code("x")+`","SourceKMSKeyArn":"arn:aws:kms:us-east-1:123456789012:key/k"}`, 200, "", `{}`),
		get("shown with it", path+"/f", 200, "", `{"Code":{"SourceKMSKeyArn":"arn:aws:kms:us-east-1:123456789012:key/k"}}`),
		change("code, published", "code", `{"ZipFile":"`+code("x")+`","Publish":true}`, 200, "", `{"Version":"1","FunctionArn":"`+arn+`f:1","State":"Pending"}`),
		get("other code has none", path+"/f", 200, "", `{"Code":{"SourceKMSKeyArn":null}}`),
		change("an image", "code", `{"ImageUri":"image:tag"}`, 400, invalid, "Please don't provide ImageUri when updating a function with packageType Zip."),
		change("no code", "code", `{}`, 400, invalid, "Please provide a source for function code."),
		change("two codes", "code", `{"ZipFile":"`+code("x")+`","S3Bucket":"bucket","S3Key":"k"}`, 400, invalid, "Please do not provide other FunctionCode parameters when providing a ZipFile."),
		change("no zip", "code", `{"ZipFile":"eA=="}`, 400, invalid, "Could not unzip uploaded file. Please check your file, then try to upload again."),
		{name: "code of what is missing", method: "PUT", path: path + "/absent/code", body: `{"ZipFile":"` + code("x") + `"}`, status: 404, code: missing, want: "Function not found: " + arn + "absent"},
		{name: "settings of what is missing", method: "PUT", path: path + "/absent/configuration", body: `{}`, status: 404, code: missing, want: "Function not found: " + arn + "absent"},
	})
}

func TestDeleteFunction(t *testing.T) {
	t.Parallel()
	newRig(t).table([]step{
		creation("", `,"Publish":true`, 201, "", `{}`),
		change("", "code", `{"ZipFile":"`+code("2")+`","Publish":true}`, 200, "", `{"Version":"2"}`),
		post("", path+"/f/aliases", `{"Name":"live","FunctionVersion":"1"}`, 201, "", `{}`),
		remove("$LATEST", path+"/f?Qualifier=$LATEST", 400, invalid, "$LATEST version cannot be deleted without deleting the function."),
		remove("an alias", path+"/f?Qualifier=live", 400, invalid, "Deletion of aliases is not currently supported."),
		remove("a version", path+"/f?Qualifier=2", 204, "", ""),
		remove("once more", path+"/f?Qualifier=2", 204, "", ""),
		remove("a version of what is missing", path+"/absent?Qualifier=2", 404, missing, "Function not found: "+arn+"absent"),
		remove("what is missing", path+"/absent", 404, missing, "Function not found: "+arn+"absent"),
		remove("by an ARN", path+"/"+arn+"f", 204, "", ""),
		get("with its versions", path+"/f/versions", 404, missing, "Function not found: "+arn+"f"),
		get("and its aliases", path+"/f/aliases/live", 404, missing, "Cannot find alias arn: "+arn+"f:live"),
		creation("again", `,"Publish":true`, 201, "", `{"Version":"1"}`),
	})
}

func TestListFunctions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 60 {
		r.table([]step{post("", path, function(fmt.Sprintf("f%02d", i), ""), 201, "", "{}")})
	}
	const item = `{"FunctionName":"f00","FunctionArn":"` + arn + `f00","Version":"$LATEST","State":null,"StateReason":null,"LastUpdateStatus":null,"RuntimeVersionConfig":null,"SnapStart":"*","LoggingConfig":"*"}`
	outside := func(value, rule string) string {
		return "1 validation error detected: Value '" + value + "' at 'maxItems' failed to satisfy constraint: Member must have value " + rule
	}
	r.table([]step{
		{method: "PUT", path: path + "/f00/code", body: `{"ZipFile":"` + code("2") + `","Publish":true}`, status: 200, want: `{"Version":"1"}`},
		{name: "one", method: "GET", path: path + "?MaxItems=1", status: 200, want: `{"Functions":[` + item + `],"NextMarker":"*"}`, keep: "NextMarker"},
		{name: "the next", method: "GET", path: path + "?MaxItems=1&Marker=$NEXTMARKER", status: 200, want: `{"Functions":[{"FunctionName":"f01"}]}`, keep: "NextMarker"},
		{name: "more than a page", method: "GET", path: path + "?MaxItems=10000", status: 200, want: `{"NextMarker":"*"}`, keep: "NextMarker"},
		get("the rest", path+"?Marker=$NEXTMARKER", 200, "", `{"NextMarker":null,"Functions":[{"FunctionName":"f50"},{},{},{},{},{},{},{},{},{"FunctionName":"f59"}]}`),
		get("every version", path+"?FunctionVersion=ALL&MaxItems=3", 200, "", `{"Functions":[{"FunctionArn":"`+arn+`f00:$LATEST"},{"FunctionArn":"`+arn+`f00:1"},{"FunctionArn":"`+arn+`f01:$LATEST"}],"NextMarker":"*"}`),
		get("versions", path+"/f00/versions", 200, "", `{"Versions":[{"FunctionArn":"`+arn+`f00:$LATEST","Version":"$LATEST","State":null},{"FunctionArn":"`+arn+`f00:1","Version":"1"}],"NextMarker":null}`),
		get("a marker of nobody's", path+"?Marker=%21", 400, invalid, "The provided Marker is not one that a list returned: !"),
		get("none", path+"?MaxItems=0", 400, violation, outside("0", "greater than or equal to 1")),
		get("too many", path+"?MaxItems=10001", 400, violation, outside("10001", "less than or equal to 10000")),
		get("versions of what is missing", path+"/absent/versions", 404, missing, "Function not found: "+arn+"absent"),
		get("other versions than all", path+"?FunctionVersion=SOME", 400, violation,
			"1 validation error detected: Value 'SOME' at 'functionVersion' failed to satisfy constraint: Member must satisfy enum value set: [ALL]"),
	})
}
