package lambdaapi

import (
	"net/http"
	"strconv"
	"time"

	"kiln/internal/aws/wire"
)

// answer is a successful answer, not yet written: at most one of json, body and
// stream.
type answer struct {
	status int
	header http.Header
	json   any
	body   []byte
	stream func(*EventStream) error
}

func (a *answer) set(name string, value *string) {
	if value == nil {
		return
	}
	if a.header == nil {
		a.header = http.Header{}
	}
	a.header.Set(name, *value)
}

// write sends the answer. An error before the first byte is returned, so that it
// can still be told to the caller; later ones end the connection.
func (a *answer) write(w http.ResponseWriter) error {
	body := a.body
	if a.json != nil {
		var err error
		if body, err = wire.Marshal(a.json); err != nil {
			return err
		}
	}
	h := w.Header()
	for name, values := range a.header {
		h[name] = values
	}
	if a.stream != nil {
		return a.writeStream(w)
	}
	h.Set("Content-Type", "application/json")
	if a.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(a.status)
	if a.status != http.StatusNoContent && len(body) > 0 {
		w.Write(body) // the caller has gone if this fails
	}
	return nil
}

// Value returns what p points to, or the zero value for nil.
func Value[T any](p *T) T { return wire.Value(p) }

// ISO8601 formats a time of a string member: 2026-01-31T12:34:56.789+0000.
func ISO8601(t time.Time) *string { return new(wire.ISO8601(t)) }
