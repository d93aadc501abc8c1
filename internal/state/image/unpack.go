package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"kiln/internal/state/artifact"
)

const (
	// maxName bounds a path in bytes: PATH_MAX is 4,096 with the path of the cache.
	maxName = 3072
	// maxPart bounds one part of a path in bytes, as Linux does.
	maxPart = 255
	// maxDepth bounds the folders around an entry.
	maxDepth = 200
	// maxTarget bounds a symbolic link's target in bytes, as Linux does.
	maxTarget = 4095
	// maxLinks bounds the symbolic links that a path leads through, as Linux does.
	maxLinks = 40
	// copySize is the unit of copying and counting, in bytes.
	copySize = 256 << 10
)

const (
	whiteoutPrefix = ".wh."
	// opaqueMarker hides what lower layers have in its folder. Other names with
	// both prefixes are notes of AUFS to itself.
	opaqueMarker = ".wh..wh..opq"
	notePrefix   = ".wh..wh."
)

// invalidError is what is wrong with an image itself.
type invalidError struct{ error }

func (e *invalidError) Unwrap() error { return e.error }

func bad(format string, detail ...any) error { return &invalidError{fmt.Errorf(format, detail...)} }

// blamed returns what is wrong with the image, or nil when it is not to blame.
func blamed(err error) error {
	if e, ok := errors.AsType[*invalidError](err); ok {
		return e
	}
	return nil
}

// node is a file, folder or link of the tree. What of it a folder holds on the
// disk is files and folders only: links are made when nothing is written any
// more, so that nothing can ever be written, removed or read through one.
type node struct {
	kind     fs.FileMode // 0, ModeDir or ModeSymlink
	layer    int         // the last that named it, or something in it
	modified time.Time
	children map[string]*node // of a folder
	mode     fs.FileMode      // of a file
	size     int64            // of a file
	digest   string           // of a file
	target   string           // of a link
}

// unpacker merges layers into one tree, as the OCI image specification says. It
// trusts nothing that they say: paths are followed in its own model of the tree,
// as a process with that root would follow them; sizes and counts are counted.
//
// https://github.com/opencontainers/image-spec/blob/main/layer.md
type unpacker struct {
	ctx    context.Context
	root   *os.Root
	cfg    Config
	buffer []byte

	top     *node
	layer   int
	entries int
	bytes   int64 // of files, holes of sparse ones included
	stream  int64 // of the layers as they are read
}

func newUnpacker(ctx context.Context, root *os.Root, cfg Config) *unpacker {
	return &unpacker{
		ctx: ctx, root: root, cfg: cfg, buffer: make([]byte, copySize),
		top: &node{kind: fs.ModeDir, children: map[string]*node{}},
	}
}

// counted counts what is read of a layer, and ends it at the bound: much can be
// packed into little that never becomes a file.
type counted struct {
	io.Reader
	u *unpacker
}

func (c counted) Read(p []byte) (int, error) {
	if c.u.ctx.Err() != nil {
		return 0, context.Cause(c.u.ctx)
	}
	n, err := c.Reader.Read(p)
	if c.u.stream += int64(n); c.u.stream > c.u.cfg.MaxBytes {
		return n, tooLarge(c.u.cfg.MaxBytes)
	}
	return n, err
}

func tooLarge(bound int64) error {
	return bad("its uncompressed size exceeds %d bytes", bound)
}

// apply puts one layer, an uncompressed tar, on top of what is there.
func (u *unpacker) apply(layer io.Reader) error {
	u.layer++
	in := counted{layer, u}
	t := tar.NewReader(in)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return u.readError(err)
		}
		if u.entries++; u.entries > u.cfg.MaxEntries {
			return bad("it has more than %d entries", u.cfg.MaxEntries)
		}
		if err := u.entry(h, t); err != nil {
			return err
		}
	}
	// What follows the archive belongs to the layer's digest.
	if _, err := io.CopyBuffer(io.Discard, onlyReader{in}, u.buffer); err != nil {
		return u.readError(err)
	}
	return nil
}

