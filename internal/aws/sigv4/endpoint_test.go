package sigv4_test

import (
	"testing"

	"kiln/internal/aws/sigv4"
)

func TestEndpointVariable(t *testing.T) {
	t.Parallel()
	for service, want := range map[string]string{
		"sqs":         "AWS_ENDPOINT_URL_SQS",
		"dynamodb":    "AWS_ENDPOINT_URL_DYNAMODB",
		"logs":        "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
		"execute-api": "AWS_ENDPOINT_URL_EXECUTE_API",
	} {
		if got := sigv4.EndpointVariable(service); got != want {
			t.Errorf("%s: %s, want %s", service, got, want)
		}
	}
}
