package destination

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"kiln/internal/aws/sdk"
	"kiln/internal/lambda"
)

const (
	// maxSends bounds what is sent to one service at once: each may hold a record, and
	// what the SDK makes of it, in memory.
	maxSends = 16
	// headerTimeout is how long a service may take to begin its answer.
	headerTimeout = 20 * time.Second
	// attempts is how often a service is asked in one sending: a connection may have
	// been closed just then. Whoever sends tries again later.
	attempts = 2
	// maxBackoff is the longest pause between them.
	maxBackoff = 200 * time.Millisecond
)

// client is that of one service, made when it is needed.
type client[C any] struct {
	name  string
	build func(aws.Config) C
	sends chan struct{} // holds a token for each under way
	turn  chan struct{} // holds one while somebody uses the client's fields below

	// guarded by turn
	client     C
	connection *sdk.Connection
	until      time.Time
	unsigned   bool // the log knows
}

func newClient[C any](name string, build func(aws.Config) C) *client[C] {
	return &client[C]{name: name, build: build, sends: make(chan struct{}, maxSends), turn: make(chan struct{}, 1)}
}

// use makes a request with the client, and says whether it was not signed.
func (c *client[C]) use(ctx context.Context, cfg Config, endpoint string, request func(context.Context, C) error) (unsigned bool, err error) {
	if err := enter(ctx, c.sends); err != nil {
		return false, err
	}
	defer func() { <-c.sends }()
	client, unsigned, err := c.get(ctx, cfg, endpoint)
	if err != nil {
		return false, err
	}
	return unsigned, request(ctx, client)
}

// get returns the client, or makes another one if it is old.
func (c *client[C]) get(ctx context.Context, cfg Config, endpoint string) (client C, unsigned bool, err error) {
	if err := enter(ctx, c.turn); err != nil {
		return client, false, err
	}
	defer func() { <-c.turn }()
	if c.connection != nil && time.Now().Before(c.until) {
		return c.client, c.connection.Unsigned != nil, nil
	}
	connection, err := sdk.Connect(ctx, sdk.Config{
		Endpoint: endpoint, Region: string(lambda.DefaultRegion), // each request says its own
		Credentials: cfg.Credentials, HeaderTimeout: headerTimeout, Attempts: attempts, MaxBackoff: maxBackoff,
	})
	if err != nil {
		return client, false, err
	}
	unsigned = connection.Unsigned != nil
	if unsigned && !c.unsigned {
		cfg.Log.Info("no credentials are found for what is sent to destinations: it is not signed", "service", c.name, "error", connection.Unsigned)
	}
	if c.connection != nil {
		c.connection.Close() // requests under way go on
	}
	c.client, c.connection, c.until, c.unsigned = c.build(connection.Config), connection, time.Now().Add(cfg.CredentialsLife), unsigned
	return c.client, unsigned, nil
}

func (c *client[C]) close() {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.connection != nil {
		c.connection.Close()
		c.connection = nil
	}
}

// enter takes a place in the channel, or gives up with the context.
func enter(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
