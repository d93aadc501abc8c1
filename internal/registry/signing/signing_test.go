package signing_test

import (
	"regexp"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kiln/internal/lambda"
	"kiln/internal/registry/signing"
	"kiln/internal/state/jetstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var scope = lambda.Scope{Account: "123456789012", Region: "us-east-1"}

// rig is a registry over a state of its own; use says which configurations are attached.
type rig struct {
	*signing.Registry
	t      *testing.T
	dir    string
	engine *jetstream.Engine
	used   atomic.Bool
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *rig) open() {
	r.t.Helper()
	r.engine = jetstream.New(jetstream.Config{Dir: r.dir, Node: "test"})
	if err := r.engine.Open(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.Registry = signing.New(r.engine.State(), func(lambda.SigningConfigARN) bool { return r.used.Load() })
	if err := r.Open(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) close() {
	if err := r.engine.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) create() *lambda.SigningConfig {
	r.t.Helper()
	c, err := r.Create(r.t.Context(), lambda.SigningConfig{
		ARN: lambda.SigningConfigARN{Scope: scope}, Description: "d", Publishers: []string{"p"}, Enforced: true, Tags: map[string]string{"k": "v"},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func refused(t *testing.T, what string, err error, code, message string) {
	t.Helper()
	if e := lambda.AsError(err); e == nil || e.Code != code || e.Message != message {
		t.Errorf("%s: got %v\nwant %s: %s", what, err, code, message)
	}
}

var arn = regexp.MustCompile(`^arn:aws:lambda:us-east-1:123456789012:code-signing-config:csc-[a-z0-9]{17}$`)

func TestLife(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	made := r.create()
	if !arn.MatchString(made.ARN.String()) || made.Modified.IsZero() {
		t.Errorf("created %+v", made)
	}
	changed, err := r.Update(t.Context(), made.ARN, func(c *lambda.SigningConfig) { c.Enforced = false })
	if err != nil || changed.Enforced || !made.Enforced || changed.Description != "d" {
		t.Errorf("updated %+v from %+v: %v", changed, made, err)
	}
	if err := r.Tag(t.Context(), made.ARN, map[string]string{"a": "b"}, []string{"k"}); err != nil {
		t.Fatal(err)
	}
	before, _ := r.Get(made.ARN)
	r.close()
	r.open()
	after, err := r.Get(made.ARN)
	if diff := cmp.Diff(before, after); err != nil || diff != "" || after.Tags["a"] != "b" || len(after.Tags) != 1 {
		t.Errorf("after a restart (-before +after): %+v, %v\n%s", after, err, diff)
	}
	r.used.Store(true)
	refused(t, "deleting one in use", r.Delete(t.Context(), made.ARN), "ResourceConflictException", "The code signing configuration "+made.ARN.String()+" is attached to a function. Detach it from all functions first.")
	r.used.Store(false)
	if err := r.Delete(t.Context(), made.ARN); err != nil {
		t.Fatal(err)
	}
	missing := "The Lambda code signing configuration " + made.ARN.String() + " can not be found."
	const code = "ResourceNotFoundException"
	_, err = r.Get(made.ARN)
	refused(t, "Get", err, code, missing)
	_, err = r.Update(t.Context(), made.ARN, func(*lambda.SigningConfig) { t.Error("an update of nothing") })
	refused(t, "Update", err, code, missing)
	refused(t, "Delete", r.Delete(t.Context(), made.ARN), code, missing)
	refused(t, "Tag", r.Tag(t.Context(), made.ARN, nil, []string{"a"}), code, missing)
	err = r.Use(made.ARN, func(*lambda.SigningConfig) error { t.Error("a use of nothing"); return nil })
	refused(t, "Use", err, "CodeSigningConfigNotFoundException", "The code signing configuration cannot be found. Check that the provided configuration is not deleted: "+made.ARN.String()+".")
}

func TestList(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 5 {
		r.create()
	}
	seen := 0
	for after := ""; ; {
		page, more := r.List(scope, after, 2)
		seen += len(page)
		after = page[len(page)-1].ARN.ID
		if !more {
			break
		}
	}
	if seen != 5 {
		t.Errorf("listed %d of 5", seen)
	}
}

// TestAttachingWhileDeleted: whatever comes first, no function is left with a
// configuration that is gone.
func TestAttachingWhileDeleted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 20 {
		r.used.Store(false)
		c := r.create()
		var attached, deleted error
		var wait sync.WaitGroup
		wait.Go(func() {
			attached = r.Use(c.ARN, func(*lambda.SigningConfig) error { r.used.Store(true); return nil })
		})
		wait.Go(func() { deleted = r.Delete(t.Context(), c.ARN) })
		wait.Wait()
		if (attached == nil) == (deleted == nil) {
			t.Fatalf("attached: %v; deleted: %v", attached, deleted)
		}
	}
}
