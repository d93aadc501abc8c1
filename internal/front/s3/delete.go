package s3

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"net/http"

	"kiln/internal/invoke/notification"
	"kiln/internal/lambda"
)

const (
	// maxDeletes is how many objects one request may delete, as on AWS.
	maxDeletes = 1_000
	// maxDocument bounds the documents that requests have as bodies, in bytes: that
	// many keys of the longest kind.
	maxDocument = 2 << 20
)

// document reads the body of the request whole, and what is to be known of its trailer.
func (c *call) document() ([]byte, error) {
	body, _, _, err := c.body()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(body, maxDocument+1))
	if err == nil && len(b) > maxDocument {
		err = fault(http.StatusBadRequest, "MaxMessageLengthExceeded", "Your request was too big.")
	}
	return b, err
}

func malformed() error {
	return fault(http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
}

// deletion is what DeleteObjects is asked for.
type deletion struct {
	XMLName xml.Name `xml:"Delete"`
	Quiet   bool     `xml:"Quiet,omitempty"`
	Objects []struct {
		Key       string `xml:"Key"`
		VersionID string `xml:"VersionId,omitempty"`
		ETag      string `xml:"ETag,omitempty"`
	} `xml:"Object"`
}

// deleteObjects deletes those objects that the caller may delete.
func (c *call) deleteObjects() error {
	text, err := c.document()
	if err != nil {
		return err
	}
	var in deletion
	if err := xml.Unmarshal(text, &in); err != nil || len(in.Objects) == 0 || len(in.Objects) > maxDeletes {
		return malformed()
	}
	for _, o := range in.Objects {
		if o.Key == "" || unusable(o.Key) {
			return malformed()
		}
		action := "s3:DeleteObject"
		if o.VersionID != "" {
			action = "s3:DeleteObjectVersion"
		}
		if err := c.may(action, arn{c.bucket + "/" + o.Key, c.scope().Account}); lambda.AsError(err) != nil {
			return err
		}
	}
	objects := make([]notification.Object, len(in.Objects))
	for i, o := range in.Objects {
		objects[i] = notification.Object{Event: removed, Key: o.Key, Version: o.VersionID}
	}
	answer, err := c.carry(objects, func() (*http.Response, error) {
		out := c.request(c.r.Context(), bytes.NewReader(text), int64(len(text)))
		if c.chunks != nil {
			for name, values := range c.chunks.Trailer() {
				if isPassed(name) {
					out.Header[name] = values
				}
			}
		}
		return c.door.Objects.Do(c.scope(), out)
	})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return c.relay(answer)
}

// deleteBucket also forgets who was told of its objects.
func (c *call) deleteBucket() error {
	answer, err := c.do(nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode < http.StatusMultipleChoices {
		if err := c.door.Notifications.Configure(context.WithoutCancel(c.r.Context()), c.scope(), c.bucket, notification.Request{}, nil, false); err != nil {
			return err
		}
	}
	return c.relay(answer)
}

// removed is what becomes of objects that are deleted, unless they have versions.
const removed = "ObjectRemoved:Delete"
