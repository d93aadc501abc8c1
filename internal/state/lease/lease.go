// Package lease lets nodes own pieces of work, each at most one node at a time: a
// poller, a schedule. A node shows that it lives by renewing one record, however much it
// owns; work belongs to the node that the work's record names, as long as that node
// lives. No clock is compared with another's: a node is dead to those that have seen
// its record unchanged for a whole life. What the work is, and how it is spread, is not
// known here. internal/front/eventsource uses it.
package lease

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// DefaultLife makes a dead node's work rest for half a minute, and a living one write
// once in five seconds.
const DefaultLife = 30 * time.Second

// releaseTimeout bounds giving work back. What is not given back is another node's once
// this one is dead to it.
const releaseTimeout = 5 * time.Second

// Config of Leases.
type Config struct {
	Node string // this node's id
	// Life is how long a node is taken for alive after it was last seen to renew, the
	// same on all nodes. 0 means DefaultLife.
	Life time.Duration
}

// Leases are those of one node. It is safe for concurrent use.
type Leases struct {
	state state.State
	node  string
	life  time.Duration
	first chan struct{} // has room for one: there is something to renew for

	renewing sync.Mutex // held across I/O, and taken before mu

	mu    sync.Mutex
	until time.Time                             // guarded by mu; no other takes this node for dead before
	held  map[*context.CancelCauseFunc]struct{} // guarded by mu; of the work that this node owns
	seen  map[string]sight                      // guarded by mu; other nodes
}

// sight is when a node's record was first seen at a revision.
type sight struct {
	revision state.Revision
	at       time.Time
}

// record is how work names its owner.
type record struct {
	Schema int
	Node   string
}

// ErrLost is the cause with which work ends that may be another node's.
var ErrLost = errors.New("this node could not show in time that it lives: another may have taken over its work")

// New starts nothing.
func New(st state.State, c Config) *Leases {
	return &Leases{
		state: st, node: c.Node, life: cmp.Or(c.Life, DefaultLife), first: make(chan struct{}, 1),
		held: map[*context.CancelCauseFunc]struct{}{}, seen: map[string]sight{},
	}
}

// Run renews until ctx ends, while this node owns something.
func (l *Leases) Run(ctx context.Context) {
	for wait := l.life; ; wait = l.life / 6 {
		select {
		case <-ctx.Done():
			return
		case <-l.first:
		case <-time.After(wait):
		}
		if !l.owns() {
			continue
		}
		if l.renew(ctx) != nil && ctx.Err() == nil {
			l.lapse()
		}
	}
}

func (l *Leases) owns() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.held) > 0
}

// lapse ends all work once another node may take this one for dead.
func (l *Leases) lapse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().Before(l.until) {
		return
	}
	for end := range l.held {
		(*end)(ErrLost)
	}
}

// renew shows that this node lives. Others see that later than it was begun, so that
// for a life from there none can take it for dead. Half of that is left for noticing
// that the next renewals failed: Run looks every sixth, and one may take another sixth.
func (l *Leases) renew(ctx context.Context) error {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	until := time.Now().Add(l.life / 2)
	ctx, cancel := context.WithTimeout(ctx, l.life/6)
	defer cancel()
	name := "node.-.-." + l.node
	was, err := l.get(ctx, name)
	if err != nil {
		return err
	}
	if err := l.put(ctx, name, was.Revision); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = until
	return nil
}

// get returns a record, without value and revision where there is none.
func (l *Leases) get(ctx context.Context, key string) (state.Record, error) {
	list, err := l.state.All(ctx, key)
	for _, r := range list {
		if r.Key == key {
			return r, err
		}
	}
	return state.Record{Key: key}, err
}

// put makes this node the one that a record names.
func (l *Leases) put(ctx context.Context, key string, was state.Revision) error {
	value, err := json.Marshal(record{1, l.node})
	if err != nil {
		return err
	}
	_, err = l.state.Commit(ctx, state.Change{Key: key, Value: value, Expect: was})
	return err
}

// Hold waits until the work of that name, a token, is this node's, and does it. The
// context that the work gets ends with ctx, and with ErrLost when the work may be
// another's. Run must run meanwhile.
func (l *Leases) Hold(ctx context.Context, scope lambda.Scope, name string, work func(context.Context) error) error {
	key := "lease." + string(scope.Account) + "." + string(scope.Region) + "." + name
	for {
		mine, err := l.claim(ctx, key)
		if err != nil {
			return fmt.Errorf("lease %s: %w", name, err)
		}
		if mine {
			return l.hold(ctx, key, work)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(l.life / 6):
		}
	}
}

func (l *Leases) hold(ctx context.Context, key string, work func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.mu.Lock()
	l.held[&cancel] = struct{}{}
	l.mu.Unlock()
	select {
	case l.first <- struct{}{}:
	default: // it is known
	}
	defer func() {
		l.mu.Lock()
		delete(l.held, &cancel)
		l.mu.Unlock()
		l.release(context.WithoutCancel(ctx), key)
	}()
	return work(ctx)
}

// claim makes the work this node's if it is no living one's.
func (l *Leases) claim(ctx context.Context, key string) (bool, error) {
	l.mu.Lock()
	alive := time.Now().Before(l.until)
	l.mu.Unlock()
	if !alive {
		if err := l.renew(ctx); err != nil {
			return false, err
		}
	}
	was, err := l.get(ctx, key)
	if err != nil {
		return false, err
	}
	if was.Value != nil {
		var owner record
		if err := json.Unmarshal(was.Value, &owner); err != nil {
			return false, fmt.Errorf("the record %s is damaged: %w", key, err)
		}
		if owner.Node == l.node { // of an earlier run
			return true, nil
		}
		if lives, err := l.lives(ctx, owner.Node); lives || err != nil {
			return false, err
		}
	}
	switch err := l.put(ctx, key, was.Revision); {
	case errors.Is(err, state.ErrConflict): // another node was faster
		return false, nil
	default:
		return err == nil, err
	}
}

// lives reports whether another node renewed within the last life, as seen from here.
func (l *Leases) lives(ctx context.Context, node string) (bool, error) {
	r, err := l.get(ctx, "node.-.-."+node)
	if err != nil {
		return true, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.seen[node]; s.at.IsZero() || s.revision != r.Revision {
		l.seen[node] = sight{r.Revision, time.Now()}
		return true, nil
	} else if time.Since(s.at) < l.life {
		return true, nil
	}
	return false, nil
}

// release gives work back that is over, so that nobody waits for this node's death.
func (l *Leases) release(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	was, err := l.get(ctx, key)
	var owner record
	if err != nil || was.Value == nil || json.Unmarshal(was.Value, &owner) != nil || owner.Node != l.node {
		return
	}
	_, _ = l.state.Commit(ctx, state.Change{Key: key, Expect: was.Revision}) // else it goes with this node's life
}
