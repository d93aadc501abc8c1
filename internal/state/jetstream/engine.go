// Package jetstream keeps what Kiln remembers in an embedded NATS server: it
// implements the four interfaces of package state and is the only importer of
// NATS. The server listens on nothing; the process talks to it through memory.
// Nothing here knows what a function is. The daemon opens the engine after the
// data directory and closes it right before.
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kiln/internal/state"
)

const (
	// maxPayload bounds one message, its headers included: a 6 MiB event and room
	// for what is said about it.
	maxPayload = 8 << 20
	// startTimeout bounds how long the server may take to accept its own client;
	// reading the streams comes before and has no bound.
	startTimeout = 10 * time.Second
	// requestTimeout bounds one answer of the server. A disk under heavy load
	// takes seconds to sync; a minute without an answer is a fault.
	requestTimeout = time.Minute
	// maxStore is where the server itself would refuse writes, in bytes. It is set
	// out of reach, because the floor of free space is ours (Config.Free).
	maxStore = 1 << 60
	// maxMemory bounds streams in memory, in bytes. Kiln has none but the server wants a figure.
	maxMemory = 64 << 20
)

// Config has Dir as its one required field.
type Config struct {
	// Dir is the data directory; the engine keeps its files in Dir/jetstream.
	Dir string
	// Node is this node's id, the address of its routes: a token of [a-zA-Z0-9_-].
	Node string
	// Free fails with state.ErrFull when nothing more may be written. Nil: no floor.
	Free func() error
	// Log gets the server's own lines: its warnings and errors as warnings, the
	// rest for debugging. Nil discards them.
	Log *slog.Logger
}

// Validate says how to fix what it rejects.
func (c Config) Validate() error {
	if c.Dir == "" {
		return errors.New("the engine needs a directory: set Dir")
	}
	if !isToken(c.Node) {
		return fmt.Errorf("the node id %q is not one token of [a-zA-Z0-9_-]: set Node", c.Node)
	}
	return nil
}

// Engine is the embedded server and its four services. New makes one, Open
// starts it, Close ends it; the services may be used between the two.
type Engine struct {
	cfg Config

	// writing is held for reading while something is written or taken, so that a snapshot
	// can be of one moment, and the server exchanged. It is taken after State.sweeping.
	writing sync.RWMutex

	background sync.WaitGroup     // what runs there
	end        context.CancelFunc // of background

	turning sync.RWMutex // held while the server is exchanged, and taken after writing
	run     *run         // guarded by turning
	ill     error        // guarded by turning; why nothing can be stored until the disk is well

	state *State
	blob  *Blob
	queue *Queue
	route *Route
}

