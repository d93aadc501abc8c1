// Package identity is who may call: the access keys and roles of every account,
// with their policies, and the sessions of roles. It makes each change durable
// before it answers, and keeps all in memory, so that a call touches no store. The
// doors change it, and front asks it who signed and what they may do; it decides
// nothing itself.
package identity

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"time"

	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/table"
)

// Sealer encrypts what must not lie on the disk in clear.
type Sealer interface {
	Seal(plaintext, context []byte) ([]byte, error)
	Unseal(sealed, context []byte) ([]byte, error)
}

// global is where records lie that belong to no region, as all identities do.
const global lambda.Region = "global"

// Store is safe for concurrent use.
type Store struct {
	sealer   Sealer
	keys     keys
	roles    roles
	sessions sessions
}

// New returns an empty store.
func New(st state.State, sealer Sealer) *Store {
	return &Store{
		sealer: sealer, keys: keys{table: table.New[Key](st, "key"), byID: map[string]*credential{}},
		roles: newRoles(st), sessions: sessions{byKey: map[string]*known{}},
	}
}

// Open loads everything.
func (s *Store) Open(ctx context.Context) error {
	if err := s.roles.open(ctx); err != nil {
		return err
	}
	return s.openKeys(ctx)
}

// Credential is what a request may be signed with.
type Credential struct {
	Principal lambda.Principal
	Secret    string
	Token     string    // of a session; "" for a key
	Expires   time.Time // the zero time: never
}

// Rights are what an identity may do: what Policies allow and, where there are
// Limits or a Boundary, what those allow too.
type Rights struct {
	All      bool // in its own account
	Policies []policy.Document
	Limits   []policy.Document // of a session; nil for none
	Boundary []policy.Document // of a role; nil for none
}

// Credential finds what the access key id stands for.
func (s *Store) Credential(accessKey string) (Credential, bool) {
	c, ok := s.keys.find(accessKey)
	if !ok {
		return Credential{}, false
	}
	return c.Credential, true
}

// Rights finds what a credential's holder may do. It is not ok once the
// credential is revoked.
func (s *Store) Rights(accessKey string) (Rights, bool) {
	c, ok := s.keys.find(accessKey)
	if !ok {
		return s.sessionRights(accessKey)
	}
	return c.rights, true
}

// random returns n characters of [A-Z2-7], 5 bits each.
func random(n int) string {
	b := make([]byte, (n*5+7)/8)
	_, _ = rand.Read(b) // never fails
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)[:n]
}

// newSecret returns 40 characters, as AWS's secrets have, of 240 bits.
func newSecret() string {
	b := make([]byte, 30)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}
