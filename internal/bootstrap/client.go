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
	"time"
)

// prepareTimeout bounds what a Preparer makes of a client: it takes a second or two,
// many more on a machine that is busy.
const prepareTimeout = time.Minute

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
// last, beside the folder, so that what it describes is complete. A bundle is
// named instead: it was on the disk before it was laid over the client, and has too
// many files to read them at each start.
func manifest(dir string, bundle laid) (string, error) {
	var b strings.Builder
	if bundle.Bundle != nil {
		fmt.Fprintf(&b, "%s%s\n", bundleLine, bundle.Folder)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := cutFolder(path, dir)
		switch {
		case err != nil:
			return err
		case d.IsDir() && bundle.has(rel):
			return fs.SkipDir
		case d.IsDir() || bundle.has(rel):
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(content), rel)
		return nil
	})
	return b.String(), err
}

// bundleLine begins the line of a manifest that names the bundle's folder.
const bundleLine = "bundle  "

// laid is a bundle that lies over a client, or none.
type laid struct {
	*Bundle
	dir   string
	names []string // of what is in its folder
}

// has tells whether something directly in a client's folder is the bundle's.
func (l laid) has(name string) bool { return slices.Contains(l.names, name) }

func (a *Additions) open(b *Bundle) (laid, error) {
	l := laid{Bundle: b}
	if b == nil {
		return l, nil
	}
	l.dir = a.folder(b)
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return l, fmt.Errorf("open the packages of the runtime: %w; add them again with kiln runtime add", err)
	}
	for _, e := range entries {
		l.names = append(l.names, e.Name())
	}
	return l, nil
}

// place makes sure that the client stands complete and unchanged in its folder,
// shared by all functions, and returns the folder. A Preparer's client is kept
// once for each interpreter. It is called once a daemon, before anything runs from there.
func (c *Catalog) place(ctx context.Context, f Family, in Installation, files clientFiles, added *Bundle) (string, error) {
	bundle, err := c.config.Additions.open(added)
	if err != nil {
		return "", err
	}
	name := files.digest()
	if added != nil {
		sum := sha256.Sum256([]byte(name + "\n" + added.Folder))
		name = hex.EncodeToString(sum[:])
	}
	preparer, prepares := f.(Preparer)
	if prepares {
		sum := sha256.Sum256([]byte(name + "\n" + in.Program + "\n" + in.Version))
		name = hex.EncodeToString(sum[:])
	}
	dir := filepath.Join(c.config.Dir, name[:32])
	if intact(dir, files, bundle) {
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
	if added != nil {
		if err := overlay(bundle, tmp); err != nil {
			return "", err
		}
	}
	if prepares {
		ctx, cancel := context.WithTimeoutCause(ctx, prepareTimeout, fmt.Errorf("it took longer than %s", prepareTimeout))
		defer cancel()
		if err := preparer.Prepare(ctx, in, tmp); err != nil {
			return "", fmt.Errorf("prepare it for %s: %w", in.Program, err)
		}
	}
	if err := readable(tmp); err != nil { // of a bundle's files too, which are the same already
		return "", err
	}
	list, err := manifest(tmp, bundle)
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
func intact(dir string, files clientFiles, bundle laid) bool {
	recorded, err := os.ReadFile(dir + ".sums")
	if err != nil {
		return false
	}
	now, err := manifest(dir, bundle)
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
		switch {
		case err != nil || d.Type()&fs.ModeSymlink != 0:
			return err
		case d.IsDir():
			return os.Chmod(path, 0o755)
		default:
			return os.Chmod(path, 0o644)
		}
	})
}
