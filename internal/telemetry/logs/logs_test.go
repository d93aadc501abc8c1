package logs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"kiln/internal/lambda"
	"kiln/internal/telemetry/logs"
)

var (
	here  = lambda.Scope{Account: lambda.DefaultAccount, Region: lambda.DefaultRegion}
	there = lambda.Scope{Account: "111111111111", Region: lambda.DefaultRegion}
	noon  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func TestMain(m *testing.M) {
	if path := os.Getenv("KILN_TEST_APPEND_TO"); path != "" {
		appendForever(path)
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, cfg logs.Config) *logs.Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "logs.db"), cfg)
}

func openAt(t testing.TB, path string, cfg logs.Config) *logs.Store {
	t.Helper()
	s, err := logs.Open(context.Background(), path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func messages(events []logs.Event) []string {
	list := []string{}
	for _, e := range events {
		list = append(list, e.Message)
	}
	return list
}

// all reads every page of the query.
func all(t testing.TB, s *logs.Store, q logs.Query) (events []logs.Event, follow string) {
	t.Helper()
	for {
		p, err := s.Query(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, p.Events...)
		if p.Next == "" {
			return events, p.Follow
		}
		q.Cursor = p.Next
	}
}

func TestQuery(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{})
	a, b := s.Stream(here, "/aws/lambda/f", "2026/03/01/[1]a"), s.Stream(here, "/aws/lambda/f", "2026/03/01/[1]b")
	at := func(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }
	a.Append(at(1), []byte("one"))
	b.Append(at(3), []byte("three"))
	a.Append(at(2), []byte("two"))
	b.Append(at(3), []byte("three again"))
	a.Append(at(7200), []byte("later"))
	b.Append(at(0), []byte("\x00\xffzero\n"))
	s.Stream(here, "/aws/lambda/g", "x").Append(at(1), []byte("another group"))
	s.Stream(there, "/aws/lambda/f", "x").Append(at(1), []byte("another account"))

	f := logs.Query{Scope: here, Group: "/aws/lambda/f"}
	with := func(change func(*logs.Query)) logs.Query {
		q := f
		change(&q)
		return q
	}
	for _, test := range []struct {
		name string
		q    logs.Query
		want []string
	}{
		{"all", f, []string{"\x00\xffzero\n", "one", "two", "three", "three again", "later"}},
		{"newest first", with(func(q *logs.Query) { q.NewestFirst = true }), []string{"later", "three again", "three", "two", "one", "\x00\xffzero\n"}},
		{"range", with(func(q *logs.Query) { q.Start, q.End = at(2), at(7200) }), []string{"two", "three", "three again"}},
		{"stream", with(func(q *logs.Query) { q.Streams = []string{"2026/03/01/[1]a"} }), []string{"one", "two", "later"}},
		{"no such stream", with(func(q *logs.Query) { q.Streams = []string{"2026/03/01/[1]"} }), []string{}},
		{"prefix", with(func(q *logs.Query) { q.StreamPrefix = "2026/03/01/[1]b" }), []string{"\x00\xffzero\n", "three", "three again"}},
		{"match", with(func(q *logs.Query) { q.Match = func(m []byte) bool { return strings.Contains(string(m), "o") } }), []string{"\x00\xffzero\n", "one", "two"}},
		{"account", with(func(q *logs.Query) { q.Scope = there }), []string{"another account"}},
	} {
		for limit := 1; limit < 8; limit += 3 {
			q := test.q
			q.Limit = limit
			events, _ := all(t, s, q)
			if diff := cmp.Diff(test.want, messages(events)); diff != "" {
				t.Errorf("%s, pages of %d:\n%s", test.name, limit, diff)
			}
		}
	}
	if _, err := s.Query(t.Context(), logs.Query{Scope: here, Group: "none"}); !errors.Is(err, logs.ErrNoGroup) {
		t.Errorf("a group that is not there: %v", err)
	}
	for _, c := range []string{"x", "1-2-3-4", "2-1-1-1-1", "1-1-1-1-!", "1-1-1-1-1-1"} {
		if _, err := s.Query(t.Context(), with(func(q *logs.Query) { q.Cursor = c })); !errors.Is(err, logs.ErrCursor) {
			t.Errorf("cursor %q: %v", c, err)
		}
	}
}

func TestGroupsAndStreams(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{})
	s.Stream(here, "/a/one", "s").Append(noon, []byte("x"))
	two := s.Stream(here, "/a/two", "s1")
	two.Append(noon, []byte("x"))
	s.Stream(here, "/a/two", "s2").Append(noon.Add(time.Second), []byte("x"))
	s.Stream(here, "/a/two", "s2").Append(noon.Add(-time.Second), []byte("the same stream"))
	s.Stream(here, "/b", "s").Append(noon, []byte("x"))
	s.Stream(there, "/a/three", "s").Append(noon, []byte("x"))

	names := func() (list []string) {
		groups, err := s.Groups(t.Context(), logs.GroupsQuery{Scope: here, Prefix: "/a/", Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			list = append(list, g.Name)
			if g.Bytes <= 0 || time.Since(g.Created) > time.Minute {
				t.Errorf("group %+v", g)
			}
		}
		return list
	}
	if diff := cmp.Diff([]string{"/a/one", "/a/two"}, names()); diff != "" {
		t.Error(diff)
	}
	streams, err := s.Streams(t.Context(), logs.StreamsQuery{Scope: here, Group: "/a/two", ByTime: true, Descending: true, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := range streams {
		if i := streams[i]; i.Bytes <= 0 || i.Created.After(i.Arrived) || time.Since(i.Created) > time.Minute || time.Since(i.Arrived) > time.Minute {
			t.Errorf("stream %+v", i)
		}
		streams[i] = logs.StreamInfo{Name: streams[i].Name, First: streams[i].First, Last: streams[i].Last, Events: streams[i].Events}
	}
	want := []logs.StreamInfo{
		{Name: "s2", First: noon.Add(-time.Second), Last: noon.Add(time.Second), Events: 2},
		{Name: "s1", First: noon, Last: noon, Events: 1},
	}
	if diff := cmp.Diff(want, streams, cmpopts.IgnoreUnexported(logs.StreamInfo{})); diff != "" {
		t.Error(diff)
	}

	if err := s.DeleteGroup(t.Context(), here, "/a/two", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteGroup(t.Context(), here, "/a/two", nil); !errors.Is(err, logs.ErrNoGroup) {
		t.Errorf("deleted twice: %v", err)
	}
	if diff := cmp.Diff([]string{"/a/one"}, names()); diff != "" {
		t.Error(diff)
	}
	two.Append(noon, []byte("anew"))
	events, _ := all(t, s, logs.Query{Scope: here, Group: "/a/two"})
	if diff := cmp.Diff([]string{"anew"}, messages(events)); diff != "" {
		t.Error(diff)
	}
}

// Whatever is appended while a reader pages and follows, it reads every event
// once, and each list in the order of time.
func TestCursorNeitherLosesNorRepeats(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "kiln-logs-*")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		s, err := logs.Open(context.Background(), filepath.Join(dir, "logs.db"), logs.Config{FlushInterval: 10 * time.Millisecond})
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		writers := rapid.IntRange(1, 4).Draw(rt, "writers")
		each := rapid.IntRange(1, 100).Draw(rt, "events of each")
		limit := rapid.IntRange(1, 50).Draw(rt, "limit")
		newest := rapid.Bool().Draw(rt, "newest first")
		spread := rapid.Int64Range(1, int64(3*time.Hour)).Draw(rt, "spread")
		size := rapid.IntRange(0, 1000).Draw(rt, "size")
		pause := rapid.IntRange(1, 20).Draw(rt, "events between flushes")

		var wg sync.WaitGroup
		for w := range writers {
			stream := s.Stream(here, "g", fmt.Sprint("stream", w))
			wg.Go(func() {
				for i := range each {
					// Times jump back and forth within the spread.
					when := noon.Add(time.Duration(int64(i) * 7919 * 1e6 % spread))
					stream.Append(when, fmt.Appendf(nil, "%d/%d %s", w, i, strings.Repeat("x", size)))
					if i%pause == 0 { // or all would be there before the first page is read
						_ = s.Flush(context.Background())
					}
				}
			})
		}
		seen := map[string]bool{}
		q := logs.Query{Scope: here, Group: "g", Limit: limit, NewestFirst: newest}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		defer wg.Wait() // before the store is closed
		var last *logs.Event
		for len(seen) < writers*each {
			p, err := s.Query(ctx, q)
			if errors.Is(err, logs.ErrNoGroup) {
				if err := s.Wait(ctx, here, "g", ""); err != nil {
					rt.Fatal(err)
				}
				continue
			}
			if err != nil {
				rt.Fatal(err)
			}
			for _, e := range p.Events {
				id, _, _ := strings.Cut(e.Message, " ")
				if seen[id] {
					rt.Fatalf("event %s came twice", id)
				}
				seen[id] = true
				if last != nil && (newest && e.Time.After(last.Time) || !newest && e.Time.Before(last.Time)) {
					rt.Fatalf("event of %s after that of %s", e.Time, last.Time)
				}
				last = &e
			}
			if q.Cursor = p.Next; q.Cursor == "" {
				last = nil
				q.Cursor = p.Follow
				if len(seen) < writers*each {
					if err := s.Wait(ctx, here, "g", p.Follow); err != nil {
						rt.Fatalf("%d of %d events came: %v", len(seen), writers*each, err)
					}
				}
			}
		}
		p, err := s.Query(ctx, q)
		if err != nil || len(p.Events) != 0 && len(seen) == writers*each {
			rt.Fatalf("after the end: %d events, %v", len(p.Events), err)
		}
	})
}

func TestWait(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{FlushInterval: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx, here, "g", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("nothing there: %v", err)
	}
	done := make(chan error)
	go func() { done <- s.Wait(t.Context(), here, "g", "") }()
	s.Stream(here, "g", "s").Append(noon, []byte("x"))
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Wait(t.Context(), here, "g", ""); err != nil {
		t.Errorf("something is there: %v", err)
	}
	_, follow := all(t, s, logs.Query{Scope: here, Group: "g"})
	if err := s.Wait(ctx, here, "g", follow); !errors.Is(err, context.Canceled) {
		t.Errorf("nothing new: %v", err)
	}
}

func TestLongEventIsCut(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{})
	st := s.Stream(here, "g", "s")
	st.Append(noon, []byte(strings.Repeat("é", lambda.MaxLogEvent/2)))
	st.Append(noon, []byte("x"+strings.Repeat("é", lambda.MaxLogEvent)))
	events, _ := all(t, s, logs.Query{Scope: here, Group: "g"})
	if len(events) != 2 || len(events[0].Message) != lambda.MaxLogEvent {
		t.Fatalf("%d events", len(events))
	}
	m := events[1].Message
	if want := fmt.Sprintf("é [kiln] cut: the event had %d bytes", 2*lambda.MaxLogEvent+1); !strings.HasSuffix(m, want) || len(m) > lambda.MaxLogEvent {
		t.Errorf("%d bytes, ending %q", len(m), m[len(m)-60:])
	}
}

func TestPageIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{QueueBytes: 64 << 20})
	st := s.Stream(here, "g", "s")
	for i := range 10 {
		st.Append(noon.Add(time.Duration(i)), []byte(strings.Repeat("x", 1<<20)))
	}
	p, err := s.Query(t.Context(), logs.Query{Scope: here, Group: "g"})
	if err != nil || len(p.Events) != 1 || p.Next == "" {
		t.Fatalf("%d events, next %q, %v", len(p.Events), p.Next, err)
	}
	if events, _ := all(t, s, logs.Query{Scope: here, Group: "g"}); len(events) != 10 {
		t.Errorf("%d events in all", len(events))
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "with ? and % and #.db")
	s := openAt(t, path, logs.Config{})
	s.Stream(here, "g", "s").Append(noon, []byte("one"))
	_, follow := all(t, s, logs.Query{Scope: here, Group: "g"})
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(path + suffix); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", suffix, info, err)
		}
	}
	s.Stream(here, "g", "s").Append(noon, []byte("two"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Stream(here, "g", "s").Append(noon, []byte("after close")) // is dropped
	if got := s.Stats().DroppedEvents; got != 1 {
		t.Errorf("%d dropped", got)
	}
	if _, err := s.Query(t.Context(), logs.Query{Scope: here, Group: "g"}); err == nil {
		t.Error("a closed store answers")
	}
	s = openAt(t, path, logs.Config{})
	s.Stream(here, "g", "s").Append(noon, []byte("three"))
	for cursor, want := range map[string][]string{"": {"one", "two", "three"}, follow: {"two", "three"}} {
		events, _ := all(t, s, logs.Query{Scope: here, Group: "g", Cursor: cursor})
		if diff := cmp.Diff(want, messages(events)); diff != "" {
			t.Error(diff)
		}
	}
}
