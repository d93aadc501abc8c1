package environmenttest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"kiln/internal/lambda"
)

// Extension is an external extension, a Python program that registers for events.
// before runs once it has; each runs for each event, which is in event, before the
// next is asked for. SHUTDOWN ends it. What it prints is in the function's log.
// Both may use call(method, path, body, headers…) with its identifier in me.
func Extension(events []string, before, each string) string {
	list, _ := json.Marshal(append([]string{}, events...)) // strings always marshal
	return fmt.Sprintf(extension, list, before, each)
}

const extension = `#!/usr/bin/env python3
import http.client, json, os, sys, time
name = os.path.basename(sys.argv[0])
connection = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])
me = {}
def say(*what): print(name, *what, flush=True)
def call(method, path, body=None, **headers):
    connection.request(method, path, None if body is None else json.dumps(body), {**me, **{k.replace('_', '-'): v for k, v in headers.items()}})
    reply = connection.getresponse()
    return reply.status, reply.headers, reply.read().decode()
status, headers, body = call('POST', '/2020-01-01/extension/register', {'events': %s}, Lambda_Extension_Name=name)
if status != 200: sys.exit(body)
me = {'Lambda-Extension-Identifier': headers['Lambda-Extension-Identifier']}
%s
while True:
    event = json.loads(call('GET', '/2020-01-01/extension/event/next')[2])
    %s
    if event['eventType'] == 'SHUTDOWN': sys.exit(0)
`

// Extend gives a function external extensions: programs by their names.
func (f *Fixture) Extend(fn *lambda.Function, programs map[string]string) {
	f.t.Helper()
	dir := filepath.Join(f.Dir, "layer-"+lambda.NewUUID())
	err := os.MkdirAll(filepath.Join(dir, "extensions", "not-a-file"), 0o755)
	for name, program := range programs {
		if err == nil {
			err = writeProgram(filepath.Join(dir, "extensions", name), program)
		}
	}
	if err != nil {
		f.t.Fatal(err)
	}
	fn.Settings.Layers = append(fn.Settings.Layers, lambda.Layer{Code: lambda.Code{SHA256: dir}})
}
