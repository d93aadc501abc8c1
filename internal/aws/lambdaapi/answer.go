package lambdaapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"kiln/internal/aws/restjson"
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
		if body, err = marshal(a.json); err != nil {
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

// marshal is json.Marshal without the escaping of <, > and &, which AWS does not
// do.
func marshal(v any) ([]byte, error) {
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

// ISO8601 formats a time of a string member: 2026-01-31T12:34:56.789+0000.
func ISO8601(t time.Time) *string { return new(restjson.ISO8601(t)) }
