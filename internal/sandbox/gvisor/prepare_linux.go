package gvisor

import (
	"context"
	"errors"
	"fmt"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/skeleton"
)

// PreparedPaths implements sandbox.Preparer.
func (d *Driver) PreparedPaths() sandbox.Paths { return paths }

// Prepare implements sandbox.Preparer.
func (d *Driver) Prepare(ctx context.Context, spec sandbox.Spec) (sandbox.Prepared, error) {
	if err := errors.Join(ctx.Err(), spec.CheckUnassigned()); err != nil {
		return nil, err
	}
	b := newBox(d, spec)
	b.unassigned = true
	return d.create(ctx, b)
}

// Assign implements sandbox.Prepared.
func (b *box) Assign(ctx context.Context, spec sandbox.Spec) error {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	if err := errors.Join(ctx.Err(), spec.Check(), b.usable()); err != nil {
		return err
	}
	if !b.unassigned || spec.Root != "" || spec.TmpBytes != b.spec.TmpBytes || b.d.network.Of(spec) != b.d.network.Of(b.spec) {
		return b.wrap(errors.New("it is not made for such a function, or it is another's"))
	}
	b.unassigned = false
	from, to := []string{"assign", spec.Task}, []string{"assign", skeleton.TaskDir}
	if spec.Opt != "" {
		from, to = append(from, spec.Opt), append(to, skeleton.OptDir)
	}
	_, err := b.kernel.outer.Call(ctx, from...)
	if err == nil {
		_, err = b.kernel.inner.Call(ctx, to...)
	}
	if err == nil {
		err = b.admit(spec)
	}
	if err != nil {
		return b.wrap(fmt.Errorf("assign it: %w", err))
	}
	return nil
}
