package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// settleTimeout bounds the writes that finish a change in the background.
const settleTimeout = 30 * time.Second

// settleRetry is how long after a failure, such as a full disk, they are tried again.
const settleRetry = 5 * time.Second

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
	e := r.find(f.VersionARN())
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
	e := r.find(f.VersionARN())
	if e == nil || e.shown != f {
		r.discard(f.Code) // deleted meanwhile: an image may have come after that
		return nil
	}
	settled := *f
	next := *e
	next.shown, next.serving = &settled, &settled
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
	return r.commit(ctx, &next)
}
