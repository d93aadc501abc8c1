package spares_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kiln/internal/sandbox"
	"kiln/internal/spares"
)

const (
	apiPort = 9001
	mib     = 1 << 20
	// spareBytes is what one takes: its runtime, and the sandbox's own process.
	spareBytes = 10*mib + 3*mib/2
)

// driver prepares sandboxes that run nothing: a runtime has booted the moment it is started.
type driver struct {
	sandbox.Driver

	work sync.WaitGroup // of runtimes that rehearse

	mu       sync.Mutex
	fail     error // guarded by mu; of Prepare
	dead     bool  // guarded by mu; runtimes end at once
	shared   bool  // guarded by mu; listeners get other ports
	living   int   // guarded by mu
	prepared int   // guarded by mu
	last     *box  // guarded by mu
	short    bool  // guarded by mu; of memory
}

func (*driver) Describe() sandbox.Description { return sandbox.Description{} }

func (d *driver) PreparedPaths() sandbox.Paths { return sandbox.Paths{Task: "/var/task"} }

func (d *driver) Prepare(_ context.Context, spec sandbox.Spec) (sandbox.Prepared, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := errors.Join(d.fail, spec.CheckUnassigned()); err != nil {
		return nil, err
	}
	d.living++
	d.prepared++
	d.last = &box{d: d, api: &listener{port: apiPort, came: make(chan net.Conn, 1), closed: make(chan struct{})}, done: make(chan struct{})}
	return d.last, nil
}

func (d *driver) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

func (d *driver) isShort() (short bool) {
	d.set(func() { short = d.short })
	return short
}

func (d *driver) counts() (living, prepared int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.living, d.prepared
}

type box struct {
	sandbox.Prepared
	d     *driver
	api   *listener
	inner net.Conn // the runtime's end of its connection
	done  chan struct{}
	once  sync.Once
}

func (b *box) Listen(_ context.Context, port int) (net.Listener, error) {
	b.d.set(func() {
		if b.d.shared {
			port++
		}
	})
	if port == apiPort {
		return b.api, nil
	}
	return &listener{port: port, came: make(chan net.Conn), closed: make(chan struct{})}, nil
}

func (b *box) Exec(_ context.Context, cmd sandbox.Command) (sandbox.Process, error) {
	var dead bool
	b.d.set(func() { dead = b.d.dead })
	if dead {
		close(b.done)
	} else if slices.Contains(cmd.Env, "_KILN_SPARE=127.0.0.1:9001") {
		ours, theirs := net.Pipe()
		b.inner = theirs
		b.api.came <- ours
		b.d.work.Go(func() { // what a runtime does when it is asked to rehearse
			var size [4]byte
			_, _ = io.ReadFull(theirs, size[:])
			_, _ = theirs.Write([]byte("\n"))
		})
	}
	return process{b}, nil
}

func (b *box) Usage(context.Context) (sandbox.Usage, error) {
	return sandbox.Usage{CurrentBytes: 10 * mib}, nil
}

func (b *box) Destroy(context.Context) error {
	b.once.Do(func() { b.d.set(func() { b.d.living-- }) })
	return nil
}

type process struct{ *box }

func (p process) Done() <-chan struct{}       { return p.done }
func (p process) Exit() sandbox.Exit          { return sandbox.Exit{Code: 3} }
func (p process) Signal(syscall.Signal) error { return nil }

type listener struct {
	port   int
	came   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.came:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: l.port} }

// run has a pool of so many bytes within a bubble, and checks that nothing of it is left.
func run(t *testing.T, bytes int64, test func(t *testing.T, p *spares.Pool, d *driver)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &driver{}
		p := spares.New(spares.Config{Driver: d, Bytes: bytes, APIPort: apiPort, EndpointPort: 4566, Short: d.isShort, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { p.Run(ctx) })
		test(t, p, d)
		cancel()
		work.Wait()
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if p.Take(want("node")) != nil {
			t.Error("a closed pool has a spare")
		}
		d.work.Wait()
		if living, _ := d.counts(); living != 0 {
			t.Errorf("%d sandboxes are left", living)
		}
	})
}