type onlyReader struct{ io.Reader }

// readError blames the image for a layer that cannot be read, unless somebody else is to blame.
func (u *unpacker) readError(err error) error {
	if u.ctx.Err() != nil || blamed(err) != nil || errors.As(err, new(*fs.PathError)) {
		return err
	}
	return bad("a layer cannot be read: %w", err)
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	if len(parts) == 0 { // the root itself
		return nil
	}
	last := parts[len(parts)-1]
	if strings.HasPrefix(last, whiteoutPrefix) {
		return u.whiteout(parts[:len(parts)-1], last)
	}
	dir, at, err := u.folder(parts[:len(parts)-1], true)
	if err != nil {
		return err
	}
	name := path.Join(at, last)
	old := dir.children[last]
	next := &node{layer: u.layer, modified: h.ModTime}
	switch h.Typeflag {
	case tar.TypeDir:
		if old != nil && old.kind == fs.ModeDir {
			old.layer, old.modified = u.layer, h.ModTime
			return nil
		}
		next.kind, next.children = fs.ModeDir, map[string]*node{}
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxTarget || strings.ContainsRune(h.Linkname, 0) {
			return bad("the link %.200q points to %.200q", name, h.Linkname)
		}
		next.kind, next.target = fs.ModeSymlink, h.Linkname
	case tar.TypeLink:
		return u.hardLink(dir, name, last, h)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		next = nil // a sandbox has devices of its own
	default:
		return bad("%.200q is of the unknown type %q", name, h.Typeflag)
	}
	if err := u.remove(dir, name, last); err != nil || next == nil {
		return err
	}
	switch next.kind {
	case fs.ModeDir:
		err = u.root.Mkdir(name, 0o755)
	case 0:
		err = u.file(name, next, h, content)
	}
	if err == nil {
		dir.children[last] = next
	}
	return err
}

// split checks a path and returns its parts; none for the root.
func split(name string) (parts []string, err error) {
	if len(name) > maxName || strings.ContainsRune(name, 0) {
		return nil, bad("a path has %d bytes or a zero byte: %.200q", len(name), name)
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return nil, bad("%.200q leads upwards", name)
		case len(part) > maxPart:
			return nil, bad("a part of %.200q has %d bytes; %d are allowed", name, len(part), maxPart)
		}
		parts = append(parts, part)
	}
	if len(parts) > maxDepth {
		return nil, bad("%.200q lies in %d folders; %d are allowed", name, len(parts)-1, maxDepth)
	}
	return parts, nil
}

// errMissing is a path that leads to nothing.
var errMissing = errors.New("there is no such path in the image")

// folder goes to a folder as a process whose root the tree is would: links lead
// there from the root, and .. no higher than it. With add it makes what is
// missing. at is the folder's path without links.
func (u *unpacker) folder(parts []string, add bool) (dir *node, at string, err error) {
	way, names := []*node{u.top}, []string{}
	left, links := slices.Clone(parts), 0
	for len(left) > 0 {
		part := left[0]
		left = left[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(names) > 0 {
				way, names = way[:len(way)-1], names[:len(names)-1]
			}
			continue
		}
		here := way[len(way)-1]
		child := here.children[part]
		if child == nil {
			if !add {
				return nil, "", errMissing
			}
			if len(part) > maxPart || len(names) >= maxDepth {
				return nil, "", bad("a link leads too deep: %.200q", part)
			}
			if u.entries++; u.entries > u.cfg.MaxEntries {
				return nil, "", bad("it has more than %d entries", u.cfg.MaxEntries)
			}
			child = &node{kind: fs.ModeDir, children: map[string]*node{}}
			if err := u.root.Mkdir(path.Join(path.Join(names...), part), 0o755); err != nil {
				return nil, "", err
			}
			here.children[part] = child
		}
		switch child.kind {
		case fs.ModeSymlink:
			if links++; links > maxLinks {
				return nil, "", bad("%.200q leads through more than %d links", strings.Join(parts, "/"), maxLinks)
			}
			if strings.HasPrefix(child.target, "/") {
				way, names = way[:1], names[:0]
			}
			left = append(strings.Split(child.target, "/"), left...)
		case fs.ModeDir:
			if add { // it holds something of this layer
				child.layer = u.layer
			}
			way, names = append(way, child), append(names, part)
		default:
			if !add {
				return nil, "", errMissing
			}
			return nil, "", bad("%.200q is a file and a folder", path.Join(path.Join(names...), part))
		}
	}
	at = path.Join(names...)
	if len(at) > maxName {
		return nil, "", bad("a link leads to a path of %d bytes", len(at))
	}
	return way[len(way)-1], at, nil
}

