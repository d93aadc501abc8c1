// Package table keeps the records of one kind by account, region and id: each
// change is durable before it is visible, and a read touches no store. What the
// values mean, and which changes are allowed, is their owner's: the folders of
// registry that have few and simple records use it.
package table

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// schema is the newest form of a record that this Kiln knows.
const schema = 1

// record is how a value lies on the disk.
type record[V any] struct {
	Schema int
	Value  *V
}

// Table is safe for concurrent use. Its values are replaced, never changed.
type Table[V any] struct {
	state state.State
	kind  string

	mu     sync.RWMutex
	scopes map[lambda.Scope]*rows[V] // guarded by mu
}

// rows are those of one scope.
type rows[V any] struct {
	writing sync.Mutex        // held across I/O, and taken before Table.mu
	byID    map[string]row[V] // guarded by Table.mu
}

type row[V any] struct {
	value    *V
	revision state.Revision
}

// New returns an empty table of the records whose keys begin with kind, a token.
func New[V any](st state.State, kind string) *Table[V] {
	return &Table[V]{state: st, kind: kind, scopes: map[lambda.Scope]*rows[V]{}}
}

// Open loads everything.
func (t *Table[V]) Open(ctx context.Context) error {
	records, err := t.state.All(ctx, t.kind+".")
	if err != nil {
		return fmt.Errorf("load the records of kind %s: %w", t.kind, err)
	}
	for _, stored := range records {
		var rec record[V]
		if err := json.Unmarshal(stored.Value, &rec); err != nil {
			return fmt.Errorf("the record %s is damaged: %w", stored.Key, err)
		}
		if rec.Schema > schema {
			return fmt.Errorf("the record %s was written by a newer Kiln (schema %d; this one knows %d): upgrade kiln", stored.Key, rec.Schema, schema)
		}
		key := strings.SplitN(stored.Key, ".", 4)
		if len(key) != 4 || rec.Value == nil {
			return fmt.Errorf("the record %s is damaged: it has no id or no value", stored.Key)
		}
		t.put(lambda.Scope{Account: lambda.AccountID(key[1]), Region: lambda.Region(key[2])}, key[3], row[V]{rec.Value, stored.Revision})
	}
	return nil
}

// Get returns the value of that id, or nil.
func (t *Table[V]) Get(scope lambda.Scope, id string) *V { return t.find(scope, id).value }

func (t *Table[V]) find(scope lambda.Scope, id string) row[V] {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if s := t.scopes[scope]; s != nil {
		return s.byID[id]
	}
	return row[V]{}
}

// Page returns up to limit of a scope's values that match, in the order of their
// ids, from the first id after the marker, and whether there are more.
func (t *Table[V]) Page(scope lambda.Scope, after string, limit int, match func(*V) bool) (page []*V, more bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := t.scopes[scope]
	if s == nil {
		return nil, false
	}
	for _, id := range slices.Sorted(maps.Keys(s.byID)) {
		if v := s.byID[id].value; id > after && match(v) {
			if len(page) == limit {
				return page, true
			}
			page = append(page, v)
		}
	}
	return page, false
}

// All returns the values of every scope, in no order.
func (t *Table[V]) All() (list []*V) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, s := range t.scopes {
		for _, r := range s.byID {
			list = append(list, r.value)
		}
	}
	return list
}

// Find returns one of a scope's values that match, or nil.
func (t *Table[V]) Find(scope lambda.Scope, match func(*V) bool) *V {
	if page, _ := t.Page(scope, "", 1, match); len(page) > 0 {
		return page[0]
	}
	return nil
}

// Change replaces the value of an id by what change makes of it: was is nil where
// there is none, and nil removes it. The changes of a scope take turns, so that
// what change reads of the table stays true until its own is made.
func (t *Table[V]) Change(ctx context.Context, scope lambda.Scope, id string, change func(was *V) (*V, error)) (*V, error) {
	s := t.rowsOf(scope)
	s.writing.Lock()
	defer s.writing.Unlock()
	from := t.find(scope, id)
	now, err := change(from.value)
	if err != nil || now == from.value {
		return now, err
	}
	next := state.Change{Key: strings.Join([]string{t.kind, string(scope.Account), string(scope.Region), id}, "."), Expect: from.revision}
	if now != nil {
		if next.Value, err = json.Marshal(record[V]{schema, now}); err != nil {
			return nil, err
		}
	}
	made := func(revisions []state.Revision) { t.put(scope, id, row[V]{now, revisions[0]}) }
	if err := state.Commit(ctx, t.state, made, next); err != nil {
		return nil, fmt.Errorf("write %s: %w", next.Key, err)
	}
	return now, nil
}

func (t *Table[V]) put(scope lambda.Scope, id string, r row[V]) {
	s := t.rowsOf(scope)
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.value == nil {
		delete(s.byID, id)
		return
	}
	s.byID[id] = r
}

func (t *Table[V]) rowsOf(scope lambda.Scope) *rows[V] {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.scopes[scope]
	if s == nil {
		s = &rows[V]{byID: map[string]row[V]{}}
		t.scopes[scope] = s
	}
	return s
}
