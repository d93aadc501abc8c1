package spares

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"kiln/internal/sandbox"
)

// variable tells a runtime client that it is a spare's, and where its Runtime API is.
const variable = "_KILN_SPARE"

// bootTimeout bounds the start of a runtime; it takes milliseconds.
const bootTimeout = 10 * time.Second

// beginTimeout bounds the sending of the variables, which fit into a socket's buffer.
const beginTimeout = time.Second

// initBytes is the memory of a sandbox's own first process, kernelBytes that of one with a kernel of its own.
const initBytes, kernelBytes = 3 << 19, 20 << 20

// Want is what a spare is started with. Only a function that would be started with
// exactly the same may have it.
type Want struct {
	Network      string          // the mode of the sandbox.Network
	Client, Lang string          // the folders of a sandbox.Spec: Runtime and Lang
	TmpBytes     int64           // likewise
	Command      sandbox.Command // without outputs; Env without anything of a function
}

func (w Want) key() string {
	fields := slices.Concat([]string{w.Network, w.Client, w.Lang, strconv.FormatInt(w.TmpBytes, 10), w.Command.Path, w.Command.Dir}, w.Command.Args, []string{""}, w.Command.Env)
	return strings.Join(fields, "\x00")
}

// Spare is a sandbox with a runtime that waits. Whoever took it uses Box and
// Process, its listeners and outputs as if they had made them; with Discard all of
// it is given up at once.
type Spare struct {
	ID      string // of the sandbox
	Box     sandbox.Prepared
	Process sandbox.Process
	// API and Endpoint listen inside for the Runtime API and Kiln's AWS endpoint.
	API, Endpoint net.Listener
	// Outputs are the ends to read of standard output, standard error and telemetry.
	Outputs []*os.File

	runtime net.Conn // the runtime's connection to API
	bytes   int64
}

// boot makes a spare and waits until its runtime does.
func (p *Pool) boot(ctx context.Context, w Want) (_ *Spare, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("it took longer than %s", bootTimeout))
	defer cancel()
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	s := &Spare{ID: hex.EncodeToString(random[:])}
	s.Box, err = p.driver.Prepare(ctx, sandbox.Spec{ID: s.ID, Group: groups + s.ID, Network: sandbox.Network{Mode: w.Network}, Runtime: w.Client, Lang: w.Lang, TmpBytes: w.TmpBytes})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.Discard(context.WithoutCancel(ctx)) // the first error says more
		}
	}()
	api, err := s.Box.Listen(ctx, p.config.APIPort)
	if err != nil {
		return nil, err
	}
	s.API = api
	if a, ok := api.Addr().(*net.TCPAddr); !ok || a.Port != p.config.APIPort {
		// Whoever connects first is told the function's variables.
		return nil, fmt.Errorf("sandboxes share the host's network: %w", errors.ErrUnsupported)
	}
	if s.Endpoint, err = s.Box.Listen(ctx, p.config.EndpointPort); err != nil {
		return nil, err
	}
	cmd := w.Command
	cmd.Env = append(slices.Clone(cmd.Env), variable+"="+api.Addr().String())
	if err := s.exec(ctx, cmd); err != nil {
		return nil, err
	}
	if s.runtime, err = s.connected(ctx); err != nil {
		return nil, err
	}
	s.API = &joined{Listener: api, first: s.runtime}
	if err := s.rehearsed(ctx); err != nil {
		return nil, err
	}
	usage, err := s.Box.Usage(ctx)
	if err != nil {
		return nil, err
	}
	s.bytes = usage.CurrentBytes + p.first
	return s, nil
}

func (s *Spare) exec(ctx context.Context, cmd sandbox.Command) error {
	var writers []*os.File
	defer func() {
		for _, w := range writers {
			_ = w.Close() // the process has its own
		}
	}()
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		s.Outputs, writers = append(s.Outputs, r), append(writers, w)
	}
	cmd.Stdout, cmd.Stderr, cmd.Telemetry = writers[0], writers[1], writers[2]
	process, err := s.Box.Exec(ctx, cmd)
	s.Process = process
	return err
}

// connected waits for the runtime's connection, which it makes when it has booted.
func (s *Spare) connected(ctx context.Context) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	accepted := make(chan result, 1)
	go func() { // ends with the listener at the latest, which an error closes
		c, err := s.API.Accept()
		accepted <- result{c, err}
	}()
	var err error
	select {
	case r := <-accepted:
		return r.conn, r.err
	case <-s.Process.Done():
		err = fmt.Errorf("the runtime ended with %+v before it waited", s.Process.Exit())
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	_ = s.API.Close()
	if r := <-accepted; r.conn != nil {
		_ = r.conn.Close()
	}
	return nil, err
}

// rehearsed has the runtime do once what it will do for its function. It says so
// when it is through, and then it waits.
func (s *Spare) rehearsed(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.runtime.SetDeadline(time.Unix(1, 0)) }) // wakes the waits below
	defer stop()
	var done [1]byte
	_, err := s.runtime.Write(make([]byte, 4))
	if err == nil {
		_, err = io.ReadFull(s.runtime, done[:])
	}
	if err != nil {
		return fmt.Errorf("rehearse: %w", errors.Join(context.Cause(ctx), err))
	}
	return nil
}

// Begin has the runtime become the function's whose variables these are.
func (s *Spare) Begin(environ []string) error {
	text := strings.Join(environ, "\x00")
	message := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(text)), uint32(len(text)))
	if err := s.runtime.SetWriteDeadline(time.Now().Add(beginTimeout)); err != nil {
		return err
	}
	if _, err := s.runtime.Write(append(message, text...)); err != nil {
		return fmt.Errorf("tell a waiting runtime its variables: %w", err)
	}
	// A function that ends its runtime at once may have ended the connection too. That is
	// seen by the end of the process, which says why.
	_ = s.runtime.SetWriteDeadline(time.Time{})
	return nil
}

// alive tells whether the runtime still waits.
func (s *Spare) alive() bool {
	select {
	case <-s.Process.Done():
		return false
	default:
		return true
	}
}

// Discard ends everything of a spare that is not to be used.
func (s *Spare) Discard(ctx context.Context) error {
	err := s.Box.Destroy(ctx)
	for _, c := range []net.Listener{s.API, s.Endpoint} {
		if c != nil {
			_ = c.Close() // the sandbox has closed it too
		}
	}
	if s.runtime != nil {
		_ = s.runtime.Close()
	}
	for _, o := range s.Outputs {
		_ = o.Close() // it was only read
	}
	if err != nil {
		return fmt.Errorf("discard a spare: %w", err)
	}
	return nil
}

// joined is a listener that gives a connection that was accepted before first.
type joined struct {
	net.Listener

	mu    sync.Mutex
	first net.Conn // guarded by mu; nil once it was given
}

func (l *joined) take() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.first
	l.first = nil
	return c
}

func (l *joined) Accept() (net.Conn, error) {
	if c := l.take(); c != nil {
		return c, nil
	}
	return l.Listener.Accept()
}

func (l *joined) Close() error {
	if c := l.take(); c != nil {
		_ = c.Close() // nobody will answer it
	}
	return l.Listener.Close()
}

// SyscallConn is of the listener, for those who shut it down.
func (l *joined) SyscallConn() (syscall.RawConn, error) {
	if c, ok := l.Listener.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
