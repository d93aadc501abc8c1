// Package dotnet is the family of .NET runtimes. There is no client of Kiln's, and
// AWS's is no package of its own: it is part of AWS's base image, whose
// /var/runtime/bootstrap Launch starts.
//
// https://docs.aws.amazon.com/lambda/latest/dg/lambda-csharp.html
package dotnet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

// Family offers dotnet8 and dotnet10.
type Family struct{}

// New returns the family.
func New() Family { return Family{} }

// Name is what the identifiers begin with.
func (Family) Name() string { return "dotnet" }

// Identifiers are the versions that AWS has base images of.
func (Family) Identifiers() []bootstrap.Identifier {
	return []bootstrap.Identifier{{ID: "dotnet10", Version: "10"}, {ID: "dotnet8", Version: "8"}}
}

// Programs are none: a .NET on this machine has no runtime client.
func (Family) Programs() []string { return nil }

// Probe is never called.
func (Family) Probe(context.Context, string) (bootstrap.Installation, error) {
	return bootstrap.Installation{}, errors.New("a .NET runtime comes in its base image")
}

// Client is nil: it is part of the image.
func (Family) Client() fs.FS { return nil }

// Require asks for the base image.
func (Family) Require(have bootstrap.Addition) string {
	return fmt.Sprintf("The runtime %s needs its base image. Run: kiln runtime add %s --image REFERENCE, with the image of AWS's for that runtime", have.ID, have.ID)
}

// Launch starts the image's own bootstrap, with the variables that it is seen to get
// on AWS.
func (Family) Launch(id lambda.RuntimeID, _ bootstrap.Installation, l bootstrap.Layout) bootstrap.Launch {
	const program = "/var/runtime/bootstrap"
	return bootstrap.Launch{
		Path: program,
		Args: []string{program},
		Dir:  l.Task,
		Defaults: l.Defaults(map[string]string{
			"DOTNET_ROOT":   "/var/lang/bin",
			"SSL_CERT_FILE": "/var/runtime/empty-certificates.crt",
		}),
		Reserved: l.Reserved(map[string]string{
			"AWS_EXECUTION_ENV":   bootstrap.ExecutionEnv(id),
			"LAMBDA_RUNTIME_NAME": string(id),
		}),
	}
}
