package identity

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
)

// session is a session of a role, as its token has it: sealed, so that nothing need
// be kept of it, and it outlives a restart.
type session struct {
	AccessKey, Secret string
	Account           lambda.AccountID
	Role, RoleID      string // a role that is made anew under the same name is another
	Name              string
	Expires           time.Time
	Limited           bool     `json:",omitempty"` // by session policies, of which there may be none that counts
	Policies          []string `json:",omitempty"` // documents
	PolicyARNs        []string `json:",omitempty"` // of managed policies
}

// sessions remembers tokens that were read, so that each is unsealed once.
type sessions struct {
	mu    sync.Mutex
	byKey map[string]*known // guarded by mu
	purge int               // guarded by mu; at how many those that ended are dropped
}

type known struct {
	session
	token string
}

// minPurge is how many sessions are remembered before any is looked at again.
const minPurge = 1000

func (s *sessions) remember(k *known) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byKey) >= s.purge {
		now := time.Now()
		for key, old := range s.byKey {
			if now.After(old.Expires) {
				delete(s.byKey, key)
			}
		}
		s.purge = max(minPurge, 2*len(s.byKey))
	}
	s.byKey[k.AccessKey] = k
}

func (s *sessions) find(accessKey string) *known {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byKey[accessKey]
}

// tokenPlace is what a token is bound to.
var tokenPlace = []byte("session")

// Session is what a session may be besides its role's.
type Session struct {
	Name       string
	Lasts      time.Duration
	Policies   []string // documents that limit it
	PolicyARNs []string // of managed policies that limit it
}

// Assume makes a session of a role. Whether the caller may is not its question.
func (s *Store) Assume(r *Role, of Session) (Credential, error) {
	for _, document := range of.Policies {
		if err := checkDocument(policy.Identity, document); err != nil {
			return Credential{}, err
		}
	}
	for _, arn := range of.PolicyARNs {
		if s.Policy(r.Account, arn) == nil {
			return Credential{}, noSuchEntity("Policy " + arn + " does not exist or is not attachable.")
		}
	}
	k := &known{session: session{
		AccessKey: "ASIA" + random(16), Secret: newSecret(), Account: r.Account, Role: r.Name, RoleID: r.ID, Name: of.Name,
		Expires: time.Now().Add(of.Lasts).UTC().Truncate(time.Second),
		Limited: len(of.Policies)+len(of.PolicyARNs) > 0, Policies: of.Policies, PolicyARNs: of.PolicyARNs,
	}}
	plain, err := json.Marshal(k.session)
	if err != nil {
		return Credential{}, err
	}
	sealed, err := s.sealer.Seal(plain, tokenPlace)
	if err != nil {
		return Credential{}, fmt.Errorf("seal a session of %s: %w", r.ARN(), err)
	}
	k.token = base64.StdEncoding.EncodeToString(sealed)
	s.sessions.remember(k)
	return k.credential(r), nil
}

func (k *known) credential(r *Role) Credential {
	return Credential{
		Principal: lambda.Principal{
			Account: k.Account, AccessKey: k.AccessKey, UserID: r.ID + ":" + k.Name, Role: r.ARN().String(),
			ARN: "arn:aws:sts::" + string(k.Account) + ":assumed-role/" + r.Name + "/" + k.Name,
		},
		Secret: k.Secret, Token: k.token, Expires: k.Expires,
	}
}

// Session finds what an access key id with its token stands for. It is not ok for
// a token that this Kiln did not make, and once the role is gone.
func (s *Store) Session(accessKey, token string) (Credential, bool) {
	k := s.sessions.find(accessKey)
	if k == nil || k.token != token {
		if k = s.unseal(token); k == nil || k.AccessKey != accessKey {
			return Credential{}, false
		}
		s.sessions.remember(k)
	}
	r := s.Role(k.Account, k.Role)
	if r == nil || r.ID != k.RoleID {
		return Credential{}, false
	}
	return k.credential(r), true
}

func (s *Store) unseal(token string) *known {
	sealed, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return nil
	}
	plain, err := s.sealer.Unseal(sealed, tokenPlace)
	if err != nil {
		return nil
	}
	k := &known{token: token}
	if json.Unmarshal(plain, &k.session) != nil {
		return nil
	}
	return k
}

// sessionRights are those of the role, within the session's own policies.
func (s *Store) sessionRights(accessKey string) (rights Rights, ok bool) {
	k := s.sessions.find(accessKey)
	if k == nil {
		return rights, false
	}
	r := s.Role(k.Account, k.Role)
	if r == nil || r.ID != k.RoleID {
		return rights, false
	}
	if rights, ok = s.RoleRights(r.ARN().String()); !ok || !k.Limited {
		return rights, ok
	}
	session := s.managed(k.Account, k.PolicyARNs)
	for _, document := range k.Policies {
		session = append(session, s.roles.parsed.read(policy.Identity, document))
	}
	rights.Limits = session
	return rights, true
}
