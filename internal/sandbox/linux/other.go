//go:build !linux

package linux

import (
	"context"
	"errors"
	"runtime"

	"kiln/internal/sandbox"
)

// Driver is not available on this system.
type Driver struct{ sandbox.Driver }

var errSystem = errors.New("the linux driver needs Linux, and this is " + runtime.GOOS + ": use the process driver")

// New says that this system has no such driver.
func New(Config) (*Driver, error) { return nil, errSystem }

// Probe says the same.
func (*Driver) Probe(context.Context) error { return errSystem }
