package python_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/environment/clienttest"
)

func TestContext(t *testing.T) {
	app := `
import os
from awslambdaric.lambda_context import LambdaContext
def handler(event, context):
    c, i = context.client_context, context.identity
    return {
        "repr": repr(context), "typed": isinstance(context, LambdaContext),
        "client": c and [c.custom, c.env, c.client and [c.client.installation_id, c.client.app_title, c.client.app_version_name]],
        "identity": [i.cognito_identity_id, i.cognito_identity_pool_id], "memory": context.memory_limit_in_mb,
        "remaining": 0 < context.get_remaining_time_in_millis() <= 60000,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"), "tenant": context.tenant_id, "w3c": context.w3c(),
    }
`
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code(app))
		check := func(what, payload string, want map[string]any) {
			t.Helper()
			var got map[string]any
			if err := json.Unmarshal([]byte(payload), &got); err != nil {
				t.Fatalf("%s: %v in %s", what, err, payload)
			}
			for k, v := range want {
				if fmt.Sprint(got[k]) != fmt.Sprint(v) {
					t.Errorf("%s: %s is %v, want %v", what, k, got[k], v)
				}
			}
		}
		check("bare", r.Answer(`{}`), map[string]any{
			"repr": "LambdaContext([aws_request_id=" + clienttest.RequestID + ",log_group_name=/aws/lambda/f,log_stream_name=stream,function_name=f," +
				"memory_limit_in_mb=128,function_version=$LATEST,invoked_function_arn=arn:aws:lambda:us-east-1:000000000000:function:f," +
				"client_context=None,identity=CognitoIdentity([cognito_identity_id=None,cognito_identity_pool_id=None]),tenant_id=None])",
			"typed": true, "client": nil, "identity": []any{nil, nil}, "memory": "128", "remaining": true,
			"trace": "Root=1-2-3;Parent=4;Sampled=1", "tenant": nil, "w3c": map[string]any{},
		})

		full := clienttest.Event(`{}`)
		full.ClientContext = `{"custom":{"a":"é"},"env":{"e":1},"client":{"installation_id":"i","app_title":"t"},"w3c":{"traceparent":"00-1-2-01","baggage":5,"other":"x"}}`
		full.CognitoIdentity = `{"cognitoIdentityId":"id","cognitoIdentityPoolId":"pool"}`
		full.TraceHeader = ""
		a, err := r.Try(full)
		if err != nil {
			t.Fatal(err)
		}
		check("full", string(a.Payload), map[string]any{
			"client":   []any{map[string]any{"a": "é"}, map[string]any{"e": 1}, []any{"i", "t", nil}},
			"identity": []any{"id", "pool"}, "trace": nil, "w3c": map[string]any{"traceparent": "00-1-2-01"},
		})

		bad := clienttest.Event(`{}`)
		bad.ClientContext = `{bad`
		if a, err := r.Try(bad); err != nil || a.ErrorType != "Runtime.LambdaContextUnmarshalError" ||
			!strings.Contains(string(a.Payload), "Unable to parse Client Context JSON: ") {
			t.Errorf("bad client context: %s, %v", a.Payload, err)
		}
		past := clienttest.Event(`{}`)
		past.Deadline = past.Deadline.AddDate(-1, 0, 0)
		if a, err := r.Try(past); err != nil || !strings.Contains(string(a.Payload), `"remaining": false`) {
			t.Errorf("after the deadline: %s, %v", a.Payload, err)
		}
	})
}

func TestModulesAreFoundInOrder(t *testing.T) {
	show := func(where string) string { return "where = '" + where + "'\n" }
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		site := fmt.Sprintf("python/lib/python3.%d/site-packages/", minor(rt))
		r := clienttest.Start(t, rt, function{
			Handler: "pkg/sub/app.handler",
			Files: map[string]string{
				"pkg/sub/app.py": "import one, two, three, logging, json, sys\nfrom os.path import dirname\ndef handler(event, context):\n" +
					"    return [one.where, two.where, three.where, hasattr(logging, 'where'), hasattr(json, 'where'), __name__, sys.path[0] == dirname(dirname(dirname(__file__)))]",
				"one.py": show("task"), "logging.py": show("task"), "json.py": show("task"),
			},
			Layer: map[string]string{
				site + "one.py": show("site"), site + "two.py": show("site"),
				"python/one.py": show("python"), "python/two.py": show("python"), "python/three.py": show("python"),
			},
		})
		if got := r.Answer(`{}`); got != `["task", "site", "python", false, false, "pkg.sub.app", true]` {
			t.Errorf("got %s", got)
		}
	})
}

// Path files extend the path from the code and from layers.
func TestPathFiles(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, function{
			Files: map[string]string{"app.py": "import one, two\ndef handler(event, context):\n    return [one.x, two.x]", "own.pth": "vendor\n", "vendor/one.py": "x = 1"},
			Layer: map[string]string{"python/layer.pth": "deeper\n", "python/deeper/two.py": "x = 2"},
		})
		if got := r.Answer(`{}`); got != `[1, 2]` {
			t.Errorf("got %s", got)
		}
	})
}

// A PYTHONPATH of the function's own comes instead of the layers.
func TestFunctionsOwnPythonPath(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		extra := t.TempDir()
		clienttest.Write(t, extra, map[string]string{"elsewhere.py": "x = 1", "both.py": "x = 1"})
		f := code("import elsewhere, both, sys, os\nassert both.x == 1\ndef handler(event, context):\n    return [elsewhere.x, os.environ['AWS_EXECUTION_ENV'], os.environ['TZ'], os.getcwd() == os.environ['LAMBDA_TASK_ROOT']]")
		f.Env = map[string]string{"PYTHONPATH": extra}
		f.Layer = map[string]string{"python/both.py": "x = 2"}
		want := `[1, "AWS_Lambda_` + string(rt.ID) + `", ":UTC", true]`
		if got := clienttest.Start(t, rt, f).Answer(`{}`); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}
