// Package logs keeps what functions write: events by account, region, group and
// stream, in one SQLite database per node, as compressed chunks indexed by group
// and time. It knows nothing of log formats, of levels or of the CloudWatch Logs
// wire; the environment package appends to it, the doors put and query, and it is
// the only importer of SQLite.
//
// Appending is on the path of an invocation, so it only copies into memory; one
// goroutine writes. Telemetry may lose its last second when power fails, and is
// dropped, counted and said so in the stream when it comes faster than it can be
// written or when the disk is full: it never delays or fails an invocation. Who
// puts events instead waits until they are in the database, or is told that they
// are not.
package logs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"kiln/internal/lambda"
)

// Config bounds a Store. A field that is zero has its default.
type Config struct {
	// QueueBytes bounds what waits in memory to be written, over all streams.
	// One group may hold at most as much as is still free, so that a flood
	// takes half and leaves half. Default 8 MiB.
	QueueBytes int64
	// GroupBytes bounds what is kept of one group, compressed; the oldest chunks
	// go first. Default 256 MiB.
	GroupBytes int64
	// TotalBytes bounds what is kept of all groups; the largest group gives its
	// oldest chunks first, so that a chatty function does not push out a quiet
	// one. Default 4 GiB.
	TotalBytes int64
	// FlushInterval is how long an event waits in memory at most while nobody
	// reads. Default 200 ms.
	FlushInterval time.Duration
	// Full says that the disk is below its floor of free space: events are then
	// dropped. It is asked once per write. Default: never.
	Full func() bool
	// Log is for the operator. Default: discard.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.QueueBytes == 0 {
		c.QueueBytes = 8 << 20
	}
	if c.GroupBytes == 0 {
		c.GroupBytes = 256 << 20
	}
	if c.TotalBytes == 0 {
		c.TotalBytes = 4 << 30
	}
	if c.FlushInterval == 0 {
		c.FlushInterval = 200 * time.Millisecond
	}
	if c.Full == nil {
		c.Full = func() bool { return false }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// What is wrong with a call, beside a disk that fails.
var (
	ErrNoGroup      = errors.New("the log group does not exist")
	ErrGroupExists  = errors.New("the log group exists already")
	ErrNoStream     = errors.New("the log stream does not exist")
	ErrStreamExists = errors.New("the log stream exists already")
	ErrTooMany      = errors.New("there are as many log groups or streams as there may be")
	// ErrBusy: events come faster than they can be written.
	ErrBusy = errors.New("log events come faster than they can be written")
	// ErrFull: the disk is below its floor of free space.
	ErrFull = errors.New("the disk is below its floor of free space")
)

// ErrCursor: the cursor is not one that this package gave out.
var ErrCursor = errors.New("not a log cursor")

// errClosed: the store is closed.
var errClosed = errors.New("the log store is closed")

// Store keeps log events. Methods are safe for concurrent use.
type Store struct {
	path string
	cfg  Config

	encoder *zstd.Encoder
	decoder *zstd.Decoder

	wake   chan struct{} // holds one: something waits to be written
	urgent chan struct{} // holds one: much waits to be written
	stop   chan struct{} // closed by Close
	done   chan struct{} // closed when the writing goroutine has ended

	// Lock order: writing, using, mu. Only writing and using are held over I/O.

	writing   sync.Mutex // one writer at a time
	unsynced  bool       // guarded by writing: committed, but not yet on disk for certain
	shrinking bool       // guarded by writing: pages were freed that could be given back
	failing   bool       // guarded by writing: the last write failed

	using sync.RWMutex // held for reading while db is used
	db    *database    // guarded by using

	mu      sync.Mutex
	groups  map[groupKey]*group   // guarded by mu
	recent  map[streamKey]*Stream // guarded by mu: that events were put into; see put.go
	dirty   []*Stream             // guarded by mu: streams with something to write
	queued  int64                 // guarded by mu: bytes waiting or being written
	seq     int64                 // guarded by mu: of the event appended last
	taken   int64                 // guarded by mu: every event up to this one was taken to be written
	written int64                 // guarded by mu: every event up to this one is in the database or dropped
	stats   Stats                 // guarded by mu
	closed  bool                  // guarded by mu
}

type groupKey struct {
	scope lambda.Scope
	name  string
}

// group is a log group in memory: one that is in the database, or has something
// to write, or is waited for.
type group struct {
	key groupKey

	queued  int64         // guarded by Store.mu: bytes waiting or being written
	written int64         // guarded by Store.mu: sequence of the last event written
	changed chan struct{} // guarded by Store.mu: closed with the next write; nil while nobody waits
	users   int           // guarded by Store.mu: callers of Wait, and a write that goes on
	held    bool          // guarded by Store.mu: it is in the database

	id    int64 // guarded by Store.writing; 0: not in the database
	bytes int64 // guarded by Store.writing
}

// Stats counts since Open.
type Stats struct {
	Events        int64 // appended
	Bytes         int64 // of their messages
	DroppedEvents int64 // of Events, those not kept: floods, full disk, damage
	DroppedBytes  int64
	QueuedBytes   int64 // waiting in memory now
	Evicted       int64 // chunks that gave way to newer ones
	Failures      int64 // writes that failed
}

// Open opens the database at path, or makes it. A damaged database is put aside
// under another name and a new one is begun. The store writes until Close.
func Open(ctx context.Context, path string, cfg Config) (*Store, error) {
	s := &Store{
		path:   path,
		cfg:    cfg.withDefaults(),
		wake:   make(chan struct{}, 1),
		urgent: make(chan struct{}, 1),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
		groups: make(map[groupKey]*group),
		recent: make(map[streamKey]*Stream),
	}
	var err error
	// One encoder and one decoder at a time: what they hold counts towards the
	// memory of an idle daemon.
	if s.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(chunkBytes)); err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	if s.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxChunkBytes)); err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	last, err := s.load(ctx)
	if err != nil {
		s.decoder.Close()
		return nil, err
	}
	// Sequences go on where they ended, and never go back even if the newest
	// events were deleted or the database was replaced: cursors stay valid.
	s.seq = max(last, time.Now().UnixMicro())
	s.taken, s.written = s.seq, s.seq
	go s.run()
	return s, nil
}

