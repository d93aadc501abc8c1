package bootstrap_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

// bundled is slang with a package client, which is a function of the test's.
type bundled struct {
	slang
	install func(ctx context.Context, packages []string, dir string) error
}

func (bundled) Bundle(id lambda.RuntimeID) []string { return []string{"sdk-for-" + string(id)} }

func (b bundled) Install(ctx context.Context, _ bootstrap.Installation, packages []string, dir string) error {
	return b.install(ctx, packages, dir)
}

func (bundled) Require(have bootstrap.Addition) string {
	if have.ID == "slang3" && have.Bundle == nil {
		return "slang3 needs its packages: kiln runtime add slang3"
	}
	return ""
}

// writePackages is an install that succeeds: a file for each package, and a link.
func writePackages(_ context.Context, packages []string, dir string) error {
	if err := os.MkdirAll(dir+"/packages/deep", 0o700); err != nil {
		return err
	}
	for _, p := range packages {
		if err := os.WriteFile(filepath.Join(dir, "packages/deep", p), []byte(p), 0o600); err != nil {
			return err
		}
	}
	return os.Symlink("deep/"+packages[0], dir+"/packages/first")
}

// shop is a machine with slang 2 and 3, and additions.
type shop struct {
	*machine
	family bundled
	said   []string
}

func newShop(t *testing.T) *shop {
	m := newMachine(t)
	m.install("bin/slang2", "2.9.1")
	m.install("bin/slang3", "3.0.0")
	return &shop{machine: m, family: bundled{install: writePackages}}
}

func (s *shop) open() *bootstrap.Catalog {
	s.t.Helper()
	var err error
	if s.config.Additions, err = bootstrap.OpenAdditions(s.dir + "/additions"); err != nil {
		s.t.Fatal(err)
	}
	c := bootstrap.New([]bootstrap.Family{s.family}, s.config)
	if err := c.Sweep(); err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *shop) add(c *bootstrap.Catalog, id lambda.RuntimeID, packages ...string) error {
	return c.Add(s.t.Context(), bootstrap.Order{ID: id, Packages: packages}, func(line string) { s.said = append(s.said, line) })
}

// folders counts what lies beside the records, and the clients.
func (s *shop) folders() (additions, clients int) {
	a, _ := filepath.Glob(s.dir + "/additions/*-*")
	c, _ := filepath.Glob(s.dir + "/clients/*.sums")
	return len(a), len(c)
}

