// Package iam is the door of the IAM API, as deep as a deployment of functions needs
// it: roles, their policies, and managed policies, of which those of AWS that
// functions attach are there. It turns wire types into changes of the identity
// store and back. An operation that is not a method here answers that it is not
// built.
package iam

import (
	"encoding/base64"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"kiln/internal/aws/iamapi"
	"kiln/internal/aws/policy"
	"kiln/internal/aws/query"
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
	return &query.Handler[iamapi.Service]{
		API: &iamapi.API,
		Open: func(r *http.Request, requestID string) (query.Call[iamapi.Service], error) {
			caller, err := d.Access.Authenticate(r, inside)
			c := &call{door: d, store: d.Identities, caller: caller, account: caller.Scope.Account}
			return query.Call[iamapi.Service]{
				Serve: func(op *query.Operation[iamapi.Service]) iamapi.Service {
					c.action = op.Action
					return c
				},
				Verify: caller.Verify,
				Over: func(op *query.Operation[iamapi.Service], fault *wire.Fault) {
					act := front.Act{Who: caller.Principal, Resource: c.resource, RequestID: requestID, Fault: fault}
					if op != nil {
						act.Operation, act.Action = op.Name, op.Action
						act.Changes = !strings.HasPrefix(op.Name, "Get") && !strings.HasPrefix(op.Name, "List")
					}
					d.Audit.Record(act)
				},
			}, err
		},
		Fault: d.fault,
		Admit: d.Admit,
	}
}

func (d *Door) fault(r *http.Request, op *query.Operation[iamapi.Service], err error) *wire.Fault {
	if f := front.QueryRefusal(err); f != nil {
		return f
	}
	name := "the request"
	if op != nil {
		name = op.Name
	}
	if r.Context().Err() == nil {
		d.Log.Error("operation failed", "operation", name, "error", err)
	}
	return &wire.Fault{Code: "ServiceFailure", Status: http.StatusInternalServerError, Message: "Kiln failed to carry out " + name + "; its log says why."}
}

// call is one request. Its methods are the operations.
type call struct {
	door     *Door
	store    *identity.Store
	caller   front.Caller
	account  lambda.AccountID // whose roles and policies they are
	action   string
	resource lambda.ARN // that the caller must be allowed this for; nil before it is known
}

var _ iamapi.Service = (*call)(nil)

func invalid(code, message string) *wire.Fault {
	return &wire.Fault{Code: code, Status: http.StatusBadRequest, Message: message}
}

// may checks that the caller may do this to the resource.
func (c *call) may(resource lambda.ARN, keys policy.Keys) error {
	c.resource = resource
	return c.door.Access.AuthoriseWith(c.caller.Principal, c.action, resource, keys)
}

// mayRole checks that the caller may do this to the role, whether it is there or not.
func (c *call) mayRole(name *string, keys policy.Keys) error {
	arn := identity.RoleARN{Account: c.account, Path: "/", Name: *name}
	if r := c.store.Role(c.account, *name); r != nil {
		arn = r.ARN()
	}
	return c.may(arn, keys)
}

// role finds a role that the caller may do this to.
func (c *call) role(name *string) (*identity.Role, error) {
	if err := c.mayRole(name, nil); err != nil {
		return nil, err
	}
	return c.store.FindRole(c.account, *name)
}

// policyARN is one of a managed policy. AWS's belong to whoever asks for them.
type policyARN struct {
	identity.PolicyARN
	asker lambda.AccountID
}

func (a policyARN) Owner() lambda.AccountID {
	if a.Account == "aws" {
		return a.asker
	}
	return a.Account
}

// mayPolicy checks that the caller may do this to the managed policy.
func (c *call) mayPolicy(arn *string) error {
	a, ok := identity.ParsePolicyARN(*arn)
	if !ok {
		return invalid("ValidationError", "ARN "+*arn+" is not valid.")
	}
	return c.may(policyARN{a, c.account}, nil)
}

// policy finds a managed policy that the caller may do this to.
func (c *call) policy(arn *string) (*identity.ManagedPolicy, error) {
	if err := c.mayPolicy(arn); err != nil {
		return nil, err
	}
	return c.store.FindPolicy(c.account, *arn)
}

// about are the condition keys of an operation that names a managed policy.
func about(key string, arn *string) policy.Keys {
	keys := policy.Keys{}
	if arn != nil {
		keys.Set(key, *arn)
	}
	return keys
}

// encoded is a policy document as IAM shows it.
func encoded(document string) *string {
	return new(strings.ReplaceAll(url.QueryEscape(document), "+", "%20"))
}

// readTags refuses what are no tags.
func readTags(list []iamapi.Tag) (map[string]string, error) {
	tags := map[string]string{}
	folded := map[string]bool{}
	for _, t := range list {
		if key := strings.ToLower(*t.Key); folded[key] {
			return nil, invalid("InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		} else if folded[key] = true; strings.HasPrefix(key, "aws:") {
			return nil, invalid("InvalidInput", "Tag keys must not begin with aws:.")
		}
		tags[*t.Key] = *t.Value
	}
	return tags, nil
}

// mergeTags puts tags over those that are there, whose keys may be in another case.
func mergeTags(onto, tags map[string]string) {
	removeTags(onto, slices.Collect(maps.Keys(tags)))
	maps.Copy(onto, tags)
}

func removeTags(from map[string]string, keys []string) {
	for key := range from {
		if slices.ContainsFunc(keys, func(k string) bool { return strings.EqualFold(k, key) }) {
			delete(from, key)
		}
	}
}

func showTags(tags map[string]string) []iamapi.Tag {
	list := []iamapi.Tag{}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, iamapi.Tag{Key: &key, Value: new(tags[key])})
	}
	return list
}

// pageSize is how many things a page has, unless the caller wants another number.
const pageSize = 100

// page cuts the things whose names come after the marker's. list is in the order of
// names, which are unique.
func page[T any](list []T, name func(T) string, marker *string, size *int) (cut []T, truncated *bool, next *string, err error) {
	if marker != nil {
		after, err := base64.RawURLEncoding.DecodeString(*marker)
		if err != nil {
			return nil, nil, nil, invalid("ValidationError", "Invalid Marker.")
		}
		list = list[firstAfter(list, name, string(after)):]
	}
	limit := pageSize
	if size != nil {
		limit = *size
	}
	if len(list) <= limit {
		return append([]T{}, list...), new(false), nil, nil // an empty list, not none
	}
	return list[:limit], new(true), new(base64.RawURLEncoding.EncodeToString([]byte(name(list[limit-1])))), nil
}

func firstAfter[T any](list []T, name func(T) string, after string) int {
	for i, v := range list {
		if name(v) > after {
			return i
		}
	}
	return len(list)
}
