// Package bucket fetches deployment packages from the S3 that Kiln's configuration
// names, whatever serves it: AWS, MinIO, a gateway, an emulator; or else from Kiln's
// own. It keeps nothing; the registry has what it fetches stored as any other package.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"kiln/internal/aws/sdk"
	"kiln/internal/lambda"
	"kiln/internal/state"
)

const (
	// DefaultTimeout bounds one fetch: the largest package at 20 Mbit/s.
	DefaultTimeout = 2 * time.Minute
	// headerTimeout is how long S3 may take to begin its answer.
	headerTimeout = 30 * time.Second
	// attempts is how often S3 is asked before it counts as failing.
	attempts = 3
	// maxBackoff is the longest pause between them.
	maxBackoff = time.Second
	// maxFetches bounds the packages fetched at once, each of which needs disk of
	// its own until it is stored.
	maxFetches = 4
	// copySize is the unit of copying and of asking for free space, in bytes.
	copySize = 256 << 10
)

// Config of a Fetcher. Dir is required.
type Config struct {
	// Endpoint is the URL of S3. "" is Kiln's own.
	Endpoint string
	// Local makes a request of Kiln's own S3, which is signed there. It is asked where
	// there is no Endpoint.
	Local func(lambda.Scope, *http.Request) (*http.Response, error)
	// Credentials sign the requests. Nil: what any AWS client would find where
	// Kiln runs, or no signature where that is nothing.
	Credentials aws.CredentialsProvider
	// Dir is a folder on the data directory's disk.
	Dir string
	// Free fails with state.ErrFull when nothing more may be written. Nil: no floor.
	Free func() error
	// Timeout bounds one fetch. 0 means DefaultTimeout.
	Timeout time.Duration
	// Log hears of requests that are not signed. Nil discards it.
	Log *slog.Logger
}

// Fetcher is safe for concurrent use.
type Fetcher struct {
	cfg     Config
	fetches chan struct{} // holds a token for each under way
}

