package invoke

import "kiln/internal/lambda"

// pool is what an invocation is counted in: all of its account and region; all of its
// function; and one of three shares, which is provisioned for the qualifier, or is the
// rest of what the function reserves, or is what the account and region have left for
// those that reserve nothing.
type pool struct {
	kind      kind
	scope     lambda.Scope
	name      lambda.FunctionName
	qualifier lambda.Qualifier
}

type kind int

const (
	account kind = iota
	function
	provisioned
	reserved
	unreserved
)

// The reasons for throttling, in AWS's words.
const (
	accountFull  = "ConcurrentInvocationLimitExceeded"
	functionFull = "ReservedFunctionConcurrentInvocationLimitExceeded"
)

// admit counts an invocation, until leave is called, in the share that it belongs to
// now, even if that is changed before it ends. So that no change has more run at once than
// it allows, what the account and the function run is bounded apart from the shares.
func (s *Service) admit(arn lambda.FunctionARN) (leave func(), throttled *lambda.Error) {
	share := s.functions.Share(arn)
	all := pool{kind: account, scope: arn.Scope}
	own := pool{kind: function, scope: arn.Scope, name: arn.Name}
	in := pool{kind: provisioned, scope: arn.Scope, name: arn.Name, qualifier: arn.Qualifier}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case share.Reserves && s.running[own] >= share.Reserved:
		return nil, lambda.Throttled(functionFull)
	case s.running[all] >= s.config.Concurrency:
		return nil, lambda.Throttled(accountFull)
	case s.running[in] < share.Provisioned:
	case share.Reserves:
		in = pool{kind: reserved, scope: arn.Scope, name: arn.Name}
		if s.running[in] >= share.Reserved-share.Function {
			return nil, lambda.Throttled(functionFull)
		}
	default:
		in = pool{kind: unreserved, scope: arn.Scope}
		if s.running[in] >= s.config.Concurrency-share.Claimed {
			return nil, lambda.Throttled(accountFull)
		}
	}
	s.count(1, all, own, in)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.count(-1, all, own, in)
	}, nil
}

// count counts in pools. s.mu is held.
func (s *Service) count(n int, pools ...pool) {
	for _, p := range pools {
		if s.running[p] += n; s.running[p] == 0 {
			delete(s.running, p)
		}
	}
}
