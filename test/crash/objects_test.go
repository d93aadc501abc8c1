package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"kiln/test/kiln"
)

const (
	// objectRounds of killing, and objectLife, the longest of a daemon that is killed.
	objectRounds = 3
	objectLife   = 700 * time.Millisecond
	// objectPatience bounds the wait for the events of all that has changed.
	objectPatience = time.Minute
)

// noting tells the ledger of each object that it is called for.
const noting = `
import http.client, os
from urllib.parse import unquote_plus
def handler(event, context):
    for r in event["Records"]:
        ledger = http.client.HTTPConnection(os.environ["LEDGER"], timeout=30)
        ledger.request("POST", "/", (r["eventName"] + " " + unquote_plus(r["s3"]["object"]["key"])).encode())
        ledger.getresponse().read()
`

// TestKillObjects kills a daemon with -9 again and again while objects are put and
// deleted: of each change that was answered, and of each that was not but has happened,
// the function is told.
func TestKillObjects(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	told := map[string]int{}       // guarded by mu; by event and key
	changed := map[string]string{} // guarded by mu; what must be told of, by why
	ledger := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil {
			mu.Lock()
			defer mu.Unlock()
			told[string(b)]++
		}
	}))
	defer ledger.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	account := kiln.Account()
	d := kiln.Start(t, "--account", account, "--any-runtime", "--network", "host", "--async-retry-delay", "200ms")
	d.Create("noting", "python3.12", "f.handler", kiln.Zip(map[string]string{"f.py": noting}), func(in *lambda.CreateFunctionInput) {
		in.Environment = &lambdatypes.Environment{Variables: map[string]string{"LEDGER": strings.TrimPrefix(ledger.URL, "http://")}}
	})
	store := func() *s3.Client {
		return s3.New(s3.Options{BaseEndpoint: &d.URL, UsePathStyle: true, Region: "us-east-1", RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
	}
	bucket := aws.String("watched")
	_, err := store().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket})
	if err == nil {
		_, err = d.Client().AddPermission(t.Context(), &lambda.AddPermissionInput{FunctionName: aws.String("noting"), StatementId: aws.String("s3"), Action: aws.String("lambda:InvokeFunction"), Principal: aws.String("s3.amazonaws.com")})
	}
	if err == nil {
		_, err = store().PutBucketNotificationConfiguration(t.Context(), &s3.PutBucketNotificationConfigurationInput{Bucket: bucket, NotificationConfiguration: &types.NotificationConfiguration{
			LambdaFunctionConfigurations: []types.LambdaFunctionConfiguration{{
				LambdaFunctionArn: aws.String("arn:aws:lambda:us-east-1:" + account + ":function:noting"),
				Events:            []types.Event{types.EventS3ObjectCreated, types.EventS3ObjectRemoved},
			}},
		}})
	}
	if err != nil {
		t.Fatal(err)
	}
	const put, removed = "ObjectCreated:Put ", "ObjectRemoved:Delete "
	cut := 0
	for round := range objectRounds {
		ctx, end := context.WithCancel(context.Background())
		var clients sync.WaitGroup
		open := make([]string, 4) // the change of each client that was not answered
		for i := range open {
			clients.Go(func() {
				c := store()
				note := func(change string, err error) bool {
					if err != nil {
						open[i] = change
						return false
					}
					mu.Lock()
					defer mu.Unlock()
					changed[change] = "answered"
					return true
				}
				for n := 0; ; n++ {
					key := fmt.Sprintf("a key/%d-%d-%d", round, i, n)
					_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader(key)})
					if !note(put+key, err) {
						return
					}
					if n%3 == 0 {
						_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: &key})
						if !note(removed+key, err) {
							return
						}
					}
				}
			})
		}
		time.Sleep(time.Duration(random.Int64N(int64(objectLife)))) // not a wait: the moment of death is to be random
		d.Kill()
		end()
		clients.Wait()
		d.NothingLives()
		d.Start()
		for _, change := range open {
			name, key, _ := strings.Cut(change, " ")
			_, err := store().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: bucket, Key: &key})
			var absent *types.NotFound
			if err != nil && !errors.As(err, &absent) {
				t.Fatal(err)
			}
			if (err == nil) == (name+" " == put) {
				cut++
				changed[change] = "not answered"
			}
		}
	}
	kiln.Eventually(t, objectPatience, func() error {
		mu.Lock()
		defer mu.Unlock()
		for change, why := range changed {
			if told[change] == 0 {
				return fmt.Errorf("nobody was told of %q (%s)", change, why)
			}
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	twice := 0
	for change, times := range told {
		twice += times - 1
		if _, known := changed[change]; !known {
			t.Errorf("told of %q, which did not happen", change)
		}
	}
	t.Logf("%d kills, %d changes, of which %d were not answered: all told of, %d of them twice", objectRounds, len(changed), cut, twice)
	if len(changed) < 5*objectRounds {
		b, _ := json.Marshal(slices.Sorted(maps.Keys(changed)))
		t.Errorf("only %d changes: %s", len(changed), b)
	}
}
