package linux_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/linux"
	"kiln/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == linux.InitArg {
		os.Exit(linux.Init())
	}
	os.Exit(m.Run())
}

// newDriver makes a driver, or skips the test where the kernel lacks something.
func newDriver(t testing.TB, change func(*linux.Config)) *linux.Driver {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("not Linux")
	}
	cfg := linux.Config{Dir: filepath.Join(sandboxtest.Dir(t), "sandboxes")}
	if change != nil {
		change(&cfg)
	}
	d, err := linux.New(cfg)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Probe(t.Context()); err != nil {
		t.Skip(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	sandboxtest.Run(t, func(t *testing.T) sandbox.Driver { return newDriver(t, nil) })
}
