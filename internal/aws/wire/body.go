package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Admit waits for room for a body of so many bytes, or refuses it. The room is
// released once the answer is written.
type Admit func(ctx context.Context, bytes int64) (release func(), err error)

// ReadBody reads the whole body of r, of at most limit bytes, once there is room
// for it; one of unknown length counts as limit. The caller releases the room,
// unless there is an error. Of a known length it makes one buffer of that size,
// which the payload of an invocation then is.
func ReadBody(r *http.Request, limit int64, admit Admit, tooLarge *Fault) (body []byte, release func(), err error) {
	if r.ContentLength == 0 || r.Body == nil {
		return nil, func() {}, nil
	}
	size := r.ContentLength
	if size > limit {
		Drain(r, limit)
		return nil, nil, tooLarge
	}
	if size < 0 {
		size = limit
	}
	if release, err = admit(r.Context(), size); err != nil {
		Drain(r, limit)
		return nil, nil, err
	}
	if body, err = readAll(r, limit, tooLarge); err != nil {
		release()
		return nil, nil, err
	}
	return body, release, nil
}

func readAll(r *http.Request, limit int64, tooLarge *Fault) ([]byte, error) {
	if size := r.ContentLength; size > 0 {
		body := make([]byte, size)
		if n, err := io.ReadFull(r.Body, body); err != nil {
			return nil, incomplete("The request body ended after %d of %d bytes.", n, size)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return nil, incomplete("The request body could not be read beyond %d bytes.", len(body))
	case int64(len(body)) > limit:
		Drain(r, limit)
		return nil, tooLarge
	}
	return body, nil
}

func incomplete(format string, args ...any) *Fault {
	return &Fault{Code: "InvalidRequestContentException", Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

// Drain reads and drops the rest of a refused body, at most as much again as the
// operation takes. net/http would cut the connection while the client still
// writes, and most clients then report a broken pipe instead of the answer. A
// client that waits for "100 Continue" has sent nothing.
func Drain(r *http.Request, limit int64) {
	if r.Body != nil && r.Header.Get("Expect") == "" {
		io.Copy(io.Discard, io.LimitReader(r.Body, 2*limit)) // whatever happens, the answer is the same
	}
}

// Marshal is json.Marshal without the escaping of <, > and &, which AWS does not
// do.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Value returns what p points to, or the zero value for nil.
func Value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
