package logs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kiln/internal/lambda"
)

// maxGroups bounds the groups that are created in an account and region; each
// takes a little memory for good.
const maxGroups = 10_000

// Settings are what is set of a group. Only RetentionDays means something here.
type Settings struct {
	RetentionDays int               `json:"-"` // 0: for ever
	Class         string            `json:",omitzero"`
	KMSKey        string            `json:",omitzero"`
	Protected     bool              `json:",omitzero"` // against deletion
	Tags          map[string]string `json:",omitzero"`
}

// Group describes a log group.
type Group struct {
	Name    string
	Created time.Time
	Bytes   int64 // kept, compressed
	Settings
}

const groupColumns = `name, created, bytes, retention, settings`

func scanGroup(row interface{ Scan(...any) error }) (g Group, err error) {
	var created int64
	var settings []byte
	if err := row.Scan(&g.Name, &created, &g.Bytes, &g.RetentionDays, &settings); err != nil {
		return g, err
	}
	g.Created = fromNanos(created)
	return g, json.Unmarshal(settings, &g.Settings)
}

// CreateGroup makes a group without streams. It fails with ErrGroupExists and
// ErrTooMany.
func (s *Store) CreateGroup(ctx context.Context, scope lambda.Scope, name string, settings Settings) error {
	if err := s.Flush(ctx); err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	var id int64
	err := s.change(func(ctx context.Context, tx *sql.Tx) error {
		var same, all int
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(sum(name = ?), 0), count(*) FROM log_group WHERE account = ? AND region = ?`, name, string(scope.Account), string(scope.Region)).Scan(&same, &all); err != nil {
			return err
		}
		switch {
		case same > 0:
			return ErrGroupExists
		case all >= maxGroups:
			return ErrTooMany
		}
		text, err := json.Marshal(settings)
		if err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `INSERT INTO log_group (account, region, name, created, retention, settings) VALUES (?, ?, ?, ?, ?, ?) RETURNING id`,
			string(scope.Account), string(scope.Region), name, time.Now().UnixNano(), settings.RetentionDays, string(text)).Scan(&id)
	})
	if err != nil {
		return fmt.Errorf("create log group %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groupLocked(groupKey{scope, name})
	g.id, g.bytes, g.held = id, 0, true
	return nil
}

// ChangeGroup changes the settings of a group, unless the function fails. It fails
// with ErrNoGroup. What is older than a new retention is gone at once.
func (s *Store) ChangeGroup(ctx context.Context, scope lambda.Scope, name string, edit func(*Settings) error) error {
	if err := s.Flush(ctx); err != nil {
		return err
	}
	retention, err := s.changeGroup(scope, name, edit)
	if err != nil {
		return fmt.Errorf("change log group %s: %w", name, err)
	}
	if retention > 0 {
		s.expire(time.Now())
	}
	return nil
}

func (s *Store) changeGroup(scope lambda.Scope, name string, edit func(*Settings) error) (retention int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	err = s.change(func(ctx context.Context, tx *sql.Tx) error {
		g, err := scanGroup(tx.QueryRowContext(ctx, `SELECT `+groupColumns+` FROM log_group WHERE account = ? AND region = ? AND name = ?`, string(scope.Account), string(scope.Region), name))
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNoGroup
		}
		if err == nil {
			err = edit(&g.Settings)
		}
		if err != nil {
			return err
		}
		retention = g.RetentionDays
		text, err := json.Marshal(g.Settings)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE log_group SET retention = ?, settings = ? WHERE account = ? AND region = ? AND name = ?`,
			g.RetentionDays, string(text), string(scope.Account), string(scope.Region), name)
		return err
	})
	return retention, err
}

// Group describes one group. It fails with ErrNoGroup.
func (s *Store) Group(ctx context.Context, scope lambda.Scope, name string) (g Group, err error) {
	if err := s.Flush(ctx); err != nil {
		return g, err
	}
	err = s.read(func(db *database) error {
		g, err = scanGroup(db.read.QueryRowContext(ctx, `SELECT `+groupColumns+` FROM log_group WHERE account = ? AND region = ? AND name = ?`, string(scope.Account), string(scope.Region), name))
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNoGroup
		}
		return err
	})
	if err != nil {
		return g, fmt.Errorf("describe log group %s: %w", name, err)
	}
	return g, nil
}

// GroupsQuery asks for groups of one scope.
type GroupsQuery struct {
	Scope  lambda.Scope
	Prefix string
	After  string           // the list goes on after this name
	Match  func(Group) bool // nil: all
	Limit  int
}

// Groups lists groups by name.
func (s *Store) Groups(ctx context.Context, q GroupsQuery) (list []Group, err error) {
	if err := s.Flush(ctx); err != nil {
		return nil, err
	}
	err = s.read(func(db *database) error {
		rows, err := db.read.QueryContext(ctx, `SELECT `+groupColumns+` FROM log_group WHERE account = ? AND region = ? AND name >= ? AND name < ? AND name > ? ORDER BY name`,
			string(q.Scope.Account), string(q.Scope.Region), q.Prefix, q.Prefix+lastRune, q.After)
		if err != nil {
			return err
		}
		defer rows.Close()
		for len(list) < q.Limit && rows.Next() {
			g, err := scanGroup(rows)
			if err != nil {
				return err
			}
			if q.Match == nil || q.Match(g) {
				list = append(list, g)
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list log groups: %w", err)
	}
	return list, nil
}

// DeleteGroup deletes a group with its streams and events, those that wait
// included. It fails with ErrNoGroup, and with the error of allow, which is asked
// first unless it is nil. An event appended later makes the group anew.
func (s *Store) DeleteGroup(ctx context.Context, scope lambda.Scope, name string, allow func(Settings) error) error {
	if err := s.Flush(ctx); err != nil {
		return err
	}
	if err := s.deleteGroup(scope, name, allow); err != nil {
		return fmt.Errorf("delete log group %s: %w", name, err)
	}
	return nil
}

func (s *Store) deleteGroup(scope lambda.Scope, name string, allow func(Settings) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	key := groupKey{scope, name}
	s.mu.Lock()
	g := s.groups[key]
	s.mu.Unlock()
	if g == nil || g.id == 0 {
		return ErrNoGroup
	}
	err := s.change(func(ctx context.Context, tx *sql.Tx) error {
		if allow != nil {
			group, err := scanGroup(tx.QueryRowContext(ctx, `SELECT `+groupColumns+` FROM log_group WHERE id = ?`, g.id))
			if err == nil {
				err = allow(group.Settings)
			}
			if err != nil {
				return err
			}
		}
		for _, table := range []string{"chunk WHERE group_id", "stream WHERE group_id", "log_group WHERE id"} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" = ?", g.id); err != nil {
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
	g.id, g.bytes, g.held = 0, 0, false
	s.dropLocked(g)
	for k := range s.recent {
		if k.group == key {
			delete(s.recent, k)
		}
	}
	return nil
}

// change runs f in a transaction. The caller holds writing.
func (s *Store) change(f func(context.Context, *sql.Tx) error) error {
	s.using.RLock()
	db := s.db
	if db == nil {
		s.using.RUnlock()
		return errClosed
	}
	err := db.change(f)
	s.using.RUnlock()
	if isDamage(err) {
		return errors.Join(err, s.replace(db, err))
	}
	if err == nil {
		s.unsynced = true
		signal(s.wake) // to sync, and to shrink
	}
	return err
}

func (db *database) change(f func(context.Context, *sql.Tx) error) error {
	ctx := context.Background() // half a change is none, whoever has gone
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(ctx, tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
