package logs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	// restFactor times as long as a write took is waited before the next, so that
	// a thousand streams with a line each take a tenth of one core, not half.
	restFactor = 10
	// maxRest bounds that wait: telemetry may lose its last second.
	maxRest = 700 * time.Millisecond
)

// Flush returns once everything appended before is readable, or dropped.
func (s *Store) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.write(false)
}

// run writes in the background until Close.
func (s *Store) run() {
	defer close(s.done)
	var tick <-chan time.Time // not nil: something was appended since it last came
	var rest time.Duration
	expire := time.NewTicker(expireInterval)
	defer expire.Stop()
	s.expire(time.Now())
	for {
		select {
		case <-expire.C:
			s.expire(time.Now())
		case <-s.wake:
			if tick == nil {
				tick = time.After(max(s.cfg.FlushInterval, rest))
			}
		case <-s.urgent:
			_ = s.write(false) // told by write
		case <-tick:
			tick = nil
			began := time.Now()
			_ = s.write(true)
			rest = min(restFactor*time.Since(began), maxRest)
			if s.shrink() {
				tick = time.After(shrinkPause)
			}
		case <-s.stop:
			return
		}
	}
}

// write writes what waits. With sync, all that was written is on disk when it
// returns; without, it outlives the process but perhaps not the power. Every
// event is followed by a write with sync within FlushInterval, or maxRest.
func (s *Store) write(sync bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	batches := s.take()
	if len(batches) == 0 && !(sync && s.unsynced) {
		return nil
	}
	err := s.commit(batches, sync)
	s.settle(batches, err)
	if err != nil {
		for _, b := range batches {
			b.stream.open = openChunk{}
		}
		s.mu.Lock()
		s.stats.Failures++
		s.mu.Unlock()
	}
	// Once per trouble, not per write: a full disk would fill its own log.
	if failing := err != nil; failing != s.failing {
		s.failing = failing
		if failing {
			s.cfg.Log.Error("logs cannot be written and are dropped", "path", s.path, "error", err)
		} else {
			s.cfg.Log.Info("logs are written again", "path", s.path)
		}
	}
	return err
}

