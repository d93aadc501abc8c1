package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kiln/internal/state"
)

const (
	// pageMessages and pageBytes bound what one request reads of a stream. The
	// server closes a client that lags 64 MiB behind; a page may exceed its bytes
	// by one message.
	pageMessages = 4096
	pageBytes    = 4 << 20
)

// message is one stored message.
type message struct {
	subject  string
	sequence uint64
	time     time.Time
	header   nats.Header
	data     []byte
}

// page is the server's request for stored messages.
// https://docs.nats.io/nats-concepts/jetstream/streams (direct get, ADR-31)
type page struct {
	Sequence uint64 `json:"seq,omitempty"`
	Next     string `json:"next_by_subj,omitempty"`
	Last     string `json:"last_by_subj,omitempty"`
	Batch    int    `json:"batch,omitempty"`
	MaxBytes int    `json:"max_bytes,omitempty"`
}

var errUnreadable = errors.New("the engine cannot read messages that it has: a file is damaged; restart, and the check at start will name it")

// read calls each with every message of the stream whose subject matches, in
// order, up to those stored when it returns. It needs no consumer.
func (e *Engine) read(ctx context.Context, stream, filter string, each func(message) error) error {
	_, err := e.readFrom(ctx, stream, filter, 1, each)
	return err
}

// readFrom is read from a sequence on, and returns where the messages begin that
// are stored later.
func (e *Engine) readFrom(ctx context.Context, stream, filter string, from uint64, each func(message) error) (uint64, error) {
	for begin := from; ; {
		next, left, err := e.readPage(ctx, stream, filter, from, pageMessages, each)
		if from == begin && errors.Is(err, errUnreadable) {
			return from, nil // nothing was promised there
		}
		if err != nil {
			return 0, err
		}
		if left > 0 && next == from {
			return 0, errUnreadable
		}
		if from = next; left == 0 {
			return from, nil
		}
	}
}

// readPage reads one page of up to most messages from a sequence on, and returns where the next one
// begins and how many messages wait there.
func (e *Engine) readPage(ctx context.Context, stream, filter string, from uint64, most int, each func(message) error) (next uint64, pending int, err error) {
	r, err := e.current()
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := r.bound(ctx, r.over)
	defer cancel()
	request, err := json.Marshal(page{Sequence: from, Next: filter, Batch: most, MaxBytes: pageBytes})
	if err != nil {
		return 0, 0, err
	}
	inbox := r.conn.NewInbox()
	sub, err := r.conn.SubscribeSync(inbox)
	if err != nil {
		return 0, 0, explain(err)
	}
	defer sub.Unsubscribe()
	if err := r.conn.PublishRequest(directGet(stream), inbox, request); err != nil {
		return 0, 0, explain(err)
	}
	for next = from; ; {
		answer, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return 0, 0, explain(err)
		}
		switch status := answer.Header.Get("Status"); status {
		case "":
		case "204": // end of the page
			pending, err := strconv.Atoi(answer.Header.Get("Nats-Num-Pending"))
			return next, pending, err
		case "404":
			if from > 1 {
				// The page before promised more.
				return 0, 0, errUnreadable
			}
			return next, 0, nil
		default:
			return 0, 0, fmt.Errorf("the engine answers %s %s", status, answer.Header.Get("Description"))
		}
		m, err := stored(answer)
		if err != nil {
			return 0, 0, err
		}
		if err := each(m); err != nil {
			return 0, 0, err
		}
		next = m.sequence + 1
	}
}

// last returns the newest message of a subject, or state.ErrNotFound.
func (e *Engine) last(ctx context.Context, stream, subject string) (message, error) {
	return e.get(ctx, stream, page{Last: subject})
}

// get returns one message, or state.ErrNotFound.
func (e *Engine) get(ctx context.Context, stream string, which page) (message, error) {
	r, err := e.current()
	if err != nil {
		return message{}, err
	}
	ctx, cancel := r.bound(ctx, r.over)
	defer cancel()
	request, err := json.Marshal(which)
	if err != nil {
		return message{}, err
	}
	answer, err := r.conn.RequestWithContext(ctx, directGet(stream), request)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return message{}, explain(err)
	}
	switch status := answer.Header.Get("Status"); status {
	case "":
		return stored(answer)
	case "404":
		return message{}, state.ErrNotFound
	default:
		return message{}, fmt.Errorf("the engine answers %s %s", status, answer.Header.Get("Description"))
	}
}

// purge deletes the messages of a subject up to a sequence, 0 for all, and returns
// how many they were.
func (e *Engine) purge(ctx context.Context, stream, subject string, upTo uint64) (uint64, error) {
	request := struct {
		Filter string `json:"filter"`
		Before uint64 `json:"seq,omitempty"`
	}{Filter: subject}
	if upTo > 0 {
		request.Before = upTo + 1
	}
	var answer struct {
		Purged uint64 `json:"purged"`
	}
	err := e.api(ctx, "STREAM.PURGE."+stream, request, &answer)
	return answer.Purged, err
}

// api calls the server's management interface.
// https://docs.nats.io/reference/reference-protocols/nats_api_reference
func (e *Engine) api(ctx context.Context, name string, request, answer any) error {
	r, err := e.current()
	if err != nil {
		return err
	}
	ctx, cancel := r.bound(ctx, r.over)
	defer cancel()
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	got, err := r.conn.RequestWithContext(ctx, "$JS.API."+name, b)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return explain(err)
	}
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(got.Data, &failed); err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	if failed.Error != nil {
		return explain(failed.Error)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(got.Data, answer)
}

func stored(answer *nats.Msg) (message, error) {
	sequence, err := strconv.ParseUint(answer.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return message{}, fmt.Errorf("read the engine's answer: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, answer.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return message{}, fmt.Errorf("read the engine's answer: %w", err)
	}
	return message{
		subject:  answer.Header.Get(jetstream.SubjectHeader),
		sequence: sequence,
		time:     at,
		header:   answer.Header,
		data:     answer.Data,
	}, nil
}

func directGet(stream string) string { return "$JS.API.DIRECT.GET." + stream }
