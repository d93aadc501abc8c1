// Package sts is the door of AWS STS: who a caller is, and sessions of roles. An
// operation that is not a method here answers that it is not built.
package sts

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"kiln/internal/aws/policy"
	"kiln/internal/aws/query"
	"kiln/internal/aws/stsapi"
	"kiln/internal/aws/wire"
	"kiln/internal/front"
	"kiln/internal/identity"
	"kiln/internal/lambda"
)

// Config of a Door. All fields are required.
type Config struct {
	Access     *front.Access
	Identities *identity.Store
	Audit      *front.Audit
	// Admit bounds the bytes of requests in flight.
	Admit wire.Admit
	Log   *slog.Logger
}

// Door makes handlers.
type Door struct{ Config }

// New returns a Door.
func New(c Config) *Door { return &Door{c} }

// Handler serves the API; inside is for requests from within environments.
func (d *Door) Handler(inside bool) http.Handler {
	return &query.Handler[stsapi.Service]{
		API: &stsapi.API,
		Open: func(r *http.Request, requestID string) (query.Call[stsapi.Service], error) {
			caller, err := d.Access.Authenticate(r, inside)
			c := &call{door: d, caller: caller}
			return query.Call[stsapi.Service]{
				Serve:  func(*query.Operation[stsapi.Service]) stsapi.Service { return c },
				Verify: caller.Verify,
				Over: func(op *query.Operation[stsapi.Service], fault *wire.Fault) {
					act := front.Act{Who: caller.Principal, Resource: c.resource, RequestID: requestID, Fault: fault}
					if op != nil {
						act.Operation, act.Action, act.Changes = op.Name, op.Action, op.Name == "AssumeRole"
					}
					d.Audit.Record(act)
				},
			}, err
		},
		Fault: d.fault,
		Admit: d.Admit,
	}
}

func (d *Door) fault(r *http.Request, _ *query.Operation[stsapi.Service], err error) *wire.Fault {
	if f := front.QueryRefusal(err); f != nil {
		return f
	}
	if r.Context().Err() == nil {
		d.Log.Error("operation of STS failed", "error", err)
	}
	return &wire.Fault{Code: "InternalFailure", Status: http.StatusInternalServerError, Message: "Kiln failed to carry out the request; its log says why."}
}

// call is one request. Its methods are the operations.
type call struct {
	door     *Door
	caller   front.Caller
	resource lambda.ARN // that the caller must be allowed this for; nil before it is known
}

var _ stsapi.Service = (*call)(nil)

func invalid(message string) *wire.Fault {
	return &wire.Fault{Code: "ValidationError", Status: http.StatusBadRequest, Message: message}
}

// GetCallerIdentity needs no permission.
func (c *call) GetCallerIdentity(context.Context, *stsapi.GetCallerIdentityInput) (*stsapi.GetCallerIdentityOutput, error) {
	who := c.caller.Principal
	return &stsapi.GetCallerIdentityOutput{UserId: &who.UserID, Account: new(string(who.Account)), Arn: &who.ARN}, nil
}

func (c *call) GetAccessKeyInfo(_ context.Context, in *stsapi.GetAccessKeyInfoInput) (*stsapi.GetAccessKeyInfoOutput, error) {
	if err := c.door.Access.Authorise(c.caller.Principal, "sts:GetAccessKeyInfo", lambda.Anything{Scope: c.caller.Scope}); err != nil {
		return nil, err
	}
	account, ok := c.door.Access.Account(*in.AccessKeyId)
	if !ok {
		return nil, invalid("There is no access key " + *in.AccessKeyId + " here.")
	}
	return &stsapi.GetAccessKeyInfoOutput{Account: new(string(account))}, nil
}

const (
	// defaultDuration is how long a session lasts that does not say, in seconds.
	defaultDuration = 3600
	// maxChained is how long the session of a role lasts at most that another
	// session asks for, in seconds.
	maxChained = 3600
	// maxSessionPolicies is how many managed policies limit a session at most.
	maxSessionPolicies = 10
	// maxPacked is what session policies and tags may have together, in bytes.
	maxPacked = 2048
)

// AssumeRole makes a session of a role, whose trust policy must allow the caller.
func (c *call) AssumeRole(_ context.Context, in *stsapi.AssumeRoleInput) (*stsapi.AssumeRoleOutput, error) {
	arn, ok := identity.ParseRoleARN(*in.RoleArn)
	if !ok {
		return nil, invalid(*in.RoleArn + " is invalid")
	}
	c.resource = arn
	role := c.door.Identities.RoleByARN(*in.RoleArn)
	if role == nil {
		return nil, front.NotAssumable(c.caller.Principal, *in.RoleArn)
	}
	keys := policy.Keys{}
	keys.Set("sts:RoleSessionName", *in.RoleSessionName)
	for key, value := range map[string]*string{"sts:ExternalId": in.ExternalId, "sts:SourceIdentity": in.SourceIdentity} {
		if value != nil {
			keys.Set(key, *value)
		}
	}
	if err := c.door.Access.AuthoriseAssume(c.caller.Principal, role, keys); err != nil {
		return nil, err
	}
	seconds := defaultDuration
	if in.DurationSeconds != nil {
		seconds = *in.DurationSeconds
	}
	switch {
	case c.caller.Principal.Role != "" && seconds > maxChained:
		return nil, invalid("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	case seconds > role.MaxSession:
		return nil, invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	session := identity.Session{Name: *in.RoleSessionName, Lasts: time.Duration(seconds) * time.Second}
	packed := 0
	if in.Policy != nil {
		session.Policies, packed = []string{*in.Policy}, len(*in.Policy)
	}
	for _, p := range in.PolicyArns {
		if p.Arn == nil {
			return nil, invalid("An element of PolicyArns has no arn.")
		}
		session.PolicyARNs = append(session.PolicyARNs, *p.Arn)
	}
	switch {
	case len(session.PolicyARNs) > maxSessionPolicies:
		return nil, invalid("There are too many managed policies: 10 are allowed.")
	case packed > maxPacked:
		return nil, &wire.Fault{Code: "PackedPolicyTooLarge", Status: http.StatusBadRequest, Message: "Serialized token too large for session"}
	}
	credential, err := c.door.Identities.Assume(role, session)
	if err != nil {
		return nil, err
	}
	out := &stsapi.AssumeRoleOutput{
		Credentials: &stsapi.Credentials{
			AccessKeyId: &credential.Principal.AccessKey, SecretAccessKey: &credential.Secret, SessionToken: &credential.Token, Expiration: &credential.Expires,
		},
		AssumedRoleUser: &stsapi.AssumedRoleUser{AssumedRoleId: &credential.Principal.UserID, Arn: &credential.Principal.ARN},
		SourceIdentity:  in.SourceIdentity,
	}
	if packed > 0 {
		out.PackedPolicySize = new((packed*100 + maxPacked - 1) / maxPacked)
	}
	return out, nil
}
