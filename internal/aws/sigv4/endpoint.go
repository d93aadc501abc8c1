package sigv4

import "strings"

// serviceIDs are the SDKs' ids of services that are signed for under another name.
var serviceIDs = map[string]string{
	"apigateway":           "API_GATEWAY",
	"appconfig":            "APPCONFIG",
	"cognito-idp":          "COGNITO_IDENTITY_PROVIDER",
	"elasticfilesystem":    "EFS",
	"elasticloadbalancing": "ELASTIC_LOAD_BALANCING_V2",
	"email":                "SES",
	"events":               "EVENTBRIDGE",
	"kinesisanalytics":     "KINESIS_ANALYTICS_V2",
	"logs":                 "CLOUDWATCH_LOGS",
	"monitoring":           "CLOUDWATCH",
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
