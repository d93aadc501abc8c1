// Package registry is what Kiln runs: the functions and layers of every account and region.
// It decides what may be created and changed, makes each change durable before
// it answers, and keeps a read model in memory, so that an invocation touches no
// store. The Lambda API's door and the invoke package call it; it starts nothing.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// Packages keeps deployment packages and images by content.
type Packages interface {
	// Add verifies and stores a zip. Its errors are the caller's where the zip is to blame.
	Add(ctx context.Context, zip []byte) (lambda.Code, error)
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
}

// settleTimeout bounds the writes that finish a change in the background.
const settleTimeout = 30 * time.Second

// settleRetry is how long after a failure, such as a full disk, they are tried again.
const settleRetry = 5 * time.Second

// Registry is safe for concurrent use.
type Registry struct {
	state    state.State
	packages Packages
	runtimes Runtimes
	sealer   Sealer
	changed  func(arn lambda.FunctionARN, now *lambda.Function)
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

	mu      sync.RWMutex
	entries map[lambda.Scope]map[lambda.FunctionName]*entry // guarded by mu
	layers  map[lambda.Scope]map[lambda.LayerName]*layer    // guarded by mu
	codes   map[string]int                                  // guarded by mu; references by SHA256
}

// entry is one function. It is replaced, never changed.
type entry struct {
	shown    *lambda.Function // what the API shows
	serving  *lambda.Function // what invocations run; nil while it is being created
	settled  chan struct{}    // closed when shown has no change in progress
	revision state.Revision
}

// New returns an empty registry. changed is called after every change of what a
// function runs; now is nil when the function is gone.
func New(st state.State, packages Packages, runtimes Runtimes, sealer Sealer, changed func(lambda.FunctionARN, *lambda.Function), log *slog.Logger, config Config) *Registry {
	ctx, cancel := context.WithCancel(context.Background())
	return &Registry{
		state: st, packages: packages, runtimes: runtimes, sealer: sealer, changed: changed, log: log, config: config,
		ctx: ctx, cancel: cancel, closing: make(chan struct{}),
		entries: map[lambda.Scope]map[lambda.FunctionName]*entry{},
		layers:  map[lambda.Scope]map[lambda.LayerName]*layer{},
		codes:   map[string]int{},
	}
}

