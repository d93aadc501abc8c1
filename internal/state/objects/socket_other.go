//go:build !linux

package objects

import (
	"os"
	"path/filepath"
)

// reach is where a process listens: as it knows it itself, and as this process does.
type reach struct {
	inside, outside string
	files           []*os.File
	close           func()
}

// socket makes room for a socket, whose path may have 104 bytes: that of a data
// directory has more.
func (s *Store) socket() (*reach, error) {
	dir, err := os.MkdirTemp("", "kiln-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "s")
	return &reach{inside: path, outside: path, close: func() { _ = os.RemoveAll(dir) }}, nil
}
