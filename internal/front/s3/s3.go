// Package s3 is the door of S3: it finds out who calls and what is asked for, whether the
// caller's policies allow it, and has package objects do it. Bodies pass by, in both
// directions, and are never held. It knows what a bucket's notifications must be told;
// when, and of what, and to whom they go is invoke/notification's.
//
// It keeps no objects and no protocol of its own: what is not here answers that it is not built.
package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"kiln/internal/aws/policy"
	"kiln/internal/aws/sigv4"
	"kiln/internal/aws/wire"
	"kiln/internal/front"
	"kiln/internal/invoke/notification"
	"kiln/internal/lambda"
	"kiln/internal/state"
)

const (
	// maxRequests is how many are served at once: each holds a connection to the
	// process of the buckets, and at most a chunk of its body.
	maxRequests = 256
	// maxHead bounds the URL and the headers of a request, in bytes: with those that Kiln
	// adds, the process of the buckets takes 8 KiB.
	maxHead = 7 << 10
	// patience is how long another waits for one of those to end.
	patience = 10 * time.Second
)

// Objects keeps the objects; it is objects.Store.
type Objects interface {
	Do(scope lambda.Scope, r *http.Request) (*http.Response, error)
	Region(scope lambda.Scope, bucket string) (lambda.Region, bool)
}

// Config of a Door. All fields are required.
type Config struct {
	Access  *front.Access
	Objects Objects
	// Notifications has who is to be told of the objects of buckets.
	Notifications *notification.Service
	Audit         *front.Audit
	// Free fails with state.ErrFull when nothing more may be written.
	Free func() error
	Log  *slog.Logger
}

// Door makes handlers.
type Door struct {
	Config
	places chan struct{} // holds one for each request under way
}

// New returns a Door.
func New(c Config) *Door { return &Door{Config: c, places: make(chan struct{}, maxRequests)} }

// Handler serves the API; inside is for requests from within environments.
func (d *Door) Handler(inside bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{door: d, w: w, r: r, id: strings.ToUpper(strings.ReplaceAll(string(lambda.NewRequestID()), "-", "")[:16])}
		c.bucket, c.key = where(r)
		var err error
		if c.caller, err = d.Access.Authenticate(r, inside); err == nil {
			err = c.serve()
		}
		var f *wire.Fault
		if err != nil {
			f = c.fault(err)
			c.refuse(f, err)
		}
		d.Audit.Record(front.Act{
			Who: c.caller.Principal, Operation: c.operation.name, Action: c.action(), Resource: c.resource(), RequestID: c.id,
			Changes: c.operation.changes, Fault: f,
		})
	})
}

// call is one request.
type call struct {
	door        *Door
	w           http.ResponseWriter
	r           *http.Request
	id          string // of the request
	caller      front.Caller
	bucket, key string // "" where the request has none
	operation   operation
	chunks      *sigv4.Reader // of the body, if it comes in chunks
	length      int64         // of the body, without chunks
	cut         bool          // the body was wrong, and nothing of it is kept
	answered    bool          // the answer has begun
}

func (c *call) scope() lambda.Scope { return c.caller.Scope }

// arn is a bucket's, an object's, or of what * stands for.
type arn struct {
	name  string
	owner lambda.AccountID
}

func (a arn) Owner() lambda.AccountID { return a.owner }

func (a arn) String() string {
	if a.name == "" {
		return "*"
	}
	return "arn:aws:s3:::" + a.name
}

func (c *call) resource() lambda.ARN {
	name := c.bucket
	if c.key != "" {
		name += "/" + c.key
	}
	return arn{name, c.caller.Scope.Account}
}

// action is what a policy must allow.
func (c *call) action() string {
	if c.operation.versioned != "" && c.r.URL.Query().Has("versionId") {
		return c.operation.versioned
	}
	return c.operation.action
}

