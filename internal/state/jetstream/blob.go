package jetstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"kiln/internal/state"
)

const (
	// chunkPrefix begins the subject of a blob's bytes, namePrefix that of its name.
	chunkPrefix = "chunk."
	namePrefix  = "blob."
	// chunkSize is how much of a blob one message holds, in bytes. Each is synced:
	// a 50 MiB package costs 50 syncs.
	chunkSize = 1 << 20
	// orphanAge is how old chunks must be to be swept when no blob refers to them;
	// younger ones may belong to a Put of another node that is under way.
	orphanAge = time.Hour
	// sweepDelay is how long after the start they are swept: with 10,000 blobs that
	// costs as much as the rest of the start, which it would slow down.
	sweepDelay = time.Minute
)

// Blob stores a blob as an Object Store does (ADR-20): chunks under a subject of
// their own, then one message that names it. NATS's own Object Store is not used.
// Its client names an object before it knows that all chunks are on disk, gives a
// whole read five seconds, and waits for chunks that are gone; and it keeps names
// among the chunks, where a deleted one comes back after a crash (see State). Here
// names are kept as records are.
type Blob struct {
	engine *Engine

	mu   sync.Mutex
	pins int      // guarded by mu; snapshots that read chunks
	late []string // guarded by mu; chunks to drop once there are none
}

// object is the content of the message that names a blob.
type object struct {
	ID     string `json:"id"` // names the chunks; another one for each Put
	Size   uint64 `json:"size"`
	Chunks uint32 `json:"chunks"`
	Digest string `json:"sha256"` // hexadecimal
}

// Put stores r's bytes and returns once they are on disk. A reader of the key
// sees the old bytes or the new ones, never a mixture.
func (b *Blob) Put(ctx context.Context, key string, r io.Reader) error {
	if err := b.put(ctx, key, r); err != nil {
		return fmt.Errorf("store the blob %s: %w", key, err)
	}
	return nil
}

func (b *Blob) put(ctx context.Context, key string, r io.Reader) (err error) {
	old, err := b.find(ctx, key)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	o := object{ID: uuid.NewString()}
	named := false
	defer func() {
		if err != nil && !named {
			// What stays after a failure here is swept at the next start.
			b.dropChunks(context.WithoutCancel(ctx), o.ID)
		}
	}()
	digest, chunk := sha256.New(), make([]byte, chunkSize)
	for {
		n, rerr := io.ReadFull(r, chunk)
		if rerr != nil && !errors.Is(rerr, io.EOF) && !errors.Is(rerr, io.ErrUnexpectedEOF) {
			return rerr
		}
		if n > 0 {
			if err := b.engine.cfg.Free(); err != nil {
				return err
			}
			if _, err := b.engine.store(ctx, &nats.Msg{Subject: chunkPrefix + o.ID, Data: chunk[:n]}); err != nil {
				return err
			}
			digest.Write(chunk[:n])
			o.Size, o.Chunks = o.Size+uint64(n), o.Chunks+1
		}
		if rerr != nil {
			break
		}
	}
	o.Digest = hex.EncodeToString(digest.Sum(nil))
	// From here the blob may be named even if an error comes back.
	named = true
	if err := b.name(ctx, key, &o); err != nil {
		return err
	}
	if old.ID != "" {
		b.dropChunks(context.WithoutCancel(ctx), old.ID)
	}
	return nil
}

// Get streams the blob. The last Read fails instead of io.EOF when the bytes do
// not match their digest. The reader holds no resource of the engine; it uses ctx
// until it is closed.
func (b *Blob) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	o, err := b.find(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read the blob %s: %w", key, err)
	}
	return b.open(ctx, key, o), nil
}

func (b *Blob) open(ctx context.Context, key string, o object) *reader {
	return &reader{ctx: ctx, blob: b, key: key, object: o, digest: sha256.New(), from: 1}
}

// Delete frees the blob's space. A key that is not there is no error.
func (b *Blob) Delete(ctx context.Context, key string) error {
	o, err := b.find(ctx, key)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = b.name(ctx, key, nil)
	}
	if err == nil {
		b.dropChunks(context.WithoutCancel(ctx), o.ID)
	}
	if err != nil {
		return fmt.Errorf("delete the blob %s: %w", key, err)
	}
	return nil
}

// Keys lists the blobs, oldest first.
func (b *Blob) Keys(ctx context.Context) (keys []string, err error) {
	err = b.each(ctx, func(key string, _ object) { keys = append(keys, key) })
	if err != nil {
		return nil, fmt.Errorf("list the blobs: %w", err)
	}
	return keys, nil
}

func (b *Blob) each(ctx context.Context, f func(key string, o object)) error {
	return b.engine.read(ctx, stateStream, namePrefix+"*", func(m message) error {
		o, err := parseObject(m)
		if err == nil {
			f(strings.TrimPrefix(m.subject, namePrefix), o)
		}
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		return err
	})
}

func (b *Blob) find(ctx context.Context, key string) (object, error) {
	if !isBlobKey(key) {
		return object{}, fmt.Errorf("the key %q is not made of [a-z0-9-]", key)
	}
	m, err := b.engine.last(ctx, stateStream, namePrefix+key)
	if err != nil {
		return object{}, err
	}
	return parseObject(m)
}

