// Package nodejs is the family of Node.js runtimes: how interpreters are found,
// and a runtime client written in JavaScript that speaks the Runtime API over a
// plain socket. It starts nothing; the environment package executes its Launch.
//
// https://docs.aws.amazon.com/lambda/latest/dg/lambda-nodejs.html
package nodejs

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

// oldest is the first major version of Node.js that the client is written for.
const oldest = 20

// Family offers nodejs20.x, nodejs22.x and nodejs24.x.
type Family struct{}

// New returns the family.
func New() Family { return Family{} }

// Name is what the identifiers begin with.
func (Family) Name() string { return "nodejs" }

// Identifiers are the versions whose rules the client knows.
func (Family) Identifiers() []bootstrap.Identifier {
	return []bootstrap.Identifier{
		{ID: "nodejs24.x", Version: "24"},
		{ID: "nodejs22.x", Version: "22"},
		{ID: "nodejs20.x", Version: "20"},
	}
}

// Programs are the name of the interpreter and the folders of version managers.
func (Family) Programs() []string {
	return []string{
		"node", "nodejs", "node[0-9][0-9]", "node-[0-9][0-9]",
		"$NVM_DIR/versions/node/v*/bin/node",
		".nvm/versions/node/v*/bin/node",
		"$FNM_DIR/node-versions/v*/installation/bin/node",
		".local/share/fnm/node-versions/v*/installation/bin/node",
		"$VOLTA_HOME/tools/image/node/*/bin/node",
		".volta/tools/image/node/*/bin/node",
		"$ASDF_DATA_DIR/installs/nodejs/*/bin/node",
		".asdf/installs/nodejs/*/bin/node",
		"$MISE_DATA_DIR/installs/node/*/bin/node",
		".local/share/mise/installs/node/*/bin/node",
		"$NODENV_ROOT/versions/*/bin/node",
		".nodenv/versions/*/bin/node",
		"$N_PREFIX/n/versions/node/*/bin/node",
		"n/n/versions/node/*/bin/node",
		"$HOMEBREW_PREFIX/opt/node*/bin/node",
		"/opt/homebrew/opt/node*/bin/node",
		"/home/linuxbrew/.linuxbrew/opt/node*/bin/node",
		"/usr/local/n/versions/node/*/bin/node",
		"/opt/node*/bin/node",
	}
}

// Probe asks an interpreter for its version.
func (Family) Probe(ctx context.Context, program string) (bootstrap.Installation, error) {
	out, err := bootstrap.Ask(ctx, program, "--version")
	if err != nil {
		return bootstrap.Installation{}, err
	}
	version, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "v")
	if !ok {
		return bootstrap.Installation{}, fmt.Errorf("does not answer as Node.js does: %.40q", out)
	}
	if major, _ := release(version); major < oldest {
		return bootstrap.Installation{}, fmt.Errorf("is Node.js %s; %d is the oldest that Kiln runs", version, oldest)
	}
	return bootstrap.Installation{Program: program, Prefix: prefix(program), Version: version}, nil
}

// prefix is the tree around bin/node, or "" where the machine's /usr holds it. A
// binary that stands alone needs its own folder.
func prefix(program string) string {
	dir := filepath.Dir(program)
	if filepath.Base(dir) == "bin" {
		dir = filepath.Dir(dir)
	}
	if dir == "/" || dir == "/usr" || strings.HasPrefix(dir, "/usr/") {
		return ""
	}
	return dir
}

// Client is the runtime client, in one file, and what it rehearses with.
func (Family) Client() fs.FS { return bundle() }

// Launch starts the client. Its file ends in .cjs because its folder is on
// NODE_PATH, as on AWS: a function's require of index must not find it. The first
// flags are AWS's: functions call gc, and get large headers.
func (Family) Launch(id lambda.RuntimeID, in bootstrap.Installation, l bootstrap.Layout) bootstrap.Launch {
	program := in.Inside(l)
	args := append([]string{program, "--expose-gc", "--max-http-header-size", "81920"}, flags(in.Version)...)
	return bootstrap.Launch{
		Path:     program,
		Args:     append(args, l.Runtime+"/"+entry),
		Dir:      l.Task,
		Defaults: l.Defaults(map[string]string{"NODE_PATH": searchPath(id, l), "PWD": l.Task, "SHLVL": "0"}),
		Reserved: l.Reserved(map[string]string{"AWS_EXECUTION_ENV": bootstrap.ExecutionEnv(id)}),
	}
}

// searchPath is where require looks after node_modules. The folder of the major
// version follows the identifier, whatever interpreter serves it.
func searchPath(id lambda.RuntimeID, l bootstrap.Layout) string {
	major, _, _ := strings.Cut(strings.TrimPrefix(string(id), "nodejs"), ".")
	var folders []string
	if l.Opt != "" {
		folders = append(folders, l.Opt+"/nodejs/node"+major+"/node_modules", l.Opt+"/nodejs/node_modules")
	}
	return strings.Join(append(folders, l.Runtime+"/node_modules", l.Runtime, l.Task), ":")
}

// flags turn off what AWS turns off: guessing that a file is an ES module, and
// loading one by require.
func flags(version string) (list []string) {
	major, minor := release(version)
	if major == 20 && minor >= 10 || major > 20 {
		list = append(list, noFlag+"experimental-detect-module")
	}
	if major == 20 && minor >= 17 || major > 20 {
		list = append(list, noFlag+"experimental-require-module")
	}
	return list
}

const noFlag = "--no-"

// Adjust fits a launch to the variables that the function gets, its own and the
// platform's. What the command line says goes before NODE_OPTIONS, so a flag that
// NODE_OPTIONS asks for must not be turned off there. The heap is bounded by the
// function's memory as on AWS, a tenth of it for young objects: without, V8 sizes
// its heap by the machine and a small function dies where collecting would do.
//
// It is an optional capability, asked of a Family by assertion; without the call
// the launch works with Node.js's own sizes and AWS's default flags.
func (Family) Adjust(l bootstrap.Launch, vars map[string]string) bootstrap.Launch {
	if len(l.Args) == 0 {
		return l
	}
	options := vars["NODE_OPTIONS"]
	var args, sizes []string
	memory, err := strconv.Atoi(vars["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"])
	if err == nil && !strings.Contains(strings.ReplaceAll(options, "_", "-"), "-space-size") {
		young := memory / 10
		sizes = append(sizes,
			"--max-semi-space-size="+strconv.Itoa(young/2),
			"--max-old-space-size="+strconv.Itoa(memory-young))
	}
	for _, arg := range l.Args[:len(l.Args)-1] {
		if name, off := strings.CutPrefix(arg, noFlag); off && slices.Contains(strings.Fields(options), "--"+name) {
			continue
		}
		args = append(args, arg)
	}
	l.Args = append(append(args, sizes...), l.Args[len(l.Args)-1])
	return l
}

// AtStart tells of variables that Node.js reads as it starts, or keeps from then.
func (Family) AtStart(name string) bool {
	return strings.HasPrefix(name, "NODE_") && name != "NODE_ENV" || strings.HasPrefix(name, "UV_")
}

// release is the first two numbers of a version.
func release(version string) (major, minor int) {
	parts := strings.SplitN(version, ".", 3)
	major, _ = strconv.Atoi(parts[0]) // what is no number is 0, older than any
	if len(parts) > 1 {
		minor, _ = strconv.Atoi(parts[1])
	}
	return major, minor
}
