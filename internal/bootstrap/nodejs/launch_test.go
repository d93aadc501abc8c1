package nodejs_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/nodejs"
)

var sealed = bootstrap.Layout{Task: "/var/task", Opt: "/opt", Runtime: "/var/runtime", Lang: "/var/lang", Tmp: "/tmp"}

func TestLaunch(t *testing.T) {
	t.Parallel()
	in := bootstrap.Installation{Program: "/home/me/.nvm/versions/node/v22.11.0/bin/node", Prefix: "/home/me/.nvm/versions/node/v22.11.0", Version: "22.11.0"}
	l := nodejs.New().Launch("nodejs20.x", in, sealed)
	if want := "/var/lang/bin/node --expose-gc --max-http-header-size 81920 --no-experimental-detect-module --no-experimental-require-module /var/runtime/index.cjs"; strings.Join(l.Args, " ") != want {
		t.Errorf("arguments %q", l.Args)
	}
	if l.Path != "/var/lang/bin/node" || l.Dir != "/var/task" {
		t.Errorf("%s in %s", l.Path, l.Dir)
	}
	for name, want := range map[string]string{
		"NODE_PATH": "/opt/nodejs/node20/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task",
		"PATH":      "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
		"TZ":        ":UTC",
	} {
		if got := l.Defaults[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := l.Reserved["AWS_EXECUTION_ENV"]; got != "AWS_Lambda_nodejs20.x" {
		t.Errorf("AWS_EXECUTION_ENV is %q", got)
	}
	for version, flags := range map[string]int{"20.9.0": 0, "20.11.0": 1, "20.19.1": 2, "24.0.0": 2} {
		l := nodejs.New().Launch("nodejs20.x", bootstrap.Installation{Program: "/usr/bin/node", Version: version}, sealed)
		if l.Path != "/usr/bin/node" || len(l.Args) != 5+flags {
			t.Errorf("%s: %q", version, l.Args)
		}
	}
}

func TestAdjust(t *testing.T) {
	t.Parallel()
	l := nodejs.New().Launch("nodejs22.x", bootstrap.Installation{Program: "/usr/bin/node", Version: "22.11.0"}, sealed)
	for _, c := range []struct {
		vars map[string]string
		want []string
	}{
		{nil, l.Args},
		{map[string]string{"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128"},
			slices.Insert(slices.Clone(l.Args), len(l.Args)-1, "--max-semi-space-size=6", "--max-old-space-size=116")},
		{map[string]string{"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128", "NODE_OPTIONS": "--max-old-space-size=64 --experimental-require-module"},
			[]string{"/usr/bin/node", "--expose-gc", "--max-http-header-size", "81920", "--no-experimental-detect-module", "/var/runtime/index.cjs"}},
	} {
		if got := nodejs.New().Adjust(l, c.vars).Args; !slices.Equal(got, c.want) {
			t.Errorf("with %v: %q, want %q", c.vars, got, c.want)
		}
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	program := func(says string) string {
		path := filepath.Join(t.TempDir(), "prefix", "bin", "node")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+says+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := program("v22.1.0")
	in, err := nodejs.New().Probe(t.Context(), path)
	if want := (bootstrap.Installation{Program: path, Prefix: filepath.Dir(filepath.Dir(path)), Version: "22.1.0"}); err != nil || in != want {
		t.Errorf("%+v, %v", in, err)
	}
	for says, want := range map[string]string{"v18.20.0": "is Node.js 18.20.0; 20 is the oldest that Kiln runs", "hello": "does not answer as Node.js does"} {
		if _, err := nodejs.New().Probe(t.Context(), program(says)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestWaits(t *testing.T) {
	t.Parallel()
	r := &bootstrap.Runtime{Family: nodejs.New()}
	for _, name := range []string{"", "NODE_ENV", "MINE", "HOME", "AWS_NODEJS_CONNECTION_REUSE_ENABLED"} {
		if !r.Waits(map[string]string{"OTHER": "", name: "x"}) {
			t.Errorf("a function that sets %s gets no runtime that waits", name)
		}
	}
	for _, name := range []string{"NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS", "UV_THREADPOOL_SIZE", "TZ", "LANG", "LC_ALL", "LD_PRELOAD", "SSL_CERT_FILE", "AWS_LAMBDA_EXEC_WRAPPER"} {
		if r.Waits(map[string]string{"OTHER": "", name: "x"}) {
			t.Errorf("%s comes too late for a runtime that waits", name)
		}
	}
	if r.Image = "digest"; r.Waits(nil) {
		t.Error("a base image's runtime waits")
	}
}
