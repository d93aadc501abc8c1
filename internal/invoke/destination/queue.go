package destination

import (
	"context"
	"errors"
	"regexp"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"kiln/internal/lambda"
)

const (
	// maxQueueURLs bounds the URLs of queues that are remembered.
	maxQueueURLs = 1_000
	// maxTraceHeader is what is passed on of a trace header, in bytes: enough for all
	// that AWS writes into one.
	maxTraceHeader = 500
)

// traceHeader is one as SQS takes it. It refuses the whole message for another, which a
// caller may have sent.
var traceHeader = regexp.MustCompile(`^([A-Za-z]+=[!-:<-~]*;)*Root=1-[0-9a-fA-F]{8}-[0-9a-fA-F]{24}(;[A-Za-z]+=[!-:<-~]*)*;?$`)

func isTrace(header string) bool {
	return len(header) <= maxTraceHeader && traceHeader.MatchString(header)
}

// traced has a request carry the trace header, by which whoever passes the message on
// lets loops be found.
func traced(options []func(*middleware.Stack) error, trace string) []func(*middleware.Stack) error {
	if !isTrace(trace) {
		return options
	}
	return append(options, smithyhttp.SetHeaderValue("X-Amzn-Trace-Id", trace))
}

// queues are those of SQS. Requests need their URLs, which only SQS knows.
type queues struct {
	*client[*sqs.Client]
	mu   sync.Mutex
	urls map[lambda.Destination]string // guarded by mu
}

func newQueues() *queues {
	return &queues{
		client: newClient("sqs", func(c aws.Config) *sqs.Client { return sqs.NewFromConfig(c) }),
		urls:   map[lambda.Destination]string{},
	}
}

func (q *queues) send(ctx context.Context, cfg Config, t target, m message) error {
	if m.size() > maxQueueMessage {
		return refuse(t.destination, "it is %d bytes large, and SQS takes %d", m.size(), maxQueueMessage)
	}
	in := &sqs.SendMessageInput{MessageBody: &m.body}
	for _, a := range m.attributes {
		if in.MessageAttributes == nil {
			in.MessageAttributes = map[string]types.MessageAttributeValue{}
		}
		in.MessageAttributes[a.name] = types.MessageAttributeValue{DataType: &a.kind, StringValue: &a.value}
	}
	if isTrace(m.trace) {
		in.MessageSystemAttributes = map[string]types.MessageSystemAttributeValue{
			string(types.MessageSystemAttributeNameForSendsAWSTraceHeader): {DataType: aws.String("String"), StringValue: &m.trace},
		}
	}
	return ask(ctx, cfg, q.client, t, func(ctx context.Context, c *sqs.Client) error {
		here := func(o *sqs.Options) { o.Region = t.Region }
		url, remembered := q.url(t.destination)
		for {
			if !remembered {
				out, err := c.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &t.Resource, QueueOwnerAWSAccountId: &t.AccountID}, here)
				if err != nil {
					return err
				}
				url = aws.ToString(out.QueueUrl)
				q.remember(t.destination, url)
			}
			in.QueueUrl = &url
			_, err := c.SendMessage(ctx, in, here)
			if gone := (*types.QueueDoesNotExist)(nil); !remembered || !errors.As(err, &gone) {
				return err
			}
			remembered = false // it may have been made again, elsewhere
		}
	})
}

func (q *queues) url(of lambda.Destination) (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	url, ok := q.urls[of]
	return url, ok
}

func (q *queues) remember(of lambda.Destination, url string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.urls) >= maxQueueURLs {
		for any := range q.urls {
			delete(q.urls, any)
			break
		}
	}
	q.urls[of] = url
}
