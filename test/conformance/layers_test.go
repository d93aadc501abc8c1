package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"kiln/test/kiln"
)

const layerPrefix = "arn:aws:lambda:us-east-1:000000000000:layer:"

func layerZip(text string) []byte { return kiln.Zip(map[string]string{"python/shared.py": text}) }

func publication(name, text string, more values) values {
	in := values{"LayerName": name, "Content": values{"ZipFile": layerZip(text)}}
	for member, v := range more {
		in[member] = v
	}
	return in
}

// member walks into an answer by names and list positions.
func member(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			switch m := v.(type) {
			case values:
				v = m[p]
			case map[string]any:
				v = m[p]
			default:
				return nil
			}
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		}
	}
	return v
}

// TestLayerLife takes a layer from its first version to after its last with each client.
func TestLayerLife(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		layer, fn := "life-"+name, "layered-"+name
		arn := layerPrefix + layer
		one := s.must("PublishLayerVersion", publication(layer, "one", values{
			"Description": "first", "LicenseInfo": "MIT", "CompatibleRuntimes": []any{"python3.12", "nodejs22.x"}, "CompatibleArchitectures": []any{"x86_64"},
		}))
		want(t, "LayerVersionArn", one["LayerVersionArn"], arn+":1")
		want(t, "LayerArn", one["LayerArn"], arn)
		want(t, "Version", one["Version"], 1)
		want(t, "CompatibleRuntimes", one["CompatibleRuntimes"], "[python3.12 nodejs22.x]")
		want(t, "LicenseInfo", one["LicenseInfo"], "MIT")
		want(t, "CodeSize", member(one, "Content", "CodeSize"), len(layerZip("one")))
		checkLocation(t, d, member(one, "Content", "Location").(string), layerZip("one"))

		two := s.must("PublishLayerVersion", publication(layer, "two", nil))
		want(t, "Version", two["Version"], 2)
		want(t, "CompatibleRuntimes", two["CompatibleRuntimes"], "[]")
		want(t, "CompatibleArchitectures", two["CompatibleArchitectures"], "[]")
		want(t, "Description", two["Description"], "")
		for what, got := range map[string]values{
			"GetLayerVersion":        s.must("GetLayerVersion", values{"LayerName": layer, "VersionNumber": 1}),
			"GetLayerVersion by ARN": s.must("GetLayerVersion", values{"LayerName": arn, "VersionNumber": 1}),
			"GetLayerVersionByArn":   s.must("GetLayerVersionByArn", values{"Arn": arn + ":1"}),
		} {
			for _, m := range []string{"LayerVersionArn", "Description", "CreatedDate", "Version", "CompatibleRuntimes", "LicenseInfo", "CompatibleArchitectures"} {
				want(t, what+": "+m, got[m], one[m])
			}
			want(t, what+": CodeSha256", member(got, "Content", "CodeSha256"), member(one, "Content", "CodeSha256"))
		}
		list := s.must("ListLayerVersions", values{"LayerName": layer})
		want(t, "the newest version", member(list, "LayerVersions", 0, "Version"), 2)
		want(t, "the oldest version", member(list, "LayerVersions", 1, "LayerVersionArn"), arn+":1")
		filtered := s.must("ListLayers", values{"CompatibleRuntime": "nodejs22.x", "CompatibleArchitecture": "x86_64"})
		found := false
		for i := 0; member(filtered, "Layers", i) != nil; i++ {
			if member(filtered, "Layers", i, "LayerName") == layer {
				found = true
				want(t, "LatestMatchingVersion", member(filtered, "Layers", i, "LatestMatchingVersion", "Version"), 1)
			}
		}
		if !found {
			t.Errorf("the layer is not among %v", filtered)
		}

		// A function that has it keeps it.
		s.create(fn, values{"Layers": []any{arn + ":2"}, "Code": values{"ZipFile": kiln.Zip(map[string]string{"f.py": "def handler(event, context):\n return open('/opt/python/shared.py').read()"})}})
		got := s.must("GetFunction", values{"FunctionName": fn})
		want(t, "Layers", member(got, "Configuration", "Layers"), fmt.Sprintf("[map[Arn:%s:2 CodeSize:%d]]", arn, len(layerZip("two"))))
		for range 2 {
			s.must("DeleteLayerVersion", values{"LayerName": layer, "VersionNumber": 2})
		}
		s.must("DeleteLayerVersion", values{"LayerName": layer, "VersionNumber": 1})
		s.refused("GetLayerVersion", values{"LayerName": layer, "VersionNumber": 2}, 404, "ResourceNotFoundException", "The resource you requested does not exist.")
		if r, err := http.Get(member(one, "Content", "Location").(string)); err != nil || r.StatusCode != 404 {
			t.Errorf("the link to a deleted version: %v, %v", r, err)
		}
		want(t, "versions after their deletion", len(s.must("ListLayerVersions", values{"LayerName": layer})["LayerVersions"].([]any)), 0)
		if strings.Contains(d.Log.String(), "(driver linux,") {
			_, payload := s.invoke(values{"FunctionName": fn})
			want(t, "what the function reads of a deleted version", payload, `"two"`)
		}
		s.refused("UpdateFunctionConfiguration", values{"FunctionName": fn, "Layers": []any{arn + ":2"}}, 400, "InvalidParameterValueException", "Layer version "+arn+":2 does not exist.")
		three := s.must("PublishLayerVersion", publication(layer, "three", nil))
		want(t, "Version after all were deleted", three["Version"], 3)
		updated := s.must("UpdateFunctionConfiguration", values{"FunctionName": fn, "Layers": []any{arn + ":3"}})
		want(t, "Layers", member(updated, "Layers", 0, "Arn"), arn+":3")
		if f := s.wait(s.to, "FunctionUpdatedV2", fn); f != nil {
			t.Fatal(f)
		}
		cleared := s.must("UpdateFunctionConfiguration", values{"FunctionName": fn, "Layers": []any{}})
		want(t, "Layers", cleared["Layers"], nil)

		// Its policy.
		of := values{"LayerName": layer, "VersionNumber": 3}
		with := func(more values) values {
			in := values{"LayerName": layer, "VersionNumber": 3}
			for m, v := range more {
				in[m] = v
			}
			return in
		}
		s.refused("GetLayerVersionPolicy", of, 404, "ResourceNotFoundException", "No policy is associated with the given resource.")
		first := s.must("AddLayerVersionPermission", with(values{"StatementId": "s1", "Action": "lambda:GetLayerVersion", "Principal": "*"}))
		const all = `{"Sid":"s1","Effect":"Allow","Principal":"*","Action":"lambda:GetLayerVersion","Resource":"`
		want(t, "Statement", first["Statement"], all+arn+`:3"}`)
		second := s.must("AddLayerVersionPermission", with(values{
			"StatementId": "s2", "Action": "lambda:GetLayerVersion", "Principal": "111122223333", "OrganizationId": "o-abcdefghij", "RevisionId": first["RevisionId"],
		}))
		const account = `{"Sid":"s2","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"lambda:GetLayerVersion","Resource":"`
		statement := account + arn + `:3","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-abcdefghij"}}}`
		want(t, "Statement", second["Statement"], statement)
		policy := s.must("GetLayerVersionPolicy", of)
		want(t, "Policy", policy["Policy"], `{"Version":"2012-10-17","Id":"default","Statement":[`+all+arn+`:3"},`+statement+`]}`)
		want(t, "RevisionId", policy["RevisionId"], second["RevisionId"])
		s.refused("AddLayerVersionPermission", with(values{"StatementId": "s2", "Action": "lambda:GetLayerVersion", "Principal": "*"}), 409,
			"ResourceConflictException", "The statement id (s2) provided already exists. Please provide a new statement id, or remove the existing statement.")
		const stale = "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the latest Revision Id"
		s.refused("RemoveLayerVersionPermission", with(values{"StatementId": "s1", "RevisionId": first["RevisionId"]}), 412, "PreconditionFailedException", stale)
		s.refused("RemoveLayerVersionPermission", with(values{"StatementId": "s3"}), 404, "ResourceNotFoundException", "Statement s3 is not found in resource policy.")
		s.must("RemoveLayerVersionPermission", with(values{"StatementId": "s1", "RevisionId": second["RevisionId"]}))
		want(t, "Policy", s.must("GetLayerVersionPolicy", of)["Policy"], `{"Version":"2012-10-17","Id":"default","Statement":[`+statement+`]}`)
	})
}

