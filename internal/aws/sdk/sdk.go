// Package sdk sets up AWS's own Go SDK for the services that Kiln itself calls and
// others serve: at the endpoint that Kiln's configuration names and nowhere else, with
// the credentials that any AWS client would find where Kiln runs. The clients are their
// users': internal/state/bucket and internal/invoke/destination; internal/front/forward
// signs with the credentials alone.
package sdk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
)

// Config of a Connection. All but Region and Credentials is required.
type Config struct {
	Endpoint string // URL
	Region   string // that is signed for
	// Credentials sign the requests. Nil: what any AWS client would find where Kiln
	// runs, or no signature where that is nothing.
	Credentials aws.CredentialsProvider
	// HeaderTimeout is how long the service may take to begin an answer.
	HeaderTimeout time.Duration
	// Attempts is how often the service is asked before it counts as failing, and
	// MaxBackoff is the longest pause between them.
	Attempts   int
	MaxBackoff time.Duration
}

// Connection is what clients of a service are made of.
type Connection struct {
	aws.Config
	// Unsigned says why there are no credentials, so that requests are not signed. It
	// is nil where they are.
	Unsigned error
	// Close lets go of connections that are idle.
	Close func()
}

// Connect looks for credentials, and asks the service nothing. Those it finds in files
// stay the same for the life of the connection.
func Connect(ctx context.Context, c Config) (*Connection, error) {
	transport := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.ResponseHeaderTimeout = c.HeaderTimeout
		t.DisableCompression = true // the bytes are wanted as they lie there
	})
	options := []func(*config.LoadOptions) error{
		config.WithRegion(c.Region), config.WithHTTPClient(transport),
		config.WithLogger(logging.Nop{}), // it would go to others than Kiln's log
	}
	if u, err := url.Parse(c.Endpoint); err == nil && !strings.HasSuffix(u.Hostname(), ".amazonaws.com") {
		// The role of a machine at AWS is of no use elsewhere, and where there is no
		// metadata service to ask for it, that takes seconds.
		options = append(options, config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	}
	if c.Credentials != nil {
		options = append(options, config.WithCredentialsProvider(c.Credentials))
	}
	loaded, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("read the AWS configuration: %w", err)
	}
	connection := &Connection{Config: loaded}
	if _, err := loaded.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		connection.Unsigned = err
		connection.Credentials = aws.AnonymousCredentials{}
	}
	// Not before: where credentials are asked for (STS) is elsewhere.
	connection.BaseEndpoint = &c.Endpoint
	connection.ConfigSources = nil // a client would take another endpoint from them (AWS_ENDPOINT_URL_S3)
	connection.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = c.Attempts, c.MaxBackoff })
	}
	// With what AWS_CA_BUNDLE added; a redirect leads where nobody has configured.
	carrier := loaded.HTTPClient.(*awshttp.BuildableClient).GetTransport()
	connection.HTTPClient = &http.Client{Transport: carrier, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	connection.Close = carrier.CloseIdleConnections
	return connection, nil
}

// Answer is the error that the service answered with. It is nil where it did not
// answer, and where what answered is not the service, but for instance a proxy.
func Answer(err error) smithy.APIError {
	var answer smithy.APIError
	if !errors.As(err, &answer) || answer.ErrorCode() == "" || answer.ErrorCode() == "UnknownError" {
		return nil
	}
	return answer
}

// Cause is what came in place of an answer, without what the SDK says around it.
func Cause(err error, service string) error {
	var response *awshttp.ResponseError
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	} else if errors.As(err, &response) {
		return fmt.Errorf("it answers with status %d, and not as %s", response.HTTPStatusCode(), service)
	}
	return err
}
