package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/cfn"
	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"kiln/internal/cli"
)

// TestSamples reads each sample as a function in Go does, with the types that AWS
// publishes, and writes it again: nothing of it is lost.
func TestSamples(t *testing.T) {
	t.Parallel()
	kinds := map[string]any{
		"activemq": events.ActiveMQEvent{}, "alb": events.ALBTargetGroupRequest{}, "alb-multivalue": events.ALBTargetGroupRequest{},
		"apigateway": events.APIGatewayProxyRequest{}, "apigateway-authorizer": events.APIGatewayCustomAuthorizerRequest{}, "apigateway-websocket": events.APIGatewayWebsocketProxyRequest{},
		"cloudformation": cfn.Event{}, "cloudwatch-logs": events.CloudwatchLogsEvent{},
		"cognito-postconfirmation": events.CognitoEventUserPoolsPostConfirmation{}, "cognito-presignup": events.CognitoEventUserPoolsPreSignup{}, "cognito-pretokengen": events.CognitoEventUserPoolsPreTokenGen{},
		"config": events.ConfigEvent{}, "dynamodb": events.DynamoDBEvent{}, "eventbridge": events.EventBridgeEvent{}, "firehose": events.KinesisFirehoseEvent{},
		"function-url": events.LambdaFunctionURLRequest{}, "http-api": events.APIGatewayV2HTTPRequest{}, "kafka": events.KafkaEvent{}, "kinesis": events.KinesisEvent{}, "msk": events.KafkaEvent{},
		"rabbitmq": events.RabbitMQEvent{}, "s3": events.S3Event{}, "s3-delete": events.S3Event{}, "schedule": events.EventBridgeEvent{}, "secretsmanager": events.SecretsManagerSecretRotationEvent{},
		"ses": events.SimpleEmailEvent{}, "sns": events.SNSEvent{}, "sqs": events.SQSEvent{}, "sqs-fifo": events.SQSEvent{},
		"cloudwatch-alarm": nil, "documentdb": nil, // AWS publishes no types of these
	}
	var list bytes.Buffer
	if code := cli.Run([]string{"event"}, nil, &list, &list, os.Getenv); code != 0 {
		t.Fatal(list.String())
	}
	listed := map[string]bool{}
	for line := range strings.Lines(list.String()) {
		name, _, _ := strings.Cut(line, " ")
		listed[name] = true
		if _, known := kinds[name]; !known {
			t.Errorf("%s has no type here", name)
		}
	}
	files, err := os.ReadDir("events")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := strings.TrimSuffix(f.Name(), ".json"); !listed[name] {
			t.Errorf("%s is not listed", name)
		}
	}
	for name, kind := range kinds {
		var sample bytes.Buffer
		if code := cli.Run([]string{"event", name}, nil, &sample, &sample, os.Getenv); code != 0 {
			t.Error(sample.String())
			continue
		}
		var want any
		if err := json.Unmarshal(sample.Bytes(), &want); err != nil || kind == nil {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		event := reflect.New(reflect.TypeOf(kind)).Interface()
		if err := json.Unmarshal(sample.Bytes(), event); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, err := json.Marshal(event)
		var got any
		if err == nil {
			err = json.Unmarshal(text, &got)
		}
		if lost := missing(name, want, got); err != nil || len(lost) > 0 {
			t.Errorf("%s: %v\n%s", name, err, strings.Join(lost, "\n"))
		}
		if logs, ok := event.(*events.CloudwatchLogsEvent); ok {
			if data, err := logs.AWSLogs.Parse(); err != nil || len(data.LogEvents) != 2 {
				t.Errorf("%s: %+v, %v", name, data, err)
			}
		}
	}
}

// unknown are members that AWS's types lack.
var unknown = []string{"function-url.routeKey", "function-url.requestContext.routeKey", "function-url.requestContext.stage"}

// missing is what is in one value and not, or otherwise, in another; null and false are
// nothing.
func missing(at string, want, got any) (list []string) {
	if want == nil || want == false || slices.Contains(unknown, at) {
		return nil
	}
	switch want := want.(type) {
	case map[string]any:
		members, ok := got.(map[string]any)
		if !ok {
			return []string{at}
		}
		for name, w := range want {
			g, ok := members[name]
			for other, v := range members { // Go's names differ from some of AWS's in their case
				if !ok && strings.EqualFold(name, other) {
					g = v
				}
			}
			list = append(list, missing(at+"."+name, w, g)...)
		}
	case []any:
		items, _ := got.([]any)
		if len(items) != len(want) {
			return []string{at}
		}
		for i := range want {
			list = append(list, missing(at, want[i], items[i])...)
		}
	default:
		if diff := cmp.Diff(want, got); diff != "" {
			list = append(list, at+": "+diff)
		}
	}
	return list
}
