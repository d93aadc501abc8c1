package queue_test

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// fifo is an SQS queue that keeps what AWS promises of FIFO queues, over failures too,
// which no server does that can be had here.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
type fifo struct {
	visibility time.Duration // for real; it says that it is a second
	t          *testing.T

	mu       sync.Mutex
	messages []*stored // guarded by mu
	fails    int       // guarded by mu; every so many requests is answered with an error
	requests int       // guarded by mu
}

type stored struct {
	id, body, group string
	receipt         int
	hidden          time.Time
}

func (q *fifo) add(group, body string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.messages = append(q.messages, &stored{id: "id-" + body, body: body, group: group})
}

func (q *fifo) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.messages)
}

// request is any that the driver makes.
type request struct {
	MaxNumberOfMessages, WaitTimeSeconds int
	Entries                              []struct{ Id, ReceiptHandle string } //nolint:revive // AWS's name
}

func (q *fifo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in request
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return // the poller has ended meanwhile
	}
	q.mu.Lock()
	q.requests++
	broken := q.fails > 0 && q.requests%q.fails == 0
	q.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if broken {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var out any
	switch _, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), "."); operation {
	case "GetQueueUrl":
		out = map[string]any{"QueueUrl": "http://" + r.Host + "/q.fifo"}
	case "GetQueueAttributes":
		out = map[string]any{"Attributes": map[string]string{"VisibilityTimeout": "1"}}
	case "ReceiveMessage":
		out = map[string]any{"Messages": q.receive(r, in)}
	case "DeleteMessageBatch", "ChangeMessageVisibilityBatch":
		out = q.settle(operation == "DeleteMessageBatch", in)
	default:
		q.t.Errorf("%s is asked for", operation)
	}
	_ = json.NewEncoder(w).Encode(out)
}

func (q *fifo) receive(r *http.Request, in request) (list []map[string]any) {
	for end := time.Now().Add(time.Duration(in.WaitTimeSeconds) * time.Second); ; {
		q.mu.Lock()
		now := time.Now()
		locked := map[string]bool{}
		for _, m := range q.messages {
			if m.hidden.After(now) {
				locked[m.group] = true
			}
		}
		for _, m := range q.messages {
			if locked[m.group] || len(list) == in.MaxNumberOfMessages {
				continue
			}
			m.receipt++
			m.hidden = now.Add(q.visibility)
			sum := md5.Sum([]byte(m.body))
			list = append(list, map[string]any{
				"MessageId": m.id, "Body": m.body, "MD5OfBody": hex.EncodeToString(sum[:]), "ReceiptHandle": fmt.Sprint(m.id, " ", m.receipt),
				"Attributes": map[string]string{"MessageGroupId": m.group},
			})
		}
		q.mu.Unlock()
		if len(list) > 0 || now.After(end) {
			return list
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}

// settle deletes messages or shows them again. A receipt is good for as long as the
// message is in flight.
func (q *fifo) settle(remove bool, in request) any {
	q.mu.Lock()
	defer q.mu.Unlock()
	var done []map[string]string
	var failed []map[string]any
	for _, e := range in.Entries {
		found := false
		for i, m := range q.messages {
			if fmt.Sprint(m.id, " ", m.receipt) != e.ReceiptHandle || m.hidden.Before(time.Now()) {
				continue
			}
			if found = true; remove {
				q.messages = append(q.messages[:i], q.messages[i+1:]...)
			} else {
				m.hidden = time.Time{}
			}
			break
		}
		if found {
			done = append(done, map[string]string{"Id": e.Id})
		} else {
			failed = append(failed, map[string]any{"Id": e.Id, "Code": "ReceiptHandleIsInvalid", "SenderFault": true})
		}
	}
	return map[string]any{"Successful": done, "Failed": failed}
}