// New starts nothing.
func New(cfg Config) *Engine {
	if cfg.Free == nil {
		cfg.Free = func() error { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{cfg: cfg, end: func() {}}
	e.state = &State{engine: e, batches: make(chan struct{}, maxOpenBatches)}
	e.blob = &Blob{engine: e}
	e.queue = &Queue{engine: e, takers: map[string]*taker{}, held: map[*delivery]bool{}, survivors: map[uint64]*delivery{},
		grown: make(chan struct{}, 1)}
	e.route = &Route{engine: e}
	return e
}

// State keeps records.
func (e *Engine) State() *State { return e.state }

// Blob keeps bytes.
func (e *Engine) Blob() *Blob { return e.blob }

// Queue keeps events.
func (e *Engine) Queue() *Queue { return e.queue }

// Route carries calls between nodes.
func (e *Engine) Route() *Route { return e.route }

var (
	_ state.State = (*State)(nil)
	_ state.Blob  = (*Blob)(nil)
	_ state.Queue = (*Queue)(nil)
	_ state.Route = (*Route)(nil)
)

// Open checks the files, starts the server and returns when it serves. Of damaged
// files it keeps what is intact, and logs what is not; where more is wrong it
// refuses, with the stream's name, before anything is changed.
func (e *Engine) Open(ctx context.Context) (err error) {
	if err := e.cfg.Validate(); err != nil {
		return err
	}
	if err := e.open(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			e.stop(err)
		}
	}()
	if err := e.state.sweep(ctx); err != nil {
		return err
	}
	running, end := context.WithCancel(context.Background())
	e.end = end
	e.background.Go(func() { e.queue.keepAlive(running) })
	e.background.Go(func() { e.mend(running) })
	if e.salvaged() {
		return nil
	}
	orphaned := time.Now().Add(-orphanAge)
	e.background.Go(func() {
		select {
		case <-time.After(sweepDelay):
		case <-running.Done():
			return
		}
		if err := e.blob.sweep(running, orphaned); err != nil && running.Err() == nil {
			e.cfg.Log.Warn("what interrupted changes of blobs have left stays", "error", err)
		}
	})
	return nil
}

// open starts the server, of whose files something may have changed since.
func (e *Engine) open(ctx context.Context) (err error) {
	before, err := e.load()
	defer func() {
		if err != nil {
			e.stop(err)
		}
	}()
	if err != nil {
		return err
	}
	if err := e.checkLoaded(ctx, before); err != nil {
		return err
	}
	if err := e.createStreams(ctx); err != nil {
		return err
	}
	if err := e.queue.resume(ctx); err != nil {
		return err
	}
	if e.salvaged() {
		e.blob.pin() // what a lost record referred to
	}
	return e.renewWitness(ctx, before)
}

// load examines the files and starts a server on them, in place of the one that is there.
func (e *Engine) load() (*witness, error) {
	e.turning.Lock()
	defer e.turning.Unlock()
	if e.run != nil {
		e.run.stop(errClosed)
	}
	before, err := e.examine()
	if err != nil {
		return nil, err
	}
	return before, e.start()
}

// stop ends the server, if there is one.
func (e *Engine) stop(cause error) {
	e.turning.Lock()
	defer e.turning.Unlock()
	if e.run != nil {
		e.run.stop(cause)
	}
}

// Close ends the services and the server. Callers of the services must have
// ended: what they still do fails.
func (e *Engine) Close() error {
	e.end()
	e.background.Wait()
	e.queue.flushing.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	last, err := e.lastSequences(ctx)
	if errors.Is(err, errClosed) {
		return nil
	}
	e.stop(errClosed)
	if err != nil {
		return fmt.Errorf("close the engine: %w", err)
	}
	// The witness describes files that no longer change, so it comes after the server.
	return e.writeWitness(witness{Clean: true, Streams: last})
}

// start begins a run. e.turning is held.
func (e *Engine) start() error {
	opts := &server.Options{
		ServerName:         e.cfg.Node,
		DontListen:         true,
		NoSigs:             true,
		NoSystemAccount:    true,
		JetStream:          true,
		StoreDir:           e.cfg.Dir, // the server adds /jetstream
		JetStreamMaxMemory: maxMemory,
		JetStreamMaxStore:  maxStore,
		SyncAlways:         true,
		MaxPayload:         maxPayload,
	}
	opts.JetStreamLimits.DefaultMaxConsumers = -1
	r := newRun(e.cfg.Log)
	srv, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	srv.SetLoggerV2(r.log, true, false, false)
	r.server = srv
	e.run = r
	srv.Start()
	if err := r.log.fatal(); err != nil {
		return fmt.Errorf("start the engine in %s: %w", e.dir(), err)
	}
	if !srv.ReadyForConnections(startTimeout) || !srv.JetStreamEnabled() {
		return fmt.Errorf("start the engine in %s: it did not become ready within %v", e.dir(), startTimeout)
	}
	r.conn, err = nats.Connect("", nats.InProcessServer(srv), nats.MaxReconnects(-1),
		nats.ReconnectWait(10*time.Millisecond), nats.Timeout(startTimeout),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			e.cfg.Log.Warn("the engine's client reports an error", "error", err)
		}))
	if err != nil {
		return fmt.Errorf("connect to the engine: %w", err)
	}
	r.js, err = jetstream.New(r.conn, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		return fmt.Errorf("connect to the engine: %w", err)
	}
	return nil
}

