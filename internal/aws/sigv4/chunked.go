package sigv4

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// What X-Amz-Content-Sha256 says of a body that comes in chunks.
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
const (
	streaming         = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamingTrailer  = streaming + "-TRAILER"
	streamingUnsigned = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

const (
	// maxChunk bounds a signed chunk, in bytes: it is passed on once its signature is
	// verified, so it is held whole. The SDKs send 64 KiB to 1 MiB.
	maxChunk = 2 << 20
	// maxUnsignedChunk bounds one that is passed on as it comes, in bytes: what S3 takes
	// at once. Some SDKs send all they have in one.
	maxUnsignedChunk = 5 << 30
	// maxChunkLine bounds the line before a chunk, and each trailer, in bytes.
	maxChunkLine = 4 << 10
	// maxTrailers is how many a body may have; the SDKs send one.
	maxTrailers = 16
)

// Chunked tells whether the body of r comes in the chunks of signatures, which
// Reader then reads.
func Chunked(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-")
}

// Reader reads a body that came in chunks, and verifies each before it passes
// anything of it on. It is not safe for concurrent use.
type Reader struct {
	body    *bufio.Reader
	signed  bool // each chunk
	verify  bool // that it is
	wants   bool // a trailer
	key     []byte
	date    string
	scope   string
	last    string // signature, of what came before
	chunk   []byte // verified and not yet passed on
	left    uint64 // of a chunk that is not to be verified
	trailer http.Header
	err     error // that ends it
}

// NewReader returns the reader of the body of r, whose signature Verify has found
// right. Without a signature nothing is verified. Its errors are *Error where the body
// is to blame.
func NewReader(r *http.Request, s *Signature, secret string) (*Reader, error) {
	kind := r.Header.Get("X-Amz-Content-Sha256")
	if kind != streaming && kind != streamingTrailer && kind != streamingUnsigned {
		return nil, &Error{"InvalidRequest", http.StatusBadRequest, "The value of x-amz-content-sha256 header is invalid."}
	}
	reader := &Reader{body: bufio.NewReaderSize(r.Body, maxChunkLine), signed: kind != streamingUnsigned, wants: kind != streaming, trailer: http.Header{}}
	if s == nil || !reader.signed {
		return reader, nil
	}
	reader.verify = true
	reader.scope = strings.Join([]string{s.Date.Format("20060102"), s.Region, s.Service, "aws4_request"}, "/")
	reader.key, reader.date, reader.last = signingKey(secret, s), s.Date.Format(dateFormat), s.Signature
	return reader, nil
}

// signingKey is derived from the secret for a day, a region and a service.
func signingKey(secret string, s *Signature) []byte {
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.Date.Format("20060102"), s.Region, s.Service, "aws4_request"} {
		key = sum(hmac.New(sha256.New, key), part)
	}
	return key
}

func sum(h hash.Hash, text string) []byte {
	h.Write([]byte(text)) // never fails
	return h.Sum(nil)
}

