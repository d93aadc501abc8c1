package program_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox/program"
)

// TestPath executes the program, which says that it is not for people, and tries to change it.
func TestPath(t *testing.T) {
	path, err := program.Path()
	if err != nil {
		t.Fatal(err)
	}
	if path == "" {
		t.Skip("there is none in this build: make generate builds it")
	}
	out, err := exec.Command(path).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "not for people") {
		t.Errorf("%v: %q", err, out)
	}
	if err := os.WriteFile(path, []byte("#!"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("it was written: %v", err)
	}
}
