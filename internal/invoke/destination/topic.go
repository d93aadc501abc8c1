package destination

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"
)

// topics are those of SNS.
type topics struct{ *client[*sns.Client] }

func newTopics() topics {
	return topics{newClient("sns", func(c aws.Config) *sns.Client { return sns.NewFromConfig(c) })}
}

func (s topics) send(ctx context.Context, cfg Config, t target, m message) error {
	if m.size() > maxTopicMessage {
		return refuse(t.destination, "it is %d bytes large, and SNS takes %d", m.size(), maxTopicMessage)
	}
	in := &sns.PublishInput{TopicArn: aws.String(string(t.destination)), Message: &m.body}
	if m.subject != "" {
		in.Subject = &m.subject
	}
	for _, a := range m.attributes {
		if in.MessageAttributes == nil {
			in.MessageAttributes = map[string]types.MessageAttributeValue{}
		}
		in.MessageAttributes[a.name] = types.MessageAttributeValue{DataType: &a.kind, StringValue: &a.value}
	}
	return ask(ctx, cfg, s.client, t, func(ctx context.Context, c *sns.Client) error {
		_, err := c.Publish(ctx, in, func(o *sns.Options) { o.Region, o.APIOptions = t.Region, traced(o.APIOptions, m.trace) })
		return err
	})
}
