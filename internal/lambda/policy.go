package lambda

import "encoding/json"

// Policy is a resource-based policy.
type Policy struct {
	Revision   RevisionID // "" while there was none yet
	Statements []Statement
}

// Statement allows a principal one action on the resource that has the policy.
type Statement struct {
	ID           string
	Action       string // such as lambda:GetLayerVersion
	Principal    string // an account's number, the ARN of its root, or *
	Organization string // only of these accounts; "" for all
}

// Allows reports whether the policy lets the account do the action. Kiln knows
// of no organisations, so that nobody belongs to one.
func (p Policy) Allows(account AccountID, action string) bool {
	for _, s := range p.Statements {
		if s.Action == action && s.Organization == "" && (s.Principal == "*" || s.Principal == string(account) || s.Principal == RootARN(account)) {
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
	Condition any `json:",omitempty"`
}

func (s Statement) document(resource string) document {
	d := document{Sid: s.ID, Effect: "Allow", Action: s.Action, Resource: resource}
	switch {
	case s.Principal == "*":
		d.Principal = s.Principal
	case len(s.Principal) == 12:
		d.Principal = map[string]string{"AWS": RootARN(AccountID(s.Principal))}
	default:
		d.Principal = map[string]string{"AWS": s.Principal}
	}
	if s.Organization != "" {
		d.Condition = map[string]any{"StringEquals": map[string]string{"aws:PrincipalOrgID": s.Organization}}
	}
	return d
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
