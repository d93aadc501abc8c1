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
	aliasPrefix        = "alias."
	layerPrefix        = "layer."
	layerVersionPrefix = "layerversion."
)

// recordSchema is the newest form of a record that this Kiln knows.
const recordSchema = 1

// schema is part of every record.
type schema struct{ Schema int }

func (s schema) number() int { return s.Schema }

// record is how a version of a function lies on the disk, $LATEST among them.
type record struct {
	schema
	version
	Serving   *version        `json:",omitempty"` // what invocations run meanwhile, while a change is under way
	Attached  lambda.Attached `json:",omitzero"`
	Last      int64           `json:",omitempty"` // of $LATEST: number of the version that was published last
	Published string          `json:",omitempty"` // of a version: fingerprint of what it was published from
}

// version is one build of a function. Its environment variables are sealed, bound
// to its key.
type version struct {
	Function    lambda.Function
	Environment []byte `json:",omitempty"`
}

type aliasRecord struct {
	schema
	Alias    lambda.Alias
	Attached lambda.Attached `json:",omitzero"`
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

func aliasKey(arn lambda.FunctionARN) string {
	return aliasPrefix + string(arn.Account) + "." + string(arn.Region) + "." + string(arn.Name) + "." + string(arn.Qualifier)
}

func encodeAlias(a *alias) ([]byte, error) {
	return json.Marshal(aliasRecord{schema{recordSchema}, *a.shown, a.attached})
}

func key(f *lambda.Function) string {
	return recordPrefix + string(f.ARN.Account) + "." + string(f.ARN.Region) + "." + string(f.ARN.Name) + "." + string(f.Version)
}

func (r *Registry) encode(e *entry) ([]byte, error) {
	rec := record{schema: schema{recordSchema}, Attached: e.attached, Last: e.last, Published: e.published}
	var err error
	if rec.version, err = r.seal(e.shown); err != nil {
		return nil, err
	}
	if e.serving != nil && e.serving != e.shown {
		old, err := r.seal(e.serving)
		if err != nil {
			return nil, err
		}
		rec.Serving = &old
	}
	return json.Marshal(rec)
}

func (r *Registry) seal(f *lambda.Function) (v version, err error) {
	v.Function = *f
	if f.Settings.Environment == nil {
		return v, nil
	}
	clear, err := json.Marshal(f.Settings.Environment)
	if err != nil {
		return v, err
	}
	if v.Environment, err = r.sealer.Seal(clear, []byte(key(f))); err != nil {
		return v, fmt.Errorf("seal the environment of %s: %w", f.ARN, err)
	}
	v.Function.Settings.Environment = nil
	return v, nil
}

func (r *Registry) decode(stored state.Record) (*entry, error) {
	var rec record
	if err := read(stored, &rec); err != nil {
		return nil, err
	}
	if err := r.unseal(&rec.version, stored.Key); err != nil {
		return nil, err
	}
	e := &entry{
		shown: &rec.Function, settled: closedChannel, revision: stored.Revision,
		attached: rec.Attached, last: rec.Last, published: rec.Published,
	}
	switch {
	case rec.Serving != nil:
		if err := r.unseal(rec.Serving, stored.Key); err != nil {
			return nil, err
		}
		e.serving = &rec.Serving.Function
	case e.shown.State == lambda.Active:
		e.serving = e.shown
	}
	if unsettled(e.shown) {
		e.settled = make(chan struct{})
	}
	return e, nil
}

func (r *Registry) unseal(v *version, key string) error {
	if v.Environment == nil {
		return nil
	}
	clear, err := r.sealer.Unseal(v.Environment, []byte(key))
	if err == nil {
		err = json.Unmarshal(clear, &v.Function.Settings.Environment)
	}
	if err != nil {
		return fmt.Errorf("unseal the environment of %s: %w", v.Function.ARN, err)
	}
	return nil
}
