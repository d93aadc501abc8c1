package registry

import (
	"bytes"
	"context"
	"errors"
	"io"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// Functions and layer versions share packages: what has the same content is kept
// once, as long as anything has it.

// reference keeps packages from being discarded until they are unreferenced as
// often. r.mu is held.
func (r *Registry) reference(list ...lambda.Code) {
	for _, c := range list {
		r.codes[c.SHA256]++
	}
}

// unreference counts a user of each package out, and returns those of which that
// was the last. r.mu is held.
func (r *Registry) unreference(list ...lambda.Code) (unused []lambda.Code) {
	for _, c := range list {
		if r.codes[c.SHA256]--; r.codes[c.SHA256] == 0 {
			delete(r.codes, c.SHA256)
			unused = append(unused, c)
		}
	}
	return unused
}

// Sweep removes those of the packages that nothing has: what a crash left.
// Something may come to have one meanwhile.
func (r *Registry) Sweep(ctx context.Context, packages []lambda.Code) {
	for _, c := range packages {
		if ctx.Err() != nil {
			return
		}
		r.discard(c)
	}
}

func (r *Registry) discard(list ...lambda.Code) {
	for _, c := range list {
		r.removal.Lock()
		r.mu.RLock()
		used := r.codes[c.SHA256] > 0 // it was added again meanwhile
		r.mu.RUnlock()
		if !used {
			if err := r.packages.Remove(r.ctx, c); err != nil && !errors.Is(err, state.ErrNotFound) {
				r.log.Warn("a package that nothing uses stays on the disk", "sha256", c.SHA256, "error", err)
			}
		}
		r.removal.Unlock()
	}
}

// claims keep packages from being discarded until what is to have them is
// written, or given up.
type claims struct {
	registry *Registry
	scope    lambda.Scope // whose the code will be
	list     []lambda.Code
}

func (r *Registry) claims(scope lambda.Scope) *claims { return &claims{registry: r, scope: scope} }

// source is where code comes from: one of these.
type source struct {
	zip    []byte
	object *lambda.S3Object
	image  string
	key    string // ARN of the KMS key of a zip, which is only kept
}

// add verifies, stores and claims a package, which may have to be fetched first.
func (c *claims) add(ctx context.Context, from source) (lambda.Code, error) {
	r := c.registry
	if len(from.zip) > lambda.MaxZipped {
		return lambda.Code{}, lambda.RequestEntityTooLarge("Zipped size must be smaller than %d bytes", lambda.MaxZipped)
	}
	zip := io.NewSectionReader(bytes.NewReader(from.zip), 0, int64(len(from.zip)))
	if from.object != nil {
		fetched, close, err := r.packages.Fetch(ctx, *from.object)
		if err != nil {
			return lambda.Code{}, err
		}
		defer close()
		zip = fetched
	}
	if err := r.checkStorage(c.scope, zip.Size()); err != nil {
		return lambda.Code{}, err
	}
	r.removal.RLock()
	defer r.removal.RUnlock()
	code, err := r.packages.Add(ctx, zip)
	if err != nil {
		return code, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.hold(code)
	return code, nil
}

// find claims the image that a reference leads to. It need not be here yet.
func (c *claims) find(ctx context.Context, uri string) (lambda.Code, error) {
	code, err := c.registry.packages.Resolve(ctx, uri)
	var failure *lambda.Failure
	if errors.As(err, &failure) {
		return code, failure.Refusal()
	}
	if err != nil {
		return code, err
	}
	c.registry.mu.Lock()
	defer c.registry.mu.Unlock()
	c.hold(code)
	return code, nil
}

// hold claims a package that something has. r.mu is held.
func (c *claims) hold(code lambda.Code) {
	c.registry.reference(code)
	c.list = append(c.list, code)
}

// release ends the claims.
func (c *claims) release() {
	r := c.registry
	r.mu.Lock()
	unused := r.unreference(c.list...)
	r.mu.Unlock()
	c.list = nil
	r.discard(unused...)
}
