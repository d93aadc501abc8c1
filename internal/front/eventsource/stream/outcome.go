package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"kiln/internal/front/eventsource"
	"kiln/internal/lambda"
)

// maxEvent bounds what the function is called with, in bytes.
const maxEvent = lambda.MaxRequestPayload

// The conditions under which records are given up. Of a record that is too large AWS
// says so of Kafka only.
const (
	conditionAttempts = "RetryAttemptsExhausted"
	conditionAge      = "RecordAgeExceeded"
	conditionSize     = "MaximumPayloadSizeExceeded"
)

// outcome is what came of an invocation.
type outcome struct {
	ok         bool
	failed     int     // records that are said to have failed
	checkpoint int     // records at the beginning that are done
	window     *window // that is open after it
	response   response
}

// response is what a destination learns of the last answer.
type response struct {
	version lambda.Qualifier
	failure string // FunctionError
}

var errTooLarge = errors.New("the event is larger than a function takes")

// call invokes the function once. An error means that it did not run.
func (l *lane) call(records []record, final bool) (o outcome, err error) {
	event := l.event(nil, records, final)
	if len(event) > maxEvent {
		return o, errTooLarge
	}
	result, err := l.function.Invoke(event, "")
	if e := lambda.AsError(err); e != nil && e.Code == "RequestTooLargeException" {
		return o, errTooLarge
	} else if err != nil {
		return o, err
	}
	defer result.Free()
	o.response = response{result.ExecutedVersion, result.FunctionError}
	o.window = l.window
	if result.FunctionError != "" {
		o.failed = len(records)
		return o, nil
	}
	o.checkpoint = len(records)
	if l.Reports() {
		o.checkpoint, o.failed = checkpoint(result.Payload, records)
	}
	if o.ok = o.failed == 0; l.window != nil && (o.ok || o.checkpoint > 0) {
		var answer struct {
			State json.RawMessage `json:"state"`
		}
		_ = json.Unmarshal(result.Payload, &answer) // what is no object has no state
		o.window = l.window.next(answer.State, final)
	}
	return o, nil
}

// checkpoint finds how many records are done before the first that failed, and how many
// failed. An answer that names none of the batch means that all did.
// https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html
func checkpoint(answer []byte, records []record) (done, failed int) {
	index := make(map[string]int, len(records))
	for i := range records {
		index[records[i].sequence] = i
	}
	names, err := eventsource.FailedItems(bytes.TrimSpace(answer), func(name string) bool { _, ok := index[name]; return ok })
	if err != nil {
		return 0, len(records)
	}
	done = len(records)
	slices.Sort(names)
	names = slices.Compact(names)
	for _, name := range names {
		done = min(done, index[name])
	}
	return done, len(names)
}

// event appends what the function is called with.
func (l *lane) event(b []byte, records []record, final bool) []byte {
	b = append(b, `{"Records":[`...)
	for i := range records {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, records[i].event...)
	}
	b = append(b, ']')
	if w := l.window; w != nil {
		b = append(b, `,"window":{`...)
		b = appendMember(b, "start", w.Start.Format(time.RFC3339))
		b = appendMember(b, "end", w.End.Format(time.RFC3339))
		b = append(append(b, `},"state":`...), w.State...)
		b = appendMember(b, "shardId", l.id)
		b = appendMember(b, "eventSourceARN", l.Mapping.Source.ARN)
		b = strconv.AppendBool(append(b, `,"isFinalInvokeForWindow":`...), final)
		b = strconv.AppendBool(append(b, `,"isWindowTerminatedEarly":`...), final && (l.early || w.full()))
	}
	return append(b, '}')
}

// overhead is what an event takes without its records.
func (l *lane) overhead() int { return len(l.event(nil, nil, true)) + len("false") }

// failure is what the on-failure destination gets of records that are given up.
func (l *lane) failure(b part, condition string, answer *response) eventsource.Failure {
	now := time.Now().UTC()
	first, last := b.records[0], b.records[len(b.records)-1]
	name, form := l.source.batch()

	r := append([]byte(nil), `{"requestContext":{`...)
	r = appendMember(r, "requestId", uuid.NewString())
	r = appendMember(r, "functionArn", l.Mapping.Function.String())
	r = appendMember(r, "condition", condition)
	r = append(strconv.AppendInt(append(r, `,"approximateInvokeCount":`...), int64(b.invokes), 10), '}')
	if answer != nil {
		r = append(r, `,"responseContext":{"statusCode":200`...)
		r = appendMember(r, "executedVersion", string(answer.version))
		if answer.failure != "" {
			r = appendMember(r, "functionError", answer.failure)
		} else {
			r = append(r, `,"functionError":null`...)
		}
		r = append(r, '}')
	}
	r = appendMember(r, "version", "1.0")
	r = appendMember(r, "timestamp", now.Format("2006-01-02T15:04:05.000Z"))
	r = append(append(append(r, `,"`...), name...), `":{`...)
	r = appendMember(r, "shardId", l.id)
	r = appendMember(r, "startSequenceNumber", first.sequence)
	r = appendMember(r, "endSequenceNumber", last.sequence)
	r = appendMember(r, "approximateArrivalOfFirstRecord", first.arrived.UTC().Format(form))
	r = appendMember(r, "approximateArrivalOfLastRecord", last.arrived.UTC().Format(form))
	r = strconv.AppendInt(append(r, `,"batchSize":`...), int64(len(b.records)), 10)
	r = append(appendMember(r, "streamArn", l.Mapping.Source.ARN), '}')

	object := append(append([]byte(nil), r...), `,"payload":`...)
	return eventsource.Failure{
		Record: append(r, '}'),
		Object: append(l.event(object, b.records, false), '}'),
		Key:    "aws/lambda/" + l.Mapping.ARN.ID + "/" + l.id + "/" + now.Format("2006/01/02/2006-01-02T15.04.05") + "-" + uuid.NewString(),
	}
}
