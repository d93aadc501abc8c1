//go:build !linux

package program

import "os"

// File is no program: this system has no sandboxes.
func File() (*os.File, error) { return nil, nil }
