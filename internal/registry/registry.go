// Package registry is what Kiln runs: the functions and layers of every account and region.
// It decides what may be created and changed, makes each change durable before
// it answers, and keeps a read model in memory, so that an invocation touches no
// store. The Lambda API's door and the invoke package call it; it starts nothing.
package registry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// Packages keeps deployment packages and images by content.
type Packages interface {
	// Add verifies and stores a zip. Its errors are the caller's where the zip is to blame.
	Add(ctx context.Context, zip *io.SectionReader) (lambda.Code, error)
	// Fetch brings a zip from S3 here, until close. Its errors are the caller's where
	// S3 has or gives no such zip.
	Fetch(ctx context.Context, object lambda.S3Object) (zip *io.SectionReader, close func(), err error)
	// Resolve looks up which image a reference means now; Pull brings it here, if
	// it is not. Both fail with a *lambda.Failure where the image is to blame.
	Resolve(ctx context.Context, uri string) (lambda.Code, error)
	Pull(ctx context.Context, image lambda.Code) error
	Remove(ctx context.Context, code lambda.Code) error
}

// Runtimes says what can run here.
type Runtimes interface {
	// Check refuses, with the reason, a function that this machine cannot run.
	Check(ctx context.Context, s *lambda.Settings, code lambda.Code) error
}

// Sealer encrypts what must not lie on the disk in clear.
type Sealer interface {
	Seal(plaintext, context []byte) ([]byte, error)
	Unseal(sealed, context []byte) ([]byte, error)
}

// Config of a registry.
type Config struct {
	// Architecture is the machine's, and what a function gets that names none.
	Architecture lambda.Architecture
	// Concurrency is how many executions of one account may run at once in a region.
	Concurrency int
	// CodeStorage bounds the packages of an account in a region, in bytes.
	CodeStorage int64
	// Provisioned, if not nil, is called after every change of a function that had
	// provisioned concurrency, or has: see Allotments.
	Provisioned func(function lambda.FunctionARN)
}

// Registry is safe for concurrent use.
type Registry struct {
	state    state.State
	packages Packages
	runtimes Runtimes
	sealer   Sealer
	changed  func(version lambda.FunctionARN, now *lambda.Function)
	log      *slog.Logger
	config   Config

	ctx     context.Context // of the background writes
	cancel  context.CancelFunc
	closing chan struct{} // closed by Close
	work    sync.WaitGroup

	writes keyedLocks // by ARN; taken before mu, and held across I/O
	// removal is held for reading while a package is added and counted, for
	// writing while an unused one is removed: the same package may be both at once.
	removal sync.RWMutex

	mu        sync.RWMutex
	functions map[lambda.Scope]*functions                  // guarded by mu
	layers    map[lambda.Scope]map[lambda.LayerName]*layer // guarded by mu
	codes     map[string]int                               // guarded by mu; references by SHA256
	urls      map[string]lambda.FunctionARN                // guarded by mu; who has which function URL, by its id
}

// New returns an empty registry. changed is called after every change of what a
// version of a function runs, $LATEST among them; now is nil when it is gone.
func New(st state.State, packages Packages, runtimes Runtimes, sealer Sealer, changed func(version lambda.FunctionARN, now *lambda.Function), log *slog.Logger, config Config) *Registry {
	ctx, cancel := context.WithCancel(context.Background())
	return &Registry{
		state: st, packages: packages, runtimes: runtimes, sealer: sealer, changed: changed, log: log, config: config,
		ctx: ctx, cancel: cancel, closing: make(chan struct{}),
		functions: map[lambda.Scope]*functions{},
		layers:    map[lambda.Scope]map[lambda.LayerName]*layer{},
		codes:     map[string]int{},
		urls:      map[string]lambda.FunctionARN{},
	}
}

