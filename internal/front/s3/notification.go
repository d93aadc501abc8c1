package s3

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"kiln/internal/invoke/notification"
	"kiln/internal/lambda"
)

// configurations is the document of GetBucketNotificationConfiguration.
type configurations struct {
	XMLName   xml.Name        `xml:"http://s3.amazonaws.com/doc/2006-03-01/ NotificationConfiguration"`
	Topics    []configuration `xml:"TopicConfiguration"`
	Queues    []configuration `xml:"QueueConfiguration"`
	Functions []configuration `xml:"CloudFunctionConfiguration"`
	Bridge    *struct{}       `xml:"EventBridgeConfiguration"`
}

// configuration is one of a topic, a queue or a function.
type configuration struct {
	ID       string   `xml:"Id,omitempty"`
	Topic    string   `xml:"Topic,omitempty"`
	Queue    string   `xml:"Queue,omitempty"`
	Function string   `xml:"CloudFunction,omitempty"`
	Events   []string `xml:"Event"`
	Filter   *filter  `xml:"Filter"`
}

type filter struct {
	Key struct {
		Rules []rule `xml:"FilterRule"`
	} `xml:"S3Key"`
}

type rule struct {
	Name  string
	Value string
}

// target reads a configuration.
func (c configuration) target() (t notification.Target, err error) {
	t = notification.Target{ID: c.ID, ARN: cmp.Or(c.Function, c.Queue, c.Topic), Events: c.Events}
	if c.Filter == nil {
		return t, nil
	}
	seen := map[string]bool{}
	for _, r := range c.Filter.Key.Rules {
		name := strings.ToLower(r.Name)
		if seen[name] {
			return t, &notification.Invalid{Message: "Cannot specify more than one " + name + " rule in a filter."}
		}
		seen[name] = true
		switch name {
		case "prefix":
			t.Prefix = r.Value
		case "suffix":
			t.Suffix = r.Value
		default:
			return t, &notification.Invalid{Message: "filter rule name must be either prefix or suffix"}
		}
	}
	return t, nil
}

// configurationOf writes one.
func configurationOf(t notification.Target) configuration {
	c := configuration{ID: t.ID, Events: t.Events}
	switch lambda.Destination(t.ARN).Service() {
	case "sqs":
		c.Queue = t.ARN
	case "sns":
		c.Topic = t.ARN
	default:
		c.Function = t.ARN
	}
	if t.Prefix+t.Suffix != "" {
		c.Filter = new(filter)
		for _, r := range []rule{{"Prefix", t.Prefix}, {"Suffix", t.Suffix}} {
			if r.Value != "" {
				c.Filter.Key.Rules = append(c.Filter.Key.Rules, r)
			}
		}
	}
	return c
}

func (c *call) getNotification() error {
	var out configurations
	for _, t := range c.door.Notifications.Targets(c.scope(), c.bucket) {
		list := &out.Functions
		switch lambda.Destination(t.ARN).Service() {
		case "sqs":
			list = &out.Queues
		case "sns":
			list = &out.Topics
		}
		*list = append(*list, configurationOf(t))
	}
	c.answer(http.StatusOK, out)
	return nil
}

