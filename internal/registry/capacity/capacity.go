// Package capacity is the capacity providers of every account and region, as
// resources: what they say is kept and shown, and no function can run on one,
// because Kiln has no instances but the machine it runs on. The Lambda API's door
// calls it; it starts nothing.
package capacity

import (
	"context"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/table"
)

// Registry is safe for concurrent use.
type Registry struct {
	providers *table.Table[lambda.CapacityProvider]
}

// New returns an empty registry.
func New(st state.State) *Registry {
	return &Registry{table.New[lambda.CapacityProvider](st, "capacity")}
}

// Open loads everything.
func (r *Registry) Open(ctx context.Context) error { return r.providers.Open(ctx) }

// Create makes a provider. What it returns is Pending.
func (r *Registry) Create(ctx context.Context, p lambda.CapacityProvider) (*lambda.CapacityProvider, error) {
	p.State, p.Modified = lambda.CapacityActive, time.Now().UTC()
	var err error
	if p.Tags, err = lambda.Retag(nil, p.Tags, nil); err != nil {
		return nil, err
	}
	made, err := r.providers.Change(ctx, p.ARN.Scope, p.ARN.Name, func(was *lambda.CapacityProvider) (*lambda.CapacityProvider, error) {
		if was != nil {
			return nil, lambda.Conflict("Capacity provider already exists: %s", p.ARN)
		}
		return &p, nil
	})
	if err != nil {
		return nil, err
	}
	return in(made, lambda.CapacityPending), nil
}

// in is a provider on its way from or to being there.
func in(p *lambda.CapacityProvider, state lambda.CapacityState) *lambda.CapacityProvider {
	passing := *p
	passing.State = state
	return &passing
}

// Get returns a provider.
func (r *Registry) Get(arn lambda.CapacityProviderARN) (*lambda.CapacityProvider, error) {
	if p := r.providers.Get(arn.Scope, arn.Name); p != nil {
		return p, nil
	}
	return nil, notFound(arn)
}

func notFound(arn lambda.CapacityProviderARN) error {
	return lambda.NotFound("Capacity provider not found: %s", arn)
}

// List returns up to limit providers of a scope in the order of their names, from
// the first after the marker, and whether there are more; in a state, unless it is "".
func (r *Registry) List(scope lambda.Scope, state lambda.CapacityState, after string, limit int) (page []*lambda.CapacityProvider, more bool) {
	return r.providers.Page(scope, after, limit, func(p *lambda.CapacityProvider) bool { return state == "" || p.State == state })
}

// Scale changes how a provider scales; nil keeps it.
func (r *Registry) Scale(ctx context.Context, arn lambda.CapacityProviderARN, scaling *lambda.CapacityScaling) (*lambda.CapacityProvider, error) {
	return r.change(ctx, arn, func(p *lambda.CapacityProvider) error {
		if scaling != nil {
			p.Scaling = scaling
		}
		p.Modified = time.Now().UTC()
		return nil
	})
}

// Delete removes a provider. What it returns is Deleting.
func (r *Registry) Delete(ctx context.Context, arn lambda.CapacityProviderARN) (gone *lambda.CapacityProvider, err error) {
	_, err = r.providers.Change(ctx, arn.Scope, arn.Name, func(was *lambda.CapacityProvider) (*lambda.CapacityProvider, error) {
		if was == nil {
			return nil, notFound(arn)
		}
		gone = in(was, lambda.CapacityDeleting)
		return nil, nil
	})
	return gone, err
}

// Tag sets and removes tags of a provider.
func (r *Registry) Tag(ctx context.Context, arn lambda.CapacityProviderARN, set map[string]string, remove []string) error {
	_, err := r.change(ctx, arn, func(p *lambda.CapacityProvider) (err error) {
		p.Tags, err = lambda.Retag(p.Tags, set, remove)
		return err
	})
	return err
}

func (r *Registry) change(ctx context.Context, arn lambda.CapacityProviderARN, change func(*lambda.CapacityProvider) error) (*lambda.CapacityProvider, error) {
	return r.providers.Change(ctx, arn.Scope, arn.Name, func(was *lambda.CapacityProvider) (*lambda.CapacityProvider, error) {
		if was == nil {
			return nil, notFound(arn)
		}
		p := *was
		return &p, change(&p)
	})
}
