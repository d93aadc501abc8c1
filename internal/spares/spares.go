// Package spares holds sandboxes ready in which a runtime is booted already, waiting to
// be told for which function. A spare has run nothing but Kiln's own runtime client
// and holds nothing of any account, so whatever function would be started with the
// same command may have it; once taken it never comes back. The environment package
// takes spares, and starts a runtime itself where there is none.
package spares

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kiln/internal/sandbox"
)

// groups is where the sandboxes of spares have their cgroups and directories, each in
// a group of its own, also once they are a function's: a cgroup cannot be moved,
// and what a group's sandboxes share is for one function.
const groups = "spares/"

const (
	// refillDelay is how long nobody must have started before a spare is made: it
	// costs tens of milliseconds of a processor, which those who start need more.
	refillDelay = 100 * time.Millisecond
	// burstTime is how long those who ask count as asking at once: on two cores a
	// hundred environments take that long to start.
	burstTime = 10 * time.Second
	// shrinkInterval is how often a kind that had more spares than were taken
	// loses half of the surplus.
	shrinkInterval = 2 * time.Minute
	// lastIdle is how long the last spare of a kind is kept without being taken.
	lastIdle = 10 * time.Minute
	// shortInterval is how often the machine's memory is looked at.
	shortInterval = 5 * time.Second
	// retryDelay is how long a kind whose spare could not be made gets none.
	retryDelay = time.Minute
	// guessedBytes stands for the memory of a kind's spares until one was made.
	guessedBytes = 24 << 20
	// maxKinds bounds the kinds that are remembered: runtimes by memory sizes.
	maxKinds = 256
)

// Config is what a Pool is made from.
type Config struct {
	// Driver makes the sandboxes. One that cannot Prepare has no spares.
	Driver sandbox.Driver
	// Bytes bounds the memory of all spares together.
	Bytes int64
	// APIPort and EndpointPort are where spares listen inside.
	APIPort, EndpointPort int
	// Short tells whether the machine is short of memory: then there are none.
	Short func() bool
	Log   *slog.Logger
}

// Pool is safe for concurrent use. Run fills it; Close empties it.
type Pool struct {
	config Config
	driver sandbox.Preparer // nil: there are never spares
	first  int64            // memory of a sandbox before anything of ours runs in it, which no cgroup counts for it
	wake   chan struct{}    // a token: somebody started since it was looked at

	mu     sync.Mutex
	kinds  map[string]*kind // guarded by mu; by Want.key
	bytes  int64            // guarded by mu; of all that are ready
	doomed []*Spare         // guarded by mu; to be discarded
	counts Counts           // guarded by mu
	off    bool             // guarded by mu; closed, or the driver cannot
}

// Counts are a Pool's figures.
type Counts struct {
	Ready, Wanted int   // that wait, and that are to wait
	Bytes         int64 // of those that do
	Taken, Missed int   // since the start: who got one, and who found none
}

// kind is spares that are started alike.
type kind struct {
	want  Want
	ready []*Spare
	count int // how many there should be
	burst int // asked for since began, within burstTime
	began time.Time
	least int       // ready since the last look for a surplus
	asked time.Time // when it was last asked for one
	retry time.Time // not before
	bytes int64     // of one
}

// New returns an empty pool.
func New(c Config) *Pool {
	p := &Pool{config: c, wake: make(chan struct{}, 1), kinds: map[string]*kind{}}
	if c.Bytes > 0 {
		p.driver, _ = c.Driver.(sandbox.Preparer)
	}
	if p.first = initBytes; p.driver != nil && c.Driver.Describe().OwnKernel {
		p.first = kernelBytes
	}
	return p
}

// Paths are those inside every spare. Without them there are no spares.
func (p *Pool) Paths() (sandbox.Paths, bool) {
	if p.driver == nil {
		return sandbox.Paths{}, false
	}
	return p.driver.PreparedPaths(), true
}

// Take returns a spare that is started as wanted, or nil. Either way the next time
// there is more likely to be one.
func (p *Pool) Take(w Want) *Spare {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.kind(w)
	if k == nil {
		return nil
	}
	k.asked = time.Now()
	if k.asked.Sub(k.began) > burstTime {
		k.burst, k.began = 0, k.asked
	}
	k.burst++
	k.count = max(k.count, 1)
	p.rouse()
	for n := len(k.ready); n > 0; n = len(k.ready) {
		s := p.pop(k)
		if s.alive() {
			p.counts.Taken++
			return s
		}
		p.doomed = append(p.doomed, s)
	}
	p.counts.Missed++
	return nil
}

// Counts returns the figures as they are now.
func (p *Pool) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	c.Bytes = p.bytes
	for _, k := range p.kinds {
		c.Ready += len(k.ready)
		c.Wanted += k.count
	}
	return c
}

// Expect says that a function was deployed which will want such a spare.
func (p *Pool) Expect(w Want) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.kind(w); k != nil {
		k.count = max(k.count, 1)
		k.asked = time.Now()
		p.rouse()
	}
}

// kind finds or makes one; nil where there are no spares. p.mu is held.
func (p *Pool) kind(w Want) *kind {
	if p.driver == nil || p.off {
		return nil
	}
	key := w.key()
	k := p.kinds[key]
	if k == nil && len(p.kinds) < maxKinds {
		k = &kind{want: w, bytes: guessedBytes}
		p.kinds[key] = k
	}
	return k
}

