package api_test

import "testing"

func TestEventSourceMappings(t *testing.T) {
	t.Parallel()
	const (
		at     = "/2015-03-31/event-source-mappings"
		queue  = "arn:aws:sqs:us-east-1:123456789012:q"
		stream = "arn:aws:kinesis:us-east-1:123456789012:stream/s"
		table  = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2026-01-01T00:00:00.000"
		absent = "The resource you requested does not exist."
	)
	of := func(source, more string) string {
		return `{"FunctionName":"f","EventSourceArn":"` + source + `"` + more + `}`
	}
	newRig(t).table([]step{
		post("no function", at, `{"EventSourceArn":"`+queue+`"}`, 400, violation, "1 validation error detected: Value null at 'functionName' failed to satisfy constraint: Member must not be null"),
		post("no source", at, `{"FunctionName":"f"}`, 400, invalid, "Unrecognized event source."),
		post("a function that is missing", at, of(queue, ""), 400, invalid, "Function does not exist"),
		creation("", "", 201, "", `{}`),
		post("more than ten messages without a window", at, of(queue, `,"BatchSize":11`), 400, invalid,
			"Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"),
		post("a stream without a position", at, of(stream, ""), 400, invalid,
			"1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."),
		post("a time for DynamoDB", at, of(table, `,"StartingPosition":"AT_TIMESTAMP","StartingPositionTimestamp":1767225600`), 400, invalid, "Unsupported starting position for arn type: "+table),
		post("a destination for a queue", at, of(queue, `,"DestinationConfig":{"OnFailure":{"Destination":"`+queue+`"}}`), 400, invalid,
			"Unsupported DestinationConfig parameter for given event source mapping type."),
		post("Kafka without access", at, `{"FunctionName":"f","Topics":["orders"],"SelfManagedEventSource":{"Endpoints":{"KAFKA_BOOTSTRAP_SERVERS":["b:9092"]}}}`, 400, invalid,
			"Required 'sourceAccessConfigurations' parameter is missing."),
		post("a long window", at, of(queue, `,"MaximumBatchingWindowInSeconds":301`), 400, violation,
			"1 validation error detected: Value '301' at 'maximumBatchingWindowInSeconds' failed to satisfy constraint: Member must have value less than or equal to 300"),
		{name: "a queue", method: "POST", path: at, body: of(queue, `,"BatchSize":11,"MaximumBatchingWindowInSeconds":1`), status: 202, keep: "UUID",
			want: `{"UUID":"*","EventSourceArn":"` + queue + `","FunctionArn":"` + arn + `f","BatchSize":11,"State":"Creating"}`},
		post("twice", at, of(queue, ""), 409, conflict, `An event source mapping with SQS arn (" `+queue+` ") and function (" f ") already exists. Please update or delete the existing mapping with UUID $UUID`),
		get("as it is", at+"/$UUID", 200, "", `{"State":"Enabled","MaximumBatchingWindowInSeconds":1}`),
		{name: "changed", method: "PUT", path: at + "/$UUID", body: `{"Enabled":false}`, status: 202, want: `{"BatchSize":11}`},
		get("disabled", at+"/$UUID", 200, "", `{"State":"Disabled","BatchSize":11}`),
		post("a stream", at, of(stream, `,"StartingPosition":"LATEST"`), 202, "", `{"BatchSize":100,"StartingPosition":"LATEST"}`),
		get("all", at, 200, "", `{"EventSourceMappings":[{},{}],"NextMarker":null}`),
		get("those of a source", at+"?EventSourceArn="+queue, 200, "", `{"EventSourceMappings":[{"UUID":"$UUID"}]}`),
		get("those of a function", at+"?FunctionName=f&MaxItems=1", 200, "", `{"EventSourceMappings":[{}],"NextMarker":"*"}`),
		get("none at once", at+"?MaxItems=0", 400, violation, "1 validation error detected: Value '0' at 'maxItems' failed to satisfy constraint: Member must have value greater than or equal to 1"),
		{name: "the last answer of it", method: "DELETE", path: at + "/$UUID", status: 202, want: `{"State":"Deleting","UUID":"$UUID"}`},
		get("missing", at+"/$UUID", 404, missing, absent),
		remove("missing", at+"/$UUID", 404, missing, absent),
		{name: "a change of what is missing", method: "PUT", path: at + "/" + uuid, body: `{"Enabled":true}`, status: 404, code: missing, want: absent},
	})
}
