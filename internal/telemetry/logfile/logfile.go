// Package logfile is a file that lines are appended to, and that logrotate and its
// like may move away: Reopen then begins a new one. The daemon writes the audit log
// to one.
package logfile

import (
	"fmt"
	"os"
	"sync"
)

// File is safe for concurrent use.
type File struct {
	path string

	mu   sync.Mutex
	file *os.File // guarded by mu
}

// Open opens the file at path to append to it, and makes it, for its owner only,
// where it is missing.
func Open(path string) (*File, error) {
	f := &File{path: path}
	return f, f.Reopen()
}

// Reopen goes on in what is at the path now. Where that cannot be opened it goes on
// as before.
func (f *File) Reopen() error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the log file: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		_ = f.file.Close() // each line was handed to the system when it was written
	}
	f.file = file
	return nil
}

// Write appends one line, at once.
func (f *File) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Write(line)
}

// Close makes what was written durable.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.file.Sync(); err != nil {
		_ = f.file.Close()
		return fmt.Errorf("sync the log file: %w", err)
	}
	return f.file.Close()
}
