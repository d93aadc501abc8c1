package functionurl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"kiln/internal/lambda"
)

const (
	// withPrelude is the content type of a stream that begins with a status, headers and
	// cookies as JSON, and separator.
	withPrelude = "application/vnd.awslambda.http-integration-response"
	separator   = "\x00\x00\x00\x00\x00\x00\x00\x00"
	// maxPrelude bounds that beginning, in bytes: clients take no more of headers.
	maxPrelude = 128 << 10
	// streamBuffer is what of a streamed answer is in memory here at once, in bytes.
	streamBuffer = 32 << 10
)

// head is what a function says of its answer besides the body.
type head struct {
	status      int
	headers     map[string]string
	cookies     []string
	contentType string // where the headers have none
}

var errMalformed = errors.New("the function's result is no answer")

// answer sends what the function returned, as it comes where it streams.
func (c *call) answer(ctx context.Context, result lambda.Result) {
	switch {
	case result.FunctionError != "":
		c.bad()
	case result.Stream != nil:
		c.stream(ctx, result)
	default:
		read := readResult
		switch {
		case result.ContentType == withPrelude:
			read = readPrelude
		case c.url.InvokeMode == "RESPONSE_STREAM": // it goes as it is
			read = func(body []byte) (head, []byte, error) {
				return head{status: http.StatusOK, contentType: orOctets(result.ContentType)}, body, nil
			}
		}
		h, body, err := read(result.Payload)
		if err != nil {
			c.bad()
			return
		}
		if h.status >= 200 && h.status != http.StatusNoContent && h.status != http.StatusNotModified {
			c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		c.begin(h)
		_, _ = c.w.Write(body) // the caller is gone if this fails
	}
}

func orOctets(contentType string) string {
	if contentType == "" {
		return "application/octet-stream"
	}
	return contentType
}

// bad answers for a function that failed, or whose result is no answer.
func (c *call) bad() {
	c.status = http.StatusBadGateway
	const text = "Internal Server Error"
	c.w.Header().Set("Content-Type", "application/json") // AWS calls it that
	c.w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	c.w.WriteHeader(c.status)
	_, _ = io.WriteString(c.w, text) // the caller is gone if this fails
}

// readResult finds out what a result means: an answer that says its status, or a body
// alone.
func readResult(payload []byte) (head, []byte, error) {
	payload = bytes.TrimSpace(payload)
	if len(payload) == 0 {
		return head{}, nil, errMalformed
	}
	whole := head{status: http.StatusOK, contentType: "application/json"}
	switch payload[0] {
	case '"':
		var text string
		err := json.Unmarshal(payload, &text)
		return whole, []byte(text), err
	case '{':
		var members map[string]json.RawMessage // by their exact names
		if err := json.Unmarshal(payload, &members); err != nil {
			return head{}, nil, err
		}
		if _, ok := members["statusCode"]; ok {
			return readStructured(members)
		}
	}
	var compact bytes.Buffer
	err := json.Compact(&compact, payload)
	return whole, compact.Bytes(), err
}

// readStructured reads a result that says its status.
func readStructured(members map[string]json.RawMessage) (h head, body []byte, err error) {
	if h, err = readHead(members, "application/json"); err != nil {
		return h, nil, err
	}
	var isBase64 bool
	if err := member(members, "isBase64Encoded", &isBase64); err != nil {
		return h, nil, err
	}
	raw := members["body"]
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return h, nil, nil
	case raw[0] != '"':
		var compact bytes.Buffer
		err = json.Compact(&compact, raw)
		return h, compact.Bytes(), err
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return h, nil, err
	}
	if isBase64 {
		body, err = base64.StdEncoding.DecodeString(text)
		return h, body, err
	}
	return h, []byte(text), nil
}

// readPrelude splits what a function streamed.
func readPrelude(payload []byte) (head, []byte, error) {
	prelude, body, found := bytes.Cut(payload, []byte(separator))
	if !found {
		return head{}, nil, errMalformed
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(prelude, &members); err != nil {
		return head{}, nil, err
	}
	h, err := readHead(members, "application/octet-stream")
	return h, body, err
}

func readHead(members map[string]json.RawMessage, contentType string) (head, error) {
	h := head{status: http.StatusOK, contentType: contentType}
	if raw, ok := members["statusCode"]; ok {
		status, err := strconv.Atoi(strings.Trim(string(raw), `"`))
		if err != nil || status < 200 || status > 599 { // what is below is no answer yet
			return h, errMalformed
		}
		h.status = status
	}
	var headers map[string]*string
	if err := member(members, "headers", &headers); err != nil {
		return h, err
	}
	h.headers = map[string]string{}
	for name, value := range headers {
		if value == nil {
			return h, errMalformed
		}
		h.headers[name] = *value
	}
	return h, member(members, "cookies", &h.cookies)
}

func member(members map[string]json.RawMessage, name string, to any) error {
	if raw, ok := members[name]; ok {
		return json.Unmarshal(raw, to)
	}
	return nil
}

// remapped are headers that are the platform's: a function's go by another name, as on
// AWS.
var remapped = map[string]bool{
	"Connection": true, "Content-Length": true, "Date": true, "Host": true, "Keep-Alive": true, "Server": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "X-Amzn-Requestid": true, "X-Amzn-Trace-Id": true,
}

// begin sends the head of the answer.
func (c *call) begin(h head) {
	to := c.w.Header()
	typed := false
	for name, value := range h.headers {
		name = http.CanonicalHeaderKey(name)
		switch {
		case remapped[name]:
			name = "X-Amzn-Remapped-" + name
		case c.ownCORS() && strings.HasPrefix(name, corsPrefix):
			continue
		case name == "Content-Type":
			typed = true
		}
		to.Add(name, value)
	}
	if !typed {
		to.Set("Content-Type", h.contentType)
	}
	for _, cookie := range h.cookies {
		to.Add("Set-Cookie", cookie)
	}
	c.status = h.status
	c.w.WriteHeader(h.status)
}

// stream passes on what comes, as it comes, until its end. An answer that fails on the
// way is cut off, so that its caller does not take it for whole.
func (c *call) stream(ctx context.Context, result lambda.Result) {
	s := result.Stream
	stop := context.AfterFunc(ctx, s.Close) // who leaves is noticed also while nothing comes
	defer stop()
	in := bufio.NewReaderSize(s, streamBuffer)
	flush := http.NewResponseController(c.w).Flush
	if result.ContentType == withPrelude {
		prelude, err := untilSeparator(in)
		h, _, malformed := readPrelude(prelude)
		if err != nil || malformed != nil {
			c.bad()
			return
		}
		c.begin(h)
		_ = flush()
	} else if _, err := in.Peek(1); err != nil && (!errors.Is(err, io.EOF) || s.End().ErrorCode != "") {
		c.bad()
		return
	} else {
		c.begin(head{status: http.StatusOK, contentType: orOctets(result.ContentType)})
	}
	buf := make([]byte, streamBuffer)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if _, err := c.w.Write(buf[:n]); err != nil {
				return
			}
			if err := flush(); err != nil {
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF) && s.End().ErrorCode == "":
			return
		case err != nil:
			panic(http.ErrAbortHandler)
		}
	}
}

// untilSeparator reads a prelude and the separator behind it.
func untilSeparator(in *bufio.Reader) (prelude []byte, err error) {
	for !bytes.HasSuffix(prelude, []byte(separator)) {
		if len(prelude) == maxPrelude {
			return nil, errMalformed
		}
		b, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		prelude = append(prelude, b)
	}
	return prelude, nil
}
