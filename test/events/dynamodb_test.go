package events

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/google/go-cmp/cmp"

	"kiln/test/kiln"
)

// table makes one with a stream, and returns the stream's ARN.
func table(t *testing.T, db *dynamodb.Client, name string) string {
	t.Helper()
	out, err := db.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash}},
		StreamSpecification:  &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewAndOldImages},
	})
	if err != nil {
		t.Fatal(err)
	}
	return *out.TableDescription.LatestStreamArn
}

// TestTables has functions called with what happens in tables of DynamoDB Local.
func TestTables(t *testing.T) {
	t.Parallel()
	url := kiln.DynamoDB(t)
	db := dynamodb.New(dynamodb.Options{BaseEndpoint: &url, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("kiln", "kiln", "")})
	r := &rig{TB: t, ledger: newLedger(t), d: kiln.StartEnv(t, []string{"AWS_ACCESS_KEY_ID=kiln", "AWS_SECRET_ACCESS_KEY=kiln", "KILN_ENDPOINTS=dynamodb=" + url},
		"--account", kiln.Account(), "--any-runtime", "--network", "host")}
	put := func(name, id, value string, more map[string]types.AttributeValue) {
		t.Helper()
		item := map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: id}, "value": &types.AttributeValueMemberN{Value: value}}
		for k, v := range more {
			item[k] = v
		}
		if _, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: item}); err != nil {
			t.Fatal(err)
		}
	}
	oldest := func(in *lambda.CreateEventSourceMappingInput) {
		in.StartingPosition = lambdatypes.EventSourcePositionTrimHorizon
	}

	// An item is put, changed and deleted: the function sees it before and after.
	stream := table(t, db, "items")
	r.function(r.d, "items", `
def handler(event, context):
    for record in event["Records"]:
        note(record["eventName"], record)
`, nil)
	id := r.mapping(stream, "items", oldest)
	put("items", "a", "1", map[string]types.AttributeValue{
		"list":  &types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberNULL{Value: true}, &types.AttributeValueMemberBOOL{}}},
		"map":   &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{"b": &types.AttributeValueMemberB{Value: []byte{1, 2, 255}}}},
		"names": &types.AttributeValueMemberSS{Value: []string{"<x>"}}, "bytes": &types.AttributeValueMemberBS{Value: [][]byte{{3}}}, "numbers": &types.AttributeValueMemberNS{Value: []string{"1.5"}},
	})
	put("items", "a", "2", nil)
	if _, err := db.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String("items"), Key: map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: "a"}}}); err != nil {
		t.Fatal(err)
	}
	r.await("the events", func() bool { return r.count("REMOVE") > 0 })
	var got []map[string]any
	for _, e := range r.all() {
		var record map[string]any
		if err := json.Unmarshal(e.What, &record); err != nil {
			t.Fatal(err)
		}
		change := record["dynamodb"].(map[string]any)
		if at, ok := change["ApproximateCreationDateTime"].(float64); !ok || time.Since(time.Unix(int64(at), 0)).Abs() > 2*time.Minute {
			t.Errorf("created at %v", change["ApproximateCreationDateTime"])
		}
		if size, ok := change["SizeBytes"].(float64); !ok || size <= 0 || record["eventID"] == "" || change["SequenceNumber"] == "" {
			t.Errorf("the record has no size, id or sequence number: %v", record)
		}
		for _, name := range []string{"ApproximateCreationDateTime", "SizeBytes", "SequenceNumber"} {
			delete(change, name)
		}
		delete(record, "eventID")
		got = append(got, record)
	}
	type object = map[string]any
	first := object{"id": object{"S": "a"}, "value": object{"N": "1"}, "list": object{"L": []any{object{"NULL": true}, object{"BOOL": false}}},
		"map": object{"M": object{"b": object{"B": "AQL/"}}}, "names": object{"SS": []any{"<x>"}}, "bytes": object{"BS": []any{"Aw=="}}, "numbers": object{"NS": []any{"1.5"}}}
	second := object{"id": object{"S": "a"}, "value": object{"N": "2"}}
	record := func(name string, images object) object {
		images["Keys"], images["StreamViewType"] = object{"id": object{"S": "a"}}, "NEW_AND_OLD_IMAGES"
		return object{"eventName": name, "eventVersion": "1.1", "eventSource": "aws:dynamodb", "awsRegion": "us-east-1", "dynamodb": images, "eventSourceARN": stream}
	}
	want := []map[string]any{
		record("INSERT", object{"NewImage": first}), record("MODIFY", object{"OldImage": first, "NewImage": second}), record("REMOVE", object{"OldImage": second}),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	result := func() string {
		m, err := r.d.Client().GetEventSourceMapping(t.Context(), &lambda.GetEventSourceMappingInput{UUID: &id})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(m.LastProcessingResult)
	}
	r.await("its result", func() bool { return result() == "OK" })

	// Some are filtered, the function fails, and Kiln is killed in the middle: nothing is
	// missing, and of each item the order holds.
	numbered := table(t, db, "numbered")
	r.function(r.d, "numbered", `
def handler(event, context):
    failed = []
    for record in event["Records"]:
        image = record["dynamodb"]["NewImage"]
        id = image["id"]["S"] + " " + image["value"]["N"]
        if image["value"]["N"] == "3" and note("tried " + id) == 1:
            return {"batchItemFailures": [{"itemIdentifier": record["dynamodb"]["SequenceNumber"]}]}
        note(id, image["id"]["S"])
`, nil)
	r.mapping(numbered, "numbered", func(in *lambda.CreateEventSourceMappingInput) {
		oldest(in)
		in.BatchSize, in.ParallelizationFactor = aws.Int32(5), aws.Int32(3)
		in.FunctionResponseTypes = []lambdatypes.FunctionResponseType{lambdatypes.FunctionResponseTypeReportBatchItemFailures}
		in.FilterCriteria = &lambdatypes.FilterCriteria{Filters: []lambdatypes.Filter{{Pattern: aws.String(`{"dynamodb":{"NewImage":{"value":{"N":[{"anything-but":"7"}]}}}}`)}}}
	})
	const items, values = 6, 10
	var ids []string
	for value := range values {
		for item := range items {
			put("numbered", fmt.Sprintf("item%d", item), fmt.Sprint(value), nil)
			if value != 7 {
				ids = append(ids, fmt.Sprintf("item%d %d", item, value))
			}
		}
		if value == 5 {
			r.await("some", func() bool { return len(r.missing(ids)) < len(ids) })
			r.d.Kill()
			r.d.Start()
		}
	}
	r.await("all", func() bool { return len(r.missing(ids)) == 0 })
	for item := range items {
		var order []string // the first time of each
		for _, e := range r.all() {
			if string(e.What) == fmt.Sprintf(`"item%d"`, item) && !slices.Contains(order, e.ID) {
				order = append(order, e.ID)
			}
		}
		if !slices.IsSorted(order) {
			t.Errorf("out of order: %q", order)
		}
		if n := r.count(fmt.Sprintf("item%d 7", item)); n > 0 {
			t.Errorf("what a filter leaves out came %d times", n)
		}
	}
}
