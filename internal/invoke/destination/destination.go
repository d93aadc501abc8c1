// Package destination sends what became of an asynchronous invocation, or of a batch of
// an event source, to where its owner wants it: records to SQS, SNS, EventBridge and S3,
// dead letters to SQS and SNS, served by whatever Kiln's configuration names. It decides nothing: internal/invoke/async
// says what goes where, tries again, counts, and invokes the functions that are
// destinations, with the same record.
package destination

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"kiln/internal/lambda"
)

const (
	// DefaultTimeout bounds one sending: the largest record, 7 MB, at 2 Mbit/s.
	DefaultTimeout         = 30 * time.Second
	defaultCredentialsLife = time.Minute
	// maxQueueMessage is what SQS takes in a message with its attributes, in bytes.
	maxQueueMessage = 1 << 20
	// maxTopicMessage is what SNS takes.
	maxTopicMessage = 256 << 10
	// maxEntry is what EventBridge takes in an entry.
	maxEntry = 1 << 20
)

// Config of a Sender.
type Config struct {
	// Endpoint is the URL of a service, by its name in signatures (sqs, sns, events,
	// s3). "" is none: nothing can be sent there, but to Kiln's own S3.
	Endpoint func(service string) string
	// Own makes a request of Kiln's own S3, which is signed there. It is asked where S3
	// has no endpoint. Nil: there is none.
	Own func(lambda.Scope, *http.Request) (*http.Response, error)
	// Credentials sign the requests. Nil: what any AWS client would find where Kiln
	// runs, or no signature where that is nothing.
	Credentials aws.CredentialsProvider
	// CredentialsLife is how long credentials that were found are used before they are
	// looked up again, because they may change while Kiln runs. 0 means a minute.
	CredentialsLife time.Duration
	// Timeout bounds one sending. 0 means DefaultTimeout.
	Timeout time.Duration
	// Log hears of requests that are not signed. Nil discards it.
	Log *slog.Logger
}

// Sender is safe for concurrent use. An error says that the message may not have been
// sent, or, where the answer was lost, that it may come twice; see Permanent.
type Sender struct {
	cfg     Config
	queues  *queues
	topics  topics
	buses   buses
	buckets buckets
}

// New starts nothing.
func New(cfg Config) *Sender {
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	cfg.CredentialsLife = cmp.Or(cfg.CredentialsLife, defaultCredentialsLife)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Sender{cfg: cfg, queues: newQueues(), topics: newTopics(), buses: newBuses(), buckets: newBuckets()}
}

// Close lets go of idle connections. Nothing may be sent at the time.
func (s *Sender) Close() {
	s.queues.close()
	s.topics.close()
	s.buses.close()
	s.buckets.close()
}

// Record sends the record of an outcome to its destination, which is not a function.
func (s *Sender) Record(ctx context.Context, to lambda.Destination, o Outcome) error {
	t, err := s.target(to, "sqs", "sns", "events", "s3")
	if err != nil {
		return err
	}
	m := message{body: string(o.Record()), trace: o.TraceHeader}
	switch t.Service {
	case "sqs":
		return s.queues.send(ctx, s.cfg, t, m)
	case "sns":
		return s.topics.send(ctx, s.cfg, t, m)
	case "events":
		return s.buses.send(ctx, s.cfg, t, o, m.body)
	default:
		return s.buckets.send(ctx, s.cfg, t, o.Function.Scope, o.key(), m)
	}
}

// DeadLetter sends an event that came to nothing to a queue or topic.
func (s *Sender) DeadLetter(ctx context.Context, to lambda.Destination, l Letter) error {
	t, err := s.target(to, "sqs", "sns")
	if err != nil {
		return err
	}
	m := message{body: string(asText(l.Payload)), attributes: l.attributes(), trace: l.TraceHeader}
	if t.Service == "sqs" {
		return s.queues.send(ctx, s.cfg, t, m)
	}
	return s.topics.send(ctx, s.cfg, t, m)
}

