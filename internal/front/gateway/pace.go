package gateway

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// stallTimeout is how long a client may send nothing of a body it has announced,
// or take nothing of its answer. Both hold memory that others wait for.
const stallTimeout = 15 * time.Second

// writePiece is what of an answer must be taken within stallTimeout, in bytes.
const writePiece = 256 << 10

// paced ends the requests of clients that stall. How long a function runs, and how
// slowly a client gets on, does not matter.
func paced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.SetWriteDeadline(time.Time{}) // it may stand from the request before; no connection, no deadlines
		if r.Body != nil && r.ContentLength != 0 {
			r.Body = &pacedBody{r.Body, control}
		}
		next.ServeHTTP(&pacedWriter{w, control}, r)
		_ = control.SetWriteDeadline(time.Now().Add(stallTimeout)) // for what net/http still holds
	})
}

type pacedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *pacedBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(stallTimeout))
	n, err := b.ReadCloser.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		// Else it stays, or net/http would wait for the rest.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

type pacedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

// Unwrap lets http.ResponseController find what the server can do.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *pacedWriter) Write(p []byte) (n int, err error) {
	for {
		_ = w.control.SetWriteDeadline(time.Now().Add(stallTimeout))
		k, err := w.ResponseWriter.Write(p[:min(len(p), writePiece)])
		n, p = n+k, p[k:]
		if err != nil || len(p) == 0 {
			return n, err
		}
	}
}