func (s *Store) commit(batches []batch, sync bool) error {
	if len(batches) > 0 && s.cfg.Full() {
		return ErrFull
	}
	s.using.RLock()
	db := s.db
	if db == nil {
		s.using.RUnlock()
		return errClosed
	}
	c := commit{store: s, db: db, opens: make([]openChunk, len(batches)), groups: make(map[*group]groupState)}
	err := c.run(context.Background(), batches, sync)
	s.using.RUnlock()
	if err != nil {
		if isDamage(err) {
			err = errors.Join(err, s.replace(db, err))
		}
		return fmt.Errorf("write logs to %s: %w", s.path, err)
	}
	s.unsynced = !sync
	for i, b := range batches {
		b.stream.open = c.opens[i]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for g, state := range c.groups {
		g.id, g.bytes, g.held = state.id, state.bytes, true
	}
	if c.evicted > 0 {
		s.shrinking = true
		s.stats.Evicted += c.evicted
	}
	return nil
}

// commit is one transaction and what it will have changed in memory once it is
// done.
type commit struct {
	store   *Store
	db      *database
	tx      *sql.Tx
	opens   []openChunk
	groups  map[*group]groupState
	evicted int64

	upsertStream, insertChunk, extendChunk *sql.Stmt
	raw, packed                            []byte
}

type groupState struct{ id, bytes int64 }

func (c *commit) run(ctx context.Context, batches []batch, sync bool) (err error) {
	level := "PRAGMA synchronous = NORMAL"
	if sync {
		level = "PRAGMA synchronous = FULL"
	}
	if _, err := c.db.write.ExecContext(ctx, level); err != nil {
		return err
	}
	if c.tx, err = c.db.write.BeginTx(ctx, nil); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = c.tx.Rollback() // the error before it says more
		}
	}()
	if len(batches) == 0 {
		// Only a commit that wrote something syncs.
		if _, err := c.tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
			return err
		}
		return c.tx.Commit()
	}
	for _, prepare := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&c.upsertStream, `INSERT INTO stream (group_id, name, first_time, last_time, events, bytes, created, last_seq) VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6)
			ON CONFLICT (group_id, name) DO UPDATE SET first_time = iif(events > 0, min(first_time, ?3), ?3), last_time = iif(events > 0, max(last_time, ?4), ?4), last_seq = ?6 RETURNING id`},
		{&c.insertChunk, `INSERT INTO chunk (group_id, stream_id, first_time, last_time, last_seq, base_time, base_seq, events, bytes, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&c.extendChunk, `UPDATE chunk SET first_time = ?, last_time = ?, last_seq = ?, events = events + ?, bytes = bytes + ?, data = CAST(data || ? AS BLOB) WHERE id = ?`},
	} {
		if *prepare.to, err = c.tx.PrepareContext(ctx, prepare.sql); err != nil {
			return err
		}
	}
	for i, b := range batches {
		if err := c.writeStream(ctx, b, &c.opens[i]); err != nil {
			return err
		}
	}
	if err := c.evict(ctx); err != nil {
		return err
	}
	for _, state := range c.groups {
		if _, err := c.tx.ExecContext(ctx, `UPDATE log_group SET bytes = ? WHERE id = ?`, state.bytes, state.id); err != nil {
			return err
		}
	}
	return c.tx.Commit()
}

// group returns what is known of the group within the transaction; it makes the
// group if it is not there, as of the arrival of its first event.
func (c *commit) group(ctx context.Context, g *group, created time.Time) (groupState, error) {
	if state, ok := c.groups[g]; ok {
		return state, nil
	}
	state := groupState{id: g.id, bytes: g.bytes}
	if state.id == 0 {
		r, err := c.tx.ExecContext(ctx, `INSERT INTO log_group (account, region, name, created) VALUES (?, ?, ?, ?)`,
			string(g.key.scope.Account), string(g.key.scope.Region), g.key.name, created.UnixNano())
		if err != nil {
			return state, err
		}
		if state.id, err = r.LastInsertId(); err != nil {
			return state, err
		}
	}
	c.groups[g] = state
	return state, nil
}

// writeStream writes a stream's events as chunks and leaves the last in open.
func (c *commit) writeStream(ctx context.Context, b batch, open *openChunk) error {
	if len(b.records) == 0 {
		*open = b.stream.open
		return nil
	}
	created := arrival(b.records[0].seq)
	g, err := c.group(ctx, b.group, created)
	if err != nil {
		return err
	}
	first, last := b.records[0].time, b.records[0].time
	for _, r := range b.records {
		first, last = min(first, r.time), max(last, r.time)
	}
	var stream int64
	if err := c.upsertStream.QueryRowContext(ctx, g.id, b.stream.key.name, first, last, created.UnixNano(), b.records[len(b.records)-1].seq).Scan(&stream); err != nil {
		return err
	}
	*open = b.stream.open
	var events, bytes int64
	for i := 0; i < len(b.records); {
		if open.db != c.db || !open.accepts(b.records[i].time) {
			r := b.records[i]
			*open = openChunk{db: c.db, first: r.time, last: r.time, lastTime: r.time, lastSq: r.seq}
		}
		base := *open
		c.raw = c.raw[:0]
		n := i
		for ; n < len(b.records); n++ {
			r := b.records[n]
			if n > i && (base.raw+len(c.raw)+len(r.message) > chunkBytes || !open.spans(r.time)) {
				break
			}
			c.raw = appendEvent(c.raw, r.seq-open.lastSq, r.time-open.lastTime, r.message)
			open.lastSq, open.lastTime = r.seq, r.time
			open.first, open.last = min(open.first, r.time), max(open.last, r.time)
		}
		c.packed = c.store.encoder.EncodeAll(c.raw, c.packed[:0])
		added, err := c.writeFrame(ctx, g.id, stream, base, open, n-i)
		if err != nil {
			return err
		}
		events += int64(n - i)
		bytes += added
		i = n
	}
	g.bytes += bytes
	c.groups[b.group] = g
	_, err = c.tx.ExecContext(ctx, `UPDATE stream SET events = events + ?, bytes = bytes + ? WHERE id = ?`, events, bytes, stream)
	return err
}

// writeFrame appends c.packed to the open chunk, or makes it one, and returns
// the bytes added.
func (c *commit) writeFrame(ctx context.Context, group, stream int64, base openChunk, open *openChunk, events int) (int64, error) {
	open.raw += len(c.raw)
	open.size += len(c.packed)
	added := int64(len(c.packed))
	if base.id != 0 {
		r, err := c.extendChunk.ExecContext(ctx, open.first, open.last, open.lastSq, events, added, c.packed, base.id)
		if err != nil {
			return 0, err
		}
		if n, err := r.RowsAffected(); err != nil || n == 1 {
			return added, err
		}
		// The chunk was evicted meanwhile: these events begin another. What is
		// known of its span may be too wide, which is harmless.
		open.raw, open.size = len(c.raw), len(c.packed)
	}
	added += chunkOverhead
	r, err := c.insertChunk.ExecContext(ctx, group, stream, open.first, open.last, open.lastSq, base.lastTime, base.lastSq, events, added, c.packed)
	if err != nil {
		return 0, err
	}
	open.id, err = r.LastInsertId()
	return added, err
}
