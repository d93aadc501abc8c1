package eventsource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"kiln/internal/aws/eventpattern"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/lease"
)

const (
	// firstPause and maxPause are between two tries to read a source that cannot be read:
	// a source that is started after its mapping is found soon, one that is gone costs little.
	firstPause = time.Second
	maxPause   = time.Minute
	// steady is how long a source has to be read for its failures to be forgotten.
	steady = time.Minute
	// discards is how often a batch that is given up is sent to its destination, and
	// discardPause is before the second time; it doubles.
	discards     = 4
	discardPause = time.Second
)

// Mappings is what is configured; it is mapping.Registry.
type Mappings interface {
	All() []*lambda.EventSourceMapping
}

// Roles says what functions may do.
type Roles interface {
	Authorise(who lambda.Principal, action string, resource lambda.ARN) error
	Acting(fn *lambda.Function) lambda.Principal
}

// Sender gives up batches; it is destination.Sender.
type Sender interface {
	Batch(ctx context.Context, to lambda.Destination, b destination.Batch) error
}

// Source is a kind of source that can be read.
type Source struct {
	Driver Driver
	// Actions are what a function's role must allow on a source, as on AWS.
	Actions []string
}

// Config of Pollers.
type Config struct {
	Sources  map[lambda.SourceKind]Source
	Mappings Mappings
	Invoker  Invoker
	Roles    Roles
	Sender   Sender
	State    state.State
	Leases   *lease.Leases
	// Endpoint is the URL of a service by its name in signatures, for a source by its ARN,
	// or "".
	Endpoint func(service, source string) string
	// Counter counts for a mapping.
	Counter func(m *lambda.EventSourceMapping) Counter
	Log     *slog.Logger
}

// Pollers run one poller for each mapping that is enabled. They are safe for
// concurrent use.
type Pollers struct {
	cfg  Config
	wake chan struct{} // has room for one: something has changed

	mu      sync.Mutex
	changes map[lambda.MappingARN]*lambda.EventSourceMapping // guarded by mu; nil is gone
	results map[lambda.MappingARN]string                     // guarded by mu; of those that run
}

// New starts nothing.
func New(cfg Config) *Pollers {
	return &Pollers{
		cfg: cfg, wake: make(chan struct{}, 1),
		changes: map[lambda.MappingARN]*lambda.EventSourceMapping{}, results: map[lambda.MappingARN]string{},
	}
}

// Changed is told of a mapping that is new, or does something else now; of one that is
// gone, now is nil. It does not wait.
func (p *Pollers) Changed(arn lambda.MappingARN, now *lambda.EventSourceMapping) {
	p.mu.Lock()
	p.changes[arn] = now
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default: // it will look
	}
}

// Result is how the poller of a mapping fares, or "" where none runs.
func (p *Pollers) Result(arn lambda.MappingARN) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.results[arn]
}

// tell remembers how a poller fares; "" forgets it.
func (p *Pollers) tell(arn lambda.MappingARN, result string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.results[arn] = result; result == "" {
		delete(p.results, arn)
	}
}

// poller is one that runs, or ends.
type poller struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// Run polls until ctx ends: then nothing more is taken, what was begun is finished, and
// Run returns.
func (p *Pollers) Run(ctx context.Context) error {
	if err := sweep(ctx, p.cfg.State, p.cfg.Mappings.All()); err != nil && ctx.Err() == nil {
		p.cfg.Log.Warn("what was remembered of mappings that are gone could not be removed", "error", err)
	}
	for _, m := range p.cfg.Mappings.All() {
		p.mu.Lock()
		if _, changed := p.changes[m.ARN]; !changed {
			p.changes[m.ARN] = m
		}
		p.mu.Unlock()
	}
	pollers := map[lambda.MappingARN]*poller{}
	for {
		p.mu.Lock()
		changes := p.changes
		p.changes = map[lambda.MappingARN]*lambda.EventSourceMapping{}
		p.mu.Unlock()
		for arn, m := range changes {
			if next := p.replace(ctx, arn, m, pollers[arn]); next != nil {
				pollers[arn] = next
			}
		}
		maps.DeleteFunc(pollers, func(_ lambda.MappingARN, q *poller) bool { return q.over() })
		select {
		case <-p.wake:
			continue
		case <-ctx.Done():
		}
		for _, q := range pollers { // all end with ctx
			<-q.ended
		}
		return nil
	}
}

func (q *poller) over() bool {
	select {
	case <-q.ended:
		return true
	default:
		return false
	}
}

