package python_test

import (
	"os"
	"sync"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/python"
	"kiln/internal/environment/clienttest"
	"kiln/internal/lambda"
)

// catalog is shared: looking for interpreters takes a second, and its result is immutable.
var catalog = sync.OnceValue(func() *bootstrap.Catalog {
	dir, err := os.MkdirTemp("", "kiln-python-test-")
	if err != nil {
		panic(err)
	}
	clients = dir
	return bootstrap.New([]bootstrap.Family{python.New()}, bootstrap.Config{Dir: dir, Getenv: os.Getenv})
})

var clients string

func TestMain(m *testing.M) {
	code := m.Run()
	if clients != "" {
		_ = os.RemoveAll(clients)
	}
	os.Exit(code)
}

// everyPython runs a test for each version that is installed here.
func everyPython(t *testing.T, test func(t *testing.T, rt *bootstrap.Runtime)) {
	t.Helper()
	t.Parallel()
	for _, ident := range python.New().Identifiers() {
		t.Run(ident.Version, func(t *testing.T) {
			t.Parallel()
			test(t, resolve(t, ident.ID))
		})
	}
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

func code(app string) function { return function{Files: map[string]string{"app.py": app}} }

// frame is a clienttest.Frame that is written without its members' names.
type frame struct {
	Kind uint32
	Text string
}

func logged(r *clienttest.Running) (output string, frames []frame) {
	output, all := r.Logged()
	for _, f := range all {
		frames = append(frames, frame(f))
	}
	return output, frames
}
