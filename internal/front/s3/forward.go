package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"kiln/internal/invoke/notification"
)

// metadata begins the headers with what a user says of an object.
const metadata = "X-Amz-Meta-"

// headers are those of a request that are passed on, and beginnings of such.
var (
	headers = strings.Fields(`Cache-Control Content-Disposition Content-Encoding Content-Language Content-Md5 Content-Type Expires
		If-Match If-Modified-Since If-None-Match If-Unmodified-Since Range
		X-Amz-Bucket-Object-Lock-Enabled X-Amz-Bypass-Governance-Retention X-Amz-Checksum-Algorithm X-Amz-Checksum-Mode X-Amz-Checksum-Type
		X-Amz-Max-Parts X-Amz-Metadata-Directive X-Amz-Mp-Object-Size X-Amz-Object-Attributes X-Amz-Object-Ownership X-Amz-Part-Number-Marker
		X-Amz-Sdk-Checksum-Algorithm X-Amz-Storage-Class X-Amz-Tagging X-Amz-Tagging-Directive X-Amz-Website-Redirect-Location`)
	headersBegin = []string{metadata, "X-Amz-Checksum-", "X-Amz-Object-Lock-"}
)

func isPassed(header string) bool {
	return slices.Contains(headers, header) || slices.ContainsFunc(headersBegin, func(b string) bool { return strings.HasPrefix(header, b) })
}

// withheld are the headers of an answer that are this server's to write.
var withheld = []string{"Connection", "Date", "Keep-Alive", "Server", "Transfer-Encoding"}

// request is what the process of the buckets is asked in place of the caller's request.
func (c *call) request(ctx context.Context, body io.Reader, length int64) *http.Request {
	path := "/" + c.bucket
	if c.key != "" {
		path += "/" + c.key
	}
	u := &url.URL{Path: path, RawPath: escape(path)}
	q, from := url.Values{}, c.r.URL.Query()
	for name, values := range from {
		if name == c.operation.parameter || slices.Contains(passed, name) {
			q[name] = values
		}
	}
	u.RawQuery = q.Encode()
	out := (&http.Request{Method: c.r.Method, URL: u, Header: http.Header{}, Body: io.NopCloser(body), ContentLength: length}).WithContext(ctx)
	if length == 0 {
		out.Body = nil
	}
	out.Close = length < 0 // what ends such a body is left on the connection, and taken for a request
	for name, values := range c.r.Header {
		if isPassed(name) {
			out.Header[name] = slices.Clone(values)
		}
	}
	for name, values := range from { // where some SDKs put them in a presigned URL
		if name = http.CanonicalHeaderKey(name); isPassed(name) && strings.HasPrefix(name, "X-Amz-") && out.Header[name] == nil {
			out.Header[name] = values
		}
	}
	if c.chunks != nil {
		withoutChunks(out.Header)
	}
	if claimed := c.r.Header.Get("X-Amz-Content-Sha256"); isHash(claimed) {
		out.Header.Set("X-Amz-Content-Sha256", claimed) // it is compared there
	}
	return out
}

func isHash(s string) bool {
	return len(s) == 64 && !strings.ContainsFunc(s, func(c rune) bool { return !strings.ContainsRune("0123456789abcdef", c) })
}

// withoutChunks takes aws-chunked off a list of encodings.
func withoutChunks(h http.Header) {
	var rest []string
	for e := range strings.SplitSeq(strings.Join(h["Content-Encoding"], ","), ",") {
		if e = strings.TrimSpace(e); e != "" && e != "aws-chunked" {
			rest = append(rest, e)
		}
	}
	h.Del("Content-Encoding")
	if len(rest) > 0 {
		h.Set("Content-Encoding", strings.Join(rest, ","))
	}
}

// escape writes a path as signatures have it.
func escape(path string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteString(string([]byte{'%', hex[c>>4], hex[c&15]}))
		}
	}
	return b.String()
}

