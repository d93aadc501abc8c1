package stream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
)

// kinesisInterval is Lambda's base rate: Kinesis allows five reads of a shard in a second.
const kinesisInterval = time.Second

// kinesisStream is a Kinesis data stream.
type kinesisStream struct {
	client *kinesis.Client
	stream string // ARN
	source string // the ARN that the mapping has: the stream's, or a consumer's
	region string
	role   func(context.Context) string // what the function runs as
	views  bool                         // there are filters
}

func newKinesis(cfg aws.Config, arn string, role func(context.Context) string, views bool) *kinesisStream {
	// What has a consumer of its own is read as the others are: only its records say so.
	stream, _, _ := strings.Cut(arn, "/consumer/")
	return &kinesisStream{client: kinesis.NewFromConfig(cfg), stream: stream, source: arn, region: cfg.Region, role: role, views: views}
}

func (k *kinesisStream) interval() time.Duration { return kinesisInterval }

func (k *kinesisStream) batch() (name, timestamp string) {
	return "KinesisBatchInfo", "2006-01-02T15:04:05.000Z"
}

func (k *kinesisStream) shards(ctx context.Context) (list []shard, err error) {
	in := &kinesis.ListShardsInput{StreamARN: &k.stream}
	for {
		out, err := k.client.ListShards(ctx, in)
		if err != nil {
			return nil, classify(err)
		}
		for _, s := range out.Shards {
			next := shard{id: aws.ToString(s.ShardId), closed: s.SequenceNumberRange != nil && s.SequenceNumberRange.EndingSequenceNumber != nil}
			for _, parent := range []*string{s.ParentShardId, s.AdjacentParentShardId} {
				if aws.ToString(parent) != "" {
					next.parents = append(next.parents, *parent)
				}
			}
			list = append(list, next)
		}
		if aws.ToString(out.NextToken) == "" {
			return list, nil
		}
		in.NextToken = out.NextToken
	}
}

func (k *kinesisStream) iterator(ctx context.Context, shard string, at place) (string, error) {
	in := &kinesis.GetShardIteratorInput{StreamARN: &k.stream, ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
	switch {
	case at.after != "":
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAfterSequenceNumber, &at.after
	case at.latest:
		in.ShardIteratorType = types.ShardIteratorTypeLatest
	case !at.since.IsZero():
		in.ShardIteratorType, in.Timestamp = types.ShardIteratorTypeAtTimestamp, &at.since
	}
	out, err := k.client.GetShardIterator(ctx, in)
	if err != nil {
		var answer smithy.APIError
		if at.after != "" && errors.As(err, &answer) && answer.ErrorCode() == "InvalidArgumentException" {
			return "", errTrimmed // the sequence number is of another stream that had the name
		}
		return "", classify(err)
	}
	return aws.ToString(out.ShardIterator), nil
}

func (k *kinesisStream) read(ctx context.Context, shard, iterator string) (page, error) {
	out, err := k.client.GetRecords(ctx, &kinesis.GetRecordsInput{StreamARN: &k.stream, ShardIterator: &iterator})
	if err != nil {
		return page{}, classify(err)
	}
	p := page{next: aws.ToString(out.NextShardIterator), behind: aws.ToInt64(out.MillisBehindLatest) > 0}
	if len(out.Records) == 0 {
		return p, nil
	}
	end := k.end(k.role(ctx))
	for i := range out.Records {
		p.records = append(p.records, k.record(shard, &out.Records[i], end))
	}
	return p, nil
}

// end is the rest of each record.
func (k *kinesisStream) end(role string) string {
	b := appendMember([]byte(`"eventName":"aws:kinesis:record"`), "invokeIdentityArn", role)
	b = appendMember(b, "awsRegion", k.region)
	return string(append(appendMember(b, "eventSourceARN", k.source), '}'))
}

func (k *kinesisStream) record(shard string, r *types.Record, end string) record {
	made := record{sequence: aws.ToString(r.SequenceNumber), key: aws.ToString(r.PartitionKey), arrived: aws.ToTime(r.ApproximateArrivalTimestamp)}
	head := appendMember([]byte(`"kinesisSchemaVersion":"1.0"`), "partitionKey", made.key)
	head = appendMember(head, "sequenceNumber", made.sequence)
	head = append(head, `,"data":`...)
	var tail []byte
	tail = append(tail, `,"approximateArrivalTimestamp":`...)
	tail = appendSeconds(tail, made.arrived)
	var source []byte
	source = append(source, `,"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":`...)
	source = append(append(appendString(source, shard+":"+made.sequence), ','), end...)

	b := make([]byte, 0, len(head)+len(tail)+len(source)+base64.StdEncoding.EncodedLen(len(r.Data))+20)
	b = append(append(b, `{"kinesis":{`...), head...)
	b = append(base64.StdEncoding.AppendEncode(append(b, '"'), r.Data), '"')
	made.event = append(append(append(b, tail...), '}'), source...)
	if k.views {
		made.view = append(append(appendData(append([]byte{'{'}, head...), r.Data), tail...), source...)
	}
	return made
}

// appendData appends what filters see of data: the JSON that it is, or a string.
func appendData(b, data []byte) []byte {
	if t := strings.TrimLeft(string(data[:min(len(data), 64)]), " \t\r\n"); t != "" && (t[0] == '{' || t[0] == '[') && json.Valid(data) {
		return append(b, data...)
	}
	return appendString(b, string(data))
}

// appendSeconds appends a time as the number that AWS writes, such as 1545084650.987.
func appendSeconds(b []byte, t time.Time) []byte {
	seconds := strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
	b = append(b, seconds...)
	if !strings.Contains(seconds, ".") {
		b = append(b, ".0"...)
	}
	return b
}
