package api

import (
	"context"
	"errors"
	"io"
	"net/http"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/invoke"
	"kiln/internal/lambda"
)

const (
	// streamBuffer is what of a streamed answer is in memory here at once, in bytes.
	streamBuffer = 32 << 10
	// wholePiece is how an answer that is whole is cut into events, in bytes: few of
	// them, and little beside the answer itself.
	wholePiece = 1 << 20
)

// InvokeWithResponseStream runs a function and passes its answer on as it comes.
func (c *call) InvokeWithResponseStream(ctx context.Context, in *lambdaapi.InvokeWithResponseStreamInput) (*lambdaapi.InvokeWithResponseStreamOutput, error) {
	kind := lambda.InvocationType(lambdaapi.Value(in.InvocationType))
	result, err := c.invoke(ctx, in.FunctionName, in.Qualifier, in.TenantId, invoke.Request{
		Type:          kind,
		Payload:       in.Payload,
		Tail:          lambdaapi.Value(in.LogType) == "Tail",
		Stream:        true,
		ClientContext: lambdaapi.Value(in.ClientContext),
	})
	if err != nil {
		return nil, err
	}
	if kind == lambda.DryRun {
		return &lambdaapi.InvokeWithResponseStreamOutput{StatusCode: new(http.StatusNoContent)}, nil
	}
	out := &lambdaapi.InvokeWithResponseStreamOutput{
		StatusCode:      new(http.StatusOK),
		ExecutedVersion: new(string(result.ExecutedVersion)),
		EventStream: func(s *lambdaapi.EventStream) error {
			if result.Stream == nil {
				return sendWhole(s, result)
			}
			return sendStream(ctx, s, result.Stream)
		},
	}
	if result.ContentType != "" {
		out.ResponseStreamContentType = &result.ContentType
	}
	return out, nil
}

// sendWhole sends an answer that came in one piece. An error, which is one that
// came before any byte of a stream, is told at the end and is no chunk. That its code
// is Unhandled and its document the details is what callers of AWS report; that
// no chunk comes with it is unverified.
func sendWhole(s *lambdaapi.EventStream, r lambda.Result) error {
	if r.FunctionError != "" {
		return complete(s, lambda.StreamEnd{ErrorCode: r.FunctionError, ErrorDetails: r.Payload, LogTail: r.LogTail})
	}
	for rest := r.Payload; len(rest) > 0; {
		n := min(len(rest), wholePiece)
		if err := s.PayloadChunk(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return complete(s, lambda.StreamEnd{LogTail: r.LogTail})
}

// sendStream sends what comes, as it comes, until its end. A caller who leaves is
// noticed also while nothing comes.
func sendStream(ctx context.Context, s *lambdaapi.EventStream, answer *lambda.Stream) error {
	stop := context.AfterFunc(ctx, answer.Close)
	defer stop()
	buf := make([]byte, streamBuffer)
	for {
		n, err := answer.Read(buf)
		if n > 0 {
			if err := s.PayloadChunk(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return complete(s, answer.End())
		}
		if err != nil {
			return err
		}
	}
}

// complete sends the last event. Of an error within a stream, the code is the type
// that the runtime put behind the stream, or the platform's.
func complete(s *lambdaapi.EventStream, end lambda.StreamEnd) error {
	e := lambdaapi.InvokeWithResponseStreamCompleteEvent{LogResult: encoded(end.LogTail)}
	if end.ErrorCode != "" {
		e.ErrorCode = &end.ErrorCode
	}
	if len(end.ErrorDetails) > 0 {
		e.ErrorDetails = new(string(end.ErrorDetails))
	}
	return s.InvokeComplete(e)
}
