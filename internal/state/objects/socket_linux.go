package objects

import (
	"fmt"
	"os"
	"path/filepath"
)

// reach is where a process listens: as it knows it itself, and as this process does.
type reach struct {
	inside, outside string
	files           []*os.File // for the process, from descriptor 3 on
	close           func()
}

// socket makes room for a socket. A socket's path may have 108 bytes, and that of a
// data directory has more: the folder is a descriptor on both sides.
func (s *Store) socket() (*reach, error) {
	dir, err := os.MkdirTemp(s.config.Run, socketDir)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return &reach{
		inside: "/proc/self/fd/3/s", outside: filepath.Join(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), "s"), files: []*os.File{f},
		close: func() { _ = f.Close(); _ = os.RemoveAll(dir) },
	}, nil
}