// Open loads everything. A change of a function that a crash cut off is finished.
func (r *Registry) Open(ctx context.Context) error {
	if err := r.openLayers(ctx); err != nil {
		return err
	}
	records, err := r.state.All(ctx, recordPrefix)
	if err != nil {
		return fmt.Errorf("load functions: %w", err)
	}
	for _, rec := range records {
		f, serving, err := r.decode(rec)
		if err != nil {
			return err
		}
		if serving == nil && f.State == lambda.Active {
			serving = f
		}
		e := &entry{shown: f, serving: serving, revision: rec.Revision, settled: closedChannel}
		if unsettled(f) {
			e.settled = make(chan struct{})
		}
		r.put(e)
		if unsettled(f) {
			r.settleLater(f)
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

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func unsettled(f *lambda.Function) bool {
	return f.State == lambda.Pending || f.UpdateStatus == lambda.UpdateInProgress
}

// Resolve returns what an invocation of the ARN runs. A function that is being
// created is waited for: that takes the time of one write, unless it is an image's.
func (r *Registry) Resolve(ctx context.Context, arn lambda.FunctionARN) (*lambda.Function, error) {
	if arn.Qualifier == "" {
		arn.Qualifier = lambda.Latest // which Invoke, unlike others, also says of a function that is missing
	}
	e, err := r.lookup(arn)
	if err != nil {
		return nil, err
	}
	if e.serving == nil && !e.shown.Code.IsImage() {
		select {
		case <-e.settled:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if e, err = r.lookup(arn); err != nil {
			return nil, err
		}
	}
	if e.serving == nil {
		return nil, lambda.Conflict("The operation cannot be performed at this time. The function is currently in the following state: %s", e.shown.State)
	}
	return e.serving, nil
}

// Get returns what the API shows of the function that the ARN names.
func (r *Registry) Get(arn lambda.FunctionARN) (*lambda.Function, error) {
	e, err := r.lookup(arn)
	if err != nil {
		return nil, err
	}
	return e.shown, nil
}

// lookup finds an entry; only $LATEST exists yet.
func (r *Registry) lookup(arn lambda.FunctionARN) (*entry, error) {
	if arn.Qualifier == "" || arn.Qualifier == lambda.Latest {
		if e := r.find(arn); e != nil {
			return e, nil
		}
	}
	return nil, lambda.NotFound("Function not found: %s", arn)
}

func (r *Registry) find(arn lambda.FunctionARN) *entry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.entries[arn.Scope][arn.Name]
}

// List returns up to limit functions of a scope in the order of their names,
// from the first after the marker, and whether there are more.
func (r *Registry) List(scope lambda.Scope, after lambda.FunctionName, limit int) (page []*lambda.Function, more bool) {
	r.mu.RLock()
	for name, e := range r.entries[scope] {
		if name > after {
			page = append(page, e.shown)
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(page, func(a, b *lambda.Function) int { return strings.Compare(string(a.ARN.Name), string(b.ARN.Name)) })
	if len(page) > limit {
		return page[:limit], true
	}
	return page, false
}

// Delete removes the function that the ARN names.
func (r *Registry) Delete(ctx context.Context, arn lambda.FunctionARN) error {
	defer r.writes.lock(arn.Unqualified().String())()
	e := r.find(arn)
	if e == nil {
		return lambda.NotFound("Function not found: %s", arn.Unqualified())
	}
	switch {
	case arn.Qualifier == lambda.Latest:
		return lambda.InvalidParameter("$LATEST version cannot be deleted without deleting the function.")
	case arn.Qualifier != "": // AWS answers the same to a version that is not there
		return nil
	}
	if _, err := r.state.Commit(ctx, state.Change{Key: key(arn), Expect: e.revision}); err != nil {
		return fmt.Errorf("delete %s: %w", arn, err)
	}
	r.mu.Lock()
	delete(r.entries[arn.Scope], arn.Name)
	if unsettled(e.shown) {
		close(e.settled) // settle will not: whoever waits for it learns that it is gone
	}
	unused := r.unreference(e.packages()...)
	r.mu.Unlock()
	r.changed(arn.Unqualified(), nil)
	r.discard(unused...)
	return nil
}

// commit makes f durable as what the API shows, and then visible. It is settled
// later: the caller answers first.
func (r *Registry) commit(ctx context.Context, f *lambda.Function, from *entry) error {
	next := &entry{shown: f, settled: make(chan struct{})}
	var expect state.Revision
	if from != nil {
		next.serving, expect = from.serving, from.revision
	}
	revision, err := r.write(ctx, next, expect)
	if err != nil {
		return err
	}
	next.revision = revision
	r.discard(r.put(next)...)
	r.settleLater(f)
	return nil
}

func (r *Registry) write(ctx context.Context, e *entry, expect state.Revision) (state.Revision, error) {
	value, err := r.encode(e.shown, e.serving)
	if err != nil {
		return 0, err
	}
	revisions, err := r.state.Commit(ctx, state.Change{Key: key(e.shown.ARN), Value: value, Expect: expect})
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", e.shown.ARN, err)
	}
	return revisions[0], nil
}

// settleLater finishes the change that f is: Pending becomes Active, InProgress
// Successful, and invocations run it from then on. An image that cannot be had
// makes either Failed.
func (r *Registry) settleLater(f *lambda.Function) {
	r.work.Go(func() {
		failure, ok := r.prepare(f)
		for ok {
			err := r.settle(f, failure)
			if err == nil {
				return
			}
			r.log.Error("a change of a function is not finished; it is tried again", "function", f.ARN.String(), "error", err)
			select {
			case <-time.After(settleRetry):
			case <-r.closing: // the next start finishes it
				return
			}
		}
	})
}

// pullTimeout bounds the copying and unpacking of an image: 10 GB at 100 Mbit/s.
const pullTimeout = 15 * time.Minute

// prepare pulls the function's image, and returns why it cannot be had. It is not
// ok when that is not known yet: the registry closes, and the next start goes on.
func (r *Registry) prepare(f *lambda.Function) (failure *lambda.Failure, ok bool) {
	if !f.Code.IsImage() {
		return nil, true
	}
	ctx, cancel := context.WithTimeout(r.ctx, pullTimeout)
	defer cancel()
	e := r.find(f.ARN)
	if e == nil || e.shown != f {
		return nil, true // deleted meanwhile, which settle sees too
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-ctx.Done():
		case <-r.closing:
			cancel()
		case <-e.settled: // deleted
			cancel()
		}
	})
	err := r.packages.Pull(ctx, f.Code)
	timedOut := ctx.Err() != nil
	cancel()
	watch.Wait()
	select {
	case <-r.closing:
		return nil, err == nil
	default:
	}
	switch {
	case err == nil:
		return nil, true
	case errors.As(err, &failure):
	case timedOut:
		failure = &lambda.Failure{Code: lambda.InternalError, Reason: fmt.Sprintf("The image %s was not here within %v.", f.Code.ResolvedImageURI, pullTimeout)}
	case errors.Is(err, state.ErrFull):
		failure = &lambda.Failure{Code: lambda.InternalError, Reason: "Kiln's disk is full, or below the floor of free space that it leaves (free_space_floor). Free some and deploy the image again."}
	default:
		failure = &lambda.Failure{Code: lambda.InternalError, Reason: "Kiln could not keep or unpack the image; its log says why."}
	}
	r.log.Warn("an image cannot be had", "function", f.ARN.String(), "image", f.Code.ResolvedImageURI, "error", err)
	return failure, true
}

func (r *Registry) settle(f *lambda.Function, failure *lambda.Failure) error {
	ctx, cancel := context.WithTimeout(r.ctx, settleTimeout)
	defer cancel()
	defer r.writes.lock(f.ARN.String())()
	e := r.find(f.ARN)
	if e == nil || e.shown != f {
		r.discard(f.Code) // deleted meanwhile: an image may have come after that
		return nil
	}
	settled := *f
	next := &entry{shown: &settled, serving: &settled, settled: closedChannel}
	switch {
	case failure == nil:
		settled.State, settled.UpdateStatus = lambda.Active, lambda.UpdateSuccessful
		settled.Reason, settled.ReasonCode = "", ""
	case e.serving != nil: // it goes on
		settled = *e.serving
		settled.UpdateStatus, settled.Reason, settled.ReasonCode = lambda.UpdateFailed, failure.Reason, string(failure.Code)
	default:
		settled.State, settled.UpdateStatus, settled.Reason, settled.ReasonCode = lambda.Failed, lambda.UpdateFailed, failure.Reason, string(failure.Code)
		next.serving = nil
	}
	settled.Revision = lambda.NewRevisionID()
	revision, err := r.write(ctx, next, e.revision)
	if err != nil {
		return err
	}
	next.revision = revision
	unused := r.put(next)
	if next.serving != nil {
		r.changed(f.ARN, next.serving)
	}
	close(e.settled)
	r.discard(unused...)
	return nil
}

// put makes an entry visible, and counts its packages in place of its
// predecessor's. It returns those that nothing has any more.
func (r *Registry) put(e *entry) (unused []lambda.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	scope := r.entries[e.shown.ARN.Scope]
	if scope == nil {
		scope = map[lambda.FunctionName]*entry{}
		r.entries[e.shown.ARN.Scope] = scope
	}
	r.reference(e.packages()...)
	if old := scope[e.shown.ARN.Name]; old != nil {
		unused = r.unreference(old.packages()...)
	}
	scope[e.shown.ARN.Name] = e
	return unused
}

// packages are what the entry needs: the code and layers of what is shown, and of
// what runs.
func (e *entry) packages() (list []lambda.Code) {
	for _, f := range []*lambda.Function{e.shown, e.serving} {
		if f == nil {
			continue
		}
		list = append(list, f.Code)
		for _, l := range f.Settings.Layers {
			list = append(list, l.Code)
		}
	}
	return list
}

// keyedLocks are locks by name.
type keyedLocks struct {
	mu    sync.Mutex
	locks map[string]*keyedLock // guarded by mu
}

type keyedLock struct {
	sync.Mutex
	users int // guarded by keyedLocks.mu
}

func (k *keyedLocks) lock(name string) (unlock func()) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyedLock{}
	}
	l := k.locks[name]
	if l == nil {
		l = &keyedLock{}
		k.locks[name] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, name)
		}
	}
}
