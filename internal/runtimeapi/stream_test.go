package runtimeapi_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
)

// runStream brings an invocation to the runtime whose caller takes the answer as it comes.
func (r *rig) runStream() (*lambda.Invocation, runtimeapi.Exchange) {
	r.t.Helper()
	inv := invocation()
	inv.Stream = true
	return inv, r.give(inv)
}

// sender is a runtime's connection with a request of which the test writes every byte.
type sender struct {
	r *rig
	net.Conn
}

// post sends the head of a request.
func (r *rig) post(path, headers string) *sender {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.connections = append(r.connections, c)
	s := &sender{r, c}
	s.send("POST " + prefix + path + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n")
	return s
}

const (
	chunked      = "Transfer-Encoding: chunked\r\n"
	streamedMode = "Lambda-Runtime-Function-Response-Mode: streaming\r\n"
	announced    = "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n"
	lastChunk    = "0\r\n\r\n"
)

// stream begins a streamed response.
func (r *rig) stream(inv *lambda.Invocation) *sender {
	r.t.Helper()
	return r.post("invocation/"+string(inv.ID)+"/response", chunked+streamedMode+announced+"Content-Type: text/x\r\n")
}

func (s *sender) send(text string) {
	s.r.t.Helper()
	if _, err := io.WriteString(s, text); err != nil {
		s.r.t.Fatal(err)
	}
}

func chunk(data string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(data), data) }

func trailer(errorType, body string) string {
	return "0\r\nLambda-Runtime-Function-Error-Type: " + errorType + "\r\nLambda-Runtime-Function-Error-Body: " + body + "\r\n\r\n"
}

// status is that of the answer to the request, or "closed".
func (s *sender) status() string {
	s.r.t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	response, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		return "closed"
	}
	response.Body.Close()
	return fmt.Sprint(response.StatusCode)
}

