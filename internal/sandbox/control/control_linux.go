package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox/pid1"
)

// Control is the daemon's end. One goroutine reads; it ends at end of file,
// which is the end of init, or when close is called.
type Control struct {
	conn  *net.UnixConn
	event func(fields []string) // called by the reader
	gone  chan struct{}         // closed by the reader at its end

	mu      sync.Mutex
	last    uint64                            // guarded by mu
	pending map[uint64]func(Answer, *os.File) // guarded by mu; nil once gone
}

// Answer is what came of a request.
type Answer struct {
	Fields []string
	Err    error
}

var ErrGone = errors.New("the sandbox's first process is gone")

// New returns the daemon's end, whose Read gives what nobody asked for to event.
func New(conn *net.UnixConn, event func(fields []string)) *Control {
	return &Control{
		conn: conn, event: event,
		gone:    make(chan struct{}),
		pending: map[uint64]func(Answer, *os.File){},
	}
}

// Read handles what init sends, until it ends.
func (c *Control) Read() {
	buf := make([]byte, pid1.MaxMessage)
	oob := make([]byte, unix.CmsgSpace(4*pid1.MaxFiles))
	for {
		n, oobn, _, _, err := c.conn.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			break
		}
		file := firstFile(oob[:oobn])
		id, fields, err := pid1.Decode(buf[:n])
		if err != nil {
			break // init is this same program: only a bug comes here
		}
		if id == 0 {
			if file != nil {
				_ = file.Close()
			}
			c.event(fields)
			continue
		}
		c.mu.Lock()
		f := c.pending[id]
		delete(c.pending, id)
		c.mu.Unlock()
		if f == nil {
			if file != nil {
				_ = file.Close()
			}
			continue
		}
		f(toAnswer(fields), file)
	}
	c.mu.Lock()
	left := c.pending
	c.pending = nil
	c.mu.Unlock()
	for _, f := range left {
		f(Answer{Err: ErrGone}, nil)
	}
	_ = c.conn.Close()
	close(c.gone)
}

// ParseExit reads the event of a process's end.
func ParseExit(fields []string) (pid int, status syscall.WaitStatus, ok bool) {
	if len(fields) != 3 || fields[0] != "exit" {
		return 0, 0, false
	}
	pid, err1 := strconv.Atoi(fields[1])
	n, err2 := strconv.ParseUint(fields[2], 10, 32)
	return pid, syscall.WaitStatus(n), err1 == nil && err2 == nil
}

// Gone is closed when the first process's end is.
func (c *Control) Gone() <-chan struct{} { return c.gone }

// Close ends the conversation, and with it Read.
func (c *Control) Close() { _ = c.conn.Close() }

func toAnswer(fields []string) Answer {
	if fields[0] == "dir" && len(fields) == 3 {
		var why error
		if errno, _ := strconv.Atoi(fields[1]); errno != 0 {
			why = syscall.Errno(errno)
		}
		return Answer{Err: &pid1.DirError{Text: fields[2], Err: why}}
	}
	if fields[0] == "err" && len(fields) == 3 {
		errno, _ := strconv.Atoi(fields[1])
		if errno == 0 {
			return Answer{Err: errors.New(fields[2])}
		}
		return Answer{Err: fmt.Errorf("%s: %w", fields[2], syscall.Errno(errno))}
	}
	return Answer{Fields: fields[1:]}
}

// Send sends a request; then is called once with its answer, by the reader.
// On error it is not called.
func (c *Control) Send(fields []string, files []*os.File, then func(Answer, *os.File)) error {
	c.mu.Lock()
	if c.pending == nil {
		c.mu.Unlock()
		return ErrGone
	}
	c.last++
	id := c.last
	c.pending[id] = then
	c.mu.Unlock()
	err := c.write(id, fields, files)
	if err == nil {
		return nil
	}
	c.mu.Lock()
	_, waiting := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if !waiting {
		return nil // the reader saw the end first, and has said so
	}
	return err
}

func (c *Control) write(id uint64, fields []string, files []*os.File) error {
	b, err := pid1.Encode(id, fields)
	if err != nil {
		return err
	}
	fds := make([]int, 0, pid1.MaxFiles)
	for _, f := range files {
		fds = append(fds, int(f.Fd())) // also makes it blocking, which programs expect of their output
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.conn.WriteMsgUnix(b, oob, nil); err != nil {
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
			return ErrGone
		}
		return err
	}
	return nil
}

// Call sends a request and waits for its answer. A descriptor that comes too
// late is closed.
func (c *Control) Call(ctx context.Context, fields ...string) (*os.File, error) {
	return c.CallWith(ctx, nil, fields...)
}

// CallWith is Call with descriptors that go along.
func (c *Control) CallWith(ctx context.Context, files []*os.File, fields ...string) (*os.File, error) {
	type result struct {
		Answer
		file *os.File
	}
	done := make(chan result, 1)
	var once sync.Once // whoever is first decides: the answer, or the caller's leaving
	err := c.Send(fields, files, func(a Answer, f *os.File) {
		taken := false
		once.Do(func() { taken = true; done <- result{a, f} })
		if !taken && f != nil {
			_ = f.Close()
		}
	})
	if err != nil {
		return nil, err
	}
	select {
	case r := <-done:
		return r.file, r.Err
	case <-ctx.Done():
		left := false
		once.Do(func() { left = true })
		if left {
			return nil, ctx.Err()
		}
		r := <-done
		return r.file, r.Err
	}
}

// firstFile takes the descriptor out of a packet's control data; more than one
// is never sent this way.
func firstFile(oob []byte) *os.File {
	fds := pid1.ReceivedFDs(oob)
	if len(fds) == 0 {
		return nil
	}
	for _, fd := range fds[1:] {
		_ = unix.Close(fd)
	}
	return os.NewFile(uintptr(fds[0]), "received")
}

// Pair makes the two ends: the daemon's, and init's as a file to inherit.
func Pair() (*net.UnixConn, *os.File, error) { return pair(unix.SOCK_SEQPACKET) }

// Stream makes two ends of a stream of bytes, one of them to be passed on.
func Stream() (*net.UnixConn, *os.File, error) { return pair(unix.SOCK_STREAM) }

func pair(kind int) (*net.UnixConn, *os.File, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(p[0]), "control"), os.NewFile(uintptr(p[1]), "control")
	defer ours.Close() // FileConn duplicates it
	conn, err := net.FileConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}
