package conformance

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestNothingReachesAWS runs Kiln as somebody with real credentials does, and
// lets a handler look for them.
func TestNothingReachesAWS(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "process"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{
				"credentials": "[default]\naws_access_key_id = AKIAREAL\naws_secret_access_key = REALSECRET\n",
				"config":      "[default]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/REAL\nsource_profile = default\n",
			} {
				if err := os.WriteFile(filepath.Join(home, ".aws", file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d := kiln.StartEnv(t, []string{
				"HOME=" + home, "AWS_ACCESS_KEY_ID=AKIAREAL", "AWS_SECRET_ACCESS_KEY=REALSECRET", "AWS_SESSION_TOKEN=REALTOKEN",
				"AWS_PROFILE=REALPROFILE", "AWS_CONFIG_FILE=" + home + "/.aws/config", "AWS_SHARED_CREDENTIALS_FILE=" + home + "/.aws/credentials",
				"AWS_ROLE_ARN=arn:aws:iam::123456789012:role/REAL", "AWS_WEB_IDENTITY_TOKEN_FILE=/REAL", "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:1/REAL",
				"AWS_ENDPOINT_URL=https://REAL.amazonaws.com", "AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1",
			}, "--any-runtime", "--driver", driver)
			code, err := os.ReadFile(filepath.Join("testdata", "escape.py"))
			if err != nil {
				t.Fatal(err)
			}
			s := session{goSDK{}, t, anyKey(d)}
			s.create("escape", values{"Handler": "escape.handler", "Timeout": 30, "Code": values{"ZipFile": kiln.Zip(map[string]string{"escape.py": string(code)})}})
			event := values{"home": home, "addresses": []string{}}
			if driver == "auto" { // sealed: neither the folder nor the address is there at all
				event["addresses"] = []string{"169.254.169.254", "169.254.170.2"}
			} else {
				event["home"] = "/nonexistent" // a plain process may read what its user may
			}
			text, err := json.Marshal(event)
			if err != nil {
				t.Fatal(err)
			}
			_, payload := s.invoke(values{"FunctionName": "escape", "Payload": text})
			var seen struct {
				Environ map[string]string
				Home    string
				Found   []any
				Reached []string
			}
			if err := json.Unmarshal([]byte(payload), &seen); err != nil {
				t.Fatalf("%v in %s", err, payload)
			}
			if strings.Contains(payload, "REAL") {
				t.Errorf("the handler found real credentials: %s", payload)
			}
			if len(seen.Reached) > 0 {
				t.Errorf("the handler reached %v", seen.Reached)
			}
			if seen.Home == home {
				t.Errorf("the handler has the home folder of whoever runs Kiln")
			}
			for name, want := range map[string]string{"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"} {
				if got := seen.Environ[name]; got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			for name, prefix := range map[string]string{"AWS_ACCESS_KEY_ID": "ASIA", "AWS_ENDPOINT_URL": "http://127.0.0.1:"} {
				if !strings.HasPrefix(seen.Environ[name], prefix) {
					t.Errorf("%s: got %q, want %s…", name, seen.Environ[name], prefix)
				}
			}
			for _, name := range []string{"AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
				if value, ok := seen.Environ[name]; ok {
					t.Errorf("%s is %q", name, value)
				}
			}
		})
	}
}

// TestPassedCredentials gives functions the credentials that Kiln was started with,
// because its owner said so, and no endpoint but those that were configured.
func TestPassedCredentials(t *testing.T) {
	t.Parallel()
	d := kiln.StartEnv(t, []string{"AWS_ACCESS_KEY_ID=AKIAOWNER", "AWS_SECRET_ACCESS_KEY=SECRET", "KILN_ENDPOINTS=sqs=http://127.0.0.1:9324"}, "--any-runtime", "--pass-credentials")
	s := session{goSDK{}, t, anyKey(d)}
	s.create("owner", values{"Handler": "app.handler", "Code": values{"ZipFile": kiln.Zip(map[string]string{
		"app.py": "import os\ndef handler(event, context):\n    return {k: v for k, v in os.environ.items() if k.startswith('AWS_') and ('KEY' in k or 'TOKEN' in k or 'ENDPOINT' in k)}\n",
	})}})
	_, payload := s.invoke(values{"FunctionName": "owner"})
	want(t, "variables", payload, `{"AWS_ACCESS_KEY_ID": "AKIAOWNER", "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9324", "AWS_SECRET_ACCESS_KEY": "SECRET"}`)

	cmd := exec.Command(kiln.Binary(t), "up", "--pass-credentials", "--listen", "127.0.0.1:0", "--data", t.TempDir())
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "was started without AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") {
		t.Errorf("without credentials: %v: %s", err, out)
	}
}

