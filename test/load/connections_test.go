package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"kiln/test/kiln"
)

// dial opens a connection to the daemon, closed at the end of the test.
func dial(t *testing.T, d *kiln.Daemon) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(d.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// head is a request to invoke the function, up to its body.
func head(function string, headers ...string) string {
	return "POST " + api + function + "/invocations HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + authorization +
		"\r\nX-Amz-Date: 20260101T000000Z\r\n" + strings.Join(append(headers, "\r\n"), "\r\n")
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// answer reads one answer from a connection.
func answer(t *testing.T, c net.Conn) reply {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{r.StatusCode, r.Header, string(body)}
}

const megabyte = 1 << 20

func TestClientsThatLeave(t *testing.T) {
	d, c, calm := start(t)
	d.Create("gated", "python3.12", "gate.handler", kiln.Gate(), kiln.Timeout(120))
	d.Create("large", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": "def handler(event, context): return 'x' * 5_000_000"}), kiln.Timeout(120))
	const n = 10
	for range n {
		half := dial(t, d) // in the request line
		send(t, half, "POST /2015")
		half.Close()
		half = dial(t, d) // in the headers
		send(t, half, head("warm")[:80])
		half.Close()
		half = dial(t, d) // in the body
		send(t, half, head("warm", "Content-Length: 1000")+`{"a":`)
		half.Close()
		half = dial(t, d) // in a chunk
		send(t, half, head("warm", "Transfer-Encoding: chunked")+"100\r\n{")
		half.Close()
	}
	ctx, leave := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range n { // while the function runs
		wait.Go(func() {
			if r, err := c.invoke(ctx, "gated", "{}"); err == nil {
				t.Errorf("an invocation whose caller left was answered: %v", r)
			}
		})
	}
	kiln.Eventually(t, patience, func() error {
		if n := d.Metric("kiln_environments", `function="gated"`, `state="busy"`); n != 10 {
			return fmt.Errorf("%v run", n)
		}
		return nil
	})
	leave()
	wait.Wait()
	for range n { // in the answer
		half := dial(t, d)
		send(t, half, head("large", "Content-Length: 2")+"{}")
		if _, err := io.ReadFull(half, make([]byte, 1000)); err != nil {
			t.Error(err)
		}
		half.Close()
	}
	if got := c.must("warm", "2"); got != "2" {
		t.Errorf("meanwhile another function answers %s", got)
	}
	d.Open("gated") // what runs goes on to its end
	kiln.Eventually(t, patience, func() error {
		if got := d.Metric("kiln_invocations_total", `function="gated"`); got != n {
			return fmt.Errorf("%v invocations ended, %d began", got, n)
		}
		return nil
	})
	calm()
}

// Clients that hold a connection and what belongs to it do not keep others out.
func TestSlowClients(t *testing.T) {
	const n = 8 // of 6 MB each, twice what may be in flight
	d, c, calm := start(t, "--max-inflight-bytes", "32MiB")
	d.Create("large", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": "def handler(event, context): return 'x' * 5_000_000"}), kiln.Timeout(120))
	var slow []net.Conn
	for range n {
		s := dial(t, d)
		send(t, s, "POST /2015") // and nothing more
		slow = append(slow, s)
	}
	if got := c.must("warm", "1"); got != "1" {
		t.Errorf("beside clients that send nothing: %s", got)
	}
	for range 3 { // slow, but it gets there: byte by byte
		s := dial(t, d)
		request := head("warm", "Content-Length: 3") + "123"
		for i := range request {
			send(t, s, request[i:i+1])
		}
		if r := answer(t, s); r.body != "123" {
			t.Errorf("a request that came byte by byte: %v", r)
		}
	}
	for range n {
		s := dial(t, d) // a large body that does not come
		send(t, s, head("warm", fmt.Sprint("Content-Length: ", 6*megabyte))+`"`)
		slow = append(slow, s)
		s = dial(t, d) // a large answer that is not taken
		send(t, s, head("large", "Content-Length: 2")+"{}")
		slow = append(slow, s)
	}
	if got := c.must("warm", "2"); got != "2" {
		t.Errorf("beside clients that stall: %s", got)
	}
	event := `"` + strings.Repeat("x", megabyte) + `"`
	if got := c.must("warm", event); got != event {
		t.Errorf("a large event beside clients that stall: %.100s", got)
	}
	if got := c.must("large", "{}"); len(got) != 5_000_002 {
		t.Errorf("a large answer beside clients that stall: %d bytes", len(got))
	}
	for _, s := range slow {
		s.Close()
	}
	calm()
}

func TestForms(t *testing.T) {
	d, _, calm := start(t)
	body := func(r reply) string { return r.body }
	code := func(r reply) string { return fmt.Sprint(r.status, " ", r.code()) }
	status := func(r reply) string { return fmt.Sprint(r.status) }
	for what, c := range map[string]struct {
		request string
		of      func(reply) string
		want    string
	}{
		"chunked":             {head("warm", "Transfer-Encoding: chunked") + "1\r\n1\r\n2\r\n23\r\n0\r\n\r\n", body, "123"},
		"chunked, trailers":   {head("warm", "Transfer-Encoding: chunked", "Trailer: X") + "1\r\n1\r\n0\r\nX: y\r\n\r\n", body, "1"},
		"chunked, extensions": {head("warm", "Transfer-Encoding: chunked") + "1;a=b\r\n1\r\n0\r\n\r\n", body, "1"},
		"no body":             {head("warm"), body, "{}"},
		"bad chunk":           {head("warm", "Transfer-Encoding: chunked") + "xyz\r\n", status, "400"},
		"two lengths":         {head("warm", "Content-Length: 1", "Content-Length: 2") + "12", status, "400"},
		"length and chunks":   {head("warm", "Content-Length: 1", "Transfer-Encoding: chunked") + "1\r\n1\r\n0\r\n\r\n", body, "1"}, // the RFC: chunks win
		"negative length":     {head("warm", "Content-Length: -1"), status, "400"},
		"too large":           {head("warm", fmt.Sprint("Content-Length: ", 6*megabyte+1)) + strings.Repeat("1", 6*megabyte+1), code, "413 RequestTooLargeException"},
		"not HTTP":            {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", status, "400"},
		"no host":             {"GET / HTTP/1.1\r\n\r\n", status, "400"},
		"other host":          {"GET /_kiln/health HTTP/1.1\r\nHost: evil.example\r\n\r\n", code, "403 AccessDeniedException"},
		"old HTTP":            {"GET /_kiln/health HTTP/1.0\r\nHost: localhost\r\n\r\n", status, "200"},
		"space in name":       {"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", status, "400"},
		"large header":        {head("warm", "X-Large: "+strings.Repeat("x", 2*megabyte)), status, "431"},
		"encoded path":        {"GET " + api + "%2e%2e%2f%00/configuration HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + authorization + "\r\nX-Amz-Date: 20260101T000000Z\r\n\r\n", status, "400"},
	} {
		s := dial(t, d)
		go func() { _, _ = io.WriteString(s, c.request) }() // ends with the connection; a refused request is not read to its end
		if got := answer(t, s); c.of(got) != c.want {
			t.Errorf("%s: %v, want %s", what, got, c.want)
		}
		s.Close()
	}
	calm()
}

// Fifty events of 6 MB and their answers, all at once, within a bound on memory.
func TestManyLargeEvents(t *testing.T) {
	const n = 50
	d, c, calm := start(t, "--max-inflight-bytes", "48MiB")
	d.Create("echo", "python3.12", "app.handler", kiln.Zip(map[string]string{"app.py": "def handler(event, context): return event"}), func(in *createInput) {
		in.Timeout, in.MemorySize = int32p(300), int32p(512)
	})
	event := `"` + strings.Repeat("x", 6*megabyte-2) + `"`
	var wait sync.WaitGroup
	for range n {
		wait.Go(func() {
			if r, err := c.invoke(context.Background(), "echo", event); err != nil || !r.ok() || r.body != event {
				t.Errorf("%d bytes came back: %v, %.300v", len(r.body), err, r)
			}
		})
	}
	wait.Wait()
	// All of it together is 600 MB. What may be in flight, twice over for the
	// collector, and what the daemon needs anyway.
	const bound = 2*2*48*megabyte + 150*megabyte
	if peak := peakMemory(t, d); peak > bound {
		t.Errorf("the daemon needed %d MiB, the bound is %d", peak/megabyte, bound/megabyte)
	} else {
		t.Logf("the daemon needed %d MiB", peak/megabyte)
	}
	calm()
}