// TestLayerRefusals is what the layers' operations refuse, in AWS's words.
func TestLayerRefusals(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		if name == "cli" {
			return // a process for each call; the other clients show it
		}
		s := session{c, t, anyKey(d)}
		layer, fn := "refused-"+name, "unlayered-"+name
		arn := layerPrefix + layer
		s.must("PublishLayerVersion", publication(layer, "one", nil))
		s.must("PublishLayerVersion", publication(layer, "two", nil))
		s.create(fn, nil)

		const missing = "The resource you requested does not exist."
		for _, n := range []int{0, -1} {
			for _, operation := range []string{"GetLayerVersion", "DeleteLayerVersion", "GetLayerVersionPolicy"} {
				s.refused(operation, values{"LayerName": layer, "VersionNumber": n}, 400, "InvalidParameterValueException", "Layer Version Cannot be less than 1")
			}
		}
		s.refused("GetLayerVersion", values{"LayerName": "absent", "VersionNumber": 1}, 404, "ResourceNotFoundException", missing)
		s.refused("GetLayerVersion", values{"LayerName": layer, "VersionNumber": 9}, 404, "ResourceNotFoundException", missing)
		s.refused("GetLayerVersionByArn", values{"Arn": arn + ":9"}, 404, "ResourceNotFoundException", missing)
		s.refusedIf("GetLayerVersionByArn", values{"Arn": arn}, 400, "ValidationException", "Value '"+arn+"' at 'arn' …",
			func(got string) bool {
				return strings.Contains(got, "Value '"+arn+"' at 'arn' failed to satisfy constraint: Member must satisfy regular expression pattern: arn:")
			})
		s.must("DeleteLayerVersion", values{"LayerName": "absent", "VersionNumber": 1})
		want(t, "versions of an absent layer", s.must("ListLayerVersions", values{"LayerName": "absent"})["LayerVersions"], "[]")

		const notAllowed = "User: arn:aws:iam::000000000000:root is not authorized to perform: "
		theirs := "arn:aws:lambda:us-east-1:111122223333:layer:shared"
		denied := notAllowed + "lambda:GetLayerVersion on resource: " + theirs + ":1 because no resource-based policy allows the lambda:GetLayerVersion action. (Kiln has only layers that were published to it: publish the content of this one, and use that.)"
		s.refused("GetLayerVersionByArn", values{"Arn": theirs + ":1"}, 403, "AccessDeniedException", denied)
		s.refused("GetLayerVersion", values{"LayerName": theirs, "VersionNumber": 1}, 403, "AccessDeniedException", denied)
		s.refused("PublishLayerVersion", publication(theirs, "x", nil), 403, "AccessDeniedException",
			notAllowed+"lambda:PublishLayerVersion on resource: "+theirs+" because no resource-based policy allows the lambda:PublishLayerVersion action")
		s.refused("GetLayerVersion", values{"LayerName": "arn:aws:lambda:eu-west-1:000000000000:layer:" + layer, "VersionNumber": 1}, 404, "ResourceNotFoundException",
			"Layers from 'eu-west-1' are not reachable in this region ('us-east-1')")

		for what, refusal := range map[string]struct {
			layers        []any
			code, message string
		}{
			"six":            {[]any{arn + ":1", arn + ":2", arn + ":3", arn + ":4", arn + ":5", arn + ":6"}, "InvalidParameterValueException", "Cannot reference more than 5 layers."},
			"two versions":   {[]any{arn + ":1", arn + ":2"}, "InvalidParameterValueException", "Two different versions of the same layer are not allowed to be referenced in the same function. " + arn + ":1 and " + arn + ":2 are versions of the same layer."},
			"twice":          {[]any{arn + ":1", arn + ":1"}, "InvalidParameterValueException", "Two different versions of the same layer are not allowed to be referenced in the same function. " + arn + ":1 and " + arn + ":1 are versions of the same layer."},
			"absent":         {[]any{layerPrefix + "absent:1"}, "InvalidParameterValueException", "Layer version " + layerPrefix + "absent:1 does not exist."},
			"absent version": {[]any{arn + ":9"}, "InvalidParameterValueException", "Layer version " + arn + ":9 does not exist."},
			"region":         {[]any{"arn:aws:lambda:eu-west-1:000000000000:layer:" + layer + ":1"}, "InvalidParameterValueException", "Layers are not in the same region as the function. Layers are expected to be in region us-east-1."},
			"account":        {[]any{theirs + ":1"}, "AccessDeniedException", denied},
		} {
			status := map[bool]int{true: 403, false: 400}[what == "account"]
			s.refused("CreateFunction", create(fn+"-"+strings.ReplaceAll(what, " ", ""), values{"Layers": refusal.layers}), status, refusal.code, refusal.message)
			s.refused("UpdateFunctionConfiguration", values{"FunctionName": fn, "Layers": refusal.layers}, status, refusal.code, refusal.message)
		}
		s.refusedIf("UpdateFunctionConfiguration", values{"FunctionName": fn, "Layers": []any{arn}}, 400, "ValidationException", "Value '["+arn+"]' at 'layers' …",
			func(got string) bool {
				return strings.Contains(got, "Value '["+arn+"]' at 'layers' failed to satisfy constraint: Member must satisfy constraint: [")
			})

		// Content.
		const unzip = "Could not unzip uploaded file. Please check your file, then try to upload again."
		for what, zip := range map[string][]byte{"text": []byte("no zip"), "empty": kiln.Zip(nil), "upwards": kiln.Zip(map[string]string{"../x": "x"}), "absolute": kiln.Zip(map[string]string{"/opt/x": "x"})} {
			s.refused("PublishLayerVersion", values{"LayerName": "bad-" + what, "Content": values{"ZipFile": zip}}, 400, "InvalidParameterValueException", unzip)
		}
		s.refused("PublishLayerVersion", values{"LayerName": layer, "Content": values{}}, 400, "InvalidParameterValueException", "Please provide a source for layer content.")
		s.refusedIf("PublishLayerVersion", publication(layer, "x", values{"CompatibleRuntimes": []any{"cobol"}}), 400, "ValidationException", "… at 'compatibleRuntimes' …",
			func(got string) bool {
				return strings.Contains(got, "at 'compatibleRuntimes' failed to satisfy constraint: ")
			})
		s.refusedIf("ListLayers", values{"CompatibleArchitecture": "vax"}, 400, "ValidationException", "… at 'compatibleArchitecture' …",
			func(got string) bool {
				return strings.Contains(got, "Value 'vax' at 'compatibleArchitecture' failed to satisfy constraint: ")
			})
		want(t, "the newest version", member(s.must("ListLayerVersions", values{"LayerName": layer}), "LayerVersions", 0, "Version"), 2)

		// Policies.
		statement := func(version int, more values) values {
			in := values{"LayerName": layer, "VersionNumber": version, "StatementId": "s", "Action": "lambda:GetLayerVersion", "Principal": "*"}
			for m, v := range more {
				in[m] = v
			}
			return in
		}
		noVersion := "Layer version " + arn + ":9 does not exist."
		s.refused("AddLayerVersionPermission", statement(9, nil), 404, "ResourceNotFoundException", noVersion)
		s.refused("GetLayerVersionPolicy", values{"LayerName": layer, "VersionNumber": 9}, 404, "ResourceNotFoundException", noVersion)
		s.refused("RemoveLayerVersionPermission", values{"LayerName": layer, "VersionNumber": 9, "StatementId": "s"}, 404, "ResourceNotFoundException", noVersion)
		for what, more := range map[string]values{"action": {"Action": "*"}, "principal": {"Principal": "me"}, "statementId": {"StatementId": "s s"}, "organizationId": {"OrganizationId": "mine"}} {
			s.refusedIf("AddLayerVersionPermission", statement(1, more), 400, "ValidationException", "… at '"+what+"' …",
				func(got string) bool { return strings.Contains(got, "at '"+what+"' failed to satisfy constraint: ") })
		}
		s.refused("AddLayerVersionPermission", statement(1, values{"RevisionId": "wrong"}), 412, "PreconditionFailedException",
			"The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the latest Revision Id")
	})
}

