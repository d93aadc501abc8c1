package sigv4_test

import (
	"maps"
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

func TestEndpoints(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		"AWS_ENDPOINT_URL": "all", "AWS_ENDPOINT_URL_SQS": "queues", "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": "streams", "AWS_ENDPOINT_URL_EVENTBRIDGE": "buses", "AWS_ENDPOINT_URL_NOTHING": "x",
	}
	want := map[string]string{"*": "all", "sqs": "queues", "dynamodbstreams": "streams", "events": "buses"}
	urls, variables := sigv4.Endpoints(func(name string) string { return env[name] })
	if !maps.Equal(urls, want) || variables["events"] != "AWS_ENDPOINT_URL_EVENTBRIDGE" {
		t.Errorf("got %v by %v", urls, variables)
	}
	env["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "true"
	if urls, _ := sigv4.Endpoints(func(name string) string { return env[name] }); len(urls) != 0 {
		t.Errorf("ignored, got %v", urls)
	}
}
