package conformance

import (
	"fmt"
	"testing"

	"kiln/test/kiln"
)

const (
	jobs   = "arn:aws:sqs:us-east-1:000000000000:jobs"
	clicks = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
)

// TestMappingLife takes event source mappings from creation to end with each client.
func TestMappingLife(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "mapped-" + name
		s.create(fn, nil)
		made := s.must("CreateEventSourceMapping", values{
			"FunctionName": fn, "EventSourceArn": jobs, "ScalingConfig": values{"MaximumConcurrency": 5}, "Tags": values{"team": "red"},
			"FilterCriteria": values{"Filters": []any{values{"Pattern": `{"body":{"kind":["x"]}}`}}}, "FunctionResponseTypes": []any{"ReportBatchItemFailures"},
		})
		id := made["UUID"]
		of := values{"UUID": id}
		want(t, "State", made["State"], "Creating")
		want(t, "StateTransitionReason", made["StateTransitionReason"], "USER_INITIATED")
		want(t, "EventSourceMappingArn", made["EventSourceMappingArn"], fmt.Sprint("arn:aws:lambda:us-east-1:000000000000:event-source-mapping:", id))
		want(t, "FunctionArn", made["FunctionArn"], arnPrefix+fn)
		want(t, "BatchSize", made["BatchSize"], 10)
		want(t, "FilterCriteria", member(made, "FilterCriteria", "Filters", 0, "Pattern"), `{"body":{"kind":["x"]}}`)
		want(t, "MaximumConcurrency", member(made, "ScalingConfig", "MaximumConcurrency"), 5)
		got := s.must("GetEventSourceMapping", of)
		want(t, "State", got["State"], "Enabled")
		for _, m := range []string{"EventSourceArn", "BatchSize", "MaximumBatchingWindowInSeconds", "FunctionResponseTypes", "LastModified", "FilterCriteria"} {
			want(t, m, got[m], made[m])
		}
		s.refused("CreateEventSourceMapping", values{"FunctionName": arnPrefix + fn, "EventSourceArn": jobs}, 409, "ResourceConflictException",
			fmt.Sprintf(`An event source mapping with SQS arn (" %s ") and function (" %s ") already exists. Please update or delete the existing mapping with UUID %s`, jobs, fn, id))
		off := s.must("UpdateEventSourceMapping", values{"UUID": id, "Enabled": false, "BatchSize": 7, "FilterCriteria": values{}})
		want(t, "State", off["State"], "Disabling")
		got = s.must("GetEventSourceMapping", of)
		want(t, "State", got["State"], "Disabled")
		want(t, "BatchSize", got["BatchSize"], 7)
		want(t, "FilterCriteria", got["FilterCriteria"], nil)

		stream := s.must("CreateEventSourceMapping", values{
			"FunctionName": fn, "EventSourceArn": clicks, "StartingPosition": "TRIM_HORIZON", "DestinationConfig": values{"OnFailure": values{"Destination": jobs}},
		})
		want(t, "StateTransitionReason", stream["StateTransitionReason"], "User action")
		want(t, "LastProcessingResult", stream["LastProcessingResult"], "No records processed")
		want(t, "Destination", member(stream, "DestinationConfig", "OnFailure", "Destination"), jobs)
		defaults := values{"BatchSize": 100, "ParallelizationFactor": 1, "MaximumRetryAttempts": -1, "MaximumRecordAgeInSeconds": -1, "BisectBatchOnFunctionError": false, "TumblingWindowInSeconds": 0}
		for m, v := range defaults {
			want(t, m, stream[m], v)
		}
		list := s.must("ListEventSourceMappings", values{"FunctionName": fn})["EventSourceMappings"].([]any)
		want(t, "mappings of the function", len(list), 2)
		list = s.must("ListEventSourceMappings", values{"FunctionName": fn, "EventSourceArn": clicks})["EventSourceMappings"].([]any)
		want(t, "mappings of function and source", member(list[0], "UUID"), stream["UUID"])

		const invalid = "InvalidParameterValueException"
		for _, c := range []struct {
			in      values
			message string
		}{
			{values{}, "Unrecognized event source."},
			{values{"EventSourceArn": clicks}, "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."},
			{values{"EventSourceArn": jobs, "StartingPosition": "LATEST"}, "StartingPosition is not valid for SQS event sources."},
			{values{"EventSourceArn": jobs, "BatchSize": 11}, "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"},
			{values{"EventSourceArn": jobs, "FilterCriteria": values{"Filters": []any{values{"Pattern": "{"}}}}, "Invalid filter pattern definition."},
			{values{"EventSourceArn": clicks, "StartingPosition": "LATEST", "DestinationConfig": values{"OnSuccess": values{"Destination": jobs}}}, "Unsupported DestinationConfig parameter for given event source mapping type."},
			{values{"EventSourceArn": jobs, "FunctionName": "absent"}, "Function does not exist"},
		} {
			in := values{"FunctionName": fn}
			for m, v := range c.in {
				in[m] = v
			}
			s.refused("CreateEventSourceMapping", in, 400, invalid, c.message)
		}

		// They outlive their function.
		s.must("DeleteFunction", values{"FunctionName": fn})
		s.must("GetEventSourceMapping", of)
		for _, m := range []values{of, values{"UUID": stream["UUID"]}} {
			want(t, "State", s.must("DeleteEventSourceMapping", m)["State"], "Deleting")
			for _, operation := range []string{"GetEventSourceMapping", "DeleteEventSourceMapping", "UpdateEventSourceMapping"} {
				s.refused(operation, m, 404, "ResourceNotFoundException", "The resource you requested does not exist.")
			}
		}
	})
}

// TestPaginators goes through lists with boto3's paginators.
func TestPaginators(t *testing.T) {
	t.Parallel()
	c, err := boto3()
	if err != nil {
		t.Skip(err)
	}
	s := session{c, t, anyKey(kiln.Start(t, "--any-runtime"))}
	s.create("f", nil)
	for i := range 5 {
		s.must("CreateEventSourceMapping", values{"FunctionName": "f", "EventSourceArn": fmt.Sprint(jobs, i)})
		s.must("CreateCodeSigningConfig", values{"AllowedPublishers": values{"SigningProfileVersionArns": []any{profile}}})
		s.must("CreateCapacityProvider", provider(fmt.Sprint("p", i), nil))
		s.must("CreateAlias", values{"FunctionName": "f", "Name": fmt.Sprint("a", i), "FunctionVersion": "$LATEST"})
		s.must("CreateFunctionUrlConfig", values{"FunctionName": "f", "Qualifier": fmt.Sprint("a", i), "AuthType": "NONE"})
		s.must("PutFunctionEventInvokeConfig", values{"FunctionName": "f", "Qualifier": fmt.Sprint("a", i), "MaximumRetryAttempts": 1})
	}
	for _, l := range []struct {
		operation, list string
		of              values
	}{
		{"ListEventSourceMappings", "EventSourceMappings", nil},
		{"ListCodeSigningConfigs", "CodeSigningConfigs", nil},
		{"ListCapacityProviders", "CapacityProviders", nil},
		{"ListFunctionUrlConfigs", "FunctionUrlConfigs", values{"FunctionName": "f"}},
		{"ListFunctionEventInvokeConfigs", "FunctionEventInvokeConfigs", values{"FunctionName": "f"}},
	} {
		out, f := c.(*script).do(s.to, "paginate", l.operation, values{"List": l.list, "PageSize": 2, "Of": l.of})
		if f != nil {
			t.Errorf("%s: %v", l.operation, f)
			continue
		}
		want(t, l.operation, out["Sizes"], "[2 2 1]")
	}
}
