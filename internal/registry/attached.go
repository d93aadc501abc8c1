package registry

import (
	"cmp"
	"context"
	"maps"
	"slices"

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
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.owner(arn)
}

// owner is Owner. r.mu is held.
func (r *Registry) owner(arn lambda.FunctionARN) (Owner, error) {
	f := r.function(arn)
	if a := f.alias(arn.Qualifier); a != nil {
		return Owner{arn, a.shown.Revision, a.attached}, nil
	}
	e := f.version(arn.Qualifier)
	switch {
	case e != nil:
		return Owner{arn, e.shown.Revision, e.attached}, nil
	case arn.Qualifier != "" && arn.Qualifier.Number() == 0 && f != nil:
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

// Owners returns up to limit owners of a function to which something is attached that
// matches: $LATEST, then versions by number, then aliases by name, from the first after
// the qualifier, and whether there are more.
func (r *Registry) Owners(arn lambda.FunctionARN, match func(*lambda.Attached) bool, after lambda.Qualifier, limit int) (page []Owner, more bool, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f := r.function(arn)
	if f == nil {
		return nil, false, notFound(arn)
	}
	add := func(q lambda.Qualifier, revision lambda.RevisionID, attached *lambda.Attached) {
		switch {
		case more || after != "" && order(q, after) <= 0 || !match(attached):
		case len(page) == limit:
			more = true
		default:
			page = append(page, Owner{arn.Qualified(q), revision, *attached})
		}
	}
	add(lambda.Latest, f.latest.shown.Revision, &f.latest.attached)
	for _, v := range f.versions {
		add(v.shown.Version, v.shown.Revision, &v.attached)
	}
	for _, name := range slices.Sorted(maps.Keys(f.aliases)) {
		a := f.aliases[name]
		add(name, a.shown.Revision, &a.attached)
	}
	return page, more, nil
}

// order compares qualifiers as Owners lists them.
func order(a, b lambda.Qualifier) int {
	kind := func(q lambda.Qualifier) int {
		switch {
		case q == lambda.Latest:
			return 0
		case q.Number() > 0:
			return 1
		default:
			return 2
		}
	}
	return cmp.Or(cmp.Compare(kind(a), kind(b)), cmp.Compare(a.Number(), b.Number()), cmp.Compare(a, b))
}

// OwnerByURL returns what has the function URL of that id.
func (r *Registry) OwnerByURL(id string) (Owner, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	arn, ok := r.urls[id]
	if !ok {
		return Owner{}, lambda.NotFound("There is no function URL with the id %s.", id)
	}
	return r.owner(arn)
}

// index keeps r.urls, and what concurrency is claimed, in step with what an owner has
// attached. r.mu is held.
func (r *Registry) index(owner lambda.FunctionARN, was, now *lambda.Attached) {
	r.scope(owner.Scope).claim(owner.Name, was, now)
	if was != nil && was.URL != nil {
		delete(r.urls, was.URL.ID)
	}
	if now != nil && now.URL != nil {
		r.urls[now.URL.ID] = owner
	}
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
