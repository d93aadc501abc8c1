package registry_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kiln/internal/lambda"
	"kiln/internal/registry"
	"kiln/internal/state"
)

// me is of the account that functions and layers are of.
var me = lambda.Principal{Account: scope.Account, ARN: "arn:aws:iam::123456789012:root"}

func layerNamed(name string) lambda.LayerARN {
	return lambda.LayerARN{Scope: scope, Name: lambda.LayerName(name)}
}

func version(name string, n int64) lambda.LayerVersionARN {
	return lambda.LayerVersionARN{LayerARN: layerNamed(name), Version: n}
}

func (r *rig) publish(name, zip string) *lambda.LayerVersion {
	r.t.Helper()
	v, err := r.PublishLayer(r.t.Context(), registry.PublishLayer{ARN: layerNamed(name), Zip: []byte(zip), Description: "of " + zip})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *rig) deleteLayer(arn lambda.LayerVersionARN) {
	r.t.Helper()
	if err := r.DeleteLayerVersion(r.t.Context(), arn); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) configure(name string, layers ...string) *lambda.Function {
	r.t.Helper()
	if _, err := r.UpdateConfiguration(r.t.Context(), registry.UpdateConfiguration{By: me, ARN: named(name), Layers: layers, Apply: func(*lambda.Settings) {}}); err != nil {
		r.t.Fatal(err)
	}
	return r.settled(name)
}

// message checks an error's code and text.
func message(t *testing.T, err error, code, want string) {
	t.Helper()
	if e := lambda.AsError(err); e == nil || e.Code != code || e.Message != want {
		t.Errorf("got %v\nwant %s: %s", err, code, want)
	}
}

func TestLayerLife(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	one := r.publish("l", "one")
	two := r.publish("l", "two")
	if one.ARN.String() != "arn:aws:lambda:us-east-1:123456789012:layer:l:1" || two.ARN.Version != 2 || one.Code.SHA256 != digest("one") || one.Created.IsZero() {
		t.Errorf("published %+v, %+v", one, two)
	}
	r.reopen()
	again, err := r.LayerVersion(me, version("l", 2))
	if diff := cmp.Diff(two, again); err != nil || diff != "" {
		t.Errorf("after a restart (-before +after): %v\n%s", err, diff)
	}
	for range 2 {
		r.deleteLayer(version("l", 2))
		r.deleteLayer(version("absent", 1))
	}
	_, err = r.LayerVersion(me, version("l", 2))
	message(t, err, "ResourceNotFoundException", "The resource you requested does not exist.")
	if r.packages.has("two") || !r.packages.has("one") {
		t.Error("an unused package stays, or a used one is gone")
	}
	r.deleteLayer(version("l", 1))
	r.reopen()
	if v := r.publish("l", "three"); v.ARN.Version != 3 {
		t.Errorf("the version number %d was given again", v.ARN.Version)
	}
	if r.packages.count() != 1 {
		t.Errorf("%d packages are left", r.packages.count())
	}
}

// A function keeps the layers that it has, whatever happens to them.
func TestLayersOfFunctions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.publish("a", "A").ARN.String(), r.publish("b", "B").ARN.String()
	c := creation("f", "code")
	c.By, c.Layers = me, []string{b, a}
	if _, err := r.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	f := r.settled("f")
	if l := f.Settings.Layers; len(l) != 2 || l[0].ARN.String() != b || l[1].Code.SHA256 != digest("A") {
		t.Errorf("its layers are %+v", l)
	}
	r.deleteLayer(version("a", 1))
	r.deleteLayer(version("b", 1))
	r.reopen()
	r.Sweep(t.Context(), []lambda.Code{{SHA256: digest("A")}, {SHA256: digest("B")}, {SHA256: digest("code")}})
	updated := r.update("f", "other code")
	if diff := cmp.Diff(f.Settings.Layers, updated.Settings.Layers); diff != "" || !r.packages.has("A") || !r.packages.has("B") {
		t.Errorf("after its layers were deleted, packages are there: %v %v;\n%s", r.packages.has("A"), r.packages.has("B"), diff)
	}
	if kept := r.configure("f"); len(kept.Settings.Layers) != 2 { // nil
		t.Errorf("a change that names no layers left %+v", kept.Settings.Layers)
	}
	// A deleted one cannot be named any more, even by who has it.
	_, err := r.UpdateConfiguration(t.Context(), registry.UpdateConfiguration{By: me, ARN: named("f"), Layers: []string{a}, Apply: func(*lambda.Settings) {}})
	message(t, err, "InvalidParameterValueException", "Layer version "+a+" does not exist.")

	before := r.settled("f")
	two := r.publish("a", "A").ARN.String() // the same content
	changed := r.configure("f", two)
	if changed.Build == before.Build || r.packages.has("B") || !r.packages.has("A") {
		t.Errorf("changed from %+v to %+v, packages are there: %v %v", before, changed, r.packages.has("A"), r.packages.has("B"))
	}
	r.deleteLayer(version("a", 2))
	if r.configure("f", []string{}...); r.packages.has("A") {
		t.Error("the package of a layer that nothing has stays")
	}
	if err := r.Delete(t.Context(), named("f")); err != nil {
		t.Fatal(err)
	}
	if r.packages.count() != 0 {
		t.Errorf("%d packages are left", r.packages.count())
	}
}

func TestLayerRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var arns []string
	for i := range 7 {
		arns = append(arns, r.publish(fmt.Sprint("l", i), fmt.Sprintf("60 MB %d", i)).ARN.String())
	}
	second := r.publish("l1", "small").ARN.String()
	small := r.publish("small", "small").ARN.String()
	elsewhere, err := r.PublishLayer(t.Context(), registry.PublishLayer{ARN: lambda.LayerARN{Scope: lambda.Scope{Account: scope.Account, Region: "eu-west-1"}, Name: "l"}, Zip: []byte("zip")})
	if err != nil {
		t.Fatal(err)
	}
	foreign := r.foreign("shared", "*", "")
	r.foreign("organised", "*", "o-abcdefghij")
	denied := func(arn string) string {
		return "User: " + me.ARN + " is not authorized to perform: lambda:GetLayerVersion on resource: " + arn + " because no resource-based policy allows the lambda:GetLayerVersion action. (Kiln has only layers that were published to it: publish the content of this one, and use that.)"
	}
	other := "arn:aws:lambda:us-east-1:210987654321:layer:"
	r.create("f", "10 MB of code")
	packages := r.packages.count()
	for _, c := range []struct {
		what          string
		layers        []string
		code, message string
	}{
		{"six", arns[:6], "InvalidParameterValueException", "Cannot reference more than 5 layers."},
		{"no ARN", []string{"l0"}, "InvalidParameterValueException", `"l0" is not the ARN of a layer version`},
		{"no number", []string{"arn:aws:lambda:us-east-1:123456789012:layer:l0:99999999999999999999"}, "InvalidParameterValueException", `The version of "arn:aws:lambda:us-east-1:123456789012:layer:l0:99999999999999999999" is out of range`},
		{"version 0", []string{version("l0", 0).String()}, "InvalidParameterValueException", "Layer version " + version("l0", 0).String() + " does not exist."},
		{"no such version", []string{arns[0], version("l1", 9).String()}, "InvalidParameterValueException", "Layer version " + version("l1", 9).String() + " does not exist."},
		{"no such layer", []string{version("absent", 1).String()}, "InvalidParameterValueException", "Layer version " + version("absent", 1).String() + " does not exist."},
		{"two versions", []string{arns[0], arns[1], second}, "InvalidParameterValueException", "Two different versions of the same layer are not allowed to be referenced in the same function. " + arns[1] + " and " + second + " are versions of the same layer."},
		{"twice", []string{arns[0], arns[0]}, "InvalidParameterValueException", "Two different versions of the same layer are not allowed to be referenced in the same function. " + arns[0] + " and " + arns[0] + " are versions of the same layer."},
		{"another region", []string{elsewhere.ARN.String()}, "InvalidParameterValueException", "Layers are not in the same region as the function. Layers are expected to be in region us-east-1."},
		{"another account", []string{other + "absent:1"}, "AccessDeniedException", denied(other + "absent:1")},
		{"another account's version", []string{other + "shared:2"}, "AccessDeniedException", denied(other + "shared:2")},
		{"another organisation", []string{other + "organised:1"}, "AccessDeniedException", denied(other + "organised:1")},
		{"another account and region", []string{"arn:aws:lambda:eu-west-1:210987654321:layer:shared:1"}, "AccessDeniedException", denied("arn:aws:lambda:eu-west-1:210987654321:layer:shared:1")},
		{"too large together", arns[:5], "InvalidParameterValueException", "Layers consume more than the available size of 262144000 bytes"},
		{"too large with the code", append(append([]string{}, arns[:4]...), small), "InvalidParameterValueException", "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. The actual size is 272629760 bytes."},
	} {
		code := "20 MB of code" // 4 × 60 and this are too much
		in := creation("refused", code)
		in.By, in.Layers = me, c.layers
		_, err := r.Create(t.Context(), in)
		message(t, err, c.code, c.message)
		if c.what == "too large with the code" {
			continue // f is smaller
		}
		_, err = r.UpdateConfiguration(t.Context(), registry.UpdateConfiguration{By: me, ARN: named("f"), Layers: c.layers, Apply: func(*lambda.Settings) {}})
		message(t, err, c.code, c.message)
	}
	if r.packages.count() != packages || len(r.settled("f").Settings.Layers) != 0 {
		t.Errorf("refused changes left %d packages of %d, and layers %v", r.packages.count(), packages, r.settled("f").Settings.Layers)
	}
	f := r.configure("f", append([]string{foreign.ARN.String()}, arns[:4]...)...)
	if len(f.Settings.Layers) != 5 { // 240 MB and 10 of code: the limit itself
		t.Errorf("its layers are %+v", f.Settings.Layers)
	}
	_, err = r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Zip: []byte("11 MB of code")})
	message(t, err, "InvalidParameterValueException", "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. The actual size is 263192576 bytes.")
	_, err = r.PublishLayer(t.Context(), registry.PublishLayer{ARN: layerNamed("bad"), Zip: []byte("bad")})
	code(t, err, "InvalidParameterValueException")
	if v := r.publish("bad", "good"); v.ARN.Version != 1 {
		t.Errorf("what was refused took a version number: %v", v.ARN)
	}
}

