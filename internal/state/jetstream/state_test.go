package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

func commit(t testing.TB, s *jetstream.State, changes ...state.Change) []state.Revision {
	t.Helper()
	revisions, err := s.Commit(context.Background(), changes...)
	if err != nil {
		t.Fatal(err)
	}
	return revisions
}

func all(t testing.TB, s *jetstream.State, prefix string) map[string]string {
	t.Helper()
	records, err := s.All(context.Background(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range records {
		got[r.Key] = string(r.Value)
	}
	if len(got) != len(records) {
		t.Errorf("a key appears twice in %v", records)
	}
	return got
}

func TestCommitAndRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	s := e.State()
	a := commit(t, s, state.Change{Key: "function.1.eu.a.$LATEST", Value: []byte("1")})
	b := commit(t, s,
		state.Change{Key: "function.1.eu.a.$LATEST", Value: []byte("2"), Expect: a[0]},
		state.Change{Key: "function.1.eu.ab.$LATEST", Value: []byte{}},
		state.Change{Key: "alias.1.eu.a", Value: []byte("x")})
	if len(b) != 3 || b[0] <= a[0] || b[1] <= b[0] || b[2] <= b[1] {
		t.Errorf("revisions %v after %v", b, a)
	}
	want := map[string]string{"function.1.eu.a.$LATEST": "2", "function.1.eu.ab.$LATEST": ""}
	for range 2 {
		for _, prefix := range []string{"function", "function.", "function.1.eu.a", "funct"} {
			if diff := cmp.Diff(want, all(t, s, prefix)); diff != "" {
				t.Errorf("prefix %q: %s", prefix, diff)
			}
		}
		if got := all(t, s, "function.1.eu.a."); len(got) != 1 {
			t.Errorf("prefix with its dot: %v", got)
		}
		if got := all(t, s, ""); len(got) != 3 {
			t.Errorf("all: %v", got)
		}
		if got := all(t, s, "x.y"); len(got) != 0 {
			t.Errorf("nothing: %v", got)
		}
		closeEngine(t, e)
		e = open(t, dir)
		s = e.State()
	}
	if got := commit(t, s, state.Change{Key: "alias.1.eu.a", Expect: b[2]}); got[0] != 0 {
		t.Errorf("a deleted record has revision %d", got[0])
	}
	if got := all(t, s, "alias"); len(got) != 0 {
		t.Errorf("deleted: %v", got)
	}
	commit(t, s, state.Change{Key: "alias.1.eu.a", Value: []byte("again")})
}

func TestConflicts(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir()).State()
	a := commit(t, s, state.Change{Key: "k.a", Value: []byte("1")})[0]
	b := commit(t, s, state.Change{Key: "k.b", Value: []byte("1")})[0]
	before := all(t, s, "")
	for name, changes := range map[string][]state.Change{
		"exists":         {{Key: "k.a", Value: []byte("2")}},
		"does not exist": {{Key: "k.c", Value: []byte("2"), Expect: 1}},
		"changed":        {{Key: "k.a", Value: []byte("2"), Expect: a + 100}},
		"delete changed": {{Key: "k.a", Expect: b}},
		"last of batch":  {{Key: "k.a", Value: []byte("2"), Expect: a}, {Key: "k.d", Value: []byte("2")}, {Key: "k.b", Expect: a}},
		"first of batch": {{Key: "k.b", Expect: a}, {Key: "k.a", Value: []byte("2"), Expect: a}},
		"batch exists":   {{Key: "k.b", Value: []byte("2")}, {Key: "k.c", Value: []byte("2")}},
	} {
		if _, err := s.Commit(context.Background(), changes...); !errors.Is(err, state.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, all(t, s, "")); diff != "" {
		t.Errorf("a conflict changed something: %s", diff)
	}
}

func TestKeysAreChecked(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir()).State()
	ctx := context.Background()
	for _, key := range []string{"", ".", "a..b", ".a", "a.", "a.*", "a.>", "a b", "a.\tb", "a.ü", "a/b", "a:b", strings.Repeat("k", 1025)} {
		if _, err := s.Commit(ctx, state.Change{Key: key, Value: []byte("x")}); err == nil || errors.Is(err, state.ErrConflict) {
			t.Errorf("commit of %q: %v", key, err)
		}
	}
	for _, prefix := range []string{".", "*", "a.*", "a..", "a b"} {
		if _, err := s.All(ctx, prefix); err == nil {
			t.Errorf("prefix %q was accepted", prefix)
		}
	}
	long := strings.Repeat("k", 1024)
	commit(t, s, state.Change{Key: long, Value: []byte("x")})
	if got := all(t, s, long); len(got) != 1 {
		t.Error("the longest key is not found")
	}
	if _, err := s.Commit(ctx, state.Change{Key: "a", Value: []byte("x")}, state.Change{Key: "a", Value: []byte("y")}); err == nil {
		t.Error("one key twice in a commit was accepted")
	}
	if _, err := s.Commit(ctx, state.Change{Key: "a", Value: make([]byte, 9<<20)}); err == nil || !strings.Contains(err.Error(), "8388608") {
		t.Errorf("a value above the limit: %v", err)
	}
	if _, err := s.Commit(ctx); err != nil {
		t.Errorf("an empty commit: %v", err)
	}
	changes := make([]state.Change, jetstream.MaxChanges+1)
	for i := range changes {
		changes[i] = state.Change{Key: fmt.Sprint("many.", i), Value: []byte("x")}
	}
	if _, err := s.Commit(ctx, changes...); err == nil {
		t.Error("too many changes were accepted")
	}
	commit(t, s, changes[:jetstream.MaxChanges]...)
	if got := all(t, s, "many"); len(got) != jetstream.MaxChanges {
		t.Errorf("%d records of the largest commit", len(got))
	}
}