// whiteout hides what lower layers have; the layer's own entries stay, wherever
// in it they stand.
func (u *unpacker) whiteout(parents []string, last string) error {
	if last != opaqueMarker && strings.HasPrefix(last, notePrefix) {
		return nil
	}
	hidden := strings.TrimPrefix(last, whiteoutPrefix)
	if last != opaqueMarker && (hidden == "" || hidden == "." || hidden == "..") {
		return bad("%.200q hides nothing that can be", path.Join(path.Join(parents...), last))
	}
	dir, at, err := u.folder(parents, false)
	if errors.Is(err, errMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	if last == opaqueMarker {
		return u.prune(dir, at)
	}
	return u.hide(dir, at, hidden)
}

// hide takes what lower layers have at a name.
func (u *unpacker) hide(dir *node, at, name string) error {
	child := dir.children[name]
	switch {
	case child == nil:
		return nil
	case child.layer < u.layer:
		return u.remove(dir, path.Join(at, name), name)
	case child.kind == fs.ModeDir:
		return u.prune(child, path.Join(at, name))
	}
	return nil
}

// prune takes what lower layers have in a folder.
func (u *unpacker) prune(dir *node, at string) error {
	for name := range maps.Clone(dir.children) {
		if err := u.hide(dir, at, name); err != nil {
			return err
		}
	}
	return nil
}

// remove takes an entry with all below it out of the tree.
func (u *unpacker) remove(dir *node, path, name string) error {
	child := dir.children[name]
	if child == nil {
		return nil
	}
	delete(dir.children, name)
	if child.kind == fs.ModeSymlink {
		return nil // it was never made
	}
	return u.root.RemoveAll(path)
}

// fileMode is what a file gets. The sandbox's user is none of the image's: what
// an owner may read and execute everybody may, and nobody may write, because the
// root is read-only and shared. Set-user-id bits go.
func fileMode(mode int64) fs.FileMode {
	m := fs.FileMode(mode) & fs.ModePerm
	if m&0o111 != 0 {
		m |= 0o111
	}
	return m&0o755 | 0o644
}

func (u *unpacker) file(name string, n *node, h *tar.Header, content io.Reader) error {
	if err := u.cfg.Free(); err != nil {
		return err
	}
	out, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	sum := sha256.New()
	for {
		read, rerr := content.Read(u.buffer)
		n.size, u.bytes = n.size+int64(read), u.bytes+int64(read)
		if u.bytes > u.cfg.MaxBytes {
			return tooLarge(u.cfg.MaxBytes)
		}
		sum.Write(u.buffer[:read])
		if _, err := out.Write(u.buffer[:read]); err != nil {
			return err
		}
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return u.readError(rerr)
		}
	}
	n.mode, n.digest = fileMode(h.Mode), hex.EncodeToString(sum.Sum(nil))
	if err := errors.Join(out.Chmod(n.mode), out.Close()); err != nil {
		return err
	}
	return u.setTime(name, h.ModTime)
}