// reads checks that the next bytes of the stream are these.
func (r *rig) reads(s *lambda.Stream, want string) {
	r.t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != want {
		r.t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// rest reads the stream to its end, which it finishes as an environment does.
func (r *rig) rest(x runtimeapi.Exchange, s *lambda.Stream) (size int64, begin string, end lambda.StreamEnd) {
	r.t.Helper()
	finished := make(chan struct{})
	go func() { s.Finish(<-x.Streamed()); close(finished) }() // the server tells every end
	var head strings.Builder
	size, err := io.Copy(&head, io.LimitReader(s, 100))
	if err == nil {
		var more int64
		more, err = io.Copy(io.Discard, s)
		size += more
	}
	if err != nil {
		r.t.Errorf("reading the stream: %v", err)
	}
	<-finished
	return size, head.String(), s.End()
}

// Each piece is read before the next is written.
func TestStreamPieceByPiece(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	defer r.close()
	inv, x := r.runStream()
	s := r.stream(inv)
	a := r.answer(x) // before the first byte
	if a.Stream == nil || a.ContentType != "text/x" || a.ErrorType != "" {
		t.Fatalf("answer %+v", a)
	}
	for _, piece := range []string{"a", "bc", strings.Repeat("d", 100_000), "e"} {
		go s.send(chunk(piece)) // a large one waits for its reader
		r.reads(a.Stream, piece)
	}
	select {
	case <-x.Streamed():
		t.Fatal("ended before its end")
	default:
	}
	s.send(lastChunk)
	if got := s.status(); got != "202" {
		t.Errorf("status %s", got)
	}
	if size, _, end := r.rest(x, a.Stream); size != 0 || end.ErrorCode != "" || a.Stream.Size() != 100_004 {
		t.Errorf("%d bytes more, of %d, and %+v", size, a.Stream.Size(), end)
	}
	r.run() // the runtime goes on
}

func TestStreams(t *testing.T) {
	t.Parallel()
	const limit = lambda.MaxStreamedResponse
	document := `{"errorMessage":"m","errorType":"T"}`
	coded := base64.StdEncoding.EncodeToString([]byte(document))
	many := func(s *sender, bytes int) {
		piece := strings.Repeat("x", 1<<20)
		for ; bytes > 0; bytes -= len(piece) {
			if _, err := io.WriteString(s, chunk(piece[:min(bytes, len(piece))])); err != nil {
				return // the server has heard enough
			}
		}
	}
	for what, c := range map[string]struct {
		send   func(*sender)
		status string
		size   int64
		end    lambda.StreamEnd
	}{
		"empty":           {func(s *sender) { s.send(lastChunk) }, "202", 0, lambda.StreamEnd{}},
		"without mode":    {func(s *sender) { s.send(chunk("ab") + chunk("c") + lastChunk) }, "202", 3, lambda.StreamEnd{}},
		"pieces":          {func(s *sender) { s.send(chunk("ab") + chunk("c") + lastChunk) }, "202", 3, lambda.StreamEnd{}},
		"failed":          {func(s *sender) { s.send(chunk("ab") + trailer("Function.Own", coded)) }, "202", 2, lambda.StreamEnd{ErrorCode: "Function.Own", ErrorDetails: []byte(document)}},
		"failed at once":  {func(s *sender) { s.send(trailer("TypeError", coded)) }, "202", 0, lambda.StreamEnd{ErrorCode: "TypeError", ErrorDetails: []byte(document)}},
		"bad document":    {func(s *sender) { s.send(chunk("a") + trailer("X", "%")) }, "202", 1, lambda.StreamEnd{ErrorCode: "X", ErrorDetails: []byte(`"Invalid error body"`)}},
		"without type":    {func(s *sender) { s.send(chunk("a") + "0\r\nLambda-Runtime-Function-Error-Body: " + coded + "\r\n\r\n") }, "202", 1, lambda.StreamEnd{}},
		"cut off":         {func(s *sender) { s.send(chunk("ab")); _ = s.Conn.(*net.TCPConn).CloseWrite() }, "400", 2, lambda.StreamEnd{ErrorCode: "Runtime.TruncatedResponse"}},
		"cut in a chunk":  {func(s *sender) { s.send("a\r\n12345"); _ = s.Conn.(*net.TCPConn).CloseWrite() }, "400", 5, lambda.StreamEnd{ErrorCode: "Runtime.TruncatedResponse"}},
		"cut in trailers": {func(s *sender) { s.send(chunk("ab") + "0\r\nLambda-"); _ = s.Conn.(*net.TCPConn).CloseWrite() }, "400", 2, lambda.StreamEnd{ErrorCode: "Runtime.TruncatedResponse"}},
		"no chunk":        {func(s *sender) { s.send(chunk("ab") + "zz\r\n") }, "400", 2, lambda.StreamEnd{ErrorCode: "Runtime.TruncatedResponse"}},
		"hung up":         {func(s *sender) { s.send(chunk("ab")); s.Close() }, "closed", 2, lambda.StreamEnd{ErrorCode: "Runtime.TruncatedResponse"}},
		"largest":         {func(s *sender) { many(s, limit); s.send(lastChunk) }, "202", limit, lambda.StreamEnd{}},
		"too large": {func(s *sender) { many(s, limit+1); _, _ = io.WriteString(s, lastChunk) }, "413", limit, lambda.StreamEnd{ErrorCode: "Function.ResponseSizeTooLarge",
			ErrorDetails: []byte(`{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (209715200 bytes)."}`)}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			defer r.close()
			inv, x := r.runStream()
			mode := streamedMode
			if what == "without mode" {
				mode = ""
			}
			s := r.post("invocation/"+string(inv.ID)+"/response", chunked+mode+announced)
			a := r.answer(x)
			go c.send(s)
			size, _, end := r.rest(x, a.Stream)
			if size != c.size || end.ErrorCode != c.end.ErrorCode || string(end.ErrorDetails) != string(c.end.ErrorDetails) {
				t.Errorf("%d bytes, %s %s; want %d, %s %s", size, end.ErrorCode, end.ErrorDetails, c.size, c.end.ErrorCode, c.end.ErrorDetails)
			}
			if got := s.status(); got != c.status {
				t.Errorf("status %s, want %s", got, c.status)
			}
			if held := r.room.Load(); held != 0 {
				t.Errorf("a stream takes %d bytes of room", held)
			}
			r.run() // the runtime goes on
		})
	}
}

// Who takes an answer as it comes gets one in a piece that the runtime sends so,
// and who does not gets a streamed one in a piece: see TestBodies.
func TestStreamIsForBoth(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ verb, headers, body, status, errorType, payload string }{
		"buffered":          {"response", "Content-Length: 2\r\n", "12", "202", "", "12"},
		"of a length":       {"response", streamedMode + "Content-Length: 2\r\n", "12", "202", "", "12"},
		"too large":         {"response", fmt.Sprintf("Content-Length: %d\r\n", lambda.MaxResponsePayload+1), strings.Repeat("x", 300<<10), "413", "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size (6291556 bytes)"},
		"error":             {"error", "Content-Length: 2\r\n", "{}", "202", "Runtime.Unknown", "{}"},
		"another mode":      {"response", "Lambda-Runtime-Function-Response-Mode: quick\r\n" + chunked, lastChunk, "400", "Runtime.InvalidResponseModeHeader", "Invalid function response mode"},
		"mode of a capital": {"response", "Lambda-Runtime-Function-Response-Mode: Streaming\r\n" + chunked, lastChunk, "400", "Runtime.InvalidResponseModeHeader", "Invalid function response mode"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			defer r.close()
			inv, x := r.runStream()
			s := r.post("invocation/"+string(inv.ID)+"/"+c.verb, c.headers)
			s.send(c.body)
			if a := r.answer(x); a.Stream != nil || a.ErrorType != c.errorType || !strings.Contains(string(a.Payload), c.payload) {
				t.Errorf("answer %s %s, want %s %s", a.ErrorType, a.Payload, c.errorType, c.payload)
			}
			if got := s.status(); got != c.status {
				t.Errorf("status %s, want %s", got, c.status)
			}
		})
	}
}

