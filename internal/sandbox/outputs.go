//go:build unix

package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// GiveOutputs makes a command's pipes the user's that will write to them. They
// would work without as descriptors, but opening /dev/stdout, as scripts and
// loggers do, asks for the owner.
func GiveOutputs(c Command, uid int) error {
	for _, f := range []*os.File{c.Stdout, c.Stderr, c.Telemetry} {
		if f == nil {
			continue
		}
		var st unix.Stat_t
		fd := int(f.Fd())
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("output %s: %w", f.Name(), err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFIFO {
			continue
		}
		if err := unix.Fchown(fd, uid, uid); err != nil {
			return fmt.Errorf("output %s: %w", f.Name(), err)
		}
	}
	return nil
}
