package logs

import (
	"context"
	"time"

	"kiln/internal/aws/logsapi"
	"kiln/internal/aws/wire"
	"kiln/internal/telemetry/logs"
)

func (c *call) CreateLogStream(ctx context.Context, in *logsapi.CreateLogStreamInput) (*logsapi.CreateLogStreamOutput, error) {
	arn, err := c.group(in.LogGroupName, nil)
	if err != nil {
		return nil, err
	}
	return nil, c.door.Store.CreateStream(ctx, arn.Scope, arn.name, *in.LogStreamName)
}

func (c *call) DeleteLogStream(ctx context.Context, in *logsapi.DeleteLogStreamInput) (*logsapi.DeleteLogStreamOutput, error) {
	arn, err := c.group(in.LogGroupName, nil)
	if err != nil {
		return nil, err
	}
	return nil, c.door.Store.DeleteStream(ctx, arn.Scope, arn.name, *in.LogStreamName)
}

func (c *call) DescribeLogStreams(ctx context.Context, in *logsapi.DescribeLogStreamsInput) (*logsapi.DescribeLogStreamsOutput, error) {
	arn, err := c.group(in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	byTime := wire.Value(in.OrderBy) == "LastEventTime"
	if byTime && in.LogStreamNamePrefix != nil {
		return nil, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	limit := describeLimit
	if in.Limit != nil {
		limit = *in.Limit
	}
	list, err := c.door.Store.Streams(ctx, logs.StreamsQuery{
		Scope: arn.Scope, Group: arn.name, Prefix: wire.Value(in.LogStreamNamePrefix),
		ByTime: byTime, Descending: wire.Value(in.Descending), Cursor: wire.Value(in.NextToken), Limit: limit + 1,
	})
	if err != nil {
		return nil, err
	}
	out := &logsapi.DescribeLogStreamsOutput{LogStreams: []logsapi.LogStream{}}
	if len(list) > limit {
		list = list[:limit]
		out.NextToken = new(list[limit-1].Cursor())
	}
	for _, s := range list {
		d := logsapi.LogStream{
			LogStreamName: &s.Name, CreationTime: millis(s.Created), Arn: new(arn.String() + ":log-stream:" + s.Name),
			StoredBytes: new(int64(0)), // as AWS shows it of every stream, since 2019
		}
		if s.Events > 0 {
			d.FirstEventTimestamp, d.LastEventTimestamp = millis(s.First), millis(s.Last)
		}
		if !s.Arrived.IsZero() {
			d.LastIngestionTime = millis(s.Arrived)
			d.UploadSequenceToken = new(sequenceToken(s.Arrived))
		}
		out.LogStreams = append(out.LogStreams, d)
	}
	return out, nil
}

// sequenceToken is what clients of old pass to PutLogEvents. It means nothing any
// more, to AWS neither.
func sequenceToken(t time.Time) string {
	return eventID(logs.Place{Sequence: t.UnixMicro()})
}
