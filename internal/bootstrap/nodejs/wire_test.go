package nodejs_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// server is a Runtime API of another make: it answers in a style of its own.
type server struct {
	listener net.Listener
	respond  func(c net.Conn, head, body string) bool // false closes the connection
	events   chan string
	posts    chan string      // path and body of what was posted
	drop     func(n int) bool // closes the connection instead of answering the nth request

	mu       sync.Mutex
	requests int // guarded by mu
	wg       sync.WaitGroup
}

func serve(t *testing.T, s *server, network string) string {
	t.Helper()
	l, err := net.Listen(network, map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network])
	if err != nil {
		t.Skip(err)
	}
	s.listener = l
	s.posts = make(chan string, 10)
	s.events = make(chan string, 10)
	conns := make(chan net.Conn, 100)
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
			s.wg.Go(func() { s.handle(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(s.events)
		for len(conns) > 0 {
			(<-conns).Close()
		}
		s.wg.Wait()
	})
	return l.Addr().String()
}

func (s *server) handle(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.requests++
		n := s.requests
		s.mu.Unlock()
		if s.drop != nil && s.drop(n) {
			return
		}
		if req.Method == http.MethodPost {
			s.posts <- req.URL.Path + " " + string(body)
			if !s.respond(c, "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n", `{"status":"OK"}`) {
				return
			}
			continue
		}
		event, ok := <-s.events
		if !ok {
			return
		}
		head := fmt.Sprintf("HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id:  id \r\nLAMBDA-RUNTIME-DEADLINE-MS: %d\r\nLambda-Runtime-Invoked-Function-Arn: arn\r\n", time.Now().Add(time.Second).UnixMilli())
		if !s.respond(c, head, event) {
			return
		}
	}
}

func plain(c net.Conn, head, body string) bool {
	_, err := fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
	return err == nil
}

// in writes a text in pieces of n bytes that arrive apart.
func in(n int, c net.Conn, text string) bool {
	for len(text) > 0 {
		n := min(n, len(text))
		if _, err := io.WriteString(c, text[:n]); err != nil {
			return false
		}
		text = text[n:]
		time.Sleep(200 * time.Microsecond)
	}
	return true
}

func chunked(head, body string, size int) string {
	var b strings.Builder
	b.WriteString(head + "Transfer-Encoding: chunked\r\n\r\n")
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%X;name=value\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	b.WriteString("0\r\nSome-Trailer: x\r\n\r\n")
	return b.String()
}

// The client gets along with any server that speaks HTTP/1.1.
func TestServers(t *testing.T) {
	t.Parallel()
	long := `"` + strings.Repeat("é😀", 100_000) + `"`
	styles := map[string]*server{
		"Content-Length": {respond: plain},
		"byte by byte": {respond: func(c net.Conn, h, b string) bool {
			return in(1, c, fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", h, len(b), b))
		}},
		"chunked": {respond: func(c net.Conn, h, b string) bool {
			_, err := io.WriteString(c, chunked(h, b, 1000))
			return err == nil
		}},
		"chunked byte by byte": {respond: func(c net.Conn, h, b string) bool { return in(1, c, chunked(h, b, 3)) }},
		"interim answers": {respond: func(c net.Conn, h, b string) bool {
			return plain(c, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"+h, b)
		}},
		"closes after each":              {respond: func(c net.Conn, h, b string) bool { plain(c, h+"Connection: close\r\n", b); return false }},
		"closes after each, unannounced": {respond: func(c net.Conn, h, b string) bool { plain(c, h, b); return false }},
		"until it closes":                {respond: func(c net.Conn, h, b string) bool { _, _ = io.WriteString(c, h+"\r\n"+b); return false }},
		"drops every other":              {respond: plain, drop: func(n int) bool { return n%2 == 0 }},
	}
	each(t, func(t *testing.T, node interpreter) {
		for name, style := range styles {
			t.Run(name, func(t *testing.T) {
				s := &server{respond: style.respond, drop: style.drop}
				start(t, function{node: node, api: serve(t, s, "tcp4"), code: files{"index.js": echo}})
				events := []string{`{"a":1}`, `"é"`, `[]`}
				if !strings.Contains(name, "byte by byte") {
					events = append(events, long, `1`)
				}
				for _, event := range events {
					s.events <- event
					select {
					case got := <-s.posts:
						if want := "/2018-06-01/runtime/invocation/id/response " + event; got != want {
							t.Fatalf("posted %.200s, want %.200s", got, want)
						}
					case <-time.After(patience):
						t.Fatalf("no answer to %.100s", event)
					}
				}
			})
		}
		t.Run("IPv6", func(t *testing.T) {
			s := &server{respond: plain}
			start(t, function{node: node, api: serve(t, s, "tcp6"), code: files{"index.js": echo}})
			s.events <- "1"
			if got := <-s.posts; !strings.HasSuffix(got, " 1") {
				t.Errorf("posted %s", got)
			}
		})
		t.Run("refuses", func(t *testing.T) {
			s := &server{respond: func(c net.Conn, _, b string) bool { return plain(c, "HTTP/1.1 500 Internal Server Error\r\n", b) }}
			p := start(t, function{node: node, api: serve(t, s, "tcp4"), code: files{"index.js": echo}})
			s.events <- "1"
			p.wantExit(1)
		})
		t.Run("is gone", func(t *testing.T) {
			p := start(t, function{node: node, api: "127.0.0.1:1", code: files{"index.js": echo}})
			p.wantExit(1)
		})
		t.Run("is no HTTP", func(t *testing.T) {
			s := &server{respond: func(c net.Conn, _, _ string) bool { _, _ = io.WriteString(c, "SSH-2.0-nothing\r\n\r\n"); return true }}
			p := start(t, function{node: node, api: serve(t, s, "tcp4"), code: files{"index.js": echo}})
			for range 3 {
				s.events <- "1"
			}
			p.wantExit(1)
		})
	})
}
