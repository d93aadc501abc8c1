package lambdaapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const (
	functionName = `(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?`
	role         = `"Role":"arn:aws:iam::000000000000:role/r"`
	minimal      = `"FunctionName":"f",` + role + `,"Code":{"ZipFile":"AAAA"}`
)

func TestValidation(t *testing.T) {
	t.Parallel()
	value := func(v, path, rule string) string {
		return fmt.Sprintf("Value '%s' at '%s' failed to satisfy constraint: %s", v, path, rule)
	}
	null := func(path string) string {
		return "Value null at '" + path + "' failed to satisfy constraint: Member must not be null"
	}
	long := strings.Repeat("a", 141)
	const create = "POST /2015-03-31/functions"
	for _, c := range []struct {
		name, request, body string
		want                []string
	}{
		{"nothing given", create, "", []string{null("functionName"), null("role"), null("code")}},
		{"null given", create, `{"FunctionName":null,"Code":null}`, []string{null("functionName"), null("role"), null("code")}},
		{"null body", create, `null`, []string{null("functionName"), null("role"), null("code")}},
		{"member names have case", create, `{"functionName":"f","role":"r","code":{}}`, []string{null("functionName"), null("role"), null("code")}},
		{"name too long", create, strings.Replace("{"+minimal+"}", `"f"`, `"`+long+`"`, 1), []string{
			value(long, "functionName", "Member must have length less than or equal to 140")}},
		{"length before pattern", create, strings.Replace("{"+minimal+"}", `"f"`, `""`, 1), []string{
			value("", "functionName", "Member must have length greater than or equal to 1"),
			value("", "functionName", "Member must satisfy regular expression pattern: "+functionName)}},
		{"bad shape of name", create, strings.Replace("{"+minimal+"}", `"f"`, `"invalid:function:name"`, 1), []string{
			value("invalid:function:name", "functionName", "Member must satisfy regular expression pattern: "+functionName)}},
		{"role", create, `{"FunctionName":"f","Role":"r","Code":{}}`, []string{
			value("r", "role", `Member must satisfy regular expression pattern: arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+`)}},
		{"timeout", create, `{` + minimal + `,"Timeout":901}`, []string{value("901", "timeout", "Member must have value less than or equal to 900")}},
		{"timeout 0", create, `{` + minimal + `,"Timeout":0}`, []string{value("0", "timeout", "Member must have value greater than or equal to 1")}},
		{"memory", create, `{` + minimal + `,"MemorySize":10241}`, []string{value("10241", "memorySize", "Member must have value less than or equal to 10240")}},
		{"little memory", create, `{` + minimal + `,"MemorySize":127}`, []string{value("127", "memorySize", "Member must have value greater than or equal to 128")}},
		{"wrong architecture", create, `{` + minimal + `,"Architectures":["X86_64"]}`, []string{
			value("[X86_64]", "architectures", "Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]")}},
		{"two architectures", create, `{` + minimal + `,"Architectures":["x86_64","arm64"]}`, []string{
			value("[x86_64, arm64]", "architectures", "Member must have length less than or equal to 1")}},
		{"enum", create, `{` + minimal + `,"PackageType":"zip"}`, []string{value("zip", "packageType", "Member must satisfy enum value set: [Zip, Image]")}},
		{"any runtime passes", create, `{` + minimal + `,"Runtime":"cobol1.0"}`, nil},
		{"nested", create, `{` + minimal + `,"VpcConfig":{"SubnetIds":["a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a"]},"EphemeralStorage":{},"TracingConfig":{"Mode":"x"}}`, []string{
			value("[a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a]", "vpcConfig.subnetIds", "Member must have length less than or equal to 16"),
			value("x", "tracingConfig.mode", "Member must satisfy enum value set: [Active, PassThrough]"),
			null("ephemeralStorage.size")}},
		{"list of structures", create, `{` + minimal + `,"FileSystemConfigs":[{"Arn":"x"},{}]}`, []string{
			value("[FileSystemConfig(arn=x, localMountPath=null), FileSystemConfig(arn=null, localMountPath=null)]", "fileSystemConfigs", "Member must have length less than or equal to 1"),
			value("x", "fileSystemConfigs.1.member.arn", `Member must satisfy regular expression pattern: arn:aws[a-zA-Z-]*:elasticfilesystem:[a-z]{2}((-gov)|(-iso(b?)))?-[a-z]+-\d{1}:\d{12}:access-point/fsap-[a-f0-9]{17}$|^arn:aws[-a-z]*:s3files:[0-9a-z-:]+:file-system/fs-[0-9a-f]{17,40}/access-point/fsap-[0-9a-f]{17,40}`),
			null("fileSystemConfigs.1.member.localMountPath"),
			null("fileSystemConfigs.2.member.arn"),
			null("fileSystemConfigs.2.member.localMountPath")}},
		{"key ARN", create, `{` + minimal + `,"KMSKeyArn":"x"}`, []string{value("x", "kMSKeyArn", `Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()`)}},
		{"no key ARN", create, `{` + minimal + `,"KMSKeyArn":""}`, nil},
		{"variables are not printed", create, `{` + minimal + `,"Environment":{"Variables":{"0":"secret"}}}`, []string{
			"Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]"}},
		{"bucket ends in a dot", create, strings.Replace("{"+minimal+"}", `"ZipFile":"AAAA"`, `"S3Bucket":"bucket.","S3Key":"k"`, 1), []string{
			value("bucket.", "code.s3Bucket", `Member must satisfy regular expression pattern: [0-9A-Za-z\.\-_]*(?<!\.)`)}},
		{"qualifier before name", "GET /2015-03-31/functions/a+b?Qualifier=a:b", "", []string{
			value("a:b", "qualifier", `Member must satisfy regular expression pattern: \$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+`),
			value("a+b", "functionName", `Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?`)}},
		{"items", "GET /2015-03-31/functions?MaxItems=10001", "", []string{value("10001", "maxItems", "Member must have value less than or equal to 10000")}},
		{"alias of digits", "POST /2015-03-31/functions/f/aliases", `{"Name":"12","FunctionVersion":"1"}`, []string{
			value("12", "name", `Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)`)}},
		{"weight", "POST /2015-03-31/functions/f/aliases", `{"Name":"a","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"2":2,"1":0.5}}}`, []string{
			value("{1=0.5, 2=2.0}", "routingConfig.additionalVersionWeights", "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]")}},
		{"weighted $LATEST", "POST /2015-03-31/functions/f/aliases", `{"Name":"a","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"$LATEST":0.5}}}`, []string{
			value("{$LATEST=0.5}", "routingConfig.additionalVersionWeights", "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]")}},
		{"no tag keys", "DELETE /2017-03-31/tags/arn:aws:lambda:eu-west-1:000000000000:function:f", "", []string{null("tagKeys")}},
		{"url qualifier", "GET /2021-10-31/functions/f/url?Qualifier=1", "", []string{
			value("1", "qualifier", `Member must satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)`)}},
		{"destination", "PUT /2019-09-25/functions/f/event-invoke-config", `{"MaximumRetryAttempts":3,"DestinationConfig":{"OnFailure":{"Destination":"x"},"OnSuccess":{"Destination":""}}}`, []string{
			value("3", "maximumRetryAttempts", "Member must have value less than or equal to 2"),
			value("x", "destinationConfig.onFailure.destination", `Member must satisfy regular expression pattern: $|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)`)}},
		{"brokers", "POST /2015-03-31/event-source-mappings", `{"FunctionName":"f","SelfManagedEventSource":{"Endpoints":{"KAFKA_BOOTSTRAP_SERVERS":["a:1"],"X":["b:2"]}}}`, []string{
			value("{KAFKA_BOOTSTRAP_SERVERS=[a:1], X=[b:2]}", "selfManagedEventSource.endpoints", "Map keys must satisfy constraint: [Member must satisfy enum value set: [KAFKA_BOOTSTRAP_SERVERS]]")}},
		{"length counts UTF-16", "POST /2015-03-31/functions/f/versions", `{"Description":"` + strings.Repeat("😀", 129) + `"}`, []string{
			value(strings.Repeat("😀", 129), "description", "Member must have length less than or equal to 256")}},
		{"length does not count bytes", "POST /2015-03-31/functions/f/versions", `{"Description":"` + strings.Repeat("ü", 256) + `"}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			method, target, _ := strings.Cut(c.request, " ")
			h := handler(unimplemented{})
			res, body := do(t, h, method, target, c.body, nil)
			if c.want == nil {
				if res.StatusCode != http.StatusNotImplemented {
					t.Errorf("got %s %s", res.Status, body)
				}
				return
			}
			plural := "s"
			if len(c.want) == 1 {
				plural = ""
			}
			want := fmt.Sprintf("%d validation error%s detected: %s", len(c.want), plural, strings.Join(c.want, "; "))
			var got map[string]string
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			if got["message"] != want || len(got) != 1 || res.StatusCode != 400 || res.Header.Get("X-Amzn-Errortype") != "ValidationException" {
				t.Errorf("got  %s %s\nwant %s", res.Status, got["message"], want)
			}
		})
	}
}

func TestSerialization(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	for body, want := range map[string]string{
		`{"FunctionName":1}`:                        "NUMBER_VALUE can not be converted to String",
		`{"FunctionName":true}`:                     "TRUE_VALUE can not be converted to String",
		`{"FunctionName":{}}`:                       "Start of structure or map found where not expected.",
		`{"FunctionName":[]}`:                       "Start of list found where not expected",
		`{"Timeout":"3"}`:                           "STRING_VALUE can not be converted to Integer",
		`{"Timeout":3.5}`:                           "NUMBER_VALUE can not be converted to Integer",
		`{"Timeout":2147483648}`:                    "NUMBER_VALUE can not be converted to Integer",
		`{"Publish":"true"}`:                        "STRING_VALUE can not be converted to Boolean",
		`{"Code":"x"}`:                              "STRING_VALUE can not be converted to structure or map",
		`{"Code":{"ZipFile":"*"}}`:                  "STRING_VALUE can not be converted to Blob: it is not base64",
		`{"Layers":"x"}`:                            "STRING_VALUE can not be converted to list",
		`{"Layers":[null]}`:                         "null can not be an element of a list or map",
		`{"FileSystemConfigs":[null]}`:              "null can not be an element of a list or map",
		`{"Environment":{"Variables":{"AB":null}}}`: "null can not be an element of a list or map",
		`[]`:                              "Start of list found where not expected",
		`{"FunctionName":"f"`:             "Could not parse request body into json: Unexpected end-of-input",
		`{"FunctionName":"f`:              "Could not parse request body into json: Unexpected end-of-input",
		"{\n\"a\":x}":                     "Could not parse request body into json: Unexpected character ('x' (code 120)) at line: 2, column: 5",
		`{} {}`:                           "Could not parse request body into json: Unexpected character ('{' (code 123)) at line: 1, column: 4",
		"{\"a\":\"\xff\"}":                "Could not parse request body into json: Invalid UTF-8 in a string",
		`{"FunctionName":"\x"}`:           "Could not parse request body into json: Unrecognized character escape in a string",
		`{"Unknown":{"a":[1,{"b":nul}]}}`: "Could not parse request body into json: Unexpected character ('n' (code 110)) at line: 1, column: 25",
		`{"Unknown":` + deep + `}`:        "Document nesting depth exceeds the maximum allowed (1000)",
		`{"FunctionName":"a","FunctionName":["twice"]}`: "Start of list found where not expected",
	} {
		res, got := do(t, handler(unimplemented{}), "POST", "/2015-03-31/functions", body, nil)
		var message struct{ Message string }
		if err := json.Unmarshal([]byte(got), &message); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 400 || res.Header.Get("X-Amzn-Errortype") != "SerializationException" || message.Message != want {
			t.Errorf("%.60s: got %s %s, want %s", body, res.Status, message.Message, want)
		}
	}
	for _, target := range []string{"/2015-03-31/functions?MaxItems=x", "/2018-10-31/layers/l/versions/x"} {
		if res, _ := do(t, handler(unimplemented{}), "GET", target, "", nil); res.Header.Get("X-Amzn-Errortype") != "SerializationException" {
			t.Errorf("%s: got %s", target, res.Status)
		}
	}
}

// The patterns that RE2 cannot express are matched by functions.
func TestLookaroundPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		request, body, member string
		good, bad             []string
	}{
		{"POST /2015-03-31/functions/f/aliases", `{"Name":%q,"FunctionVersion":"1"}`, "name",
			[]string{"a", "1a", "-", "_9", "9-"}, []string{"1", "007", "a.b", "ü", "a\n"}},
		{"POST /2015-03-31/functions", `{"FunctionName":"f",` + role + `,"Code":{"S3Key":"k","S3Bucket":%q}}`, "code.s3Bucket",
			[]string{"abc", "a.b", "..a", "-_-"}, []string{"ab.", "a/b", "abcü"}},
		{"POST /2015-03-31/event-source-mappings", `{"FunctionName":"f","DocumentDBEventSourceConfig":{"CollectionName":%q}}`, "documentDBEventSourceConfig.collectionName",
			[]string{"a", "_a.b c", "system", "systemx", "9"}, []string{"system.x", "system.", "-a", ".a", "a$b"}},
		{"POST /2021-10-31/functions/f/url?Qualifier=%s", "", "qualifier",
			[]string{"live", "1a"}, []string{"1", "123"}},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		for _, list := range []struct {
			values []string
			bad    bool
		}{{c.good, false}, {c.bad, true}} {
			for _, v := range list.values {
				target, body := target, c.body
				if body == "" {
					target, body = fmt.Sprintf(target, v), `{"AuthType":"NONE"}`
				} else {
					body = fmt.Sprintf(body, v)
				}
				_, got := do(t, handler(unimplemented{}), method, target, body, nil)
				if bad := strings.Contains(got, "at '"+c.member+"' failed to satisfy constraint: Member must satisfy regular expression"); bad != list.bad {
					t.Errorf("%s %q: got %s", c.member, v, got)
				}
			}
		}
	}
}
