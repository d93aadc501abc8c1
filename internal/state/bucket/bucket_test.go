package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/bucket"
)

var object = lambda.S3Object{Region: "eu-west-1", Bucket: "code", Key: "a folder/f+1.zip"}

// fetcher asks a server that answers as the handler says.
func fetcher(t *testing.T, answer http.HandlerFunc, change func(*bucket.Config)) *bucket.Fetcher {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	cfg := bucket.Config{Endpoint: server.URL, Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", ""), Dir: t.TempDir()}
	if change != nil {
		change(&cfg)
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(cfg.Dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	})
	return bucket.New(cfg)
}

func TestFetch(t *testing.T) {
	t.Parallel()
	var got *http.Request
	f := fetcher(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		_, _ = io.WriteString(w, "content")
	}, nil)
	versioned := object
	versioned.Version = "v1"
	zip, done, err := f.Fetch(t.Context(), versioned)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if b, err := io.ReadAll(zip); err != nil || string(b) != "content" || zip.Size() != 7 {
		t.Errorf("%q %v", b, err)
	}
	if got.URL.EscapedPath() != "/code/a%20folder/f%2B1.zip" || got.URL.Query().Get("versionId") != "v1" {
		t.Errorf("asked for %s", got.URL)
	}
	if sign := got.Header.Get("Authorization"); !strings.Contains(sign, "/eu-west-1/s3/") {
		t.Errorf("signed with %q", sign)
	}
}

// Without credentials nothing is signed: a public bucket needs none.
func TestUnsigned(t *testing.T) {
	t.Parallel()
	f := fetcher(t, func(w http.ResponseWriter, r *http.Request) {
		if sign := r.Header.Get("Authorization"); sign != "" {
			t.Errorf("signed with %q", sign)
		}
		_, _ = io.WriteString(w, "content")
	}, func(c *bucket.Config) {
		c.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, errors.New("there are none")
		})
	})
	_, done, err := f.Fetch(t.Context(), object)
	if err != nil {
		t.Fatal(err)
	}
	done()
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func s3Error(status int, code, message string) http.HandlerFunc {
	return answer(status, "<Error><Code>"+code+"</Code><Message>"+message+"</Message></Error>")
}