func (p *Pool) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// pop removes the spare that was made last from those that are ready. p.mu is held.
func (p *Pool) pop(k *kind) *Spare {
	n := len(k.ready) - 1
	s := k.ready[n]
	k.ready[n] = nil
	k.ready = k.ready[:n]
	k.least = min(k.least, n)
	p.bytes -= s.bytes
	return s
}

// Run makes spares while nobody starts, and discards those that are too many,
// until ctx ends.
func (p *Pool) Run(ctx context.Context) {
	if p.driver == nil {
		return
	}
	tick := time.NewTicker(shrinkInterval)
	defer tick.Stop()
	look := time.NewTicker(shortInterval)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.shrink(now)
		case <-look.C:
			if p.Counts().Ready > 0 && p.config.Short() {
				p.clear()
			}
		case <-p.wake:
			if !p.quiet(ctx) {
				return
			}
			p.grow()
			for !p.config.Short() && p.refill(ctx) {
			}
		}
		p.discard(ctx)
	}
}

// quiet waits until nobody has started for a while; false: until ctx ended.
func (p *Pool) quiet(ctx context.Context) bool {
	for {
		timer := time.NewTimer(refillDelay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-p.wake:
			timer.Stop()
		case <-timer.C:
			return true
		}
	}
}

// grow has each kind hold as many as were asked for at once, in its last burst.
func (p *Pool) grow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kinds {
		if time.Since(k.began) < 2*burstTime { // else it is an old one, and was shrunk since
			k.count = max(k.count, k.burst)
		}
	}
}

// refill makes one spare, and reports whether to go on.
func (p *Pool) refill(ctx context.Context) bool {
	k := p.lacking(time.Now())
	if k == nil {
		return false
	}
	p.discard(ctx) // room was made
	s, err := p.boot(ctx, k.want)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		p.off = true
		p.config.Log.Debug("no runtime is started ahead of time", "reason", err)
		return false
	case err != nil && ctx.Err() == nil:
		p.config.Log.Warn("a runtime could not be started ahead of time; it is tried again later", "command", k.want.Command.Path, "error", err)
		k.count, k.retry = 0, time.Now().Add(retryDelay)
		return true
	case err != nil:
		return false
	}
	k.bytes = s.bytes
	if p.bytes+s.bytes > p.config.Bytes {
		k.count = len(k.ready) // it takes more than the last one did
		p.doomed = append(p.doomed, s)
		return true
	}
	k.ready = append(k.ready, s)
	p.bytes += s.bytes
	return len(p.wake) == 0
}

// lacking is the kind that is to have a spare made: of those that lack one and can have
// it within the budget, the one asked for last. Kinds that were asked for before
// it make room.
func (p *Pool) lacking(now time.Time) *kind {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.byUse() {
		if len(k.ready) >= k.count || now.Before(k.retry) {
			continue
		}
		for _, older := range slices.Backward(p.byUse()) {
			if older == k {
				break
			}
			for p.bytes+k.bytes > p.config.Bytes && len(older.ready) > 0 {
				p.doomed = append(p.doomed, p.pop(older))
				older.count = len(older.ready)
			}
		}
		if p.bytes+k.bytes <= p.config.Bytes {
			return k
		}
		k.count = len(k.ready)
	}
	return nil
}

// byUse lists the kinds, the one asked for last first. p.mu is held.
func (p *Pool) byUse() []*kind {
	var list []*kind
	for _, k := range p.kinds {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b *kind) int { return cmp.Compare(b.asked.UnixNano(), a.asked.UnixNano()) })
	return list
}

// shrink gives up half of what was not needed since the last time, and the last one of a
// kind once nobody has asked for long.
func (p *Pool) shrink(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, k := range p.kinds {
		surplus := (k.least + 1) / 2
		if k.count == 1 && now.Sub(k.asked) < lastIdle {
			surplus = 0
		}
		k.count = max(k.count-surplus, 0)
		for len(k.ready) > k.count {
			p.doomed = append(p.doomed, p.pop(k))
		}
		k.least = len(k.ready)
		if k.count == 0 && now.Sub(k.asked) > lastIdle {
			delete(p.kinds, key)
		}
	}
}

// clear gives up all that are ready. Who asks next has them made again.
func (p *Pool) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kinds {
		for len(k.ready) > 0 {
			p.doomed = append(p.doomed, p.pop(k))
		}
		k.count = 0
	}
}

// discard ends those that were given up.
func (p *Pool) discard(ctx context.Context) {
	p.mu.Lock()
	doomed := p.doomed
	p.doomed = nil
	p.mu.Unlock()
	if err := discardAll(context.WithoutCancel(ctx), doomed); err != nil {
		p.config.Log.Error("a spare left something behind", "error", err)
	}
}

func discardAll(ctx context.Context, list []*Spare) error {
	var g errgroup.Group
	g.SetLimit(8) // each kills a few processes: more at once would only hold up others
	for _, s := range list {
		g.Go(func() error { return s.Discard(ctx) })
	}
	return g.Wait()
}

// Close discards every spare, after Run has returned. Take gives none afterwards.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.off = true
	all := p.doomed
	for _, k := range p.kinds {
		all = append(all, k.ready...)
	}
	p.kinds, p.doomed, p.bytes = nil, nil, 0
	p.mu.Unlock()
	return discardAll(ctx, all)
}
