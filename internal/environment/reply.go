package environment

import (
	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
)

// reply is the caller's answer on its way. A whole one is handed over when it is
// complete, a stream when it begins; where the caller wants the end of the log,
// that is a part of either, so that only the end of the invocation completes it.
type reply struct {
	lambda.Result
	end  lambda.StreamEnd // of a stream
	tail *tail            // nil where nobody wants it

	deliver  func(lambda.Result)
	answered func()
	complete bool
}

// take is told of the answer, and begins it where it is a stream.
func (r *reply) take(a runtimeapi.Answer) {
	r.Payload, r.ContentType, r.Release, r.Stream = a.Payload, a.ContentType, a.Release, a.Stream
	if a.ErrorType != "" {
		r.FunctionError = "Unhandled"
	}
	if r.Stream != nil {
		r.deliver(r.Result)
	} else if r.tail == nil {
		r.finish()
	}
}

// endStream is told how the stream ended.
func (r *reply) endStream(end lambda.StreamEnd) {
	r.end = end
	if r.tail == nil {
		r.finish()
	}
}

// finish completes the answer, once. That it is complete is told first: who has it
// may call again, and finds room.
func (r *reply) finish() {
	if r.complete {
		return
	}
	r.complete = true
	if r.tail != nil {
		r.LogTail, r.end.LogTail = r.tail.buf, r.tail.buf
	}
	r.answered()
	if r.Stream != nil {
		r.Stream.Finish(r.end)
	} else {
		r.deliver(r.Result)
	}
}

// produced is the size of the function's own answer.
func (r *reply) produced() int {
	if r.Stream != nil {
		return int(r.Stream.Size())
	}
	return len(r.Payload)
}
