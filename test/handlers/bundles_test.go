package handlers

import (
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestBundles adds AWS's SDKs, as they are published, and has functions call Kiln with
// them, which bring none of their own.
func TestBundles(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments()...)
	list := `f"{boto3.__file__} {[f['FunctionName'] for f in boto3.client('lambda').list_functions()['Functions']]}"`
	files := map[string]map[string]string{
		"python": {"app.py": "import boto3\ndef handler(event, context):\n    return " + list},
		"nodejs": {
			"app.mjs": "import { LambdaClient, ListFunctionsCommand } from '@aws-sdk/client-lambda';\nimport { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb';\n" +
				"import { required } from './required.cjs';\n" +
				"export const handler = async () => [required === DynamoDBDocumentClient, (await new LambdaClient({}).send(new ListFunctionsCommand({}))).Functions.map((f) => f.FunctionName)];",
			"required.cjs": "exports.required = require('@aws-sdk/lib-dynamodb').DynamoDBDocumentClient;",
		},
	}
	want := map[string]string{
		"python": `"/var/runtime/boto3/__init__.py ['`,
		"nodejs": `[true,["`,
	}
	for _, l := range languages(t, true) {
		code, ok := files[l.name]
		if !ok {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			add(t, d, l.runtime)
			if err := d.TryCreate(l.name, l.runtime, "app.handler", kiln.Zip(code), all(memory(512), timeout(60))); err != nil {
				t.Fatal(err)
			}
			if r := (function{t, d, l.name}).invoke(event{}); !strings.HasPrefix(r.payload, want[l.name]) || !strings.Contains(r.payload, l.name) {
				t.Errorf("got %s, want %s\n%s", r.payload, want[l.name], r.tail)
			}
		})
	}
}
