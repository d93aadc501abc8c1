package identity

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/table"
)

// Role is a role of an account. It is replaced, never changed.
type Role struct {
	Account     lambda.AccountID
	Name, Path  string
	ID          string // such as AROADBQP57FF2AEXAMPLE
	Created     time.Time
	Description string
	MaxSession  int    // seconds
	Trust       string // policy document, as it was given
	Boundary    string `json:",omitempty"` // ARN of a managed policy
	Tags        map[string]string
	Inline      map[string]string // policy documents by name
	Attached    []string          // ARNs of managed policies, sorted
}

// ARN is the role's full name.
func (r *Role) ARN() RoleARN { return RoleARN{r.Account, r.Path, r.Name} }

// RoleARN is the full name of a role.
type RoleARN struct {
	Account    lambda.AccountID
	Path, Name string
}

// Owner is the account that the role belongs to.
func (a RoleARN) Owner() lambda.AccountID { return a.Account }

func (a RoleARN) String() string {
	return "arn:aws:iam::" + string(a.Account) + ":role" + a.Path + a.Name
}

// ParseRoleARN reads arn:aws:iam::ACCOUNT:role/PATH/NAME.
func ParseRoleARN(text string) (a RoleARN, ok bool) {
	part := strings.SplitN(text, ":", 6)
	if len(part) != 6 || part[0] != "arn" || part[2] != "iam" || !strings.HasPrefix(part[5], "role/") {
		return a, false
	}
	slash := strings.LastIndexByte(part[5], '/')
	a = RoleARN{lambda.AccountID(part[4]), part[5][len("role") : slash+1], part[5][slash+1:]}
	return a, a.Account != "" && a.Name != ""
}

// Quotas of IAM; of those that AWS raises on request, what it raises them to.
const (
	maxRoles         = 5000
	maxPolicies      = 5000
	maxAttached      = 10    // managed policies of a role
	maxVersions      = 5     // of a managed policy
	maxTags          = 50    // of a role or policy
	maxInline        = 10240 // characters of a role's inline policies together
	maxManagedPolicy = 6144  // characters
	maxTrust         = 4096  // characters
)

// roles are the roles and managed policies, on disk and in memory.
type roles struct {
	table    *table.Table[Role]
	policies *table.Table[ManagedPolicy]
	aws      func() map[string]*ManagedPolicy // by ARN
	// changing is held over each change: whether one of a role is allowed depends
	// on the policies, and the other way round.
	changing sync.Mutex
	parsed   documents
}

func newRoles(st state.State) roles {
	return roles{
		table: table.New[Role](st, "role"), policies: table.New[ManagedPolicy](st, "policy"),
		aws: sync.OnceValue(awsManaged), parsed: documents{byText: map[string]policy.Document{}},
	}
}

func (r *roles) open(ctx context.Context) error {
	if err := r.table.Open(ctx); err != nil {
		return err
	}
	return r.policies.Open(ctx)
}

// recordID is a name as a part of a key. Names are unique without regard to case.
func recordID(name string) string {
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(name)) {
		if c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
		} else {
			b.WriteString("$" + strconv.FormatUint(uint64(c), 16)) // which no name has
		}
	}
	return b.String()
}

func everywhere(account lambda.AccountID) lambda.Scope {
	return lambda.Scope{Account: account, Region: global}
}

// Refusals in IAM's words.

func noSuchEntity(text string) error {
	return &lambda.Error{Code: "NoSuchEntity", Status: http.StatusNotFound, Message: text}
}

func exists(text string) error {
	return &lambda.Error{Code: "EntityAlreadyExists", Status: http.StatusConflict, Message: text}
}

func deleteConflict(text string) error {
	return &lambda.Error{Code: "DeleteConflict", Status: http.StatusConflict, Message: text}
}

func limitExceeded(text string) error {
	return &lambda.Error{Code: "LimitExceeded", Status: http.StatusConflict, Message: text}
}

func quota(name string, n int) error {
	return limitExceeded("Cannot exceed quota for " + name + ": " + strconv.Itoa(n))
}