// foreign publishes a layer of another account, with a permission.
func (r *rig) foreign(name, principal, organization string) *lambda.LayerVersion {
	r.t.Helper()
	v, err := r.PublishLayer(r.t.Context(), registry.PublishLayer{ARN: lambda.LayerARN{Scope: lambda.Scope{Account: "210987654321", Region: scope.Region}, Name: lambda.LayerName(name)}, Zip: []byte("foreign " + name)})
	if err == nil {
		v, err = r.AddLayerPermission(r.t.Context(), v.ARN, lambda.Statement{ID: "s", Action: "lambda:GetLayerVersion", Principal: principal, Organization: organization}, "")
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func TestLayerPolicies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.publish("l", "zip").ARN
	add := func(arn lambda.LayerVersionARN, id, principal string, revision lambda.RevisionID) (*lambda.LayerVersion, error) {
		return r.AddLayerPermission(t.Context(), arn, lambda.Statement{ID: id, Action: "lambda:GetLayerVersion", Principal: principal}, revision)
	}
	_, err := r.LayerPolicy(l)
	message(t, err, "ResourceNotFoundException", "No policy is associated with the given resource.")
	message(t, r.RemoveLayerPermission(t.Context(), l, "s1", ""), "ResourceNotFoundException", "No policy is associated with the given resource.")
	absent := version("l", 2)
	for _, err := range []error{
		func() error { _, err := r.LayerPolicy(absent); return err }(),
		func() error { _, err := add(absent, "s1", "*", ""); return err }(),
		r.RemoveLayerPermission(t.Context(), absent, "s1", ""),
	} {
		message(t, err, "ResourceNotFoundException", "Layer version "+absent.String()+" does not exist.")
	}
	const stale = "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the latest Revision Id"
	_, err = add(l, "s1", "*", "wrong")
	message(t, err, "PreconditionFailedException", stale)
	one, err := add(l, "s1", "*", "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = add(l, "s1", "*", "")
	message(t, err, "ResourceConflictException", "The statement id (s1) provided already exists. Please provide a new statement id, or remove the existing statement.")
	two, err := add(l, "s2", "210987654321", one.Policy.Revision)
	if err != nil || two.Policy.Revision == one.Policy.Revision {
		t.Fatalf("%+v, %v", two, err)
	}
	r.reopen()
	policy, err := r.LayerPolicy(l)
	if diff := cmp.Diff(two.Policy, policy); err != nil || diff != "" {
		t.Errorf("after a restart: %v\n%s", err, diff)
	}
	message(t, r.RemoveLayerPermission(t.Context(), l, "s1", one.Policy.Revision), "PreconditionFailedException", stale)
	message(t, r.RemoveLayerPermission(t.Context(), l, "s3", ""), "ResourceNotFoundException", "Statement s3 is not found in resource policy.")
	if err := r.RemoveLayerPermission(t.Context(), l, "s1", policy.Revision); err != nil {
		t.Fatal(err)
	}
	// What others may read, and no more.
	friend := lambda.Principal{Account: "210987654321", ARN: "arn:aws:iam::210987654321:root"}
	if v, err := r.LayerVersion(friend, l); err != nil || v.ARN != l {
		t.Errorf("who is allowed to read it gets %v, %v", v, err)
	}
	_, err = r.LayerVersion(lambda.Principal{Account: "999999999999"}, l)
	code(t, err, "AccessDeniedException")

	for i := 0; err == nil || lambda.AsError(err).Code != "PolicyLengthExceededException"; i++ {
		if _, err = add(l, fmt.Sprint("more", i), "*", ""); err != nil && lambda.AsError(err) == nil || i > 1000 {
			t.Fatal(i, err)
		}
	}
	if policy, _ := r.LayerPolicy(l); len(policy.JSON(l.String())) > lambda.MaxPolicy || len(policy.JSON(l.String())) < lambda.MaxPolicy-300 {
		t.Errorf("the policy has %d bytes: %v", len(policy.JSON(l.String())), err)
	}
}

func TestListLayers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, l := range []struct {
		name         string
		runtime      lambda.RuntimeID
		architecture lambda.Architecture
	}{
		{"b", "python3.12", lambda.X86_64}, {"b", "nodejs22.x", lambda.ARM64}, {"b", "python3.12", lambda.ARM64},
		{"a", "nodejs22.x", lambda.X86_64}, {"c", "python3.12", lambda.X86_64}, {"gone", "python3.12", lambda.X86_64},
	} {
		_, err := r.PublishLayer(t.Context(), registry.PublishLayer{
			ARN: layerNamed(l.name), Zip: []byte("zip"), Runtimes: []lambda.RuntimeID{l.runtime}, Architectures: []lambda.Architecture{l.architecture},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	r.deleteLayer(version("gone", 1))
	r.foreign("theirs", "*", "")
	short := func(page []*lambda.LayerVersion) (names []string) {
		for _, v := range page {
			names = append(names, fmt.Sprint(v.ARN.Name, ":", v.ARN.Version))
		}
		return names
	}
	for _, c := range []struct {
		filter      registry.LayerFilter
		layers, ofB string
	}{
		{registry.LayerFilter{}, "a:1 b:3 c:1", "b:3 b:2 b:1"},
		{registry.LayerFilter{Runtime: "python3.12"}, "b:3 c:1", "b:3 b:1"},
		{registry.LayerFilter{Architecture: lambda.X86_64}, "a:1 b:1 c:1", "b:1"},
		{registry.LayerFilter{Runtime: "nodejs22.x", Architecture: lambda.ARM64}, "b:2", "b:2"},
		{registry.LayerFilter{Runtime: "java21"}, "", ""},
	} {
		for size := 1; size <= 4; size++ {
			var all []string
			for after, more := lambda.LayerName(""), true; more; {
				var page []*lambda.LayerVersion
				if page, more = r.Layers(scope, c.filter, after, size); len(page) > 0 {
					after = page[len(page)-1].ARN.Name
				}
				if more && len(page) != size {
					t.Errorf("a page of %d has %d, and there are more", size, len(page))
				}
				all = append(all, short(page)...)
			}
			if got := strings.Join(all, " "); got != c.layers {
				t.Errorf("%+v by %d: %s, want %s", c.filter, size, got, c.layers)
			}
			all = nil
			for below, more := int64(0), true; more; {
				var page []*lambda.LayerVersion
				if page, more = r.LayerVersions(layerNamed("b"), c.filter, below, size); len(page) > 0 {
					below = page[len(page)-1].ARN.Version
				}
				all = append(all, short(page)...)
			}
			if got := strings.Join(all, " "); got != c.ofB {
				t.Errorf("%+v by %d: %s, want %s", c.filter, size, got, c.ofB)
			}
		}
	}
	if page, more := r.LayerVersions(layerNamed("absent"), registry.LayerFilter{}, 0, 50); len(page) != 0 || more {
		t.Errorf("an absent layer has %v", page)
	}
}

// Publishing, deleting and using layers of the same content, all at once: each
// version number is given once, and in the end there are the packages in use.
func TestConcurrentLayers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const writers, rounds = 8, 15
	var mu sync.Mutex
	given := map[string]bool{}
	var wait sync.WaitGroup
	for w := range writers {
		name := fmt.Sprint("f", w)
		r.create(name, "code")
		wait.Go(func() {
			for i := range rounds {
				zip := fmt.Sprint("layer ", (w+i)%3)
				v, err := r.PublishLayer(t.Context(), registry.PublishLayer{ARN: layerNamed(fmt.Sprint("l", w%2)), Zip: []byte(zip)})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if given[v.ARN.String()] {
					t.Errorf("%s was given twice", v.ARN)
				}
				given[v.ARN.String()] = true
				mu.Unlock()
				if _, err := r.UpdateConfiguration(t.Context(), registry.UpdateConfiguration{By: me, ARN: named(name), Layers: []string{v.ARN.String()}, Apply: func(*lambda.Settings) {}}); err != nil {
					t.Error(err)
				}
				if err := r.DeleteLayerVersion(t.Context(), v.ARN); err != nil {
					t.Error(err)
				}
				r.Sweep(t.Context(), []lambda.Code{{SHA256: digest(zip)}})
				if f := r.settled(name); len(f.Settings.Layers) != 1 || f.Settings.Layers[0].ARN != v.ARN || !r.packages.has(zip) {
					t.Errorf("%s has the layers %v; the package of %s is there: %v", name, f.Settings.Layers, v.ARN, r.packages.has(zip))
				}
			}
		})
	}
	wait.Wait()
	used := map[string]bool{digest("code"): true}
	for w := range writers {
		used[r.settled(fmt.Sprint("f", w)).Settings.Layers[0].Code.SHA256] = true
	}
	r.Registry.Close() // settling discards behind what it shows
	r.packages.mu.Lock()
	if diff := cmp.Diff(used, maps.Clone(r.packages.kept)); diff != "" {
		t.Errorf("packages in use (-) and kept (+):\n%s", diff)
	}
	r.packages.mu.Unlock()
	if err := r.engine.Close(); err != nil {
		t.Error(err)
	}
	r.open()
	if v := r.publish("l0", "zip"); v.ARN.Version != writers/2*rounds+1 {
		t.Errorf("the next version after %d is %d", writers/2*rounds, v.ARN.Version)
	}
}

// A layer version that is deleted after a function named it, and before the
// function is written, is the function's.
func TestLayerDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.publish("l", "zip").ARN
	r.create("f", "code")
	r.packages.checking = func() {
		r.deleteLayer(l)
		r.Sweep(t.Context(), []lambda.Code{{SHA256: digest("zip")}})
	}
	if f := r.configure("f", l.String()); len(f.Settings.Layers) != 1 || !r.packages.has("zip") {
		t.Errorf("it has %v; the package is there: %v", f.Settings.Layers, r.packages.has("zip"))
	}
}

// A disk that takes no more leaves everything as it was.
func TestLayersOnAFullDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.publish("l", "one").ARN
	r.disk.mu.Lock()
	r.disk.rule = func([]byte) error { return state.ErrFull }
	r.disk.mu.Unlock()
	_, err := r.PublishLayer(t.Context(), registry.PublishLayer{ARN: layerNamed("l"), Zip: []byte("two")})
	_, permission := r.AddLayerPermission(t.Context(), l, lambda.Statement{ID: "s", Principal: "*"}, "")
	for _, err := range []error{err, permission, r.DeleteLayerVersion(t.Context(), l)} {
		if !errors.Is(err, state.ErrFull) {
			t.Errorf("got %v", err)
		}
	}
	r.disk.fullForSettling(false)
	if v, err := r.LayerVersion(me, l); err != nil || len(v.Policy.Statements) != 0 || !r.packages.has("one") || r.packages.has("two") {
		t.Errorf("it is %+v, %v; packages are there: %v %v", v, err, r.packages.has("one"), r.packages.has("two"))
	}
	if v := r.publish("l", "two"); v.ARN.Version != 2 {
		t.Errorf("the next version is %d", v.ARN.Version)
	}
}