func (s *shop) resolve(c *bootstrap.Catalog, id lambda.RuntimeID) *bootstrap.Runtime {
	s.t.Helper()
	rt, err := c.Resolve(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return rt
}

func TestBundleLiesOverTheClient(t *testing.T) {
	s := newShop(t)
	c := s.open()
	bare := s.resolve(c, "slang2")
	if err := s.add(c, "slang2", "more"); err != nil {
		t.Fatal(err)
	}
	if len(s.said) != 2 || !strings.HasPrefix(s.said[1], "installed 0.0 MB") || !strings.HasPrefix(s.said[0], "installing 2 packages for slang 2.9.1") {
		t.Errorf("said %q", s.said)
	}
	full := s.resolve(c, "slang2")
	for name, want := range map[string]string{"main.sl": "speak", "packages/deep/more": "more", "packages/first": "sdk-for-slang2", "compiled": "2.9.1"} {
		b, err := os.ReadFile(filepath.Join(full.Client, name))
		if err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
	}
	if info, err := os.Stat(full.Client + "/packages/deep/more"); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("functions cannot read it: %v, %v", info, err)
	}
	if full.Client == bare.Client || full.Digest == bare.Digest {
		t.Error("the runtime with packages has the version of the one without")
	}
	// A later daemon finds it all as it was, and installs nothing.
	again := s.resolve(s.open(), "slang2")
	if again.Client != full.Client || again.Digest != full.Digest {
		t.Errorf("after a restart: %+v", again)
	}
	if err := s.add(s.open(), "slang2", "more"); err != nil || s.said[len(s.said)-1] != "it was added before, and is complete" {
		t.Errorf("%v, %q", err, s.said)
	}
	// A folder that somebody deleted is installed again.
	folders, _ := filepath.Glob(s.dir + "/additions/bundle-*")
	if err := os.RemoveAll(folders[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.add(s.open(), "slang2", "more"); err != nil || strings.Contains(s.said[len(s.said)-1], "before") {
		t.Errorf("%v, %q", err, s.said)
	}
	// Other packages replace them; the old ones go, and with the next daemon their client.
	c = s.open()
	if err := s.add(c, "slang2"); err != nil {
		t.Fatal(err)
	}
	if rt := s.resolve(c, "slang2"); rt.Client == full.Client {
		t.Error("the packages of before are still used")
	}
	s.open()
	if a, clients := s.folders(); a != 1 || clients != 2 {
		t.Errorf("%d folders and %d clients are left, want 1 and 2: with packages and without", a, clients)
	}
	if err := c.Remove(t.Context(), "slang2"); err != nil {
		t.Fatal(err)
	}
	if rt := s.resolve(c, "slang2"); rt.Client != bare.Client || rt.Digest != bare.Digest {
		t.Errorf("after removing: %+v", rt)
	}
	if a, _ := s.folders(); a != 0 {
		t.Errorf("%d folders are left", a)
	}
	if err := c.Remove(t.Context(), "slang2"); lambda.AsError(err) == nil || !strings.Contains(err.Error(), "Nothing was added to slang2") {
		t.Errorf("removed twice: %v", err)
	}
}

func TestFailedInstallationLeavesNothing(t *testing.T) {
	cases := []struct {
		name    string
		install func(ctx context.Context, packages []string, dir string) error
		want    string
	}{
		{"the client fails", func(ctx context.Context, p []string, dir string) error {
			return errors.Join(writePackages(ctx, p, dir), errors.New("no network"))
		}, "no network"},
		{"nothing comes", func(context.Context, []string, string) error { return nil }, "installed nothing"},
		{"a link leads out", func(_ context.Context, _ []string, dir string) error { return os.Symlink("/etc/passwd", dir+"/link") }, "a link out of its folder"},
		{"a program fails", func(ctx context.Context, _ []string, dir string) error {
			return bootstrap.Fetch(ctx, dir, "sh", "-c", "echo noise; echo 'cannot reach it' >&2; exit 3")
		}, "sh failed (exit status 3):\nnoise\ncannot reach it"},
		{"a program fails with many words", func(ctx context.Context, _ []string, dir string) error {
			err := bootstrap.Fetch(ctx, dir, "sh", "-c", "echo first; yes and so on | head -c 1000000; exit 3")
			if n := len(err.Error()); n > 3000 {
				return fmt.Errorf("an error of %d bytes", n)
			}
			return err
		}, "sh failed (exit status 3):\nfirst\nand so on\n"},
		{"it cannot be made ready", func(ctx context.Context, p []string, dir string) error {
			return errors.Join(writePackages(ctx, p, dir), os.WriteFile(dir+"/unpreparable", nil, 0o644))
		}, "prepare it for "},
		{"a program is missing", func(ctx context.Context, _ []string, dir string) error {
			return bootstrap.Fetch(ctx, dir, "no-such-program")
		}, "no-such-program is needed for that, and is not on the PATH"},
	}
	for _, x := range cases {
		t.Run(x.name, func(t *testing.T) {
			s := newShop(t)
			c := s.open()
			before := s.resolve(c, "slang2")
			s.family.install = x.install
			c = s.open()
			err := s.add(c, "slang2")
			if e := lambda.AsError(err); e == nil || e.Code != bootstrap.ErrNotAdded || !strings.Contains(e.Message, x.want) {
				t.Errorf("got %v, want %q", err, x.want)
			}
			if rt := s.resolve(c, "slang2"); rt.Client != before.Client {
				t.Error("the runtime changed")
			}
			if a, _ := s.folders(); a != 0 {
				t.Errorf("%d folders are left", a)
			}
		})
	}
}

func TestAddIsCancelledWithItsCaller(t *testing.T) {
	s := newShop(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the caller is gone")
	s.family.install = func(ctx context.Context, _ []string, dir string) error {
		cancel(gone)
		return bootstrap.Fetch(ctx, dir, "sleep", "600")
	}
	err := s.open().Add(ctx, bootstrap.Order{ID: "slang2"}, func(string) {})
	if err == nil || !strings.Contains(err.Error(), gone.Error()) {
		t.Errorf("got %v", err)
	}
	if a, _ := s.folders(); a != 0 {
		t.Errorf("%d folders are left", a)
	}
}

func TestWhatCannotBeAdded(t *testing.T) {
	s := newShop(t)
	c := s.open()
	for _, x := range []struct {
		order bootstrap.Order
		want  string
	}{
		{bootstrap.Order{ID: "slang1"}, "The runtime slang1 needs slang 1 on this machine"},
		{bootstrap.Order{ID: "klingon1"}, "Value klingon1 at 'runtime' failed"},
		{bootstrap.Order{ID: "slang2", Packages: []string{"--index-url=http://elsewhere.example"}}, "is not the name of a package"},
		{bootstrap.Order{ID: "slang2", Packages: make([]string, 1000)}, "1001 packages are too many"},
	} {
		if err := c.Add(t.Context(), x.order, func(string) {}); lambda.AsError(err) == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%+v: got %v, want %q", x.order, err, x.want)
		}
	}
}

func TestNamesOfPackages(t *testing.T) {
	s := newShop(t)
	s.family.install = func(context.Context, []string, string) error { return errors.New("as far as the package client") }
	c := s.open()
	for name, good := range map[string]bool{
		"boto3": true, "boto3==1.44.5": true, "typing_extensions>=4": true, "@aws-sdk/client-acm": true, "@aws-sdk/client-acm@<=3.1164.0": true, "left-pad@^1.3.0": true,
		"aws-sdk-s3:~>1": true, "aws-sdk-s3:1.2.3": true, "com.amazonaws:aws-lambda-java-events:3.16.1": true,
		"": false, "-r": false, "--index-url=x": false, "/etc": false, "./x": false, "..": false, "x/y": false, "user/repository": false,
		"x@file:/etc": false, "x@file:..": false, "x@npm:y": false, "x@git+ssh://h/x": false, "https://h/x.whl": false, "x@https://h/x.whl": false, "x @ y": false, "x\n--y": false,
	} {
		err := s.add(c, "slang2", name)
		if reached := err != nil && strings.Contains(err.Error(), "as far as the package client"); reached != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestOneAtATime(t *testing.T) {
	s := newShop(t)
	var c *bootstrap.Catalog
	s.family.install = func(ctx context.Context, p []string, dir string) error {
		for _, err := range []error{s.add(c, "slang3"), c.Remove(ctx, "slang2")} {
			if e := lambda.AsError(err); e == nil || e.Code != "ResourceConflictException" {
				t.Errorf("beside another: %v", err)
			}
		}
		if rt := s.resolve(c, "slang2"); rt == nil { // what is being added to goes on serving
			t.Error("no runtime meanwhile")
		}
		return writePackages(ctx, p, dir)
	}
	c = s.open()
	if err := s.add(c, "slang2"); err != nil {
		t.Fatal(err)
	}
}

func TestRequiredBundle(t *testing.T) {
	s := newShop(t)
	c := s.open()
	if _, err := c.Resolve(t.Context(), "slang3"); lambda.AsError(err) == nil || !strings.Contains(err.Error(), "kiln runtime add slang3") {
		t.Errorf("got %v", err)
	}
	if err := s.add(c, "slang3"); err != nil {
		t.Fatal(err)
	}
	s.resolve(c, "slang3")
	list, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e := list.Entries[2]; e.ID != "slang3" || e.Missing != "" || e.Bundle == nil || e.Bundle.Packages[0] != "sdk-for-slang3" || e.Bundle.Bytes == 0 || e.Bundle.For != "3.0.0" {
		t.Errorf("got %+v", e)
	}
}

func TestAdditionsOfAnotherKiln(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		`{"schema": 2}`: "newer Kiln",
		`{"schema"`:     "is damaged",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/additions.json", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := bootstrap.OpenAdditions(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", content, err)
		}
	}
}

func TestSweepRemovesWhatAKilledDaemonLeft(t *testing.T) {
	s := newShop(t)
	if err := s.add(s.open(), "slang2"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".new-123", "bundle-slang2-0123", "images"} {
		if err := os.MkdirAll(s.dir+"/additions/"+name+"/x", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.resolve(s.open(), "slang2")
	left, err := os.ReadDir(s.dir + "/additions")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range left {
		names = append(names, e.Name())
	}
	if len(names) != 3 || names[0] != "additions.json" || !strings.HasPrefix(names[1], "bundle-slang2-") || names[1] == "bundle-slang2-0123" || names[2] != "images" {
		t.Errorf("left: %q", names)
	}
}
