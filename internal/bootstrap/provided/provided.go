// Package provided is the family of OS-only runtimes: the function's code brings
// its own executable, bootstrap, which speaks the Runtime API by itself. There is
// no interpreter and no client.
//
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html
package provided

import (
	"context"
	"errors"
	"io/fs"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

// Family offers provided.al2023 and provided.al2.
type Family struct{}

// New returns the family.
func New() Family { return Family{} }

// Name is what the identifiers begin with.
func (Family) Name() string { return "provided" }

// Identifiers are the OS-only runtimes; their bases differ on AWS only.
func (Family) Identifiers() []bootstrap.Identifier {
	return []bootstrap.Identifier{{ID: "provided.al2023"}, {ID: "provided.al2"}}
}

// Programs is empty: there is no interpreter.
func (Family) Programs() []string { return nil }

// Probe is never called.
func (Family) Probe(context.Context, string) (bootstrap.Installation, error) {
	return bootstrap.Installation{}, errors.New("provided runtimes have no interpreter")
}

// Client is nil: the function brings its own.
func (Family) Client() fs.FS { return nil }

// Launch starts the bootstrap of the code, or else that of the layers. Where
// neither has one, it names the code's: starting that fails, which the environment
// reports as Runtime.InvalidEntrypoint.
func (Family) Launch(_ lambda.RuntimeID, _ bootstrap.Installation, l bootstrap.Layout) bootstrap.Launch {
	path := l.Task + "/" + name
	if found, err := Entrypoint(l.HostTask, l.HostOpt); err == nil && found == InOpt {
		path = l.Opt + "/" + name
	}
	return bootstrap.Launch{
		Path:     path,
		Args:     []string{path},
		Dir:      l.Task,
		Defaults: l.Defaults(nil),
		Reserved: l.Reserved(nil),
		OSOnly:   true,
	}
}
