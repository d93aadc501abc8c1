package sigv4_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"kiln/internal/aws/sigv4"
)

// The examples of AWS's documentation.
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
const (
	exampleKey    = "AKIAIOSFODNN7EXAMPLE"
	exampleSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// chunkedRequest is a request whose body comes in chunks, after the signature of
// its headers.
func chunkedRequest(t testing.TB, kind, signature, body string) (*http.Request, *sigv4.Signature) {
	t.Helper()
	r, err := http.NewRequest("PUT", "http://s3.amazonaws.com/examplebucket/chunkObject.txt", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Content-Sha256", kind)
	r.Header.Set("X-Amz-Date", "20130524T000000Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+exampleKey+"/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature="+signature)
	s, err := sigv4.Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	return r, s
}

func read(t testing.TB, kind, signature, body string) (content []byte, trailer http.Header, err error) {
	t.Helper()
	r, s := chunkedRequest(t, kind, signature, body)
	r.Body = io.NopCloser(iotest.HalfReader(r.Body))
	reader, err := sigv4.NewReader(r, s, exampleSecret)
	if err != nil {
		return nil, nil, err
	}
	content, err = io.ReadAll(reader)
	return content, reader.Trailer(), err
}

var as = strings.Repeat("a", 66560)

const (
	seed        = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
	trailerSeed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
)

func documented() string {
	return "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + as[:65536] + "\r\n" +
		"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + as[65536:] + "\r\n" +
		"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
}

func documentedTrailer() string {
	return "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" + as[:65536] + "\r\n" +
		"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" + as[65536:] + "\r\n" +
		"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n" +
		"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
}

func TestChunkedAsDocumented(t *testing.T) {
	t.Parallel()
	content, _, err := read(t, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", seed, documented())
	if err != nil || string(content) != as {
		t.Errorf("%d bytes, %v", len(content), err)
	}
	content, trailer, err := read(t, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", trailerSeed, documentedTrailer())
	if err != nil || string(content) != as || trailer.Get("X-Amz-Checksum-Crc32c") != "sOO8/Q==" {
		t.Errorf("with a trailer: %d bytes, %v, %v", len(content), trailer, err)
	}
	content, trailer, err = read(t, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", seed, "5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n")
	if err != nil || string(content) != "hello world" || trailer.Get("X-Amz-Checksum-Crc32") != "DUoRhQ==" {
		t.Errorf("unsigned: %q, %v, %v", content, trailer, err)
	}
}

// The SDK signs the parts of event streams as it does chunks.
func TestChunkedBySDK(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC()
	who := aws.Credentials{AccessKeyID: exampleKey, SecretAccessKey: exampleSecret}
	r, err := http.NewRequest("PUT", "http://localhost/bucket/key", nil)
	if err != nil {
		t.Fatal(err)
	}
	const kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	r.Header.Set("X-Amz-Content-Sha256", kind)
	if err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(t.Context(), who, r, kind, "s3", "eu-west-1", now); err != nil {
		t.Fatal(err)
	}
	s, err := sigv4.Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := sigv4.Verify(r, s, exampleSecret, "", now); err != nil || !sigv4.Chunked(r) {
		t.Fatal(err)
	}
	first, err := hex.DecodeString(s.Signature)
	if err != nil {
		t.Fatal(err)
	}
	signer := v4.NewStreamSigner(who, "s3", "eu-west-1", first)
	var body bytes.Buffer
	for _, chunk := range []string{"one", strings.Repeat("two", 100_000), "three", ""} {
		signature, err := signer.GetSignature(context.Background(), nil, []byte(chunk), now)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&body, "%x;chunk-signature=%x\r\n%s\r\n", len(chunk), signature, chunk)
	}
	r.Body = io.NopCloser(&body)
	reader, err := sigv4.NewReader(r, s, exampleSecret)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(reader)
	if want := "one" + strings.Repeat("two", 100_000) + "three"; err != nil || string(content) != want {
		t.Errorf("%d bytes, %v", len(content), err)
	}
}

// Nothing of a signed chunk is passed on before it is verified.
func TestChunkedRefusals(t *testing.T) {
	t.Parallel()
	const signed, trailer, unsigned = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	for _, c := range []struct {
		name, kind, seed, body string
		code                   string
		content                int // bytes that come before
	}{
		{"a changed byte", signed, seed, strings.Replace(documented(), "\r\na", "\r\nb", 1), "SignatureDoesNotMatch", 0},
		{"a changed byte in the second", signed, seed, strings.Replace(documented(), "a\r\n0;", "b\r\n0;", 1), "SignatureDoesNotMatch", 65536},
		{"another seed", signed, trailerSeed, documented(), "SignatureDoesNotMatch", 0},
		{"the end is missing", signed, seed, documented()[:66700], "unexpected EOF", 65536},
		{"the last chunk is missing", signed, seed, strings.Split(documented(), "0;chunk-signature=b6")[0], "unexpected EOF", 66560},
		{"no signature", signed, seed, "1\r\na\r\n0\r\n\r\n", "InvalidRequest", 0},
		{"more", signed, seed, documented() + "x", "InvalidRequest", 66560},
		{"size", signed, seed, "x\r\n", "InvalidRequest", 0},
		{"negative size", unsigned, seed, "-1\r\n", "InvalidRequest", 0},
		{"huge size", signed, seed, "200001;chunk-signature=00\r\n", "InvalidRequest", 0},
		{"huge size, not signed", unsigned, seed, "140000001\r\n", "InvalidRequest", 0},
		{"beyond sizes", unsigned, seed, "fffffffff\r\n", "InvalidRequest", 0},
		{"longer than it says", unsigned, seed, "1\r\nab\r\n", "InvalidRequest", 1},
		{"a line feed alone", unsigned, seed, "1\na\n0\n\n", "InvalidRequest", 0},
		{"a long line", unsigned, seed, "1;" + strings.Repeat("x", 5000) + "\r\n", "InvalidRequest", 0},
		{"a signature where none is", unsigned, seed, "1;chunk-signature=00\r\na\r\n", "InvalidRequest", 0},
		{"trailer without signature", trailer, trailerSeed, strings.Split(documentedTrailer(), "x-amz-trailer-signature")[0] + "\r\n", "SignatureDoesNotMatch", 66560},
		{"changed trailer", trailer, trailerSeed, strings.Replace(documentedTrailer(), "sOO8", "sOO9", 1), "SignatureDoesNotMatch", 66560},
		{"no trailer", unsigned, seed, "0\r\nnothing\r\n\r\n", "InvalidRequest", 0},
		{"many trailers", unsigned, seed, "0\r\n" + strings.Repeat("a:b\r\n", 17) + "\r\n", "InvalidRequest", 0},
		{"another kind", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", seed, "", "InvalidRequest", 0},
	} {
		content, _, err := read(t, c.kind, c.seed, c.body)
		if got := code(err); got != c.code || len(content) != c.content {
			t.Errorf("%s: got %s after %d bytes, want %s after %d", c.name, got, len(content), c.code, c.content)
		}
	}
}

func FuzzChunked(f *testing.F) {
	f.Add(documented(), true)
	f.Add(documentedTrailer(), true)
	f.Add("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n", false)
	f.Add("0;\r\n\r\n", true)
	f.Fuzz(func(t *testing.T, body string, signed bool) {
		kind := "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
		if signed {
			kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
		}
		content, _, err := read(t, kind, seed, body)
		if e := (*sigv4.Error)(nil); err != nil && !errors.As(err, &e) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("an error of another type: %v", err)
		}
		if len(content) > len(body) || signed && !strings.HasPrefix(as, string(content)) {
			t.Fatalf("%d bytes that nobody signed", len(content))
		}
	})
}