// replace ends the poller of a mapping, and begins the next one after that. It does not
// wait for either.
func (p *Pollers) replace(ctx context.Context, arn lambda.MappingARN, m *lambda.EventSourceMapping, was *poller) *poller {
	if was != nil {
		was.cancel()
	} else if m == nil || m.State != lambda.MappingEnabled {
		p.tell(arn, "")
		if m == nil {
			p.forget(ctx, arn)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	next := &poller{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(next.ended) // Run waits for it
		defer cancel()
		if was != nil {
			<-was.ended
		}
		switch {
		case m == nil:
			p.forget(context.WithoutCancel(ctx), arn)
		case m.State == lambda.MappingEnabled && ctx.Err() == nil:
			p.run(ctx, m)
		}
	}()
	return next
}

// forget drops what is known of a mapping that is gone.
func (p *Pollers) forget(ctx context.Context, arn lambda.MappingARN) {
	if err := forget(ctx, p.cfg.State, arn); err != nil && ctx.Err() == nil {
		p.cfg.Log.Warn("what was remembered of a mapping that is gone could not be removed; it is removed at the next start", "mapping", arn, "error", err)
	}
}

// run polls for a mapping until ctx ends.
func (p *Pollers) run(ctx context.Context, m *lambda.EventSourceMapping) {
	log := p.cfg.Log.With("mapping", m.ARN.ID, "source", cmp.Or(m.Source.ARN, fmt.Sprint(m.Source.Brokers)), "function", m.Function.String())
	source, ok := p.cfg.Sources[m.Source.Kind]
	if !ok {
		p.tell(m.ARN, fmt.Sprintf("PROBLEM: this Kiln does not read %s event sources.", m.Source.Kind))
		log.Warn("this kind of event source is not read", "kind", m.Source.Kind)
		return
	}
	defer p.tell(m.ARN, "")
	p.tell(m.ARN, ResultNone)
	told := ""
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, maxPause) {
		began := time.Now()
		err := p.cfg.Leases.Hold(ctx, m.ARN.Scope, m.ARN.ID, func(ctx context.Context) error { return p.poll(ctx, m, source) })
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steady {
			pause, told = firstPause, ""
		}
		if err == nil {
			err = errors.New("the poller ended")
		}
		p.tell(m.ARN, "PROBLEM: "+err.Error())
		if text := err.Error(); text != told { // once, however often it is tried
			log.Warn("the event source cannot be read; it is tried again", "error", err)
			told = text
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// poll has the driver read the source until ctx ends, or it cannot.
func (p *Pollers) poll(ctx context.Context, m *lambda.EventSourceMapping, source Source) error {
	fn, err := p.cfg.Invoker.Function(ctx, m.Function)
	if err != nil {
		return err
	}
	if err := p.mayRead(fn, m, source.Actions); err != nil {
		return err
	}
	remembered, err := positionsOf(ctx, p.cfg.State, m.ARN)
	if err != nil {
		return err
	}
	connections := &connections{endpoint: p.cfg.Endpoint}
	defer connections.close()
	w := &Work{
		Mapping: m, Positions: remembered, Connector: connections, Counter: p.cfg.Counter(m),
		Log: p.cfg.Log.With("mapping", m.ARN.ID, "function", m.Function.String()),
		invoke: func(payload []byte, trace string) (lambda.Result, error) {
			return p.cfg.Invoker.Invoke(context.WithoutCancel(ctx), m.Function, payload, trace)
		},
		resolve: func(ctx context.Context) (*lambda.Function, error) { return p.cfg.Invoker.Function(ctx, m.Function) },
		discard: func(ctx context.Context, f Failure) error { return p.discard(ctx, m, f) },
		tell:    func(result string) { p.tell(m.ARN, result) },
	}
	if len(m.Settings.Filters) > 0 {
		if w.Filter, err = eventpattern.ParseSet(m.Settings.Filters...); err != nil {
			return err // it was checked when it was set
		}
	}
	return source.Driver.Poll(ctx, w)
}

// mayRead refuses what the function's role does not allow.
func (p *Pollers) mayRead(fn *lambda.Function, m *lambda.EventSourceMapping, actions []string) error {
	for _, action := range actions {
		if err := p.cfg.Roles.Authorise(p.cfg.Roles.Acting(fn), action, lambda.ForeignARN{Name: m.Source.ARN, Account: m.ARN.Account}); err != nil {
			return fmt.Errorf("the execution role %s does not allow %s on the event source: %w", fn.Settings.Role, action, err)
		}
	}
	return nil
}

// discard sends a batch that is given up to the mapping's destination.
func (p *Pollers) discard(ctx context.Context, m *lambda.EventSourceMapping, f Failure) (err error) {
	to := lambda.Destination(*m.Settings.OnFailure)
	if fn, err := p.cfg.Invoker.Function(ctx, m.Function); err == nil {
		action, on := f.Permission(to, m.ARN.Account)
		if err := p.cfg.Roles.Authorise(p.cfg.Roles.Acting(fn), action, on); err != nil {
			return fmt.Errorf("send to %s: %w", to, err)
		}
	}
	f.Scope = m.ARN.Scope
	for try, pause := 0, discardPause; try < discards; try, pause = try+1, 2*pause {
		if err = p.cfg.Sender.Batch(ctx, to, f); err == nil || destination.Permanent(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
	return err
}