// New starts nothing.
func New(cfg Config) *Fetcher {
	if cfg.Free == nil {
		cfg.Free = func() error { return nil }
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Fetcher{cfg: cfg, fetches: make(chan struct{}, maxFetches)}
}

// Fetch copies an object to a file without a name, which is gone once the caller
// closes it. It fails with a *lambda.Error where the caller can do something about
// it: what S3 answers, and that it does not.
func (f *Fetcher) Fetch(ctx context.Context, o lambda.S3Object) (zip *io.SectionReader, close func(), err error) {
	// A server that follows such a path would serve another object than the one
	// that the caller may read.
	if parts := strings.Split(o.Key, "/"); slices.Contains(parts, ".") || slices.Contains(parts, "..") {
		return nil, nil, lambda.InvalidParameter("The S3Key %s has . or .. between its slashes: give the object another key.", o.Key)
	}
	select {
	case f.fetches <- struct{}{}:
		defer func() { <-f.fetches }()
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	fetching, cancel := context.WithTimeoutCause(ctx, f.cfg.Timeout, errSlow)
	defer cancel()
	file, size, err := f.fetch(fetching, o)
	switch {
	case err == nil:
		return io.NewSectionReader(file, 0, size), func() { _ = file.Close() }, nil
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case context.Cause(fetching) == errSlow:
		err = fmt.Errorf("%w %v", errSlow, f.cfg.Timeout)
	}
	return nil, nil, f.explain(o, err)
}

var errSlow = errors.New("the package was not here within")

// fetch asks S3 for the object, and copies it.
func (f *Fetcher) fetch(ctx context.Context, o lambda.S3Object) (_ *os.File, size int64, err error) {
	client, done, err := f.client(ctx, lambda.Scope{Account: o.Account, Region: o.Region})
	if err != nil {
		return nil, 0, err
	}
	defer done()
	in := &s3.GetObjectInput{Bucket: &o.Bucket, Key: &o.Key}
	if o.Version != "" {
		in.VersionId = &o.Version
	}
	out, err := client.GetObject(ctx, in)
	if err != nil {
		return nil, 0, err
	}
	defer out.Body.Close()
	if aws.ToInt64(out.ContentLength) > lambda.MaxUnzipped {
		return nil, 0, lambda.UnzippedTooLarge()
	}
	file, err := os.CreateTemp(f.cfg.Dir, "package-")
	if err != nil {
		return nil, 0, disk(err)
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if err := os.Remove(file.Name()); err != nil { // at once, so that no crash leaves it
		return nil, 0, disk(err)
	}
	// The reader hides that the body could write itself: then nobody would count.
	body := struct{ io.Reader }{io.LimitReader(out.Body, lambda.MaxUnzipped+1)}
	size, err = io.CopyBuffer(floored{file, f.cfg.Free}, body, make([]byte, copySize))
	if err == nil && size > lambda.MaxUnzipped {
		err = lambda.UnzippedTooLarge()
	}
	return file, size, err
}

// floored asks for free space before each write.
type floored struct {
	file *os.File
	free func() error
}

func (w floored) Write(b []byte) (int, error) {
	if err := w.free(); err != nil {
		return 0, err
	}
	n, err := w.file.Write(b)
	return n, disk(err)
}

// disk tells the errors of this machine's disk from S3's.
func disk(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("%w: %w", state.ErrFull, err)
	}
	return diskError{err}
}

type diskError struct{ error }

func (e diskError) Unwrap() error { return e.error }

// client makes the client of one fetch, so that credentials may change while Kiln
// runs. It signs for the function's region, which on AWS the bucket must be in.
func (f *Fetcher) client(ctx context.Context, scope lambda.Scope) (_ *s3.Client, done func(), err error) {
	if f.cfg.Endpoint == "" {
		return s3.New(s3.Options{
			BaseEndpoint: aws.String("http://localhost"), UsePathStyle: true, Region: string(scope.Region), Credentials: aws.AnonymousCredentials{},
			HTTPClient: smithyhttp.ClientDoFunc(func(r *http.Request) (*http.Response, error) { return f.cfg.Local(scope, r) }), DisableLogOutputChecksumValidationSkipped: true,
		}), func() {}, nil
	}
	connection, err := sdk.Connect(ctx, sdk.Config{
		Endpoint: f.cfg.Endpoint, Region: string(scope.Region), Credentials: f.cfg.Credentials,
		HeaderTimeout: headerTimeout, Attempts: attempts, MaxBackoff: maxBackoff,
	})
	if err != nil {
		return nil, nil, err
	}
	if connection.Unsigned != nil {
		f.cfg.Log.Info("no credentials for S3 are found: the package is asked for without signature", "error", connection.Unsigned)
	}
	return s3.NewFromConfig(connection.Config, func(s *s3.Options) {
		s.UsePathStyle = true
		s.DisableS3ExpressSessionAuth = aws.Bool(true)
		s.DisableLogOutputChecksumValidationSkipped = true
	}), connection.Close, nil
}

// explain says what came of a fetch, in AWS's words where S3 has answered.
func (f *Fetcher) explain(o lambda.S3Object, err error) error {
	var local diskError
	answer := sdk.Answer(err)
	switch {
	case lambda.AsError(err) != nil, errors.Is(err, state.ErrFull), errors.As(err, &local):
		return err
	case answer != nil && answer.ErrorCode() == "AccessDenied":
		return lambda.S3AccessDenied(o, answer.ErrorMessage())
	case answer != nil:
		return lambda.InvalidParameter("Error occurred while GetObject. S3 Error Code: %s. S3 Error Message: %s", answer.ErrorCode(), answer.ErrorMessage())
	}
	if f.cfg.Endpoint == "" {
		return fmt.Errorf("fetch s3://%s/%s: %w", o.Bucket, o.Key, err)
	}
	return fmt.Errorf("%w (%w)", lambda.InvalidParameter("Error occurred while GetObject of s3://%s/%s. The S3 that Kiln is configured with (endpoints), %s, fails: %v.", o.Bucket, o.Key, f.cfg.Endpoint, sdk.Cause(err, "S3")), err)
}
