package front

import (
	"strconv"
	"strings"
	"time"

	"kiln/internal/aws/policy"
	"kiln/internal/identity"
	"kiln/internal/lambda"
)

// Authorise decides whether a caller may do the action on the resource, by the
// policies of the caller and of the resource. Its errors are AWS's refusals.
func (a *Access) Authorise(who lambda.Principal, action string, resource lambda.ARN) error {
	return a.AuthoriseWith(who, action, resource, nil)
}

// AuthoriseWith is Authorise for an action that has condition keys of its own, such
// as lambda:FunctionUrlAuthType.
func (a *Access) AuthoriseWith(who lambda.Principal, action string, resource lambda.ARN, keys policy.Keys) error {
	rights := a.rights(who)
	own := who.Account == resource.Owner()
	if own && rights.All && rights.Limits == nil {
		return nil // policies of resources only allow
	}
	r := &policy.Request{Action: action, Resource: resource.String(), Principal: principal(who), Lookup: func() policy.Keys { return a.keys(who, resource, keys) }}
	mine := policy.Decide(r, rights.Policies...)
	if rights.All {
		mine = policy.Allowed
	}
	limit := policy.Allowed
	if rights.Limits != nil {
		limit = policy.Decide(r, rights.Limits...)
	}
	theirs := a.resourceAllows(r, resource)
	switch {
	case mine == policy.Denied:
		return denied(who, r, "with an explicit deny in an identity-based policy")
	case limit == policy.Denied:
		return denied(who, r, "with an explicit deny in a session policy")
	case theirs == policy.Denied:
		return denied(who, r, "with an explicit deny in a resource-based policy")
	case limit != policy.Allowed:
		return denied(who, r, "because no session policy allows the "+action+" action")
	case who.Account == "" && theirs == policy.Allowed, // a service, or anybody
		own && (mine == policy.Allowed || theirs == policy.Allowed),
		mine == policy.Allowed && theirs >= policy.Delegated:
		return nil
	case who.Account == "" || !own && mine == policy.Allowed:
		return denied(who, r, "because no resource-based policy allows the "+action+" action")
	}
	return denied(who, r, "because no identity-based policy allows the "+action+" action")
}

func denied(who lambda.Principal, r *policy.Request, why string) error {
	name := who.ARN
	if name == "" {
		name = who.Service
	}
	if name == "" {
		name = "anonymous"
	}
	return lambda.AccessDenied("User: %s is not authorized to perform: %s on resource: %s %s", name, r.Action, r.Resource, why)
}

// Unrestricted tells whether no policy says what the caller may do in its account.
func (a *Access) Unrestricted(who lambda.Principal) bool {
	rights := a.rights(who)
	return rights.All && rights.Limits == nil
}

// rights are what the caller may do in its own account, and what of another's it
// may use. Of nobody, and of a service, they are none.
func (a *Access) rights(who lambda.Principal) identity.Rights {
	switch {
	case who.Account == "":
		return identity.Rights{}
	case !a.Keyed(), who.ARN == lambda.RootARN(who.Account):
		return identity.Rights{All: true}
	case who.Environment != "":
		return a.roleRights(who)
	}
	rights, _ := a.config.Identities.Rights(who.AccessKey) // none of a key that was revoked
	return rights
}

// roleRights are those of a function, which are its role's.
func (a *Access) roleRights(who lambda.Principal) (rights identity.Rights) {
	part := strings.Split(who.Role, ":")
	if len(part) == 6 && part[4] == string(who.Account) {
		rights.Policies, _ = a.config.Identities.RolePolicies(who.Account, part[5][strings.LastIndexByte(part[5], '/')+1:])
	}
	return rights
}

// resourceAllows asks the policy of the resource, if it has one.
func (a *Access) resourceAllows(r *policy.Request, resource lambda.ARN) policy.Decision {
	if a.config.Policy == nil {
		return policy.Silent
	}
	p := a.config.Policy(resource)
	if len(p.Statements) == 0 {
		return policy.Silent
	}
	d, err := policy.Parse(policy.Resource, []byte(p.JSON(r.Resource)))
	if err != nil {
		return policy.Silent // AddPermission checked it; a statement that cannot be read allows nothing
	}
	return policy.Decide(r, d)
}

func principal(who lambda.Principal) policy.Principal {
	p := policy.Principal{Account: string(who.Account), Service: who.Service}
	for _, arn := range []string{who.ARN, who.Role} {
		if arn != "" && arn != lambda.RootARN(who.Account) {
			p.ARNs = append(p.ARNs, arn)
		}
	}
	return p
}

// keys are the condition keys that every request has, and those of this one.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
func (a *Access) keys(who lambda.Principal, resource lambda.ARN, more policy.Keys) policy.Keys {
	now := time.Now().UTC()
	keys := policy.Keys{}
	for name, values := range more {
		keys.Set(name, values...)
	}
	set := func(name, value string) {
		if value != "" {
			keys.Set(name, value)
		}
	}
	set("aws:CurrentTime", now.Format(time.RFC3339))
	set("aws:EpochTime", strconv.FormatInt(now.Unix(), 10))
	set("aws:SecureTransport", strconv.FormatBool(who.Secure))
	set("aws:ResourceAccount", string(resource.Owner()))
	set("aws:PrincipalIsAWSService", strconv.FormatBool(who.Service != ""))
	set("aws:PrincipalServiceName", who.Service)
	set("aws:PrincipalAccount", string(who.Account))
	set("aws:userid", who.UserID)
	if who.From.IsValid() {
		set("aws:SourceIp", who.From.String())
	}
	part := strings.SplitN(resource.String(), ":", 6)
	if len(part) == 6 {
		set("aws:RequestedRegion", part[3])
	}
	_, name, isUser := strings.Cut(who.ARN, ":user/")
	switch {
	case who.Role != "":
		set("aws:PrincipalArn", who.Role)
		set("aws:PrincipalType", "AssumedRole")
	case isUser:
		set("aws:PrincipalArn", who.ARN)
		set("aws:PrincipalType", "User")
		set("aws:username", name)
	case who.ARN != "":
		set("aws:PrincipalArn", who.ARN)
		set("aws:PrincipalType", "Account")
	default:
		set("aws:PrincipalType", "Anonymous")
	}
	if a.config.Tags != nil {
		for tag, value := range a.config.Tags(resource) {
			keys.Set("aws:ResourceTag/"+tag, value)
		}
	}
	return keys
}