// parseObject fails with state.ErrNotFound when the message marks a deletion.
func parseObject(m message) (o object, err error) {
	if m.header.Get(deletedHeader) != "" {
		return o, state.ErrNotFound
	}
	if err := json.Unmarshal(m.data, &o); err != nil {
		return o, fmt.Errorf("read what %s is: %w", m.subject, err)
	}
	return o, nil
}

// name writes the message that makes the blob what it is, in place of the one
// before; nil deletes it.
func (b *Blob) name(ctx context.Context, key string, o *object) error {
	m := nats.NewMsg(namePrefix + key)
	if o == nil {
		m.Header.Set(deletedHeader, "1")
	} else {
		data, err := json.Marshal(o)
		if err != nil {
			return err
		}
		m.Data = data
	}
	b.engine.writing.RLock()
	_, err := b.engine.store(ctx, m)
	b.engine.writing.RUnlock()
	if err == nil && o == nil {
		b.engine.state.marked(ctx)
	}
	return err
}

// dropChunks needs no success: chunks without a name are swept after a later start.
func (b *Blob) dropChunks(ctx context.Context, id string) {
	b.mu.Lock()
	if b.pins > 0 {
		b.late = append(b.late, id)
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	if _, err := b.engine.purge(ctx, blobStream, chunkPrefix+id, 0); err != nil {
		b.engine.cfg.Log.Warn("a blob's chunks stay until they are swept", "chunks", id, "error", err)
	}
}

// pin keeps the chunks of every blob until unpin.
func (b *Blob) pin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pins++
}

func (b *Blob) unpin() {
	b.mu.Lock()
	var drop []string
	if b.pins--; b.pins == 0 {
		drop, b.late = b.late, nil
	}
	b.mu.Unlock()
	for _, id := range drop {
		b.dropChunks(context.Background(), id)
	}
}

// sweep removes what interrupted Puts and Deletes have left: chunks that no blob
// refers to and that are older than the time given.
func (b *Blob) sweep(ctx context.Context, before time.Time) error {
	used := map[string]bool{}
	err := b.each(ctx, func(_ string, o object) { used[chunkPrefix+o.ID] = true })
	if err != nil {
		return fmt.Errorf("sweep the blobs: %w", err)
	}
	subjects, err := b.subjects(ctx)
	if err != nil {
		return fmt.Errorf("sweep the blobs: %w", err)
	}
	for _, subject := range subjects {
		if used[subject] {
			continue
		}
		m, err := b.engine.last(ctx, blobStream, subject)
		if errors.Is(err, state.ErrNotFound) || err == nil && !m.time.Before(before) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sweep the blobs: %w", err)
		}
		b.dropChunks(ctx, strings.TrimPrefix(subject, chunkPrefix))
	}
	return nil
}

// subjects lists the subjects that chunks are stored under.
func (b *Blob) subjects(ctx context.Context) (list []string, err error) {
	for {
		var info struct {
			Total int `json:"total"`
			State struct {
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
		}
		err := b.engine.api(ctx, "STREAM.INFO."+blobStream, struct {
			Filter string `json:"subjects_filter"`
			Offset int    `json:"offset"`
		}{chunkPrefix + "*", len(list)}, &info)
		if err != nil {
			return nil, err
		}
		for s := range info.State.Subjects {
			list = append(list, s)
		}
		if len(info.State.Subjects) == 0 || len(list) >= info.Total {
			return list, nil
		}
	}
}

// reader pages through a blob's chunks.
type reader struct {
	ctx    context.Context
	blob   *Blob
	key    string
	object object
	digest hash.Hash
	chunks [][]byte
	seen   uint32 // chunks
	from   uint64 // sequence of the next page
	err    error  // what Read returns once the chunks are used up
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.chunks) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.err = r.more()
	}
	n := copy(p, r.chunks[0])
	if r.chunks[0] = r.chunks[0][n:]; len(r.chunks[0]) == 0 {
		r.chunks = r.chunks[1:]
	}
	return n, nil
}

// more reads a page, or says why there is none.
func (r *reader) more() error {
	if r.seen == r.object.Chunks {
		if got := hex.EncodeToString(r.digest.Sum(nil)); got != r.object.Digest {
			return fmt.Errorf("the blob %s is damaged: its bytes have the digest %s, not %s", r.key, got, r.object.Digest)
		}
		return io.EOF
	}
	next, _, err := r.blob.engine.readPage(r.ctx, blobStream, chunkPrefix+r.object.ID, r.from, pageMessages, func(m message) error {
		r.digest.Write(m.data)
		r.chunks = append(r.chunks, m.data)
		r.seen++
		return nil
	})
	if err == nil && next == r.from || errors.Is(err, errUnreadable) {
		err = fmt.Errorf("the blob %s is damaged or was replaced meanwhile: it has %d chunks, %d can be read",
			r.key, r.object.Chunks, r.seen)
	}
	r.from = next
	return err
}

// Size is the blob's size in bytes.
func (r *reader) Size() int64 { return int64(r.object.Size) }

func (r *reader) Close() error {
	r.chunks, r.err = nil, errors.New("read of a closed blob")
	return nil
}

func isBlobKey(s string) bool {
	return s != "" && len(s) <= MaxKey && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-'
	})
}
