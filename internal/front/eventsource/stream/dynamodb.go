package stream

import (
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
)

// dynamoInterval is Lambda's base rate: four times a second.
const dynamoInterval = time.Second / 4

// dynamoStream is the stream of a DynamoDB table.
type dynamoStream struct {
	client *dynamodbstreams.Client
	stream string // ARN
	region string
	views  bool // there are filters
}

func newDynamoDB(cfg aws.Config, arn string, views bool) *dynamoStream {
	return &dynamoStream{client: dynamodbstreams.NewFromConfig(cfg), stream: arn, region: cfg.Region, views: views}
}

func (d *dynamoStream) interval() time.Duration { return dynamoInterval }

func (d *dynamoStream) batch() (name, timestamp string) {
	return "DDBStreamBatchInfo", "2006-01-02T15:04:05Z"
}

func (d *dynamoStream) shards(ctx context.Context) (list []shard, err error) {
	in := &dynamodbstreams.DescribeStreamInput{StreamArn: &d.stream}
	for {
		out, err := d.client.DescribeStream(ctx, in)
		if err != nil {
			return nil, classify(err)
		}
		for _, s := range out.StreamDescription.Shards {
			next := shard{id: aws.ToString(s.ShardId), closed: s.SequenceNumberRange != nil && s.SequenceNumberRange.EndingSequenceNumber != nil}
			if parent := aws.ToString(s.ParentShardId); parent != "" {
				next.parents = []string{parent}
			}
			list = append(list, next)
		}
		if in.ExclusiveStartShardId = out.StreamDescription.LastEvaluatedShardId; aws.ToString(in.ExclusiveStartShardId) == "" {
			return list, nil
		}
	}
}

// iterator knows no times: of a time, what is older is left out by who reads.
func (d *dynamoStream) iterator(ctx context.Context, shard string, at place) (string, error) {
	in := &dynamodbstreams.GetShardIteratorInput{StreamArn: &d.stream, ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
	switch {
	case at.after != "":
		in.ShardIteratorType, in.SequenceNumber = types.ShardIteratorTypeAfterSequenceNumber, &at.after
	case at.latest:
		in.ShardIteratorType = types.ShardIteratorTypeLatest
	}
	out, err := d.client.GetShardIterator(ctx, in)
	if err != nil {
		return "", classify(err)
	}
	return aws.ToString(out.ShardIterator), nil
}

func (d *dynamoStream) read(ctx context.Context, _, iterator string) (page, error) {
	out, err := d.client.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: &iterator})
	if err != nil {
		return page{}, classify(err)
	}
	p := page{next: aws.ToString(out.NextShardIterator), behind: len(out.Records) > 0}
	for i := range out.Records {
		p.records = append(p.records, d.record(&out.Records[i]))
	}
	return p, nil
}

func (d *dynamoStream) record(r *types.Record) record {
	var made record
	b := appendMember([]byte{'{'}, "eventID", aws.ToString(r.EventID))
	b = appendMember(b, "eventName", string(r.EventName))
	b = appendMember(b, "eventVersion", aws.ToString(r.EventVersion))
	b = appendMember(b, "eventSource", "aws:dynamodb")
	b = appendMember(b, "awsRegion", d.region)
	b = append(b, `,"dynamodb":{`...)
	if s := r.Dynamodb; s != nil {
		made.sequence, made.arrived = aws.ToString(s.SequenceNumber), aws.ToTime(s.ApproximateCreationDateTime)
		made.key = string(appendMap(nil, s.Keys))
		b = append(b, `"ApproximateCreationDateTime":`...)
		b = strconv.AppendInt(b, made.arrived.Unix(), 10)
		b = append(append(b, `,"Keys":`...), made.key...)
		if s.NewImage != nil {
			b = appendMap(append(b, `,"NewImage":`...), s.NewImage)
		}
		if s.OldImage != nil {
			b = appendMap(append(b, `,"OldImage":`...), s.OldImage)
		}
		b = appendMember(b, "SequenceNumber", made.sequence)
		b = append(b, `,"SizeBytes":`...)
		b = strconv.AppendInt(b, aws.ToInt64(s.SizeBytes), 10)
		b = appendMember(b, "StreamViewType", string(s.StreamViewType))
	}
	b = appendMember(append(b, '}'), "eventSourceARN", d.stream)
	if u := r.UserIdentity; u != nil {
		b = append(b, `,"userIdentity":{`...)
		b = appendMember(b, "type", aws.ToString(u.Type))
		b = append(appendMember(b, "principalId", aws.ToString(u.PrincipalId)), '}')
	}
	made.event = append(b, '}')
	if d.views {
		made.view = made.event
	}
	return made
}

// appendMap appends an item, or a map within, as the API has it. Names are in order,
// so that the same is always the same.
func appendMap(b []byte, m map[string]types.AttributeValue) []byte {
	b = append(b, '{')
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendValue(append(appendString(b, name), ':'), m[name])
	}
	return append(b, '}')
}

func appendValue(b []byte, v types.AttributeValue) []byte {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		b = appendMember(append(b, '{'), "S", v.Value)
	case *types.AttributeValueMemberN:
		b = appendMember(append(b, '{'), "N", v.Value)
	case *types.AttributeValueMemberB:
		b = appendMember(append(b, '{'), "B", base64.StdEncoding.EncodeToString(v.Value))
	case *types.AttributeValueMemberBOOL:
		b = strconv.AppendBool(append(b, `{"BOOL":`...), v.Value)
	case *types.AttributeValueMemberNULL:
		b = strconv.AppendBool(append(b, `{"NULL":`...), v.Value)
	case *types.AttributeValueMemberM:
		b = appendMap(append(b, `{"M":`...), v.Value)
	case *types.AttributeValueMemberL:
		b = appendList(append(b, `{"L":`...), v.Value, appendValue)
	case *types.AttributeValueMemberSS:
		b = appendList(append(b, `{"SS":`...), v.Value, appendString)
	case *types.AttributeValueMemberNS:
		b = appendList(append(b, `{"NS":`...), v.Value, appendString)
	case *types.AttributeValueMemberBS:
		b = appendList(append(b, `{"BS":`...), v.Value, func(b, v []byte) []byte {
			return appendString(b, base64.StdEncoding.EncodeToString(v))
		})
	default: // a type that is not known yet
		b = append(b, '{')
	}
	return append(b, '}')
}

func appendList[T any](b []byte, list []T, appendOne func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendOne(b, v)
	}
	return append(b, ']')
}
