// Package mapping is the event source mappings of every account and region, as
// resources: it decides what may be created and changed, and keeps it. It reads
// no source and knows nothing of whether one exists: pollers do, which learn of
// mappings from it. The Lambda API's door calls it; it starts nothing.
package mapping

import (
	"context"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/table"
)

// Functions knows what mappings can be for.
type Functions interface {
	// Get fails with a ResourceNotFoundException for what does not exist.
	Get(arn lambda.FunctionARN) (*lambda.Function, error)
}

// Registry is safe for concurrent use.
type Registry struct {
	mappings  *table.Table[lambda.EventSourceMapping]
	functions Functions
	changed   func(arn lambda.MappingARN, now *lambda.EventSourceMapping)
}

// New returns an empty registry. changed is called after every change of what a
// mapping does; now is nil when the mapping is gone.
func New(st state.State, functions Functions, changed func(lambda.MappingARN, *lambda.EventSourceMapping)) *Registry {
	return &Registry{mappings: table.New[lambda.EventSourceMapping](st, "mapping"), functions: functions, changed: changed}
}

// Open loads everything.
func (r *Registry) Open(ctx context.Context) error { return r.mappings.Open(ctx) }

// Create is what CreateEventSourceMapping asks for.
type Create struct {
	Scope    lambda.Scope
	Function lambda.FunctionARN
	Source   lambda.EventSource // its kind is found out
	Settings lambda.MappingSettings
	Disabled bool
	Tags     map[string]string
}

// Create makes a mapping. What it returns is Creating, or Disabled.
func (r *Registry) Create(ctx context.Context, c Create) (*lambda.EventSourceMapping, error) {
	m := &lambda.EventSourceMapping{
		ARN:      lambda.MappingARN{Scope: c.Scope, ID: lambda.NewUUID()},
		State:    rest(!c.Disabled),
		Function: c.Function,
		Source:   c.Source,
		Modified: time.Now().UTC(),
	}
	if err := identify(&m.Source, &c.Settings); err != nil {
		return nil, err
	}
	m.Settings = defaults(m, &c.Settings)
	if err := change(m, &c.Settings); err != nil {
		return nil, err
	}
	var err error
	if m.Tags, err = lambda.Retag(nil, c.Tags, nil); err != nil {
		return nil, err
	}
	return r.write(ctx, m.ARN, func(*lambda.EventSourceMapping) (*lambda.EventSourceMapping, error) { return m, r.checkUse(m) })
}

func rest(enabled bool) lambda.MappingState {
	if enabled {
		return lambda.MappingEnabled
	}
	return lambda.MappingDisabled
}

// checkUse refuses a mapping for a function that is not there, or that is one already.
func (r *Registry) checkUse(m *lambda.EventSourceMapping) error {
	if _, err := r.functions.Get(m.Function); err != nil {
		if e := lambda.AsError(err); e != nil && e.Code == "ResourceNotFoundException" {
			return lambda.InvalidParameter("Function does not exist")
		}
		return err
	}
	other := r.mappings.Find(m.ARN.Scope, func(other *lambda.EventSourceMapping) bool {
		return other.ARN != m.ARN && other.Function == m.Function && sameSource(&other.Source, &m.Source)
	})
	if other == nil {
		return nil
	}
	return duplicate(m, other.ARN.ID)
}

// Get returns a mapping.
func (r *Registry) Get(arn lambda.MappingARN) (*lambda.EventSourceMapping, error) {
	if m := r.mappings.Get(arn.Scope, arn.ID); m != nil {
		return m, nil
	}
	return nil, notFound()
}

func notFound() error { return lambda.NotFound("The resource you requested does not exist.") }

// All returns every mapping, in no order.
func (r *Registry) All() []*lambda.EventSourceMapping { return r.mappings.All() }

// Filter picks mappings; "" and nil are any.
type Filter struct {
	Source   string              // ARN
	Function *lambda.FunctionARN // with the qualifier that the mapping is for
}

