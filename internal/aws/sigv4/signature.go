// Package sigv4 reads and verifies AWS Signature Version 4, and what is still in use of
// the version before: in the Authorization header, in presigned queries and in the chunks of a body, and makes presigned URLs.
//
// It knows no keys and no services: the gateway asks Parse who signed, looks the
// secret up, and asks Verify. The arithmetic is the SDK's own signer, run again
// over what arrived; for chunks the SDK has none.
package sigv4

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxExpiry bounds the life of a presigned request.
const MaxExpiry = 7 * 24 * time.Hour

// MaxSkew is how far the clock of a signer may be off.
const MaxSkew = 5 * time.Minute

const (
	algorithm  = "AWS4-HMAC-SHA256"
	dateFormat = "20060102T150405Z"
)

// Signature is what a request says about who signed it and how. Nothing in it is
// proven before Verify.
type Signature struct {
	AccessKey     string
	Date          time.Time
	Region        string
	Service       string
	SignedHeaders []string // lower case, in the order given
	Signature     string
	SessionToken  string
	Presigned     bool
	Expires       time.Duration // of a presigned request; 0 if it does not say

	version2 bool      // and there is no Date and no Region
	ends     time.Time // of such a one
}

// Error is a refusal in AWS's words.
type Error struct {
	Code    string
	Status  int
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// MissingToken is what a request without any signature gets.
func MissingToken() *Error {
	return &Error{"MissingAuthenticationTokenException", http.StatusForbidden, "Missing Authentication Token"}
}

// UnknownKey is what a request signed with a key that nobody has gets.
func UnknownKey() *Error {
	return &Error{"UnrecognizedClientException", http.StatusForbidden, "The security token included in the request is invalid."}
}

// ExpiredToken is what a request signed with a session that has ended gets.
func ExpiredToken() *Error {
	return &Error{"ExpiredTokenException", http.StatusForbidden, "The security token included in the request is expired"}
}

// BadRegion is what a request signed for something that is no region gets.
func BadRegion() *Error { return invalid("Credential should be scoped to a valid region.") }

// WrongService is what a request signed for another service gets.
func WrongService(service string) *Error {
	return invalid("Credential should be scoped to correct service: '" + service + "'.")
}

func incomplete(message string) *Error {
	return &Error{"IncompleteSignatureException", http.StatusForbidden, message}
}

func invalid(message string) *Error {
	return &Error{"InvalidSignatureException", http.StatusForbidden, message}
}

// Present tells whether r claims to be signed, well or badly.
func Present(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" || presigned(r.URL.Query())
}

func presigned(q url.Values) bool {
	return q.Has("X-Amz-Algorithm") || q.Has("X-Amz-Signature") || isVersion2(q)
}

// Parse reads the signature of r without any key. Its errors are *Error.
func Parse(r *http.Request) (*Signature, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		return parseHeader(r, h)
	}
	switch q := r.URL.Query(); {
	case isVersion2(q):
		return parseVersion2(q)
	case presigned(q):
		return parseQuery(q)
	}
	return nil, MissingToken()
}

func parseHeader(r *http.Request, h string) (*Signature, error) {
	name, rest, _ := strings.Cut(h, " ")
	if name != algorithm {
		return nil, incomplete("Unsupported AWS 'algorithm': '" + name + "'.")
	}
	part := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok {
			return nil, incomplete("'" + strings.TrimSpace(field) + "' not a valid key=value pair (missing equal-sign) in Authorization header.")
		}
		if _, twice := part[key]; twice {
			return nil, incomplete("Authorization header has the parameter '" + key + "' more than once.")
		}
		part[key] = value
	}
	var missing []string
	for _, key := range []string{"Credential", "Signature", "SignedHeaders"} {
		if part[key] == "" {
			missing = append(missing, "Authorization header requires '"+key+"' parameter.")
		}
	}
	dates := r.Header.Values("X-Amz-Date")
	if len(dates) != 1 {
		missing = append(missing, "Authorization header requires existence of exactly one 'X-Amz-Date' header.")
	}
	if missing != nil {
		return nil, incomplete(strings.Join(missing, " "))
	}
	s := &Signature{Signature: part["Signature"], SessionToken: r.Header.Get("X-Amz-Security-Token")}
	return s, s.fill(part["Credential"], dates[0], part["SignedHeaders"])
}

