package pid1

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// RaiseLoopback makes the loopback interface of this network namespace work.
func RaiseLoopback() (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("raise the loopback interface: %w", err)
		}
	}()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
