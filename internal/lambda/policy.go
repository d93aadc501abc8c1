package lambda

import (
	"encoding/json"
	"regexp"
	"strconv"
)

// Policy is a resource-based policy.
type Policy struct {
	Revision   RevisionID // "" while there was none yet
	Statements []Statement
}

// Statement allows a principal one action on the resource that has the policy.
type Statement struct {
	ID        string
	Action    string // such as lambda:GetLayerVersion
	Principal string // an account's number, the ARN of a user, role or root, a service such as s3.amazonaws.com, or *

	// What must hold besides; "" is not asked.
	Organization     string // the principal's account is one of these
	SourceARN        string // on whose behalf a service calls; with wildcards
	SourceAccount    string // of that
	EventSourceToken string
	URLAuthType      string // of the function URL by which the call comes
	ViaURL           *bool  // it comes by a function URL; nil: either
}

// Allows reports whether the policy lets the account do the action, whatever else is
// known of the call. Kiln knows of no organisations, so that nobody belongs to one.
func (p Policy) Allows(account AccountID, action string) bool {
	for _, s := range p.Statements {
		if s.Action == action && s.conditions() == nil && (s.Principal == "*" || s.Principal == string(account) || s.Principal == RootARN(account)) {
			return true
		}
	}
	return false
}

// document is a statement as AWS writes it, for the resource of that ARN.
type document struct {
	Sid       string
	Effect    string
	Principal any
	Action    string
	Resource  string
	Condition map[string]map[string]string `json:",omitempty"`
}

func (s Statement) document(resource string) document {
	d := document{Sid: s.ID, Effect: "Allow", Action: s.Action, Resource: resource, Condition: s.conditions()}
	switch {
	case s.Principal == "*":
		d.Principal = s.Principal
	case accountNumber.MatchString(s.Principal):
		d.Principal = map[string]string{"AWS": RootARN(AccountID(s.Principal))}
	case servicePrincipal.MatchString(s.Principal):
		d.Principal = map[string]string{"Service": s.Principal}
	default:
		d.Principal = map[string]string{"AWS": s.Principal}
	}
	return d
}

// conditions are by operator and key; nil where there are none.
func (s Statement) conditions() map[string]map[string]string {
	var list map[string]map[string]string
	add := func(operator, key, value string) {
		if value == "" {
			return
		}
		if list == nil {
			list = map[string]map[string]string{}
		}
		if list[operator] == nil {
			list[operator] = map[string]string{}
		}
		list[operator][key] = value
	}
	add("ArnLike", "AWS:SourceArn", s.SourceARN)
	add("StringEquals", "AWS:SourceAccount", s.SourceAccount)
	add("StringEquals", "aws:PrincipalOrgID", s.Organization)
	add("StringEquals", "lambda:EventSourceToken", s.EventSourceToken)
	add("StringEquals", "lambda:FunctionUrlAuthType", s.URLAuthType)
	if s.ViaURL != nil {
		add("Bool", "lambda:InvokedViaFunctionUrl", strconv.FormatBool(*s.ViaURL))
	}
	return list
}

// What a principal may look like.
var (
	accountNumber    = regexp.MustCompile(`^\d{12}$`)
	servicePrincipal = regexp.MustCompile(`^[a-z0-9-]+(?:\.[a-z0-9-]+)*\.amazon(?:aws)?\.com(?:\.cn)?$`)
	principalARN     = regexp.MustCompile(`^arn:aws[a-z-]*:(?:iam::\d{12}:(?:root|(?:user|role)/[!-~]+)|sts::\d{12}:(?:assumed-role|federated-user)/[!-~]+)$`)
)

// ValidPrincipal reports whether a statement can name it.
func ValidPrincipal(s string) bool {
	return s == "*" || accountNumber.MatchString(s) || servicePrincipal.MatchString(s) || principalARN.MatchString(s)
}

// JSON is the statement as AWS shows it on the resource of that ARN.
func (s Statement) JSON(resource string) string { return marshal(s.document(resource)) }

// JSON is the policy as AWS shows it on the resource of that ARN.
func (p Policy) JSON(resource string) string {
	list := make([]document, 0, len(p.Statements))
	for _, s := range p.Statements {
		list = append(list, s.document(resource))
	}
	return marshal(struct {
		Version   string
		ID        string `json:"Id"`
		Statement []document
	}{"2012-10-17", "default", list})
}

func marshal(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}
