// Package archive is the file that a backup is: a tar with a manifest first, and
// last a list of all that is in it with checksums, by which a reader knows that
// nothing is missing or damaged. It knows nothing of what it holds; the daemon
// package writes and restores it, the cli package checks it.
package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Format is the version of the file that this Kiln writes.
const Format = 1

const (
	manifestName = "manifest.json"
	contentsName = "CONTENTS" // the last entry
	failureName  = "FAILURE"  // in its place: why there is no more
	// maxText bounds the entries that are read whole into memory, in bytes.
	maxText = 256 << 20
)

// Manifest says what a backup is of.
type Manifest struct {
	Format  int       `json:"format"`
	Kiln    string    `json:"kiln"` // version
	Time    time.Time `json:"time"` // the moment that everything is of
	Node    string    `json:"node"`
	OpenKey bool      `json:"holds_master_key"` // who has the file can read its secrets
}

// Writer writes a backup. Close completes it.
type Writer struct {
	tar      *tar.Writer
	contents bytes.Buffer
}

// NewWriter writes the manifest.
func NewWriter(w io.Writer, m Manifest) (*Writer, error) {
	m.Format = Format
	a := &Writer{tar: tar.NewWriter(w)}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return a, a.Bytes(manifestName, b)
}

// Bytes writes a file.
func (a *Writer) Bytes(name string, content []byte) error {
	return a.File(name, 0o600, int64(len(content)), bytes.NewReader(content))
}

// File writes a file of that size.
func (a *Writer) File(name string, mode fs.FileMode, size int64, r io.Reader) error {
	sum := sha256.New()
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode.Perm()), Size: size}
	if err := a.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("back up %s: %w", name, err)
	}
	n, err := io.Copy(io.MultiWriter(a.tar, sum), r)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("back up %s: %w", name, err)
	}
	a.contents.WriteString(line(h, sum.Sum(nil)))
	return nil
}

// Tree writes a folder with all that is in it, under that name.
func (a *Writer) Tree(name, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		as := filepath.ToSlash(filepath.Join(name, inside))
		h := &tar.Header{Name: as, Mode: int64(info.Mode().Perm())}
		switch {
		case info.IsDir():
			h.Typeflag = tar.TypeDir
		case info.Mode()&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = os.Readlink(path); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			return a.File(as, info.Mode(), info.Size(), f)
		default:
			return fmt.Errorf("back up %s: it is neither a file, a folder nor a link", path)
		}
		if err := a.tar.WriteHeader(h); err != nil {
			return fmt.Errorf("back up %s: %w", as, err)
		}
		a.contents.WriteString(line(h, nil))
		return nil
	})
}

// Fail ends a backup that cannot be completed, and says why.
func (a *Writer) Fail(why string) error {
	return errors.Join(a.Bytes(failureName, []byte(why)), a.tar.Close())
}

// Close completes the backup.
func (a *Writer) Close() error {
	return errors.Join(a.Bytes(contentsName, bytes.Clone(a.contents.Bytes())), a.tar.Close())
}

// line is what the contents say of an entry.
func line(h *tar.Header, sum []byte) string {
	return fmt.Sprintf("%c %04o %d %s %q %q\n", h.Typeflag, h.Mode, h.Size, hex.EncodeToString(sum), h.Name, h.Linkname)
}

// Entry is one part of a backup. A file is read from it.
type Entry struct {
	io.Reader
	Name   string
	Mode   fs.FileMode // with its type
	Target string      // of a link
}

// Read calls begin with the manifest and each with every other entry, and fails
// where the backup is not whole and unharmed. That is known at its end only: what
// was read before must not count until Read returns.
func Read(r io.Reader, begin func(Manifest) error, each func(Entry) error) error {
	in := tar.NewReader(r)
	var contents strings.Builder
	for first := true; ; first = false {
		h, err := in.Next()
		switch {
		case err != nil && first:
			return errors.New("this is no backup of Kiln, or nothing of one")
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("the backup is cut off %s", after(contents.String()))
		case err != nil:
			return fmt.Errorf("the backup is damaged %s: %w", after(contents.String()), err)
		}
		if first != (h.Name == manifestName) {
			return fmt.Errorf("this is no backup of Kiln: it has no %s, or not as its first entry", manifestName)
		}
		entry := Entry{Name: h.Name, Mode: fs.FileMode(h.Mode).Perm(), Target: h.Linkname}
		sum := sha256.New()
		switch h.Typeflag {
		case tar.TypeReg:
			entry.Reader = io.TeeReader(in, sum)
		case tar.TypeDir:
			entry.Name, entry.Mode = strings.TrimSuffix(h.Name, "/"), entry.Mode|fs.ModeDir
		case tar.TypeSymlink:
			entry.Mode |= fs.ModeSymlink
		default:
			return fmt.Errorf("the backup is damaged: %s is neither a file, a folder nor a link", h.Name)
		}
		switch h.Name {
		case manifestName:
			err = readManifest(entry, begin)
		case failureName:
			why, _ := io.ReadAll(io.LimitReader(in, maxText)) // what there is of it
			return fmt.Errorf("the backup was not completed: %s", why)
		case contentsName:
			want, err := io.ReadAll(io.LimitReader(in, maxText))
			if err != nil {
				return fmt.Errorf("the backup is cut off in its last entry: %w", err)
			}
			return compare(contents.String(), string(want))
		default:
			err = each(entry)
		}
		if err == nil && entry.Reader != nil {
			_, err = io.Copy(io.Discard, entry)
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("the backup is cut off in %s", h.Name)
		}
		if err != nil {
			return err
		}
		contents.WriteString(line(h, sumOf(h, sum.Sum(nil))))
	}
}

func sumOf(h *tar.Header, sum []byte) []byte {
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	return sum
}

func readManifest(e Entry, begin func(Manifest) error) error {
	b, err := io.ReadAll(io.LimitReader(e, maxText))
	if err != nil {
		return err
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil || m.Format < 1 {
		return fmt.Errorf("the backup is damaged in %s", manifestName)
	}
	if m.Format > Format {
		return fmt.Errorf("the backup was made by a newer Kiln, %s (format %d; this one knows %d): upgrade kiln", m.Kiln, m.Format, Format)
	}
	return begin(m)
}

// after names the last entry that was read whole.
func after(contents string) string {
	lines := strings.Split(strings.TrimSuffix(contents, "\n"), "\n")
	return "after " + nameOf(lines[len(lines)-1])
}

// nameOf is the name in a line of the contents.
func nameOf(line string) string {
	var kind rune
	var mode, size int64
	var sum, name string
	if _, err := fmt.Sscanf(line, "%c %o %d %s %q", &kind, &mode, &size, &sum, &name); err != nil {
		_, _ = fmt.Sscanf(line, "%c %o %d  %q", &kind, &mode, &size, &name) // no file
	}
	return name
}

// compare names the first entry that is not what the backup says of itself.
func compare(got, want string) error {
	if got == want {
		return nil
	}
	wanted := strings.Split(want, "\n")
	for i, l := range strings.Split(got, "\n") {
		if i >= len(wanted) || l != wanted[i] {
			name := nameOf(l)
			if name == "" && i < len(wanted) {
				name = nameOf(wanted[i])
			}
			return fmt.Errorf("the backup is damaged: %s is not what was backed up", name)
		}
	}
	return errors.New("the backup is damaged: entries are missing")
}
