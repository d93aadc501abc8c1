package lambda

import (
	"crypto/rand"
	"strings"
	"time"
)

// FunctionURL makes a function, or one of its aliases, reachable over plain HTTP. It
// is immutable: a change makes a new one.
type FunctionURL struct {
	ID         string // of 32 letters and digits, for the life of the URL; no two have the same
	AuthType   string // NONE or AWS_IAM
	InvokeMode string // RESPONSE_STREAM or BUFFERED; "" was not given, and is BUFFERED
	CORS       *CORS  // nil: none was given
	Created    time.Time
	Modified   time.Time
}

// NewFunctionURLID returns a random id: 160 bits, so that no two are the same.
func NewFunctionURLID() string { return strings.ToLower(rand.Text() + rand.Text())[:32] }

// CORS says which pages of other origins may read the answers of a function URL. nil
// is what was not given.
type CORS struct {
	Credentials   *bool
	Headers       []string
	Methods       []string
	Origins       []string
	ExposeHeaders []string
	MaxAge        *int // seconds
}
