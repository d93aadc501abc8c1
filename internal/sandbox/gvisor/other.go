//go:build !linux

package gvisor

import (
	"context"
	"errors"
	"runtime"

	"kiln/internal/sandbox"
)

// Driver is not available on this system.
type Driver struct{ sandbox.Driver }

var errSystem = errors.New("the gvisor driver needs Linux, and this is " + runtime.GOOS)

// New says that this system has no such driver.
func New(Config) (*Driver, error) { return nil, errSystem }

// Probe says the same.
func (*Driver) Probe(context.Context) error { return errSystem }