// Batch is what an event source mapping gives up.
type Batch struct {
	lambda.Scope        // of the mapping
	Record       []byte // what queues and topics get: JSON
	Object       []byte // what a bucket gets: the record, with the payload
	Key          string // of the object
}

// Batch sends a batch that is given up to the destination of its mapping.
func (s *Sender) Batch(ctx context.Context, to lambda.Destination, b Batch) error {
	t, err := s.target(to, "sqs", "sns", "s3")
	if err != nil {
		return err
	}
	switch m := (message{body: string(b.Record)}); t.Service {
	case "sqs":
		return s.queues.send(ctx, s.cfg, t, m)
	case "sns":
		return s.topics.send(ctx, s.cfg, t, m)
	default:
		return s.buckets.send(ctx, s.cfg, t, b.Scope, b.Key, message{body: string(b.Object)})
	}
}

// Notify sends what a bucket has to say to a queue or topic.
func (s *Sender) Notify(ctx context.Context, to lambda.Destination, text string) error {
	t, err := s.target(to, "sqs", "sns")
	if err != nil {
		return err
	}
	if t.Service == "sqs" {
		return s.queues.send(ctx, s.cfg, t, message{body: text})
	}
	return s.topics.send(ctx, s.cfg, t, message{body: text, subject: "Amazon S3 Notification"})
}

// message is what a queue or topic gets.
type message struct {
	body       string
	subject    string // of a topic's; "" for none
	attributes []attribute
	trace      string
}

// size of the message as SQS and SNS count it, in bytes.
func (m message) size() int {
	n := len(m.body)
	for _, a := range m.attributes {
		n += len(a.name) + len(a.kind) + len(a.value)
	}
	return n
}

// target is a destination that something can be sent to.
type target struct {
	arn.ARN
	destination lambda.Destination
	endpoint    string
}

// bucketName is what S3 has ever accepted as one. It keeps a name from being taken for
// a path, or for another kind of ARN.
var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$`)

// target finds where to send. The errors are permanent.
func (s *Sender) target(to lambda.Destination, services ...string) (t target, err error) {
	t.destination = to
	if t.ARN, err = arn.Parse(string(to)); err != nil {
		return t, refuse(to, "it is not an ARN")
	}
	if t.Service != "s3" && strings.HasSuffix(t.Resource, ".fifo") {
		return t, refuse(to, "FIFO queues and topics take nothing of asynchronous invocations, as on AWS: name a standard one")
	}
	whole := t.Region != "" && t.AccountID != ""
	if t.Service == "s3" {
		whole = bucketName.MatchString(t.Resource)
	}
	if !whole || !slices.Contains(services, to.Service()) {
		return t, refuse(to, "it is not the ARN of what this can be sent to (%s)", strings.Join(services, ", "))
	}
	if t.endpoint = s.cfg.Endpoint(t.Service); t.endpoint == "" && (t.Service != "s3" || s.cfg.Own == nil) {
		return t, refuse(to, `Kiln is not told which %[1]s to send to. Name it in kiln.toml, endpoints = { %[2]s = "http://127.0.0.1:9324" }, or in KILN_ENDPOINTS, %[2]s=http://127.0.0.1:9324, and restart kiln`, names[t.Service], t.Service)
	}
	return t, nil
}

var errSlow = errors.New("no answer within")

// ask has one request of a client made, within the time that it may take.
func ask[C any](ctx context.Context, cfg Config, c *client[C], t target, request func(context.Context, C) error) error {
	return within(ctx, cfg, t, func(ctx context.Context) (unsigned bool, err error) { return c.use(ctx, cfg, t.endpoint, request) })
}

func within(ctx context.Context, cfg Config, t target, request func(context.Context) (unsigned bool, err error)) error {
	sending, cancel := context.WithTimeoutCause(ctx, cfg.Timeout, errSlow)
	defer cancel()
	unsigned, err := request(sending)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case context.Cause(sending) == errSlow:
		err = fmt.Errorf("%w %v", errSlow, cfg.Timeout)
	}
	return explain(t.destination, t.endpoint, unsigned, err)
}
