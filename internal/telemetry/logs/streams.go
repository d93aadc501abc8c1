package logs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kiln/internal/lambda"
)

// maxStreams bounds the streams that are created in one group.
const maxStreams = 100_000

// StreamInfo describes a log stream.
type StreamInfo struct {
	Name        string
	Created     time.Time
	First, Last time.Time // of its events; zero without any
	Arrived     time.Time // the event that arrived last; zero if none did
	Events      int64
	Bytes       int64 // kept, compressed

	place streamPlace
}

// streamPlace is a place in a list by the time of the last event.
type streamPlace struct{ time, id int64 }

// Cursor asks for the streams that come after this one, in a list of either order.
func (i StreamInfo) Cursor() string {
	return "1-" + strconv.FormatUint(uint64(i.place.time), 36) + "-" + strconv.FormatInt(i.place.id, 36) + "-" + i.Name
}

func parseStreamCursor(s string) (name string, p streamPlace, err error) {
	part := strings.SplitN(s, "-", 4)
	if len(part) != 4 || part[0] != "1" {
		return "", p, ErrCursor
	}
	when, err1 := strconv.ParseUint(part[1], 36, 64)
	id, err2 := strconv.ParseInt(part[2], 36, 64)
	if err1 != nil || err2 != nil {
		return "", p, ErrCursor
	}
	return part[3], streamPlace{int64(when), id}, nil
}

// CreateStream makes a stream without events. It fails with ErrNoGroup,
// ErrStreamExists and ErrTooMany.
func (s *Store) CreateStream(ctx context.Context, scope lambda.Scope, groupName, name string) error {
	err := s.changeStreams(ctx, groupKey{scope, groupName}, func(ctx context.Context, tx *sql.Tx, g *group) (freed int64, err error) {
		var same, all int
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(sum(name = ?), 0), count(*) FROM stream WHERE group_id = ?`, name, g.id).Scan(&same, &all); err != nil {
			return 0, err
		}
		switch {
		case same > 0:
			return 0, ErrStreamExists
		case all >= maxStreams:
			return 0, ErrTooMany
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO stream (group_id, name, first_time, last_time, events, bytes, created, last_seq) VALUES (?, ?, 0, 0, 0, 0, ?, 0)`, g.id, name, time.Now().UnixNano())
		return 0, err
	})
	if err != nil {
		return fmt.Errorf("create log stream %s of %s: %w", name, groupName, err)
	}
	return nil
}

// DeleteStream deletes a stream with its events, those that wait included. It
// fails with ErrNoGroup and ErrNoStream. An event appended later makes it anew.
func (s *Store) DeleteStream(ctx context.Context, scope lambda.Scope, groupName, name string) error {
	key := groupKey{scope, groupName}
	err := s.changeStreams(ctx, key, func(ctx context.Context, tx *sql.Tx, g *group) (freed int64, err error) {
		var stream int64
		err = tx.QueryRowContext(ctx, `DELETE FROM stream WHERE group_id = ? AND name = ? RETURNING id, bytes`, g.id, name).Scan(&stream, &freed)
		if errors.Is(err, sql.ErrNoRows) {
			return 0, ErrNoStream
		}
		if err != nil {
			return 0, err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM chunk WHERE group_id = ? AND stream_id = ?`, g.id, stream); err != nil {
			return 0, err
		}
		_, err = tx.ExecContext(ctx, `UPDATE log_group SET bytes = bytes - ? WHERE id = ?`, freed, g.id)
		return freed, err
	})
	if err != nil {
		return fmt.Errorf("delete log stream %s of %s: %w", name, groupName, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.recent, streamKey{key, name})
	return nil
}

// changeStreams runs f in a transaction, with a group that is there; f returns how
// many of the group's bytes it freed.
func (s *Store) changeStreams(ctx context.Context, key groupKey, f func(context.Context, *sql.Tx, *group) (freed int64, err error)) error {
	if err := s.Flush(ctx); err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	g := s.groups[key]
	s.mu.Unlock()
	if g == nil || g.id == 0 {
		return ErrNoGroup
	}
	var freed int64
	err := s.change(func(ctx context.Context, tx *sql.Tx) (err error) {
		freed, err = f(ctx, tx, g)
		return err
	})
	if err == nil && freed > 0 {
		g.bytes -= freed
		s.shrinking = true
	}
	return err
}

// StreamsQuery asks for streams of one group.
type StreamsQuery struct {
	Scope      lambda.Scope
	Group      string
	Prefix     string
	ByTime     bool // of the last event, instead of by name
	Descending bool
	Cursor     string // StreamInfo.Cursor; "": from the beginning
	Limit      int
}

// Streams lists streams. It fails with ErrNoGroup and ErrCursor.
func (s *Store) Streams(ctx context.Context, q StreamsQuery) (list []StreamInfo, err error) {
	var name string
	var after streamPlace
	if q.Cursor != "" {
		if name, after, err = parseStreamCursor(q.Cursor); err != nil {
			return nil, err
		}
	}
	if err := s.Flush(ctx); err != nil {
		return nil, err
	}
	err = s.read(func(db *database) error {
		id, _, err := db.group(ctx, q.Scope, q.Group)
		if err != nil {
			return err
		}
		where := []string{"group_id = ?", "name >= ?", "name < ?"}
		args := []any{id, q.Prefix, q.Prefix + lastRune}
		direction, beyond := "ASC", ">"
		if q.Descending {
			direction, beyond = "DESC", "<"
		}
		order := "name " + direction
		if q.ByTime {
			order = "last_time " + direction + ", id " + direction
		}
		switch {
		case q.Cursor != "" && q.ByTime:
			where = append(where, "(last_time, id) "+beyond+" (?, ?)")
			args = append(args, after.time, after.id)
		case q.Cursor != "":
			where = append(where, "name "+beyond+" ?")
			args = append(args, name)
		}
		rows, err := db.read.QueryContext(ctx, `SELECT id, name, created, first_time, last_time, last_seq, events, bytes FROM stream WHERE `+strings.Join(where, " AND ")+` ORDER BY `+order+` LIMIT ?`, append(args, q.Limit)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var i StreamInfo
			var created, first, seq int64
			if err := rows.Scan(&i.place.id, &i.Name, &created, &first, &i.place.time, &seq, &i.Events, &i.Bytes); err != nil {
				return err
			}
			i.Created = fromNanos(created)
			if i.Events > 0 {
				i.First, i.Last = fromNanos(first), fromNanos(i.place.time)
			}
			if seq > 0 {
				i.Arrived = arrival(seq)
			}
			list = append(list, i)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list log streams of %s: %w", q.Group, err)
	}
	return list, nil
}

// HasStream fails with ErrNoGroup or ErrNoStream unless the stream is there.
func (s *Store) HasStream(ctx context.Context, scope lambda.Scope, group, name string) error {
	if err := s.Flush(ctx); err != nil {
		return err
	}
	err := s.read(func(db *database) error {
		id, _, err := db.group(ctx, scope, group)
		if err != nil {
			return err
		}
		var there bool
		err = db.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM stream WHERE group_id = ? AND name = ?)`, id, name).Scan(&there)
		if err == nil && !there {
			err = ErrNoStream
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("find log stream %s of %s: %w", name, group, err)
	}
	return nil
}
