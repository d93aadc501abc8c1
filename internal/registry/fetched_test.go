package registry_test

import (
	"testing"

	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// What comes from S3 becomes a package as any other, and is let go of once it is stored.
func TestFetched(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	object := func(key string) *lambda.S3Object {
		return &lambda.S3Object{Region: scope.Region, Bucket: "code", Key: key}
	}
	in := creation("f", "")
	in.Zip, in.Object = nil, object("first")
	if f, err := r.Create(t.Context(), in); err != nil || f.Code.SHA256 != digest("first") {
		t.Fatalf("%v %v", f, err)
	}
	r.settled("f")
	dry := registry.UpdateCode{ARN: named("f"), Object: object("second"), DryRun: true}
	if f, err := r.UpdateCode(t.Context(), dry); err != nil || f.Code.SHA256 != digest("second") {
		t.Fatalf("%v %v", f, err)
	}
	if r.packages.has("second") {
		t.Error("a dry run keeps its package")
	}
	if v, err := r.PublishLayer(t.Context(), registry.PublishLayer{ARN: lambda.LayerARN{Scope: scope, Name: "l"}, Object: object("layer")}); err != nil || v.Code.SHA256 != digest("layer") {
		t.Fatalf("%v %v", v, err)
	}
	for key, want := range map[string]string{
		"gone": "InvalidParameterValueException: Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist.",
		"bad":  "InvalidParameterValueException: Could not unzip uploaded file.",
	} {
		if _, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Object: object(key)}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", key, err)
		}
	}
	if f := r.settled("f"); f.Code.SHA256 != digest("first") {
		t.Error("what was refused has changed the function")
	}
	if n := r.packages.open.Load(); n != 0 {
		t.Errorf("%d packages are not let go of", n)
	}
}

func TestTooLargeInline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	in := creation("f", "")
	in.Zip = make([]byte, lambda.MaxZipped+1)
	if _, err := r.Create(t.Context(), in); err == nil || err.Error() != "RequestEntityTooLargeException: Zipped size must be smaller than 52428800 bytes" {
		t.Error(err)
	}
}
