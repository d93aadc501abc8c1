package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

func TestReadParameters(t *testing.T) {
	t.Parallel()
	m := &model{
		Operations: map[string]*operation{"Create": {}, "Get": {}, "Invoke": {}},
		Shapes: map[string]*shape{
			"Create":  {Type: "structure", Members: members{{Name: "Name", Shape: "Name"}, {Name: "Code", Shape: "Code"}, {Name: "Filters", Shape: "Filters"}}},
			"Get":     {Type: "structure", Members: members{{Name: "Name", Shape: "Name"}}},
			"Code":    {Type: "structure", Members: members{{Name: "Bucket", Shape: "Name"}, {Name: "Key", Shape: "Name"}}},
			"Filters": {Type: "list", Member: member{Shape: "Code"}},
			"Name":    {Type: "string"},
		},
	}
	m.Operations["Create"].Input.Shape, m.Operations["Get"].Input.Shape = "Create", "Get"
	served := map[string]bool{"Create": true, "Get": true, "helper": true}
	const around = "Prose.\n\n## Parameters\n\n- Get\n"

	m.service.notes = around + "- Create\n  - Code.Bucket, Code.Key: refused: no\n    bucket: none\n  - Filters.Key, Filters: kept: it is\n"
	prose, exceptions, err := readParameters(m, served)
	if err != nil || prose != "Prose.\n\n" {
		t.Fatalf("got %q, %v", prose, err)
	}
	if e := exceptions["Create"]; len(e) != 2 || e[0].reason != "no bucket: none" || e[1].fate != "kept" {
		t.Errorf("got %+v", e)
	}
	if got := m.working("Create", exceptions["Create"]); !slices.Equal(got, []string{"Name", "Code"}) {
		t.Errorf("works: %q", got)
	}
	if got := summary([]string{"Name", "Code"}, exceptions["Create"]); got != "2 work, 2 kept, 2 refused" {
		t.Errorf("summary %q", got)
	}
	for notes, want := range map[string]string{
		"":                                       "nothing of the parameters of Create",
		"- Create, Invoke\n":                     "Invoke, which is not served",
		"- Create\n  - Size: kept: it is\n":      "Create has no parameter Size",
		"- Create\n  - Code.Size: kept: it is\n": "Create has no parameter Code.Size",
		"- Create\n  - Name.Code: kept: it is\n": "Create has no parameter Name.Code",
		"- Create\n  - Name: lost: it is\n":      "neither a list of operations",
		"- Create\n  - Name: kept\n":             "neither a list of operations",
		"- Create\nName: kept: it is\n":          "neither a list of operations",
	} {
		m.service.notes = around + notes
		if _, _, err := readParameters(m, served); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", notes, err, want)
		}
	}
}
