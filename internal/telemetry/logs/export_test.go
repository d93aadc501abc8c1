package logs

import (
	"context"
	"fmt"
)

// LimitPages makes the database full at n pages from now on; 0 lifts it.
func (s *Store) LimitPages(n int) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if n == 0 {
		n = 1 << 30
	}
	_, err := s.db.write.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", n))
	return err
}

// Pages returns the pages of the file and those of them that are free.
func (s *Store) Pages() (all, free int) {
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = s.db.write.QueryRowContext(context.Background(), "PRAGMA page_count").Scan(&all)
	_ = s.db.write.QueryRowContext(context.Background(), "PRAGMA freelist_count").Scan(&free)
	return all, free
}

// Chunks counts the chunks.
func (s *Store) Chunks() (n int) {
	_ = s.db.read.QueryRow("SELECT count(*) FROM chunk").Scan(&n)
	return n
}

// Miscounted tells of counts that differ from what is there: of groups, of
// streams, and in memory.
func (s *Store) Miscounted() (list []string, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	rows, err := s.db.write.Query(`
		SELECT 'group ' || name, bytes, (SELECT coalesce(sum(bytes), 0) FROM chunk WHERE group_id = log_group.id) AS counted FROM log_group WHERE bytes != counted
		UNION ALL SELECT 'bytes of stream ' || name, bytes, (SELECT coalesce(sum(bytes), 0) FROM chunk WHERE stream_id = stream.id) AS counted FROM stream WHERE bytes != counted
		UNION ALL SELECT 'events of stream ' || name, events, (SELECT coalesce(sum(events), 0) FROM chunk WHERE stream_id = stream.id) AS counted FROM stream WHERE events != counted
		UNION ALL SELECT 'chunks without stream', count(*), 0 FROM chunk WHERE stream_id NOT IN (SELECT id FROM stream) HAVING count(*) > 0`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var what string
		var have, counted int64
		if err := rows.Scan(&what, &have, &counted); err != nil {
			return nil, err
		}
		list = append(list, fmt.Sprint(what, ": ", have, ", counted ", counted))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, g := range s.groups {
		var id, bytes int64
		if err := s.db.write.QueryRow("SELECT coalesce(max(id), 0), coalesce(max(bytes), 0) FROM log_group WHERE account = ? AND region = ? AND name = ?", string(key.scope.Account), string(key.scope.Region), key.name).Scan(&id, &bytes); err != nil {
			return nil, err
		}
		if g.id != id || g.bytes != bytes || g.held != (id != 0) || g.queued != 0 || g.users != 0 {
			list = append(list, fmt.Sprintf("group %s in memory: %+v, in the database %d with %d bytes", key.name, g, id, bytes))
		}
	}
	return list, rows.Err()
}

// HoldWriter keeps everything from being written until release is called.
func (s *Store) HoldWriter() (release func()) {
	s.writing.Lock()
	return s.writing.Unlock
}
