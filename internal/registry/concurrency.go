package registry

import (
	"context"
	"time"

	"kiln/internal/lambda"
)

// Reserved tells how many concurrent executions a function has to itself (reserves
// is false where it shares), and how many all functions of its scope have so.
func (r *Registry) Reserved(arn lambda.FunctionARN) (own int, reserves bool, all int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	scope := r.functions[arn.Scope]
	if scope == nil {
		return 0, false, 0
	}
	if f := scope.find(arn.Name); f != nil && f.latest.attached.Reserved != nil {
		return *f.latest.attached.Reserved, true, scope.reserved
	}
	return 0, false, scope.reserved
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
		own, reserves, _ := r.Reserved(arn)
		committed, provisioned := r.committed(arn)
		if was := o.Attached.Provisioned; was != nil {
			provisioned -= was.Requested
		}
		unreserved := r.config.Concurrency - committed - provisioned
		switch {
		case reserves && provisioned+n > own:
			return lambda.InvalidParameter("Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function")
		case reserves: // taken from what is reserved already
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
	for name, f := range r.functions[arn.Scope].after("") {
		provisioned := 0
		add := func(a *lambda.Attached) {
			if a.Provisioned != nil {
				provisioned += a.Provisioned.Requested
			}
		}
		for _, v := range f.versions {
			add(&v.attached)
		}
		for _, a := range f.aliases {
			add(&a.attached)
		}
		switch reserved := f.latest.attached.Reserved; {
		case name == arn.Name:
			own = provisioned
		case reserved != nil:
			others += *reserved
		default:
			others += provisioned
		}
	}
	return others, own
}

// lockConcurrency makes decisions about what is left of a scope's concurrency one
// after the other. It is taken before a function's lock.
func (r *Registry) lockConcurrency(scope lambda.Scope) (unlock func()) {
	return r.writes.lock("concurrency of " + scope.String())
}

// minUnreserved is what reserving must leave: 100 of AWS's 1000, and as large a part of
// less.
func (r *Registry) minUnreserved() int { return min(lambda.MinUnreserved, r.config.Concurrency/10) }
