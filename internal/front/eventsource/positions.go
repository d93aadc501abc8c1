package eventsource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// positionKind begins the keys of what drivers remember; account, region, the mapping's
// id and the shard follow.
const positionKind = "position."

// positionRecord is how a position lies on the disk.
type positionRecord struct {
	Schema int
	Shard  string // as it is called; the key has it in another form
	Value  []byte
}

// positions are those of one mapping, in the hands of one poller.
type positions struct {
	state  state.State
	prefix string

	mu     sync.Mutex
	shards map[string]position // guarded by mu
}

type position struct {
	value    []byte
	revision state.Revision
	saving   *sync.Mutex // held across I/O, and taken before mu
}

func positionPrefix(arn lambda.MappingARN) string {
	return positionKind + string(arn.Account) + "." + string(arn.Region) + "." + arn.ID + "."
}

// positionsOf reads what is remembered of a mapping.
func positionsOf(ctx context.Context, st state.State, arn lambda.MappingARN) (*positions, error) {
	p := &positions{state: st, prefix: positionPrefix(arn), shards: map[string]position{}}
	records, err := st.All(ctx, p.prefix)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		var rec positionRecord
		if err := json.Unmarshal(r.Value, &rec); err != nil || rec.Schema != 1 {
			return nil, fmt.Errorf("the record %s is damaged, or of a newer Kiln", r.Key)
		}
		p.shards[rec.Shard] = position{rec.Value, r.Revision, &sync.Mutex{}}
	}
	return p, nil
}

func (p *positions) Get(shard string) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shards[shard].value
}

func (p *positions) Shards() (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for shard, pos := range p.shards {
		if pos.value != nil {
			list = append(list, shard)
		}
	}
	return list
}

func (p *positions) Save(ctx context.Context, shard string, value []byte) error {
	p.mu.Lock()
	was, ok := p.shards[shard]
	if !ok {
		was.saving = &sync.Mutex{}
		p.shards[shard] = was
	}
	p.mu.Unlock()
	was.saving.Lock()
	defer was.saving.Unlock()
	p.mu.Lock()
	was = p.shards[shard]
	p.mu.Unlock()
	if value == nil && was.revision == 0 {
		return nil
	}
	change := state.Change{Key: p.prefix + token(shard), Expect: was.revision}
	if value != nil {
		var err error
		if change.Value, err = json.Marshal(positionRecord{1, shard, value}); err != nil {
			return err
		}
	}
	revisions, err := p.state.Commit(ctx, change)
	if errors.Is(err, state.ErrConflict) {
		return fmt.Errorf("another node reads this event source now: %w", err)
	} else if err != nil {
		return fmt.Errorf("remember how far %s was read: %w", shard, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shards[shard] = position{value, revisions[0], was.saving}
	return nil
}

// token spells a shard with the characters that keys have.
func token(shard string) string {
	var b strings.Builder
	for _, c := range []byte(shard) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// forget drops what is remembered of a mapping.
func forget(ctx context.Context, st state.State, arn lambda.MappingARN) error {
	records, err := st.All(ctx, positionPrefix(arn))
	if err != nil {
		return err
	}
	return drop(ctx, st, records)
}

// sweep drops what is remembered of mappings that are gone: Kiln ended between the two.
func sweep(ctx context.Context, st state.State, mappings []*lambda.EventSourceMapping) error {
	records, err := st.All(ctx, positionKind)
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, m := range mappings {
		kept[positionPrefix(m.ARN)] = true
	}
	var gone []state.Record
	for _, r := range records {
		if i := strings.LastIndexByte(r.Key, '.'); i > 0 && !kept[r.Key[:i+1]] {
			gone = append(gone, r)
		}
	}
	return drop(ctx, st, gone)
}

func drop(ctx context.Context, st state.State, records []state.Record) (err error) {
	for _, r := range records {
		_, failed := st.Commit(ctx, state.Change{Key: r.Key, Expect: r.Revision})
		err = errors.Join(err, failed)
	}
	return err
}
