package registry_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kiln/internal/lambda"
	"kiln/internal/registry"
)

func qualified(name string, q lambda.Qualifier) lambda.FunctionARN { return named(name).Qualified(q) }

// model is what versions and aliases of one function should be.
type model struct {
	zip      string
	last     int64
	versions map[int64]string // zips
	aliases  map[lambda.Qualifier]lambda.Alias
}

// newest is the version that publishing again would return, or 0.
func (m *model) newest() int64 {
	if zip, ok := m.versions[m.last]; ok && zip == m.zip {
		return m.last
	}
	return 0
}

func (m *model) used(version lambda.Qualifier) bool {
	for _, a := range m.aliases {
		if a.Version == version || a.Additional != nil && a.Additional.Version == version {
			return true
		}
	}
	return false
}

func (m *model) has(version lambda.Qualifier) bool {
	_, ok := m.versions[version.Number()]
	return ok || version == lambda.Latest
}

// What versions and aliases do over any series of operations, restarts among them.
func TestVersionsAndAliasesFollowTheModel(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	function := 0
	rapid.Check(t, func(rt *rapid.T) {
		function++
		name := fmt.Sprint("f", function)
		r.create(name, "zip0")
		m := &model{zip: "zip0", versions: map[int64]string{}, aliases: map[lambda.Qualifier]lambda.Alias{}}
		version := rapid.Custom(func(rt *rapid.T) lambda.Qualifier {
			if n := rapid.Int64Range(0, m.last+1).Draw(rt, "number"); n > 0 {
				return lambda.NumberedVersion(n)
			}
			return lambda.Latest
		})
		aliasName := rapid.SampledFrom([]lambda.Qualifier{"live", "next", "odd-one_"})
		rt.Repeat(map[string]func(*rapid.T){
			"update": func(rt *rapid.T) {
				m.zip = fmt.Sprint("zip", rapid.IntRange(0, 2).Draw(rt, "zip"))
				r.update(name, m.zip)
			},
			"publish": func(rt *rapid.T) {
				want := m.newest()
				if want == 0 {
					m.last++
					want = m.last
					m.versions[want] = m.zip
				}
				f, err := r.Publish(t.Context(), registry.Publish{ARN: named(name)})
				if err != nil || f.Version != lambda.NumberedVersion(want) || f.Code.SHA256 != digest(m.zip) {
					rt.Fatalf("published %+v, %v; want version %d", f, err, want)
				}
			},
			"update and publish": func(rt *rapid.T) {
				m.zip = fmt.Sprint("zip", rapid.IntRange(0, 2).Draw(rt, "zip"))
				m.last++
				m.versions[m.last] = m.zip
				f, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named(name), Zip: []byte(m.zip), Publish: true})
				if err != nil || f.Version != lambda.NumberedVersion(m.last) || f.State != lambda.Pending {
					rt.Fatalf("updated %+v, %v", f, err)
				}
				r.settled(name)
			},
			"delete a version": func(rt *rapid.T) {
				v := version.Draw(rt, "version")
				err := r.Delete(t.Context(), qualified(name, v))
				switch {
				case v == lambda.Latest:
					code(t, err, "InvalidParameterValueException")
				case m.used(v):
					code(t, err, "ResourceConflictException")
				case err != nil:
					rt.Fatal(err)
				default:
					delete(m.versions, v.Number())
				}
			},
			"create an alias": func(rt *rapid.T) {
				a, v := aliasName.Draw(rt, "alias"), version.Draw(rt, "version")
				_, exists := m.aliases[a]
				got, err := r.CreateAlias(t.Context(), registry.CreateAlias{ARN: qualified(name, a), Version: v})
				switch {
				case !m.has(v):
					code(t, err, "ResourceNotFoundException")
				case exists:
					code(t, err, "ResourceConflictException")
				case err != nil:
					rt.Fatal(err)
				default:
					m.aliases[a] = *got
				}
			},
			"route": func(rt *rapid.T) {
				a, v, second := aliasName.Draw(rt, "alias"), version.Draw(rt, "version"), version.Draw(rt, "second")
				was, exists := m.aliases[a]
				got, err := r.UpdateAlias(t.Context(), registry.UpdateAlias{ARN: qualified(name, a), Version: &v, Revision: was.Revision, Routing: registry.Routing{second: 0.5}})
				switch {
				case !exists, !m.has(v):
					code(t, err, "ResourceNotFoundException")
				case v == second, v == lambda.Latest:
					code(t, err, "InvalidParameterValueException")
				case !m.has(second):
					code(t, err, "ResourceNotFoundException")
				case err != nil:
					rt.Fatal(err)
				default:
					if was.Revision == got.Revision {
						rt.Fatal("the revision stays")
					}
					m.aliases[a] = *got
				}
			},
			"delete an alias": func(rt *rapid.T) {
				a := aliasName.Draw(rt, "alias")
				if err := r.DeleteAlias(t.Context(), qualified(name, a)); err != nil {
					rt.Fatal(err)
				}
				delete(m.aliases, a)
			},
			"restart": func(rt *rapid.T) {
				if rapid.IntRange(0, 4).Draw(rt, "restart") == 0 { // it takes as long as all the rest
					r.reopen()
				}
			},
			"": func(rt *rapid.T) {
				want := []string{"$LATEST " + digest(m.zip)}
				for _, n := range slices.Sorted(maps.Keys(m.versions)) {
					want = append(want, fmt.Sprint(n, " ", digest(m.versions[n])))
				}
				var got []string
				for after, more := int64(-1), true; more; {
					var page []*lambda.Function
					var err error
					if page, more, err = r.Versions(named(name), after, 2); err != nil {
						rt.Fatal(err)
					}
					for _, f := range page {
						got = append(got, string(f.Version)+" "+f.Code.SHA256)
						after = f.Version.Number()
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					rt.Fatal(diff)
				}
				aliases, _, err := r.Aliases(named(name), "", "", 50)
				if err != nil || len(aliases) != len(m.aliases) {
					rt.Fatalf("%d aliases, %v; want %d", len(aliases), err, len(m.aliases))
				}
				for _, a := range aliases {
					if diff := cmp.Diff(m.aliases[a.ARN.Qualifier], *a); diff != "" {
						rt.Fatal(diff)
					}
					f, err := r.Resolve(t.Context(), a.ARN)
					if err != nil || f.Version != a.Version && (a.Additional == nil || f.Version != a.Additional.Version) {
						rt.Fatalf("%s runs %+v, %v", a.ARN, f, err)
					}
				}
			},
		})
		if err := r.Delete(t.Context(), named(name)); err != nil {
			rt.Fatal(err)
		}
		if n := r.packages.count(); n != 0 {
			rt.Fatalf("%d packages are left", n)
		}
	})
}

