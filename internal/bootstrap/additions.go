package bootstrap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"kiln/internal/lambda"
)

// Addition is what `kiln runtime add` added to one runtime identifier. Each kind
// is a member of its own, nil where it was not added.
type Addition struct {
	ID     lambda.RuntimeID `json:"id"`
	Bundle *Bundle          `json:"bundle,omitempty"`
	Image  *BaseImage       `json:"image,omitempty"` // goes before everything else that could serve the identifier
}

// empty tells whether nothing is left that was added.
func (a Addition) empty() bool { return a.Bundle == nil && a.Image == nil }

// Bundle is an installed set of the packages that AWS puts beside a language: its
// SDK, or for Java the runtime client. It lies in Layout.Runtime, with the client.
type Bundle struct {
	Packages []string  `json:"packages"` // as the language's own package client names them
	For      string    `json:"for"`      // the interpreter's version that they were installed for
	Bytes    int64     `json:"bytes"`
	Added    time.Time `json:"added"`
	Folder   string    `json:"folder"` // its name among the additions
}

// additionsSchema is the version of the file that this Kiln writes.
const additionsSchema = 1

const (
	additionsFile = "additions.json"
	unfinished    = ".new-" // begins the names of folders that are being filled
)

type additionsDocument struct {
	Schema    int        `json:"schema"`
	Additions []Addition `json:"additions"`
}

// Additions are what was added to the runtimes of a data directory: a file with
// the records, and a folder for each bundle. Nothing is created before the first
// one is added. Methods are safe for concurrent use.
type Additions struct {
	dir string

	mu   sync.RWMutex
	byID map[lambda.RuntimeID]Addition // guarded by mu
}

// OpenAdditions reads the records in dir, which need not exist.
func OpenAdditions(dir string) (*Additions, error) {
	a := &Additions{dir: dir, byID: map[lambda.RuntimeID]Addition{}}
	name := filepath.Join(dir, additionsFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was added to runtimes: %w", err)
	}
	var d additionsDocument
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): delete it and add the runtimes again", name, err)
	}
	if d.Schema > additionsSchema {
		return nil, fmt.Errorf("%s was written by a newer Kiln (schema %d; this one knows %d): upgrade kiln", name, d.Schema, additionsSchema)
	}
	for _, x := range d.Additions {
		a.byID[x.ID] = x
	}
	return a, nil
}

// Get returns what was added to an identifier.
func (a *Additions) Get(id lambda.RuntimeID) Addition {
	if a == nil {
		return Addition{ID: id}
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	x := a.byID[id]
	x.ID = id
	return x
}

// Pinned are the digests of the base images that identifiers have.
func (a *Additions) Pinned() (digests []string) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, x := range a.byID {
		if x.Image != nil {
			digests = append(digests, x.Image.Digest)
		}
	}
	return digests
}

// based are the identifiers that have a base image, in order.
func (a *Additions) based() (ids []lambda.RuntimeID) {
	if a == nil {
		return nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for id, x := range a.byID {
		if x.Image != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Change makes a durable change of what was added to an identifier.
func (a *Additions) Change(id lambda.RuntimeID, change func(*Addition)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := maps.Clone(a.byID)
	x := next[id]
	x.ID = id
	change(&x)
	if next[id] = x; x.empty() {
		delete(next, id)
	}
	d := additionsDocument{Schema: additionsSchema, Additions: []Addition{}}
	for _, id := range slices.Sorted(maps.Keys(next)) {
		d.Additions = append(d.Additions, next[id])
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // people read it, and packages are called sdk@<=3
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		return err
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(a.dir, additionsFile), b.Bytes()); err != nil {
		return fmt.Errorf("record what was added to %s: %w", id, err)
	}
	a.byID = next
	return nil
}

// folder is where a bundle lies.
func (a *Additions) folder(b *Bundle) string { return filepath.Join(a.dir, b.Folder) }

// id names a bundle; nil has the empty name.
func (b *Bundle) id() string {
	if b == nil {
		return ""
	}
	return b.Folder
}

// sweep removes the folders that no record names: what an earlier, killed daemon
// left unfinished.
func (a *Additions) sweep() error {
	used := a.folders()
	entries, err := os.ReadDir(a.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		// Only what this file makes: the folder is shared with other kinds.
		if !used[e.Name()] && (strings.HasPrefix(e.Name(), unfinished) || strings.HasPrefix(e.Name(), bundlePrefix)) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(a.dir, e.Name())))
		}
	}
	return err
}

// folders are the names of all bundles.
func (a *Additions) folders() map[string]bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	used := map[string]bool{}
	for _, x := range a.byID {
		if x.Bundle != nil {
			used[x.Bundle.Folder] = true
		}
	}
	return used
}

// replaceFile writes a file that is whole at any moment, power loss included.
func replaceFile(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), unfinished)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFile(filepath.Dir(name))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
