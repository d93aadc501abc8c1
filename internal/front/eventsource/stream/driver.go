// Package stream reads Kinesis data streams and the streams of DynamoDB tables for
// event source mappings: shard by shard, parents before their children, each record at
// least once, those of one key in order. It is a driver of eventsource, whose pollers
// alone call it. What it must remember it keeps in their positions: after a crash, each
// lane of a shard goes on with the batch that it was at.
//
// A Poll follows the stream's shards (poll.go). Each shard is read (shard.go) into as
// many lanes as the mapping's ParallelizationFactor; a lane gathers batches and has the
// function called with them until they are done or given up (lane.go, outcome.go).
package stream

import (
	"context"
	"fmt"
	"time"

	"kiln/internal/front/eventsource"
	"kiln/internal/lambda"
)

// Driver reads streams. It is safe for concurrent use.
type Driver struct {
	backoff time.Duration // the first pause after a failed invocation; it doubles with each
}

// New starts nothing.
func New() Driver { return Driver{backoff: firstBackoff} }

// Poll implements eventsource.Driver.
func (d Driver) Poll(ctx context.Context, w *eventsource.Work) error {
	arn, views := w.Mapping.Source.ARN, w.Filter != nil
	var from source
	switch w.Mapping.Source.Kind {
	case lambda.Kinesis:
		cfg, err := w.Connector.Connect(ctx, "kinesis", arn)
		if err != nil {
			return err
		}
		from = newKinesis(cfg, arn, func(ctx context.Context) string {
			f, err := w.Function(ctx)
			if err != nil {
				return "" // it cannot be invoked either
			}
			return f.Settings.Role
		}, views)
	case lambda.DynamoDBStream:
		cfg, err := w.Connector.Connect(ctx, "dynamodbstreams", arn)
		if err != nil {
			return err
		}
		if cfg.Region == "ddblocal" { // DynamoDB Local's ARNs have it; its tables are in the client's region
			cfg.Region = string(w.Mapping.ARN.Region)
		}
		from = newDynamoDB(cfg, arn, views)
	default:
		return fmt.Errorf("%s is no stream", w.Mapping.Source.Kind)
	}
	return newPoll(d.backoff, from, w, w).run(ctx)
}
