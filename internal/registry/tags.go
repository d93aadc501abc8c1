package registry

import (
	"context"

	"kiln/internal/lambda"
)

// Tag sets and removes tags of a function, which gives it another revision.
func (r *Registry) Tag(ctx context.Context, arn lambda.FunctionARN, set map[string]string, remove []string) error {
	defer r.writes.lock(arn.Unqualified().String())()
	e := r.find(arn.Unqualified())
	if e == nil {
		return notFound(arn)
	}
	tags, err := lambda.Retag(e.shown.Tags, set, remove)
	if err != nil {
		return err
	}
	next := *e
	tagged := func(f *lambda.Function) *lambda.Function {
		now := *f
		now.Tags, now.Revision = tags, lambda.NewRevisionID()
		return &now
	}
	next.shown = tagged(e.shown)
	switch e.serving {
	case nil:
	case e.shown:
		next.serving = next.shown
	default: // it is shown again where the change under way fails
		next.serving = tagged(e.serving)
	}
	return r.commit(ctx, &next)
}

// Tags returns the tags of a function.
func (r *Registry) Tags(arn lambda.FunctionARN) (map[string]string, error) {
	e := r.find(arn.Unqualified())
	if e == nil {
		return nil, notFound(arn)
	}
	return e.shown.Tags, nil
}
