// Package program has the program of the processes that keep objects, cmd/kiln-objects,
// embedded. `go generate` builds it, for the system and machine that GOOS and GOARCH name;
// what was built without has none. It is apart from kiln because the library in it, and all
// that the library can talk to, would cost every daemon memory (docs/decisions/0030).
package program

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

//go:generate sh build.sh

// ErrNone says that this build has no such program.
var ErrNone = errors.New("this kiln was built without its S3: build it with make build")

// Write writes the program into a folder, and returns where.
func Write(dir string) (path string, err error) {
	packed, err := built.Open(fmt.Sprintf("built/%s-%s/kiln-objects.gz", runtime.GOOS, runtime.GOARCH))
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrNone
	}
	if err != nil {
		return "", err
	}
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "kiln-objects")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be executed still
		return "", err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, r)
	return path, errors.Join(err, f.Close())
}
