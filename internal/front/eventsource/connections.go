package eventsource

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"kiln/internal/aws/sdk"
)

const (
	// headerTimeout is how long a service may take to begin its answer: longer than SQS
	// waits for messages.
	headerTimeout = 40 * time.Second
	// attempts is how often a service is asked before it counts as failing, and
	// maxBackoff the longest pause between them. Pollers try again later anyway.
	attempts   = 3
	maxBackoff = time.Second
)

// connections are those of one poller, made anew with it: credentials may have changed.
type connections struct {
	endpoint func(service, source string) string

	mu   sync.Mutex
	open []*sdk.Connection // guarded by mu
}

func (c *connections) Connect(ctx context.Context, service, source string) (aws.Config, error) {
	of, err := arn.Parse(source)
	if err != nil {
		return aws.Config{}, err
	}
	endpoint := c.endpoint(service, source)
	if endpoint == "" {
		return aws.Config{}, fmt.Errorf(`no endpoint is configured for %[1]s: name it in kiln.toml, endpoints = { %[2]q = "http://127.0.0.1:4100" }, or in KILN_ENDPOINTS, %[2]s=http://127.0.0.1:4100, and restart kiln`, of.Service, service)
	}
	connection, err := sdk.Connect(ctx, sdk.Config{Endpoint: endpoint, Region: of.Region, HeaderTimeout: headerTimeout, Attempts: attempts, MaxBackoff: maxBackoff})
	if err != nil {
		return aws.Config{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = append(c.open, connection)
	return connection.Config, nil
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, connection := range c.open {
		connection.Close()
	}
}
