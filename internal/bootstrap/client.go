package bootstrap

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// clientFiles are the files of a runtime client, by slash path.
type clientFiles map[string][]byte

func readClient(from fs.FS) (clientFiles, error) {
	if from == nil {
		return nil, nil
	}
	files := clientFiles{}
	err := fs.WalkDir(from, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[path], err = fs.ReadFile(from, path)
		return err
	})
	return files, err
}

func (f clientFiles) digest() string {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(f)) {
		fmt.Fprintf(h, "%s\n%d\n", path, len(f[path]))
		h.Write(f[path])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// manifest lists the digests of every file of a client's folder; it is written
// last, beside the folder, so that what it describes is complete.
func manifest(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, _ := cutFolder(path, dir)
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(content), rel)
		return nil
	})
	return b.String(), err
}

// place makes sure that the client stands complete and unchanged in its folder,
// shared by all functions, and returns the folder. A Preparer's client is kept
// once for each interpreter. It is called once a daemon, before anything runs from there.
func (c *Catalog) place(ctx context.Context, f Family, in Installation, files clientFiles) (string, error) {
	name := files.digest()
	preparer, prepares := f.(Preparer)
	if prepares {
		sum := sha256.Sum256([]byte(name + "\n" + in.Program + "\n" + in.Version))
		name = hex.EncodeToString(sum[:])
	}
	dir := filepath.Join(c.config.Dir, name[:32])
	if intact(dir, files) {
		return dir, nil
	}
	if err := openFolder(c.config.Dir); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(c.config.Dir, ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	for path, content := range files {
		to := filepath.Join(tmp, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			return "", err
		}
	}
	if prepares {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		if err := preparer.Prepare(ctx, in, tmp); err != nil {
			return "", fmt.Errorf("prepare it for %s: %w", in.Program, err)
		}
	}
	if err := readable(tmp); err != nil {
		return "", err
	}
	list, err := manifest(tmp)
	if err != nil {
		return "", err
	}
	if err := os.Remove(dir + ".sums"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	return dir, os.WriteFile(dir+".sums", []byte(list), 0o644)
}

// intact tells whether a folder holds exactly what was once placed in it, and the
// client's own files as they are now.
func intact(dir string, files clientFiles) bool {
	recorded, err := os.ReadFile(dir + ".sums")
	if err != nil {
		return false
	}
	now, err := manifest(dir)
	if err != nil || now != string(recorded) {
		return false
	}
	for path, content := range files {
		if !strings.Contains(now, fmt.Sprintf("%x  %s\n", sha256.Sum256(content), path)) {
			return false
		}
	}
	return true
}

func openFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755) // whatever the umask
}

// readable opens a tree to every user and closes it to writing by mistake.
func readable(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
}
