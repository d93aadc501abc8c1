package identity

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
	"kiln/internal/state/table"
)

// Key is an access key of an account. Its record stays when it is revoked, without
// the secret: a Kiln that had a key stays closed, and no id is given twice.
type Key struct {
	ID      string // such as AKIAIOSFODNN7EXAMPLE
	Account lambda.AccountID
	Name    string // unique among the account's keys that are not revoked
	Policy  string // as it was given; "" for everything in the account
	Created time.Time
	Revoked time.Time // the zero time: it is in use
	Sealed  []byte    // secret
}

// ARN is the key's holder, as policies and refusals name it.
func (k *Key) ARN() string { return UserARN(k.Account, k.Name) }

// UserARN is the ARN of the holder of a key with that name.
func UserARN(account lambda.AccountID, name string) string {
	return "arn:aws:iam::" + string(account) + ":user/" + name
}

// keys are the access keys, on disk and ready for use.
type keys struct {
	table    *table.Table[Key]
	changing sync.Mutex // held from before a change is written until it counts; taken before mu

	any atomic.Bool // there is one, or was

	mu   sync.RWMutex
	byID map[string]*credential // guarded by mu; those that are not revoked
}

// credential is a key that is ready for use. It is replaced, never changed.
type credential struct {
	Credential
	rights Rights
}

func (k *keys) find(id string) (*credential, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c, ok := k.byID[id]
	return c, ok
}

func (s *Store) openKeys(ctx context.Context) error {
	if err := s.keys.table.Open(ctx); err != nil {
		return err
	}
	for _, k := range s.keys.table.All() {
		secret := ""
		if k.Revoked.IsZero() {
			clear, err := s.sealer.Unseal(k.Sealed, k.place())
			if err != nil {
				return fmt.Errorf("unseal the secret of the access key %s: %w", k.ID, err)
			}
			secret = string(clear)
		}
		if err := s.admit(k, secret); err != nil {
			return err
		}
	}
	return nil
}

// place is what a sealed secret is bound to.
func (k *Key) place() []byte { return []byte("key." + string(k.Account) + "." + k.ID) }

// admit makes a key count, or end.
func (s *Store) admit(k *Key, secret string) error {
	c := &credential{
		Credential: Credential{Principal: lambda.Principal{Account: k.Account, AccessKey: k.ID, ARN: k.ARN(), UserID: "AIDA" + strings.TrimPrefix(k.ID, idPrefix)}, Secret: secret},
		rights:     Rights{All: k.Policy == ""},
	}
	if k.Policy != "" {
		document, err := policy.Parse(policy.Identity, []byte(k.Policy))
		if err != nil {
			return fmt.Errorf("read the policy of the access key %s: %w", k.ID, err)
		}
		c.rights.Policies = []policy.Document{document}
	}
	s.keys.any.Store(true)
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	if k.Revoked.IsZero() {
		s.keys.byID[k.ID] = c
	} else {
		delete(s.keys.byID, k.ID)
	}
	return nil
}

// Keyed reports whether there is a key, or ever was: requests need one from then on.
func (s *Store) Keyed() bool { return s.keys.any.Load() }

// idPrefix begins the ids of keys, as on AWS.
const idPrefix = "AKIA"

// maxKeyName is IAM's bound of a user's name, in characters.
const maxKeyName = 64

var keyName = regexp.MustCompile(`^[\w+=,.@-]+$`)

// CreateKey makes a key. The secret is returned here and nowhere else.
func (s *Store) CreateKey(ctx context.Context, account lambda.AccountID, name, document string) (k *Key, secret string, err error) {
	if !keyName.MatchString(name) || len(name) > maxKeyName || strings.HasPrefix(name, idPrefix) {
		return nil, "", lambda.InvalidParameter("%q is not a name for a key: use 1 to %d letters, digits and characters of +=,.@_-, that do not begin with %s", name, maxKeyName, idPrefix)
	}
	if document != "" {
		if _, err := policy.Parse(policy.Identity, []byte(document)); err != nil {
			return nil, "", lambda.InvalidParameter("The policy is not one that IAM takes: %s", err)
		}
		if len(document) > maxKeyPolicy {
			return nil, "", lambda.InvalidParameter("The policy has %d bytes; %d are allowed.", len(document), maxKeyPolicy)
		}
	}
	k = &Key{ID: idPrefix + random(16), Account: account, Name: name, Policy: document, Created: time.Now().UTC().Truncate(time.Second)}
	secret = newSecret()
	if k.Sealed, err = s.sealer.Seal([]byte(secret), k.place()); err != nil {
		return nil, "", fmt.Errorf("seal the secret of the access key %s: %w", k.ID, err)
	}
	s.keys.changing.Lock()
	defer s.keys.changing.Unlock()
	_, err = s.keys.table.Change(ctx, k.scope(), k.ID, func(*Key) (*Key, error) {
		if other := s.Key(account, name); other != nil {
			return nil, lambda.Conflict("There is a key with the name %s already: %s. Revoke it first, or choose another name.", name, other.ID)
		}
		return k, nil
	})
	if err != nil {
		return nil, "", err
	}
	return k, secret, s.admit(k, secret)
}

// maxKeyPolicy is what IAM allows of a managed policy, in bytes.
const maxKeyPolicy = 6144

func (k *Key) scope() lambda.Scope { return lambda.Scope{Account: k.Account, Region: global} }

// Key finds a key in use of the account by its name or id, or nil.
func (s *Store) Key(account lambda.AccountID, nameOrID string) *Key {
	return s.keys.table.Find(lambda.Scope{Account: account, Region: global}, func(k *Key) bool {
		return k.Revoked.IsZero() && (k.Name == nameOrID || k.ID == nameOrID)
	})
}

// Keys returns the keys in use, of one account or, for "", of all, in the order of
// accounts and names.
func (s *Store) Keys(account lambda.AccountID) (list []*Key) {
	for _, k := range s.keys.table.All() {
		if k.Revoked.IsZero() && (account == "" || k.Account == account) {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b *Key) int {
		return strings.Compare(string(a.Account)+a.Name, string(b.Account)+b.Name)
	})
	return list
}

// RevokeKey ends a key, for requests under way too that have not been authorised.
func (s *Store) RevokeKey(ctx context.Context, account lambda.AccountID, nameOrID string) (*Key, error) {
	s.keys.changing.Lock()
	defer s.keys.changing.Unlock()
	k := s.Key(account, nameOrID)
	if k == nil {
		return nil, lambda.NotFound("There is no key %s in account %s.", nameOrID, account)
	}
	revoked := *k
	revoked.Sealed, revoked.Revoked = nil, time.Now().UTC().Truncate(time.Second)
	if _, err := s.keys.table.Change(ctx, k.scope(), k.ID, func(*Key) (*Key, error) { return &revoked, nil }); err != nil {
		return nil, err
	}
	return &revoked, s.admit(&revoked, "")
}
