package registry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/registry"
)

func imageCreation(name, uri string) registry.Create {
	c := creation(name, "")
	c.Zip, c.Image = nil, uri
	c.Settings.PackageType, c.Settings.Runtime, c.Settings.Handler = lambda.Image, "", ""
	return c
}

// stands waits until the function has that state and update status.
func (r *rig) stands(name string, state lambda.FunctionState, update lambda.UpdateStatus) *lambda.Function {
	r.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		f, err := r.Get(named(name))
		if err != nil {
			r.t.Fatal(err)
		}
		if f.State == state && f.UpdateStatus == update {
			return f
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s stays %s, %s", name, f.State, f.UpdateStatus)
		}
	}
}

// held makes pulls wait until the function returned is called.
func (r *rig) held() (release func()) {
	gate := make(chan struct{})
	r.packages.pulling(func(ctx context.Context) error {
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	return func() { close(gate); r.packages.pulling(nil) }
}

func broken(context.Context) error {
	return &lambda.Failure{Code: lambda.InvalidImage, Reason: "broken"}
}

func TestImages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for what, c := range map[string]registry.Create{
		"handler": func() registry.Create { c := imageCreation("f", "one"); c.Settings.Handler = "x"; return c }(),
		"runtime": func() registry.Create { c := imageCreation("f", "one"); c.Settings.Runtime = "x"; return c }(),
		"gone":    imageCreation("f", "gone"),
		"settings": func() registry.Create {
			c := imageCreation("f", "one")
			c.Settings.Image = &lambda.ImageConfig{Command: []string{string(make([]byte, lambda.MaxImageSettings))}}
			return c
		}(),
	} {
		if _, err := r.Create(t.Context(), c); lambda.AsError(err) == nil || lambda.AsError(err).Code != "InvalidParameterValueException" {
			t.Errorf("%s: %v", what, err)
		}
	}

	// Pending until the image is here; then it runs.
	release := r.held()
	if _, err := r.Create(t.Context(), imageCreation("f", "one")); err != nil {
		t.Fatal(err)
	}
	_, err := r.Resolve(t.Context(), named("f"))
	code(t, err, "ResourceConflictException")
	_, err = r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Image: "two"})
	code(t, err, "ResourceConflictException")
	release()
	one := r.settled("f")
	if runs, err := r.Resolve(t.Context(), named("f")); err != nil || runs != one {
		t.Errorf("runs %+v, %v", runs, err)
	}

	// The old image serves while another is pulled, after a failure, and over restarts.
	serves := func(when string) {
		t.Helper()
		if runs, err := r.Resolve(t.Context(), named("f")); err != nil || runs.Build != one.Build || runs.Code != one.Code || runs.Settings.Environment["KEY"] != "value of f" {
			t.Errorf("%s: runs %+v, %v", when, runs, err)
		}
	}
	release = r.held()
	if _, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Image: "two"}); err != nil {
		t.Fatal(err)
	}
	serves("while pulling")
	r.close() // a pull under way does not hold the end up
	r.open()
	serves("while pulling again")
	if f := r.stands("f", lambda.Active, lambda.UpdateInProgress); f.Code.ImageURI != "two" {
		t.Errorf("after a restart: %+v", f.Code)
	}
	release()
	two := r.settled("f")
	if two.Code.ImageURI != "two" || r.packages.has("one") || !r.packages.has("two") {
		t.Errorf("updated %+v; the old image is there: %v", two.Code, r.packages.has("one"))
	}
	one = two
	r.packages.pulling(broken)
	if _, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Image: "three"}); err != nil {
		t.Fatal(err)
	}
	failed := r.stands("f", lambda.Active, lambda.UpdateFailed)
	if failed.Reason != "broken" || failed.ReasonCode != "InvalidImage" || failed.Code.ImageURI != "two" || failed.Revision == two.Revision {
		t.Errorf("failed: %+v", failed)
	}
	serves("after a failure")
	r.reopen()
	serves("after a failure and a restart")
	if f := r.stands("f", lambda.Active, lambda.UpdateFailed); f.Reason != "broken" {
		t.Errorf("after a restart: %+v", f)
	}

	// One that never was pulled is Failed, and can be repaired.
	if _, err := r.Create(t.Context(), imageCreation("g", "one")); err != nil {
		t.Fatal(err)
	}
	if g := r.stands("g", lambda.Failed, lambda.UpdateFailed); g.Reason != "broken" || g.ReasonCode != "InvalidImage" {
		t.Errorf("failed: %+v", g)
	}
	for range 2 {
		_, err = r.Resolve(t.Context(), named("g"))
		code(t, err, "ResourceConflictException")
		r.reopen()
	}
	r.packages.pulling(func(context.Context) error { return errors.New("bug") })
	if _, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("g"), Image: "one"}); err != nil {
		t.Fatal(err)
	}
	if g := r.stands("g", lambda.Failed, lambda.UpdateFailed); g.ReasonCode != "InternalError" {
		t.Errorf("failed: %+v", g)
	}
	r.packages.pulling(nil)
	if _, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("g"), Image: "one"}); err != nil {
		t.Fatal(err)
	}
	if g := r.settled("g"); g.Reason != "" {
		t.Errorf("repaired: %+v", g)
	}

	// A function that is deleted while its image comes leaves nothing.
	r.held()
	if _, err := r.Create(t.Context(), imageCreation("h", "late")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "g", "h"} {
		if err := r.Delete(t.Context(), named(name)); err != nil {
			t.Fatal(err)
		}
	}
	r.reopen() // waits for the pull
	if n := r.packages.count(); n != 0 {
		t.Errorf("%d images are left", n)
	}
}