// TestLayerPages goes through lists a page at a time.
func TestLayerPages(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	s := session{goSDK{}, t, anyKey(d)}
	for i := range 5 {
		s.must("PublishLayerVersion", publication("many", fmt.Sprint(i), nil))
		s.must("PublishLayerVersion", publication(fmt.Sprint("layer", i), "x", nil))
	}
	for operation, list := range map[string]struct {
		in               values
		items, field     string
		size, pages, all int
	}{
		"ListLayers":        {values{}, "Layers", "LayerName", 4, 2, 6},
		"ListLayerVersions": {values{"LayerName": "many"}, "LayerVersions", "Version", 2, 3, 5},
	} {
		var seen []string
		in, pages := list.in, 0
		for more := true; more; pages++ {
			in["MaxItems"] = list.size
			page := s.must(operation, in)
			for i := 0; member(page, list.items, i) != nil; i++ {
				seen = append(seen, fmt.Sprint(member(page, list.items, i, list.field)))
			}
			in["Marker"], more = page["NextMarker"], page["NextMarker"] != nil
		}
		if pages != list.pages || len(seen) != list.all {
			t.Errorf("%s: got %v in %d pages", operation, seen, pages)
		}
		for _, marker := range []string{"§", "bm9wZSBubw"} {
			in["Marker"] = marker
			if out, f := s.call(s.to, operation, in); f == nil && operation == "ListLayerVersions" || f != nil && f.Code != "InvalidParameterValueException" {
				b, _ := json.Marshal(out)
				t.Errorf("%s from the marker %s: %s, %v", operation, marker, b, f)
			}
		}
		for _, size := range []int{0, 51} {
			in["MaxItems"] = size
			if _, f := s.call(s.to, operation, in); f == nil || f.Code != "ValidationException" {
				t.Errorf("%s by %d: %v", operation, size, f)
			}
		}
	}
}

