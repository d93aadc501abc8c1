package queue

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// The event is its records between these.
const (
	eventHead = `{"Records":[`
	eventTail = `]}`
)

// record is a message as functions get it, and with its body decoded as filters see it.
// https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
type record struct {
	MessageID              string               `json:"messageId"`
	ReceiptHandle          string               `json:"receiptHandle"`
	Body                   any                  `json:"body"`
	Attributes             map[string]string    `json:"attributes"`
	MessageAttributes      map[string]attribute `json:"messageAttributes"`
	MD5OfMessageAttributes string               `json:"md5OfMessageAttributes,omitempty"`
	MD5OfBody              string               `json:"md5OfBody"`
	EventSource            string               `json:"eventSource"`
	EventSourceARN         string               `json:"eventSourceARN"`
	AWSRegion              string               `json:"awsRegion"`
}

type attribute struct {
	StringValue      *string  `json:"stringValue,omitempty"`
	BinaryValue      []byte   `json:"binaryValue,omitempty"`
	StringListValues []string `json:"stringListValues"`
	BinaryListValues [][]byte `json:"binaryListValues"`
	DataType         string   `json:"dataType"`
}

// record makes a message's record, and where that is asked for, what filters see of it.
func (p *poller) record(m *types.Message, filter bool) (forFunction, forFilter []byte, err error) {
	r := record{
		MessageID: deref(m.MessageId), ReceiptHandle: deref(m.ReceiptHandle), Body: deref(m.Body), Attributes: m.Attributes,
		MessageAttributes: map[string]attribute{}, MD5OfMessageAttributes: deref(m.MD5OfMessageAttributes), MD5OfBody: deref(m.MD5OfBody),
		EventSource: "aws:sqs", EventSourceARN: p.Mapping.Source.ARN, AWSRegion: p.region,
	}
	for name, a := range m.MessageAttributes {
		r.MessageAttributes[name] = attribute{a.StringValue, a.BinaryValue, []string{}, [][]byte{}, deref(a.DataType)}
	}
	if forFunction, err = encode(r); err != nil || !filter {
		return forFunction, nil, err
	}
	// Only an object or a list has something below it that a pattern can ask for; whatever
	// else the body is, patterns see the text.
	if body := strings.TrimLeft(deref(m.Body), " \t\r\n"); strings.HasPrefix(body, "{") || strings.HasPrefix(body, "[") {
		if json.Valid([]byte(body)) {
			r.Body = json.RawMessage(body)
		}
	}
	forFilter, err = encode(r)
	return forFunction, forFilter, err
}

// encode leaves <, > and & as they are: escaped they would be six bytes of the event.
func encode(r record) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(r)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// event is what the function gets, and the trace that it continues: that of the first
// message with one.
func (b *batch) event() (payload []byte, trace string) {
	payload = make([]byte, 0, len(eventHead)+b.size+len(eventTail))
	payload = append(payload, eventHead...)
	for i, m := range b.messages {
		if i > 0 {
			payload = append(payload, ',')
		}
		payload = append(payload, m.record...)
		if trace == "" {
			trace = m.Attributes[string(types.MessageSystemAttributeNameAWSTraceHeader)]
		}
	}
	return append(payload, eventTail...), trace
}
