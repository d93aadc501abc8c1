package handlers

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestSpares runs the same function in a runtime that was started for it, and in
// one that waited, and compares everything that it can see.
func TestSpares(t *testing.T) {
	t.Parallel()
	testSpares(t, installed(t), "--driver", "linux")
}

func testSpares(t *testing.T, runtimes []string, driver ...string) {
	direct := kiln.Start(t, arguments(append(driver, "--spare-bytes", "0")...)...)
	ready := kiln.Start(t, arguments(append(driver, "--spare-bytes", "512MiB")...)...)
	families := map[string]bool{}
	kinds := 0.0
	waits := func(t *testing.T) { // until there are all spares that are to be, one of each kind at least
		t.Helper()
		kiln.Await(t, "a spare of each kind", func() bool {
			wanted := ready.Metric("kiln_spares_wanted ")
			return wanted >= kinds && ready.Metric("kiln_spares ") >= wanted
		})
	}
	for _, id := range runtimes {
		l := language{name: "nodejs", runtime: id, handler: "sees.handler", code: kiln.Zip(map[string]string{"sees.js": source(t, "sees.cjs")})}
		switch {
		case strings.HasPrefix(id, "python"):
			l.name, l.code = "python", kiln.Zip(map[string]string{"sees.py": source(t, "sees.py")})
		case !strings.HasPrefix(id, "nodejs"):
			continue
		}
		t.Run(id, func(t *testing.T) {
			// The first of its kind finds none, and has one made for the next.
			t.Run("first", func(t *testing.T) { l.create(t, ready, memory(256)).invoke(event{}) })
			kinds++
			waits(t)
			change := all(variables("MINE", "x = ü\n y", "EMPTY", ""), memory(256))
			one, other := l.create(t, direct, change), l.create(t, ready, change)
			var want, got map[string]any
			one.ok(event{}, &want)
			taken := ready.Metric("kiln_spares_taken_total")
			r := other.ok(event{}, &got)
			if now := ready.Metric("kiln_spares_taken_total"); now != taken+1 {
				t.Fatalf("no spare was taken; the daemon's log:\n%s", ready.Log)
			}
			if mounts, ok := got["mounts"].(map[string]any); ok && slices.Contains(driver, "gvisor") {
				delete(mounts, "/var/task") // elsewhere it is one in both
			}
			for name := range want {
				if a, b := lines(t, want[name]), lines(t, got[name]); !slices.Equal(a, b) {
					t.Errorf("%s: only when started for it: %q; only from a spare: %q", name, without(a, b), without(b, a))
				}
			}
			if len(got) != len(want) || len(got) < 20 {
				t.Errorf("%d things are seen, and %d from a spare", len(want), len(got))
			}
			if _, _, _, init := figures(t, r); init == 0 {
				t.Errorf("there is no Init Duration: %s", r.tail)
			}
		})
		if family := strings.TrimRight(id, "0123456789.x"); families[family] {
			continue
		} else {
			families[family] = true
		}
		t.Run(id+"/fails", func(t *testing.T) {
			waits(t)
			change := all(variables("FAIL", "1"), memory(256))
			one, other := l.create(t, direct, change), l.create(t, ready, change)
			want := one.invoke(event{})
			taken := ready.Metric("kiln_spares_taken_total")
			got := other.invoke(event{})
			if now := ready.Metric("kiln_spares_taken_total"); now != taken+1 {
				t.Fatal("no spare was taken")
			}
			if a, b := volatile.ReplaceAllString(want.payload, ""), volatile.ReplaceAllString(got.payload, ""); got.failed != want.failed || a != b {
				t.Errorf("started for it: %s\nfrom a spare:   %s", a, b)
			}
		})
	}
}

// volatile is what differs from one environment and moment to the next.
var volatile = regexp.MustCompile(`[0-9a-f]{32}|` + id)

// secrets are the variables that differ from one environment or invocation to the next.
var secrets = regexp.MustCompile(`((?:AWS_ACCESS_KEY_ID|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|AWS_LAMBDA_LOG_STREAM_NAME|_X_AMZN_TRACE_ID)(?:=|",))[^\n]*`)

// lines is what a function sees, a line for each part of it, without what differs anyway.
func lines(t *testing.T, seen any) []string {
	t.Helper()
	var list []string
	parts, ok := seen.([]any)
	if !ok {
		parts = []any{seen}
	}
	for _, p := range parts {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, secrets.ReplaceAllString(string(text), "$1"))
	}
	return list
}

// without is what the one has and the other has not.
func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}