func (c *call) putNotification() error {
	text, err := c.document()
	if err != nil {
		return err
	}
	var in configurations
	if err := xml.Unmarshal(text, &in); err != nil {
		return malformed()
	}
	if in.Bridge != nil {
		return fault(http.StatusNotImplemented, "NotImplemented", "Kiln sends no events of buckets to EventBridge: name functions, queues or topics.")
	}
	var targets []notification.Target
	for service, list := range map[string][]configuration{"lambda": in.Functions, "sqs": in.Queues, "sns": in.Topics} {
		for _, one := range list {
			t, err := one.target()
			if is := lambda.Destination(t.ARN).Service(); err == nil && is != "" && is != service {
				err = &notification.Invalid{Message: "The ARN could not be parsed"}
			}
			if err != nil {
				return err
			}
			targets = append(targets, t)
		}
	}
	validate := c.r.Header.Get("X-Amz-Skip-Destination-Validation") != "true"
	if err := c.door.Notifications.Configure(c.r.Context(), c.scope(), c.bucket, c.told(nil), targets, validate); err != nil {
		return err
	}
	c.w.Header().Set("X-Amz-Request-Id", c.id)
	c.answered = true
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// told is what events tell of the request, which has that answer.
func (c *call) told(answer *http.Response) notification.Request {
	who := c.caller.Principal
	r := notification.Request{Time: time.Now(), Principal: "AWS:" + who.UserID, ID: c.id, Trace: c.r.Header.Get("X-Amzn-Trace-Id")}
	if who.ARN == lambda.RootARN(who.Account) {
		r.Principal = string(who.Account)
	}
	if who.From.IsValid() {
		r.Address = who.From.String()
	}
	if answer != nil {
		r.ID, r.ID2 = cmp.Or(answer.Header.Get("X-Amz-Request-Id"), r.ID), answer.Header.Get("X-Amz-Id-2")
	}
	return r
}

// carry has a change of objects carried out by do. Who is to be told of it has been when
// it returns, or will be, whatever happens.
func (c *call) carry(objects []notification.Object, do func() (*http.Response, error)) (*http.Response, error) {
	intent, err := c.door.Notifications.Begin(c.r.Context(), c.scope(), c.bucket, c.told(nil), objects)
	if err != nil {
		return nil, err
	}
	answer, err := do()
	switch {
	case intent == nil:
		return answer, err
	case c.cut:
		intent.Undone(c.r.Context())
		return nil, err
	case err != nil:
		intent.Unknown()
		return nil, err
	case answer.StatusCode >= http.StatusMultipleChoices:
		intent.Undone(c.r.Context())
		return answer, nil
	}
	objects, err = c.became(objects, answer)
	if err != nil {
		answer.Body.Close()
		intent.Unknown()
		return nil, err
	}
	intent.Done(c.r.Context(), c.told(answer), objects)
	return answer, nil
}

// became is what the answer says of the objects. What it reads of the answer is there again.
func (c *call) became(objects []notification.Object, answer *http.Response) ([]notification.Object, error) {
	ctx := context.WithoutCancel(c.r.Context())
	o := objects[0]
	switch c.operation.name {
	case "PutObject":
		o.ETag, o.Version, o.Size = strings.Trim(answer.Header.Get("Etag"), `"`), answer.Header.Get("X-Amz-Version-Id"), c.length
	case "DeleteObject":
		if o.Version == "" && answer.Header.Get("X-Amz-Delete-Marker") == "true" {
			o.Event = notification.Marked
		}
		o.Version = cmp.Or(o.Version, answer.Header.Get("X-Amz-Version-Id"))
	case "DeleteObjects":
		return c.deleted(objects, answer)
	default: // how large it is stands in no answer
		text, err := again(answer)
		if err != nil {
			return nil, err
		}
		var made struct{ ETag string }
		_ = xml.Unmarshal(text, &made) // of tags there is none
		o.Version = answer.Header.Get("X-Amz-Version-Id")
		o.ETag = strings.Trim(made.ETag, `"`)
		found := c.door.Notifications.Look(ctx, c.scope(), c.bucket, o)
		o.Size, o.ETag = found.Size, cmp.Or(o.ETag, found.ETag)
	}
	return []notification.Object{o}, nil
}

// again reads the body of an answer whole, and puts it back.
func again(answer *http.Response) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxDocument))
	if err != nil {
		return nil, err
	}
	answer.Body.Close()
	answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	answer.Header.Set("Content-Length", strconv.Itoa(len(text)))
	return text, nil
}

// deleted are those of the objects that were deleted.
func (c *call) deleted(objects []notification.Object, answer *http.Response) (list []notification.Object, err error) {
	text, err := again(answer)
	if err != nil {
		return nil, err
	}
	type one struct {
		Key                   string
		VersionID             string `xml:"VersionId"`
		DeleteMarker          bool
		DeleteMarkerVersionID string `xml:"DeleteMarkerVersionId"`
	}
	var out struct {
		Deleted []one
		Error   []one
	}
	if err := xml.Unmarshal(text, &out); err != nil {
		return nil, err
	}
	name := func(key, version string) string { return key + "\x00" + version }
	failed, said := map[string]bool{}, map[string]one{}
	for _, o := range out.Error {
		failed[name(o.Key, o.VersionID)] = true
	}
	for _, o := range out.Deleted {
		said[name(o.Key, o.VersionID)] = o
	}
	ctx := context.WithoutCancel(c.r.Context())
	for _, o := range objects {
		n := name(o.Key, o.Version)
		if failed[n] {
			continue
		}
		if s, ok := said[n]; ok {
			if s.DeleteMarker && o.Version == "" {
				o.Event, o.Version = notification.Marked, s.DeleteMarkerVersionID
			}
		} else { // the caller wants to hear of failures only
			o = c.door.Notifications.Look(ctx, c.scope(), c.bucket, o)
		}
		list = append(list, o)
	}
	return list, nil
}
