package identity

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base32"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
)

// ManagedPolicy is a policy that roles can have in common. It is replaced, never
// changed.
type ManagedPolicy struct {
	Account     lambda.AccountID // "aws" for AWS's
	Name, Path  string
	ID          string // such as ANPADBQP57FF2AEXAMPLE
	Created     time.Time
	Updated     time.Time
	Description string
	Versions    []PolicyVersion // the oldest first
	Default     string          // the version that counts
	Given       int             // how many versions there have been
	Tags        map[string]string
}

// PolicyVersion is a document of a managed policy.
type PolicyVersion struct {
	ID       string // v1, v2, …
	Document string // as it was given
	Created  time.Time
}

// byAWS is in place of the account in the ARNs of AWS's policies.
const byAWS lambda.AccountID = "aws"

// ARN is the policy's full name.
func (p *ManagedPolicy) ARN() PolicyARN { return PolicyARN{p.Account, p.Path, p.Name} }

// Document is the one that counts.
func (p *ManagedPolicy) Document() string { return p.Version(p.Default).Document }

// Version finds a version, or nil.
func (p *ManagedPolicy) Version(id string) *PolicyVersion {
	i := slices.IndexFunc(p.Versions, func(v PolicyVersion) bool { return v.ID == id })
	if i < 0 {
		return nil
	}
	return &p.Versions[i]
}

// PolicyARN is the full name of a managed policy.
type PolicyARN struct {
	Account    lambda.AccountID
	Path, Name string
}

// Owner is the account that the policy belongs to.
func (a PolicyARN) Owner() lambda.AccountID { return a.Account }

func (a PolicyARN) String() string {
	return "arn:aws:iam::" + string(a.Account) + ":policy" + a.Path + a.Name
}

// ParsePolicyARN reads arn:aws:iam::ACCOUNT:policy/PATH/NAME.
func ParsePolicyARN(text string) (a PolicyARN, ok bool) {
	part := strings.SplitN(text, ":", 6)
	if len(part) != 6 || part[0] != "arn" || part[2] != "iam" || !strings.HasPrefix(part[5], "policy/") {
		return a, false
	}
	slash := strings.LastIndexByte(part[5], '/')
	a = PolicyARN{lambda.AccountID(part[4]), part[5][len("policy") : slash+1], part[5][slash+1:]}
	return a, a.Account != "" && a.Name != ""
}

// managedJSON are the policies of AWS that deployments of functions attach, as AWS
// publishes them.
//
//go:embed managed.json
var managedJSON []byte

func awsManaged() map[string]*ManagedPolicy {
	var list []struct {
		Name, Path, Version string
		Created, Updated    time.Time
		Document            json.RawMessage
	}
	if err := json.Unmarshal(managedJSON, &list); err != nil {
		panic(err) // it is part of the program
	}
	byARN := map[string]*ManagedPolicy{}
	for _, p := range list {
		sum := sha256.Sum256([]byte(p.Name)) // the id is AWS's own affair, but stays the same
		given, _ := strconv.Atoi(strings.TrimPrefix(p.Version, "v"))
		m := &ManagedPolicy{
			Account: byAWS, Name: p.Name, Path: p.Path, ID: "ANPA" + base32.StdEncoding.EncodeToString(sum[:])[:16], Created: p.Created, Updated: p.Updated,
			Versions: []PolicyVersion{{ID: p.Version, Document: string(p.Document), Created: p.Updated}}, Default: p.Version, Given: given,
		}
		byARN[m.ARN().String()] = m
	}
	return byARN
}

// Policy finds a managed policy that roles of the account can have, or nil.
func (s *Store) Policy(account lambda.AccountID, arn string) *ManagedPolicy {
	a, ok := ParsePolicyARN(arn)
	switch {
	case !ok:
	case a.Account == byAWS:
		return s.roles.aws()[arn]
	case a.Account == account:
		if p := s.roles.policies.Get(everywhere(account), recordID(a.Name)); p != nil && p.ARN() == a {
			return p
		}
	}
	return nil
}

// FindPolicy finds a managed policy, or says that there is none.
func (s *Store) FindPolicy(account lambda.AccountID, arn string) (*ManagedPolicy, error) {
	if p := s.Policy(account, arn); p != nil {
		return p, nil
	}
	return nil, noSuchEntity("Policy " + arn + " was not found.")
}

// Policies returns the account's own managed policies, by name, and AWS's behind them.
func (s *Store) Policies(account lambda.AccountID) []*ManagedPolicy {
	list, _ := s.roles.policies.Page(everywhere(account), "", maxPolicies, func(*ManagedPolicy) bool { return true })
	all := s.roles.aws()
	for _, arn := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[arn])
	}
	return list
}

// Attachments returns the account's roles that have the policy, and those that it bounds.
func (s *Store) Attachments(account lambda.AccountID, arn string) (attached, bounded []*Role) {
	for _, r := range s.Roles(account, "/") {
		if slices.Contains(r.Attached, arn) {
			attached = append(attached, r)
		}
		if r.Boundary == arn {
			bounded = append(bounded, r)
		}
	}
	return attached, bounded
}

