package nodejs

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

// sdk is the version of the AWS SDK. Its packages are released apart from each
// other, so that each is the newest up to this one.
const sdk = "<=3.1164.0"

// clients are those of the SDK that functions mostly use. AWS bundles all of its
// 370, which take more than a gigabyte; the others are added by name.
var clients = []string{
	"api-gateway", "apigatewaymanagementapi", "appconfigdata", "athena", "bedrock-runtime", "cloudformation",
	"cloudfront", "cloudwatch", "cloudwatch-logs", "codepipeline", "cognito-identity",
	"cognito-identity-provider", "dynamodb", "dynamodb-streams", "ecr", "ecs", "eventbridge", "firehose", "iam",
	"kinesis", "kms", "lambda", "polly", "rds-data", "redshift-data", "rekognition", "route-53", "s3", "scheduler",
	"secrets-manager", "ses", "sesv2", "sfn", "sns", "sqs", "ssm", "sts", "textract", "transcribe", "translate", "xray",
}

// Bundle is the AWS SDK: its usual clients, and the libraries beside them.
func (Family) Bundle(lambda.RuntimeID) (list []string) {
	for _, name := range clients {
		list = append(list, "@aws-sdk/client-"+name+"@"+sdk)
	}
	for _, name := range []string{"credential-providers", "lib-dynamodb", "lib-storage", "s3-request-presigner", "util-dynamodb"} {
		list = append(list, "@aws-sdk/"+name+"@"+sdk)
	}
	return list
}

// Install runs npm, without the packages' own scripts. Types are left out: they are
// half of what it installs, and nothing reads them at run time.
func (Family) Install(ctx context.Context, _ bootstrap.Installation, packages []string, dir string) error {
	args := []string{
		"install", "--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--no-update-notifier",
		"--ignore-scripts", "--no-bin-links", "--loglevel=error", "--prefix", dir,
	}
	if err := bootstrap.Fetch(ctx, dir, "npm", slices.Concat(args, packages)...); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || d.Name() != "dist-types" {
			return err
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		return fs.SkipDir
	})
}