// More than a page of records, some large.
func TestReadPages(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir()).State()
	want := map[string]string{}
	for i := range 3 {
		var changes []state.Change
		for j := range 600 {
			key := fmt.Sprintf("r.%d.%d", i, j)
			want[key] = key
			changes = append(changes, state.Change{Key: key, Value: []byte(key)})
		}
		commit(t, s, changes...)
		large := fmt.Sprintf("r.%d.large", i)
		want[large] = strings.Repeat("x", 3<<20)
		commit(t, s, state.Change{Key: large, Value: []byte(want[large])})
	}
	if diff := cmp.Diff(want, all(t, s, "r")); diff != "" {
		t.Error(diff)
	}
}

// Deleting and creating again leaves neither markers nor wrong conflicts.
func TestRecreate(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir()).State()
	for i := range 50 {
		value := []byte(fmt.Sprint(i))
		r := commit(t, s, state.Change{Key: "k.a", Value: value}, state.Change{Key: "k.b", Value: value})
		if i%2 == 0 {
			commit(t, s, state.Change{Key: "k.a", Expect: r[0]}, state.Change{Key: "k.b", Expect: r[1]})
		} else {
			commit(t, s, state.Change{Key: "k.a", Expect: r[0]})
			commit(t, s, state.Change{Key: "k.b", Expect: r[1]})
		}
	}
	if got := all(t, s, ""); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// Writers count in several records at once; each sum shows whether a commit was
// lost or made in part, and readers must never see a part.
func TestConcurrentCommits(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir()).State()
	ctx := context.Background()
	const writers, rounds = 6, 10
	commit(t, s, state.Change{Key: "n.a", Value: []byte("0")}, state.Change{Key: "n.b", Value: []byte("0")})
	var running sync.WaitGroup
	var done atomic.Bool
	for range writers {
		running.Go(func() {
			for made := 0; made < rounds; {
				records, err := s.All(ctx, "n")
				if err != nil || len(records) != 2 {
					t.Errorf("read %v, %v", records, err)
					return
				}
				var n int
				fmt.Sscan(string(records[0].Value), &n)
				next := []byte(fmt.Sprint(n + 1))
				_, err = s.Commit(ctx, state.Change{Key: records[0].Key, Value: next, Expect: records[0].Revision},
					state.Change{Key: records[1].Key, Value: next, Expect: records[1].Revision})
				if err == nil {
					made++
				} else if !errors.Is(err, state.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		for !done.Load() {
			if got := all(t, s, "n"); got["n.a"] != got["n.b"] {
				t.Errorf("half a commit: %v", got)
			}
		}
	})
	running.Wait()
	done.Store(true)
	reader.Wait()
	want := fmt.Sprint(writers * rounds)
	if diff := cmp.Diff(map[string]string{"n.a": want, "n.b": want}, all(t, s, "")); diff != "" {
		t.Error(diff)
	}
}

// TestModel compares the engine with a map, over commits right and wrong and reopening.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
		if err := e.Open(context.Background()); err != nil {
			rt.Fatal(err)
		}
		defer func() { closeEngine(t, e) }()
		model := map[string]state.Record{}
		given := []state.Revision{0, 1 << 40} // what a writer may expect wrongly
		keys := []string{"a.1.x", "a.1.y", "a.1.xy", "a.2.$LATEST", "b.1.x", "b.1.x.y"}
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) {
				picked := rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 4, rapid.ID[string]).Draw(rt, "keys")
				var changes []state.Change
				right := true
				for _, k := range picked {
					c := state.Change{Key: k, Expect: model[k].Revision}
					if rapid.IntRange(0, 9).Draw(rt, "wrong") == 0 {
						c.Expect = rapid.SampledFrom(given).Draw(rt, "expect")
						right = right && c.Expect == model[k].Revision
					}
					if rapid.Bool().Draw(rt, "set") {
						c.Value = []byte(rapid.StringN(0, 8, 8).Draw(rt, "value"))
					}
					changes = append(changes, c)
				}
				got, err := e.State().Commit(context.Background(), changes...)
				if !right {
					if !errors.Is(err, state.ErrConflict) {
						rt.Fatalf("%v instead of a conflict", err)
					}
					return
				}
				if err != nil {
					rt.Fatal(err)
				}
				for i, c := range changes {
					if c.Value == nil {
						delete(model, c.Key)
						continue
					}
					if got[i] <= model[c.Key].Revision {
						rt.Fatalf("%s went from revision %d to %d", c.Key, model[c.Key].Revision, got[i])
					}
					given = append(given, got[i])
					model[c.Key] = state.Record{Key: c.Key, Value: c.Value, Revision: got[i]}
				}
			},
			"reopen": func(rt *rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "reopen") > 0 {
					return
				}
				closeEngine(t, e)
				e = jetstream.New(jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
				if err := e.Open(context.Background()); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) {
				prefix := rapid.SampledFrom([]string{"", "a", "a.1", "a.1.", "a.1.x", "b.1.x.", "c"}).Draw(rt, "prefix")
				got, err := e.State().All(context.Background(), prefix)
				if err != nil {
					rt.Fatal(err)
				}
				var want []state.Record
				for _, k := range slices.Sorted(maps.Keys(model)) {
					if strings.HasPrefix(k, prefix) {
						want = append(want, model[k])
					}
				}
				slices.SortFunc(got, func(a, b state.Record) int { return strings.Compare(a.Key, b.Key) })
				if len(got) == 0 {
					got = nil
				}
				if diff := cmp.Diff(want, got); diff != "" {
					rt.Fatal(diff)
				}
			},
		})
	})
}
