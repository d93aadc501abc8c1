package notification

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"kiln/internal/invoke"
	"kiln/internal/lambda"
)

// ErrForeign says that something is no event of a bucket, in any form that is known.
var ErrForeign = errors.New("this is no event of a bucket as S3, MinIO, Ceph, versitygw or SeaweedFS write it")

// Relay takes what another store says of its buckets: events in S3's form, or one of
// SeaweedFS. They go to the function, if one is named, and else to whoever is told of the
// bucket of that name here. It returns once they are on the disk.
func (s *Service) Relay(ctx context.Context, scope lambda.Scope, function *lambda.FunctionARN, text []byte) error {
	var in struct {
		Records []map[string]any
		Event   string // of a test
		// SeaweedFS's
		Key     string `json:"key"`
		Type    string `json:"event_type"`
		Message struct {
			New *struct {
				Directory  bool `json:"is_directory"`
				Attributes struct {
					Size int64 `json:"file_size"`
				} `json:"attributes"`
			} `json:"new_entry"`
		} `json:"message"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	path, inBucket := strings.CutPrefix(in.Key, "/buckets/")
	bucket, key, _ := strings.Cut(path, "/")
	switch {
	case in.Records != nil, in.Event == "s3:TestEvent":
		for _, r := range in.Records {
			if err := s.relay(ctx, scope, function, r); err != nil {
				return err
			}
		}
		return nil
	case !inBucket || in.Type == "":
		return ErrForeign
	case key == "", in.Message.New != nil && in.Message.New.Directory:
		return nil // of a folder
	}
	o := Object{Event: map[string]string{"create": "ObjectCreated:Put", "update": "ObjectCreated:Put", "delete": removed}[in.Type], Key: key}
	if o.Event == "" {
		return nil // such as of a new name: the other store has an object in the place of another
	}
	if in.Message.New != nil {
		o.Size = in.Message.New.Attributes.Size
	}
	r := Request{Time: time.Now(), Principal: string(scope.Account), ID: string(lambda.NewRequestID())}
	var record struct{ Records []map[string]any }
	if err := json.Unmarshal(message(scope, bucket, r, o, Target{}, s.sequencer()), &record); err != nil {
		return err
	}
	return s.relay(ctx, scope, function, record.Records[0])
}

// relay passes one record on. What S3 would write otherwise is written as S3 does.
func (s *Service) relay(ctx context.Context, scope lambda.Scope, function *lambda.FunctionARN, r map[string]any) error {
	about, _ := r["s3"].(map[string]any)
	in, _ := about["bucket"].(map[string]any)
	object, _ := about["object"].(map[string]any)
	bucket, _ := in["name"].(string)
	encoded, _ := object["key"].(string)
	event, _ := r["eventName"].(string)
	key, err := url.QueryUnescape(encoded)
	if err != nil || bucket == "" || key == "" || event == "" {
		return ErrForeign
	}
	event = strings.TrimPrefix(event, "s3:")
	r["eventName"], r["eventSource"] = event, "aws:s3"
	if region, _ := r["awsRegion"].(string); region == "" {
		r["awsRegion"] = string(scope.Region)
	}
	targets := s.Targets(scope, bucket)
	if function != nil {
		targets = []Target{{ID: "webhook", ARN: function.String(), Events: []string{"s3:" + event}}}
	}
	for _, t := range targets {
		if !t.wants(event, key) {
			continue
		}
		about["configurationId"] = t.ID
		text := encode(map[string]any{"Records": []any{r}})
		if lambda.Destination(t.ARN).Service() != "lambda" {
			if err := s.post(ctx, scope, t, text); err != nil {
				return err
			}
			continue
		}
		arn, err := lambda.ParseFunctionARN(t.ARN)
		if err != nil {
			return err
		}
		err = s.events.Accept(ctx, invoke.Request{Principal: s.caller(scope, bucket), ID: lambda.NewRequestID(), ARN: arn, Type: lambda.Event, Payload: text})
		if e := lambda.AsError(err); function == nil || e == nil || e.Status == http.StatusTooManyRequests {
			err = s.drop(err, bucket, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
