package eventsource

import (
	"encoding/json"
	"fmt"
	"slices"

	"kiln/internal/lambda"
)

// ReportBatchItemFailures is the FunctionResponseType with which functions name what of
// a batch has failed.
const ReportBatchItemFailures = "ReportBatchItemFailures"

// Reports tells whether the mapping's function names what has failed.
func (w *Work) Reports() bool {
	return slices.Contains(w.Mapping.Settings.ResponseTypes, ReportBatchItemFailures)
}

// FailedItems reads the names of items that have failed from what a function answered.
// None is a success of the whole batch. An error says that the answer is no such list, or
// names what known does not know: then all of the batch has failed.
// https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
func FailedItems(answer []byte, known func(name string) bool) (names []string, err error) {
	var response map[string]json.RawMessage // exact names: a struct would take batchitemfailures
	switch string(answer) {
	case "", `""`, "[]":
		return nil, nil
	}
	if err := json.Unmarshal(answer, &response); err != nil {
		return nil, fmt.Errorf("the function's answer is not an object with batchItemFailures")
	}
	list := response["batchItemFailures"]
	if list == nil {
		return nil, nil
	}
	var items []map[string]json.RawMessage
	if err := json.Unmarshal(list, &items); err != nil {
		return nil, fmt.Errorf("batchItemFailures in the function's answer is not a list of objects")
	}
	for _, item := range items {
		var name string
		if err := json.Unmarshal(item["itemIdentifier"], &name); err != nil || name == "" {
			return nil, fmt.Errorf("batchItemFailures in the function's answer has an item whose itemIdentifier is missing, or no text")
		}
		if !known(name) {
			return nil, fmt.Errorf("batchItemFailures in the function's answer names %.100q, which is not in the batch", name)
		}
		names = append(names, name)
	}
	return names, nil
}

// Throttled reports whether the function did not run because too much does already.
func Throttled(err error) bool {
	e := lambda.AsError(err)
	return e != nil && e.Status == 429
}
