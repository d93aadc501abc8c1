package events

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/google/go-cmp/cmp"

	"kiln/test/kiln"
)

// TestKinesis has functions called with the records of streams of moto, of which shards
// are split and merged while Kiln is killed.
func TestKinesis(t *testing.T) {
	t.Parallel()
	moto := kiln.Moto(t)
	k := kinesis.New(kinesis.Options{BaseEndpoint: &moto, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("moto", "moto", "")})
	r := &rig{TB: t, ledger: newLedger(t), d: kiln.StartEnv(t, []string{"AWS_ACCESS_KEY_ID=kiln", "AWS_SECRET_ACCESS_KEY=kiln", "KILN_ENDPOINTS=kinesis=" + moto},
		"--account", kiln.Account(), "--any-runtime", "--network", "host")}
	stream := func(name string, shards int32) (arn string) {
		if _, err := k.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards}); err != nil {
			t.Fatal(err)
		}
		return "arn:aws:kinesis:us-east-1:123456789012:stream/" + name
	}
	put := func(name, key, data string) string {
		out, err := k.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: &name, PartitionKey: &key, Data: []byte(data)})
		if err != nil {
			t.Fatal(err)
		}
		return *out.SequenceNumber
	}
	oldest := func(in *lambda.CreateEventSourceMappingInput) {
		in.StartingPosition = types.EventSourcePositionTrimHorizon
	}

	exact := stream("exact", 1)
	r.function(r.d, "exact", `
def handler(event, context):
    note("exact", event)
`, nil)
	r.mapping(exact, "exact", func(in *lambda.CreateEventSourceMappingInput) {
		oldest(in)
		in.FilterCriteria = &types.FilterCriteria{Filters: []types.Filter{{Pattern: aws.String(`{"partitionKey":["key"],"data":{"wanted":[true]}}`)}}}
	})
	put("exact", "key", `{"wanted":false}`)
	put("exact", "key", "no JSON")
	put("exact", "other", `{"wanted":true}`)
	sequence := put("exact", "key", `{"wanted":true}`)
	r.await("the event", func() bool { return r.count("exact") > 0 })
	var got map[string][]map[string]any
	if err := json.Unmarshal(r.all()[0].What, &got); err != nil || len(got["Records"]) != 1 {
		t.Fatal(err, string(r.all()[0].What))
	}
	data := got["Records"][0]["kinesis"].(map[string]any)
	if at, ok := data["approximateArrivalTimestamp"].(float64); !ok || time.Since(time.UnixMilli(int64(at*1000))).Abs() > time.Minute {
		t.Errorf("arrived at %v", data["approximateArrivalTimestamp"])
	}
	delete(data, "approximateArrivalTimestamp")
	want := map[string]any{
		"kinesis":     map[string]any{"kinesisSchemaVersion": "1.0", "partitionKey": "key", "sequenceNumber": sequence, "data": base64.StdEncoding.EncodeToString([]byte(`{"wanted":true}`))},
		"eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": "shardId-000000000000:" + sequence, "eventName": "aws:kinesis:record",
		"invokeIdentityArn": kiln.Role, "awsRegion": "us-east-1", "eventSourceARN": exact,
	}
	if diff := cmp.Diff(want, got["Records"][0]); diff != "" {
		t.Error(diff)
	}

	// moto copies a shard's records to what it is split or merged into, and so do they
	// come again; what counts is that each comes, and when it does first.
	sharded := stream("sharded", 2)
	r.function(r.d, "sharded", `
import base64
def handler(event, context):
    for record in event["Records"]:
        id = base64.b64decode(record["kinesis"]["data"]).decode()
        if id.endswith(" 3") and note("tried " + id) == 1:
            raise ValueError(id)
        note(id, record["kinesis"]["partitionKey"])
        note(record["eventID"].split(":")[0])
`, nil)
	r.mapping(sharded, "sharded", func(in *lambda.CreateEventSourceMappingInput) {
		oldest(in)
		in.BatchSize, in.ParallelizationFactor = aws.Int32(4), aws.Int32(2)
	})
	const keys, values = 6, 10
	var ids []string
	for value := range values {
		for key := range keys {
			id := fmt.Sprintf("key%d %d", key, value)
			put("sharded", fmt.Sprintf("key%d", key), id)
			ids = append(ids, id)
		}
		if value == 5 {
			r.await("some", func() bool { return len(r.missing(ids)) < len(ids) })
			r.d.Kill()
			r.d.Start()
		}
	}
	if _, err := k.SplitShard(t.Context(), &kinesis.SplitShardInput{StreamName: aws.String("sharded"), ShardToSplit: aws.String("shardId-000000000000"), NewStartingHashKey: aws.String("9")}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.MergeShards(t.Context(), &kinesis.MergeShardsInput{StreamName: aws.String("sharded"), ShardToMerge: aws.String("shardId-000000000003"), AdjacentShardToMerge: aws.String("shardId-000000000001")}); err != nil {
		t.Fatal(err)
	}
	r.await("all", func() bool { return len(r.missing(ids)) == 0 })
	r.await("a child of two", func() bool { return r.count("shardId-000000000004") > 0 })
	for key := range keys {
		var order []string
		for _, e := range r.all() {
			if string(e.What) == fmt.Sprintf(`"key%d"`, key) && !slices.Contains(order, e.ID) {
				order = append(order, e.ID)
			}
		}
		if !slices.IsSorted(order) {
			t.Errorf("out of order: %q", order)
		}
	}
}
