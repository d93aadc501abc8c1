package destination

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/smithy-go"
)

// buses are those of EventBridge.
type buses struct{ *client[*eventbridge.Client] }

func newBuses() buses {
	return buses{newClient("events", func(c aws.Config) *eventbridge.Client { return eventbridge.NewFromConfig(c) })}
}

func (b buses) send(ctx context.Context, cfg Config, t target, o Outcome, record string) error {
	kind := "Lambda Function Invocation Result - Failure"
	if o.Condition == Success {
		kind = "Lambda Function Invocation Result - Success"
	}
	entry := types.PutEventsRequestEntry{
		EventBusName: aws.String(string(t.destination)),
		Source:       aws.String("lambda"),
		DetailType:   &kind,
		Detail:       &record,
		Resources:    []string{string(t.destination), o.function()},
		Time:         aws.Time(o.At.UTC().Truncate(time.Second)),
	}
	if n := entrySize(entry); n > maxEntry {
		return refuse(t.destination, "its entry is %d bytes large, and EventBridge takes %d", n, maxEntry)
	}
	return ask(ctx, cfg, b.client, t, func(ctx context.Context, c *eventbridge.Client) error {
		out, err := c.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{entry}}, func(o *eventbridge.Options) { o.Region = t.Region })
		if err != nil {
			return err
		}
		for _, e := range out.Entries {
			if e.ErrorCode != nil {
				return &smithy.GenericAPIError{Code: *e.ErrorCode, Message: aws.ToString(e.ErrorMessage)}
			}
		}
		return nil
	})
}

// entrySize is the size of an entry as EventBridge counts it, in bytes.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/calculate-putevents-entry-size.html
func entrySize(e types.PutEventsRequestEntry) int {
	const ofTime = 14
	n := ofTime + len(*e.Source) + len(*e.DetailType) + len(*e.Detail)
	for _, r := range e.Resources {
		n += len(r)
	}
	return n
}