// Of two answers that begin at once, one is taken.
func TestStreamTwice(t *testing.T) {
	t.Parallel()
	for range 20 {
		r := newRig(t)
		inv, x := r.runStream()
		statuses := make(chan string, 2)
		for range 2 {
			s := r.stream(inv)
			go func() {
				_, _ = io.WriteString(s, chunk("a")+lastChunk) // refused, it may be cut off
				statuses <- s.status()
			}()
		}
		a := r.answer(x)
		if size, _, end := r.rest(x, a.Stream); size != 1 || end.ErrorCode != "" {
			t.Errorf("%d bytes, %+v", size, end)
		}
		if one, other := <-statuses, <-statuses; one+other != "202400" && one+other != "400202" {
			t.Errorf("statuses %s and %s", one, other)
		}
		r.close()
	}
}

// What nobody reads waits with the runtime, not here.
func TestStreamSlowReader(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	defer r.close()
	inv, x := r.runStream()
	s := r.stream(inv)
	a := r.answer(x)
	const total = 20 << 20
	go func() {
		piece := chunk(strings.Repeat("x", 1<<20))
		for range total >> 20 {
			s.send(piece)
		}
		s.send(lastChunk)
	}()
	go func() { a.Stream.Finish(<-x.Streamed()) }()
	buf := make([]byte, 1000)
	read := int64(0)
	for {
		n, err := a.Stream.Read(buf)
		if read += int64(n); a.Stream.Size()-read > 64<<10 {
			t.Fatalf("%d bytes were taken from the runtime when %d were read", a.Stream.Size(), read)
		}
		if err != nil {
			break
		}
	}
	if read != total || s.status() != "202" {
		t.Errorf("%d bytes", read)
	}
}

// A reader who leaves, or to whom the answer was ended, is no reason for the
// runtime to stop: what it still sends is dropped.
func TestStreamUnread(t *testing.T) {
	t.Parallel()
	for what, leave := range map[string]func(*lambda.Stream){
		"left":  (*lambda.Stream).Close,
		"ended": func(s *lambda.Stream) { s.Finish(lambda.StreamEnd{ErrorCode: "Sandbox.Timedout"}) },
	} {
		for when, begin := range map[string]string{"at once": "", "midway": "a"} {
			t.Run(what+" "+when, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				defer r.close()
				inv, x := r.runStream()
				s := r.stream(inv)
				a := r.answer(x)
				if begin != "" {
					s.send(chunk(begin))
					r.reads(a.Stream, begin)
				}
				leave(a.Stream)
				s.send(chunk(strings.Repeat("x", 10<<20)) + lastChunk)
				if got := s.status(); got != "202" {
					t.Errorf("status %s", got)
				}
				if end := <-x.Streamed(); end.ErrorCode != "" || a.Stream.Size() != int64(len(begin))+10<<20 {
					t.Errorf("end %+v after %d bytes", end, a.Stream.Size())
				}
				r.run()
			})
		}
	}
}
