package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"kiln/internal/state"
)

const (
	routePrefix = "route."
	// errorHeader marks an answer whose body is the called handler's error.
	errorHeader = "Kiln-Error"
	// maxCalls bounds the calls that one Serve answers at once; more wait.
	maxCalls = 256
)

// Route carries calls as requests on a subject of the node.
type Route struct{ engine *Engine }

// Serve answers calls until ctx ends, or fails once the server is exchanged, and returns when the handlers that run have
// ended; their own context ends with ctx.
func (r *Route) Serve(ctx context.Context, name string, handle func(ctx context.Context, request []byte) ([]byte, error)) error {
	subject, err := routeSubject(r.engine.cfg.Node, name)
	if err != nil {
		return err
	}
	calls := make(chan *nats.Msg, maxCalls)
	on, err := r.engine.current()
	if err != nil {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	sub, err := on.conn.ChanSubscribe(subject, calls)
	if err != nil {
		return fmt.Errorf("serve %s: %w", name, explain(err))
	}
	defer sub.Unsubscribe()
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, maxCalls)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		select {
		case <-on.over.Done():
			return fmt.Errorf("serve %s: %w", name, context.Cause(on.over))
		case call := <-calls:
			running.Go(func() {
				defer func() { <-slots }()
				r.answer(ctx, on.conn, call, handle)
			})
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Route) answer(ctx context.Context, conn *nats.Conn, call *nats.Msg, handle func(context.Context, []byte) ([]byte, error)) {
	data, err := handle(ctx, call.Data)
	if err == nil {
		// An answer that cannot be sent, because it is too large, becomes an error:
		// the caller must not wait for its timeout.
		err = conn.PublishMsg(&nats.Msg{Subject: call.Reply, Data: data})
	}
	if err == nil {
		return
	}
	failed := &nats.Msg{Subject: call.Reply, Header: nats.Header{errorHeader: {"1"}}, Data: []byte(explain(err).Error())}
	if err := conn.PublishMsg(failed); err != nil {
		r.engine.cfg.Log.Warn("a call could not be answered", "subject", call.Subject, "error", err)
	}
}

// Call asks a node and waits for its answer until ctx ends. It fails with
// state.ErrNotFound when no node of that id serves the name.
func (r *Route) Call(ctx context.Context, node, name string, request []byte) ([]byte, error) {
	subject, err := routeSubject(node, name)
	if err != nil {
		return nil, err
	}
	on, err := r.engine.current()
	if err != nil {
		return nil, fmt.Errorf("call %s on node %s: %w", name, node, err)
	}
	answer, err := on.conn.RequestWithContext(ctx, subject, request)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("call %s on node %s: %w", name, node, state.ErrNotFound)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("call %s on node %s: %w", name, node, context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("call %s on node %s: %w", name, node, explain(err))
	}
	if answer.Header.Get(errorHeader) != "" {
		return nil, fmt.Errorf("node %s: %s", node, answer.Data)
	}
	return answer.Data, nil
}

func routeSubject(node, name string) (string, error) {
	if !isToken(node) {
		return "", fmt.Errorf("the node id %q is not one token of [a-zA-Z0-9_-]", node)
	}
	if err := checkKey(name); err != nil {
		return "", err
	}
	return routePrefix + node + "." + name, nil
}
