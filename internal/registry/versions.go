package registry

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"kiln/internal/lambda"
)

// Publish is what PublishVersion asks for.
type Publish struct {
	ARN         lambda.FunctionARN // unqualified
	CodeSHA256  string             // that $LATEST must have; "" for any
	Description *string            // of the version; nil takes over that of $LATEST
	Revision    lambda.RevisionID  // that $LATEST must have; "" for any
}

// Publish freezes $LATEST as the next version. Where the newest version is the same
// already, that is returned.
func (r *Registry) Publish(ctx context.Context, p Publish) (*lambda.Function, error) {
	defer r.writes.lock(p.ARN.Unqualified().String())()
	latest, err := r.ready(p.ARN, p.Revision)
	if err != nil {
		return nil, err
	}
	if latest.shown.State == lambda.Failed {
		return nil, lambda.Conflict("The operation cannot be performed at this time. The function is currently in the following state: Failed")
	}
	if p.CodeSHA256 != "" && p.CodeSHA256 != latest.shown.Code.SHA256 {
		return nil, lambda.InvalidParameter("CodeSHA256 (%s) is different from current CodeSHA256 in $LATEST (%s). Please try again with the CodeSHA256 in $LATEST.", p.CodeSHA256, latest.shown.Code.SHA256)
	}
	if newest := r.find(p.ARN.Qualified(lambda.NumberedVersion(latest.last))); newest != nil && newest.published == fingerprint(latest.shown) {
		return newest.shown, nil
	}
	if err := r.checkStorage(p.ARN.Scope, latest.shown.Code.Size); err != nil {
		return nil, err
	}
	next := *latest
	version := publish(&next)
	if p.Description != nil {
		version.shown.Settings.Description = *p.Description
	}
	if err := r.commit(ctx, version, &next); err != nil {
		return nil, err
	}
	return version.shown, nil
}

// publish makes the next version of what $LATEST is, and counts it there.
func publish(latest *entry) *entry {
	latest.last++
	f := *latest.shown
	f.Version = lambda.NumberedVersion(latest.last)
	f.Revision = lambda.NewRevisionID()
	f.Build = lambda.NewUUID()
	f.Tags = nil
	version := &entry{shown: &f, settled: closedChannel, published: fingerprint(latest.shown)}
	if unsettled(latest.shown) {
		version.settled = make(chan struct{})
		f.State, f.UpdateStatus, f.Reason, f.ReasonCode = lambda.Pending, "", creatingReason, creatingCode
	} else {
		f.State, f.UpdateStatus, f.Reason, f.ReasonCode = lambda.Active, lambda.UpdateSuccessful, "", ""
		version.serving = &f
	}
	return version
}

// fingerprint tells whether two versions are the same but for their numbers.
func fingerprint(f *lambda.Function) string {
	b, err := json.Marshal(struct {
		Code     string
		Settings *lambda.Settings
	}{f.Code.SHA256, &f.Settings})
	if err != nil {
		panic(err) // strings, numbers and maps of them always marshal
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// Versions returns up to limit versions of a function, $LATEST first (after is -1),
// then by number from the first after, and whether there are more.
func (r *Registry) Versions(arn lambda.FunctionARN, after int64, limit int) (page []*lambda.Function, more bool, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f := r.function(arn)
	if f == nil {
		return nil, false, notFound(arn)
	}
	if after < 0 {
		page = append(page, f.latest.shown)
		limit, after = limit-1, 0
	}
	rest, more := f.list(after, limit)
	return append(page, rest...), more, nil
}

// deleteVersion removes one published version. The function's lock is held.
func (r *Registry) deleteVersion(ctx context.Context, arn lambda.FunctionARN) error {
	r.mu.RLock()
	f := r.function(arn)
	isAlias := f.alias(arn.Qualifier) != nil
	e := f.version(arn.Qualifier)
	var users []string
	if f != nil {
		for _, name := range slices.Sorted(maps.Keys(f.aliases)) {
			if a := f.aliases[name].shown; a.Version == arn.Qualifier || a.Additional != nil && a.Additional.Version == arn.Qualifier {
				users = append(users, string(name))
			}
		}
	}
	r.mu.RUnlock()
	switch {
	case f == nil:
		return notFound(arn.Unqualified())
	case arn.Qualifier == lambda.Latest:
		return lambda.InvalidParameter("$LATEST version cannot be deleted without deleting the function.")
	case isAlias:
		return lambda.InvalidParameter("Deletion of aliases is not currently supported.")
	case e == nil: // AWS answers the same to a version that is not there
		return nil
	case len(users) > 0:
		return lambda.Conflict("Unable to delete version because the following aliases reference it: [%s]", strings.Join(users, ", "))
	}
	if err := r.remove(ctx, e); err != nil {
		return fmt.Errorf("delete %s: %w", arn, err)
	}
	return nil
}
