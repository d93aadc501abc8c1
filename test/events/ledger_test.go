package events

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"kiln/test/kiln"
)

// noting is the start of handlers: note sends something to the ledger and returns how
// often that was noted, by its id.
const noting = `
import http.client, json, os, time
def note(id, what=""):
    ledger = http.client.HTTPConnection(os.environ["LEDGER"], timeout=30)
    ledger.request("POST", "/", json.dumps({"id": id, "what": what}))
    return int(ledger.getresponse().read())
`

// ledger is what functions have noted.
type ledger struct {
	*httptest.Server
	mu    sync.Mutex
	notes []entry        // guarded by mu; in order
	times map[string]int // guarded by mu; by id
}

type entry struct {
	ID   string
	What json.RawMessage
}

func newLedger(t testing.TB) *ledger {
	l := &ledger{times: map[string]int{}}
	l.Server = httptest.NewServer(l)
	t.Cleanup(l.Close)
	return l
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var e entry
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &e) != nil {
		return // its function died while it told
	}
	l.mu.Lock()
	l.notes = append(l.notes, e)
	l.times[e.ID]++
	n := l.times[e.ID]
	l.mu.Unlock()
	_ = json.NewEncoder(w).Encode(n)
}

// all returns what was noted so far.
func (l *ledger) all() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]entry(nil), l.notes...)
}

// count is how often that was noted.
func (l *ledger) count(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.times[id]
}

// missing are those of the ids that were not noted.
func (l *ledger) missing(ids []string) (list []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if l.times[id] == 0 {
			list = append(list, id)
		}
	}
	return list
}

// function creates one that has note.
func (l *ledger) function(d *kiln.Daemon, name, code string, change func(*lambda.CreateFunctionInput)) {
	d.Create(name, "python3.12", "f.handler", kiln.Zip(map[string]string{"f.py": noting + code}), func(in *lambda.CreateFunctionInput) {
		in.Timeout = aws.Int32(5)
		in.Environment = &types.Environment{Variables: map[string]string{"LEDGER": strings.TrimPrefix(l.URL, "http://")}}
		if change != nil {
			change(in)
		}
	})
}