// names of the streams; renaming one loses its content.
const (
	stateStream = "STATE" // records, and the names of blobs
	queueStream = "QUEUE"
	blobStream  = "ARTIFACTS" // the bytes of blobs
)

func (e *Engine) createStreams(ctx context.Context) error {
	r, err := e.current()
	if err != nil {
		return err
	}
	for _, cfg := range []jetstream.StreamConfig{
		{
			Name:               stateStream,
			Subjects:           []string{statePrefix + ">", namePrefix + ">"},
			MaxMsgsPerSubject:  1,
			Discard:            jetstream.DiscardOld,
			AllowAtomicPublish: true,
			AllowDirect:        true,
		},
		{
			// Without a limit: message schedules and DiscardNew exclude each other.
			Name:               queueStream,
			Subjects:           []string{queuePrefix + ">", laterPrefix + ">"},
			Retention:          jetstream.WorkQueuePolicy,
			Discard:            jetstream.DiscardOld,
			AllowAtomicPublish: true,
			AllowMsgSchedules:  true,
			AllowDirect:        true,
		},
		{
			Name:        blobStream,
			Subjects:    []string{chunkPrefix + ">"},
			Discard:     jetstream.DiscardNew,
			AllowDirect: true,
		},
	} {
		cfg.Storage = jetstream.FileStorage
		// A second message with the same id is no concern of Kiln's, and remembering
		// two minutes of ids would cost memory.
		cfg.Duplicates = 100 * time.Millisecond
		_, err := r.js.CreateStream(ctx, cfg)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // with the settings of an earlier release
			_, err = r.js.UpdateStream(ctx, cfg)
		}
		if err != nil {
			return fmt.Errorf("open the stream %s: %w", cfg.Name, explain(err))
		}
	}
	return nil
}

func (e *Engine) dir() string { return filepath.Join(e.cfg.Dir, "jetstream") }

// explain adds to a NATS error what it means here.
func explain(err error) error {
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse),
		errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return fmt.Errorf("the engine has stopped serving (a full or failing disk does that; its log says more; it is started again once the disk takes writes): %w", err)
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("larger than the engine's limit of %d bytes: %w", maxPayload, err)
	}
	return err
}

// bridge passes the server's log on. The server's own loggers would end the
// process on a fatal error; this one keeps the error for Open. A failed write is
// known from the log alone: the server does not answer what it could not write.
type bridge struct {
	log     *slog.Logger
	cripple context.CancelCauseFunc

	mu    sync.Mutex
	first error // guarded by mu; the first fatal error
}

const fromEngine = "engine"

func (b *bridge) Noticef(format string, v ...any) { b.log.Debug(fromEngine, "says", sprint(format, v)) }
func (b *bridge) Debugf(format string, v ...any)  { b.log.Debug(fromEngine, "says", sprint(format, v)) }
func (b *bridge) Tracef(format string, v ...any)  { b.log.Debug(fromEngine, "says", sprint(format, v)) }
func (b *bridge) Warnf(format string, v ...any) {
	says := sprint(format, v)
	if strings.Contains(says, "scheduling state is outdated") {
		b.log.Debug(fromEngine, "says", says) // it is made again from the messages, as after every kill
		return
	}
	b.log.Warn(fromEngine, "says", says)
}
func (b *bridge) Errorf(format string, v ...any) {
	says := sprint(format, v)
	b.log.Warn(fromEngine, "says", says)
	if strings.Contains(says, "ritical write error") || strings.Contains(says, "will be DISABLED") {
		err := fmt.Errorf("%w, and nothing can be stored until it does: one has failed (%s)", state.ErrBroken, says)
		if strings.Contains(says, syscall.ENOSPC.Error()) || strings.Contains(says, syscall.EDQUOT.Error()) {
			err = fmt.Errorf("%w: %w", state.ErrFull, err)
		}
		b.cripple(err)
	}
}
func (b *bridge) Fatalf(format string, v ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first == nil {
		b.first = errors.New(sprint(format, v))
	}
}

func (b *bridge) fatal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.first
}

func sprint(format string, v []any) string { return fmt.Sprintf(format, v...) }
