package sigv4

import "strings"

// serviceIDs are the SDKs' ids of services that are signed for under another name.
var serviceIDs = map[string]string{
	"apigateway":           "API_GATEWAY",
	"appconfig":            "APPCONFIG",
	"cognito-idp":          "COGNITO_IDENTITY_PROVIDER",
	"dynamodbstreams":      "DYNAMODB_STREAMS", // signed for as dynamodb, and may be elsewhere
	"elasticfilesystem":    "EFS",
	"elasticloadbalancing": "ELASTIC_LOAD_BALANCING_V2",
	"email":                "SES",
	"events":               "EVENTBRIDGE",
	"kinesisanalytics":     "KINESIS_ANALYTICS_V2",
	"logs":                 "CLOUDWATCH_LOGS",
	"monitoring":           "CLOUDWATCH",
	"route53":              "ROUTE_53",
	"secretsmanager":       "SECRETS_MANAGER",
	"ses":                  "SESV2",
	"states":               "SFN",
	"tagging":              "RESOURCE_GROUPS_TAGGING_API",
}

// EndpointVariable is the environment variable by which the SDKs are told of
// another endpoint of the service that is signed for under this name.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
func EndpointVariable(service string) string {
	id, ok := serviceIDs[service]
	if !ok {
		id = strings.ToUpper(strings.NewReplacer("-", "_", ".", "_", " ", "_").Replace(service))
	}
	return "AWS_ENDPOINT_URL_" + id
}

// named are services that are signed for by their ids: those of serviceIDs aside, what
// applications of functions use.
var named = []string{
	"acm", "appsync", "athena", "backup", "batch", "cloudformation", "cloudfront", "cloudtrail", "codebuild", "cognito-identity",
	"comprehend", "dynamodb", "ec2", "ecr", "ecs", "eks", "elasticache", "firehose", "glue", "guardduty", "iot", "kafka", "kinesis", "kms",
	"lakeformation", "mq", "neptune", "organizations", "pinpoint", "pipes", "polly", "rds", "redshift", "rekognition", "s3",
	"scheduler", "schemas", "sns", "sqs", "ssm", "textract", "transcribe", "transfer", "translate", "wafv2", "xray",
}

// Endpoints are what the environment tells the SDKs of other endpoints, by the name that
// is signed for, with the variable of each; "*" is the one of all other services.
func Endpoints(getenv func(string) string) (urls, variables map[string]string) {
	urls, variables = map[string]string{}, map[string]string{}
	if strings.EqualFold(getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"), "true") {
		return urls, variables
	}
	take := func(service, variable string) {
		if url := getenv(variable); url != "" {
			urls[service], variables[service] = url, variable
		}
	}
	take("*", "AWS_ENDPOINT_URL")
	for _, service := range named {
		take(service, EndpointVariable(service))
	}
	for service, id := range serviceIDs {
		take(service, "AWS_ENDPOINT_URL_"+id)
	}
	return urls, variables
}
