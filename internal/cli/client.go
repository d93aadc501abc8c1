package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"kiln/internal/config"
	"kiln/internal/lambda"
)

// remote are the flags of the commands that talk to a daemon.
type remote struct {
	Endpoint string `placeholder:"URL" help:"Where Kiln serves; default AWS_ENDPOINT_URL_LAMBDA, AWS_ENDPOINT_URL, or the local default."`
	Region   string `placeholder:"REGION" help:"Default AWS_REGION, AWS_DEFAULT_REGION, or us-east-1."`
	JSON     bool   `help:"Print JSON."`
}

// client talks to a daemon as AWS clients do. AWS's client for Lambda would add 3 MB
// to the program, and to the memory of a daemon, which is the same, for three operations.
type client struct {
	endpoint string
	aws      aws.Config
}

// connect makes a client. Credentials come from where the AWS CLI takes them; a
// Kiln without keys takes any, so there need not be any.
func (r remote) connect(ctx context.Context, getenv func(string) string) (*client, error) {
	endpoint := first(r.Endpoint, getenv("AWS_ENDPOINT_URL_LAMBDA"), getenv("AWS_ENDPOINT_URL"), "http://localhost:"+config.DefaultPort)
	if u, err := url.Parse(endpoint); err != nil || u.Host == "" {
		return nil, fmt.Errorf("the endpoint %q is not a URL such as http://localhost:%s", endpoint, config.DefaultPort)
	}
	region := first(r.Region, getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION"), string(lambda.DefaultRegion))
	options := []func(*awsconfig.LoadOptions) error{awsconfig.WithRegion(region), awsconfig.WithBaseEndpoint(endpoint)}
	if getenv("AWS_ACCESS_KEY_ID") == "" && getenv("AWS_PROFILE") == "" {
		options = append(options, awsconfig.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("kiln", "kiln", "")))
	}
	c, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, err
	}
	return &client{endpoint: endpoint, aws: c}, nil
}

// get sends a signed GET to one of Kiln's own paths and reads the JSON answer.
func (c *client) get(ctx context.Context, path string, query url.Values, answer any) error {
	return c.ask(ctx, http.MethodGet, path+"?"+query.Encode(), nil, answer)
}

// ask sends a signed request to one of Kiln's own paths and reads the JSON answer.
func (c *client) ask(ctx context.Context, method, path string, body []byte, answer any) error {
	answered, err := c.call(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answered.Close()
	return json.NewDecoder(answered).Decode(answer)
}

// lambda sends a request of the Lambda API.
func (c *client) lambda(ctx context.Context, method, path string, query url.Values, header http.Header, body []byte) (*http.Response, error) {
	return c.send(ctx, method, path+"?"+query.Encode(), "lambda", header, body)
}

// call sends a signed request to one of Kiln's own paths, and returns the body of
// an answer that is no refusal.
func (c *client) call(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	response, err := c.send(ctx, method, path, "kiln", nil, body)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// refusal is an answer that is an error, in the words of the daemon.
type refusal struct {
	Type    string `json:"__type"` // of AWS's JSON protocol; else it is in a header
	Message string // in either case
}

func (r *refusal) Error() string { return r.Message }

// missing tells whether the daemon said that there is no such thing.
func missing(err error) bool {
	refused, ok := errors.AsType[*refusal](err)
	return ok && refused.Type == "ResourceNotFoundException"
}

// send sends a request that is signed for a service, and returns an answer that is
// no refusal.
func (c *client) send(ctx context.Context, method, path, service string, header http.Header, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.endpoint+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	maps.Copy(r.Header, header)
	identity, err := c.aws.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, identity, r, hex.EncodeToString(sum[:]), service, c.aws.Region, time.Now()); err != nil {
		return nil, err
	}
	response, err := c.http().Do(r)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	refused := new(refusal)
	said, _ := io.ReadAll(io.LimitReader(response.Body, 1<<20)) // what there is of it
	if json.Unmarshal(said, refused) == nil && refused.Message != "" {
		if service != "logs" {
			refused.Type = response.Header.Get("X-Amzn-Errortype")
		}
		return nil, refused
	}
	return nil, fmt.Errorf("%s answered %s", c.endpoint, response.Status)
}

// http reaches https endpoints too, with the certificates that AWS_CA_BUNDLE and
// the profile's ca_bundle name.
func (c *client) http() aws.HTTPClient {
	if c.aws.HTTPClient != nil {
		return c.aws.HTTPClient
	}
	return http.DefaultClient
}

// explain adds what to do when nothing answers.
func (c *client) explain(err error) error {
	var connection *url.Error
	if errors.As(err, &connection) && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("no Kiln answers at %s (%w). Start one with: kiln up", c.endpoint, connection.Err)
	}
	if refused, ok := errors.AsType[*refusal](err); ok && refused.Type != "" {
		return fmt.Errorf("%s: %s", refused.Type, refused.Message)
	}
	return err
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func writeJSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
