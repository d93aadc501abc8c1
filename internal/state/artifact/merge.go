package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"kiln/internal/lambda"
)

// mergedPrefix begins the names of merged trees.
const mergedPrefix = "merged-"

// mergedName names a tree by the packages it is merged of, in their order.
func mergedName(digests []string) string {
	sum := sha256.Sum256([]byte(strings.Join(digests, "\n")))
	return mergedPrefix + hex.EncodeToString(sum[:])
}

// Merged returns one tree with the content of several packages, in the way that
// Dir does for one; that of a single package is its own. Where two packages have
// the same path, the later one's stands there: a folder joins a folder, and
// anything else takes the place of what was there, whole. The packages' sizes
// together are the caller's to bound.
func (s *Store) Merged(ctx context.Context, digests []string) (path string, release func(), err error) {
	if len(digests) == 1 {
		return s.Dir(ctx, digests[0])
	}
	for _, digest := range digests {
		if err := checkDigest(digest); err != nil {
			return "", nil, err
		}
	}
	path, release, err = s.use(ctx, mergedName(digests), digests...)
	if err != nil {
		return "", nil, fmt.Errorf("merge the packages %s: %w", strings.Join(digests, ", "), err)
	}
	return path, release, nil
}

// remerge merges the packages of a tree in place of what is there. The tree's
// lock is held; those of packages are only taken within that of a merged tree,
// never the other way around.
func (s *Store) remerge(ctx context.Context, t *tree) error {
	for _, digest := range t.parts {
		_, release, err := s.Dir(ctx, digest)
		if err != nil {
			return err
		}
		defer release()
	}
	b, err := s.build(ctx, t.name, func(root *os.Root) (*manifest, error) { return s.merge(ctx, root, t.parts) })
	if err != nil {
		return err
	}
	defer b.discard()
	return s.install(t, b, true)
}

// merge fills root with the content of packages that are unpacked and pinned.
func (s *Store) merge(ctx context.Context, root *os.Root, digests []string) (*manifest, error) {
	cache, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	top := &node{below: map[string]*node{}}
	for _, digest := range digests {
		_, err := readManifest(ctx, s.dir, digest, func(e entry) error {
			if top.count += top.put(e.Name, e, digest); top.count > s.cfg.MaxMerged {
				return lambda.InvalidParameter("The layers have more than %d files and folders together.", s.cfg.MaxMerged)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	m := merger{ctx: ctx, cache: cache, root: root, free: s.cfg.Free, manifest: manifest{Parts: digests}}
	if err := m.folder(".", top); err != nil {
		return nil, err
	}
	if err := m.finish(); err != nil {
		return nil, err
	}
	return &m.manifest, nil
}

// node is a file, folder or link of a merged tree.
type node struct {
	entry
	from  string           // digest of the package that it comes from
	below map[string]*node // of a folder; else nil
	count int              // of the nodes below, in the topmost one
}

// put places an entry at a path below n, and returns how many nodes there are more.
func (n *node) put(name string, e entry, from string) int {
	first, rest, deeper := strings.Cut(name, "/")
	there := n.below[first]
	if (deeper || e.Mode.IsDir()) && there != nil && there.below != nil {
		if deeper {
			return there.put(rest, e, from)
		}
		there.entry, there.from = e, from // of two folders, the later one's time
		return 0
	}
	more := 1 - there.size()
	next := &node{entry: e, from: from}
	n.below[first] = next
	if deeper { // its own entry follows: a manifest has one for every folder
		next.below = map[string]*node{}
		return more + next.put(rest, e, from)
	}
	if e.Mode.IsDir() {
		next.below = map[string]*node{}
	}
	return more
}

func (n *node) size() int {
	if n == nil {
		return 0
	}
	size := 1
	for _, b := range n.below {
		size += b.size()
	}
	return size
}

type merger struct {
	ctx      context.Context
	cache    *os.Root // the packages' trees
	root     *os.Root // the new one
	free     func() error
	folders  []*node // in the order of their making
	links    []entry
	manifest manifest
}

func (m *merger) folder(name string, n *node) error {
	for _, part := range slices.Sorted(maps.Keys(n.below)) {
		if m.ctx.Err() != nil {
			return context.Cause(m.ctx)
		}
		below, inside := n.below[part], path.Join(name, part)
		switch {
		case below.below != nil:
			if err := m.root.Mkdir(inside, 0o755); err != nil {
				return err
			}
			m.folders = append(m.folders, below)
			if err := m.folder(inside, below); err != nil {
				return err
			}
		case below.Mode&fs.ModeSymlink != 0:
			m.links = append(m.links, below.entry)
		default:
			if err := m.file(below); err != nil {
				return err
			}
		}
	}
	return nil
}

// file gives the merged tree a package's file: a second name of it, which costs
// no bytes and shares what the kernel keeps of it in memory, or a copy where the
// file system has no more of those.
func (m *merger) file(n *node) error {
	m.manifest.Unpacked += n.Size
	m.manifest.add(n.entry)
	source := path.Join(n.from, codeDir, n.Name)
	// Of these paths every folder is one: those of the package were checked, and
	// in the new tree links are made last. A root would look at each once more.
	if os.Link(filepath.Join(m.cache.Name(), source), filepath.Join(m.root.Name(), n.Name)) == nil {
		return nil
	}
	if err := m.free(); err != nil {
		return err
	}
	in, err := m.cache.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := m.root.OpenFile(n.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if err := errors.Join(out.Chmod(n.Mode), out.Close()); err != nil {
		return err
	}
	return m.setTime(n)
}

// finish makes the links, checks where they lead, and gives folders their modes
// and times. A link that led to nothing in its own package may now, by way of
// another's folders and links, lead out of the tree.
func (m *merger) finish() error {
	for _, l := range m.links {
		if err := m.root.Symlink(l.Target, l.Name); err != nil {
			return err
		}
		m.manifest.add(l)
	}
	for _, l := range m.links {
		_, err := m.root.Stat(l.Name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, syscall.ELOOP) {
			return lambda.InvalidParameter("The layers cannot be merged: with all of them, the link %.200q to %.200q leads out of /opt.", l.Name, l.Target)
		}
	}
	for _, n := range slices.Backward(m.folders) {
		if err := m.root.Chmod(n.Name, 0o755); err != nil {
			return err
		}
		if err := m.setTime(n); err != nil {
			return err
		}
		m.manifest.add(n.entry)
	}
	m.manifest.Disk += diskBlock // the manifest, and never 0
	return nil
}

// setTime gives a file or folder the time that it has in its package.
func (m *merger) setTime(n *node) error {
	info, err := m.cache.Stat(path.Join(n.from, codeDir, n.Name))
	if err != nil {
		return err
	}
	return m.root.Chtimes(n.Name, info.ModTime(), info.ModTime())
}