// hardLink makes a second name of a file, or of a symbolic link, that is there.
func (u *unpacker) hardLink(dir *node, name, last string, h *tar.Header) error {
	parts, err := split(h.Linkname)
	if err != nil {
		return err
	}
	var from *node
	var at string
	if len(parts) > 0 {
		var parent *node
		parent, at, err = u.folder(parts[:len(parts)-1], false)
		if err != nil && !errors.Is(err, errMissing) {
			return err
		}
		if err == nil {
			from = parent.children[parts[len(parts)-1]]
			at = path.Join(at, parts[len(parts)-1])
		}
	}
	switch {
	case from == nil || from.kind == fs.ModeDir:
		return bad("the hard link %.200q points to %.200q, which is no file", name, h.Linkname)
	case at == name:
		from.layer = u.layer
		return nil
	}
	if err := u.remove(dir, name, last); err != nil {
		return err
	}
	if from.kind == 0 {
		if err := u.root.Link(at, name); err != nil {
			return err
		}
	}
	second := *from
	second.layer = u.layer
	dir.children[last] = &second
	return nil
}

// mountPoint makes sure that something can be mounted at a path: a folder where
// it ends with a slash, else a file. Links at its end give way, as a mount over
// one would be a mount elsewhere.
func (u *unpacker) mountPoint(point string) error {
	parts, err := split(point)
	if err != nil {
		return err
	}
	dir, at, err := u.folder(parts[:len(parts)-1], true)
	if err != nil {
		return err
	}
	kind := fs.FileMode(0)
	if strings.HasSuffix(point, "/") {
		kind = fs.ModeDir
	}
	last := parts[len(parts)-1]
	if old := dir.children[last]; old != nil && old.kind == kind {
		return nil
	}
	name := path.Join(at, last)
	if err := u.remove(dir, name, last); err != nil {
		return err
	}
	next := &node{kind: kind, modified: time.Unix(0, 0)}
	if kind == fs.ModeDir {
		next.children = map[string]*node{}
		err = u.root.Mkdir(name, 0o755)
	} else {
		err = u.file(name, next, &tar.Header{Mode: 0o644, ModTime: next.modified}, strings.NewReader(""))
	}
	dir.children[last] = next
	return err
}

// finish makes the links, gives folders their modes and times, and lists the tree.
func (u *unpacker) finish() (list []artifact.Entry, err error) {
	return list, u.finishFolder(u.top, "", &list)
}

// finishFolder goes no deeper than maxDepth.
func (u *unpacker) finishFolder(dir *node, at string, list *[]artifact.Entry) error {
	for _, name := range slices.Sorted(maps.Keys(dir.children)) {
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		n, name := dir.children[name], path.Join(at, name)
		switch n.kind {
		case fs.ModeSymlink:
			if err := u.root.Symlink(n.target, name); err != nil {
				return err
			}
			*list = append(*list, artifact.Entry{Name: name, Mode: fs.ModeSymlink | fs.ModePerm, Target: n.target})
		case fs.ModeDir:
			if err := u.finishFolder(n, name, list); err != nil {
				return err
			}
			// Everybody may enter and read a folder. Its time changes with its
			// content, so it comes last.
			if err := u.root.Chmod(name, 0o755); err != nil {
				return err
			}
			if err := u.setTime(name, n.modified); err != nil {
				return err
			}
			*list = append(*list, artifact.Entry{Name: name, Mode: fs.ModeDir | 0o755})
		default:
			*list = append(*list, artifact.Entry{Name: name, Mode: n.mode, Size: n.size, Digest: n.digest})
		}
	}
	return nil
}

func (u *unpacker) setTime(name string, t time.Time) error {
	if t.IsZero() || t.Unix() < 0 || t.Unix() > math.MaxUint32 {
		return nil
	}
	return u.root.Chtimes(name, t, t)
}