// checkDocument refuses what is no policy of that kind.
func checkDocument(kind policy.Kind, text string) error {
	if _, err := policy.Parse(kind, []byte(text)); err != nil {
		return &lambda.Error{Code: "MalformedPolicyDocument", Status: http.StatusBadRequest, Message: err.Error()}
	}
	return nil
}

// size counts the characters of documents as IAM's quotas do: without white space.
func size(documents ...string) (n int) {
	for _, d := range documents {
		for _, c := range d {
			if !unicode.IsSpace(c) {
				n++
			}
		}
	}
	return n
}

// Role finds a role, or nil.
func (s *Store) Role(account lambda.AccountID, name string) *Role {
	r := s.roles.table.Get(everywhere(account), recordID(name))
	if r == nil || r.Name != name {
		return nil
	}
	return r
}

// FindRole finds a role, or says that there is none.
func (s *Store) FindRole(account lambda.AccountID, name string) (*Role, error) {
	if r := s.Role(account, name); r != nil {
		return r, nil
	}
	return nil, noSuchEntity("The role with name " + name + " cannot be found.")
}

// Roles returns the account's roles below the path, by name.
func (s *Store) Roles(account lambda.AccountID, path string) []*Role {
	page, _ := s.roles.table.Page(everywhere(account), "", maxRoles, func(r *Role) bool { return strings.HasPrefix(r.Path, path) })
	return page
}

// CreateRole makes a role. What IAM gives it itself, CreateRole does.
func (s *Store) CreateRole(ctx context.Context, r Role) (*Role, error) {
	s.roles.changing.Lock()
	defer s.roles.changing.Unlock()
	if err := s.checkRole(&r); err != nil {
		return nil, err
	}
	r.ID, r.Created = "AROA"+random(16), time.Now().UTC().Truncate(time.Second)
	return s.roles.table.Change(ctx, everywhere(r.Account), recordID(r.Name), func(was *Role) (*Role, error) {
		switch {
		case was != nil:
			return nil, exists("Role with name " + r.Name + " already exists.")
		case len(s.Roles(r.Account, "/")) == maxRoles:
			return nil, quota("RolesPerAccount", maxRoles)
		}
		return &r, nil
	})
}

// ChangeRole changes a role by what change does to a copy, of which maps and lists
// are copies too.
func (s *Store) ChangeRole(ctx context.Context, account lambda.AccountID, name string, change func(*Role) error) error {
	s.roles.changing.Lock()
	defer s.roles.changing.Unlock()
	_, err := s.roles.table.Change(ctx, everywhere(account), recordID(name), func(*Role) (*Role, error) {
		was, err := s.FindRole(account, name)
		if err != nil {
			return nil, err
		}
		r := *was
		r.Tags, r.Inline, r.Attached = maps.Clone(r.Tags), maps.Clone(r.Inline), slices.Clone(r.Attached)
		if err := change(&r); err != nil {
			return nil, err
		}
		return &r, s.checkRole(&r)
	})
	return err
}

// checkRole refuses what no role may be.
func (s *Store) checkRole(r *Role) error {
	if err := checkDocument(policy.Trust, r.Trust); err != nil {
		return err
	}
	for _, document := range r.Inline {
		if err := checkDocument(policy.Identity, document); err != nil {
			return err
		}
	}
	if r.Boundary != "" && s.Policy(r.Account, r.Boundary) == nil {
		return noSuchEntity("Scope ARN: " + r.Boundary + " does not exist or is not attachable.")
	}
	switch {
	case size(r.Trust) > maxTrust:
		return quota("ACLSizePerRole", maxTrust)
	case size(slices.Collect(maps.Values(r.Inline))...) > maxInline:
		return limitExceeded("Maximum policy size of " + strconv.Itoa(maxInline) + " bytes exceeded for role " + r.Name)
	case len(r.Attached) > maxAttached:
		return quota("PoliciesPerRole", maxAttached)
	case len(r.Tags) > maxTags:
		return quota("TagsPerRole", maxTags)
	}
	return nil
}

