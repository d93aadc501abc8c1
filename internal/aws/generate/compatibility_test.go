package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestServedBy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if got, err := servedBy(filepath.Join(dir, "absent"), "lambdaapi"); err != nil || len(got) != 0 {
		t.Errorf("without a door: got %v, %v", got, err)
	}
	for name, src := range map[string]string{
		"door.go": `package api
			func (c *call) GetFunction(ctx context.Context, in *lambdaapi.GetFunctionInput) (*lambdaapi.GetFunctionOutput, error)
			func (c *call) Invoke(_ context.Context, _ *lambdaapi.InvokeInput) (*lambdaapi.InvokeOutput, error)
			func (c *call) helper(in *lambdaapi.GetFunctionInput) {}
			func GetPolicy(in *lambdaapi.GetPolicyInput) {}
			func (c *call) GetAlias(in *lambdaapi.GetPolicyInput) {}
			func (c *call) ListTags(in lambdaapi.ListTagsInput) {}`,
		"door_test.go": `package api
			func (f fake) ListFunctions(in *lambdaapi.ListFunctionsInput) {}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := servedBy(dir, "lambdaapi")
	if err != nil {
		t.Fatal(err)
	}
	if list := slices.Sorted(maps.Keys(got)); !slices.Equal(list, []string{"GetFunction", "Invoke"}) {
		t.Errorf("got %q", list)
	}
}