// Trailer holds what followed the last chunk, such as a checksum, once Read
// returned io.EOF. To compare a checksum with the body is the caller's.
func (r *Reader) Trailer() http.Header { return r.trailer }

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 && r.left == 0 && r.err == nil {
		r.err = r.next()
	}
	if r.left > 0 {
		n, err := r.body.Read(p[:min(uint64(len(p)), r.left)])
		r.left -= uint64(n)
		if err == nil && r.left == 0 {
			err = r.endChunk()
		}
		if r.err = cutShort(err); r.err != nil {
			r.left = 0
		}
		return n, r.err
	}
	if len(r.chunk) == 0 {
		return 0, r.err
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

// next reads and verifies a chunk. It returns io.EOF after the last one, and what
// follows that.
func (r *Reader) next() error {
	line, err := r.line()
	if err != nil {
		return err
	}
	text, extension, _ := strings.Cut(line, ";")
	size, err := strconv.ParseUint(text, 16, 63)
	if err != nil {
		return badBody("a chunk begins with its size in hexadecimal, not " + strconv.Quote(line))
	}
	most := uint64(maxUnsignedChunk)
	if r.verify {
		most = maxChunk
	}
	if size > most {
		return badBody(fmt.Sprintf("a chunk has %d bytes; %d are allowed", size, most))
	}
	signature, ok := strings.CutPrefix(extension, "chunk-signature=")
	switch {
	case r.signed && !ok:
		return badBody("a chunk has no chunk-signature")
	case !r.signed && extension != "":
		return badBody("a chunk that is not signed has a signature")
	case !r.verify && size > 0:
		r.left = size
		return nil
	}
	var chunk []byte
	if r.verify {
		chunk = make([]byte, size)
		if _, err := io.ReadFull(r.body, chunk); err != nil {
			return cutShort(err)
		}
		if err := r.check("AWS4-HMAC-SHA256-PAYLOAD", signature, BodyHash(nil), BodyHash(chunk)); err != nil {
			return err
		}
	}
	if size > 0 {
		if err := r.endChunk(); err != nil {
			return err
		}
		r.chunk = chunk
		return nil
	}
	if r.wants {
		if err := r.trailers(); err != nil {
			return err
		}
	} else if end, err := r.line(); err != nil || end != "" {
		return or(err, badBody("something follows the last chunk"))
	}
	if _, err := r.body.ReadByte(); !errors.Is(err, io.EOF) {
		return or(err, badBody("something follows the last chunk"))
	}
	return io.EOF
}

// endChunk reads the line break after a chunk.
func (r *Reader) endChunk() error {
	if end, err := r.line(); err != nil || end != "" {
		return or(err, badBody("a chunk is longer than it says"))
	}
	return nil
}

// trailers reads what follows the last chunk up to an empty line.
func (r *Reader) trailers() error {
	const signatureName = "X-Amz-Trailer-Signature"
	var signedText bytes.Buffer
	signature := ""
	for n := 0; ; n++ {
		line, err := r.line()
		if errors.Is(err, io.ErrUnexpectedEOF) && n > 0 { // some clients leave the last line break out
			line, err = "", nil
		}
		if err != nil {
			return err
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || n == maxTrailers {
			return badBody("what follows the last chunk is not name:value")
		}
		value = strings.TrimSpace(value)
		if textproto.CanonicalMIMEHeaderKey(name) == signatureName {
			signature = value
			continue
		}
		r.trailer.Add(name, value)
		signedText.WriteString(strings.ToLower(name) + ":" + value + "\n")
	}
	if !r.verify {
		return nil
	}
	return r.check("AWS4-HMAC-SHA256-TRAILER", signature, BodyHash(signedText.Bytes()))
}

// check compares the signature of a part, which covers the one before.
func (r *Reader) check(algorithm, signature string, hashes ...string) error {
	text := strings.Join(slices.Concat([]string{algorithm, r.date, r.scope, r.last}, hashes), "\n")
	want := hex.EncodeToString(sum(hmac.New(sha256.New, r.key), text))
	if subtle.ConstantTimeCompare([]byte(want), []byte(signature)) != 1 {
		return &Error{"SignatureDoesNotMatch", http.StatusForbidden, "The request signature we calculated does not match the signature you provided. Check your key and signing method."}
	}
	r.last = want
	return nil
}

// line reads up to a line break.
func (r *Reader) line() (string, error) {
	b, err := r.body.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", badBody("a line between chunks is too long")
	}
	if err != nil {
		return "", cutShort(err)
	}
	line, ok := bytes.CutSuffix(b, []byte("\r\n"))
	if !ok {
		return "", badBody("a line between chunks does not end with CR LF")
	}
	return string(line), nil
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func or(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func badBody(why string) *Error {
	return &Error{"InvalidRequest", http.StatusBadRequest, "The chunks of the request's body are malformed: " + why + "."}
}
