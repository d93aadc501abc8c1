package logs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"modernc.org/sqlite"

	"kiln/internal/lambda"
)

// lastRune is above every rune of a name.
const lastRune = "\U0010FFFF"

// schemaVersion is in the database's user_version.
const schemaVersion = 2

// chunk.data is one or more zstd frames of events; see chunk.go.
const schema = `
CREATE TABLE log_group (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	account TEXT NOT NULL,
	region  TEXT NOT NULL,
	name    TEXT NOT NULL,
	created   INTEGER NOT NULL,           -- nanoseconds
	bytes     INTEGER NOT NULL DEFAULT 0, -- of its chunks, overhead included
	retention INTEGER NOT NULL DEFAULT 0, -- days; 0: for ever
	settings  TEXT NOT NULL DEFAULT '{}', -- Settings as JSON, without the retention
	UNIQUE (account, region, name)
) STRICT;
CREATE TABLE stream (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	group_id   INTEGER NOT NULL,
	name       TEXT NOT NULL,
	first_time INTEGER NOT NULL,
	last_time  INTEGER NOT NULL,
	events     INTEGER NOT NULL,
	bytes      INTEGER NOT NULL,
	created    INTEGER NOT NULL,
	last_seq   INTEGER NOT NULL, -- of the event that arrived last, though it may be gone; 0: none did
	UNIQUE (group_id, name)
) STRICT;
CREATE TABLE chunk (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	group_id   INTEGER NOT NULL,
	stream_id  INTEGER NOT NULL,
	first_time INTEGER NOT NULL, -- the earliest of its events
	last_time  INTEGER NOT NULL, -- the latest
	last_seq   INTEGER NOT NULL,
	base_time  INTEGER NOT NULL, -- what the first event's differences are from
	base_seq   INTEGER NOT NULL,
	events     INTEGER NOT NULL,
	bytes      INTEGER NOT NULL,
	data       BLOB NOT NULL
) STRICT;
CREATE INDEX chunk_time ON chunk (group_id, first_time);
CREATE INDEX chunk_seq ON chunk (group_id, last_seq);
`

// migrations lead from each version to the next.
var migrations = map[int]string{
	1: `
ALTER TABLE log_group ADD COLUMN retention INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_group ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
ALTER TABLE stream ADD COLUMN created INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stream ADD COLUMN last_seq INTEGER NOT NULL DEFAULT 0;
UPDATE stream SET created = first_time, last_seq = (SELECT coalesce(max(last_seq), 0) FROM chunk WHERE stream_id = stream.id);
`,
}

// database is the open file: one connection that writes, a few that read.
type database struct {
	write *sql.DB
	read  *sql.DB
}

func openDatabase(ctx context.Context, path string) (*database, error) {
	// auto_vacuum only takes effect before the first table is made, and takes the
	// lock for writing. So does a transaction from its beginning: one that reads
	// first would fail instead of waiting for it. The caches are small because
	// reading is sequential and the daemon should be.
	const pragmas = "&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=cache_size(-256)&_pragma=journal_size_limit(4194304)"
	file := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(5000)"
	// SQLite would make it readable by all; what functions log is for the owner.
	// The files beside it take its mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	write, err := sql.Open("sqlite", file+"&_txlock=immediate&_pragma=auto_vacuum(incremental)"+pragmas)
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	db := &database{write: write}
	var version int
	if err := write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return nil, errors.Join(err, db.close())
	}
	if version > schemaVersion {
		return nil, errors.Join(fmt.Errorf("its schema %d is of a newer Kiln, this one knows %d", version, schemaVersion), db.close())
	}
	change := schema
	if version > 0 {
		change = ""
		for v := version; v < schemaVersion; v++ {
			change += migrations[v]
		}
	}
	if change != "" {
		if _, err := write.ExecContext(ctx, "BEGIN;"+change+fmt.Sprintf("PRAGMA user_version = %d; COMMIT", schemaVersion)); err != nil {
			return nil, errors.Join(err, db.close())
		}
	}
	if db.read, err = sql.Open("sqlite", file+pragmas+"&_pragma=query_only(1)"); err != nil {
		return nil, errors.Join(err, db.close())
	}
	db.read.SetMaxOpenConns(maxReaders)
	db.read.SetMaxIdleConns(1)
	db.read.SetConnMaxIdleTime(30 * time.Second)
	return db, nil
}

// maxReaders bounds queries at once: each holds a connection and decompressed chunks.
const maxReaders = 4

func (db *database) close() error {
	var err error
	if db.read != nil {
		err = db.read.Close()
	}
	return errors.Join(err, db.write.Close())
}

// group finds a group and its retention in days. It fails with ErrNoGroup.
func (db *database) group(ctx context.Context, scope lambda.Scope, name string) (id int64, retention int, err error) {
	err = db.read.QueryRowContext(ctx, `SELECT id, retention FROM log_group WHERE account = ? AND region = ? AND name = ?`,
		string(scope.Account), string(scope.Region), name).Scan(&id, &retention)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoGroup
	}
	return id, retention, err
}

// isDamage tells SQLITE_CORRUPT and SQLITE_NOTADB from other errors.
func isDamage(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == 11 || e.Code()&0xff == 26)
}

// putAside renames the files of a damaged database.
func (s *Store) putAside(damage error) error {
	aside := fmt.Sprintf("%s.damaged-%s", s.path, time.Now().UTC().Format("20060102T150405.000000000"))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(s.path+suffix, aside+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("put the damaged log database aside: %w", err)
		}
	}
	s.cfg.Log.Error("log database is damaged; it was put aside and a new one begun", "path", aside, "error", damage)
	return nil
}

// replace puts a database aside that turned out to be damaged and begins a new
// one. The caller holds writing.
func (s *Store) replace(damaged *database, damage error) error {
	s.using.Lock()
	defer s.using.Unlock()
	if s.db != damaged {
		return nil // another caller did
	}
	_ = s.db.close() // its error would be of the damage again
	if err := s.putAside(damage); err != nil {
		s.cfg.Log.Error("log database is damaged and cannot be replaced; logs are dropped until restart", "error", err)
		return err
	}
	db, err := openDatabase(context.Background(), s.path)
	if err != nil {
		s.cfg.Log.Error("no new log database could be made; logs are dropped until restart", "error", err)
		return err
	}
	s.db = db
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.groups {
		g.id, g.bytes, g.held = 0, 0, false
		s.dropLocked(g)
	}
	clear(s.recent)
	return nil
}
