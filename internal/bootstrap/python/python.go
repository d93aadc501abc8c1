// Package python is the family of Python runtimes: how Python interpreters are
// found, and a runtime client written in Python that speaks the Runtime API. The
// client's folder, client/, has its own notes on what it imports and why.
//
// https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html
package python

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

//go:embed client/bootstrap.py client/kiln_runtime/*.py client/awslambdaric/*.py
var client embed.FS

// Family offers python3.9 to python3.14.
type Family struct{}

// New returns the family.
func New() Family { return Family{} }

// Name is what the identifiers begin with.
func (Family) Name() string { return "python" }

// Identifiers are the versions that the client is written for.
func (Family) Identifiers() (list []bootstrap.Identifier) {
	for _, v := range []string{"3.14", "3.13", "3.12", "3.11", "3.10", "3.9"} {
		list = append(list, bootstrap.Identifier{ID: lambda.RuntimeID("python" + v), Version: v})
	}
	return list
}

// Programs are the names of interpreters and the folders of version managers.
func (Family) Programs() []string {
	return []string{
		"python3", "python3.[0-9]", "python3.[0-9][0-9]",
		"$PYENV_ROOT/versions/3.*/bin/python3",
		".pyenv/versions/3.*/bin/python3",
		"$ASDF_DATA_DIR/installs/python/3.*/bin/python3",
		".asdf/installs/python/3.*/bin/python3",
		"$MISE_DATA_DIR/installs/python/3.*/bin/python3",
		".local/share/mise/installs/python/3.*/bin/python3",
		"$UV_PYTHON_INSTALL_DIR/cpython-3.*/bin/python3",
		".local/share/uv/python/cpython-3.*/bin/python3",
		"$HOMEBREW_PREFIX/opt/python@3.*/bin/python3.*[0-9]",
		"/opt/homebrew/opt/python@3.*/bin/python3.*[0-9]",
		"/home/linuxbrew/.linuxbrew/opt/python@3.*/bin/python3.*[0-9]",
		"/opt/python*/bin/python3",
		"/opt/python/*/bin/python3",
		"/Library/Frameworks/Python.framework/Versions/3.*/bin/python3",
		"/Library/Developer/CommandLineTools/usr/bin/python3",
		"/usr/bin/python3.*[0-9]",
		"/usr/local/bin/python3.*[0-9]",
	}
}

// question prints what Probe wants to know, a line each. A virtual environment
// answers with its base: the sandbox would otherwise need both trees.
const question = `import sys
print(sys.implementation.name + (" without its global lock" if "t" in sys.abiflags else ""))
print("%d.%d.%d" % sys.version_info[:3])
print(getattr(sys, "_base_executable", "") or sys.executable)
print(sys.base_prefix)`

// Probe asks an interpreter for its version and its tree.
func (Family) Probe(ctx context.Context, program string) (bootstrap.Installation, error) {
	out, err := bootstrap.Ask(ctx, program, "-I", "-S", "-c", question)
	if err != nil {
		return bootstrap.Installation{}, err
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != 4 {
		return bootstrap.Installation{}, errors.New("does not answer as Python does")
	}
	if lines[0] != "cpython" {
		return bootstrap.Installation{}, fmt.Errorf("is %s; Lambda runs CPython", lines[0])
	}
	in := bootstrap.Installation{Version: lines[1], Program: program, Prefix: lines[3]}
	if old(in.Version) {
		return bootstrap.Installation{}, fmt.Errorf("is Python %s; 3.9 is the oldest that Kiln runs", in.Version)
	}
	if real, err := filepath.EvalSymlinks(lines[2]); err == nil {
		in.Program = real
	}
	if real, err := filepath.EvalSymlinks(in.Prefix); err == nil {
		in.Prefix = real
	}
	if in.Prefix == "/usr" || strings.HasPrefix(in.Prefix, "/usr/") {
		in.Prefix = ""
	}
	return in, nil
}

func old(version string) bool {
	for _, v := range []string{"3.0.", "3.1.", "3.2.", "3.3.", "3.4.", "3.5.", "3.6.", "3.7.", "3.8."} {
		if strings.HasPrefix(version, v) {
			return true
		}
	}
	return strings.HasPrefix(version, "2.")
}

// Client is the runtime client.
func (Family) Client() fs.FS {
	sub, err := fs.Sub(client, "client")
	if err != nil {
		panic(err) // the embedded folder's name is a constant
	}
	return sub
}

// Prepare compiles the client: its folder is read-only for functions, and
// compiling takes longer than everything else the client does at start. The code
// is found by its source's name, never compared with its time.
func (Family) Prepare(ctx context.Context, in bootstrap.Installation, dir string) error {
	_, err := bootstrap.Ask(ctx, in.Program, "-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", dir)
	return err
}

// Launch starts the client's bootstrap.py.
func (Family) Launch(id lambda.RuntimeID, in bootstrap.Installation, l bootstrap.Layout) bootstrap.Launch {
	program := in.Inside(l)
	args := []string{program}
	if l.Task != "/var/task" {
		// Where code lies in a folder of the host's, the interpreter might be
		// allowed to leave its __pycache__ there, for every other environment.
		args = append(args, "-B")
	}
	if l.Opt != "" && l.Opt != "/opt" {
		args = append(args, "-X", "kiln_opt="+l.Opt)
	}
	own := map[string]string{"PYTHONPATH": l.Runtime, "PWD": l.Task, "SHLVL": "0"}
	if runtime.GOOS == "linux" {
		own["LC_CTYPE"] = "C.UTF-8" // as on AWS, where Python chooses it for want of en_US.UTF-8
	}
	return bootstrap.Launch{
		Path:     program,
		Args:     append(args, l.Runtime+"/bootstrap.py"),
		Dir:      l.Task,
		Defaults: l.Defaults(own),
		Reserved: l.Reserved(map[string]string{"AWS_EXECUTION_ENV": bootstrap.ExecutionEnv(id)}),
	}
}

// AtStart tells of variables that Python reads as it starts.
func (Family) AtStart(name string) bool { return strings.HasPrefix(name, "PYTHON") }