// TestOwnIdentity has a handler call Kiln with boto3 and the credentials that it
// finds in its environment. They are verified although this Kiln has no keys.
func TestOwnIdentity(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	s.create("identity", values{"Handler": "identity.handler", "Timeout": 120, "MemorySize": 512, "Code": values{"ZipFile": withBoto3(t, "identity.py")}})
	out, payload := s.invoke(values{"FunctionName": "identity"})
	var got map[string]any
	if err := json.Unmarshal([]byte(payload), &got); err != nil || out["FunctionError"] != nil {
		t.Fatalf("got %v: %s", err, payload)
	}
	const invalid = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	const unknown = "UnrecognizedClientException: The security token included in the request is invalid."
	want(t, "functions", got["functions"], "[identity]")
	want(t, "a function of another account", got["foreign"],
		"AccessDeniedException: User: arn:aws:sts::000000000000:assumed-role/test/identity is not authorized to perform: lambda:GetFunction on resource: arn:aws:lambda:us-east-1:111122223333:function:x because no resource-based policy allows the lambda:GetFunction action")
	want(t, "a wrong secret", got["wrong secret"], "InvalidSignatureException: "+invalid)
	want(t, "a wrong token", got["wrong token"], unknown)
	want(t, "a key of nobody", got["other key"], unknown)
	want(t, "its own log", got["logs"], "[AccessDeniedException: User: arn:aws:sts::000000000000:assumed-role/test/identity is not authorized to perform: logs:ListTagsForResource on resource: arn:aws:logs:us-east-1:111122223333:log-group:/own because no resource-based policy allows the logs:ListTagsForResource action put by the function]")
	logs := session{awsLogs(t), t, logsOf(d)}
	if found := logs.must("FilterLogEvents", values{"logGroupName": "/aws/lambda/identity", "filterPattern": `"put by the function"`})["events"].([]any); len(found) != 1 {
		t.Errorf("in the function's own stream: %v", found)
	}
	want(t, "who it is", got["sts"], "arn:aws:sts::000000000000:assumed-role/test/identity")
	if text, _ := got["sns"].(string); !strings.HasPrefix(text, "NotImplementedException: Kiln does not serve sns,") {
		t.Errorf("another service: got %s", text)
	}
}

// withBoto3 is a package with boto3 in it, as people make one: the folder of pip,
// less the models of the services that the handler does not use.
func withBoto3(t *testing.T, handler string, services ...string) []byte {
	t.Helper()
	services = append(services, "lambda", "logs", "sts", "sns")
	program, err := python()
	if err != nil {
		t.Skip(err)
	}
	out, err := exec.Command(program, "-c", "import boto3, os; print(os.path.dirname(os.path.dirname(boto3.__file__)))").Output()
	if err != nil {
		t.Fatal(err)
	}
	site := strings.TrimSpace(string(out))
	files := map[string]string{}
	add := func(name, path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(b)
	}
	add(handler, filepath.Join("testdata", handler))
	add("six.py", filepath.Join(site, "six.py"))
	for _, folder := range []string{"boto3", "botocore", "s3transfer", "jmespath", "urllib3", "dateutil"} {
		err := filepath.WalkDir(filepath.Join(site, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, err := filepath.Rel(site, path)
			if err != nil {
				return err
			}
			if entry.IsDir() {
				parent := filepath.Base(filepath.Dir(path))
				if entry.Name() == "__pycache__" || entry.Name() == "examples" || parent == "data" && !slices.Contains(services, entry.Name()) {
					return filepath.SkipDir
				}
				return nil
			}
			add(name, path)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return kiln.Zip(files)
}
