package table_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/jetstream"
	"kiln/internal/state/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type thing struct{ Name string }

var scope = lambda.Scope{Account: "123456789012", Region: "us-east-1"}

// engine opens the state in a folder; the test closes it.
func engine(t *testing.T, dir string) (st state.State, close func()) {
	t.Helper()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "test"})
	if err := e.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e.State(), func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

func things(t *testing.T, st state.State) *table.Table[thing] {
	t.Helper()
	tab := table.New[thing](st, "thing")
	if err := tab.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tab
}

func put(t *testing.T, tab *table.Table[thing], scope lambda.Scope, id string, v *thing) {
	t.Helper()
	if _, err := tab.Change(t.Context(), scope, id, func(*thing) (*thing, error) { return v, nil }); err != nil {
		t.Fatal(err)
	}
}

func names(page []*thing) (list []string) {
	for _, v := range page {
		list = append(list, v.Name)
	}
	return list
}

func every(*thing) bool { return true }

func TestTable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st, closeFirst := engine(t, dir)
	tab := things(t, st)
	other := table.New[thing](st, "thingelse") // whose kind begins as this one's
	put(t, other, scope, "z", &thing{"else"})
	elsewhere := lambda.Scope{Account: scope.Account, Region: "eu-west-1"}
	for _, id := range []string{"c", "a", "b", "d"} {
		put(t, tab, scope, id, &thing{id})
	}
	put(t, tab, elsewhere, "a", &thing{"far"})
	put(t, tab, scope, "c", &thing{"c2"})
	put(t, tab, scope, "d", nil)
	put(t, tab, scope, "absent", nil)
	check := func(when string) {
		t.Helper()
		page, more := tab.Page(scope, "", 9, every)
		if diff := cmp.Diff([]string{"a", "b", "c2"}, names(page)); diff != "" || more {
			t.Errorf("%s: more %v, -want +got:\n%s", when, more, diff)
		}
		if got := tab.Get(elsewhere, "a"); got == nil || got.Name != "far" {
			t.Errorf("%s: elsewhere %+v", when, got)
		}
		if got := tab.Get(scope, "d"); got != nil {
			t.Errorf("%s: what was removed is %+v", when, got)
		}
	}
	check("at once")
	for _, c := range []struct {
		after string
		limit int
		match func(*thing) bool
		want  []string
		more  bool
	}{
		{"", 2, every, []string{"a", "b"}, true},
		{"b", 2, every, []string{"c2"}, false},
		{"a", 1, func(v *thing) bool { return v.Name != "b" }, []string{"c2"}, false},
		{"c", 2, every, nil, false},
	} {
		page, more := tab.Page(scope, c.after, c.limit, c.match)
		if diff := cmp.Diff(c.want, names(page)); diff != "" || more != c.more {
			t.Errorf("%d after %q: more %v, -want +got:\n%s", c.limit, c.after, more, diff)
		}
	}
	if got := tab.Find(scope, func(v *thing) bool { return v.Name == "c2" }); got == nil || got.Name != "c2" {
		t.Errorf("found %+v", got)
	}
	if got := tab.Find(lambda.Scope{}, every); got != nil {
		t.Errorf("found %+v in an empty scope", got)
	}
	closeFirst()
	st, closeSecond := engine(t, dir)
	defer closeSecond()
	tab = things(t, st)
	check("after a restart")
	put(t, tab, scope, "c", &thing{"c3"}) // its revision was loaded
}

// TestRefusedChange: what change refuses, or the disk, is not visible.
func TestRefusedChange(t *testing.T) {
	t.Parallel()
	st, closeEngine := engine(t, t.TempDir())
	defer closeEngine()
	disk := &full{State: st}
	tab := things(t, disk)
	put(t, tab, scope, "a", &thing{"a"})
	refusal := errors.New("no")
	_, err := tab.Change(t.Context(), scope, "a", func(*thing) (*thing, error) { return nil, refusal })
	if !errors.Is(err, refusal) {
		t.Errorf("refused: %v", err)
	}
	disk.full = true
	_, err = tab.Change(t.Context(), scope, "a", func(*thing) (*thing, error) { return &thing{"b"}, nil })
	if !errors.Is(err, state.ErrFull) {
		t.Errorf("full: %v", err)
	}
	if _, err := tab.Change(t.Context(), scope, "a", func(was *thing) (*thing, error) { return was, nil }); err != nil {
		t.Errorf("a change of nothing was written: %v", err)
	}
	if got := tab.Get(scope, "a"); got.Name != "a" {
		t.Errorf("a refused change left %+v", got)
	}
}

type full struct {
	state.State
	full bool
}

func (f *full) Commit(ctx context.Context, changes ...state.Change) ([]state.Revision, error) {
	if f.full {
		return nil, state.ErrFull
	}
	return f.State.Commit(ctx, changes...)
}

// TestTurns: the changes of a scope see each other.
func TestTurns(t *testing.T) {
	t.Parallel()
	st, closeEngine := engine(t, t.TempDir())
	defer closeEngine()
	tab := things(t, st)
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			put := func(*thing) (*thing, error) {
				if tab.Find(scope, every) != nil {
					return nil, errors.New("taken")
				}
				return &thing{fmt.Sprint(i)}, nil
			}
			_, _ = tab.Change(t.Context(), scope, fmt.Sprint("id", i), put) // all but one are refused
		})
	}
	wait.Wait()
	if page, _ := tab.Page(scope, "", 99, every); len(page) != 1 {
		t.Errorf("%d changes found the table empty", len(page))
	}
}

func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		`x`:                         "is damaged",
		`{"Schema":1}`:              "no value",
		`{"Schema":2,"Value":{}}`:   "newer Kiln",
		`{"Schema":1,"Value":null}`: "no value",
	} {
		st, closeEngine := engine(t, t.TempDir())
		if _, err := st.Commit(t.Context(), state.Change{Key: "thing.123456789012.us-east-1.a", Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
		err := table.New[thing](st, "thing").Open(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "thing.123456789012.us-east-1.a") {
			t.Errorf("%s: %v", value, err)
		}
		closeEngine()
	}
}