// CreatePolicy makes a managed policy with one version.
func (s *Store) CreatePolicy(ctx context.Context, p ManagedPolicy, document string) (*ManagedPolicy, error) {
	if err := checkManaged(document, p.Tags); err != nil {
		return nil, err
	}
	s.roles.changing.Lock()
	defer s.roles.changing.Unlock()
	p.ID, p.Created = "ANPA"+random(16), time.Now().UTC().Truncate(time.Second)
	p.Updated, p.Default, p.Given = p.Created, "v1", 1
	p.Versions = []PolicyVersion{{"v1", document, p.Created}}
	return s.roles.policies.Change(ctx, everywhere(p.Account), recordID(p.Name), func(was *ManagedPolicy) (*ManagedPolicy, error) {
		if was != nil {
			return nil, exists("A policy called " + p.Name + " already exists. Duplicate names are not allowed.")
		}
		if list, _ := s.roles.policies.Page(everywhere(p.Account), "", maxPolicies, func(*ManagedPolicy) bool { return true }); len(list) == maxPolicies {
			return nil, quota("PoliciesPerAccount", maxPolicies)
		}
		return &p, nil
	})
}

func checkManaged(document string, tags map[string]string) error {
	if err := checkDocument(policy.Identity, document); err != nil {
		return err
	}
	switch {
	case size(document) > maxManagedPolicy:
		return quota("PolicySize", maxManagedPolicy)
	case len(tags) > maxTags:
		return quota("TagsPerPolicy", maxTags)
	}
	return nil
}

// changePolicy changes a policy by what change makes of a copy, of which versions
// and tags are copies too; nil removes it.
func (s *Store) changePolicy(ctx context.Context, account lambda.AccountID, arn string, change func(*ManagedPolicy) (*ManagedPolicy, error)) error {
	a, _ := ParsePolicyARN(arn)
	if a.Account == byAWS {
		return lambda.AccessDenied("The policy %s is AWS's and cannot be changed.", arn)
	}
	s.roles.changing.Lock()
	defer s.roles.changing.Unlock()
	_, err := s.roles.policies.Change(ctx, everywhere(account), recordID(a.Name), func(*ManagedPolicy) (*ManagedPolicy, error) {
		was, err := s.FindPolicy(account, arn)
		if err != nil {
			return nil, err
		}
		p := *was
		p.Versions, p.Tags = slices.Clone(p.Versions), maps.Clone(p.Tags)
		return change(&p)
	})
	return err
}

// DeletePolicy removes a managed policy that no role has any more.
func (s *Store) DeletePolicy(ctx context.Context, account lambda.AccountID, arn string) error {
	return s.changePolicy(ctx, account, arn, func(p *ManagedPolicy) (*ManagedPolicy, error) {
		attached, bounded := s.Attachments(account, arn)
		switch {
		case len(attached)+len(bounded) > 0:
			return nil, deleteConflict("Cannot delete a policy attached to entities.")
		case len(p.Versions) > 1:
			return nil, deleteConflict("This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.")
		}
		return nil, nil
	})
}

// TagPolicy changes a policy's tags.
func (s *Store) TagPolicy(ctx context.Context, account lambda.AccountID, arn string, change func(tags map[string]string)) error {
	return s.changePolicy(ctx, account, arn, func(p *ManagedPolicy) (*ManagedPolicy, error) {
		if p.Tags == nil {
			p.Tags = map[string]string{}
		}
		change(p.Tags)
		return p, checkManaged(p.Document(), p.Tags)
	})
}

// CreatePolicyVersion gives a policy another document, which counts at once if it is
// made the default.
func (s *Store) CreatePolicyVersion(ctx context.Context, account lambda.AccountID, arn, document string, makeDefault bool) (v PolicyVersion, err error) {
	err = s.changePolicy(ctx, account, arn, func(p *ManagedPolicy) (*ManagedPolicy, error) {
		if err := checkManaged(document, nil); err != nil {
			return nil, err
		}
		if len(p.Versions) == maxVersions {
			return nil, limitExceeded("A managed policy can have up to " + strconv.Itoa(maxVersions) + " versions. Before you create a new version, you must delete an existing version.")
		}
		p.Given++
		v = PolicyVersion{"v" + strconv.Itoa(p.Given), document, time.Now().UTC().Truncate(time.Second)}
		p.Versions = append(p.Versions, v)
		p.Updated = v.Created
		if makeDefault {
			p.Default = v.ID
		}
		return p, nil
	})
	return v, err
}

// SetDefaultVersion makes another version count.
func (s *Store) SetDefaultVersion(ctx context.Context, account lambda.AccountID, arn, version string) error {
	return s.changePolicy(ctx, account, arn, func(p *ManagedPolicy) (*ManagedPolicy, error) {
		if p.Version(version) == nil {
			return nil, NoSuchVersion(arn, version)
		}
		p.Default, p.Updated = version, time.Now().UTC().Truncate(time.Second)
		return p, nil
	})
}

// DeletePolicyVersion removes a version that does not count.
func (s *Store) DeletePolicyVersion(ctx context.Context, account lambda.AccountID, arn, version string) error {
	return s.changePolicy(ctx, account, arn, func(p *ManagedPolicy) (*ManagedPolicy, error) {
		switch {
		case p.Version(version) == nil:
			return nil, NoSuchVersion(arn, version)
		case p.Default == version:
			return nil, deleteConflict("Cannot delete the default version of a policy.")
		}
		p.Versions = slices.DeleteFunc(p.Versions, func(v PolicyVersion) bool { return v.ID == version })
		return p, nil
	})
}

// NoSuchVersion says that a policy has no such version.
func NoSuchVersion(arn, version string) error {
	return noSuchEntity("Policy " + arn + " version " + version + " does not exist or is not attachable.")
}