func TestPublish(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("f", "one")
	publish := func(p registry.Publish) (*lambda.Function, error) {
		p.ARN = named("f")
		return r.Publish(t.Context(), p)
	}
	description := "first"
	one, err := publish(registry.Publish{CodeSHA256: digest("one"), Description: &description})
	if err != nil || one.Version != "1" || one.Settings.Description != "first" || one.State != lambda.Active || one.UpdateStatus != lambda.UpdateSuccessful {
		t.Fatalf("%+v, %v", one, err)
	}
	if again, err := publish(registry.Publish{}); err != nil || again != one {
		t.Errorf("nothing has changed, and %+v is published, %v", again, err)
	}
	_, err = publish(registry.Publish{CodeSHA256: "another"})
	code(t, err, "InvalidParameterValueException")
	if want := "CodeSHA256 (another) is different from current CodeSHA256 in $LATEST (" + digest("one") + ")."; !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	_, err = publish(registry.Publish{Revision: "another"})
	code(t, err, "PreconditionFailedException")
	r.update("f", "two")
	if runs, err := r.Resolve(t.Context(), qualified("f", "1")); err != nil || runs.Code.SHA256 != digest("one") {
		t.Errorf("version 1 runs %+v, %v", runs, err)
	}
	// Its number is not given again.
	if err := r.Delete(t.Context(), qualified("f", "1")); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	if two, err := publish(registry.Publish{}); err != nil || two.Version != "2" {
		t.Errorf("%+v, %v", two, err)
	}
	for _, missing := range []lambda.Qualifier{"1", "3", "02", "live"} {
		_, err := r.Resolve(t.Context(), qualified("f", missing))
		code(t, err, "ResourceNotFoundException")
	}
}

func TestWeights(t *testing.T) {
	t.Parallel()
	a := lambda.Alias{Version: "1", Additional: &lambda.WeightedVersion{Version: "2", Weight: 0.25}}
	for random, want := range map[float64]lambda.Qualifier{0: "2", 0.2499: "2", 0.25: "1", 0.99: "1"} {
		if got := a.Route(random); got != want {
			t.Errorf("%v leads to %s, want %s", random, got, want)
		}
	}
}

// A function with thousands of versions is deleted whole.
func TestDeleteManyVersions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("f", "zip")
	for i := range 520 {
		if _, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Zip: fmt.Append(nil, i), Publish: true}); err != nil {
			t.Fatal(err)
		}
		r.settled("f")
	}
	if err := r.Delete(t.Context(), named("f")); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	if list, _ := r.ListAll(scope, registry.Position{}, 10); len(list) != 0 || r.packages.count() != 0 {
		t.Errorf("%d versions and %d packages are left", len(list), r.packages.count())
	}
}
