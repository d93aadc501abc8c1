package logs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	// expireInterval is between two looks for what is older than its retention.
	expireInterval = time.Hour
	// slackPages may stay free in the file for the next chunks, in pages of 4 KiB.
	slackPages = 2048
	// shrinkPages are given back to the file system in one step.
	shrinkPages = 1024
	// shrinkPause is between two steps, so that writing comes between them.
	shrinkPause = 20 * time.Millisecond
)

// evict drops the oldest chunks of groups above their bound, and of the largest
// groups while all of them are above theirs.
func (c *commit) evict(ctx context.Context) error {
	cfg := c.store.cfg
	for g := range c.groups {
		if err := c.evictFrom(ctx, g, cfg.GroupBytes); err != nil {
			return err
		}
	}
	for {
		var total int64
		var largest *group
		var most int64
		c.store.mu.Lock()
		for _, g := range c.store.groups {
			bytes := g.bytes
			if state, ok := c.groups[g]; ok {
				bytes = state.bytes
			}
			total += bytes
			if bytes > most {
				largest, most = g, bytes
			}
		}
		c.store.mu.Unlock()
		if total <= cfg.TotalBytes || largest == nil {
			return nil
		}
		if _, err := c.group(ctx, largest, time.Now()); err != nil {
			return err
		}
		// At most a quarter of it at a time: then another may be the largest.
		if err := c.evictFrom(ctx, largest, max(most-(total-cfg.TotalBytes), most*3/4)); err != nil {
			return err
		}
	}
}

// evictFrom drops the group's oldest chunks until it has at most keep bytes.
func (c *commit) evictFrom(ctx context.Context, g *group, keep int64) error {
	state := c.groups[g]
	if state.bytes <= keep {
		return nil
	}
	streams := map[int64]gone{}
	var through int64
	rows, err := c.tx.QueryContext(ctx, `SELECT stream_id, last_seq, events, bytes FROM chunk INDEXED BY chunk_seq WHERE group_id = ? ORDER BY last_seq`, state.id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for state.bytes > keep && rows.Next() {
		var stream, events, bytes int64
		if err := rows.Scan(&stream, &through, &events, &bytes); err != nil {
			return err
		}
		sum := streams[stream]
		streams[stream] = gone{sum.events + events, sum.bytes + bytes}
		state.bytes -= bytes
		c.evicted++
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	if len(streams) == 0 {
		state.bytes = 0 // there was nothing: the count was wrong
	}
	if _, err := c.tx.ExecContext(ctx, `DELETE FROM chunk WHERE group_id = ? AND last_seq <= ?`, state.id, through); err != nil {
		return err
	}
	c.groups[g] = state
	return takeFrom(ctx, c.tx, streams)
}

// gone is what a stream has lost.
type gone struct{ events, bytes int64 }

// takeFrom counts what is gone of streams, by id, and deletes those that have
// nothing left.
func takeFrom(ctx context.Context, tx *sql.Tx, streams map[int64]gone) error {
	for id, g := range streams {
		if _, err := tx.ExecContext(ctx, `UPDATE stream SET events = events - ?, bytes = bytes - ? WHERE id = ?`, g.events, g.bytes, id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM stream WHERE id = ? AND events <= 0`, id); err != nil {
			return err
		}
	}
	return nil
}

// expire drops what is older than its group's retention.
func (s *Store) expire(now time.Time) {
	before := map[int64]int64{} // what to drop of which group
	err := s.read(func(db *database) error {
		rows, err := db.read.Query(`SELECT id, retention FROM log_group WHERE retention > 0`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			var days int
			if err := rows.Scan(&id, &days); err != nil {
				return err
			}
			before[id] = nanos(now.AddDate(0, 0, -days))
		}
		return rows.Err()
	})
	if err == nil && len(before) > 0 {
		err = s.expireGroups(before)
	}
	if err != nil && !errors.Is(err, errClosed) {
		s.cfg.Log.Error("logs beyond their retention cannot be removed; they are only hidden", "path", s.path, "error", err)
	}
}

func (s *Store) expireGroups(before map[int64]int64) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	freed := map[int64]int64{} // bytes, by group
	err := s.change(func(ctx context.Context, tx *sql.Tx) (err error) {
		for id, when := range before {
			if freed[id], err = expireGroup(ctx, tx, id, when); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.shrinking = true
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.groups {
		g.bytes -= freed[g.id]
	}
	return nil
}

// expireGroup drops the chunks whose last event is older, and streams that have
// been empty for as long. Younger chunks may hold a few older events, which no
// query shows.
func expireGroup(ctx context.Context, tx *sql.Tx, group, before int64) (freed int64, err error) {
	const where = ` FROM chunk WHERE group_id = ?1 AND first_time < ?2 AND last_time < ?2`
	rows, err := tx.QueryContext(ctx, `SELECT stream_id, sum(events), sum(bytes)`+where+` GROUP BY stream_id`, group, before)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	streams := map[int64]gone{}
	for rows.Next() {
		var id int64
		var g gone
		if err := rows.Scan(&id, &g.events, &g.bytes); err != nil {
			return 0, err
		}
		streams[id] = g
		freed += g.bytes
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE`+where, group, before); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE log_group SET bytes = bytes - ? WHERE id = ?`, freed, group); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM stream WHERE group_id = ? AND events <= 0 AND created < ?`, group, before); err != nil {
		return 0, err
	}
	return freed, takeFrom(ctx, tx, streams)
}

// shrink gives some free pages back to the file system and tells whether more
// are worth giving.
func (s *Store) shrink() (more bool) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if !s.shrinking {
		return false
	}
	s.using.RLock()
	defer s.using.RUnlock()
	var free int
	if err := s.db.write.QueryRow("PRAGMA freelist_count").Scan(&free); err != nil || free <= slackPages {
		s.shrinking = false
		return false
	}
	// As a query, because each row it returns frees one page.
	rows, err := s.db.write.Query(fmt.Sprintf("PRAGMA incremental_vacuum(%d)", shrinkPages))
	if err != nil {
		s.shrinking = false
		return false
	}
	for rows.Next() {
	}
	err = errors.Join(rows.Err(), rows.Close())
	s.shrinking = err == nil
	return s.shrinking
}
