package pid1

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The daemon and a sandbox's init speak over a pair of sequenced-packet sockets:
// one packet is one message, a list of strings joined by NUL, which no path,
// argument or variable can hold, together with file descriptors. The first
// string is a number: a request's own, repeated in its answer, or 0 for an event
// that nobody asked for.
//
//	request argument…  → ok result…, perhaps with a descriptor
//	                   → err errno text, or dir errno text, when it fails
//	0 exit pid status  (a process ended; status as wait(2) has it)
//
// Bounds of a message.
const (
	// MaxMessage bounds a packet: below the kernel's default socket buffer of
	// 208 KiB, above AWS's 4 KiB of environment by far.
	MaxMessage = 128 << 10
	MaxFiles   = 4 // descriptors in a packet
)

var errTooLong = errors.New("arguments and environment are longer than 128 KiB")

// Encode makes a message.
func Encode(id uint64, fields []string) ([]byte, error) {
	n := 20
	for _, f := range fields {
		if strings.IndexByte(f, 0) >= 0 {
			return nil, fmt.Errorf("%q holds a NUL byte: %w", f, unix.EINVAL)
		}
		n += len(f) + 1
	}
	if n > MaxMessage {
		return nil, errTooLong
	}
	b := strconv.AppendUint(make([]byte, 0, n), id, 10)
	for _, f := range fields {
		b = append(append(b, 0), f...)
	}
	return b, nil
}

// Decode reads what Encode made.
func Decode(b []byte) (id uint64, fields []string, err error) {
	head, rest, ok := strings.Cut(string(b), "\x00")
	if id, err = strconv.ParseUint(head, 10, 64); err != nil || !ok {
		return 0, nil, fmt.Errorf("malformed message %.40q", b)
	}
	return id, strings.Split(rest, "\x00"), nil
}

// ReceivedFDs are the descriptors in the control data of a message.
func ReceivedFDs(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

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
		s.send(id, nil, append([]string{"ok"}, result...))
		return
	}
	var errno syscall.Errno
	text := err.Error()
	if errors.As(err, &errno) {
		text = strings.TrimSuffix(text, ": "+errno.Error())
	}
	kind := "err"
	if errors.As(err, new(*DirError)) {
		kind = "dir"
	}
	s.send(id, nil, []string{kind, strconv.Itoa(int(errno)), text})
}

// Give answers with a descriptor, which this process does not keep.
func (s Server) Give(id uint64, fd int) {
	s.send(id, unix.UnixRights(fd), []string{"ok"})
	_ = unix.Close(fd)
}

// Event tells of what nobody asked for.
func (s Server) Event(fields ...string) { s.send(0, nil, fields) }

// Exited is the event of a process's end.
func (s Server) Exited(pid int, status syscall.WaitStatus) {
	s.Event("exit", strconv.Itoa(pid), strconv.Itoa(int(status)))
}

func (s Server) send(id uint64, oob []byte, fields []string) {
	b, err := Encode(id, fields)
	if err != nil {
		b, _ = Encode(id, []string{"err", "0", fmt.Sprintf("the answer cannot be sent: %v", err)})
		oob = nil
	}
	for {
		if err := unix.Sendmsg(int(s), b, oob, nil, unix.MSG_NOSIGNAL); !errors.Is(err, unix.EINTR) {
			return // a daemon that is gone is noticed by the next read
		}
	}
}
