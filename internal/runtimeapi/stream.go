package runtimeapi

import (
	"errors"
	"io"
	"net/http"

	"kiln/internal/lambda"
)

// streamBuffer is what of a streamed answer is in memory here at once, in bytes.
const streamBuffer = 32 << 10

// stream passes a streamed response on as it comes. A caller who has left, or to
// whom the answer was ended, does not end the function: it is read on and dropped.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, x *exchange) {
	answer := Answer{Stream: lambda.NewStream(), ContentType: r.Header.Get("Content-Type")}
	if !s.move(x, running, streaming) {
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
		return
	}
	x.answer <- answer
	err := pass(answer.Stream, r.Body)
	var end lambda.StreamEnd
	switch {
	case errors.Is(err, errTooLarge):
		end = lambda.StreamEnd{ErrorCode: ResponseTooLarge, ErrorDetails: errorDocument(ResponseTooLarge,
			"Response payload size exceeded maximum allowed payload size ("+formatInt(lambda.MaxStreamedResponse)+" bytes).")}
	case err != nil:
		end.ErrorCode = TruncatedResponse
	default:
		end.ErrorCode, end.ErrorDetails = trailerError(r)
	}
	s.move(x, streaming, answered)
	x.streamed <- end
	switch {
	case errors.Is(err, errTooLarge):
		refuseTooLarge(w, lambda.MaxStreamedResponse)
	case err != nil:
		refuseTruncated(w)
	default:
		accept(w)
	}
}

// pass copies a body to the reader of the stream, at most lambda.MaxStreamedResponse bytes.
func pass(to *lambda.Stream, body io.Reader) error {
	buf := make([]byte, streamBuffer)
	for {
		n, err := body.Read(buf)
		left := lambda.MaxStreamedResponse - to.Size()
		if n > 0 {
			_, _ = to.Write(buf[:min(int64(n), left)]) // who does not read it any more has ended it
		}
		switch {
		case int64(n) > left:
			return errTooLarge
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// move changes the state, if it is still about x and the one to begin with.
func (s *Server) move(x *exchange, from, to state) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != from || s.current != x {
		return false
	}
	s.state = to
	return true
}
