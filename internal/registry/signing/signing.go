// Package signing is the code signing configurations of every account and region.
// Kiln has no signer, so that no code has a signature that one could verify: a
// configuration that enforces signatures refuses all code, as AWS refuses code
// without one, and any other accepts it. The Lambda API's door calls it; it starts
// nothing.
package signing

import (
	"context"
	"sync"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/table"
)

// Registry is safe for concurrent use.
type Registry struct {
	configs *table.Table[lambda.SigningConfig]
	used    func(lambda.SigningConfigARN) bool

	// use is held for reading while a configuration is attached to a function, for
	// writing while one that no function has is removed.
	use sync.RWMutex
}

// New returns an empty registry. used reports whether a function has a configuration.
func New(st state.State, used func(lambda.SigningConfigARN) bool) *Registry {
	return &Registry{configs: table.New[lambda.SigningConfig](st, "signing"), used: used}
}

// Open loads everything.
func (r *Registry) Open(ctx context.Context) error { return r.configs.Open(ctx) }

// Create makes a configuration: its ARN's id, and when it was modified, are set here.
func (r *Registry) Create(ctx context.Context, c lambda.SigningConfig) (*lambda.SigningConfig, error) {
	c.ARN.ID, c.Modified = lambda.NewSigningConfigID(), time.Now().UTC()
	var err error
	if c.Tags, err = lambda.Retag(nil, c.Tags, nil); err != nil {
		return nil, err
	}
	return r.configs.Change(ctx, c.ARN.Scope, c.ARN.ID, func(*lambda.SigningConfig) (*lambda.SigningConfig, error) { return &c, nil })
}

// Get returns a configuration.
func (r *Registry) Get(arn lambda.SigningConfigARN) (*lambda.SigningConfig, error) {
	if c := r.configs.Get(arn.Scope, arn.ID); c != nil {
		return c, nil
	}
	return nil, notFound(arn)
}

func notFound(arn lambda.SigningConfigARN) error {
	return lambda.NotFound("The Lambda code signing configuration %s can not be found.", arn)
}

// List returns up to limit configurations of a scope in the order of their ids, from
// the first after the marker, and whether there are more.
func (r *Registry) List(scope lambda.Scope, after string, limit int) (page []*lambda.SigningConfig, more bool) {
	return r.configs.Page(scope, after, limit, func(*lambda.SigningConfig) bool { return true })
}

// Update changes a configuration; change is given a copy.
func (r *Registry) Update(ctx context.Context, arn lambda.SigningConfigARN, change func(*lambda.SigningConfig)) (*lambda.SigningConfig, error) {
	return r.change(ctx, arn, func(c *lambda.SigningConfig) error {
		change(c)
		c.Modified = time.Now().UTC()
		return nil
	})
}

// Delete removes a configuration that no function has.
func (r *Registry) Delete(ctx context.Context, arn lambda.SigningConfigARN) error {
	r.use.Lock()
	defer r.use.Unlock()
	_, err := r.configs.Change(ctx, arn.Scope, arn.ID, func(was *lambda.SigningConfig) (*lambda.SigningConfig, error) {
		switch {
		case was == nil:
			return nil, notFound(arn)
		case r.used(arn):
			return nil, lambda.Conflict("The code signing configuration %s is attached to a function. Detach it from all functions first.", arn)
		}
		return nil, nil
	})
	return err
}

// Use runs attach, which gives a function the configuration, while that cannot be removed.
func (r *Registry) Use(arn lambda.SigningConfigARN, attach func(*lambda.SigningConfig) error) error {
	r.use.RLock()
	defer r.use.RUnlock()
	c := r.configs.Get(arn.Scope, arn.ID)
	if c == nil {
		return lambda.NoSigningConfig(arn.String())
	}
	return attach(c)
}

// Tag sets and removes tags of a configuration.
func (r *Registry) Tag(ctx context.Context, arn lambda.SigningConfigARN, set map[string]string, remove []string) error {
	_, err := r.change(ctx, arn, func(c *lambda.SigningConfig) (err error) {
		c.Tags, err = lambda.Retag(c.Tags, set, remove)
		return err
	})
	return err
}

func (r *Registry) change(ctx context.Context, arn lambda.SigningConfigARN, change func(*lambda.SigningConfig) error) (*lambda.SigningConfig, error) {
	return r.configs.Change(ctx, arn.Scope, arn.ID, func(was *lambda.SigningConfig) (*lambda.SigningConfig, error) {
		if was == nil {
			return nil, notFound(arn)
		}
		c := *was
		return &c, change(&c)
	})
}