// Whatever S3 does, the caller learns of it, and nothing is left behind.
func TestRefused(t *testing.T) {
	t.Parallel()
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	hasty := func(c *bucket.Config) { c.Timeout = 100 * time.Millisecond }
	nowhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere.Close()
	fails := "InvalidParameterValueException: Error occurred while GetObject of s3://code/a folder/f+1.zip. The S3 that Kiln is configured with (endpoints), URL, fails: "
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		change func(*bucket.Config)
		key    string
		want   string // URL is the endpoint's
	}{
		"no key": {answer: s3Error(404, "NoSuchKey", "The specified key does not exist."),
			want: "InvalidParameterValueException: Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."},
		"no bucket": {answer: s3Error(404, "NoSuchBucket", "The specified bucket does not exist"),
			want: "InvalidParameterValueException: Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist"},
		"no version": {answer: s3Error(404, "NoSuchVersion", "The specified version does not exist."),
			want: "InvalidParameterValueException: Error occurred while GetObject. S3 Error Code: NoSuchVersion. S3 Error Message: The specified version does not exist."},
		"another region": {answer: s3Error(301, "PermanentRedirect", "The bucket is in this region: us-west-2. Please use this region to retry the request"),
			want: "InvalidParameterValueException: Error occurred while GetObject. S3 Error Code: PermanentRedirect. S3 Error Message: The bucket is in this region: us-west-2. Please use this region to retry the request"},
		"denied": {answer: s3Error(403, "AccessDenied", "Access Denied"),
			want: "AccessDeniedException: Your access has been denied by S3, please make sure your request credentials have permission to GetObject for code/a folder/f+1.zip. S3 Error Code: AccessDenied. S3 Error Message: Access Denied"},
		"a wrong key id": {answer: s3Error(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
			want: "InvalidParameterValueException: Error occurred while GetObject. S3 Error Code: InvalidAccessKeyId. S3 Error Message: The AWS Access Key Id you provided does not exist in our records."},
		"overloaded": {answer: s3Error(503, "SlowDown", "Reduce your request rate."),
			want: "InvalidParameterValueException: Error occurred while GetObject. S3 Error Code: SlowDown. S3 Error Message: Reduce your request rate."},
		"no S3": {answer: answer(502, "<html>Bad Gateway"), want: fails + "it answers with status 502, and not as S3."},
		"a redirect": {answer: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/secret" {
				t.Error("the redirect was followed")
			}
			http.Redirect(w, r, "/secret", http.StatusTemporaryRedirect)
		}, want: "InvalidParameterValueException: Error occurred while GetObject. S3 Error Code: TemporaryRedirect. S3 Error Message: Temporary Redirect"},
		"unreachable": {change: func(c *bucket.Config) { c.Endpoint = "http://" + nowhere.Addr().String() },
			want: fails + "dial tcp " + nowhere.Addr().String() + ": connect: connection refused."},
		"short": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "nine byte")
		}, want: fails + "unexpected EOF."},
		"a lie about its sum": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amz-Checksum-Crc32", "AAAAAA==")
			_, _ = io.WriteString(w, "content")
		}, want: fails + "checksum did not match"},
		"says that it is huge": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(lambda.MaxUnzipped+1))
		}, want: "InvalidParameterValueException: Unzipped size must be smaller than 262144000 bytes"},
		"endless": {answer: func(w http.ResponseWriter, _ *http.Request) {
			for b := make([]byte, 1<<20); ; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}, want: "InvalidParameterValueException: Unzipped size must be smaller than 262144000 bytes"},
		"hangs":      {answer: hang, change: hasty, want: fails + "the package was not here within 100ms."},
		"no headers": {answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, change: hasty, want: fails + "the package was not here within 100ms."},
		"a path":     {key: "../other/f.zip", want: "InvalidParameterValueException: The S3Key ../other/f.zip has . or .. between its slashes: give the object another key."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := ""
			o := object
			if test.key != "" {
				o.Key = test.key
			}
			if test.answer == nil {
				test.answer = func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }
			}
			f := fetcher(t, test.answer, func(c *bucket.Config) {
				if test.change != nil {
					test.change(c)
				}
				url = c.Endpoint
			})
			_, _, err := f.Fetch(t.Context(), o)
			got := lambda.AsError(err)
			if got == nil {
				t.Fatalf("%v", err)
			}
			if want := strings.ReplaceAll(test.want, "URL", url); !strings.HasPrefix(got.Error(), want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// A full disk, and a caller that has gone, are no fault of S3.
func TestOwnFaults(t *testing.T) {
	t.Parallel()
	f := fetcher(t, answer(200, "content"), func(c *bucket.Config) { c.Free = func() error { return state.ErrFull } })
	if _, _, err := f.Fetch(t.Context(), object); !errors.Is(err, state.ErrFull) || lambda.AsError(err) != nil {
		t.Errorf("with a full disk: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the caller has gone")
	f = fetcher(t, func(_ http.ResponseWriter, r *http.Request) { cancel(gone); <-r.Context().Done() }, nil)
	if _, _, err := f.Fetch(ctx, object); !errors.Is(err, gone) {
		t.Errorf("without a caller: %v", err)
	}
}

// No more than a few packages lie on the disk at once; whoever waits may give up.
func TestBounded(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 16)
	f := fetcher(t, func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	for range 4 {
		go func() { _, _, err := f.Fetch(ctx, object); done <- err }()
	}
	for range 4 {
		<-asked
	}
	hasty, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if _, _, err := f.Fetch(hasty, object); !errors.Is(err, context.DeadlineExceeded) || len(asked) > 0 {
		t.Errorf("a fifth: %v, asked %d", err, len(asked))
	}
	cancel()
	for range 4 {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