// may checks that the caller may do the action on what the request is about.
func (c *call) may(action string, on lambda.ARN) error {
	keys, q := policy.Keys{}, c.r.URL.Query()
	for key, parameter := range map[string]string{"s3:prefix": "prefix", "s3:delimiter": "delimiter", "s3:max-keys": "max-keys", "s3:VersionId": "versionId"} {
		if q.Has(parameter) {
			keys.Set(key, q.Get(parameter))
		}
	}
	return c.door.Access.AuthoriseWith(c.caller.Principal, action, on, keys)
}

// serve answers the request, unless it returns an error.
func (c *call) serve() (err error) {
	if c.operation, err = operationOf(c.r, c.key != "", c.bucket != ""); err != nil {
		return err
	}
	if c.chunks, err = c.caller.Chunks(); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	leave, err := c.enter()
	if err != nil {
		return err
	}
	defer leave()
	if c.operation.serve != nil {
		return c.operation.serve(c)
	}
	return c.pass()
}

// check refuses what may not be done, or cannot.
func (c *call) check() error {
	// The process of the buckets takes such a key for a path, and so for another key.
	if unusable(c.key) {
		return fault(http.StatusBadRequest, "InvalidArgument", "Kiln keeps no object whose key has . or .. between its slashes, two slashes in a row, or a zero byte: give it another key.")
	}
	size := len(c.r.URL.RequestURI())
	for name, values := range c.r.Header {
		if isPassed(name) {
			size += len(name) + len(strings.Join(values, ""))
		}
	}
	if size > maxHead {
		return fault(http.StatusBadRequest, "RequestHeaderSectionTooLarge", "Your request header and query size exceeds the maximum allowed size.")
	}
	if c.operation.action != "" {
		if err := c.may(c.action(), c.resource()); err != nil {
			return err
		}
	}
	if owner := c.r.Header.Get("X-Amz-Expected-Bucket-Owner"); owner != "" && owner != string(c.scope().Account) {
		return fault(http.StatusForbidden, "AccessDenied", "Access Denied")
	}
	if name := c.encrypts(); name != "" {
		return fault(http.StatusNotImplemented, "NotImplemented", "A header you provided implies functionality that is not implemented: "+name+". Kiln encrypts no objects with keys of yours; leave it out.")
	}
	if c.bucket == "" {
		return nil
	}
	region, found := c.door.Objects.Region(c.scope(), c.bucket)
	create := c.operation.name == "CreateBucket"
	switch {
	case create && found && region != c.scope().Region:
		return fault(http.StatusConflict, "BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it.")
	case create:
		return nil
	case !found:
		return noBucket()
	case c.caller.Unregioned:
		c.caller.Scope.Region = region
	case region != c.scope().Region: // clients ask again, there
		c.w.Header().Set("X-Amz-Bucket-Region", string(region))
		return fault(http.StatusMovedPermanently, "PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint.")
	}
	return nil
}

