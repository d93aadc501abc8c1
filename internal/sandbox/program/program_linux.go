package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// check is an argument with which the program does nothing and succeeds.
const check = "check"

// File is the program, in memory, where nobody writes; nil when there is none. It has been
// executed once: the error says why where this machine does not allow it. It stays open as
// long as this process lives.
var File = sync.OnceValues(func() (*os.File, error) {
	b, err := built.ReadFile("built/" + runtime.GOARCH + "/kiln-sandbox")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := sealed("kiln-sandbox", b)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/fd/3", check)
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("execute %s from memory: %w %s", f.Name(), err, strings.TrimSpace(string(out)))
	}
	return f, nil
})

// sealed is a file in memory that holds b for ever.
func sealed(name string, b []byte) (_ *os.File, err error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("keep %s in memory: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if _, err := f.Write(b); err != nil {
		return nil, fmt.Errorf("keep %s in memory: %w", name, err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	return f, nil
}