// List returns up to limit mappings of a scope in the order of their ids, from the
// first after the marker, and whether there are more.
func (r *Registry) List(scope lambda.Scope, f Filter, after string, limit int) (page []*lambda.EventSourceMapping, more bool) {
	return r.mappings.Page(scope, after, limit, func(m *lambda.EventSourceMapping) bool {
		return (f.Source == "" || m.Source.ARN == f.Source) && (f.Function == nil || m.Function == *f.Function)
	})
}

// Update is what UpdateEventSourceMapping asks for.
type Update struct {
	ARN      lambda.MappingARN
	Function *lambda.FunctionARN // nil keeps it
	Enabled  *bool               // nil keeps it
	Settings lambda.MappingSettings
}

// Update changes a mapping. What it returns is Updating, Enabling or Disabling.
func (r *Registry) Update(ctx context.Context, u Update) (*lambda.EventSourceMapping, error) {
	return r.write(ctx, u.ARN, func(was *lambda.EventSourceMapping) (*lambda.EventSourceMapping, error) {
		if was == nil {
			return nil, notFound()
		}
		m := *was
		if u.Enabled != nil {
			m.State = rest(*u.Enabled)
		}
		if err := change(&m, &u.Settings); err != nil {
			return nil, err
		}
		if u.Function != nil {
			m.Function = *u.Function
			if err := r.checkUse(&m); err != nil {
				return nil, err
			}
		}
		m.Modified = time.Now().UTC()
		return &m, nil
	})
}

// Delete removes a mapping. What it returns is Deleting.
func (r *Registry) Delete(ctx context.Context, arn lambda.MappingARN) (*lambda.EventSourceMapping, error) {
	return r.write(ctx, arn, func(was *lambda.EventSourceMapping) (*lambda.EventSourceMapping, error) {
		if was == nil {
			return nil, notFound()
		}
		return nil, nil
	})
}

// Tag sets and removes tags of a mapping, which changes nothing of what it does.
func (r *Registry) Tag(ctx context.Context, arn lambda.MappingARN, set map[string]string, remove []string) error {
	_, err := r.mappings.Change(ctx, arn.Scope, arn.ID, func(was *lambda.EventSourceMapping) (*lambda.EventSourceMapping, error) {
		if was == nil {
			return nil, lambda.NotFound("Event source mapping not found: %s", arn)
		}
		m := *was
		var err error
		m.Tags, err = lambda.Retag(was.Tags, set, remove)
		return &m, err
	})
	return err
}

// Tags returns the tags of a mapping.
func (r *Registry) Tags(arn lambda.MappingARN) (map[string]string, error) {
	m := r.mappings.Get(arn.Scope, arn.ID)
	if m == nil {
		return nil, lambda.NotFound("Event source mapping not found: %s", arn)
	}
	return m.Tags, nil
}

// write makes a change, announces it, and returns the mapping in the state that
// the operation answers.
func (r *Registry) write(ctx context.Context, arn lambda.MappingARN, change func(was *lambda.EventSourceMapping) (*lambda.EventSourceMapping, error)) (*lambda.EventSourceMapping, error) {
	var was *lambda.EventSourceMapping
	now, err := r.mappings.Change(ctx, arn.Scope, arn.ID, func(w *lambda.EventSourceMapping) (*lambda.EventSourceMapping, error) {
		was = w
		return change(w)
	})
	if err != nil {
		return nil, err
	}
	r.changed(arn, now)
	if now == nil {
		gone := *was
		gone.State = lambda.MappingDeleting
		return &gone, nil
	}
	answer := *now
	answer.State = passing(was, now)
	return &answer, nil
}

// passing is the state of a mapping on its way from was to now.
func passing(was, now *lambda.EventSourceMapping) lambda.MappingState {
	switch {
	case was == nil && now.State == lambda.MappingDisabled:
		return lambda.MappingDisabled
	case was == nil:
		return lambda.MappingCreating
	case was.State == now.State:
		return lambda.MappingUpdating
	case now.State == lambda.MappingEnabled:
		return lambda.MappingEnabling
	default:
		return lambda.MappingDisabling
	}
}
