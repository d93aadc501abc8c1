package python

import (
	"context"
	"slices"
	"strings"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

// Bundle is the AWS SDK, as AWS puts it beside Python. boto3 left Python 3.9 with
// its version 1.43.
func (Family) Bundle(id lambda.RuntimeID) []string {
	if id == "python3.9" {
		return []string{"boto3==1.42.97", "botocore==1.42.97"}
	}
	return []string{"boto3==1.44.5", "botocore==1.44.5"}
}

// Install runs the interpreter's own pip, or else any pip, which is then told what
// it installs for. Packages come as wheels, so that none runs a program of its own.
func (Family) Install(ctx context.Context, in bootstrap.Installation, packages []string, dir string) error {
	args := []string{
		"install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile",
		"--only-binary", ":all:", "--target", dir,
	}
	program := "pip"
	if _, err := bootstrap.Ask(ctx, in.Program, "-I", "-c", "import pip"); err == nil {
		program, args = in.Program, append([]string{"-I", "-m", "pip"}, args...)
	} else {
		branch := strings.Join(strings.SplitN(in.Version, ".", 3)[:2], ".")
		args = append(args, "--implementation", "cp", "--python-version", branch)
	}
	if err := bootstrap.Fetch(ctx, dir, program, slices.Concat(args, packages)...); err != nil {
		return err
	}
	// Found by its source's name, never compared with its time: see Prepare.
	_, err := bootstrap.Ask(ctx, in.Program, "-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", dir)
	return err
}
