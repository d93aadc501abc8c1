package gvisor

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/control"
	"kiln/internal/sandbox/gvisor/inside"
)

const (
	// backlog bounds the connections that wait to be accepted.
	backlog = 128
	// hostStreams bounds the connections of a sandbox on the host, whatever its kernel
	// claims: somewhat more than the inner process relays at once.
	hostStreams = inside.MaxStreams + 64
)

// listener is one that the inner process has opened: what it accepts comes here as a
// stream of its own.
type listener struct {
	b    *box
	port int
	conn chan net.Conn
	once sync.Once
	done chan struct{}
}

// Listen implements sandbox.Sandbox.
func (b *box) Listen(ctx context.Context, port int) (net.Listener, error) {
	if err := b.usable(); err != nil {
		return nil, err
	}
	if b.hosted() {
		return b.listenOnHost(ctx)
	}
	key := strconv.Itoa(port)
	l := &listener{b: b, port: port, conn: make(chan net.Conn, backlog), done: make(chan struct{})}
	b.mu.Lock()
	if b.closing.Load() {
		b.mu.Unlock()
		return nil, errDestroyed
	}
	if b.listeners[key] != nil {
		b.mu.Unlock()
		return nil, b.wrap(fmt.Errorf("listen on %s: %w", sandbox.Loopback(port), unix.EADDRINUSE))
	}
	b.listeners[key] = l
	b.mu.Unlock()
	if _, err := b.kernel.inner.Call(ctx, "listen", key); err != nil {
		_ = l.Close()
		return nil, b.wrap(err)
	}
	return l, nil
}

// listenOnHost is for a sandbox whose sockets are the host's.
func (b *box) listenOnHost(ctx context.Context) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", sandbox.Loopback(0))
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing.Load() {
		_ = l.Close()
		return nil, errDestroyed
	}
	b.shared = append(b.shared, l)
	return l, nil
}

// accepted fetches a connection that the inner process has accepted. It is called by
// the reader, which must not wait for the inner process.
func (b *box) accepted(port, number, from string) {
	b.mu.Lock()
	l := b.listeners[port]
	closing := b.closing.Load()
	if !closing {
		b.waits.Add(1)
	}
	b.mu.Unlock()
	if closing {
		return
	}
	go func() { // waited for by Destroy
		defer b.waits.Done()
		request := []string{"stream", number}
		if l == nil || b.streams.Add(1) > hostStreams {
			if l != nil {
				b.streams.Add(-1)
			}
			_, _ = b.kernel.inner.Call(context.Background(), request...) // it ends with the kernel
			return
		}
		remote, _ := strconv.Atoi(from)
		c, theirs, err := b.pair(l.port, remote)
		if err != nil {
			b.streams.Add(-1)
			_, _ = b.kernel.inner.Call(context.Background(), request...)
			return
		}
		_, err = b.kernel.inner.CallWith(context.Background(), []*os.File{theirs}, request...)
		_ = theirs.Close()
		if err != nil {
			_ = c.Close()
			return
		}
		l.push(c)
	}()
}

// pair makes a stream: the daemon's end, and the one to pass on.
func (b *box) pair(local, remote int) (net.Conn, *os.File, error) {
	ours, theirs, err := control.Stream()
	if err != nil {
		return nil, nil, err
	}
	return &conn{UnixConn: ours, b: b, local: local, remote: remote}, theirs, nil
}

func (l *listener) push(c net.Conn) {
	select {
	case <-l.done:
		_ = c.Close()
		return
	default:
	}
	select {
	case l.conn <- c:
	default:
		_ = c.Close()
		return
	}
	select {
	case <-l.done: // perhaps before it was sent
		l.drain()
	default:
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp4", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return loopback(l.port) }

// Close implements net.Listener.
func (l *listener) Close() error {
	if !l.shut() {
		return &net.OpError{Op: "close", Net: "tcp4", Addr: l.Addr(), Err: net.ErrClosed}
	}
	key := strconv.Itoa(l.port)
	if l.b.usable() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
		defer cancel()
		_, _ = l.b.kernel.inner.Call(ctx, "unlisten", key) // a kernel that is gone has no listeners
	}
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	if l.b.listeners[key] == l {
		delete(l.b.listeners, key)
	}
	return nil
}

// shut ends Accept; it reports whether it was the first to.
func (l *listener) shut() (first bool) {
	l.once.Do(func() {
		first = true
		close(l.done)
		l.drain()
	})
	return first
}

func (l *listener) drain() {
	for {
		select {
		case c := <-l.conn:
			_ = c.Close()
		default:
			return
		}
	}
}

// Dial implements sandbox.Sandbox.
func (b *box) Dial(ctx context.Context, port int) (net.Conn, error) {
	if err := b.usable(); err != nil {
		return nil, err
	}
	if b.hosted() {
		return (&net.Dialer{}).DialContext(ctx, "tcp4", sandbox.Loopback(port))
	}
	if b.streams.Add(1) > hostStreams {
		b.streams.Add(-1)
		return nil, b.wrap(fmt.Errorf("connect to %s: more than %d connections", sandbox.Loopback(port), hostStreams))
	}
	c, theirs, err := b.pair(0, port)
	if err != nil {
		b.streams.Add(-1)
		return nil, b.wrap(err)
	}
	_, err = b.kernel.inner.CallWith(ctx, []*os.File{theirs}, "dial", strconv.Itoa(port))
	_ = theirs.Close()
	if err != nil {
		_ = c.Close()
		return nil, b.wrap(err)
	}
	return c, nil
}

// conn is a relayed connection, with the addresses that it has inside.
type conn struct {
	*net.UnixConn
	b             *box
	local, remote int
	once          sync.Once
}

func (c *conn) LocalAddr() net.Addr  { return loopback(c.local) }
func (c *conn) RemoteAddr() net.Addr { return loopback(c.remote) }

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() { c.b.streams.Add(-1) })
	return c.UnixConn.Close()
}

func loopback(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
