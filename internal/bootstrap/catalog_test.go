package bootstrap_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

// slang is a language whose interpreters are shell scripts that print a version.
type slang struct {
	programs []string
	prepared *int
}

func (slang) Name() string { return "slang" }

func (slang) Identifiers() []bootstrap.Identifier {
	return []bootstrap.Identifier{{ID: "slang1", Version: "1"}, {ID: "slang2", Version: "2"}, {ID: "slang3", Version: "3"}}
}

func (s slang) Programs() []string {
	return append([]string{"slang", "slang[0-9]"}, s.programs...)
}

func (slang) Probe(ctx context.Context, program string) (bootstrap.Installation, error) {
	out, err := bootstrap.Ask(ctx, program)
	if err != nil {
		return bootstrap.Installation{}, err
	}
	return bootstrap.Installation{Program: program, Version: strings.TrimSpace(string(out))}, nil
}

func (slang) Client() fs.FS {
	return fstest.MapFS{"main.sl": {Data: []byte("speak")}, "lib/more.sl": {Data: []byte("more")}}
}

func (s slang) Prepare(_ context.Context, in bootstrap.Installation, dir string) error {
	if s.prepared != nil {
		*s.prepared++
	}
	if _, err := os.Stat(dir + "/unpreparable"); err == nil {
		return errors.New("this cannot be prepared")
	}
	return os.WriteFile(filepath.Join(dir, "compiled"), []byte(in.Version), 0o600)
}

func (slang) Launch(lambda.RuntimeID, bootstrap.Installation, bootstrap.Layout) bootstrap.Launch {
	return bootstrap.Launch{}
}

// install writes an interpreter that reports a version.
func install(t *testing.T, path, version string) string {
	t.Helper()
	return script(t, path, "echo "+version)
}

func script(t *testing.T, path, body string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// machine is a place with its own PATH and home.
type machine struct {
	t       *testing.T
	dir     string
	config  bootstrap.Config
	family  slang
	environ map[string]string
}

func newMachine(t *testing.T) *machine {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir, environ: map[string]string{"PATH": dir + "/bin:relative:" + dir + "/manager/shims", "HOME": dir + "/home"}}
	m.config = bootstrap.Config{Dir: dir + "/clients", Getenv: func(k string) string { return m.environ[k] }}
	return m
}

func (m *machine) install(rel, version string) string {
	return install(m.t, filepath.Join(m.dir, rel), version)
}

func (m *machine) catalog() *bootstrap.Catalog {
	return bootstrap.New([]bootstrap.Family{m.family}, m.config)
}

func (m *machine) resolve(id lambda.RuntimeID) *bootstrap.Runtime {
	m.t.Helper()
	rt, err := m.catalog().Resolve(m.t.Context(), id)
	if err != nil {
		m.t.Fatal(err)
	}
	return rt
}

