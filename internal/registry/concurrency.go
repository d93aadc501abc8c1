package registry

import (
	"context"
	"math"
	"time"

	"kiln/internal/lambda"
)

// claim is what a function has of its scope's concurrent executions to itself.
type claim struct {
	reserved    *int
	provisioned int // for all its qualifiers
}

// sum is the claim as a number: what is provisioned is part of what is reserved.
func (c claim) sum() int {
	if c.reserved != nil {
		return *c.reserved
	}
	return c.provisioned
}

// claim keeps the claims of a scope in step with what an owner has attached. Every
// invocation asks for their sum. The registry's mu is held.
func (s *functions) claim(name lambda.FunctionName, was, now *lambda.Attached) {
	c := s.claims[name]
	s.claimed -= c.sum()
	if was != nil {
		if was.Reserved != nil {
			c.reserved = nil
		}
		c.provisioned -= provisioned(was)
	}
	if now != nil {
		if now.Reserved != nil {
			c.reserved = now.Reserved
		}
		c.provisioned += provisioned(now)
	}
	s.claimed += c.sum()
	if c == (claim{}) {
		delete(s.claims, name)
	} else {
		s.claims[name] = c
	}
}

func provisioned(a *lambda.Attached) int {
	if a.Provisioned == nil {
		return 0
	}
	return a.Provisioned.Requested
}

// Share tells what there is for invocations of a function by the ARN's qualifier.
func (r *Registry) Share(arn lambda.FunctionARN) lambda.Share {
	r.mu.RLock()
	defer r.mu.RUnlock()
	scope := r.functions[arn.Scope]
	if scope == nil {
		return lambda.Share{}
	}
	c := scope.claims[arn.Name]
	share := lambda.Share{Function: c.provisioned, Claimed: scope.claimed}
	if c.reserved != nil {
		share.Reserves, share.Reserved = true, *c.reserved
	}
	if c.provisioned > 0 {
		if o, err := r.owner(arn); err == nil {
			share.Provisioned = provisioned(&o.Attached)
		}
	}
	return share
}

// Loops tells whether the function may be invoked in a loop.
func (r *Registry) Loops(arn lambda.FunctionARN) bool {
	o, err := r.Owner(arn.Qualified(lambda.Latest))
	return err == nil && o.Attached.RecursiveLoop == "Allow"
}

// Allotment is provisioned concurrency as it is to be kept: environments of one version
// on behalf of an owner, which is that version or an alias that leads to it.
type Allotment struct {
	Owner        lambda.FunctionARN
	Function     *lambda.Function
	Environments int
}

// Allotments are what the provisioned concurrency of a function's versions and aliases
// comes to now. An alias of two versions has it divided by their weights. A version
// that is not settled yet gets its part when it is.
func (r *Registry) Allotments(arn lambda.FunctionARN) (list []Allotment) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f := r.function(arn)
	if f == nil {
		return nil
	}
	add := func(owner, version lambda.Qualifier, n int) {
		if e := f.version(version); e != nil && e.serving != nil && n > 0 {
			list = append(list, Allotment{arn.Qualified(owner), e.serving, n})
		}
	}
	for _, v := range f.versions {
		add(v.shown.Version, v.shown.Version, provisioned(&v.attached))
	}
	for name, a := range f.aliases {
		n, further := provisioned(&a.attached), 0
		if other := a.shown.Additional; other != nil {
			further = int(math.Round(float64(n) * other.Weight))
			add(name, other.Version, further)
		}
		add(name, a.shown.Version, n-further)
	}
	return list
}

// Provisioning are the functions that have provisioned concurrency.
func (r *Registry) Provisioning() (list []lambda.FunctionARN) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for scope, functions := range r.functions {
		for name, c := range functions.claims {
			if c.provisioned > 0 {
				list = append(list, lambda.FunctionARN{Scope: scope, Name: name})
			}
		}
	}
	return list
}

// provisions tells whether a function has provisioned concurrency.
func (r *Registry) provisions(arn lambda.FunctionARN) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	scope := r.functions[arn.Scope]
	return scope != nil && scope.claims[arn.Name].provisioned > 0
}

