package program_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
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

// inNamespace makes the test binary the first process of a process namespace.
const inNamespace = "KILN_TEST_NAMESPACE"

func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) == "" {
		os.Exit(m.Run())
	}
	// The setting is the namespace's; 2 refuses to make files in memory that can be executed.
	if err := os.WriteFile("/proc/sys/vm/memfd_noexec", []byte("2"), 0); err != nil {
		fmt.Println("skip", err)
		return
	}
	f, err := program.File()
	fmt.Println(f == nil, err)
}

// TestNothingFromMemory is on a machine that executes nothing from memory.
func TestNothingFromMemory(t *testing.T) {
	if f, err := program.File(); f == nil {
		t.Skip("there is no program here: ", err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	out, err := cmd.CombinedOutput()
	switch said := string(out); {
	case errors.Is(err, unix.EPERM):
		t.Skip(err)
	case strings.HasPrefix(said, "skip"):
		t.Skip(said)
	case err != nil || !strings.HasPrefix(said, "true keep kiln-sandbox in memory: permission denied"):
		t.Errorf("%v: %q", err, said)
	}
}
