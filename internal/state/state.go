// Package state is what Kiln remembers, as four small interfaces: State (records),
// Blob (bytes by content), Queue (durable events) and Route (calls between
// nodes). The jetstream folder implements all four and is the only importer of
// NATS; the registry, the invoke package and the daemon use them.
package state

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors that the implementations return, wrapped.
var (
	// ErrConflict: a record is not at the expected revision.
	ErrConflict = errors.New("the record was changed by another writer")
	// ErrNotFound: there is no such blob.
	ErrNotFound = errors.New("not found")
	// ErrFull: the disk is full, or below its floor of free space.
	ErrFull = errors.New("not enough free disk space")
	// ErrBroken: the disk takes no writes, for now.
	ErrBroken = errors.New("the disk takes no writes")
	// ErrUnknown: the disk failed in the middle of it, so that it is stored or not.
	ErrUnknown = errors.New("it is not known whether it is stored")
)

// Revision orders the changes of one record. 0: the record does not exist.
type Revision uint64

// Record is one remembered value. Keys are dot-separated tokens of
// [a-zA-Z0-9_$-]; the first three are kind, account and region.
type Record struct {
	Key      string
	Value    []byte
	Revision Revision
}

// Change is one part of a commit.
type Change struct {
	Key    string
	Value  []byte // nil deletes
	Expect Revision
}

// State keeps records. Methods are safe for concurrent use.
type State interface {
	// All returns every record whose key begins with prefix.
	All(ctx context.Context, prefix string) ([]Record, error)
	// Commit makes all changes or none, and returns the new revisions in order
	// once they are on disk. It fails with ErrConflict when any record is not at
	// the revision that its change expects.
	Commit(ctx context.Context, changes ...Change) ([]Revision, error)
}

// Blob keeps bytes under keys of [a-z0-9-]. Methods are safe for concurrent use.
type Blob interface {
	// Put stores r's bytes and returns once they are on disk. A Put of a key that is there replaces it.
	Put(ctx context.Context, key string, r io.Reader) error
	// Get fails with ErrNotFound, or with another error when the stored bytes do not match their digest.
	Get(ctx context.Context, key string) (io.ReadCloser, error)
	Delete(ctx context.Context, key string) error
	Keys(ctx context.Context) ([]string, error)
}

// Queue keeps events in lanes until each is acknowledged: at least once, no order
// promised. A lane's name is a key, as of a record. Methods are safe for
// concurrent use.
type Queue interface {
	// Publish returns once the event is on disk.
	Publish(ctx context.Context, lane string, event []byte) error
	// Take hands out up to n events of the lane that are due, without waiting for any.
	// Those it returns belong to the caller until each is settled, however long that takes.
	// A lane that nobody takes from costs no memory beyond its name.
	Take(ctx context.Context, lane string, n int) ([]Delivery, error)
	// Lanes returns what waits, by lane, of those whose name begins with prefix.
	// Whoever dispatches asks it at the start; from then on it knows what it has
	// published and what it has put off itself.
	Lanes(ctx context.Context, prefix string) (map[string]Backlog, error)
	// Backlog is Lanes of one lane.
	Backlog(ctx context.Context, lane string) (Backlog, error)
	// Peek returns up to n events that wait in a lane, without taking them: those
	// that are due first, each kind in the order in which they came there. It returns
	// fewer when they are large.
	Peek(ctx context.Context, lane string, n int) ([]Waiting, error)
	// Purge drops what waits in a lane and returns how many events that were.
	Purge(ctx context.Context, lane string) (uint64, error)
}

// Backlog counts what waits in a lane.
type Backlog struct {
	Due   uint64   // events that can be handed out, or are
	Later []PutOff // those that wait for their retry
	Bytes uint64   // their size, about: of those that are due, their number times an average
}

// PutOff is an event that waits for its retry.
type PutOff struct{ Due, Accepted time.Time }

// Waiting is an event that waits.
type Waiting struct {
	Event    []byte
	Accepted time.Time
	Attempt  int       // the number of its next delivery, from 1; one too low when it was handed out and nothing came of it
	NotYet   time.Time // when it is due, zero when it is
}

// Delivery is one event handed out. Exactly one of Ack and Retry is called; an
// event whose taker dies is delivered again.
type Delivery interface {
	Event() []byte
	Accepted() time.Time
	Attempt() int // from 1
	Ack(ctx context.Context) error
	// Retry has the event delivered again, not before the time given, which
	// outlives a restart. With an event, that takes its place. Meanwhile it holds up
	// nothing, however many wait like it.
	Retry(ctx context.Context, after time.Duration, event []byte) error
}

// Route carries calls to a node by its id. Methods are safe for concurrent use.
type Route interface {
	// Serve answers calls to the name on this node until ctx ends.
	Serve(ctx context.Context, name string, handle func(ctx context.Context, request []byte) ([]byte, error)) error
	Call(ctx context.Context, node, name string, request []byte) ([]byte, error)
}
