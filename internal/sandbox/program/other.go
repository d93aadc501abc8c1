//go:build !linux

package program

// Path leads to no program: this system has no sandboxes.
func Path() (string, error) { return "", nil }
