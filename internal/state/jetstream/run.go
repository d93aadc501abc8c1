package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// minMend and maxMend bound the wait before the disk of a server that has stopped
	// writing is tried; it doubles with each time that the disk is not well.
	minMend = 500 * time.Millisecond
	maxMend = 30 * time.Second
	// probeBytes is what has to be written and synced then: with less room than this the
	// next message might not fit.
	probeBytes = 1 << 20
)

// run is one life of the server. It stops writing, for good, at its first write that
// fails; then another one is started on the same files, once the disk takes writes again.
//
//	writes ──▶ broken: reads only ──▶ over ──▶ the next
type run struct {
	log    *bridge
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream

	broken  context.Context // ends with its cause when the server stops writing
	cripple context.CancelCauseFunc
	over    context.Context // ends with its cause when it stops serving
	end     context.CancelCauseFunc
}

func newRun(log *slog.Logger) *run {
	r := &run{}
	r.over, r.end = context.WithCancelCause(context.Background())
	r.broken, r.cripple = context.WithCancelCause(r.over)
	r.log = &bridge{log: log, cripple: r.cripple}
	return r
}

// stop ends everything under way, and the server.
func (r *run) stop(cause error) {
	r.end(cause)
	// The client first: a server that goes away under it would be dialled again.
	if r.conn != nil {
		r.conn.Close()
	}
	if r.server != nil {
		r.server.Shutdown()
		r.server.WaitForShutdown()
	}
}

// bound is for one answer of the server: it ends with the run, or earlier with what it is
// given.
func (r *run) bound(ctx context.Context, with context.Context) (context.Context, func()) {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, errNoAnswer)
	ctx, fail := context.WithCancelCause(ctx)
	stop := context.AfterFunc(with, func() { fail(context.Cause(with)) })
	return ctx, func() {
		stop()
		fail(nil)
		cancel()
	}
}

var errClosed = errors.New("the engine is closed")

// current is the run that serves. While one is exchanged for the next, it waits.
func (e *Engine) current() (*run, error) {
	e.turning.RLock()
	defer e.turning.RUnlock()
	if e.run == nil {
		return nil, errClosed
	}
	if e.run.over.Err() != nil {
		return nil, context.Cause(e.run.over)
	}
	return e.run, nil
}

// Err is why nothing can be stored now, nil if it can.
func (e *Engine) Err() error {
	e.turning.RLock()
	defer e.turning.RUnlock()
	if e.run == nil {
		return errClosed
	}
	return cmp.Or(e.ill, context.Cause(e.run.broken))
}

// ail notes why nothing can be stored until the disk is well.
func (e *Engine) ail(why error) {
	e.turning.Lock()
	defer e.turning.Unlock()
	e.ill = why
}

// mend has the server exchanged whenever it has stopped writing and the disk is well again,
// until ctx ends.
func (e *Engine) mend(ctx context.Context) {
	for {
		e.turning.RLock()
		broken := e.run.broken
		e.turning.RUnlock()
		select {
		case <-ctx.Done():
			return
		case <-broken.Done():
		}
		since := time.Now()
		e.ail(context.Cause(broken))
		e.cfg.Log.Error("nothing more can be stored until the disk takes writes again; functions run on", "error", context.Cause(broken))
		for pause, mended := minMend, false; !mended; pause = min(2*pause, maxMend) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			err := e.probe()
			if err == nil {
				err = e.reopen(ctx)
			}
			if mended = err == nil; !mended {
				e.cfg.Log.Warn("the disk is tried again later", "error", err)
			}
		}
		e.ail(nil)
		e.cfg.Log.Warn("the disk takes writes again, and everything can be stored", "after", time.Since(since).Round(time.Millisecond))
	}
}

// probe tells whether the disk is well, and above its floor of free space.
func (e *Engine) probe() error {
	if err := e.cfg.Free(); err != nil {
		return err
	}
	name := filepath.Join(e.cfg.Dir, "jetstream.probe")
	err := replaceFile(name, make([]byte, probeBytes))
	return errors.Join(err, os.Remove(name))
}

// reopen exchanges the server. What was handed out of the queue stays with who has it; of
// commits whose outcome is not known it is found out.
func (e *Engine) reopen(ctx context.Context) error {
	e.turning.RLock()
	e.run.end(fmt.Errorf("it is opened again: %w", context.Cause(e.run.broken)))
	e.turning.RUnlock()
	e.writing.Lock() // whoever writes or takes has noticed by now
	e.queue.survive()
	err := e.open(ctx)
	e.writing.Unlock()
	if err != nil {
		return fmt.Errorf("open the state again: %w", err)
	}
	return e.state.clear(ctx)
}
