package registry

import (
	"encoding/json"
	"fmt"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

const recordPrefix = "function."

// recordSchema is the newest form of a record that this Kiln knows.
const recordSchema = 1

// record is how a function lies on the disk. Its environment variables are
// sealed, bound to its key.
type record struct {
	Schema      int
	Function    lambda.Function
	Environment []byte `json:",omitempty"`
}

func key(arn lambda.FunctionARN) string {
	return recordPrefix + string(arn.Account) + "." + string(arn.Region) + "." + string(arn.Name) + "." + string(lambda.Latest)
}

func (r *Registry) encode(f *lambda.Function) ([]byte, error) {
	rec := record{Schema: recordSchema, Function: *f}
	if f.Settings.Environment != nil {
		clear, err := json.Marshal(f.Settings.Environment)
		if err != nil {
			return nil, err
		}
		if rec.Environment, err = r.sealer.Seal(clear, []byte(key(f.ARN))); err != nil {
			return nil, fmt.Errorf("seal the environment of %s: %w", f.ARN, err)
		}
		rec.Function.Settings.Environment = nil
	}
	return json.Marshal(rec)
}

func (r *Registry) decode(stored state.Record) (*lambda.Function, error) {
	var rec record
	if err := json.Unmarshal(stored.Value, &rec); err != nil {
		return nil, fmt.Errorf("the record %s is damaged: %w", stored.Key, err)
	}
	if rec.Schema > recordSchema {
		return nil, fmt.Errorf("the record %s was written by a newer Kiln (schema %d; this one knows %d): upgrade kiln", stored.Key, rec.Schema, recordSchema)
	}
	if rec.Environment != nil {
		clear, err := r.sealer.Unseal(rec.Environment, []byte(stored.Key))
		if err == nil {
			err = json.Unmarshal(clear, &rec.Function.Settings.Environment)
		}
		if err != nil {
			return nil, fmt.Errorf("unseal the environment of %s: %w", rec.Function.ARN, err)
		}
	}
	return &rec.Function, nil
}
