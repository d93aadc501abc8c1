package lambdaapi

import (
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"kiln/internal/aws/wire"
)

// EventStream writes the events of InvokeWithResponseStream. Each event has left
// for the caller when its method returns. It is for one goroutine.
type EventStream struct {
	w       http.ResponseWriter
	flush   *http.ResponseController
	encoder *eventstream.Encoder
}

// PayloadChunk sends a piece of the function's answer.
func (s *EventStream) PayloadChunk(b []byte) error {
	return s.send("PayloadChunk", "application/octet-stream", b)
}

// InvokeComplete sends the last event: how the invocation ended.
func (s *EventStream) InvokeComplete(e InvokeWithResponseStreamCompleteEvent) error {
	b, err := wire.Marshal(&e)
	if err != nil {
		return err
	}
	return s.send("InvokeComplete", "application/json", b)
}

func (s *EventStream) send(event, contentType string, payload []byte) error {
	err := s.encoder.Encode(s.w, eventstream.Message{
		Headers: eventstream.Headers{
			{Name: ":message-type", Value: eventstream.StringValue("event")},
			{Name: ":event-type", Value: eventstream.StringValue(event)},
			{Name: ":content-type", Value: eventstream.StringValue(contentType)},
		},
		Payload: payload,
	})
	if err != nil {
		return err
	}
	return s.flush.Flush()
}

// writeStream answers with an event stream. Once the status is sent, the only way
// to say that something failed outside the protocol is to cut the connection, so
// that nobody takes half an answer for a whole one.
func (a *answer) writeStream(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
	w.WriteHeader(a.status)
	s := &EventStream{w: w, flush: http.NewResponseController(w), encoder: eventstream.NewEncoder()}
	err := s.flush.Flush() // the first event may be long in coming
	if err == nil {
		err = a.stream(s)
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}
