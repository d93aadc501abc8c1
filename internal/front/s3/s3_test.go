package s3_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"kiln/internal/front"
	"kiln/internal/front/s3"
	"kiln/internal/invoke/notification"
	"kiln/internal/state"
	"kiln/internal/state/objects"
	"kiln/internal/state/objects/inside"
)

// TestMain is also the process of the buckets.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "objects" {
		os.Exit(inside.Serve(os.Args[2:]))
	}
	os.Exit(m.Run())
}

const key, secret = "AKIDEXAMPLE", "a secret of forty characters, or nearly so"

type rig struct {
	*testing.T
	url  string
	full *error // what there is to say of free space
}

func newRig(t *testing.T) rig {
	log, full := slog.New(slog.DiscardHandler), new(error)
	store := objects.New(objects.Config{Dir: t.TempDir(), Run: t.TempDir(), Program: []string{os.Args[0], "objects"}, Log: log})
	t.Cleanup(func() { _ = store.Close() })
	door := s3.New(s3.Config{
		Access: front.NewAccess(front.Config{Account: "123456789012", Region: "us-east-1", AccessKey: key, Secret: secret}), Objects: store,
		Notifications: notification.New(nil, nil, nil, nil, nil, nil, store, log), Free: func() error { return *full }, Log: log,
	})
	server := httptest.NewServer(door.Handler(false))
	t.Cleanup(server.Close)
	r := rig{t, server.URL, full}
	if status, text := r.send("PUT", "/bucket", hashOf(""), nil, ""); status != 200 {
		t.Fatal(status, text)
	}
	return r
}

func hashOf(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }

// sign signs a request, whose body has the hash, or comes as that says.
func (r rig) sign(method, path, hash string, headers map[string]string) (*http.Request, time.Time) {
	q, err := http.NewRequestWithContext(r.Context(), method, r.url+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	for name, value := range headers {
		q.Header.Set(name, value)
	}
	q.Header.Set("X-Amz-Content-Sha256", hash)
	now := time.Now().UTC()
	if err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(r.Context(), aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}, q, hash, "s3", "us-east-1", now); err != nil {
		r.Fatal(err)
	}
	return q, now
}

// send sends a signed request.
func (r rig) send(method, path, hash string, headers map[string]string, body string) (int, string) {
	q, _ := r.sign(method, path, hash, headers)
	return r.do(q, body)
}

func (r rig) do(q *http.Request, body string) (int, string) {
	r.Helper()
	if body != "" {
		q.Body, q.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		r.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text)
}

// chunked is a body in signed chunks, with a trailer if there is one.
func chunked(q *http.Request, now time.Time, trailer string, chunks ...string) string {
	_, seed, _ := strings.Cut(q.Header.Get("Authorization"), "Signature=")
	first, _ := hex.DecodeString(seed)
	signer := v4.NewStreamSigner(aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}, "s3", "us-east-1", first)
	var b bytes.Buffer
	last := ""
	for _, c := range append(chunks, "") {
		signature, _ := signer.GetSignature(context.Background(), nil, []byte(c), now)
		last = hex.EncodeToString(signature)
		fmt.Fprintf(&b, "%x;chunk-signature=%s\r\n%s", len(c), last, c)
		if c != "" {
			b.WriteString("\r\n")
		}
	}
	if trailer != "" {
		signing := []byte("AWS4" + secret)
		for _, part := range []string{now.Format("20060102"), "us-east-1", "s3", "aws4_request"} {
			signing = mac(signing, part)
		}
		text := strings.Join([]string{"AWS4-HMAC-SHA256-TRAILER", now.Format("20060102T150405Z"), now.Format("20060102") + "/us-east-1/s3/aws4_request", last, hashOf(trailer + "\n")}, "\n")
		fmt.Fprintf(&b, "%s\r\nx-amz-trailer-signature:%x\r\n", trailer, mac(signing, text))
	}
	return b.String() + "\r\n"
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func crc(s string) string {
	return "x-amz-checksum-crc32:" + base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(s))))
}

