package logs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
)

// Copy writes all events appended before to a database of its own, of one moment,
// while others are written and read.
func (s *Store) Copy(ctx context.Context, path string) error {
	if err := s.Flush(ctx); err != nil {
		return err
	}
	return s.read(func(*database) error {
		// The readers' connections write nothing, not even another file. One that
		// reads holds up no writer.
		db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: s.path}).EscapedPath()+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)")
		if err != nil {
			return err
		}
		_, err = db.ExecContext(ctx, "VACUUM INTO ?", path)
		if err = errors.Join(err, db.Close()); err != nil {
			return errors.Join(fmt.Errorf("copy the logs: %w", err), os.RemoveAll(path))
		}
		return os.Chmod(path, 0o600)
	})
}
