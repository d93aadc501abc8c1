package registry

import (
	"context"

	"kiln/internal/lambda"
)

// Owner is what something is attached to: a function (by $LATEST), a published
// version, or an alias.
type Owner struct {
	ARN      lambda.FunctionARN // as it was asked for
	Revision lambda.RevisionID
	Attached lambda.Attached
}

// Owner returns what the ARN names, with what is attached to it.
func (r *Registry) Owner(arn lambda.FunctionARN) (Owner, error) {
	if a := r.findAlias(arn); a != nil {
		return Owner{arn, a.shown.Revision, a.attached}, nil
	}
	e := r.find(arn)
	switch {
	case e != nil:
		return Owner{arn, e.shown.Revision, e.attached}, nil
	case arn.Qualifier != "" && arn.Qualifier.Number() == 0 && r.find(arn.Unqualified()) != nil:
		return Owner{}, noAlias(arn)
	default:
		return Owner{}, notFound(arn)
	}
}

// Attach changes what is attached to the owner that the ARN names; change is given a
// copy. Only where it sets another Revision has the owner one.
func (r *Registry) Attach(ctx context.Context, arn lambda.FunctionARN, change func(*Owner) error) error {
	defer r.writes.lock(arn.Unqualified().String())()
	o, err := r.Owner(arn)
	if err == nil {
		err = change(&o)
	}
	if err != nil {
		return err
	}
	if a := r.findAlias(arn); a != nil {
		shown := *a.shown
		shown.Revision = o.Revision
		return r.writeAlias(ctx, &alias{&shown, o.Attached, a.revision})
	}
	next := *r.find(arn)
	if next.shown.Revision != o.Revision {
		shown := *next.shown
		shown.Revision = o.Revision
		if next.serving == next.shown {
			next.serving = &shown
		}
		next.shown = &shown
	}
	next.attached = o.Attached
	return r.commit(ctx, &next)
}

// Attaching returns up to limit functions of a scope to which something is attached
// that matches, in the order of their names, from the first after the marker, and
// whether there are more.
func (r *Registry) Attaching(scope lambda.Scope, match func(*lambda.Attached) bool, after lambda.FunctionName, limit int) (page []lambda.FunctionARN, more bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, f := range r.functions[scope].after(after) {
		if !match(&f.latest.attached) {
			continue
		}
		if len(page) == limit {
			return page, true
		}
		page = append(page, f.latest.shown.ARN)
	}
	return page, false
}
