package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// lowest is above the descriptors that a process is started with, which take the
// places of its parent's.
const lowest = 100

// Path leads to the program, in memory, where nobody writes; "" when there is none. It is
// good in this process and where this process starts another.
var Path = sync.OnceValues(func() (string, error) {
	b, err := built.ReadFile("built/" + runtime.GOARCH + "/kiln-sandbox")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	const name, flags = "kiln-sandbox", unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	made, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		made, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return "", fmt.Errorf("keep %s in memory: %w", name, err)
	}
	defer unix.Close(made)
	fd, err := unix.FcntlInt(uintptr(made), unix.F_DUPFD_CLOEXEC, lowest)
	if err != nil {
		return "", err
	}
	path := "/proc/self/fd/" + strconv.Itoa(fd) // open as long as this process lives
	if err := os.WriteFile(path, b, 0); err != nil {
		return "", err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return "", fmt.Errorf("seal %s: %w", name, err)
	}
	return path, nil
})
