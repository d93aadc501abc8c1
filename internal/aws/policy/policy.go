// Package policy reads IAM policy documents and decides by them: explicit deny
// wins, and what nothing allows is denied. It knows no accounts, keys or resources
// of Kiln; identity keeps documents, and front asks them.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
package policy

import (
	"slices"
	"strings"
)

// Document is a policy that was read. It is immutable; the zero Document says nothing.
type Document struct {
	statements []statement
}

type statement struct {
	deny       bool
	actions    patterns // in lower case
	resources  patterns
	principals *principals // nil in a policy of an identity
	conditions []condition
}

// patterns match when one of the list does, or, negated, when none does.
type patterns struct {
	negated bool
	list    []pattern
}

// principals are whom a statement of a resource's policy is about.
type principals struct {
	negated  bool
	anyone   bool
	arns     []string // of users, roles, sessions, and of accounts by their roots
	services []string
}

// Request is what somebody wants to do.
type Request struct {
	Action    string // such as lambda:InvokeFunction
	Resource  string // an ARN
	Principal Principal
	Keys      Keys // of conditions and variables
	// Lookup, if not nil, makes Keys once a policy asks for one: most never do.
	Lookup func() Keys
}

func (r *Request) keys() Keys {
	if r.Lookup != nil {
		r.Keys, r.Lookup = r.Lookup(), nil
	}
	return r.Keys
}

// Principal is who wants it, as policies of resources name them.
type Principal struct {
	Account string   // twelve digits; "" of a service, and of somebody unknown
	ARNs    []string // by which the principal is named, besides its account
	Service string   // such as s3.amazonaws.com
}

// Decision is what documents say to a request.
type Decision int

// The decisions, the weakest first.
const (
	Silent    Decision = iota // nothing is said: denied, unless another policy allows
	Delegated                 // a resource's policy allows the account, which decides further
	Allowed
	Denied // explicitly, whatever else allows
)

// Decide asks the documents of an identity, or the one of a resource.
func Decide(r *Request, documents ...Document) (d Decision) {
	action := strings.ToLower(r.Action)
	for _, document := range documents {
		for i := range document.statements {
			d = max(d, document.statements[i].decide(r, action))
		}
	}
	return d
}

func (s *statement) decide(r *Request, action string) Decision {
	named := Allowed
	if s.principals != nil {
		named = s.principals.match(r.Principal)
	}
	if named == Silent || !s.actions.match(action, r, glob) || !s.resources.match(r.Resource, r, matchARN) {
		return Silent
	}
	for i := range s.conditions {
		if !s.conditions[i].match(r.keys()) {
			return Silent
		}
	}
	if s.deny {
		return Denied
	}
	return named
}

// match tells whether the principal is named itself (Allowed) or by its account
// (Delegated).
func (p *principals) match(who Principal) Decision {
	found := Silent
	switch {
	case p.anyone, who.Service != "" && slices.Contains(p.services, who.Service),
		slices.ContainsFunc(who.ARNs, func(arn string) bool { return slices.Contains(p.arns, arn) }):
		found = Allowed
	case who.Account != "" && slices.Contains(p.arns, rootARN(who.Account)):
		found = Delegated
	}
	if p.negated {
		if found == Silent {
			return Allowed
		}
		return Silent
	}
	return found
}

func rootARN(account string) string { return "arn:aws:iam::" + account + ":root" }

// Keys are the values of condition keys, by their names in lower case. A key that
// is not there has no value.
type Keys map[string][]string

// Set gives a key its values.
func (k Keys) Set(name string, values ...string) { k[strings.ToLower(name)] = values }

func (k Keys) get(name string) []string { return k[name] }
