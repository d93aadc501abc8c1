package registry

import (
	"context"
	"slices"

	"kiln/internal/lambda"
)

// AddPermission adds a statement to the policy of the function, version or alias that
// the ARN names.
func (r *Registry) AddPermission(ctx context.Context, arn lambda.FunctionARN, s lambda.Statement, revision lambda.RevisionID) error {
	return r.changePolicy(ctx, arn, revision, func(p *lambda.Policy) error { return addStatement(p, s, arn.String()) })
}

// RemovePermission removes a statement from it.
func (r *Registry) RemovePermission(ctx context.Context, arn lambda.FunctionARN, id string, revision lambda.RevisionID) error {
	return r.changePolicy(ctx, arn, revision, func(p *lambda.Policy) error { return removeStatement(p, id) })
}

func (r *Registry) changePolicy(ctx context.Context, arn lambda.FunctionARN, revision lambda.RevisionID, change func(*lambda.Policy) error) error {
	return r.Attach(ctx, arn, func(o *Owner) error {
		if revision != "" && revision != o.Revision {
			if arn.Qualifier != "" {
				return lambda.PreconditionFailed("GetPolicy")
			}
			return lambda.PreconditionFailed("GetFunction/GetAlias")
		}
		o.Revision = lambda.NewRevisionID()
		return change(&o.Attached.Policy)
	})
}

// addStatement adds to the policy of the resource of that ARN.
func addStatement(p *lambda.Policy, s lambda.Statement, resource string) error {
	if slices.ContainsFunc(p.Statements, func(other lambda.Statement) bool { return other.ID == s.ID }) {
		return lambda.Conflict("The statement id (%s) provided already exists. Please provide a new statement id, or remove the existing statement.", s.ID)
	}
	p.Statements = append(slices.Clip(p.Statements), s)
	if size := len(p.JSON(resource)); size > lambda.MaxPolicy {
		return lambda.PolicyLengthExceeded(size)
	}
	return nil
}

func removeStatement(p *lambda.Policy, id string) error {
	if len(p.Statements) == 0 {
		return noPolicy()
	}
	rest := slices.DeleteFunc(slices.Clone(p.Statements), func(s lambda.Statement) bool { return s.ID == id })
	if len(rest) == len(p.Statements) {
		return lambda.NotFound("Statement %s is not found in resource policy.", id)
	}
	p.Statements = rest
	return nil
}

func noPolicy() error { return lambda.NotFound("No policy is associated with the given resource.") }
