package sandbox

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
)

// Choice is a Driver that stands for several: some groups have another than the rest.
// What it says of itself is the rest's; ask DriverOf for a group's.
type Choice struct {
	Driver                   // of the rest
	Others map[string]Driver // by the first part of Spec.Group, an account; it does not change
}

// DriverOf returns the driver that makes the sandboxes of a group.
func DriverOf(d Driver, group string) Driver {
	c, ok := d.(*Choice)
	if !ok {
		return d // of all
	}
	first, _, _ := strings.Cut(group, "/")
	if other, ok := c.Others[first]; ok {
		return other
	}
	return c.Driver
}

// drivers are all, each once.
func (c *Choice) drivers() []Driver {
	list := []Driver{c.Driver}
	for _, first := range slices.Sorted(maps.Keys(c.Others)) {
		if d := c.Others[first]; !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	return list
}

// Create implements Driver.
func (c *Choice) Create(ctx context.Context, spec Spec) (Sandbox, error) {
	return DriverOf(c, spec.Group).Create(ctx, spec)
}

// Sweep implements Driver.
func (c *Choice) Sweep(ctx context.Context) (err error) {
	for _, d := range c.drivers() {
		err = errors.Join(err, d.Sweep(ctx))
	}
	return err
}

// Close implements Driver.
func (c *Choice) Close() (err error) {
	for _, d := range c.drivers() {
		err = errors.Join(err, d.Close())
	}
	return err
}

// Expose implements Exposer, for those that are.
func (c *Choice) Expose(folders ...string) (err error) {
	for _, d := range c.drivers() {
		if e, ok := d.(Exposer); ok {
			err = errors.Join(err, e.Expose(folders...))
		}
	}
	return err
}

// Waiting implements Waiter.
func (c *Choice) Waiting() (n int) {
	for _, d := range c.drivers() {
		if w, ok := d.(Waiter); ok {
			n += w.Waiting()
		}
	}
	return n
}

// MountPoints implements Rooter, for those that are; Create of others refuses roots.
func (c *Choice) MountPoints() (points []string) {
	for _, d := range c.drivers() {
		if r, ok := d.(Rooter); ok {
			points = append(points, r.MountPoints()...)
		}
	}
	slices.Sort(points)
	return slices.Compact(points)
}
