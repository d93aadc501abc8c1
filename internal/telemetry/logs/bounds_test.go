package logs_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/telemetry/logs"
)

// noise does not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func TestFloodIsCutAndSaysSo(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{QueueBytes: 4 << 20})
	quiet, flood := s.Stream(here, "quiet", "s"), s.Stream(here, "flood", "s")
	line := []byte(strings.Repeat("x", 1000))
	release := s.HoldWriter()
	var appended int64
	for range 100_000 { // 100 MB while nothing can be written
		flood.Append(noon, line)
		appended++
		if appended%1000 == 0 {
			quiet.Append(noon, line)
		}
	}
	if got := s.Stats().QueuedBytes; got > 4<<20 {
		t.Errorf("%d bytes are queued", got)
	}
	release()
	if events, _ := all(t, s, logs.Query{Scope: here, Group: "quiet"}); len(events) != 100 {
		t.Errorf("the quiet function has %d of its 100 events", len(events))
	}
	flood.Append(noon, []byte("the end"))
	events, _ := all(t, s, logs.Query{Scope: here, Group: "flood"})
	kept := int64(len(events) - 2)
	said := events[kept].Message
	want := fmt.Sprintf("[kiln] %d log events (%d bytes) were dropped: they came faster than they could be written", appended-kept, (appended-kept)*1000)
	if said != want || kept < 1000 {
		t.Errorf("kept %d, said %q, want %q", kept, said, want)
	}
	if st := s.Stats(); st.DroppedEvents != appended-kept || st.QueuedBytes != 0 {
		t.Errorf("%+v", st)
	}
}

func TestOldestGoFirst(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{GroupBytes: 1 << 20, TotalBytes: 2 << 20, QueueBytes: 64 << 20})
	fill := func(group string, n int) {
		for i := range n {
			s.Stream(here, group, fmt.Sprint("stream", i/10)).Append(noon.Add(time.Duration(i)*time.Second), append(fmt.Appendf(nil, "%d ", i), noise(20_000)...))
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill("quiet", 5)
	fill("chatty", 200)
	check := func(group string, last, least, most int) {
		t.Helper()
		events, _ := all(t, s, logs.Query{Scope: here, Group: group})
		if len(events) < least || len(events) > most {
			t.Fatalf("%s: %d events are left", group, len(events))
		}
		for i, e := range events {
			if n, _, _ := strings.Cut(e.Message, " "); n != fmt.Sprint(last+1-len(events)+i) {
				t.Fatalf("%s: event %d is %s", group, i, n)
			}
		}
	}
	check("quiet", 4, 5, 5)
	check("chatty", 199, 48, 52)
	streams, err := s.Streams(t.Context(), logs.StreamsQuery{Scope: here, Group: "chatty", Limit: 100})
	if err != nil || len(streams) > 6 {
		t.Errorf("%d streams are left, %v", len(streams), err)
	}
	fill("another", 49)
	fill("third", 49)
	check("quiet", 4, 5, 5)
	check("chatty", 199, 20, 40)
	check("another", 48, 20, 40)
	check("third", 48, 20, 40)
	groups, err := s.Groups(t.Context(), logs.GroupsQuery{Scope: here, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, g := range groups {
		total += g.Bytes
	}
	if total > 2<<20 || s.Stats().Evicted == 0 {
		t.Errorf("%d bytes are kept; %+v", total, s.Stats())
	}
}

func TestFreedSpaceIsGivenBack(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{QueueBytes: 64 << 20, FlushInterval: time.Millisecond})
	for range 25 {
		s.Stream(here, "g", "s").Append(noon, noise(1<<20))
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, _ := s.Pages(); n < 6000 {
		t.Fatalf("%d pages", n)
	}
	if err := s.DeleteGroup(t.Context(), here, "g", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { n, _ := s.Pages(); return n < 2100 })
}

// eventually waits for what another goroutine will make true.
func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come true in 20 s")
		}
	}
}

