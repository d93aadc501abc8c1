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

// TestFile executes the program, which says that it is not for people, and tries to change it.
func TestFile(t *testing.T) {
	f, err := program.File()
	if err != nil {
		t.Fatal(err)
	}
	if f == nil {
		t.Skip("there is none in this build: make generate builds it")
	}
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "not for people") {
		t.Errorf("%v: %q", err, out)
	}
	if _, err := f.WriteAt([]byte("#!"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("it was written: %v", err)
	}
}