// DeleteRole removes a role that has no policies any more.
func (s *Store) DeleteRole(ctx context.Context, account lambda.AccountID, name string) error {
	s.roles.changing.Lock()
	defer s.roles.changing.Unlock()
	_, err := s.roles.table.Change(ctx, everywhere(account), recordID(name), func(*Role) (*Role, error) {
		switch r, err := s.FindRole(account, name); {
		case err != nil:
			return nil, err
		case len(r.Attached) > 0:
			return nil, deleteConflict("Cannot delete entity, must detach all policies first.")
		case len(r.Inline) > 0:
			return nil, deleteConflict("Cannot delete entity, must delete policies first.")
		}
		return nil, nil
	})
	return err
}

// AttachPolicy gives a role a managed policy.
func (s *Store) AttachPolicy(ctx context.Context, account lambda.AccountID, name, arn string) error {
	return s.ChangeRole(ctx, account, name, func(r *Role) error {
		if s.Policy(account, arn) == nil {
			return noSuchEntity("Policy " + arn + " does not exist or is not attachable.")
		}
		if i, found := slices.BinarySearch(r.Attached, arn); !found {
			r.Attached = slices.Insert(r.Attached, i, arn)
		}
		return nil
	})
}

// DetachPolicy takes a managed policy from a role.
func (s *Store) DetachPolicy(ctx context.Context, account lambda.AccountID, name, arn string) error {
	return s.ChangeRole(ctx, account, name, func(r *Role) error {
		i, found := slices.BinarySearch(r.Attached, arn)
		if !found {
			return noSuchEntity("Policy " + arn + " was not found.")
		}
		r.Attached = slices.Delete(r.Attached, i, i+1)
		return nil
	})
}

// RoleByARN finds a role by its whole name, or nil.
func (s *Store) RoleByARN(arn string) *Role {
	a, _ := ParseRoleARN(arn)
	if r := s.Role(a.Account, a.Name); r != nil && r.ARN() == a {
		return r
	}
	return nil
}

// RoleRights returns what the sessions of a role may do; ok is false where there is
// no such role.
func (s *Store) RoleRights(arn string) (rights Rights, ok bool) {
	r := s.RoleByARN(arn)
	if r == nil {
		return rights, false
	}
	for _, document := range r.Inline {
		rights.Policies = append(rights.Policies, s.roles.parsed.read(policy.Identity, document))
	}
	rights.Policies = append(rights.Policies, s.managed(r.Account, r.Attached)...)
	if r.Boundary != "" {
		rights.Boundary = s.managed(r.Account, []string{r.Boundary})
	}
	return rights, true
}

// managed are the documents of managed policies. It is never nil.
func (s *Store) managed(account lambda.AccountID, arns []string) []policy.Document {
	list := []policy.Document{}
	for _, arn := range arns {
		if p := s.Policy(account, arn); p != nil {
			list = append(list, s.roles.parsed.read(policy.Identity, p.Document()))
		}
	}
	return list
}

// RoleTrusts reports what the role's trust policy says to a request for it.
func (s *Store) RoleTrusts(r *Role, request *policy.Request) policy.Decision {
	return policy.Decide(request, s.roles.parsed.read(policy.Trust, r.Trust))
}

// maxParsed bounds the documents that are kept parsed, about a kilobyte each.
const maxParsed = 10_000

// documents remembers policies that were read: each call of a function asks them.
type documents struct {
	mu     sync.Mutex
	byText map[string]policy.Document // guarded by mu
}

// read parses a document that was checked when it came.
func (d *documents) read(kind policy.Kind, text string) policy.Document {
	key := strconv.Itoa(int(kind)) + text
	d.mu.Lock()
	defer d.mu.Unlock()
	document, ok := d.byText[key]
	if !ok {
		document, _ = policy.Parse(kind, []byte(text)) // what cannot be read allows nothing
		if len(d.byText) == maxParsed {
			clear(d.byText)
		}
		d.byText[key] = document
	}
	return document
}
