package sigv4

import (
	"crypto/hmac"
	"crypto/sha1" // as the old signatures have it
	"crypto/subtle"
	"encoding/base64"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Presigned URLs of S3 in the version before: botocore, and with it version 1 of the AWS
// CLI, still makes them unless it is told otherwise. They name no region. Nothing else
// of that version is read.
// https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html

// signedParameters are what of a query such a signature is over.
var signedParameters = strings.Fields(`accelerate acl cors defaultObjectAcl delete lifecycle location logging notification partNumber policy
	replication requestPayment response-cache-control response-content-disposition response-content-encoding response-content-language
	response-content-type response-expires restore tagging torrent uploadId uploads versionId versioning versions website`)

func isVersion2(q url.Values) bool {
	return q.Has("AWSAccessKeyId") && q.Has("Signature") && q.Has("Expires")
}

func parseVersion2(q url.Values) (*Signature, error) {
	end, err := strconv.ParseInt(q.Get("Expires"), 10, 64)
	if err != nil {
		return nil, incomplete("Expires must be a number of seconds since 1970.")
	}
	return &Signature{
		AccessKey: q.Get("AWSAccessKeyId"), Service: "s3", Signature: q.Get("Signature"), SessionToken: q.Get("x-amz-security-token"),
		Presigned: true, version2: true, ends: time.Unix(end, 0).UTC(),
	}, nil
}

// verifyVersion2 is Verify of such a URL, which is over no body.
func (s *Signature) verifyVersion2(r *http.Request, secret string) error {
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(version2Text(r)))
	if want := base64.StdEncoding.EncodeToString(mac.Sum(nil)); subtle.ConstantTimeCompare([]byte(want), []byte(s.Signature)) != 1 {
		return mismatch()
	}
	return nil
}

// version2Text is what is signed.
func version2Text(r *http.Request) string {
	q := r.URL.Query()
	either := func(name string) string {
		if v := r.Header.Get(name); v != "" {
			return v
		}
		return q.Get(strings.ToLower(name))
	}
	amz := map[string]string{}
	for _, from := range []map[string][]string{q, r.Header} {
		for name, values := range from {
			if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") {
				amz[name] = strings.Join(values, ",")
			}
		}
	}
	lines := []string{r.Method, either("Content-Md5"), either("Content-Type"), q.Get("Expires")}
	for _, name := range slices.Sorted(maps.Keys(amz)) {
		lines = append(lines, name+":"+strings.TrimSpace(amz[name]))
	}
	path := r.URL.EscapedPath()
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if bucket, virtual := strings.CutSuffix(host, ".localhost"); virtual {
		bucket, _, _ = strings.Cut(bucket, ".s3")
		path = "/" + bucket + path
	}
	var parameters []string
	for _, name := range signedParameters {
		if values, ok := q[name]; ok {
			if values[0] != "" {
				name += "=" + values[0]
			}
			parameters = append(parameters, name)
		}
	}
	slices.Sort(parameters)
	if len(parameters) > 0 {
		path += "?" + strings.Join(parameters, "&")
	}
	return strings.Join(append(lines, path), "\n")
}