func TestInterpreterChosen(t *testing.T) {
	t.Run("the newest of its version", func(t *testing.T) {
		m := newMachine(t)
		m.install("bin/slang", "2.9.1")
		want := m.install("bin/slang2", "2.10.0")
		m.install("bin/slang3", "3.0.0")
		rt := m.resolve("slang2")
		if rt.Installation.Program != want || rt.Label != "slang:2.v10" || rt.Substitute != "" {
			t.Errorf("got %+v", rt)
		}
	})
	t.Run("a configured one before newer ones", func(t *testing.T) {
		m := newMachine(t)
		m.install("bin/slang", "2.9")
		want := m.install("mine/bin/slang", "2.1")
		m.config.Paths = []string{m.dir + "/mine"}
		if got := m.resolve("slang2").Installation.Program; got != want {
			t.Errorf("got %s", got)
		}
	})
	t.Run("configured by name, and in a folder of versions", func(t *testing.T) {
		m := newMachine(t)
		one := m.install("mine/slang-special", "1.0")
		two := m.install("many/2.4/bin/slang", "2.4")
		m.config.Paths = []string{one, m.dir + "/many"}
		if got := m.resolve("slang1").Installation.Program; got != one {
			t.Errorf("got %s", got)
		}
		if got := m.resolve("slang2").Installation.Program; got != two {
			t.Errorf("got %s", got)
		}
	})
	t.Run("of version managers", func(t *testing.T) {
		m := newMachine(t)
		m.family.programs = []string{".slenv/versions/*/bin/slang", "$SLENV/versions/*/bin/slang", "$UNSET/*", m.dir + "/opt/slang*/bin/slang"}
		m.environ["SLENV"] = m.dir + "/elsewhere"
		for rel, version := range map[string]string{"home/.slenv/versions/1.1/bin/slang": "1.1", "elsewhere/versions/2.1/bin/slang": "2.1", "opt/slang-3/bin/slang": "3.1"} {
			want := m.install(rel, version)
			if got := m.resolve(lambda.RuntimeID("slang" + version[:1])).Installation.Program; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
	t.Run("shims and relative folders are left alone", func(t *testing.T) {
		m := newMachine(t)
		m.install("manager/shims/slang", "2.0")
		if _, err := m.catalog().Resolve(t.Context(), "slang2"); err == nil {
			t.Error("a shim was taken")
		}
	})
}

func TestEachInterpreterIsAskedOnce(t *testing.T) {
	m := newMachine(t)
	count := filepath.Join(m.dir, "count")
	real := script(t, filepath.Join(m.dir, "real/slang"), "echo x >> "+count+"; echo 2.0")
	if err := os.MkdirAll(m.dir+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"slang", "slang2"} {
		if err := os.Symlink(real, filepath.Join(m.dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	c := m.catalog()
	done := make(chan error)
	for range 4 {
		go func() { _, err := c.Resolve(t.Context(), "slang2"); done <- err }()
	}
	if err := c.Run(t.Context()); err != nil {
		t.Error(err)
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	asked, err := os.ReadFile(count)
	if err != nil || string(asked) != "x\n" {
		t.Errorf("asked %q, %v", asked, err)
	}
	rt, err := c.Resolve(t.Context(), "slang2")
	if err != nil || rt.Installation.Program != real {
		t.Errorf("symlinks are not resolved: %+v, %v", rt, err)
	}
}

func TestBrokenInterpretersAreReported(t *testing.T) {
	m := newMachine(t)
	m.install("bin/slang", "2.0")
	script(t, m.dir+"/bin/slang1", "echo 'cannot find its library' >&2; exit 127")
	script(t, m.dir+"/bin/slang3", "echo nonsense")
	script(t, m.dir+"/bin/slang4", "yes | head -c 10000000; exit 1")
	if err := os.WriteFile(m.dir+"/bin/slang5", []byte("not executable"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.config.Paths = []string{m.dir + "/nowhere"}
	list, err := m.catalog().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var problems strings.Builder
	for _, p := range list.Problems {
		fmt.Fprintln(&problems, strings.TrimPrefix(p.Program, m.dir), p.Reason)
	}
	for _, want := range []string{"/bin/slang1 does not run: exit status 127: cannot find its library", `/bin/slang3 reports no version that can be understood: "nonsense"`, "/bin/slang4 does not run", "/nowhere configured in runtime_paths, but: "} {
		if !strings.Contains(problems.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, problems.String())
		}
	}
	if len(list.Problems) != 4 || len(list.Entries) != 3 || list.Entries[1].Missing != "" || list.Entries[1].Installation.Version != "2.0" || list.Entries[0].Missing == "" {
		t.Errorf("got %+v", list)
	}
}

func TestSlowInterpreterEndsWithTheCaller(t *testing.T) {
	m := newMachine(t)
	started := filepath.Join(m.dir, "started")
	script(t, m.dir+"/bin/slang", "test -e "+started+" && echo 2.0 && exit; echo x > "+started+"; sleep 600 & sleep 600")
	c := m.catalog()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the caller left")
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(started); err == nil {
				cancel(why)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err := c.Resolve(ctx, "slang2"); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	// Whoever comes next looks again.
	if _, err := c.Resolve(t.Context(), "slang2"); err != nil {
		t.Errorf("the next caller: %v", err)
	}
}

func TestAnswerOfAParentWhoseChildStays(t *testing.T) {
	m := newMachine(t)
	script(t, m.dir+"/bin/slang", "sleep 600 & echo 2.0")
	if got := m.resolve("slang2").Installation.Version; got != "2.0" {
		t.Errorf("got %q", got)
	}
}

func TestDriversVeto(t *testing.T) {
	m := newMachine(t)
	m.install("bin/slang", "2.0")
	m.config.Usable = func(in bootstrap.Installation) error {
		return errors.New("cannot be reached by the users that functions run as")
	}
	c := m.catalog()
	if _, err := c.Resolve(t.Context(), "slang2"); lambda.AsError(err) == nil {
		t.Errorf("got %v", err)
	}
	if list, _ := c.List(t.Context()); len(list.Problems) != 1 || !strings.Contains(list.Problems[0].Reason, "cannot be reached") {
		t.Errorf("got %+v", list.Problems)
	}
}

func TestMissingVersion(t *testing.T) {
	m := newMachine(t)
	m.install("bin/slang", "1.5.0")
	m.install("bin/slang3", "3.2.0")
	_, err := m.catalog().Resolve(t.Context(), "slang2")
	e := lambda.AsError(err)
	if e == nil || e.Code != "InvalidParameterValueException" {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"slang2", "found: 1.5.0, 3.2.0", "Install slang 2", "runtime_paths", "--any-runtime"} {
		if !strings.Contains(e.Message, want) {
			t.Errorf("%q is missing in %q", want, e.Message)
		}
	}

	m.config.AnyRuntime = true
	for id, want := range map[lambda.RuntimeID]string{"slang1": "1.5.0", "slang2": "3.2.0", "slang3": "3.2.0"} {
		rt := m.resolve(id)
		if rt.Installation.Version != want || (rt.Substitute != "") != (id == "slang2") {
			t.Errorf("%s: got %+v", id, rt)
		}
	}
	if err := os.Remove(m.dir + "/bin/slang3"); err != nil {
		t.Fatal(err)
	}
	if got := m.resolve("slang3"); got.Installation.Version != "1.5.0" || !strings.Contains(got.Substitute, "1.5.0 stands in for slang3") {
		t.Errorf("the nearest older: %+v", got)
	}
}

func TestIdentifiersWithoutAFamily(t *testing.T) {
	m := newMachine(t)
	m.config.Now = func() time.Time { return time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC) }
	for id, want := range map[lambda.RuntimeID]string{
		"go1.x":      "The runtime parameter of go1.x is no longer supported for creating or updating AWS Lambda functions. We recommend you use a supported runtime while creating or updating functions.",
		"nodejs14.x": "The runtime parameter of nodejs14.x is no longer supported",
		"java21":     "The runtime java21 is not built yet in Kiln.",
		"ruby3.4":    "is not built yet in Kiln.",
		"dotnet8":    "is not built yet in Kiln.",
		"Python3.12": "Value Python3.12 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [nodejs24.x, nodejs22.x,",
		"":           "] or be a valid ARN",
	} {
		_, err := m.catalog().Resolve(t.Context(), id)
		if e := lambda.AsError(err); e == nil || !strings.Contains(e.Message, want) {
			t.Errorf("%s: %v, want %q", id, err, want)
		}
	}
	if _, err := m.catalog().Resolve(t.Context(), "x"); strings.Contains(err.Error(), "go1.x") {
		t.Errorf("a blocked runtime is offered: %v", err)
	}
	if s, ok := bootstrap.SupportOf("python3.12"); !ok || s.Deprecated != "2028-10-31" || len(bootstrap.Supports()) < 40 {
		t.Errorf("got %+v", s)
	}
}

func TestClientIsPlacedOnceAndKeptIntact(t *testing.T) {
	m := newMachine(t)
	m.family.prepared = new(int)
	m.install("bin/slang", "2.0")
	rt := m.resolve("slang2")
	check := func() {
		t.Helper()
		for name, want := range map[string]string{"main.sl": "speak", "lib/more.sl": "more", "compiled": "2.0"} {
			path := filepath.Join(rt.Client, name)
			content, err := os.ReadFile(path)
			if err != nil || string(content) != want {
				t.Errorf("%s: %q, %v", name, content, err)
			}
			for p := path; p != m.dir; p = filepath.Dir(p) {
				if info, err := os.Stat(p); err != nil || info.Mode()&0o004 == 0 || info.Mode()&0o022 != 0 {
					t.Errorf("%s: mode %v, %v", p, info.Mode(), err)
				}
			}
		}
	}
	check()
	if again := m.resolve("slang2"); again.Client != rt.Client || again.Digest != rt.Digest || *m.family.prepared != 1 {
		t.Errorf("placed again: %+v, %d times", again, *m.family.prepared)
	}
	for _, damage := range []func() error{
		func() error { return os.WriteFile(filepath.Join(rt.Client, "main.sl"), []byte("spook"), 0o644) },
		func() error { return os.WriteFile(filepath.Join(rt.Client, "compiled"), []byte("x"), 0o644) },
		func() error { return os.WriteFile(filepath.Join(rt.Client, "extra"), nil, 0o644) },
		func() error { return os.Remove(filepath.Join(rt.Client, "lib/more.sl")) },
		func() error { return os.Remove(rt.Client + ".sums") },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		m.resolve("slang2")
		check()
	}
	if *m.family.prepared != 6 {
		t.Errorf("repaired %d times", *m.family.prepared-1)
	}
	entries, _ := os.ReadDir(m.config.Dir)
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	arn := rt.VersionARN("eu-west-1")
	if !strings.HasPrefix(arn, "arn:aws:lambda:eu-west-1::runtime:") || len(arn) != len("arn:aws:lambda:eu-west-1::runtime:")+64 {
		t.Errorf("got %s", arn)
	}
}

func TestVariables(t *testing.T) {
	t.Parallel()
	sealed := bootstrap.Layout{Task: "/var/task", Opt: "/opt", Runtime: "/var/runtime", Lang: "/var/lang", Tmp: "/tmp"}
	d := sealed.Defaults(map[string]string{"X": "y"})
	for k, want := range map[string]string{
		"PATH":            "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
		"LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
		"LANG":            "en_US.UTF-8", "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR", "X": "y",
	} {
		if d[k] != want {
			t.Errorf("%s is %q, want %q", k, d[k], want)
		}
	}
	host := bootstrap.Layout{Task: "/d/task", Runtime: "/d/runtime", Lang: "/h/node", Tmp: "/d/tmp"}
	d = host.Defaults(nil)
	if d["PATH"] != "/h/node/bin:/usr/local/bin:/usr/bin/:/bin" || d["LD_LIBRARY_PATH"] != "/d/task:/d/task/lib" {
		t.Errorf("host: %v", d)
	}
	if r := host.Reserved(nil); r["LAMBDA_TASK_ROOT"] != "/d/task" || r["LAMBDA_RUNTIME_DIR"] != "/d/runtime" {
		t.Errorf("host: %v", r)
	}
}

func TestAnAnswerIsBounded(t *testing.T) {
	t.Parallel()
	out, err := bootstrap.Ask(t.Context(), "/bin/sh", "-c", "yes | head -c 1000000")
	if err != nil || len(out) != 64<<10 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}
