package artifact

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// filledPrefix begins the names of trees that somebody else fills.
const filledPrefix = "filled-"

// Entry is one file, folder or symbolic link of a tree.
type Entry = entry

// Fill makes the content of a tree below root, and lists it, folders after what
// is in them. It is called again when the tree was evicted or damaged.
type Fill func(ctx context.Context, root *os.Root) ([]Entry, error)

// Filled returns a tree with content that is no package's, in the way that Dir
// does for one. The digest names the content; where it is not in the cache, fill makes it.
func (s *Store) Filled(ctx context.Context, digest string, fill Fill) (path string, release func(), err error) {
	if err := checkDigest(digest); err != nil {
		return "", nil, err
	}
	t, err := s.pin(ctx, filledPrefix+digest)
	if err != nil {
		return "", nil, fmt.Errorf("fill the tree %s: %w", digest, err)
	}
	t.fill = fill
	if path, release, err = s.take(ctx, t); err != nil {
		return "", nil, fmt.Errorf("fill the tree %s: %w", digest, err)
	}
	return path, release, nil
}

// RemoveFilled removes a tree when its last user has released it.
func (s *Store) RemoveFilled(ctx context.Context, digest string) error {
	if err := checkDigest(digest); err != nil {
		return err
	}
	t, err := s.pin(ctx, filledPrefix+digest)
	if err != nil {
		return fmt.Errorf("remove the tree %s: %w", digest, err)
	}
	s.mu.Lock()
	t.doomed = true
	s.mu.Unlock()
	t.unlock()
	s.unpin(t)
	return nil
}

// refill makes a filled tree in place of what is there. The tree's lock is held.
func (s *Store) refill(ctx context.Context, t *tree) error {
	b, err := s.build(ctx, t.name, func(root *os.Root) (*manifest, error) {
		entries, err := t.fill(ctx, root)
		if err != nil {
			return nil, err
		}
		m := &manifest{Disk: diskBlock}
		for _, e := range entries {
			m.Unpacked += e.Size
			m.add(e)
		}
		return m, nil
	})
	if err != nil {
		return err
	}
	defer b.discard()
	return s.install(t, b, true)
}

// isPackage tells a package's own tree from those that are made of something else.
func (t *tree) isPackage() bool { return !strings.Contains(t.name, "-") }
