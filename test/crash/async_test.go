package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"kiln/test/kiln"
)

const (
	// asyncRounds of killing, unless KILN_SOAK says otherwise.
	asyncRounds = 4
	// asyncLife is the longest of a daemon that is killed, with a start of Python in it.
	asyncLife = 1500 * time.Millisecond
	// asyncPatience bounds the wait for all that was accepted, once nobody kills any more, and
	// asyncBacklog is what each round adds to it.
	asyncPatience = 3 * time.Minute
	asyncBacklog  = 5 * time.Second
)

// told notes each event at the ledger, which no daemon has to do with, before it does
// what the event says.
const told = `
import http.client, os, time
def handler(event, context):
    ledger = http.client.HTTPConnection(os.environ["LEDGER"], timeout=30)
    ledger.request("POST", "/", event["id"])
    times = int(ledger.getresponse().read())
    if event["do"] == "fail" or event["do"] == "fail once" and times == 1:
        raise ValueError("as it was told")
    if event["do"] == "hang":
        time.sleep(60)
`

// fate is what an event tells the function to do.
var fates = []string{"return", "return", "return", "return", "return", "return", "fail once", "fail once", "fail", "hang"}

// ledger is what is known of the events, outside of the daemons.
type ledger struct {
	mu        sync.Mutex
	accepted  map[string]string // guarded by mu; what those that were answered with 202 do, by id
	delivered map[string]int    // guarded by mu; how often each came
	dying     atomic.Bool       // the daemon is, and may answer with errors
	failed    map[string]int    // guarded by mu; how often each came to the failure destination
	buried    map[string]int    // guarded by mu; how often each came to the dead-letter queue
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, err := io.ReadAll(r.Body)
	if err != nil {
		return // its function was killed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delivered[string(id)]++
	fmt.Fprint(w, l.delivered[string(id)])
}

// open says which accepted events were neither delivered, as often as they fail and once
// more, nor are in the failure destination and the dead-letter queue.
func (l *ledger) open() (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, do := range l.accepted {
		// On a busy machine any event may run into the timeout, and any retry after that.
		ended := l.failed[id] > 0 && l.buried[id] > 0
		switch do {
		case "return":
			ended = ended || l.delivered[id] > 0
		case "fail once":
			ended = ended || l.delivered[id] > 1
		}
		if !ended {
			ids = append(ids, id+" ("+do+")")
		}
	}
	return ids
}

// TestKillAsynchronous kills a daemon with -9 again and again while events are accepted,
// delivered, retried and sent to their destinations: nothing that was answered with 202
// is lost.
func TestKillAsynchronous(t *testing.T) {
	t.Parallel()
	killAsynchronous(t, filepath.Join(t.TempDir(), "data"), asyncRounds, (*kiln.Daemon).Kill)
}

// killAsynchronous has a daemon die n times, unless KILN_SOAK says otherwise. What kill does
// to it may move its data.
func killAsynchronous(t *testing.T, data string, n int, kill func(*kiln.Daemon), args ...string) {
	if soak := os.Getenv("KILN_SOAK"); soak != "" {
		var err error
		if n, err = strconv.Atoi(soak); err != nil {
			t.Fatalf("KILN_SOAK: %v", err)
		}
	}
	moto := kiln.Moto(t)
	queues := sqs.New(sqs.Options{BaseEndpoint: &moto, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("moto", "moto", "")})
	queue := func(name string) (url *string, arn string) {
		made, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
		if err != nil {
			t.Fatal(err)
		}
		return made.QueueUrl, "arn:aws:sqs:us-east-1:123456789012:" + name
	}
	failedURL, failed := queue("failed")
	deadURL, dead := queue("dead")
	l := &ledger{accepted: map[string]string{}, delivered: map[string]int{}, failed: map[string]int{}, buried: map[string]int{}}
	server := httptest.NewServer(l)
	defer server.Close()

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	d := kiln.StartIn(t, data, []string{"AWS_ACCESS_KEY_ID=kiln", "AWS_SECRET_ACCESS_KEY=kiln", "KILN_ENDPOINTS=sqs=" + moto, "KILN_ASYNC_DELIVERIES=16"},
		append(args, "--account", kiln.Account(), "--any-runtime", "--network", "host", "--async-retry-delay", "200ms")...)
	for _, name := range []string{"free", "narrow"} { // one of them is throttled most of the time
		d.Create(name, "python3.12", "f.handler", kiln.Zip(map[string]string{"f.py": told}), func(in *lambda.CreateFunctionInput) {
			in.Timeout = aws.Int32(2)
			in.Environment = &types.Environment{Variables: map[string]string{"LEDGER": strings.TrimPrefix(server.URL, "http://")}}
			in.DeadLetterConfig = &types.DeadLetterConfig{TargetArn: &dead}
		})
		_, err := d.Client().PutFunctionEventInvokeConfig(t.Context(), &lambda.PutFunctionEventInvokeConfigInput{
			FunctionName: &name, MaximumRetryAttempts: aws.Int32(1), DestinationConfig: &types.DestinationConfig{OnFailure: &types.OnFailure{Destination: &failed}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Client().PutFunctionConcurrency(t.Context(), &lambda.PutFunctionConcurrencyInput{FunctionName: aws.String("narrow"), ReservedConcurrentExecutions: aws.Int32(1)}); err != nil {
		t.Fatal(err)
	}
	for round := range n {
		ctx, end := context.WithCancel(context.Background())
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() {
				l.publish(ctx, t, d, fmt.Sprintf("%d-%d", round, i), rand.New(rand.NewPCG(seed, uint64(4*round+i+1))))
			})
		}
		time.Sleep(time.Duration(random.Int64N(int64(asyncLife)))) // not a wait: the moment of death is to be random
		l.dying.Store(true)
		kill(d)
		end()
		clients.Wait()
		d.NothingLives()
		l.dying.Store(false)
		d.Start()
		if t.Failed() {
			t.Fatalf("round %d; log of kiln:\n%s", round, d.Log)
		}
	}
	// What has piled up there would take its time one by one.
	if _, err := d.Client().DeleteFunctionConcurrency(t.Context(), &lambda.DeleteFunctionConcurrencyInput{FunctionName: aws.String("narrow")}); err != nil {
		t.Fatal(err)
	}
	kiln.Eventually(t, asyncPatience+time.Duration(n)*asyncBacklog, func() error {
		l.collect(t, queues, failedURL, func(body string) {
			var record struct{ RequestPayload json.RawMessage }
			if err := json.Unmarshal([]byte(body), &record); err != nil {
				t.Fatal(err)
			}
			l.failed[idOf(t, string(record.RequestPayload))]++
		})
		l.collect(t, queues, deadURL, func(body string) { l.buried[idOf(t, body)]++ })
		if open := l.open(); len(open) > 0 {
			return fmt.Errorf("%d of %d accepted events are not where they should be: %.300s", len(open), len(l.accepted), strings.Join(open, ", "))
		}
		return nil
	})
	d.Stop() // while its disk is there
	twice := func(counts map[string]int) (n int) {
		for id, times := range counts {
			if _, known := l.accepted[id]; known {
				n += times - 1
			}
		}
		return n
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	deliveries, duplicates := 0, 0
	for id, do := range l.accepted {
		due := 1
		if do != "return" {
			due = 2
		}
		deliveries += l.delivered[id]
		duplicates += max(0, l.delivered[id]-due)
	}
	t.Logf("%d kills: %d events accepted, lost 0; %d deliveries, of which %d are duplicates (or retries after timeouts); %d records and %d dead letters twice",
		n, len(l.accepted), deliveries, duplicates, twice(l.failed), twice(l.buried))
	if len(l.accepted) < 10*n {
		t.Errorf("only %d events were accepted", len(l.accepted))
	}
}

// publish has events accepted until the daemon is gone, and notes those that were.
func (l *ledger) publish(ctx context.Context, t *testing.T, d *kiln.Daemon, prefix string, random *rand.Rand) {
	client := d.Client()
	for i := 0; ctx.Err() == nil; i++ {
		id, do := fmt.Sprintf("%s-%d", prefix, i), fates[random.IntN(len(fates))]
		name := "free"
		if random.IntN(4) == 0 {
			name = "narrow"
			if do == "hang" {
				do = "fail" // it would hold up the others for minutes
			}
		} else if do == "hang" && i > 0 {
			do = "return" // a few are enough
		}
		payload, err := json.Marshal(map[string]string{"id": id, "do": do, "padding": strings.Repeat("x", random.IntN(5000))})
		if err != nil {
			t.Error(err)
			return
		}
		out, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, InvocationType: types.InvocationTypeEvent, Payload: payload})
		if err != nil {
			if problem := answered(err); problem != nil && !l.dying.Load() {
				t.Errorf("event %s: %v", id, problem)
			}
			return
		}
		if out.StatusCode != http.StatusAccepted {
			t.Errorf("event %s: status %d", id, out.StatusCode)
		}
		l.mu.Lock()
		l.accepted[id] = do
		l.mu.Unlock()
		time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond) // so that the queue is not only filled
	}
}

// collect takes what is in a queue.
func (l *ledger) collect(t *testing.T, queues *sqs.Client, url *string, note func(body string)) {
	for {
		got, err := queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: url, MaxNumberOfMessages: 10})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Messages) == 0 {
			return
		}
		l.mu.Lock()
		for _, m := range got.Messages {
			note(*m.Body)
		}
		l.mu.Unlock()
		for _, m := range got.Messages {
			if _, err := queues.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: url, ReceiptHandle: m.ReceiptHandle}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func idOf(t *testing.T, event string) string {
	var e struct{ ID string }
	if err := json.Unmarshal([]byte(event), &e); err != nil || e.ID == "" {
		t.Fatalf("an event that is none of the test's: %.200s", event)
	}
	return e.ID
}
