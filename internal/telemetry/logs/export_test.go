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

// HoldWriter keeps everything from being written until release is called.
func (s *Store) HoldWriter() (release func()) {
	s.writing.Lock()
	return s.writing.Unlock
}