// load opens the database and reads its groups; it returns the last sequence.
func (s *Store) load(ctx context.Context) (last int64, err error) {
	s.db, err = openDatabase(ctx, s.path)
	if isDamage(err) {
		if err := s.putAside(err); err != nil {
			return 0, err
		}
		s.db, err = openDatabase(ctx, s.path)
	}
	if err != nil {
		return 0, fmt.Errorf("open logs %s: %w", s.path, err)
	}
	rows, err := s.db.write.QueryContext(ctx, `SELECT id, account, region, name, bytes, (SELECT coalesce(max(last_seq), 0) FROM chunk WHERE group_id = log_group.id) FROM log_group`)
	for err == nil && rows.Next() {
		g := &group{held: true}
		if err = rows.Scan(&g.id, &g.key.scope.Account, &g.key.scope.Region, &g.key.name, &g.bytes, &g.written); err == nil {
			s.groups[g.key] = g
			last = max(last, g.written)
		}
	}
	if err == nil {
		err = errors.Join(rows.Err(), rows.Close())
	}
	if err == nil {
		return last, nil
	}
	err = errors.Join(err, s.db.close())
	if !isDamage(err) {
		return 0, fmt.Errorf("read log groups of %s: %w", s.path, err)
	}
	if err := s.putAside(err); err != nil {
		return 0, err
	}
	clear(s.groups)
	if s.db, err = openDatabase(ctx, s.path); err != nil {
		return 0, fmt.Errorf("open logs %s: %w", s.path, err)
	}
	return 0, nil
}

// Close writes what waits and closes the database. Events appended afterwards
// are dropped.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	close(s.stop)
	<-s.done
	err := s.write(true)
	s.using.Lock()
	defer s.using.Unlock()
	s.decoder.Close()
	err = errors.Join(err, s.encoder.Close(), s.db.close())
	s.db = nil
	return err
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.QueuedBytes = s.queued
	return st
}

// Wait returns once the group has events that came after the page that gave the
// cursor, or when ctx or the store ends. The group need not exist yet.
func (s *Store) Wait(ctx context.Context, scope lambda.Scope, groupName, after string) error {
	c, err := parseCursor(after)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed
	}
	g := s.groupLocked(groupKey{scope, groupName})
	if g.held && g.written > max(c.since, c.upTo) {
		s.mu.Unlock()
		return nil
	}
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	changed := g.changed
	g.users++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		g.users--
		s.dropLocked(g)
	}()
	select {
	case <-changed:
		return nil
	case <-s.stop:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read runs f with the database. A damaged database is replaced, for the calls to come.
func (s *Store) read(f func(*database) error) error {
	s.using.RLock()
	db := s.db
	if db == nil {
		s.using.RUnlock()
		return errClosed
	}
	err := f(db)
	s.using.RUnlock()
	if isDamage(err) {
		s.writing.Lock()
		defer s.writing.Unlock()
		err = errors.Join(err, s.replace(db, err))
	}
	return err
}

func (s *Store) groupLocked(key groupKey) *group {
	g := s.groups[key]
	if g == nil {
		// The key's strings may be parts of large ones, such as a request's body.
		key.name = strings.Clone(key.name)
		g = &group{key: key}
		s.groups[key] = g
	}
	return g
}

// dropLocked forgets a group that nothing needs any more.
func (s *Store) dropLocked(g *group) {
	if !g.held && g.queued == 0 && g.users == 0 && s.groups[g.key] == g {
		delete(s.groups, g.key)
	}
}