func want(program string) spares.Want {
	return spares.Want{Client: "/client", Command: sandbox.Command{Path: program, Args: []string{program}, Env: []string{"A=1"}}}
}

// take is Take n times in a row, with what it gave destroyed.
func take(t *testing.T, p *spares.Pool, n int, program string) (got int) {
	t.Helper()
	for range n {
		if s := p.Take(want(program)); s != nil {
			got++
			if err := s.Discard(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	return got
}

func ready(t *testing.T, p *spares.Pool, n int) {
	t.Helper()
	synctest.Wait()
	if c := p.Counts(); c.Ready != n || c.Bytes != int64(n)*spareBytes {
		t.Errorf("%d spares of %d bytes are ready, want %d", c.Ready, c.Bytes, n)
	}
}

func TestFollowsDemand(t *testing.T) {
	run(t, 1000*mib, func(t *testing.T, p *spares.Pool, d *driver) {
		time.Sleep(time.Hour)
		ready(t, p, 0) // nobody has asked
		if take(t, p, 1, "node") != 0 {
			t.Error("there is a spare before anybody asked")
		}
		time.Sleep(50 * time.Millisecond)
		ready(t, p, 0) // somebody has just started
		time.Sleep(time.Second)
		ready(t, p, 1)
		time.Sleep(time.Minute)
		if got := take(t, p, 20, "node"); got != 1 {
			t.Errorf("%d of 20 got the one spare", got)
		}
		time.Sleep(time.Second)
		ready(t, p, 20)
		time.Sleep(time.Minute)
		if got := take(t, p, 20, "node"); got != 20 {
			t.Errorf("%d of 20 got one of 20 spares", got)
		}
		time.Sleep(time.Second)
		if take(t, p, 1, "python") != 0 {
			t.Error("a spare was given to who wanted another")
		}
		time.Sleep(time.Second)
		ready(t, p, 21)
		for range 30 { // one function now and then
			time.Sleep(time.Minute)
			if take(t, p, 1, "node") != 1 {
				t.Fatal("no spare for one that starts now and then")
			}
		}
		time.Sleep(time.Second)
		if c := p.Counts(); c.Ready > 3 {
			t.Errorf("%d spares after half an hour in which one at a time was wanted", c.Ready)
		}
		time.Sleep(time.Hour)
		ready(t, p, 0)
		if c := p.Counts(); c.Taken != 51 || c.Missed != 21 {
			t.Errorf("counted %+v", c)
		}
	})
}

func TestNoneWhileOthersStart(t *testing.T) {
	run(t, 1000*mib, func(t *testing.T, p *spares.Pool, d *driver) {
		for range 100 {
			take(t, p, 1, "node")
			time.Sleep(90 * time.Millisecond)
		}
		if _, prepared := d.counts(); prepared != 0 {
			t.Errorf("%d were made while functions started", prepared)
		}
	})
}

func TestBudget(t *testing.T) {
	run(t, 3*spareBytes+mib, func(t *testing.T, p *spares.Pool, d *driver) {
		take(t, p, 10, "node")
		time.Sleep(time.Second)
		ready(t, p, 3)
		take(t, p, 1, "python") // asked for later: the other makes room
		time.Sleep(time.Second)
		if got := take(t, p, 1, "python"); got != 1 {
			t.Error("a kind that is asked for has no spare because another has all")
		}
		if living, _ := d.counts(); living > 3 {
			t.Errorf("%d sandboxes live", living)
		}
	})
}

func TestExpected(t *testing.T) {
	run(t, 1000*mib, func(t *testing.T, p *spares.Pool, d *driver) {
		p.Expect(want("node"))
		p.Expect(want("node"))
		time.Sleep(time.Second)
		ready(t, p, 1)
	})
}

func TestShortOfMemory(t *testing.T) {
	run(t, 1000*mib, func(t *testing.T, p *spares.Pool, d *driver) {
		take(t, p, 3, "node")
		time.Sleep(time.Second)
		ready(t, p, 3)
		d.set(func() { d.short = true })
		time.Sleep(10 * time.Second)
		ready(t, p, 0)
		take(t, p, 3, "node")
		time.Sleep(time.Second)
		ready(t, p, 0)
		d.set(func() { d.short = false })
		take(t, p, 1, "node")
		time.Sleep(time.Second)
		ready(t, p, 4)
	})
}

func TestBegins(t *testing.T) {
	run(t, 1000*mib, func(t *testing.T, p *spares.Pool, d *driver) {
		p.Expect(want("node"))
		time.Sleep(time.Second)
		s := p.Take(want("node"))
		if s == nil {
			t.Fatal("no spare")
		}
		inner := s.Box.(*box).inner
		var said []byte
		var work sync.WaitGroup
		work.Go(func() {
			var size [4]byte
			_, _ = io.ReadFull(inner, size[:])
			said = make([]byte, binary.BigEndian.Uint32(size[:]))
			_, _ = io.ReadFull(inner, said)
		})
		if err := s.Begin([]string{"A=1", "B=x y"}); err != nil {
			t.Error(err)
		}
		work.Wait()
		if string(said) != "A=1\x00B=x y" {
			t.Errorf("the runtime was told %q", said)
		}
		c, err := s.API.Accept()
		if err != nil {
			t.Fatal(err)
		}
		work.Go(func() { _, _ = inner.Write([]byte("GET")) })
		var got [3]byte
		if _, err := io.ReadFull(c, got[:]); err != nil || string(got[:]) != "GET" {
			t.Errorf("read %q from the first connection, %v", got, err)
		}
		work.Wait()
		if err := s.Discard(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := s.API.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a discarded spare still listens: %v", err)
		}
	})
}

func TestDies(t *testing.T) {
	run(t, 1000*mib, func(t *testing.T, p *spares.Pool, d *driver) {
		p.Expect(want("node"))
		time.Sleep(time.Second)
		d.set(func() { close(d.last.done) })
		if p.Take(want("node")) != nil {
			t.Error("a runtime that ended was given away")
		}
		time.Sleep(time.Second)
		ready(t, p, 1)
		if living, _ := d.counts(); living != 1 {
			t.Errorf("%d sandboxes live", living)
		}

		d.set(func() { d.dead = true })
		take(t, p, 1, "node")
		time.Sleep(time.Second)
		_, before := d.counts()
		take(t, p, 5, "node")
		time.Sleep(time.Second)
		if _, after := d.counts(); after != before {
			t.Errorf("what fails was tried %d times more within a second", after-before)
		}
		d.set(func() { d.dead = false })
		time.Sleep(2 * time.Minute)
		take(t, p, 1, "node")
		time.Sleep(time.Second)
		ready(t, p, 7) // as many as were asked for
	})
}

func TestUnsupported(t *testing.T) {
	for name, change := range map[string]func(*driver){
		"by the driver":    func(d *driver) { d.fail = errors.ErrUnsupported },
		"a shared network": func(d *driver) { d.shared = true },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, 1000*mib, func(t *testing.T, p *spares.Pool, d *driver) {
				d.set(func() { change(d) })
				p.Expect(want("node"))
				time.Sleep(time.Second)
				_, before := d.counts()
				p.Expect(want("python"))
				time.Sleep(time.Hour)
				if _, after := d.counts(); after != before {
					t.Error("it was tried again")
				}
			})
		})
	}
	if _, ok := spares.New(spares.Config{Driver: &driver{}}).Paths(); ok {
		t.Error("a pool without memory has spares")
	}
	if _, ok := spares.New(spares.Config{Driver: struct{ sandbox.Driver }{}, Bytes: mib}).Paths(); ok {
		t.Error("a pool of a driver that prepares nothing has spares")
	}
}