func TestSmallWritesShareChunks(t *testing.T) {
	t.Parallel()
	s := open(t, logs.Config{})
	st := s.Stream(here, "g", "s")
	for i := range 500 {
		st.Append(noon.Add(time.Duration(i)*time.Millisecond), fmt.Appendf(nil, "line %d", i))
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Chunks(); n > 3 {
		t.Errorf("%d chunks", n)
	}
	events, _ := all(t, s, logs.Query{Scope: here, Group: "g"})
	for i, e := range events {
		if e.Message != fmt.Sprint("line ", i) || !e.Time.Equal(noon.Add(time.Duration(i)*time.Millisecond)) {
			t.Fatalf("event %d: %+v", i, e)
		}
	}
	if len(events) != 500 {
		t.Errorf("%d events", len(events))
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	t.Run("database", func(t *testing.T) {
		s := open(t, logs.Config{})
		if err := s.LimitPages(100); err != nil {
			t.Fatal(err)
		}
		testFullDisk(t, s, func() { _ = s.LimitPages(0) })
	})
	t.Run("floor", func(t *testing.T) {
		var full atomic.Bool
		full.Store(true)
		s := open(t, logs.Config{Full: full.Load})
		testFullDisk(t, s, func() { full.Store(false) })
	})
}

func testFullDisk(t *testing.T, s *logs.Store, free func()) {
	st := s.Stream(here, "g", "s")
	for range 3 {
		st.Append(noon, noise(1<<20))
		_ = s.Flush(t.Context()) // fails, unless the writing goroutine came first and did
	}
	if st := s.Stats(); st.DroppedEvents != 3 || st.DroppedBytes != 3<<20 || st.Failures != 3 || st.QueuedBytes != 0 {
		t.Errorf("%+v", st)
	}
	free()
	st.Append(noon, []byte("again"))
	events, _ := all(t, s, logs.Query{Scope: here, Group: "g"})
	want := []string{"[kiln] 3 log events (3145728 bytes) were dropped: the disk is full or failing", "again"}
	if len(events) != 2 || !(events[0].Message == want[1] && events[1].Message == want[0] || events[0].Message == want[0]) {
		t.Errorf("%q", messages(events))
	}
}

func TestDamagedFileIsPutAside(t *testing.T) {
	t.Parallel()
	// A database with enough in it for every kind of page.
	healthy := filepath.Join(t.TempDir(), "logs.db")
	s := openAt(t, healthy, logs.Config{QueueBytes: 64 << 20})
	for i := range 100 {
		s.Stream(here, fmt.Sprint("g", i%10), fmt.Sprint("s", i)).Append(noon, noise(10_000))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(healthy)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"no database": func([]byte) []byte {
			return []byte("this is not a database, but long enough to look like one: " + strings.Repeat("x", 5000))
		},
		"cut off":      func(b []byte) []byte { return b[:5000] },
		"zeroed":       func(b []byte) []byte { clear(b[4096 : len(b)/2]); return b },
		"random bytes": func(b []byte) []byte { copy(b[8192:], noise(len(b)/2)); return b },
		"first page":   func(b []byte) []byte { copy(b[100:4096], noise(4000)); return b },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "logs.db")
			if err := os.WriteFile(path, damage(bytes.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			s := openAt(t, path, logs.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
			// Damage may show only when it is touched; then the next write finds a new file.
			for range 3 {
				s.Stream(here, "g1", "s").Append(noon, []byte("new"))
				_ = s.Flush(t.Context())
				_, _ = s.Query(t.Context(), logs.Query{Scope: here, Group: "g1"})
			}
			s.Stream(here, "g1", "s").Append(noon, []byte("newer"))
			events, _ := all(t, s, logs.Query{Scope: here, Group: "g1"})
			if len(events) == 0 || events[len(events)-1].Message != "newer" {
				t.Errorf("%q; log: %s", messages(events), log.String())
			}
			if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) == 0 || !strings.Contains(log.String(), "put aside") {
				t.Errorf("put aside: %v; log: %s", aside, log.String())
			}
		})
	}
}

func TestDamageWhileOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "logs.db")
	s := openAt(t, path, logs.Config{})
	before := s.Stream(here, "before", "s")
	for i := range 50 {
		s.Stream(here, fmt.Sprint("g", i), "s").Append(noon, noise(10_000))
	}
	before.Append(noon, []byte("x"))
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		f, err := os.OpenFile(path+suffix, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(noise(2<<20), 100); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	eventually(t, func() bool {
		_, _ = s.Query(t.Context(), logs.Query{Scope: here, Group: "g7"})
		aside, _ := filepath.Glob(path + ".damaged-*")
		return len(aside) > 0
	})
	// The new database numbers its chunks from the beginning: a stream that had
	// an open chunk in the old one must not write into another's.
	for i := range 60 {
		s.Stream(here, "after", "s").Append(noon, fmt.Append(nil, i))
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before.Append(noon, []byte("y"))
	if events, _ := all(t, s, logs.Query{Scope: here, Group: "before"}); len(events) != 1 || events[0].Message != "y" {
		t.Errorf("%q", messages(events))
	}
	if events, _ := all(t, s, logs.Query{Scope: here, Group: "after"}); len(events) != 60 {
		t.Errorf("%q", messages(events))
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "logs.db")
	s := openAt(t, path, logs.Config{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[63] = 99 // user_version is bytes 60 to 63 of the header
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := logs.Open(t.Context(), path, logs.Config{}); err == nil || !strings.Contains(err.Error(), "newer Kiln") {
		t.Error(err)
	}
}

// appendForever is what TestKill's child does.
func appendForever(path string) {
	s, err := logs.Open(context.Background(), path, logs.Config{FlushInterval: 5 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	st := s.Stream(here, "g", "s")
	for i := 0; ; i++ {
		st.Append(time.Now(), fmt.Appendf(nil, "%d", i))
		if i%100 == 0 {
			if err := s.Flush(context.Background()); err != nil {
				panic(err)
			}
			fmt.Println(i)
		}
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "logs.db")
	for range 5 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "KILN_TEST_APPEND_TO="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		var flushed int
		for range 20 {
			if _, err := fmt.Fscanln(out, &flushed); err != nil {
				t.Fatal(err)
			}
		}
		_ = child.Process.Kill()
		_ = child.Wait()
		s := openAt(t, path, logs.Config{})
		events, _ := all(t, s, logs.Query{Scope: here, Group: "g"})
		for i, e := range events {
			if e.Message != fmt.Sprint(i) {
				t.Fatalf("event %d is %s", i, e.Message)
			}
		}
		if len(events) <= flushed {
			t.Errorf("%d events are left of %d flushed", len(events), flushed+1)
		}
		if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) > 0 {
			t.Errorf("put aside: %v", aside)
		}
		if err := s.DeleteGroup(t.Context(), here, "g", nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, logs.Config{})
	st := s.Stream(here, "g", "s")
	line := []byte("2026-03-01T12:00:00.000Z 6bc28136-xmpl-4365-b021-0ce6b2e64ab0 INFO handled the order in 12 ms")
	b.ReportAllocs()
	for b.Loop() {
		st.Append(noon, line)
	}
	st2 := s.Stats()
	b.ReportMetric(100*float64(st2.DroppedEvents)/float64(st2.Events), "%dropped")
}

// BenchmarkKeep counts lines from Append to committed.
func BenchmarkKeep(b *testing.B) {
	s := open(b, logs.Config{})
	st := s.Stream(here, "g", "s")
	i := 0
	for b.Loop() {
		st.Append(noon.Add(time.Duration(i)*time.Millisecond), fmt.Appendf(nil, "2026-03-01T12:00:00.000Z\t%s\tINFO\thandled order %d", lambda.RequestID("6bc28136-aaaa-4365-b021-0ce6b2e64ab0"), i))
		if i++; i%10_000 == 0 {
			_ = s.Flush(b.Context())
		}
	}
	_ = s.Flush(b.Context())
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
	if d := s.Stats().DroppedEvents; d > 0 {
		b.Errorf("%d dropped", d)
	}
}

func BenchmarkFilter20000(b *testing.B) {
	s := open(b, logs.Config{})
	st := s.Stream(here, "g", "s")
	for i := range 20_000 {
		st.Append(noon.Add(time.Duration(i)*time.Millisecond), fmt.Appendf(nil, "2026-03-01T12:00:00.000Z\tINFO\thandled order %d", i))
	}
	q := logs.Query{Scope: here, Group: "g", Match: func(m []byte) bool { return bytes.HasSuffix(m, []byte("77")) }}
	for b.Loop() {
		if p, err := s.Query(b.Context(), q); err != nil || len(p.Events) != 200 {
			b.Fatal(len(p.Events), err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "logs.db")
	s := openAt(b, path, logs.Config{QueueBytes: 64 << 20})
	for i := range 1000 {
		s.Stream(here, fmt.Sprint("g", i), "s").Append(noon, noise(10_000))
	}
	_ = s.Close()
	for b.Loop() {
		s, err := logs.Open(b.Context(), path, logs.Config{})
		if err != nil {
			b.Fatal(err)
		}
		_ = s.Close()
	}
}
