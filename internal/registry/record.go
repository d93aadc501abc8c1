package registry

import (
	"encoding/json"
	"fmt"
	"strconv"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// What keys begin with.
const (
	recordPrefix       = "function."
	layerPrefix        = "layer."
	layerVersionPrefix = "layerversion."
)

// recordSchema is the newest form of a record that this Kiln knows.
const recordSchema = 1

// schema is part of every record.
type schema struct{ Schema int }

func (s schema) number() int { return s.Schema }

// record is how a function lies on the disk. Its environment variables are
// sealed, bound to its key.
type record struct {
	schema
	Function    lambda.Function
	Environment []byte `json:",omitempty"`
}

// layerRecord is how a layer lies on the disk, beside its versions.
type layerRecord struct {
	schema
	ARN  lambda.LayerARN
	Last int64 // version number given
}

type layerVersionRecord struct {
	schema
	Version lambda.LayerVersion
}

// read decodes a stored record.
func read(stored state.Record, into interface{ number() int }) error {
	if err := json.Unmarshal(stored.Value, into); err != nil {
		return fmt.Errorf("the record %s is damaged: %w", stored.Key, err)
	}
	if into.number() > recordSchema {
		return fmt.Errorf("the record %s was written by a newer Kiln (schema %d; this one knows %d): upgrade kiln", stored.Key, into.number(), recordSchema)
	}
	return nil
}

func layerKey(arn lambda.LayerARN) string {
	return layerPrefix + string(arn.Account) + "." + string(arn.Region) + "." + string(arn.Name)
}

func layerVersionKey(arn lambda.LayerVersionARN) string {
	return layerVersionPrefix + string(arn.Account) + "." + string(arn.Region) + "." + string(arn.Name) + "." + strconv.FormatInt(arn.Version, 10)
}

func encodeLayer(arn lambda.LayerARN, last int64) ([]byte, error) {
	return json.Marshal(layerRecord{schema{recordSchema}, arn, last})
}

func encodeLayerVersion(v *lambda.LayerVersion) ([]byte, error) {
	return json.Marshal(layerVersionRecord{schema{recordSchema}, *v})
}

func key(arn lambda.FunctionARN) string {
	return recordPrefix + string(arn.Account) + "." + string(arn.Region) + "." + string(arn.Name) + "." + string(lambda.Latest)
}

func (r *Registry) encode(f *lambda.Function) ([]byte, error) {
	rec := record{schema: schema{recordSchema}, Function: *f}
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
	if err := read(stored, &rec); err != nil {
		return nil, err
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
