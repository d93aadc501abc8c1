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
	if own && rights.All && rights.Limits == nil && rights.Boundary == nil {
		return nil // policies of resources only allow
	}
	r := &policy.Request{Action: action, Resource: resource.String(), Principal: principal(who), Lookup: func() policy.Keys { return a.keys(who, resource, keys) }}
	mine := policy.Decide(r, rights.Policies...)
	if rights.All {
		mine = policy.Allowed
	}
	limit, limits := within(r, rights)
	theirs := a.resourceAllows(r, resource)
	switch {
	case mine == policy.Denied:
		return denied(who, r, "with an explicit deny in an identity-based policy")
	case limit == policy.Denied:
		return denied(who, r, "with an explicit deny in a "+limits)
	case theirs == policy.Denied:
		return denied(who, r, "with an explicit deny in a resource-based policy")
	case limit != policy.Allowed:
		return denied(who, r, "because no "+limits+" allows the "+action+" action")
	case who.Account == "" && theirs == policy.Allowed, // a service, or anybody
		own && (mine == policy.Allowed || theirs == policy.Allowed),
		mine == policy.Allowed && theirs >= policy.Delegated:
		return nil
	case who.Account == "" || !own && mine == policy.Allowed:
		return denied(who, r, "because no resource-based policy allows the "+action+" action")
	}
	return denied(who, r, "because no identity-based policy allows the "+action+" action")
}

// within asks what limits the rights, and says which of it decides.
func within(r *policy.Request, rights identity.Rights) (policy.Decision, string) {
	if rights.Limits != nil {
		if d := policy.Decide(r, rights.Limits...); d != policy.Allowed {
			return d, "session policy"
		}
	}
	if rights.Boundary != nil {
		return policy.Decide(r, rights.Boundary...), "permissions boundary"
	}
	return policy.Allowed, ""
}

// AuthoriseAssume decides whether a caller may have a session of the role: its trust
// policy must allow the caller, or the caller's account, whose policies then do.
func (a *Access) AuthoriseAssume(who lambda.Principal, role *identity.Role, keys policy.Keys) error {
	const action = "sts:AssumeRole"
	rights, arn := a.rights(who), role.ARN()
	r := &policy.Request{Action: action, Resource: arn.String(), Principal: principal(who), Keys: a.keys(who, arn, keys)}
	mine := policy.Decide(r, rights.Policies...)
	if rights.All {
		mine = policy.Allowed
	}
	limit, _ := within(r, rights)
	theirs := a.config.Identities.RoleTrusts(role, r)
	switch {
	case mine == policy.Denied, theirs == policy.Denied, limit != policy.Allowed:
	case theirs != policy.Silent && mine == policy.Allowed, theirs == policy.Allowed && who.Account == role.Account:
		return nil
	}
	return NotAssumable(who, arn.String())
}

// NotAssumable is the refusal of a session, also of a role that there is not: who
// may not have one need not know.
func NotAssumable(who lambda.Principal, role string) error {
	return lambda.AccessDenied("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", who.ARN, role)
}

// RoleFor reports whether there is a role of that ARN here, and whether it trusts
// the service, such as lambda.amazonaws.com, on behalf of the resource.
func (a *Access) RoleFor(service string, behalf lambda.ARN, arn string) (known, trusts bool) {
	role := a.config.Identities.RoleByARN(arn)
	if role == nil {
		return false, false
	}
	who := lambda.Principal{Service: service, SourceARN: behalf.String(), SourceAccount: behalf.Owner()}
	r := &policy.Request{Action: "sts:AssumeRole", Resource: arn, Principal: principal(who), Keys: a.keys(who, role.ARN(), nil)}
	return true, a.config.Identities.RoleTrusts(role, r) == policy.Allowed
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
	return rights.All && rights.Limits == nil && rights.Boundary == nil
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
		var rights identity.Rights // none of a role that Kiln does not know
		if role, _ := identity.ParseRoleARN(who.Role); role.Account == who.Account {
			rights, _ = a.config.Identities.RoleRights(who.Role)
		}
		return rights
	}
	rights, _ := a.config.Identities.Rights(who.AccessKey) // none of a key that was revoked
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
	set("aws:SourceArn", who.SourceARN)
	set("aws:SourceAccount", string(who.SourceAccount))
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