func noBucket() error {
	return fault(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")
}

// unusable tells whether the process of the buckets would take the key for another.
func unusable(key string) bool {
	for part := range strings.SplitSeq(strings.TrimSuffix(key, "/"), "/") {
		if part == "." || part == ".." || part == "" && key != "" {
			return true
		}
	}
	return strings.ContainsRune(key, 0)
}

// enter waits for a place.
func (c *call) enter() (leave func(), err error) {
	ctx, cancel := context.WithTimeout(c.r.Context(), patience)
	defer cancel()
	select {
	case c.door.places <- struct{}{}:
		return func() { <-c.door.places }, nil
	case <-ctx.Done():
		return nil, fault(http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	}
}

func fault(status int, code, message string) *wire.Fault {
	return &wire.Fault{Code: code, Status: status, Message: message}
}

// codes are what S3 calls refusals.
var codes = map[string]struct {
	code   string
	status int
}{
	"AccessDeniedException":               {"AccessDenied", http.StatusForbidden},
	"ExpiredTokenException":               {"ExpiredToken", http.StatusBadRequest},
	"IncompleteSignatureException":        {"AuthorizationHeaderMalformed", http.StatusBadRequest},
	"InvalidSignatureException":           {"SignatureDoesNotMatch", http.StatusForbidden},
	"MissingAuthenticationTokenException": {"AccessDenied", http.StatusForbidden},
	"UnrecognizedClientException":         {"InvalidAccessKeyId", http.StatusForbidden},
}

// fault is how an error looks to the caller. What the caller did not cause is logged
// whole and told without its inside.
func (c *call) fault(err error) *wire.Fault {
	var f *wire.Fault
	var bad *notification.Invalid
	if errors.As(err, &f) {
		return f
	}
	switch {
	case errors.As(err, &bad):
		return fault(http.StatusBadRequest, "InvalidArgument", bad.Message)
	case errors.Is(err, notification.ErrBusy):
		return fault(http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	}
	if f := front.Refusal(err); f != nil {
		if as, ok := codes[f.Code]; ok {
			f.Code, f.Status = as.code, as.status
		}
		switch {
		case f.Code == "SignatureDoesNotMatch" && strings.HasPrefix(f.Message, "Signature expired"):
			f.Code, f.Message = "AccessDenied", "Request has expired. "+f.Message
			if c.r.Header.Get("Authorization") != "" {
				f.Code = "RequestTimeTooSkewed"
			}
		case f.Code == "SignatureDoesNotMatch" && strings.Contains(f.Message, "x-amz-content-sha256"):
			f.Code, f.Status = "InvalidRequest", http.StatusBadRequest
		}
		return f
	}
	switch {
	case errors.Is(err, state.ErrFull):
		return fault(http.StatusInsufficientStorage, "InsufficientStorage", "Kiln's disk is below the floor of free space that it leaves (free_space_floor). Free some and try again.")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errLength), c.r.Context().Err() != nil:
		return fault(http.StatusBadRequest, "IncompleteBody", "The request body terminated unexpectedly")
	}
	c.door.Log.Error("operation of S3 failed", "operation", c.operation.name, "error", err)
	return fault(http.StatusInternalServerError, "InternalError", fmt.Sprintf("Kiln failed to carry out %s; its log says why.", c.operation.name))
}

// refuse writes a fault as S3 does.
func (c *call) refuse(f *wire.Fault, err error) {
	if c.answered { // half of an answer must not look like a whole one
		panic(http.ErrAbortHandler)
	}
	type body struct {
		XMLName   xml.Name `xml:"Error"`
		Code      string
		Message   string
		Resource  string
		RequestID string `xml:"RequestId"`
		Argument  string `xml:"ArgumentName1,omitempty"`
		Value     string `xml:"ArgumentValue1,omitempty"`
	}
	out := body{Code: f.Code, Message: f.Message, Resource: c.r.URL.Path, RequestID: c.id}
	if bad := (*notification.Invalid)(nil); errors.As(err, &bad) {
		out.Argument, out.Value = bad.Argument, bad.Value
	}
	if f.Status >= http.StatusInternalServerError || c.r.ContentLength != 0 {
		c.w.Header().Set("Connection", "close") // what comes of the body is not waited for
	}
	c.answer(f.Status, out)
}

// answer writes XML.
func (c *call) answer(status int, body any) {
	h := c.w.Header()
	h.Set("X-Amz-Request-Id", c.id)
	h.Set("Content-Type", "application/xml")
	c.answered = true
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return
	}
	_, _ = io.WriteString(c.w, xml.Header) // the caller is gone if this fails
	_ = xml.NewEncoder(c.w).Encode(body)
}

// encrypts is the header, if any, that asks for an encryption whose keys are the
// client's. Nobody is to think that an object is kept like that. AES256, which AWS does
// unasked, is the disk's to do.
func (c *call) encrypts() string {
	const asked = "X-Amz-Server-Side-Encryption"
	for name, values := range c.r.Header {
		if name == asked && values[0] != "AES256" || strings.HasPrefix(name, asked+"-") || strings.HasPrefix(name, "X-Amz-Copy-Source-Server-Side-Encryption-") {
			return strings.ToLower(name)
		}
	}
	return ""
}