// pass has the request carried out as it is.
func (c *call) pass() error {
	answer, err := c.do(nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return c.relay(answer)
}

// do has the request carried out, with what change does to it.
func (c *call) do(change func(*http.Request)) (*http.Response, error) {
	if c.operation.event == "" {
		return c.ask(change)
	}
	o := notification.Object{Event: c.operation.event, Key: c.key, Version: c.r.URL.Query().Get("versionId")}
	return c.carry([]notification.Object{o}, func() (*http.Response, error) { return c.ask(change) })
}

func (c *call) ask(change func(*http.Request)) (*http.Response, error) {
	body, length, header, err := c.body()
	if err != nil {
		return nil, err
	}
	c.length = body.want
	out := c.request(c.r.Context(), body, length)
	for name, values := range header {
		out.Header[name] = values
	}
	if change != nil {
		change(out)
	}
	answer, err := c.door.Objects.Do(c.scope(), out)
	if body.err != nil { // it is the reason
		if err == nil {
			answer.Body.Close()
		}
		c.cut = true
		return nil, body.err
	}
	return answer, err
}

// body is the request's, as it is passed on. The process of the buckets takes the end of
// what is cut off for the end of the object, unless it has a hash to compare. So other bodies
// of objects come in chunks that are not signed: with an end, and before it the checksum
// that has followed the body, which is compared there. header goes with it.
func (c *call) body() (_ *checked, length int64, header http.Header, err error) {
	writes := c.operation.name == "PutObject" || c.operation.name == "UploadPart"
	body := &checked{from: c.r.Body, want: c.r.ContentLength, free: c.door.Free}
	if c.chunks != nil {
		body.from = c.chunks
		body.want, err = strconv.ParseInt(c.r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
		if err != nil || body.want < 0 {
			return nil, 0, nil, fault(http.StatusLengthRequired, "MissingContentLength", "You must provide the X-Amz-Decoded-Content-Length HTTP header.")
		}
	}
	switch {
	case !writes || c.chunks == nil && isHash(c.r.Header.Get("X-Amz-Content-Sha256")):
		if body.want < 0 && writes {
			break
		}
		return body, body.want, nil, nil
	case body.want >= 0:
		header = http.Header{"X-Amz-Content-Sha256": {"STREAMING-UNSIGNED-PAYLOAD-TRAILER"}, "X-Amz-Decoded-Content-Length": {strconv.FormatInt(body.want, 10)}}
		trailer := func() http.Header { return nil }
		if name := c.r.Header.Get("X-Amz-Trailer"); name != "" && c.chunks != nil {
			header.Set("X-Amz-Trailer", name)
			trailer = c.chunks.Trailer
		}
		return &checked{from: &rechunked{from: body, trailer: trailer}, want: body.want, free: c.door.Free, framed: true}, -1, header, nil
	}
	return nil, 0, nil, fault(http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header.")
}

// relay writes the answer of the process of the buckets.
func (c *call) relay(answer *http.Response) error {
	h := c.w.Header()
	for name, values := range answer.Header {
		if slices.Contains(withheld, name) {
			continue
		}
		if strings.HasPrefix(name, metadata) { // clients show the names as they come
			name = strings.ToLower(name)
		}
		h[name] = values[:1] // some come twice
	}
	c.answered = true
	c.w.WriteHeader(answer.StatusCode)
	_, err := io.Copy(c.w, answer.Body)
	return err
}

var errLength = errors.New("the body is longer or shorter than it says")

const (
	// block is what of a body is read at once, and held back, in bytes.
	block = 64 << 10
	// freeEvery is how much of a body is written before it is asked again whether
	// there is room, in bytes.
	freeEvery = 1 << 20
)

// checked passes a body on. It holds the last of it back until the end is known to be
// right: whoever has all of a body keeps it.
type checked struct {
	from io.Reader
	want int64 // bytes; -1 where it is not known
	free func() error
	// framed says that from is want bytes within chunks, so that its own length is another.
	framed bool

	read, asked int64
	next        []byte // that may be passed on
	held        []byte
	err         error // that ended it, unless it is the end
	end         bool
}

func (b *checked) Read(p []byte) (int, error) {
	for len(b.next) == 0 {
		switch {
		case b.err != nil:
			return 0, b.err
		case b.end:
			return 0, io.EOF
		}
		b.fill()
	}
	n := copy(p, b.next)
	b.next = b.next[n:]
	return n, nil
}

// fill reads a block, and lets the one before go.
func (b *checked) fill() {
	if b.read >= b.asked {
		if b.err = b.free(); b.err != nil {
			return
		}
		b.asked = b.read + freeEvery
	}
	p := make([]byte, block)
	n, err := b.from.Read(p)
	b.read += int64(n)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		b.err = err
		return
	case !b.framed && b.want >= 0 && (b.read > b.want || err != nil && b.read != b.want):
		b.err = errLength
		return
	}
	b.next, b.held = b.held, p[:n]
	if err != nil {
		b.end = true
		b.next = append(b.next, b.held...)
	}
}

// rechunked is a body in chunks that are not signed, and what followed it.
type rechunked struct {
	from    *checked
	trailer func() http.Header // once from has ended
	buffer  bytes.Buffer
	end     bool
}

func (r *rechunked) Read(p []byte) (int, error) {
	if r.buffer.Len() == 0 && !r.end {
		chunk := make([]byte, block)
		n, err := io.ReadFull(r.from, chunk)
		if r.from.err != nil {
			return 0, r.from.err
		}
		if n > 0 {
			fmt.Fprintf(&r.buffer, "%x\r\n%s\r\n", n, chunk[:n])
		}
		if err != nil {
			r.end = true
			r.buffer.WriteString("0\r\n")
			for name, values := range r.trailer() {
				r.buffer.WriteString(strings.ToLower(name) + ":" + values[0] + "\r\n")
			}
			r.buffer.WriteString("\r\n")
		}
	}
	return r.buffer.Read(p)
}
