package conformance

import (
	"os"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// deployer is the policy of a key that suffices for examples/terraform.
const deployer = `{"Version": "2012-10-17", "Statement": [
	{"Effect": "Allow", "Action": ["lambda:*", "logs:*"], "Resource": "*"},
	{"Effect": "Allow", "Action": ["iam:*Role", "iam:*RolePolicy", "iam:*RolePolicies", "iam:ListInstanceProfilesForRole", "iam:PassRole"],
	 "Resource": "arn:aws:iam::000000000000:role/orders"}]}`

// TestTerraformFunction applies the example, a function with all that usually surrounds
// one, while Kiln has no keys, and plans clean. Then Kiln gets keys: with one that may do no
// more than that, it changes everything in place, plans clean, and leaves nothing.
func TestTerraformFunction(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../../examples/terraform/main.tf")
	if err != nil {
		t.Fatal(err)
	}
	d := kiln.Start(t, "--any-runtime")
	tf := kiln.NewTerraform(t, d, string(example))
	for _, answer := range []string{"one", "two"} {
		tf.Write(answer+".zip", string(kiln.Zip(map[string]string{"function.py": "import greeting\ndef handler(event, context):\n    return greeting.of('" + answer + "')\n"})))
	}
	tf.Write("layer.zip", string(kiln.Zip(map[string]string{"python/greeting.py": "def of(name):\n    return 'hello ' + name\n"})))
	s := session{goSDK{}, t, anyKey(d)}
	fn, live := values{"FunctionName": "orders"}, values{"FunctionName": "orders", "Qualifier": "live"}
	shows := func(answer, version, memory, stage string) (url, mapping string) {
		t.Helper()
		out, payload := s.invoke(live)
		want(t, "payload", payload, `"hello `+answer+`"`)
		want(t, "ExecutedVersion", out["ExecutedVersion"], version)
		want(t, "MemorySize", s.must("GetFunctionConfiguration", live)["MemorySize"], memory)
		want(t, "reserved", s.must("GetFunctionConcurrency", fn)["ReservedConcurrentExecutions"], "10")
		want(t, "provisioned", s.must("GetProvisionedConcurrencyConfig", live)["RequestedProvisionedConcurrentExecutions"], "2")
		if policy := s.must("GetPolicy", live)["Policy"].(string); !strings.Contains(policy, ":api/"+stage+"/*") {
			t.Errorf("policy: %s", policy)
		}
		mappings := s.must("ListEventSourceMappings", values{"FunctionName": "orders:live"})["EventSourceMappings"].([]any)
		if len(mappings) != 1 {
			t.Fatalf("mappings: %v", mappings)
		}
		return s.must("GetFunctionUrlConfig", fn)["FunctionUrl"].(string), mappings[0].(map[string]any)["UUID"].(string)
	}

	tf.Apply("-var", "code=one.zip")
	url, mapping := shows("one", "1", "256", "test")

	root := (&key{ID: "test", Secret: "test"}).newKey(t, d, ownAccount, "root", "")
	may := root.newKey(t, d, ownAccount, "deployer", deployer)
	tf.Setenv("AWS_ACCESS_KEY_ID="+may.ID, "AWS_SECRET_ACCESS_KEY="+may.Secret)
	s.to.key, s.to.secret = root.ID, root.Secret
	changed := []string{"-var", "code=two.zip", "-var", "memory=512", "-var", "stage=live"}
	tf.Apply(changed...)
	sameURL, sameMapping := shows("two", "2", "512", "live")
	want(t, "FunctionUrl", sameURL, url)
	want(t, "UUID", sameMapping, mapping)

	tf.Destroy(changed...)
	usage := s.must("GetAccountSettings", nil)["AccountUsage"]
	want(t, "AccountUsage", canonical(usage), `{"FunctionCount":0,"TotalCodeSize":0}`)
	for operation, list := range map[string]string{"ListLayers": "Layers", "ListEventSourceMappings": "EventSourceMappings"} {
		want(t, operation, s.must(operation, nil)[list], "[]")
	}
	iam := session{awsLogs(t), t, iamOf(d)}
	iam.to.key, iam.to.secret = root.ID, root.Secret
	want(t, "roles", iam.must("ListRoles", nil)["Roles"], "[]")
}