// TestBodies stores bodies in each form, and nothing of what is wrong at any place.
func TestBodies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const signed, trailed, unsigned = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	one, two := strings.Repeat("1", 70_000), "22"
	content := one + two
	bare := func(trailer string) string {
		return fmt.Sprintf("%x\r\n%s\r\n0\r\n%s\r\n\r\n", len(content), content, trailer)
	}
	identity := func(s string) string { return s }
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	for _, c := range []struct {
		name, kind, trailer string
		length              int
		wrong               func(string) string
		code                string // "": it is stored
	}{
		{"whole", hashOf(content), "", 0, nil, ""},
		{"whole, not signed", "UNSIGNED-PAYLOAD", "", 0, nil, ""},
		{"whole, another hash", hashOf("other"), "", 0, nil, "XAmzContentSHA256Mismatch"},
		{"nothing", "UNSIGNED-PAYLOAD", "", 0, nil, ""},
		{"signed", signed, "", len(content), identity, ""},
		{"signed, a changed byte", signed, "", len(content), replace("11111", "11211"), "SignatureDoesNotMatch"},
		{"signed, a changed byte at the end", signed, "", len(content), replace("22\r\n", "23\r\n"), "SignatureDoesNotMatch"},
		{"signed, the last signature", signed, "", len(content), func(s string) string { return s[:len(s)-5] + "x" + s[len(s)-4:] }, "SignatureDoesNotMatch"},
		{"signed, more than it says", signed, "", len(content) - 1, identity, "IncompleteBody"},
		{"signed, less than it says", signed, "", len(content) + 1, identity, "IncompleteBody"},
		{"signed, the end is missing", signed, "", len(content), func(s string) string { return s[:len(s)-40] }, "IncompleteBody"},
		{"signed, no size", signed, "", len(content), replace("11170", "zz"), "InvalidRequest"},
		{"signed, with trailer", trailed, crc(content), len(content), identity, ""},
		{"signed, with a wrong trailer", trailed, crc("other"), len(content), identity, "BadDigest"},
		{"signed, with a changed trailer", trailed, crc(content), len(content), replace("crc32:", "crc32:A"), "SignatureDoesNotMatch"},
		{"not signed, with trailer", unsigned, crc(content), len(content), identity, ""},
		{"not signed, with a wrong trailer", unsigned, crc("other"), len(content), identity, "BadDigest"},
		{"not signed, the end is missing", unsigned, crc(content), len(content), func(s string) string { return s[:len(s)-60] }, "IncompleteBody"},
		{"another kind", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "", len(content), nil, "InvalidRequest"},
		{"no length", signed, "", -1, identity, "MissingContentLength"},
	} {
		path := "/bucket/" + strings.ReplaceAll(strings.ReplaceAll(c.name, " ", "-"), ",", "")
		headers := map[string]string{}
		if c.length > 0 {
			headers["X-Amz-Decoded-Content-Length"] = fmt.Sprint(c.length)
			headers["Content-Encoding"] = "aws-chunked"
		}
		if c.trailer != "" {
			headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
		}
		q, now := r.sign("PUT", path, c.kind, headers)
		body := content
		if c.name == "nothing" {
			body = ""
		}
		switch {
		case c.kind == unsigned:
			body = c.wrong(bare(c.trailer))
		case c.wrong != nil:
			body = c.wrong(chunked(q, now, c.trailer, one, two))
		}
		status, text := r.do(q, body)
		if ok := c.code == "" && status == 200 || c.code != "" && strings.Contains(text, "<Code>"+c.code+"</Code>"); !ok {
			t.Errorf("%s: %d %s, want %s", c.name, status, text, c.code)
		}
		status, text = r.send("GET", path, hashOf(""), nil, "")
		if c.code == "" && (status != 200 || text != content && c.name != "nothing") || c.code != "" && status != 404 {
			t.Errorf("%s: then there is %d %.200s", c.name, status, text)
		}
	}
}

// TestRefusals asks for what is not there, and for what must not reach the process of the buckets.
func TestRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct{ method, path, code string }{
		{"PATCH", "/create-user", "NotImplemented"}, // is for its administrators
		{"PUT", "/bucket?policy", "NotImplemented"},
		{"PUT", "/bucket?acl", "NotImplemented"},
		{"POST", "/bucket", "NotImplemented"},
		{"PUT", "/bucket?tagging&versioning", "InvalidArgument"},
		{"PUT", "/bucket/key?partNumber=1", "InvalidArgument"},
		{"PUT", "/bucket/key?uploadId=1", "InvalidArgument"},
		{"GET", "/bucket/a/../b", "InvalidArgument"},
		{"GET", "/bucket/a/%2E%2E/%2E%2E/c", "InvalidArgument"},
		{"GET", "/bucket//b", "InvalidArgument"},
		{"PUT", "/bucket/a%00b", "InvalidArgument"},
		{"GET", "/..", "NoSuchBucket"},
		{"GET", "/absent/key", "NoSuchBucket"},
		{"GET", "/bucket/absent", "NoSuchKey"},
		{"PUT", "/Not_A_Name", "InvalidBucketName"},
		{"GET", "/bucket/" + strings.Repeat("x", 1100), "KeyTooLongError"},
		{"POST", "/bucket?delete", "MalformedXML"},
		{"PUT", "/bucket?notification", "MalformedXML"},
	} {
		if status, text := r.send(c.method, c.path, hashOf(""), nil, ""); !strings.Contains(text, "<Code>"+c.code+"</Code>") {
			t.Errorf("%s %s: %d %s, want %s", c.method, c.path, status, text, c.code)
		}
	}
	for name, value := range map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"} {
		if status, text := r.send("PUT", "/bucket/key", hashOf("x"), map[string]string{name: value}, "x"); status != 501 || !strings.Contains(text, strings.ToLower(name)) {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	if status, text := r.send("PUT", "/bucket/encrypted", hashOf("x"), map[string]string{"X-Amz-Server-Side-Encryption": "AES256"}, "x"); status != 200 {
		t.Errorf("what AWS does unasked: %d %s", status, text)
	}
	big := map[string]string{"X-Amz-Meta-Big": strings.Repeat("x", 100_000)}
	if status, text := r.send("PUT", "/bucket/key", hashOf("x"), big, "x"); status != 400 || !strings.Contains(text, "RequestHeaderSectionTooLarge") {
		t.Errorf("large headers: %d %s", status, text)
	}
	q, _ := r.sign("PUT", "/bucket/key", hashOf("x"), nil)
	q.Header.Set("Authorization", q.Header.Get("Authorization")[:len(q.Header.Get("Authorization"))-4]+"0000")
	if status, text := r.do(q, "x"); status != 403 || !strings.Contains(text, "<Code>SignatureDoesNotMatch</Code>") {
		t.Errorf("another signature: %d %s", status, text)
	}
	*r.full = fmt.Errorf("test: %w", state.ErrFull)
	if status, text := r.send("PUT", "/bucket/key", hashOf("x"), nil, "x"); status != 507 || !strings.Contains(text, "free_space_floor") {
		t.Errorf("a full disk: %d %s", status, text)
	}
	*r.full = nil
	if status, _ := r.send("GET", "/bucket/key", hashOf(""), nil, ""); status != 404 {
		t.Errorf("something of it is there: %d", status)
	}
}