// TestLayersTogether has layers that are fine alone and too large together, with
// each other or with the code.
func TestLayersTogether(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	s := session{goSDK{}, t, anyKey(d)}
	zeros := strings.Repeat("\x00", 60<<20)
	var arns []any
	for i := range 5 {
		out := s.must("PublishLayerVersion", values{"LayerName": fmt.Sprint("large", i), "Content": values{"ZipFile": kiln.Zip(map[string]string{fmt.Sprint("zeros", i): zeros})}})
		arns = append(arns, out["LayerVersionArn"])
	}
	function := values{"Runtime": "provided.al2023", "Handler": "x", "Code": values{"ZipFile": kiln.Zip(map[string]string{"bootstrap!": kiln.Bootstrap(`opt=${PATH##*:}; answer=$(ls "${opt%/bin}" | wc -l)`), "zeros": zeros[:10<<20]})}}
	with := func(layers []any) values {
		in := create("large", function)
		in["Layers"] = layers
		return in
	}
	s.refused("CreateFunction", with(arns), 400, "InvalidParameterValueException", "Layers consume more than the available size of 262144000 bytes")
	s.must("CreateFunction", with(arns[:3]))
	if f := s.wait(s.to, "FunctionActiveV2", "large"); f != nil {
		t.Fatal(f)
	}
	want(t, "files in /opt", s.must("Invoke", values{"FunctionName": "large"})["Payload"], []byte("3"))
	s.refused("UpdateFunctionConfiguration", values{"FunctionName": "large", "Layers": arns}, 400, "InvalidParameterValueException", "Layers consume more than the available size of 262144000 bytes")
	s.refusedIf("UpdateFunctionCode", values{"FunctionName": "large", "ZipFile": kiln.Zip(map[string]string{"zeros": zeros, "more": zeros[:20<<20]})}, 400,
		"InvalidParameterValueException", "Function code combined with layers exceeds …", func(got string) bool {
			return got == fmt.Sprintf("Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. The actual size is %d bytes.", 260<<20)
		})
}