// Open loads everything. A change of a function that a crash cut off is finished.
func (r *Registry) Open(ctx context.Context) error {
	if err := r.openLayers(ctx); err != nil {
		return err
	}
	if err := r.openAliases(ctx); err != nil {
		return err
	}
	records, err := r.state.All(ctx, recordPrefix)
	if err != nil {
		return fmt.Errorf("load functions: %w", err)
	}
	entries := make([]*entry, len(records))
	var decoding errgroup.Group // most of the work
	each := 1 + len(records)/runtime.GOMAXPROCS(0)
	for i := 0; i < len(records); i += each {
		decoding.Go(func() (err error) {
			for j := i; j < min(i+each, len(records)) && err == nil; j++ {
				entries[j], err = r.decode(records[j])
			}
			return err
		})
	}
	if err := decoding.Wait(); err != nil {
		return err
	}
	r.put(entries...)
	for _, e := range entries {
		if unsettled(e.shown) {
			r.settleLater(e.shown)
		}
	}
	return nil
}

// Close waits for the writes in the background. Call it once.
func (r *Registry) Close() {
	close(r.closing)
	r.work.Wait()
	r.cancel()
}

// Resolve returns what an invocation of the ARN runs; an alias of two versions leads
// to either by its weights. A function that is being created is waited for: that
// takes the time of one write, unless it is an image's.
func (r *Registry) Resolve(ctx context.Context, arn lambda.FunctionARN) (*lambda.Function, error) {
	if arn.Qualifier == "" {
		arn.Qualifier = lambda.Latest // which Invoke, unlike others, also says of a function that is missing
	}
	version := arn
	r.mu.RLock()
	if a := r.function(arn).alias(arn.Qualifier); a != nil {
		version.Qualifier = a.shown.Route(rand.Float64())
	}
	e := r.function(arn).version(version.Qualifier)
	r.mu.RUnlock()
	if e == nil {
		return nil, notFound(arn)
	}
	if e.serving == nil && !e.shown.Code.IsImage() {
		select {
		case <-e.settled:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if e = r.find(version); e == nil {
			return nil, notFound(arn)
		}
	}
	if e.serving == nil {
		return nil, lambda.Conflict("The operation cannot be performed at this time. The function is currently in the following state: %s", e.shown.State)
	}
	return e.serving, nil
}

// Get returns what the API shows of the version that the ARN names, by its number or
// an alias.
func (r *Registry) Get(arn lambda.FunctionARN) (*lambda.Function, error) {
	e := r.find(arn)
	if e == nil {
		return nil, notFound(arn)
	}
	return e.shown, nil
}

func notFound(arn lambda.FunctionARN) error { return lambda.NotFound("Function not found: %s", arn) }

// Position is where a list of functions or versions goes on: after that version of
// that function. The zero Position is before all, a version of 0 is $LATEST.
type Position struct {
	Name    lambda.FunctionName
	Version int64
}

// List returns up to limit functions of a scope in the order of their names, from
// the first after the name, and whether there are more.
func (r *Registry) List(scope lambda.Scope, after lambda.FunctionName, limit int) (page []*lambda.Function, more bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, f := range r.functions[scope].after(after) {
		if len(page) == limit {
			return page, true
		}
		page = append(page, f.latest.shown)
	}
	return page, false
}

// ListAll is List with every version of each function, $LATEST first.
func (r *Registry) ListAll(scope lambda.Scope, after Position, limit int) (page []*lambda.Function, more bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if f := r.functions[scope].find(after.Name); f != nil { // the page before ended within it
		if page, more = f.list(after.Version, limit); more {
			return page, true
		}
	}
	for _, f := range r.functions[scope].after(after.Name) {
		if len(page) == limit {
			return page, true
		}
		page = append(page, f.latest.shown)
		rest, more := f.list(0, limit-len(page))
		if page = append(page, rest...); more {
			return page, true
		}
	}
	return page, false
}

// Delete removes what the ARN names: a function with all that belongs to it, or one
// of its versions.
func (r *Registry) Delete(ctx context.Context, arn lambda.FunctionARN) error {
	defer r.writes.lock(arn.Unqualified().String())()
	if arn.Qualifier != "" {
		return r.deleteVersion(ctx, arn)
	}
	r.mu.RLock()
	f := r.function(arn)
	if f == nil {
		r.mu.RUnlock()
		return notFound(arn)
	}
	aliases, versions := slices.Collect(maps.Values(f.aliases)), append(slices.Clone(f.versions), f.latest)
	r.mu.RUnlock()
	// $LATEST goes last: it is the function, should this be cut off.
	for batch := range slices.Chunk(aliases, maxBatch) {
		if err := r.removeAliases(ctx, batch...); err != nil {
			return fmt.Errorf("delete %s: %w", arn, err)
		}
	}
	for batch := range slices.Chunk(versions, maxBatch) {
		if err := r.remove(ctx, batch...); err != nil {
			return fmt.Errorf("delete %s: %w", arn, err)
		}
	}
	return nil
}

// maxBatch bounds the records of one commit; the state takes 1,000.
const maxBatch = 500

// commit makes entries of one function durable, all or none, and then visible. Each
// replaces the one of its revision. Those that are not settled are settled later: the
// caller answers first.
func (r *Registry) commit(ctx context.Context, next ...*entry) error {
	changes := make([]state.Change, len(next))
	for i, e := range next {
		value, err := r.encode(e)
		if err != nil {
			return err
		}
		changes[i] = state.Change{Key: key(e.shown), Value: value, Expect: e.revision}
	}
	made := func(revisions []state.Revision) {
		for i, e := range next {
			e.revision = revisions[i]
		}
		had := r.provisions(next[0].shown.ARN)
		unused, changed := r.put(next...)
		for _, f := range changed {
			r.changed(f.VersionARN(), f)
		}
		r.tellProvisioned(next[0].shown.ARN, had)
		r.discard(unused...)
		for _, e := range next {
			if unsettled(e.shown) {
				r.settleLater(e.shown)
			}
		}
	}
	if err := state.Commit(ctx, r.state, made, changes...); err != nil {
		return fmt.Errorf("write %s: %w", next[0].shown.ARN, err)
	}
	return nil
}

// put makes entries visible, and counts their packages in place of their
// predecessors'. It returns those that nothing has any more, and what the entries
// run that ran something else, or nothing, before.
func (r *Registry) put(entries ...*entry) (unused []lambda.Code, changed []*lambda.Function) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		r.reference(e.packages()...)
		old := r.scope(e.shown.ARN.Scope).put(e)
		var was *lambda.Attached
		if old != nil {
			if unsettled(old.shown) && !unsettled(e.shown) {
				close(e.settled)
			}
			unused = append(unused, r.unreference(old.packages()...)...)
			was = &old.attached
		}
		r.index(e.shown.VersionARN(), was, &e.attached)
		if e.serving != nil && (old == nil || e.serving != old.serving) {
			changed = append(changed, e.serving)
		}
	}
	return unused, changed
}

// remove deletes versions of one function; its $LATEST stands for the function, and
// is the last.
func (r *Registry) remove(ctx context.Context, entries ...*entry) error {
	changes := make([]state.Change, len(entries))
	for i, e := range entries {
		changes[i] = state.Change{Key: key(e.shown), Expect: e.revision}
	}
	return state.Commit(ctx, r.state, func([]state.Revision) {
		var unused []lambda.Code
		had := r.provisions(entries[0].shown.ARN)
		r.mu.Lock()
		for _, e := range entries {
			r.scope(e.shown.ARN.Scope).remove(e)
			r.index(e.shown.VersionARN(), &e.attached, nil)
			if unsettled(e.shown) {
				close(e.settled) // settle will not: whoever waits for it learns that it is gone
			}
			unused = append(unused, r.unreference(e.packages()...)...)
		}
		r.mu.Unlock()
		for _, e := range entries {
			r.changed(e.shown.VersionARN(), nil)
		}
		r.tellProvisioned(entries[0].shown.ARN, had)
		r.discard(unused...)
	}, changes...)
}
