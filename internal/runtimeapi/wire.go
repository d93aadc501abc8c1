package runtimeapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"kiln/internal/lambda"
)

var (
	errTooLarge = errors.New("larger than allowed")
	errNotOwed  = errors.New("another request was faster")
)

// readBody reads at most limit bytes. On errTooLarge, size is how many were
// announced or found.
func readBody(r *http.Request, limit int) (body []byte, size int, err error) {
	if n := r.ContentLength; n > int64(limit) {
		return nil, int(n), errTooLarge
	} else if n >= 0 {
		body = make([]byte, n)
		_, err = io.ReadFull(r.Body, body)
		return body, int(n), err
	}
	body, err = io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	if err != nil {
		return nil, len(body), err
	}
	if len(body) > limit {
		rest, _ := io.Copy(io.Discard, io.LimitReader(r.Body, 64<<20)) // count on, within reason, for the message
		return nil, len(body) + int(rest), errTooLarge
	}
	return body, len(body), nil
}

// stallTimeout is how long a runtime may send nothing of a body whose length it
// announced: it has all of it. A body without a length may be made as it is sent.
const stallTimeout = 15 * time.Second

// readAnswer reads an answer once there is room for it: one at a time, because a
// runtime has one thing to say, and the room is everybody's. What is no longer owed
// once it is its turn is not read: errNotOwed. release is never nil.
func (s *Server) readAnswer(w http.ResponseWriter, r *http.Request, owed func() bool) (body []byte, size int, release func(), err error) {
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-r.Context().Done():
		return nil, 0, func() {}, context.Cause(r.Context())
	case <-s.closed:
		return nil, 0, func() {}, http.ErrServerClosed
	}
	s.mu.Lock()
	wanted := owed()
	s.mu.Unlock()
	if !wanted {
		return nil, 0, func() {}, errNotOwed
	}
	if r.ContentLength > 0 {
		r.Body = &pacedBody{r.Body, http.NewResponseController(w)}
	}
	want := r.ContentLength
	if want < 0 || want > lambda.MaxResponsePayload {
		want = lambda.MaxResponsePayload
	}
	if release, err = s.room(r.Context(), want); err != nil {
		return nil, 0, func() {}, err
	}
	body, size, err = readBody(r, lambda.MaxResponsePayload)
	return body, size, release, err
}

// pacedBody fails when it stalls.
type pacedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *pacedBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(stallTimeout)) // a connection that is gone is noticed by the read
	n, err := b.ReadCloser.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

const errorCause = "application/vnd.aws.lambda.error.cause+json"

func (s *Server) readReport(w http.ResponseWriter, r *http.Request, owed func() bool) (Report, func(), error) {
	body, _, release, err := s.readAnswer(w, r, owed)
	if err != nil {
		return Report{}, release, err
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), errorCause) {
		body = splitCause(body)
	}
	return Report{Type: sanitiseErrorType(r.Header.Get("Lambda-Runtime-Function-Error-Type")), Payload: body}, release, nil
}

// splitCause takes the error document out of a body that carries X-Ray causes too.
func splitCause(body []byte) []byte {
	var document struct {
		Message string          `json:"errorMessage"`
		Type    string          `json:"errorType"`
		Trace   json.RawMessage `json:"stackTrace,omitempty"`
	}
	if json.Unmarshal(body, &document) != nil {
		return []byte(`"Invalid error body"`)
	}
	out, _ := json.Marshal(document) // strings and valid raw JSON always marshal
	return out
}

// trailerError is the error that a runtime put behind a body; type "" if there is none.
func trailerError(r *http.Request) (errorType string, document []byte) {
	errorType = r.Trailer.Get("Lambda-Runtime-Function-Error-Type")
	if errorType == "" {
		return "", nil
	}
	return errorType, trailerBody(r.Trailer.Get("Lambda-Runtime-Function-Error-Body"))
}

func trailerBody(encoded string) []byte {
	body, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || !json.Valid(body) {
		return []byte(`"Invalid error body"`)
	}
	return body
}

var knownErrorType = regexp.MustCompile(`(Runtime|Function)\.[A-Z][a-zA-Z]+`)

// sanitiseErrorType maps what a runtime claims to what the platform reports; the
// caller still sees the document's own errorType.
func sanitiseErrorType(s string) string {
	switch {
	case knownErrorType.MatchString(s):
		return knownErrorType.FindString(s)
	case strings.HasPrefix(s, "Function."):
		return "Function.Unknown"
	default:
		return "Runtime.Unknown"
	}
}

func platformError(errorType, message string) Answer {
	return Answer{Payload: errorDocument(errorType, message), ContentType: "application/json", ErrorType: errorType}
}

func errorDocument(errorType, message string) []byte {
	body, _ := json.Marshal(lambda.ErrorDocument{Type: errorType, Message: message}) // two strings always marshal
	return body
}

func allowed(w http.ResponseWriter, r *http.Request, method string) bool {
	if r.Method == method {
		return true
	}
	w.Header().Set("Allow", method)
	refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method+" is not allowed here; use "+method)
	return false
}

func accept(w http.ResponseWriter) {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`) // a runtime that is gone is noticed by its exit
}

func refuse(w http.ResponseWriter, status int, errorType, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(errorDocument(errorType, message))
}

func refuseTooLarge(w http.ResponseWriter, limit int) {
	refuse(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "Exceeded maximum allowed payload size ("+formatInt(limit)+" bytes).")
}

func refuseTruncated(w http.ResponseWriter) {
	refuse(w, http.StatusBadRequest, "TruncatedHTTPRequest", "HTTP request detected as truncated")
}

func refuseTransition(w http.ResponseWriter, from, to state) {
	refuse(w, http.StatusForbidden, "InvalidStateTransition",
		"State transition from "+from.String()+" to "+to.String()+" failed for runtime. Error: State transition is not allowed")
}

func formatMillis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

func formatInt(n int) string { return strconv.Itoa(n) }