func parseQuery(q url.Values) (*Signature, error) {
	var missing []string
	for _, key := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if len(q[key]) != 1 || q[key][0] == "" {
			missing = append(missing, "AWS query-string parameters must include '"+key+"', once.")
		}
	}
	if missing != nil {
		return nil, incomplete(strings.Join(missing, " "))
	}
	if a := q.Get("X-Amz-Algorithm"); a != algorithm {
		return nil, incomplete("Unsupported AWS 'algorithm': '" + a + "'.")
	}
	s := &Signature{Signature: q.Get("X-Amz-Signature"), SessionToken: q.Get("X-Amz-Security-Token"), Presigned: true}
	if q.Has("X-Amz-Expires") {
		n, err := strconv.ParseInt(q.Get("X-Amz-Expires"), 10, 32)
		if err != nil || n < 1 || time.Duration(n)*time.Second > MaxExpiry {
			return nil, incomplete("X-Amz-Expires must be a number of seconds from 1 to " + strconv.Itoa(int(MaxExpiry/time.Second)) + ".")
		}
		s.Expires = time.Duration(n) * time.Second
	}
	return s, s.fill(q.Get("X-Amz-Credential"), q.Get("X-Amz-Date"), q.Get("X-Amz-SignedHeaders"))
}

// fill reads the parts that both forms have.
func (s *Signature) fill(credential, date, headers string) error {
	at, err := time.Parse(dateFormat, date)
	if err != nil {
		return incomplete("Date must be in ISO-8601 'basic format'. Got '" + date + "'. See http://en.wikipedia.org/wiki/ISO_8601")
	}
	// An access key holds no slash; the four parts after it are the scope.
	part := strings.Split(credential, "/")
	if len(part) != 5 || slices.Contains(part, "") || part[4] != "aws4_request" {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/aws4_request, got '" + credential + "'.")
	}
	if day := at.Format("20060102"); part[1] != day {
		return invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" + part[1] + "' != '" + day + "', from '" + date + "'.")
	}
	s.AccessKey, s.Date, s.Region, s.Service = part[0], at, part[2], part[3]
	s.SignedHeaders = strings.Split(strings.ToLower(headers), ";")
	if !slices.Contains(s.SignedHeaders, "host") {
		return invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	return nil
}

// CheckTime tells whether the request may be made now. Verify asks it too; asking
// before the body is read spares reading a body in vain.
func (s *Signature) CheckTime(now time.Time) error {
	now = now.UTC()
	if s.version2 {
		if now.After(s.ends) {
			return expired(s.ends, now)
		}
		return nil
	}
	if earliest := s.Date.Add(-MaxSkew); now.Before(earliest) {
		return invalid("Signature not yet current: " + s.Date.Format(dateFormat) + " is still later than " +
			now.Add(MaxSkew).Format(dateFormat) + " (" + now.Format(dateFormat) + " + 5 min.)")
	}
	if s.Expires > 0 {
		if end := s.Date.Add(s.Expires); now.After(end) {
			return expired(end, now)
		}
		return nil
	}
	if now.After(s.Date.Add(MaxSkew)) {
		return invalid("Signature expired: " + s.Date.Format(dateFormat) + " is now earlier than " +
			now.Add(-MaxSkew).Format(dateFormat) + " (" + now.Format(dateFormat) + " - 5 min.)")
	}
	return nil
}

func expired(end, now time.Time) error {
	return invalid("Signature expired: " + end.Format(dateFormat) + " is now earlier than " + now.Format(dateFormat))
}