// tellProvisioned tells of a change of a function that had provisioned concurrency, or
// has. The function's lock is held, so that the last to be told is the last change.
func (r *Registry) tellProvisioned(arn lambda.FunctionARN, had bool) {
	if r.config.Provisioned != nil && (had || r.provisions(arn)) {
		r.config.Provisioned(arn.Unqualified())
	}
}

// Reserve gives a function concurrent executions to itself; nil ends that.
func (r *Registry) Reserve(ctx context.Context, arn lambda.FunctionARN, n *int) error {
	defer r.lockConcurrency(arn.Scope)()
	return r.Attach(ctx, arn, func(o *Owner) error {
		if n == nil {
			o.Attached.Reserved = nil
			return nil
		}
		committed, provisioned := r.committed(arn)
		if *n < provisioned {
			return lambda.InvalidParameter(" ReservedConcurrentExecutions  %d should not be lower than function's total provisioned concurrency [%d].", *n, provisioned)
		}
		if left := r.config.Concurrency - committed - *n; left < r.minUnreserved() {
			return lambda.InvalidParameter("Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [%d].", r.minUnreserved())
		}
		o.Attached.Reserved = n
		return nil
	})
}

// Provision gives a version or an alias provisioned concurrency.
func (r *Registry) Provision(ctx context.Context, arn lambda.FunctionARN, n int) (*lambda.Provisioned, error) {
	defer r.lockConcurrency(arn.Scope)()
	p := &lambda.Provisioned{Requested: n, Modified: time.Now().UTC()}
	return p, r.Attach(ctx, arn, func(o *Owner) error {
		if err := r.checkOverlap(arn); err != nil {
			return err
		}
		share := r.Share(arn)
		committed, provisioned := r.committed(arn)
		provisioned -= share.Provisioned
		unreserved := r.config.Concurrency - committed - provisioned
		switch {
		case share.Reserves && provisioned+n > share.Reserved:
			return lambda.InvalidParameter("Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function")
		case share.Reserves: // taken from what is reserved already
		case n > unreserved:
			return lambda.InvalidParameter("Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [%d].", unreserved)
		case unreserved-n < r.minUnreserved():
			return lambda.InvalidParameter("Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [%d].", r.minUnreserved())
		}
		o.Attached.Provisioned = p
		return nil
	})
}

// checkOverlap refuses provisioned concurrency of an alias whose version has its own,
// and of a version whose alias has.
func (r *Registry) checkOverlap(arn lambda.FunctionARN) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f := r.function(arn)
	if a := f.alias(arn.Qualifier); a != nil {
		if v := f.version(a.shown.Version); v != nil && v.attached.Provisioned != nil {
			return lambda.Conflict("Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version")
		}
		return nil
	}
	for _, a := range f.aliases {
		if a.attached.Provisioned != nil && a.shown.Version == arn.Qualifier {
			return lambda.Conflict("Version is pointed by a Provisioned Concurrency alias")
		}
	}
	return nil
}

// Unprovision takes provisioned concurrency away, if there is any.
func (r *Registry) Unprovision(ctx context.Context, arn lambda.FunctionARN) error {
	return r.Attach(ctx, arn, func(o *Owner) error {
		o.Attached.Provisioned = nil
		return nil
	})
}

// committed are the concurrent executions of the scope that functions but this one
// have to themselves, reserved or provisioned, and those that are provisioned for this.
func (r *Registry) committed(arn lambda.FunctionARN) (others, own int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	scope := r.functions[arn.Scope]
	if scope == nil {
		return 0, 0
	}
	c := scope.claims[arn.Name]
	return scope.claimed - c.sum(), c.provisioned
}

// lockConcurrency makes decisions about what is left of a scope's concurrency one
// after the other. It is taken before a function's lock.
func (r *Registry) lockConcurrency(scope lambda.Scope) (unlock func()) {
	return r.writes.lock("concurrency of " + scope.String())
}

// minUnreserved is what reserving must leave: 100 of AWS's 1000, and as large a part of
// less.
func (r *Registry) minUnreserved() int { return min(lambda.MinUnreserved, r.config.Concurrency/10) }
