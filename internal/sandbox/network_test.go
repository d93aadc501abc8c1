package sandbox_test

import (
	"strings"
	"testing"

	"kiln/internal/sandbox"
)

func TestDestinations(t *testing.T) {
	for _, text := range []string{
		"api.example.com", "api.example.com:443", "*.example.com:8000-8100", "*", "*:443", "localhost:1",
		"10.0.0.0/8", "10.1.2.3", "10.1.2.3:5432", "0.0.0.0/0:1-65535", "_srv.x-y.example",
	} {
		d, err := sandbox.ParseDestination(text)
		if err != nil {
			t.Error(err)
		} else if d.String() != text {
			t.Errorf("%q is read as %q", text, d)
		}
	}
	if d, err := sandbox.ParseDestination(" API.Example.COM. "); err != nil || d.String() != "api.example.com" {
		t.Errorf("%q, %v", d, err)
	}
	for _, text := range []string{
		"", ":443", "a b", "a..b", "-a.example", "*x.example", "a.*.example", "10.0.0.1/8", "10.0.0.0/33", "1.2.3", "300.1.1.1",
		"::1", "[::1]:80", "fe80::/10", "a:0", "a:70000", "a:9-8", "a:x", "a:", "http://a.example", "a.example/path",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "aa",
	} {
		if d, err := sandbox.ParseDestination(text); err == nil {
			t.Errorf("%q is read as %q", text, d)
		} else if !strings.Contains(err.Error(), "write one such as") {
			t.Errorf("%q: %v does not say what to write", text, err)
		}
	}
}

func TestDestinationMatches(t *testing.T) {
	for _, c := range []struct {
		destination, name string
		want              bool
	}{
		{"*", "a.example", true},
		{"*.example.com", "a.example.com", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "badexample.com", false},
		{"example.com", "example.com", true},
		{"example.com", "a.example.com", false},
		{"10.0.0.0/8", "10.0.0.1", false},
	} {
		d, err := sandbox.ParseDestination(c.destination)
		if err != nil {
			t.Fatal(err)
		}
		if d.Matches(c.name) != c.want {
			t.Errorf("%s matches %s: want %t", c.destination, c.name, c.want)
		}
	}
}

func FuzzDestination(f *testing.F) {
	f.Add("*.example.com:8000-8100")
	f.Add("10.0.0.0/8:1")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := sandbox.ParseDestination(text)
		if err != nil {
			return
		}
		if again, err := sandbox.ParseDestination(d.String()); err != nil || again != d {
			t.Errorf("%q is %v, and read again %v, %v", text, d, again, err)
		}
	})
}
