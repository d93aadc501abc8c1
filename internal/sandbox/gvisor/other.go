//go:build !linux

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
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

// Init is the entry point of a sandbox's first processes, which this system cannot have.
func Init() int {
	fmt.Fprintln(os.Stderr, errSystem)
	return 2
}
