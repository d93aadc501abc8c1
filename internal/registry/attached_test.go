package registry_test

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	"kiln/internal/lambda"
	"kiln/internal/registry"
)

func (r *rig) alias(name string, alias, version lambda.Qualifier) {
	r.t.Helper()
	if _, err := r.CreateAlias(r.t.Context(), registry.CreateAlias{ARN: qualified(name, alias), Version: version}); err != nil {
		r.t.Fatal(err)
	}
}

// attachURL gives what the ARN names the function URL of that id; "" takes it away.
func (r *rig) attachURL(arn lambda.FunctionARN, id string) {
	r.t.Helper()
	err := r.Attach(r.t.Context(), arn, func(o *registry.Owner) error {
		o.Attached.URL = nil
		if id != "" {
			o.Attached.URL = &lambda.FunctionURL{ID: id}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestOwners: what belongs to a function is listed in order, from any place on.
func TestOwners(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("f", "zip0")
	var want []lambda.Qualifier
	attach := func(q lambda.Qualifier) {
		r.attachURL(qualified("f", q), "url-of-"+string(q))
		want = append(want, q)
	}
	attach(lambda.Latest)
	for n := range 11 { // so that 10 comes after 9, not after 1
		r.update("f", fmt.Sprint("zip", n+1))
		if _, err := r.Publish(t.Context(), registry.Publish{ARN: named("f")}); err != nil {
			t.Fatal(err)
		}
		if n != 4 { // which has nothing
			attach(lambda.NumberedVersion(int64(n + 1)))
		}
	}
	for _, name := range []lambda.Qualifier{"1st", "Zed", "live", "nothing"} {
		r.alias("f", name, "1")
		if name != "nothing" {
			attach(name)
		}
	}
	has := func(a *lambda.Attached) bool { return a.URL != nil }
	for size := 1; size <= len(want)+1; size++ {
		var got []lambda.Qualifier
		after, more := lambda.Qualifier(""), true
		for more {
			var page []registry.Owner
			var err error
			if page, more, err = r.Owners(named("f"), has, after, size); err != nil || len(page) > size || more && len(page) < size {
				t.Fatalf("a page of %d after %q: %d, %t, %v", size, after, len(page), more, err)
			}
			for _, o := range page {
				got = append(got, o.ARN.Qualifier)
				if o.Attached.URL.ID != "url-of-"+string(o.ARN.Qualifier) {
					t.Errorf("%s has %+v", o.ARN, o.Attached.URL)
				}
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("by pages of %d: got %v, want %v", size, got, want)
		}
	}
	// A place that is gone is still a place.
	if page, _, err := r.Owners(named("f"), has, "5", 1); err != nil || len(page) != 1 || page[0].ARN.Qualifier != "6" {
		t.Errorf("after 5: %+v, %v", page, err)
	}
	_, _, err := r.Owners(named("absent"), has, "", 1)
	code(t, err, "ResourceNotFoundException")
}

// TestFunctionURLs: a URL leads to its owner for as long as both are there.
func TestFunctionURLs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"f", "g"} {
		r.create(name, name)
		r.alias(name, "live", lambda.Latest)
		r.attachURL(named(name), name+"-latest")
		r.attachURL(qualified(name, "live"), name+"-live")
	}
	leads := func(id, want string) {
		t.Helper()
		o, err := r.OwnerByURL(id)
		switch {
		case want == "":
			code(t, err, "ResourceNotFoundException")
		case err != nil || o.ARN.String() != want || o.Attached.URL.ID != id:
			t.Errorf("%s leads to %+v, %v; want %s", id, o, err, want)
		}
	}
	latest, live := qualified("f", lambda.Latest).String(), qualified("f", "live").String()
	leads("f-latest", latest)
	leads("f-live", live)
	leads("absent", "")
	r.update("f", "other") // changes of the owner keep it
	if _, err := r.UpdateAlias(t.Context(), registry.UpdateAlias{ARN: qualified("f", "live"), Description: new("other")}); err != nil {
		t.Fatal(err)
	}
	leads("f-latest", latest)
	leads("f-live", live)
	r.reopen()
	leads("f-latest", latest)
	leads("f-live", live)

	r.attachURL(named("f"), "f-second")
	leads("f-latest", "")
	leads("f-second", latest)
	r.attachURL(named("f"), "")
	leads("f-second", "")
	if err := r.DeleteAlias(t.Context(), qualified("f", "live")); err != nil {
		t.Fatal(err)
	}
	leads("f-live", "")
	r.alias("f", "live", lambda.Latest) // one of the same name has nothing of it
	leads("f-live", "")
	if err := r.Delete(t.Context(), named("g")); err != nil {
		t.Fatal(err)
	}
	leads("g-latest", "")
	leads("g-live", "")
	r.create("g", "again")
	r.alias("g", "live", lambda.Latest)
	leads("g-latest", "")
	leads("g-live", "")
	if o, err := r.Owner(named("g")); err != nil || o.Attached.URL != nil {
		t.Errorf("a function of the same name has %+v, %v", o.Attached.URL, err)
	}
	r.reopen()
	leads("g-latest", "")

	shape := regexp.MustCompile(`^[a-z0-9]{32}$`)
	if a, b := lambda.NewFunctionURLID(), lambda.NewFunctionURLID(); !shape.MatchString(a) || a == b {
		t.Errorf("ids %s and %s", a, b)
	}
}

// TestPublishedAlone: a version has nothing of what is attached to $LATEST.
func TestPublishedAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("f", "zip")
	err := r.Attach(t.Context(), named("f"), func(o *registry.Owner) error {
		o.Attached.EventInvoke = &lambda.EventInvokeConfig{MaximumRetryAttempts: new(1), OnFailure: "arn:aws:sqs:us-east-1:000000000000:q"}
		o.Attached.RuntimeManagement = &lambda.RuntimeManagement{UpdateOn: "FunctionUpdate"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Publish(t.Context(), registry.Publish{ARN: named("f")}); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	if o, err := r.Owner(qualified("f", "1")); err != nil || o.Attached.EventInvoke != nil || o.Attached.RuntimeManagement != nil {
		t.Errorf("version 1 has %+v, %v", o.Attached, err)
	}
	o, err := r.Owner(named("f"))
	if err != nil || o.Attached.EventInvoke == nil || *o.Attached.EventInvoke.MaximumRetryAttempts != 1 || o.Attached.RuntimeManagement.UpdateOn != "FunctionUpdate" {
		t.Errorf("after a restart $LATEST has %+v, %v", o.Attached, err)
	}
}
