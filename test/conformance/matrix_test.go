package conformance

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"kiln/internal/aws/lambdaapi"
	"kiln/test/kiln"
)

const (
	ownAccount     = "000000000000"
	foreignAccount = "210987654321"
)

// key is an access key of a daemon.
type key struct{ ID, Secret, Token string }

// as makes a request by hand, signed with the key; without one it is not signed.
func (k *key) as(t *testing.T, service, method, target, body string, header ...string) (status int, answer string, h http.Header) {
	t.Helper()
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if k != nil {
		sum := sha256.Sum256([]byte(body))
		who := aws.Credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret, SessionToken: k.Token}
		if err := v4.NewSigner().SignHTTP(t.Context(), who, r, hex.EncodeToString(sum[:]), service, "us-east-1", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b), response.Header
}

// keyed starts a daemon with a root key.
func keyed(t *testing.T, args ...string) (d *kiln.Daemon, root *key) {
	t.Helper()
	root = &key{ID: "AKIAROOT", Secret: "the-secret/of+root"}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(root.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return kiln.Start(t, append([]string{"--access-key", root.ID, "--secret-key-file", secret}, args...)...), root
}

// newKey makes a key; the policy is "" for none.
func (k *key) newKey(t *testing.T, d *kiln.Daemon, account, name, policy string) *key {
	t.Helper()
	order := map[string]any{"name": name, "account": account}
	if policy != "" {
		order["policy"] = json.RawMessage(policy)
	}
	body, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	status, answer, _ := k.as(t, "kiln", "POST", d.URL+"/_kiln/keys", string(body))
	made := new(key)
	if err := json.Unmarshal([]byte(answer), made); status != 200 || err != nil {
		t.Fatalf("make the key %s: %d %s", name, status, answer)
	}
	return made
}

// what names in paths and queries are in the matrix: things of our own account.
var matrixNames = map[string]string{
	"FunctionName":         "arn:aws:lambda:us-east-1:" + ownAccount + ":function:matrix",
	"LayerName":            "arn:aws:lambda:us-east-1:" + ownAccount + ":layer:matrix",
	"Resource":             "arn:aws:lambda:us-east-1:" + ownAccount + ":function:matrix",
	"CodeSigningConfigArn": "arn:aws:lambda:us-east-1:" + ownAccount + ":code-signing-config:csc-0123456789abcdef0",
	"CapacityProviderName": "arn:aws:lambda:us-east-1:" + ownAccount + ":capacity-provider:matrix",
	"DurableExecutionArn":  "arn:aws:lambda:us-east-1:" + ownAccount + ":function:matrix:1/durable-execution/a/b",
	"CallbackId":           "Y2FsbGJhY2s=",
	"UUID":                 "01234567-89ab-4def-8123-456789abcdef",
	"VersionNumber":        "1",
	"StatementId":          "s",
	"Name":                 "live",
}

// matrixQueries and matrixBodies are what operations require besides.
var matrixQueries = map[string]string{
	"DeleteProvisionedConcurrencyConfig": "Qualifier=live",
	"GetDurableExecutionState":           "CheckpointToken=dG9rZW4%3D",
	"GetFunctionScalingConfig":           "Qualifier=1",
	"GetLayerVersionByArn":               "Arn=arn%3Aaws%3Alambda%3Aus-east-1%3A" + ownAccount + "%3Alayer%3Amatrix%3A1",
	"GetProvisionedConcurrencyConfig":    "Qualifier=live",
	"PutFunctionScalingConfig":           "Qualifier=1",
	"PutProvisionedConcurrencyConfig":    "Qualifier=live",
	"UntagResource":                      "tagKeys=team",
}

var matrixBodies = map[string]string{
	"AddLayerVersionPermission":       `{"StatementId":"s","Action":"lambda:GetLayerVersion","Principal":"*"}`,
	"AddPermission":                   `{"StatementId":"s","Action":"lambda:InvokeFunction","Principal":"s3.amazonaws.com"}`,
	"CheckpointDurableExecution":      `{"CheckpointToken":"dG9rZW4="}`,
	"CreateAlias":                     `{"Name":"live","FunctionVersion":"$LATEST"}`,
	"CreateCapacityProvider":          `{"CapacityProviderName":"matrix","VpcConfig":{"SubnetIds":["subnet-0123456789abcdef0"],"SecurityGroupIds":["sg-0123456789abcdef0"]},"PermissionsConfig":{"CapacityProviderOperatorRoleArn":"arn:aws:iam::` + ownAccount + `:role/r"}}`,
	"CreateCodeSigningConfig":         `{"AllowedPublishers":{"SigningProfileVersionArns":["arn:aws:signer:us-east-1:` + ownAccount + `:/signing-profiles/p/0123456789"]}}`,
	"CreateEventSourceMapping":        `{"FunctionName":"arn:aws:lambda:us-east-1:` + ownAccount + `:function:matrix","EventSourceArn":"arn:aws:sqs:us-east-1:` + ownAccount + `:q"}`,
	"CreateFunction":                  `{"FunctionName":"arn:aws:lambda:us-east-1:` + ownAccount + `:function:matrix","Role":"arn:aws:iam::` + ownAccount + `:role/r","Code":{"ZipFile":"UEs="},"Runtime":"provided.al2023","Handler":"x"}`,
	"CreateFunctionUrlConfig":         `{"AuthType":"NONE"}`,
	"InvokeAsync":                     `{}`,
	"PublishLayerVersion":             `{"Content":{"ZipFile":"UEs="}}`,
	"PutFunctionCodeSigningConfig":    `{"CodeSigningConfigArn":"arn:aws:lambda:us-east-1:` + ownAccount + `:code-signing-config:csc-0123456789abcdef0"}`,
	"PutFunctionConcurrency":          `{"ReservedConcurrentExecutions":1}`,
	"PutFunctionRecursionConfig":      `{"RecursiveLoop":"Allow"}`,
	"PutProvisionedConcurrencyConfig": `{"ProvisionedConcurrentExecutions":1}`,
	"PutRuntimeManagementConfig":      `{"UpdateRuntimeOn":"Auto"}`,
	"TagResource":                     `{"Tags":{"team":"red"}}`,
}

var pathParameter = regexp.MustCompile(`\{(\w+)\}`)

// matrixTarget is the path and query of an operation's request.
func matrixTarget(t *testing.T, op *lambdaapi.Operation) string {
	t.Helper()
	target := pathParameter.ReplaceAllStringFunc(op.Path, func(p string) string {
		name := strings.Trim(p, "{}")
		if matrixNames[name] == "" {
			t.Errorf("%s: no name for %s", op.Name, name)
		}
		return url.PathEscape(matrixNames[name])
	})
	if query := matrixQueries[op.Name]; query != "" && strings.Contains(target, "?") {
		target += "&" + query
	} else if query != "" {
		target += "?" + query
	}
	return target
}

// ofTheCaller are operations whose requests name nothing of an account: they are
// about what the caller's own has.
var ofTheCaller = map[string]bool{
	"CreateCapacityProvider": true, "CreateCodeSigningConfig": true, "GetAccountSettings": true,
	"ListCapacityProviders": true, "ListCodeSigningConfigs": true, "ListEventSourceMappings": true, "ListFunctions": true, "ListLayers": true,
	"DeleteEventSourceMapping": true, "GetEventSourceMapping": true, "UpdateEventSourceMapping": true,
	"SendDurableExecutionCallbackFailure": true, "SendDurableExecutionCallbackHeartbeat": true, "SendDurableExecutionCallbackSuccess": true,
}

// TestAccessMatrix asks every operation in the name of everybody who must not, and
// of one who may.
func TestAccessMatrix(t *testing.T) {
	t.Parallel()
	d, root := keyed(t)
	const missing, unknown, wrong, denied = "MissingAuthenticationTokenException", "UnrecognizedClientException", "InvalidSignatureException", "AccessDeniedException"
	callers := []struct {
		name string
		key  *key
		code string // of the refusal; "" for none
		says string
	}{
		{"a policy that allows it", root.newKey(t, d, "", "allowed", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["lambda:*","iam:PassRole"],"Resource":"*"}}`), "", ""},
		{"no key", nil, missing, "Missing Authentication Token"},
		{"an unknown key", &key{ID: "AKIAUNKNOWN", Secret: "x"}, unknown, "The security token included in the request is invalid."},
		{"the root's key with a guess", &key{ID: root.ID, Secret: "guess"}, wrong, "The request signature we calculated does not match"},
		{"another account", root.newKey(t, d, foreignAccount, "foreign", ""), denied, "because no resource-based policy allows the "},
		{"a policy that says nothing of it", root.newKey(t, d, "", "logs", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"logs:*","Resource":"*"}}`), denied, "because no identity-based policy allows the "},
		{"a policy that denies it", root.newKey(t, d, "", "denied", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"lambda:*","Resource":"*"}]}`), denied, "with an explicit deny in an identity-based policy"},
	}
	operations := lambdaapi.Operations()
	if len(operations) != 85 {
		t.Errorf("the matrix has %d operations", len(operations))
	}
	var notBuilt []string
	for i := range operations {
		op := &operations[i]
		target, body := d.URL+matrixTarget(t, op), matrixBodies[op.Name]
		if body == "" && op.Method != "GET" && op.Method != "DELETE" {
			body = "{}"
		}
		built := true
		for _, c := range callers {
			status, answer, header := c.key.as(t, "lambda", op.Method, target, body)
			code := header.Get("X-Amzn-Errortype")
			switch {
			case status == 501 && c.code == "":
				built = false
				notBuilt = append(notBuilt, op.Name)
			case !built && c.name == "another account":
				// Whose thing it would be is not known.
			case c.name == "another account" && ofTheCaller[op.Name]:
				if status == 403 || strings.Contains(answer, "lambda:us-east-1:"+ownAccount) {
					t.Errorf("%s by %s: %d %s", op.Name, c.name, status, answer)
				}
			case c.code == "":
				if status == 401 || status == 403 {
					t.Errorf("%s by %s: %d %s", op.Name, c.name, status, answer)
				}
			case status != 403 || code != c.code || !strings.Contains(answer, c.says) || c.code == denied && !strings.Contains(answer, "is not authorized to perform: "+op.Action+" on resource: "):
				t.Errorf("%s by %s: %d %s %s, want 403 %s %s", op.Name, c.name, status, code, answer, c.code, c.says)
			}
		}
	}
	t.Logf("not built: %s", strings.Join(notBuilt, ", "))
}
