package destination

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

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

func (b buckets) send(ctx context.Context, cfg Config, t target, region lambda.Region, key string, m message) error {
	in := &s3.PutObjectInput{Bucket: &t.Resource, Key: &key, ContentType: aws.String("application/json")}
	return ask(ctx, cfg, b.client, t, func(ctx context.Context, c *s3.Client) error {
		in.Body = strings.NewReader(m.body)
		_, err := c.PutObject(ctx, in, func(o *s3.Options) { o.Region, o.APIOptions = string(region), traced(o.APIOptions, m.trace) })
		return err
	})
}
