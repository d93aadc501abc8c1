package artifact

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	manifestFile    = "manifest.json"
	manifestVersion = 1
	// maxHead bounds the manifest's first line, in bytes.
	maxHead = 4096
)

// manifest says what a tree must hold. On disk it is a line of JSON about the
// whole, so that taking stock reads little, and one for each entry.
type manifest struct {
	Version  int      `json:"version"`
	Package  string   `json:"package"`         // the tree's name
	Parts    []string `json:"parts,omitempty"` // of a merged tree: its packages
	Unpacked int64    `json:"unpacked"`        // sum of the files' sizes
	Disk     int64    `json:"disk"`            // bytes on disk, about
	Count    int      `json:"count"`
	entries  []entry  // on the lines that follow
}

// entry is one file, folder or symbolic link.
type entry struct {
	Name   string      `json:"name"`
	Mode   fs.FileMode `json:"mode"`
	Size   int64       `json:"size,omitempty"`
	Digest string      `json:"sha256,omitempty"` // of a file, in hexadecimal
	Target string      `json:"target,omitempty"` // of a link
}

func (m *manifest) add(e entry) {
	m.entries = append(m.entries, e)
	m.Disk += (e.Size + diskBlock) / diskBlock * diskBlock
}

func (m *manifest) write(name string) error {
	m.Version, m.Count = manifestVersion, len(m.entries)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	e := json.NewEncoder(w)
	err = e.Encode(m)
	for i := 0; err == nil && i < len(m.entries); i++ {
		err = e.Encode(m.entries[i])
	}
	return errors.Join(err, w.Flush(), f.Close())
}

// readHead reads a manifest without its entries.
func readHead(name string) (*manifest, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var m manifest
	if err := json.NewDecoder(io.LimitReader(f, maxHead)).Decode(&m); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if m.Version != manifestVersion || m.Disk <= 0 {
		return nil, fmt.Errorf("read %s: it has a form that this Kiln does not know", name)
	}
	return &m, nil
}

// readManifest reads a tree's manifest and gives each its entries, one after the other.
func readManifest(ctx context.Context, dir, name string, each func(entry) error) (*manifest, error) {
	f, err := os.Open(filepath.Join(dir, name, manifestFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d := json.NewDecoder(bufio.NewReader(f))
	var m manifest
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	if m.Version != manifestVersion || m.Package != name {
		return nil, errors.New("the manifest belongs to another package")
	}
	for range m.Count {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var e entry
		if err := d.Decode(&e); err != nil {
			return nil, fmt.Errorf("read the manifest: %w", err)
		}
		if err := each(e); err != nil {
			return nil, err
		}
	}
	return &m, nil
}

// checkTree compares a tree with its manifest: names, types, modes and sizes,
// and with full the bytes too.
func checkTree(ctx context.Context, dir, name string, full bool) error {
	root, err := os.OpenRoot(filepath.Join(dir, name, codeDir))
	if err != nil {
		return err
	}
	defer root.Close()
	m, err := readManifest(ctx, dir, name, func(e entry) error { return e.check(root, full) })
	if err != nil {
		return err
	}
	found := -1 // without the root itself
	err = fs.WalkDir(root.FS(), ".", func(_ string, _ fs.DirEntry, err error) error {
		found++
		return err
	})
	if err == nil && found != m.Count {
		err = fmt.Errorf("the tree has %d entries, its manifest %d", found, m.Count)
	}
	return err
}

func (e entry) check(root *os.Root, full bool) error {
	info, err := root.Lstat(e.Name)
	if err != nil {
		return err
	}
	if e.Mode&fs.ModeSymlink != 0 {
		target, err := root.Readlink(e.Name)
		if err != nil {
			return err
		}
		if target != e.Target {
			return fmt.Errorf("%s points to %s, not to %s", e.Name, target, e.Target)
		}
		return nil
	}
	if info.Mode() != e.Mode {
		return fmt.Errorf("%s has the mode %v, not %v", e.Name, info.Mode(), e.Mode)
	}
	if e.Mode.IsDir() {
		return nil
	}
	if info.Size() != e.Size {
		return fmt.Errorf("%s has %d bytes, not %d", e.Name, info.Size(), e.Size)
	}
	if !full {
		return nil
	}
	f, err := root.Open(e.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != e.Digest {
		return fmt.Errorf("the bytes of %s were changed", e.Name)
	}
	return nil
}
