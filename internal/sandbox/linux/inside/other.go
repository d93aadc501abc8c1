//go:build !linux

package inside

// Init is the entry point of a sandbox's first process, which this system cannot have.
func Init() int { return 2 }
