package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"kiln/test/kiln"
)

var update = flag.Bool("update", false, "write the golden files")

// changing are the parts of an answer that differ from run to run.
var changing = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`), "<uuid>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000`), "<time>"},
	{regexp.MustCompile(`"LastModified": [0-9.]+`), `"LastModified": "<seconds>"`},
	{regexp.MustCompile(`runtime:[0-9a-f]{64}`), "runtime:<digest>"},
	{regexp.MustCompile(`"Location": "http://127\.0\.0\.1:\d+/[^"]*"`), `"Location": "<link>"`},
	{regexp.MustCompile(`"(x86_64|arm64)"`), `"<architecture>"`},
}

// TestGolden compares whole answers, member by member, with what AWS answers to a
// minimal function and to one with an OS-only runtime.
func TestGolden(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	code := base64.StdEncoding.EncodeToString(kiln.Zip(map[string]string{"bootstrap!": "#!/bin/sh\n"}))
	const functions, layers, mappings = "/2015-03-31/functions", "/2018-10-31/layers", "/2015-03-31/event-source-mappings"
	const secret = `"SourceAccessConfigurations":[{"Type":"BASIC_AUTH","URI":"arn:aws:secretsmanager:us-east-1:000000000000:secret:s"}]`
	for _, step := range []struct{ name, method, path, body string }{
		{"create_python", "POST", functions, `{"FunctionName":"python","Runtime":"python3.12","Handler":"f.handler","Role":"` + kiln.Role + `","Code":{"ZipFile":"` + code + `"}}`},
		{"create_provided", "POST", functions, `{"FunctionName":"provided","Runtime":"provided.al2023","Handler":"f","Role":"` + kiln.Role + `","Code":{"ZipFile":"` + code + `"},"Environment":{"Variables":{"KEY":"value"}},"Tags":{"team":"red"}}`},
		{"get_python", "GET", functions + "/python", ""},
		{"get_provided", "GET", functions + "/provided", ""},
		{"get_configuration", "GET", functions + "/python/configuration", ""},
		{"list", "GET", functions, ""},
		{"not_found", "GET", functions + "/absent", ""},
		{"conflict", "POST", functions, `{"FunctionName":"python","Runtime":"python3.12","Handler":"f.handler","Role":"` + kiln.Role + `","Code":{"ZipFile":"` + code + `"}}`},
		{"publish_layer", "POST", layers + "/l/versions", `{"Content":{"ZipFile":"` + code + `"}}`},
		{"publish_layer_whole", "POST", layers + "/l/versions", `{"Content":{"ZipFile":"` + code + `"},"Description":"d","LicenseInfo":"MIT","CompatibleRuntimes":["python3.12"],"CompatibleArchitectures":["x86_64","arm64"]}`},
		{"get_layer", "GET", layers + "/l/versions/2", ""},
		{"list_layers", "GET", layers, ""},
		{"list_layer_versions", "GET", layers + "/l/versions", ""},
		{"layer_permission", "POST", layers + "/l/versions/1/policy", `{"StatementId":"s","Action":"lambda:GetLayerVersion","Principal":"*"}`},
		{"layer_policy", "GET", layers + "/l/versions/1/policy", ""},
		{"mapping_sqs", "POST", mappings, `{"FunctionName":"python","EventSourceArn":"arn:aws:sqs:us-east-1:000000000000:q"}`},
		{"mapping_kinesis", "POST", mappings, `{"FunctionName":"python:$LATEST","EventSourceArn":"arn:aws:kinesis:us-east-1:000000000000:stream/s","StartingPosition":"AT_TIMESTAMP","StartingPositionTimestamp":1700000000.5}`},
		{"mapping_kafka", "POST", mappings, `{"FunctionName":"python","SelfManagedEventSource":{"Endpoints":{"KAFKA_BOOTSTRAP_SERVERS":["b:9092"]}},"Topics":["logs"],"StartingPosition":"LATEST",` + secret + `}`},
		{"mapping_msk", "POST", mappings, `{"FunctionName":"python","EventSourceArn":"arn:aws:kafka:us-east-1:000000000000:cluster/c/1","Topics":["logs"],"StartingPosition":"LATEST","ProvisionedPollerConfig":{"MinimumPollers":1}}`},
		{"mapping_mq", "POST", mappings, `{"FunctionName":"python","EventSourceArn":"arn:aws:mq:us-east-1:000000000000:broker:b:1","Queues":["q"],` + secret + `}`},
		{"mapping_documentdb", "POST", mappings, `{"FunctionName":"python","EventSourceArn":"arn:aws:rds:us-east-1:000000000000:cluster:c","StartingPosition":"LATEST","DocumentDBEventSourceConfig":{"DatabaseName":"d"},` + secret + `}`},
	} {
		if step.name == "get_python" {
			for _, name := range []string{"python", "provided"} {
				if f := (goSDK{}).wait(anyKey(d), "FunctionActiveV2", name); f != nil {
					t.Fatal(f)
				}
			}
		}
		status, answer := send(t, step.method, d.URL+step.path, step.body, date())
		answer["status"] = status
		got, err := json.MarshalIndent(answer, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got = bytes.ReplaceAll(got, []byte(`\u0026`), []byte("&"))
		for _, c := range changing {
			got = c.pattern.ReplaceAll(got, []byte(c.with))
		}
		got = append(got, '\n')
		file := filepath.Join("testdata", "golden", step.name+".json")
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", step.name, got, want)
		}
	}
}
