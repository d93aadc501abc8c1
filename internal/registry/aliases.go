package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// alias is replaced, never changed.
type alias struct {
	shown    *lambda.Alias
	attached lambda.Attached
	revision state.Revision
}

func (r *Registry) openAliases(ctx context.Context) error {
	records, err := r.state.All(ctx, aliasPrefix)
	if err != nil {
		return fmt.Errorf("load aliases: %w", err)
	}
	for _, stored := range records {
		var rec aliasRecord
		if err := read(stored, &rec); err != nil {
			return err
		}
		r.putAlias(&alias{&rec.Alias, rec.Attached, stored.Revision})
	}
	return nil
}

func (r *Registry) putAlias(a *alias) {
	r.mu.Lock()
	defer r.mu.Unlock()
	arn := a.shown.ARN
	f := r.scope(arn.Scope).named(arn.Name)
	var was *lambda.Attached
	if old := f.aliases[arn.Qualifier]; old != nil {
		was = &old.attached
	}
	f.aliases[arn.Qualifier] = a
	r.index(arn, was, &a.attached)
}

func (r *Registry) findAlias(arn lambda.FunctionARN) *alias {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.function(arn).alias(arn.Qualifier)
}

// Alias returns the alias that the ARN names.
func (r *Registry) Alias(arn lambda.FunctionARN) (*lambda.Alias, error) {
	a := r.findAlias(arn)
	if a == nil {
		return nil, noAlias(arn)
	}
	return a.shown, nil
}

func noAlias(arn lambda.FunctionARN) error { return lambda.NotFound("Cannot find alias arn: %s", arn) }

// Aliases returns up to limit aliases of a function, of the version alone unless that
// is "", in the order of their names from the first after the marker, and whether
// there are more.
func (r *Registry) Aliases(arn lambda.FunctionARN, version, after lambda.Qualifier, limit int) (page []*lambda.Alias, more bool, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f := r.function(arn)
	if f == nil {
		return nil, false, notFound(arn)
	}
	for _, name := range slices.Sorted(maps.Keys(f.aliases)) {
		a := f.aliases[name].shown
		if name <= after || version != "" && a.Version != version {
			continue
		}
		if len(page) == limit {
			return page, true, nil
		}
		page = append(page, a)
	}
	return page, false, nil
}

// Routing is a RoutingConfig: the shares of further versions.
type Routing map[lambda.Qualifier]float64

// CreateAlias is what CreateAlias asks for.
type CreateAlias struct {
	ARN         lambda.FunctionARN // with the alias as its qualifier
	Version     lambda.Qualifier
	Description string
	Routing     Routing
}

// CreateAlias makes an alias.
func (r *Registry) CreateAlias(ctx context.Context, c CreateAlias) (*lambda.Alias, error) {
	defer r.writes.lock(c.ARN.Unqualified().String())()
	if _, err := r.numbered(c.ARN, c.Version); err != nil {
		return nil, err
	}
	if r.findAlias(c.ARN) != nil {
		return nil, lambda.Conflict("Alias already exists: %s", c.ARN)
	}
	a := &lambda.Alias{ARN: c.ARN, Version: c.Version, Description: c.Description}
	if err := r.route(a, c.Routing); err != nil {
		return nil, err
	}
	return a, r.commitAlias(ctx, a, &alias{})
}

// UpdateAlias is what UpdateAlias asks for; nil leaves a part as it is.
type UpdateAlias struct {
	ARN         lambda.FunctionARN
	Version     *lambda.Qualifier
	Description *string
	Routing     Routing           // empty ends the sharing
	Revision    lambda.RevisionID // "" for any
}

