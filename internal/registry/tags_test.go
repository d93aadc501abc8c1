package registry_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kiln/internal/lambda"
	"kiln/internal/registry"
)

func TestTags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := r.create("f", "zip")
	for _, step := range []struct {
		set    map[string]string
		remove []string
		want   map[string]string
	}{
		{map[string]string{"a": "1", "b": "2"}, []string{"tag"}, map[string]string{"a": "1", "b": "2"}},
		{nil, []string{"a", "absent"}, map[string]string{"b": "2"}},
		{map[string]string{"b": "3"}, nil, map[string]string{"b": "3"}},
	} {
		if err := r.Tag(t.Context(), named("f"), step.set, step.remove); err != nil {
			t.Fatal(err)
		}
		got, err := r.Tags(named("f"))
		if diff := cmp.Diff(step.want, got); err != nil || diff != "" {
			t.Errorf("after %+v (-want +got): %v\n%s", step, err, diff)
		}
	}
	after := r.settled("f")
	if after.Revision == before.Revision || after.Build != before.Build || after.State != lambda.Active {
		t.Errorf("tagging made %+v of %+v", after, before)
	}
	r.reopen()
	if got, err := r.Tags(named("f")); err != nil || got["b"] != "3" {
		t.Errorf("after a restart: %v, %v", got, err)
	}
	many := map[string]string{}
	for i := range lambda.MaxTags {
		many[fmt.Sprint(i)] = ""
	}
	message(t, r.Tag(t.Context(), named("f"), many, nil), "InvalidParameterValueException", "Number of tags exceeds resource tag limit.")
	if err := r.Tag(t.Context(), named("f"), many, []string{"b"}); err != nil {
		t.Errorf("50 tags: %v", err)
	}
	message(t, r.Tag(t.Context(), named("absent"), many, nil), "ResourceNotFoundException", "Function not found: "+named("absent").String())
	_, err := r.Tags(named("absent"))
	message(t, err, "ResourceNotFoundException", "Function not found: "+named("absent").String())
}

// TestTagsDuringAnUpdate: they stay, whatever comes of the update.
func TestTagsDuringAnUpdate(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		pull func(context.Context) error
		want lambda.UpdateStatus
	}{
		"that is made": {func(context.Context) error { return nil }, lambda.UpdateSuccessful},
		"that fails":   {broken, lambda.UpdateFailed},
	} {
		r := newRig(t)
		if _, err := r.Create(t.Context(), imageCreation("f", "one")); err != nil {
			t.Fatal(err)
		}
		r.settled("f")
		tagged := make(chan struct{})
		r.packages.pulling(func(ctx context.Context) error {
			<-tagged
			return c.pull(ctx)
		})
		if _, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Image: "two"}); err != nil {
			t.Fatal(err)
		}
		err := r.Tag(t.Context(), named("f"), map[string]string{"a": "1"}, nil)
		close(tagged)
		if err != nil {
			t.Fatal(err)
		}
		if f := r.stands("f", lambda.Active, c.want); f.Tags["a"] != "1" {
			t.Errorf("after an update %s: %+v", what, f)
		}
	}
}
