package daemon

import (
	"context"
	"time"

	"kiln/internal/front/eventsource"
	"kiln/internal/front/eventsource/queue"
	"kiln/internal/front/eventsource/stream"
	"kiln/internal/invoke"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// sources are the kinds of event source that can be read.
func sources() map[lambda.SourceKind]eventsource.Source {
	streams := stream.New()
	return map[lambda.SourceKind]eventsource.Source{
		lambda.Kinesis:        {Driver: streams, Actions: []string{"kinesis:ListShards", "kinesis:GetShardIterator", "kinesis:GetRecords"}},
		lambda.DynamoDBStream: {Driver: streams, Actions: []string{"dynamodb:DescribeStream", "dynamodb:GetShardIterator", "dynamodb:GetRecords"}},
		lambda.SQS:            {Driver: queue.New(), Actions: []string{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}},
	}
}

// polled runs invocations for pollers.
type polled struct {
	invocations *invoke.Service
	functions   *registry.Registry
	room        func(ctx context.Context, n int64) (release func(), err error)
}

func (p polled) Invoke(ctx context.Context, function lambda.FunctionARN, payload []byte, trace string) (lambda.Result, error) {
	release, err := p.room(ctx, int64(len(payload)))
	if err != nil {
		return lambda.Result{}, err
	}
	defer release()
	inv, err := p.invocations.Prepare(ctx, invoke.Request{ID: lambda.NewRequestID(), ARN: function, Payload: payload, TraceHeader: invoke.Trace(trace, time.Now())})
	if err != nil {
		return lambda.Result{}, err
	}
	return p.invocations.Run(ctx, inv)
}

func (p polled) Function(ctx context.Context, function lambda.FunctionARN) (*lambda.Function, error) {
	return p.functions.Resolve(ctx, function)
}