// UpdateAlias changes an alias.
func (r *Registry) UpdateAlias(ctx context.Context, u UpdateAlias) (*lambda.Alias, error) {
	defer r.writes.lock(u.ARN.Unqualified().String())()
	if r.find(u.ARN.Unqualified()) == nil {
		return nil, notFound(u.ARN.Unqualified())
	}
	from := r.findAlias(u.ARN)
	if from == nil {
		return nil, lambda.NotFound("Alias not found: %s", u.ARN)
	}
	if u.Revision != "" && u.Revision != from.shown.Revision {
		return nil, lambda.PreconditionFailed("GetFunction/GetAlias")
	}
	a := *from.shown
	if u.Version != nil {
		if _, err := r.numbered(u.ARN, *u.Version); err != nil {
			return nil, err
		}
		a.Version = *u.Version
	}
	if u.Description != nil {
		a.Description = *u.Description
	}
	if u.Routing == nil && a.Additional != nil { // what it keeps must still fit
		u.Routing = Routing{a.Additional.Version: a.Additional.Weight}
	}
	if err := r.route(&a, u.Routing); err != nil {
		return nil, err
	}
	return &a, r.commitAlias(ctx, &a, from)
}

// DeleteAlias removes an alias, if it is there.
func (r *Registry) DeleteAlias(ctx context.Context, arn lambda.FunctionARN) error {
	defer r.writes.lock(arn.Unqualified().String())()
	a := r.findAlias(arn)
	if a == nil {
		return nil
	}
	if err := r.removeAliases(ctx, a); err != nil {
		return fmt.Errorf("delete %s: %w", arn, err)
	}
	return nil
}

// numbered returns a version by its number, or $LATEST, and not by an alias.
func (r *Registry) numbered(arn lambda.FunctionARN, version lambda.Qualifier) (*entry, error) {
	arn.Qualifier = version
	if e := r.find(arn); e != nil && e.shown.Version == version {
		return e, nil
	}
	return nil, notFound(arn)
}

// route gives the alias the shares of further versions, of which there is one at most.
func (r *Registry) route(a *lambda.Alias, routing Routing) error {
	a.Additional = nil
	if len(routing) > 1 {
		return lambda.InvalidParameter("Number of items in AdditionalVersionWeights cannot be greater than 1")
	}
	for version, weight := range routing {
		switch {
		case version == a.Version:
			return lambda.InvalidParameter("Invalid function version %[1]s. Function version %[1]s is already included in routing configuration.", version)
		case a.Version == lambda.Latest:
			return lambda.InvalidParameter("$LATEST is not supported for an alias pointing to more than 1 version")
		}
		if _, err := r.numbered(a.ARN, version); err != nil {
			return err
		}
		a.Additional = &lambda.WeightedVersion{Version: version, Weight: weight}
	}
	return nil
}

// commitAlias makes an alias durable in place of another, and then visible.
func (r *Registry) commitAlias(ctx context.Context, a *lambda.Alias, from *alias) error {
	a.Revision = lambda.NewRevisionID()
	next := &alias{shown: a, attached: from.attached, revision: from.revision}
	return r.writeAlias(ctx, next)
}

func (r *Registry) writeAlias(ctx context.Context, next *alias) error {
	value, err := encodeAlias(next)
	if err != nil {
		return err
	}
	made := func(revisions []state.Revision) {
		next.revision = revisions[0]
		had := r.provisions(next.shown.ARN)
		r.putAlias(next)
		r.tellProvisioned(next.shown.ARN, had)
	}
	err = state.Commit(ctx, r.state, made, state.Change{Key: aliasKey(next.shown.ARN), Value: value, Expect: next.revision})
	if err != nil {
		return fmt.Errorf("write %s: %w", next.shown.ARN, err)
	}
	return nil
}

// removeAliases deletes aliases of one function.
func (r *Registry) removeAliases(ctx context.Context, list ...*alias) error {
	changes := make([]state.Change, len(list))
	for i, a := range list {
		changes[i] = state.Change{Key: aliasKey(a.shown.ARN), Expect: a.revision}
	}
	return state.Commit(ctx, r.state, func([]state.Revision) {
		had := r.provisions(list[0].shown.ARN)
		r.mu.Lock()
		for _, a := range list {
			delete(r.function(a.shown.ARN).aliases, a.shown.ARN.Qualifier)
			r.index(a.shown.ARN, &a.attached, nil)
		}
		r.mu.Unlock()
		r.tellProvisioned(list[0].shown.ARN, had)
	}, changes...)
}
