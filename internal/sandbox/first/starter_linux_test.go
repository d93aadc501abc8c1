package first_test

import (
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox/first"
)

// TestStart starts a program whose descriptor is the next above the highest that is passed on: there
// forking puts a pipe of its own. It has nothing but what is passed on.
func TestStart(t *testing.T) {
	ls, err := os.Open("/bin/ls")
	if err != nil {
		t.Skip(err)
	}
	defer ls.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	at := func(f *os.File, least int) *os.File {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, least)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), f.Name())
	}
	const above = 200 // all that this process has open
	passed := at(null, above)
	defer passed.Close()
	program := at(ls, above+1)
	defer program.Close()
	starter, err := first.NewStarter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer starter.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := starter.Start(program, []string{"ls", "/proc/self/fd"}, &os.ProcAttr{Files: []*os.File{nil, w, nil, passed}})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(r)
	if state, failed := p.Wait(); err != nil || failed != nil || !state.Success() || string(said) != "0\n1\n3\n4\n" {
		t.Errorf("it says %q and ends with %v (%v, %v)", said, state, err, failed)
	}
}
