package ruby_test

import (
	"os"
	"sync"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/ruby"
	"kiln/internal/environment/clienttest"
	"kiln/internal/lambda"
)

// catalog is shared: looking for interpreters takes a second, and its result is immutable.
var catalog = sync.OnceValue(func() *bootstrap.Catalog {
	dir, err := os.MkdirTemp("", "kiln-ruby-test-")
	if err != nil {
		panic(err)
	}
	clients = dir
	return bootstrap.New([]bootstrap.Family{ruby.New()}, bootstrap.Config{Dir: dir, Getenv: os.Getenv, AnyRuntime: true})
})

var clients string

func TestMain(m *testing.M) {
	code := m.Run()
	if clients != "" {
		_ = os.RemoveAll(clients)
	}
	os.Exit(code)
}

// newest is the newest Ruby here, for whichever identifier it serves.
func newest(t testing.TB) *bootstrap.Runtime {
	t.Helper()
	return resolve(t, ruby.New().Identifiers()[0].ID)
}

func resolve(t testing.TB, id lambda.RuntimeID) *bootstrap.Runtime {
	t.Helper()
	rt, err := catalog().Resolve(t.Context(), id)
	if err != nil {
		t.Skip(err)
	}
	return rt
}

// function is what a test runs.
type function = clienttest.Function

func code(app string) function { return function{Files: map[string]string{"app.rb": app}} }
