// Package bootstrap knows the managed runtimes: their identifiers, the
// interpreters that this machine has for them, and how each is started with
// Kiln's runtime client. The languages live in its folders (nodejs, python,
// provided), each a Family; the Catalog joins them. It starts no function: the
// environment package takes a Runtime and executes its Launch in a sandbox.
package bootstrap

import (
	"context"
	"io/fs"

	"kiln/internal/lambda"
)

// Layout is where things are for the processes of a sandbox.
type Layout struct {
	Task, Opt, Runtime, Lang, Tmp string
	// HostTask and HostOpt are the same two folders as the daemon sees them; the
	// provided runtimes look there for their program. HostOpt is "" without layers.
	HostTask, HostOpt string
}

// Launch is how a runtime is started.
type Launch struct {
	Path string   // of the executable, inside
	Args []string // argv, from argv[0]
	Dir  string
	// Defaults are variables that the function's own settings override (PATH,
	// LANG, NODE_PATH …); Reserved ones cannot be overridden.
	Defaults, Reserved map[string]string
	// OSOnly says that no client of Kiln's runs: such a runtime gets no
	// _LAMBDA_TELEMETRY_LOG_FD, and AWS_LAMBDA_EXEC_WRAPPER means nothing to it.
	OSOnly bool
	// OwnWrapper says that the client honours AWS_LAMBDA_EXEC_WRAPPER by itself.
	OwnWrapper bool
}

// Wrapped is the launch through an AWS_LAMBDA_EXEC_WRAPPER: the wrapper gets the
// whole command line as its arguments. OS-only runtimes are not wrapped.
func (l Launch) Wrapped(wrapper string) Launch {
	if wrapper == "" || l.OSOnly || l.OwnWrapper {
		return l
	}
	args := []string{wrapper, l.Path}
	if len(l.Args) > 1 {
		args = append(args, l.Args[1:]...)
	}
	l.Path, l.Args = wrapper, args
	return l
}

// Identifier is one runtime that a Family offers.
type Identifier struct {
	ID      lambda.RuntimeID
	Version string // of the language: 22, 3.13; "" where any will do
}

// Installation is an interpreter found on this machine.
type Installation struct {
	Program string // absolute path, symlinks resolved
	Prefix  string // the tree that it needs, mounted as Layout.Lang; "" when it lies in /usr
	Version string // as it reports itself: 22.11.0, 3.12.1
}

// Family is one language. Methods are safe for concurrent use.
type Family interface {
	// Name is what the family's identifiers begin with.
	Name() string
	Identifiers() []Identifier
	// Programs are the names and glob patterns by which interpreters are found.
	// One without a slash is a name on PATH (python3, python3.*); one with a
	// slash is a path: absolute, relative to the home folder, or beginning with
	// a variable ($PYENV_ROOT/versions/*/bin/python3), left out where that is unset.
	Programs() []string
	// Probe runs a program and says what it is. Families without an interpreter
	// have no Programs and are never probed.
	Probe(ctx context.Context, program string) (Installation, error)
	// Client is the runtime client's files, placed at Layout.Runtime; nil for none.
	Client() fs.FS
	Launch(id lambda.RuntimeID, in Installation, l Layout) Launch
}

// Preparer is an optional capability of a Family: it adds to a copy of its client
// what one interpreter makes of it, such as compiled code. The folder is complete
// otherwise, and read-only once Prepare returned.
type Preparer interface {
	Prepare(ctx context.Context, in Installation, dir string) error
}

// Adjuster is an optional capability of a Family: it fits a launch to the
// variables that the function gets, its own and the platform's.
type Adjuster interface {
	Adjust(l Launch, vars map[string]string) Launch
}

// Waiter is an optional capability of a Family: its client can be started before it
// is known for which function, and waits to be told (see package spares).
type Waiter interface {
	// AtStart tells whether a variable means something to the interpreter's start
	// alone, besides those that mean it to every program's.
	AtStart(variable string) bool
}

// Runtime is an identifier resolved on this machine. It is immutable.
type Runtime struct {
	ID           lambda.RuntimeID
	Family       Family
	Installation Installation
	// Client is the host's folder with the runtime client; "" for none.
	Client string
	// Label and Digest name the runtime's exact version, for INIT_START and
	// RuntimeVersionArn: "nodejs:22.v11" and 64 hexadecimal digits that change with interpreter
	// or client. Empty for provided runtimes.
	Label, Digest string
	// Substitute says which other version serves this identifier, or "".
	Substitute string
	// Image is the digest of the base image whose root the runtime runs in, by
	// LaunchIn; "" where it runs in the driver's, by Launch.
	Image string
}

// Launch is how the runtime is started in a sandbox of that layout.
func (r *Runtime) Launch(l Layout) Launch { return r.Family.Launch(r.ID, r.Installation, l) }

// Adjust fits the launch to the variables, where the family does that.
func (r *Runtime) Adjust(l Launch, vars map[string]string) Launch {
	if a, ok := r.Family.(Adjuster); ok && r.Image == "" {
		return a.Adjust(l, vars)
	}
	return l
}

// Waits tells whether the runtime can be started before a function's own variables
// are known to it.
func (r *Runtime) Waits(own map[string]string) bool {
	w, ok := r.Family.(Waiter)
	if !ok || r.Image != "" {
		return false
	}
	for name := range own {
		if atStart(name) || w.AtStart(name) {
			return false
		}
	}
	return true
}

// VersionARN is the runtime's RuntimeVersionArn, or "" for provided runtimes.
func (r *Runtime) VersionARN(region lambda.Region) string {
	if r.Digest == "" {
		return ""
	}
	return "arn:aws:lambda:" + string(region) + "::runtime:" + r.Digest
}
