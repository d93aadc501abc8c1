package conformance

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestOneEndpoint runs an application that is told of no endpoint but Kiln's, outside and
// as a function, with queues and tables that others wrote behind it.
func TestOneEndpoint(t *testing.T) {
	t.Parallel()
	moto := kiln.Moto(t)
	// One is configured, one is there for the SDKs, as AWS is, which Kiln does not take.
	d := kiln.StartEnv(t, []string{"KILN_ENDPOINTS=dynamodb=" + moto, "AWS_ENDPOINT_URL_SQS=" + moto, "AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:1", "AWS_ENDPOINT_URL_KINESIS=https://kinesis.us-east-1.amazonaws.com"}, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	s.create("application", values{"Handler": "application.handler", "Timeout": 60, "MemorySize": 512, "Code": values{"ZipFile": withBoto3(t, "application.py", "sqs", "dynamodb", "dynamodbstreams", "kinesis", "ses")}})
	check := func(t *testing.T, endpoint string, output []byte) {
		t.Helper()
		var got map[string]any
		if err := json.Unmarshal(output, &got); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		want(t, "size", got["size"], 100_000)
		want(t, "functions", got["functions"], "[application]")
		want(t, "streams", got["streams"], 1)
		if url, _ := got["url"].(string); !strings.HasPrefix(url, endpoint) {
			t.Errorf("the queue is at %s, and not at %s, where its client called", url, endpoint)
		}
		for service, setting := range map[string]string{"kinesis": "AWS_ENDPOINT_URL_KINESIS", "ses": "endpoints.ses"} {
			message, _ := member(got, service, "Message").(string)
			if member(got, service, "Code") != "NotImplementedException" || !strings.Contains(message, setting) {
				t.Errorf("%s: %v", service, got[service])
			}
		}
	}
	t.Run("outside", func(t *testing.T) {
		program, err := python()
		if err != nil {
			t.Skip(err)
		}
		cmd := exec.Command(program, filepath.Join("testdata", "application.py"), "outside")
		cmd.Env, cmd.Stderr = d.Environ(), os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		check(t, d.URL, out)
	})
	t.Run("inside", func(t *testing.T) {
		_, payload := s.invoke(values{"FunctionName": "application", "Payload": []byte(`{"name":"inside"}`)})
		check(t, "http://", []byte(payload))
	})
	t.Run("AWS CLI", func(t *testing.T) {
		aws := cache("venv", "bin", "aws")
		if _, err := os.Stat(aws); err != nil {
			t.Skip("the AWS CLI is not installed; scripts/test.sh installs it")
		}
		cmd := exec.Command(aws, "--endpoint-url", d.URL, "sqs", "get-queue-url", "--queue-name", "outside", "--query", "QueueUrl", "--output", "text")
		cmd.Env = d.Environ()
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), d.URL) {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// TestEndpointsThatLeadHere: requests would go round in circles.
func TestEndpointsThatLeadHere(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	port := d.URL[strings.LastIndex(d.URL, ":"):]
	d.Stop()
	for _, url := range []string{d.URL, "http://localhost" + port, "http://sqs.localhost" + port + "/x", "http://0.0.0.0" + port} {
		cmd := exec.Command(kiln.Binary(t), "up", "--listen", "127.0.0.1"+port, "--data", filepath.Join(t.TempDir(), "data"))
		cmd.Env = append(os.Environ(), "KILN_ENDPOINTS=sqs="+url)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "the URL of sqs, "+url+", leads to Kiln itself") {
			t.Errorf("%s: %v\n%s", url, err, out)
		}
	}
}
