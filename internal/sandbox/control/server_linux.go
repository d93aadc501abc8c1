package control

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
)

// Server is the first process's end: a descriptor.
type Server int

// Serve calls handle with each request, one after the other, until the daemon's end
// is gone. The descriptors that came along are closed after it; what handle keeps it
// takes out, by setting it to -1.
func (s Server) Serve(handle func(id uint64, fields []string, fds []int)) error {
	buf := make([]byte, MaxMessage)
	oob := make([]byte, unix.CmsgSpace(4*MaxFiles))
	for {
		n, oobn, _, _, err := unix.Recvmsg(int(s), buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return nil
		}
		fds := ReceivedFDs(oob[:oobn])
		id, fields, err := Decode(buf[:n])
		if err != nil {
			return err
		}
		handle(id, fields, fds)
		for _, fd := range fds {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}
}

// Reply answers a request. It is safe for concurrent use, as Event is.
func (s Server) Reply(id uint64, err error, result ...string) {
	if err == nil {
		s.send(id, append([]string{"ok"}, result...))
		return
	}
	var errno syscall.Errno
	text := err.Error()
	if errors.As(err, &errno) {
		text = strings.TrimSuffix(text, ": "+errno.Error())
	}
	kind := "err"
	if errors.As(err, new(*sandbox.DirError)) {
		kind = "dir"
	}
	s.send(id, []string{kind, strconv.Itoa(int(errno)), text})
}

// Event tells of what nobody asked for.
func (s Server) Event(fields ...string) { s.send(0, fields) }

// Exited is the event of a process's end.
func (s Server) Exited(pid int, status syscall.WaitStatus) {
	s.Event("exit", strconv.Itoa(pid), strconv.Itoa(int(status)))
}

func (s Server) send(id uint64, fields []string) {
	b, err := Encode(id, fields)
	if err != nil {
		b, _ = Encode(id, []string{"err", "0", fmt.Sprintf("the answer cannot be sent: %v", err)})
	}
	for {
		if err := unix.Sendmsg(int(s), b, nil, nil, unix.MSG_NOSIGNAL); !errors.Is(err, unix.EINTR) {
			return // a daemon that is gone is noticed by the next read
		}
	}
}
