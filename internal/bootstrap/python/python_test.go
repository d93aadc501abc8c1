package python_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/python"
)

func TestProbeRefusesWhatCannotServe(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, script, want string }{
		{"old", "echo cpython; echo 3.8.18; echo /usr/bin/python3.8; echo /usr", "3.9 is the oldest"},
		{"another implementation", "echo pypy; echo 3.10.1; echo /x; echo /x", "is pypy"},
		{"something else", "echo hello", "does not answer as Python does"},
		{"broken", "echo 'no libpython' >&2; exit 127", "no libpython"},
	}
	for _, c := range cases {
		path := filepath.Join(t.TempDir(), "python3")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if in, err := python.New().Probe(t.Context(), path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v", c.name, in, err)
		}
	}
}

func TestVirtualEnvironmentLeadsToItsBase(t *testing.T) {
	t.Parallel()
	rt := resolve(t, "python3.12")
	dir := filepath.Join(t.TempDir(), "venv")
	if _, err := bootstrap.Ask(t.Context(), rt.Installation.Program, "-m", "venv", "--without-pip", dir); err != nil {
		t.Fatal(err)
	}
	in, err := python.New().Probe(t.Context(), filepath.Join(dir, "bin", "python3"))
	if err != nil || in != rt.Installation {
		t.Errorf("got %+v, %v, want %+v", in, err, rt.Installation)
	}
}

func TestLaunchInASealedRootAndOnHostPaths(t *testing.T) {
	t.Parallel()
	f := python.New()
	in := bootstrap.Installation{Program: "/home/u/.pyenv/versions/3.12.1/bin/python3.12", Prefix: "/home/u/.pyenv/versions/3.12.1", Version: "3.12.1"}
	sealed := f.Launch("python3.12", in, bootstrap.Layout{Task: "/var/task", Opt: "/opt", Runtime: "/var/runtime", Lang: "/var/lang", Tmp: "/tmp"})
	if got := strings.Join(sealed.Args, " "); got != "/var/lang/bin/python3.12 /var/runtime/bootstrap.py" || sealed.Path != "/var/lang/bin/python3.12" {
		t.Errorf("sealed: %s", got)
	}
	if sealed.Reserved["AWS_EXECUTION_ENV"] != "AWS_Lambda_python3.12" || sealed.Defaults["PYTHONPATH"] != "/var/runtime" {
		t.Errorf("sealed: %v %v", sealed.Defaults, sealed.Reserved)
	}
	host := f.Launch("python3.12", in, bootstrap.Layout{Task: "/d/task", Opt: "/d/opt", Runtime: "/d/runtime", Lang: in.Prefix, Tmp: "/d/tmp"})
	if got := strings.Join(host.Args, " "); got != in.Program+" -B -X kiln_opt=/d/opt /d/runtime/bootstrap.py" {
		t.Errorf("host: %s", got)
	}
	if got := host.Wrapped("/d/opt/wrapper"); got.Path != "/d/opt/wrapper" || got.Args[1] != in.Program || len(got.Args) != len(host.Args)+1 {
		t.Errorf("wrapped: %+v", got)
	}
}

func TestWaits(t *testing.T) {
	t.Parallel()
	r := &bootstrap.Runtime{Family: python.New()}
	if !r.Waits(map[string]string{"MINE": "x", "NODE_OPTIONS": "x"}) {
		t.Error("a function's own variables keep it from a runtime that waits")
	}
	for _, name := range []string{"PYTHONPATH", "PYTHONHASHSEED", "TZ", "LC_CTYPE", "LD_LIBRARY_PATH", "AWS_LAMBDA_EXEC_WRAPPER"} {
		if r.Waits(map[string]string{name: "x"}) {
			t.Errorf("%s comes too late for a runtime that waits", name)
		}
	}
}
