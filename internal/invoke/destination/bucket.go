package destination

import (
	"context"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"kiln/internal/lambda"
)

// buckets are those of S3.
type buckets struct{ *client[*s3.Client] }

func newBuckets() buckets {
	return buckets{newClient("s3", func(c aws.Config) *s3.Client {
		return s3.NewFromConfig(c, func(o *s3.Options) {
			o.UsePathStyle = true
			o.DisableS3ExpressSessionAuth = aws.Bool(true)
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired // others than AWS may not know the newer ones
		})
	})}
}

func (b buckets) send(ctx context.Context, cfg Config, t target, scope lambda.Scope, key string, m message) error {
	put := func(ctx context.Context, c *s3.Client) error {
		in := &s3.PutObjectInput{Bucket: &t.Resource, Key: &key, ContentType: aws.String("application/json"), Body: strings.NewReader(m.body)}
		_, err := c.PutObject(ctx, in, func(o *s3.Options) { o.Region, o.APIOptions = string(scope.Region), traced(o.APIOptions, m.trace) })
		return err
	}
	if t.endpoint != "" {
		return ask(ctx, cfg, b.client, t, put)
	}
	t.endpoint = "Kiln's own S3"
	own := s3.New(s3.Options{
		BaseEndpoint: aws.String("http://localhost"), UsePathStyle: true, Credentials: aws.AnonymousCredentials{},
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		HTTPClient:                 smithyhttp.ClientDoFunc(func(r *http.Request) (*http.Response, error) { return cfg.Own(scope, r) }),
	})
	return within(ctx, cfg, t, func(ctx context.Context) (bool, error) { return false, put(ctx, own) })
}
