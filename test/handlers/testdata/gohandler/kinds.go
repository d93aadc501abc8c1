package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

// kinds are handlers of every form, and of none, by the variable KIND.
var kinds = map[string]any{
	"number":           5,
	"nil":              nil,
	"three arguments":  func(context.Context, string, string) error { return nil },
	"no context first": func(string, string) error { return nil },
	"three results":    func() (int, int, error) { return 0, 0, nil },
	"no error second":  func() (int, int) { return 0, 0 },
	"no error":         func() int { return 0 },

	"nothing":    func() {},
	"error":      func() error { return nil },
	"in":         func(string) error { return nil },
	"out":        func() (string, error) { return "<out>", nil },
	"in and out": func(s string) (string, error) { return s + s, nil },
	"context":    func(ctx context.Context) error { return nil },
	"handler":    invoker{},
	"wrong in":   func(int) error { return nil },

	"value":          func() error { return value{"v"} },
	"pointer":        func() error { return &value{"p"} },
	"wrapped":        func() error { return fmt.Errorf("outer: %w", errors.New("inner")) },
	"document":       func() error { return messages.InvokeResponse_Error{Type: "Own", Message: "own"} },
	"panic of error": func() error { panic(&value{"panicked"}) },
	"panic of nil":   func() error { var m map[string]int; m["x"] = 1; return nil },

	"reader": func() (io.Reader, error) { return strings.NewReader("read"), nil },
	"typed":  func() (io.Reader, error) { return typed{strings.NewReader("<p>")}, nil },
	"broken": func() (io.Reader, error) { return io.MultiReader(strings.NewReader("half"), failing{}), nil },

	"who": func(ctx context.Context) (any, error) {
		c, _ := lambdacontext.FromContext(ctx)
		return map[string]any{
			"client": c.ClientContext.Client, "custom": c.ClientContext.Custom, "env": c.ClientContext.Env,
			"identity": c.Identity.CognitoIdentityID, "trace": ctx.Value("x-amzn-trace-id"),
		}, nil
	},
}

type invoker struct{}

func (invoker) Invoke(_ context.Context, payload []byte) ([]byte, error) {
	return append([]byte(`{"raw":`), append(payload, '}')...), nil
}

type value struct{ text string }

func (v value) Error() string { return v.text }

// typed has no exported field: what encodes to more than {} is sent as JSON.
type typed struct{ from io.Reader }

func (t typed) Read(p []byte) (int, error) { return t.from.Read(p) }

func (typed) ContentType() string { return "text/html" }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, &value{"the other half"} }
