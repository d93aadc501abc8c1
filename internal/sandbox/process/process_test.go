package process_test

import (
	"path/filepath"
	"testing"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/process"
	"kiln/internal/sandbox/sandboxtest"
)

func TestConformance(t *testing.T) {
	sandboxtest.Run(t, func(t *testing.T) sandbox.Driver {
		d, err := process.New(process.Config{Dir: filepath.Join(sandboxtest.Dir(t), "sandboxes")})
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}
