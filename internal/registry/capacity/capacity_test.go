package capacity_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kiln/internal/lambda"
	"kiln/internal/registry/capacity"
	"kiln/internal/state/jetstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func refused(t *testing.T, what string, err error, code, message string) {
	t.Helper()
	if e := lambda.AsError(err); e == nil || e.Code != code || e.Message != message {
		t.Errorf("%s: got %v\nwant %s: %s", what, err, code, message)
	}
}

func TestLife(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() (*capacity.Registry, func()) {
		t.Helper()
		e := jetstream.New(jetstream.Config{Dir: dir, Node: "test"})
		if err := e.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := capacity.New(e.State())
		if err := r.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		return r, func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	r, closeFirst := open()
	p := lambda.CapacityProvider{
		ARN:       lambda.CapacityProviderARN{Scope: lambda.Scope{Account: "123456789012", Region: "us-east-1"}, Name: "p"},
		SubnetIDs: []string{"subnet-1"}, SecurityGroupIDs: []string{}, OperatorRole: "arn:aws:iam::123456789012:role/r",
		Instances: &lambda.InstanceRequirements{Architectures: []lambda.Architecture{lambda.ARM64}}, Tags: map[string]string{"k": "v"},
	}
	made, err := r.Create(t.Context(), p)
	if err != nil || made.State != lambda.CapacityPending || made.ARN.String() != "arn:aws:lambda:us-east-1:123456789012:capacity-provider:p" {
		t.Errorf("created %+v, %v", made, err)
	}
	_, err = r.Create(t.Context(), p)
	refused(t, "a second of that name", err, "ResourceConflictException", "Capacity provider already exists: "+p.ARN.String())
	scaling := &lambda.CapacityScaling{MaxVCPUs: new(8), Mode: "Manual", Policies: []lambda.ScalingPolicy{{Metric: "LambdaCapacityProviderAverageCPUUtilization", Target: 60}}}
	if _, err := r.Scale(t.Context(), p.ARN, scaling); err != nil {
		t.Fatal(err)
	}
	kept, err := r.Scale(t.Context(), p.ARN, nil)
	if diff := cmp.Diff(scaling, kept.Scaling); err != nil || diff != "" {
		t.Errorf("a change of nothing: %v\n%s", err, diff)
	}
	if err := r.Tag(t.Context(), p.ARN, map[string]string{"a": "b"}, []string{"k"}); err != nil {
		t.Fatal(err)
	}
	before, _ := r.Get(p.ARN)
	closeFirst()
	r, closeSecond := open()
	defer closeSecond()
	after, err := r.Get(p.ARN)
	if diff := cmp.Diff(before, after); err != nil || diff != "" || after.State != lambda.CapacityActive || after.Tags["a"] != "b" {
		t.Errorf("after a restart (-before +after): %+v, %v\n%s", after, err, diff)
	}
	for state, want := range map[lambda.CapacityState]int{"": 1, lambda.CapacityActive: 1, lambda.CapacityPending: 0} {
		if page, more := r.List(p.ARN.Scope, state, "", 50); len(page) != want || more {
			t.Errorf("in state %q are %d, more %v", state, len(page), more)
		}
	}
	gone, err := r.Delete(t.Context(), p.ARN)
	if err != nil || gone.State != lambda.CapacityDeleting {
		t.Errorf("deleted %+v, %v", gone, err)
	}
	missing := "Capacity provider not found: " + p.ARN.String()
	const code = "ResourceNotFoundException"
	_, err = r.Get(p.ARN)
	refused(t, "Get", err, code, missing)
	_, err = r.Delete(t.Context(), p.ARN)
	refused(t, "Delete", err, code, missing)
	_, err = r.Scale(t.Context(), p.ARN, nil)
	refused(t, "Scale", err, code, missing)
	refused(t, "Tag", r.Tag(t.Context(), p.ARN, nil, nil), code, missing)
}
