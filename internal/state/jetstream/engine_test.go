package jetstream_test

import (
	"context"
	"flag"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"kiln/internal/state/jetstream"
)

func TestMain(m *testing.M) {
	if crashWorker() || takeWorker() {
		return
	}
	// Each check starts engines; a command line that says otherwise still wins.
	if err := flag.Set("rapid.checks", "25"); err != nil {
		panic(err)
	}
	// The server forgets the files of a batch that it could not write (TestFailingDisk).
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"))
}

// open starts an engine in dir that is closed when the test ends.
func open(t testing.TB, dir string) *jetstream.Engine {
	t.Helper()
	return openWith(t, jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
}

func openWith(t testing.TB, cfg jetstream.Config) *jetstream.Engine {
	t.Helper()
	e := jetstream.New(cfg)
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeEngine(t, e) })
	return e
}

func closeEngine(t testing.TB, e *jetstream.Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// testLog shows the engine's warnings where a test fails.
func testLog(t testing.TB) *slog.Logger {
	return logTo(t.Output())
}
