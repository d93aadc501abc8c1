package logs_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kiln/internal/telemetry/logs"
)

func names(t *testing.T, s *logs.Store, q logs.StreamsQuery) (list []string) {
	t.Helper()
	q.Scope, q.Group = here, "g"
	for {
		page, err := s.Streams(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range page {
			list = append(list, i.Name)
		}
		if len(page) < q.Limit {
			return list
		}
		q.Cursor = page[len(page)-1].Cursor()
	}
}

// Whoever creates and puts is told what is there and what is not, and everything
// outlives a restart.
func TestCreateAndPut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "logs.db")
	s := openAt(t, path, logs.Config{})
	ctx := t.Context()
	entry := []logs.Entry{{Time: noon, Message: "x"}}
	settings := logs.Settings{RetentionDays: 3653, Class: "STANDARD", KMSKey: "k", Protected: true, Tags: map[string]string{"a": "b"}}
	for i, step := range []struct{ got, want error }{
		{s.Put(ctx, here, "g", "s", entry), logs.ErrNoGroup},
		{s.CreateStream(ctx, here, "g", "s"), logs.ErrNoGroup},
		{s.DeleteStream(ctx, here, "g", "s"), logs.ErrNoGroup},
		{s.HasStream(ctx, here, "g", "s"), logs.ErrNoGroup},
		{s.ChangeGroup(ctx, here, "g", func(*logs.Settings) error { return nil }), logs.ErrNoGroup},
		{s.DeleteGroup(ctx, here, "g", nil), logs.ErrNoGroup},
		{s.CreateGroup(ctx, here, "g", settings), nil},
		{s.CreateGroup(ctx, here, "g", settings), logs.ErrGroupExists},
		{s.CreateGroup(ctx, there, "g", logs.Settings{}), nil},
		{s.Put(ctx, here, "g", "s", entry), logs.ErrNoStream},
		{s.DeleteStream(ctx, here, "g", "s"), logs.ErrNoStream},
		{s.CreateStream(ctx, here, "g", "s"), nil},
		{s.CreateStream(ctx, here, "g", "s"), logs.ErrStreamExists},
		{s.Put(ctx, there, "g", "s", entry), logs.ErrNoStream},
		{s.Put(ctx, here, "g", "s", entry), nil},
		{s.CreateStream(ctx, here, "g", "gone"), nil},
		{s.Put(ctx, here, "g", "gone", entry), nil},
		{s.DeleteStream(ctx, here, "g", "gone"), nil},
		{s.Put(ctx, here, "g", "gone", entry), logs.ErrNoStream},
		{s.DeleteGroup(ctx, here, "g", func(logs.Settings) error { return logs.ErrBusy }), logs.ErrBusy},
	} {
		if !errors.Is(step.got, step.want) {
			t.Errorf("step %d: %v, want %v", i, step.got, step.want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, path, logs.Config{})
	g, err := s.Group(ctx, here, "g")
	if err != nil || time.Since(g.Created) > time.Minute || g.Bytes <= 0 {
		t.Errorf("%+v, %v", g, err)
	}
	if diff := cmp.Diff(settings, g.Settings); diff != "" {
		t.Error(diff)
	}
	if err := s.Put(ctx, here, "g", "s", entry); err != nil {
		t.Error(err)
	}
	events, _ := all(t, s, logs.Query{Scope: here, Group: "g"})
	if len(events) != 2 || time.Since(events[0].Arrived()) > time.Minute || time.Since(events[0].Arrived()) < 0 {
		t.Errorf("%+v", events)
	}
	if err := s.DeleteGroup(ctx, here, "g", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, here, "g", "s", entry); !errors.Is(err, logs.ErrNoGroup) {
		t.Errorf("after the group was deleted: %v", err)
	}
}

func TestStreamsAreListed(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{})
	if err := s.CreateGroup(t.Context(), here, "g", logs.Settings{}); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"b2", "a", "b1", "c"} {
		if err := s.CreateStream(t.Context(), here, "g", name); err != nil {
			t.Fatal(err)
		}
		if name != "c" { // which stays empty
			if err := s.Put(t.Context(), here, "g", name, []logs.Entry{{Time: noon.Add(time.Duration(i) * time.Hour), Message: "x"}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for limit := 1; limit < 6; limit++ {
		for want, q := range map[string]logs.StreamsQuery{
			"a b1 b2 c": {},
			"c b2 b1 a": {Descending: true},
			"b1 b2":     {Prefix: "b"},
			"c b2 a b1": {ByTime: true},
			"b1 a b2 c": {ByTime: true, Descending: true},
		} {
			q.Limit = limit
			if got := strings.Join(names(t, s, q), " "); got != want {
				t.Errorf("%+v: got %s, want %s", q, got, want)
			}
		}
	}
}

func TestStreamCursors(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{})
	s.Stream(here, "g", "s").Append(noon, []byte("x"))
	for _, c := range []string{"x", "1-2-3", "2-1-1-s", "1-!-1-s", "1-1-!-s"} {
		if _, err := s.Streams(t.Context(), logs.StreamsQuery{Scope: here, Group: "g", Limit: 1, Cursor: c}); !errors.Is(err, logs.ErrCursor) {
			t.Errorf("cursor %q: %v", c, err)
		}
	}
}

// Everybody who put something is answered for it, whoever wrote it.
func TestConcurrentPuts(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{})
	if err := s.CreateGroup(t.Context(), here, "g", logs.Settings{}); err != nil {
		t.Fatal(err)
	}
	const writers, puts, each = 8, 20, 10
	var wg sync.WaitGroup
	for w := range writers {
		stream := fmt.Sprint("s", w%4)
		if err := s.CreateStream(t.Context(), here, "g", stream); err != nil && !errors.Is(err, logs.ErrStreamExists) {
			t.Fatal(err)
		}
		wg.Go(func() {
			for p := range puts {
				var list []logs.Entry
				for e := range each {
					list = append(list, logs.Entry{Time: noon, Message: fmt.Sprint(w, " ", p, " ", e)})
				}
				if err := s.Put(t.Context(), here, "g", stream, list); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	events, _ := all(t, s, logs.Query{Scope: here, Group: "g"})
	seen := map[string]bool{}
	for _, e := range events {
		seen[e.Message] = true
	}
	if len(events) != writers*puts*each || len(seen) != len(events) {
		t.Errorf("%d events, %d different", len(events), len(seen))
	}
	if n := s.Chunks(); n > 20 {
		t.Errorf("%d puts made %d chunks", writers*puts, n)
	}
}

// Whatever is done at once to a few groups, no error is a surprise, nothing hangs,
// and in the end every count is right.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{GroupBytes: 200_000, TotalBytes: 300_000, FlushInterval: time.Millisecond})
	expected := []error{logs.ErrNoGroup, logs.ErrNoStream, logs.ErrGroupExists, logs.ErrStreamExists, logs.ErrBusy}
	ctx := t.Context()
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1))
			for range 150 {
				group, stream := fmt.Sprint("g", random.IntN(3)), fmt.Sprint("s", random.IntN(3))
				age := time.Duration(random.IntN(60)) * time.Hour
				entry := []logs.Entry{{Time: time.Now().Add(-age), Message: string(noise(random.IntN(20_000)))}}
				var err error
				switch random.IntN(12) {
				case 0:
					err = s.CreateGroup(ctx, here, group, logs.Settings{})
				case 1:
					if random.IntN(5) > 0 {
						continue // what is counted must have time to go wrong
					}
					err = s.DeleteGroup(ctx, here, group, nil)
				case 2, 3:
					err = s.CreateStream(ctx, here, group, stream)
				case 4:
					err = s.DeleteStream(ctx, here, group, stream)
				case 5:
					err = s.ChangeGroup(ctx, here, group, func(g *logs.Settings) error { g.RetentionDays = random.IntN(3); return nil })
				case 6:
					s.Stream(here, group, stream).Append(entry[0].Time, []byte(entry[0].Message))
				case 7:
					_, err = s.Query(ctx, logs.Query{Scope: here, Group: group})
				case 8:
					_, err = s.Streams(ctx, logs.StreamsQuery{Scope: here, Group: group, Limit: 10, ByTime: true})
				default:
					err = s.Put(ctx, here, group, stream, entry)
				}
				known := err == nil
				for _, e := range expected {
					known = known || errors.Is(err, e)
				}
				if !known {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Miscounted(); err != nil || len(list) > 0 {
		t.Errorf("%v\n%s", err, strings.Join(list, "\n"))
	}
}

// What could not be written is told to who put it, and not to the stream.
func TestPutThatFails(t *testing.T) {
	t.Parallel()
	full := false
	s := open(t, logs.Config{QueueBytes: 1 << 20, Full: func() bool { return full }})
	ctx := t.Context()
	if err := errors.Join(s.CreateGroup(ctx, here, "g", logs.Settings{}), s.CreateStream(ctx, here, "g", "s")); err != nil {
		t.Fatal(err)
	}
	put := func(message string) error {
		return s.Put(ctx, here, "g", "s", []logs.Entry{{Time: noon, Message: message}})
	}
	if err := put(strings.Repeat("x", 1<<20)); !errors.Is(err, logs.ErrBusy) {
		t.Errorf("more than there is room for: %v", err)
	}
	full = true
	if err := put("x"); !errors.Is(err, logs.ErrFull) {
		t.Errorf("on a full disk: %v", err)
	}
	full = false
	if err := put("first"); err != nil {
		t.Fatal(err)
	}
	_, used := s.Pages()
	pages, _ := s.Pages()
	if err := s.LimitPages(pages - used + 2); err != nil {
		t.Fatal(err)
	}
	if err := put(string(noise(300_000))); err == nil {
		t.Error("the database is full, and events were taken")
	}
	if err := s.LimitPages(0); err != nil {
		t.Fatal(err)
	}
	if err := put("last"); err != nil {
		t.Fatal(err)
	}
	events, _ := all(t, s, logs.Query{Scope: here, Group: "g"})
	if diff := cmp.Diff([]string{"first", "last"}, messages(events)); diff != "" {
		t.Error(diff)
	}
}

// What is older than the retention is gone: at once from every answer, and soon
// from the disk.
func TestRetention(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{})
	now := time.Now()
	for stream, age := range map[string]time.Duration{"old": 50 * time.Hour, "both": 49 * time.Hour, "young": time.Hour} {
		s.Stream(here, "g", stream).Append(now.Add(-age), []byte(stream))
	}
	s.Stream(here, "g", "both").Append(now, []byte("both, young"))
	edge := s.Stream(here, "g", "edge") // one chunk, of which the younger half is kept
	edge.Append(now.Add(-48*time.Hour-3*time.Minute), []byte("edge, old"))
	edge.Append(now.Add(-48*time.Hour+3*time.Minute), []byte("edge, young"))
	s.Stream(here, "other", "old").Append(now.Add(-1000*time.Hour), []byte("x"))
	retain := func(days int) {
		t.Helper()
		if err := s.ChangeGroup(t.Context(), here, "g", func(g *logs.Settings) error { g.RetentionDays = days; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want, streams string) {
		t.Helper()
		events, _ := all(t, s, logs.Query{Scope: here, Group: "g"})
		if got := strings.Join(messages(events), " "); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := strings.Join(names(t, s, logs.StreamsQuery{Limit: 10}), " "); got != streams {
			t.Errorf("streams %s, want %s", got, streams)
		}
	}
	check("old both edge, old edge, young young both, young", "both edge old young")
	retain(3)
	check("old both edge, old edge, young young both, young", "both edge old young")
	before, err := s.Group(t.Context(), here, "g")
	if err != nil {
		t.Fatal(err)
	}
	retain(2)
	check("edge, young young both, young", "both edge young")
	retain(0) // the rest of a chunk is shown again
	check("edge, old edge, young young both, young", "both edge young")
	if after, err := s.Group(t.Context(), here, "g"); err != nil || after.Bytes >= before.Bytes || after.Bytes <= 0 {
		t.Errorf("%d bytes, then %d, %v", before.Bytes, after.Bytes, err)
	}
	if events, _ := all(t, s, logs.Query{Scope: here, Group: "other"}); len(events) != 1 {
		t.Error("a group without retention lost something")
	}
}

// A database of the schema before is read and goes on being used.
func TestMigration(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "logs.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`
		CREATE TABLE log_group (id INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, created INTEGER NOT NULL, bytes INTEGER NOT NULL DEFAULT 0, UNIQUE (account, region, name)) STRICT;
		CREATE TABLE stream (id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER NOT NULL, name TEXT NOT NULL, first_time INTEGER NOT NULL, last_time INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL, UNIQUE (group_id, name)) STRICT;
		CREATE TABLE chunk (id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER NOT NULL, stream_id INTEGER NOT NULL, first_time INTEGER NOT NULL, last_time INTEGER NOT NULL, last_seq INTEGER NOT NULL, base_time INTEGER NOT NULL, base_seq INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL, data BLOB NOT NULL) STRICT;
		CREATE INDEX chunk_time ON chunk (group_id, first_time);
		CREATE INDEX chunk_seq ON chunk (group_id, last_seq);
		INSERT INTO log_group (account, region, name, created, bytes) VALUES ('000000000000', 'us-east-1', 'g', 1, 0);
		INSERT INTO stream (group_id, name, first_time, last_time, events, bytes) VALUES (1, 's', 1000000, 1000000, 1, 10);
		INSERT INTO chunk (group_id, stream_id, first_time, last_time, last_seq, base_time, base_seq, events, bytes, data) VALUES (1, 1, 1000000, 1000000, 5000000, 1000000, 5000000, 1, 10, x'28b52ffd0400210000000003666f6f');
		PRAGMA user_version = 1`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, path, logs.Config{})
	list, err := s.Streams(t.Context(), logs.StreamsQuery{Scope: here, Group: "g", Limit: 10})
	if err != nil || len(list) != 1 || list[0].Arrived.Unix() != 5 || list[0].Created.UnixMilli() != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := s.Put(t.Context(), here, "g", "s", []logs.Entry{{Time: noon, Message: "new"}}); err != nil {
		t.Error(err)
	}
	if g, err := s.Group(t.Context(), here, "g"); err != nil || g.RetentionDays != 0 || g.Tags != nil {
		t.Errorf("%+v, %v", g, err)
	}
}

// A page ends although its filter found nothing, and the next goes on.
func TestPageEndsAfterMuchThatDoesNotMatch(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{QueueBytes: 64 << 20})
	line := strings.Repeat("x", 250_000)
	st := s.Stream(here, "g", "s")
	const lines = 600 // 150 MB of them
	for i := range lines {
		st.Append(noon.Add(time.Duration(i)*time.Hour), []byte(line+fmt.Sprint(i)))
		if i%50 == 0 {
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, newest := range []bool{false, true} {
		q := logs.Query{Scope: here, Group: "g", NewestFirst: newest, Match: func(m []byte) bool {
			return strings.HasSuffix(string(m), "x7") || strings.HasSuffix(string(m), "x599")
		}}
		pages, events := 0, 0
		for {
			p, err := s.Query(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			events += len(p.Events)
			if q.Cursor = p.Next; q.Cursor == "" {
				break
			}
		}
		if pages < 3 || pages > 4 || events != 2 {
			t.Errorf("newest first %t: %d events in %d pages", newest, events, pages)
		}
	}
}
