package ruby

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

// gems are those of the AWS SDK, version 3, that functions mostly use: each has a
// first version for good, the core a third. AWS bundles all of its 400; the others
// are added by name.
var gems = []string{
	"apigatewaymanagementapi", "athena", "bedrockruntime", "cloudformation", "cloudwatch", "cloudwatchlogs",
	"cognitoidentityprovider", "dynamodb", "ecs", "eventbridge", "firehose", "iam", "kinesis", "kms", "lambda",
	"rdsdataservice", "rekognition", "s3", "scheduler", "secretsmanager", "ses", "sesv2", "sns", "sqs", "ssm", "states", "xray",
}

// Bundle is the AWS SDK: its usual gems.
func (Family) Bundle(lambda.RuntimeID) []string {
	list := []string{"aws-sdk-core:~>3"}
	for _, name := range gems {
		list = append(list, "aws-sdk-"+name+":~>1")
	}
	return list
}

// Install runs the interpreter's own gem command. Others than AWS's gems are refused:
// a gem may build and run what it likes when it is installed, with the daemon's rights.
func (Family) Install(ctx context.Context, in bootstrap.Installation, packages []string, dir string) error {
	for _, p := range packages {
		if !strings.HasPrefix(p, "aws-") {
			return fmt.Errorf("%s is none of AWS's gems; put it into the function's package, or into a layer", p)
		}
	}
	args := []string{
		"-rrubygems/gem_runner", "-e", "Gem::GemRunner.new.run(ARGV)", "--",
		"install", "--quiet", "--no-document", "--no-user-install", "--install-dir", dir,
	}
	if err := bootstrap.Fetch(ctx, dir, in.Program, slices.Concat(args, packages)...); err != nil {
		return err
	}
	// The packages as they were fetched, and what only the command itself reads.
	var err error
	for _, name := range []string{"cache", "doc", "build_info"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
	}
	return err
}
