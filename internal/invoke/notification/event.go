package notification

import (
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"kiln/internal/lambda"
)

// Object is what became of one.
type Object struct {
	Event   string // such as ObjectCreated:Put
	Key     string
	Size    int64
	ETag    string // without quotes
	Version string // "" where there are none
}

// Request is what an event tells of the request that it comes from.
type Request struct {
	Time      time.Time
	Principal string // such as AWS:AIDA…
	Address   string // "" of calls from within environments
	ID, ID2   string // x-amz-request-id and x-amz-id-2
	Trace     string // X-Amzn-Trace-Id, by which loops are found
}

// record is an event as AWS writes it.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
type record struct {
	EventVersion string   `json:"eventVersion"`
	EventSource  string   `json:"eventSource"`
	AWSRegion    string   `json:"awsRegion"`
	EventTime    string   `json:"eventTime"`
	EventName    string   `json:"eventName"`
	UserIdentity identity `json:"userIdentity"`
	Parameters   struct {
		SourceIPAddress string `json:"sourceIPAddress"`
	} `json:"requestParameters"`
	Response struct {
		RequestID string `json:"x-amz-request-id"`
		ID2       string `json:"x-amz-id-2"`
	} `json:"responseElements"`
	S3 struct {
		SchemaVersion   string `json:"s3SchemaVersion"`
		ConfigurationID string `json:"configurationId"`
		Bucket          struct {
			Name          string   `json:"name"`
			OwnerIdentity identity `json:"ownerIdentity"`
			ARN           string   `json:"arn"`
		} `json:"bucket"`
		Object struct {
			Key       string `json:"key"`
			Size      *int64 `json:"size,omitempty"`
			ETag      string `json:"eTag,omitempty"`
			VersionID string `json:"versionId,omitempty"`
			Sequencer string `json:"sequencer"`
		} `json:"object"`
	} `json:"s3"`
}

type identity struct {
	PrincipalID string `json:"principalId"`
}

// message is the event of one object for one target.
func message(scope lambda.Scope, bucket string, r Request, o Object, t Target, sequencer string) []byte {
	e := record{
		EventVersion: "2.1", EventSource: "aws:s3", AWSRegion: string(scope.Region), EventTime: r.Time.UTC().Format("2006-01-02T15:04:05.000Z"),
		EventName: o.Event, UserIdentity: identity{r.Principal},
	}
	if strings.HasPrefix(o.Event, "ObjectTagging") {
		e.EventVersion = "2.3"
	}
	e.Parameters.SourceIPAddress = r.Address
	e.Response.RequestID, e.Response.ID2 = r.ID, r.ID2
	e.S3.SchemaVersion, e.S3.ConfigurationID = "1.0", t.ID
	e.S3.Bucket.Name, e.S3.Bucket.OwnerIdentity, e.S3.Bucket.ARN = bucket, identity{string(scope.Account)}, bucketARN(bucket)
	e.S3.Object.Key, e.S3.Object.VersionID, e.S3.Object.Sequencer = encodeKey(o.Key), o.Version, sequencer
	if !strings.HasPrefix(o.Event, "ObjectRemoved") {
		e.S3.Object.Size, e.S3.Object.ETag = &o.Size, o.ETag
	}
	return encode(map[string]any{"Records": []record{e}})
}

// encodeKey writes a key as events have it: as in a form, but for slashes.
func encodeKey(key string) string { return strings.ReplaceAll(url.QueryEscape(key), "%2F", "/") }

func bucketARN(bucket string) string { return "arn:aws:s3:::" + bucket }

// testMessage is what a queue or topic gets when it is configured.
func testMessage(bucket string, r Request) []byte {
	return encode(struct{ Service, Event, Time, Bucket, RequestId, HostId string }{
		"Amazon S3", "s3:TestEvent", r.Time.UTC().Format("2006-01-02T15:04:05.000Z"), bucket, r.ID, r.ID2,
	})
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return b
}
