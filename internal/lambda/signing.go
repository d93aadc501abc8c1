package lambda

import (
	"crypto/rand"
	"strings"
	"time"
)

// SigningConfigARN is the full name of a code signing configuration.
type SigningConfigARN struct {
	Scope
	ID string // csc- and 17 characters
}

func (a SigningConfigARN) String() string {
	return "arn:aws:lambda:" + string(a.Region) + ":" + string(a.Account) + ":code-signing-config:" + a.ID
}

// NewSigningConfigID returns a random id.
func NewSigningConfigID() string { return "csc-" + strings.ToLower(rand.Text())[:17] }

// SigningConfig says whose signatures code must have where it is deployed.
type SigningConfig struct {
	ARN         SigningConfigARN
	Description string
	Publishers  []string // ARNs of versions of signing profiles
	Enforced    bool     // code without such a signature is refused; else it is only warned of
	Tags        map[string]string
	Modified    time.Time
}
