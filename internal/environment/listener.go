package environment

import (
	"net"
	"syscall"
)

// listener gives its port up the moment it is closed. Without the shutdown, a
// process that the daemon happens to be starting keeps the port until its exec,
// because it has a copy of every descriptor, and an environment that is reset
// then cannot listen there again.
type listener struct{ net.Listener }

func (l listener) Close() error {
	if c, ok := l.Listener.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RD) }) // it is closed either way
		}
	}
	return l.Listener.Close()
}
