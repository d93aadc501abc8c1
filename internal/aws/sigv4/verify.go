package sigv4

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const unsignedPayload = "UNSIGNED-PAYLOAD"

// BodyHash is the hash of a body as signatures use it.
func BodyHash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// Verify tells whether secret made the signature of r, which Parse read from the
// same, unchanged request. bodyHash is BodyHash of the body that arrived.
//
// An empty bodyHash is for doors that check the body while it passes by: then
// the X-Amz-Content-Sha256 header alone counts, and what it promises of the body
// is theirs to check.
//
// Its errors are *Error. It changes nothing and keeps nothing between calls: the
// SDK's cache of derived keys would not notice that a key got a new secret.
func Verify(r *http.Request, s *Signature, secret, bodyHash string, now time.Time) error {
	if err := s.CheckTime(now); err != nil {
		return err
	}
	if s.version2 {
		return s.verifyVersion2(r, secret)
	}
	hashes, err := s.payloadHashes(r, bodyHash)
	if err != nil {
		return err
	}
	for _, hash := range hashes {
		want, err := s.sign(r, secret, hash)
		if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(s.Signature)) == 1 {
			return nil
		}
	}
	return mismatch()
}

func mismatch() error {
	return invalid("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
}

// payloadHashes are the values that the signer may have used for the payload.
func (s *Signature) payloadHashes(r *http.Request, bodyHash string) ([]string, error) {
	claimed := r.Header.Get("X-Amz-Content-Sha256")
	isHash := len(claimed) == sha256.Size*2 && !strings.ContainsFunc(claimed, func(c rune) bool { return !strings.ContainsRune("0123456789abcdef", c) })
	switch {
	case isHash && bodyHash != "" && claimed != bodyHash:
		return nil, invalid("The provided 'x-amz-content-sha256' header does not match what was computed.")
	case s.Presigned && claimed == "" && bodyHash != "":
		return []string{bodyHash, unsignedPayload}, nil
	case s.Presigned && claimed == "":
		return []string{unsignedPayload}, nil
	case isHash, s.Service == "s3" && claimed != "", s.Presigned && claimed == unsignedPayload:
		return []string{claimed}, nil
	case claimed != "":
		return nil, invalid("'x-amz-content-sha256' must be the SHA-256 of the request body in hex.")
	case bodyHash == "":
		return nil, invalid("Missing required header for this request: x-amz-content-sha256")
	}
	return []string{bodyHash}, nil
}

// sign computes the signature that the request should have.
func (s *Signature) sign(r *http.Request, secret, payloadHash string) (string, error) {
	u := *r.URL
	again := &http.Request{Method: r.Method, URL: &u, Host: r.Host, Header: http.Header{}}
	for _, name := range s.SignedHeaders {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			key := textproto.CanonicalMIMEHeaderKey(name)
			// The signer appends to what it is given.
			again.Header[key] = slices.Clone(r.Header[key])
		}
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = s.Service == "s3"
		o.DisableHeaderHoisting = true
		o.DisableSessionToken = true // it stands in the header or query already
	})
	credentials := aws.Credentials{AccessKeyID: s.AccessKey, SecretAccessKey: secret}
	if !s.Presigned {
		if err := signer.SignHTTP(context.Background(), credentials, again, payloadHash, s.Service, s.Region, s.Date); err != nil {
			return "", err
		}
		_, signature, _ := strings.Cut(again.Header.Get("Authorization"), "Signature=")
		return signature, nil
	}
	q := u.Query()
	q.Del("X-Amz-Signature")
	u.RawQuery = q.Encode()
	signed, _, err := signer.PresignHTTP(context.Background(), credentials, again, payloadHash, s.Service, s.Region, s.Date)
	if err != nil {
		return "", err
	}
	_, signature, _ := strings.Cut(signed, "&X-Amz-Signature=")
	return signature, nil
}

// Presign returns rawURL with a signature in its query that lets anyone GET it
// until it expires.
func Presign(rawURL, key, secret, region, service string, expires time.Duration, now time.Time) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", err
	}
	q := u.Query()
	q.Set("X-Amz-Expires", strconv.Itoa(int(expires/time.Second)))
	u.RawQuery = q.Encode()
	r := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{}}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
	signed, _, err := signer.PresignHTTP(context.Background(), aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}, r, unsignedPayload, service, region, now)
	return signed, err
}
