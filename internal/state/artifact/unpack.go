package artifact

import (
	"archive/zip"
	"bytes"
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

	"kiln/internal/lambda"
)

const (
	// maxEntries bounds a package's files, folders and links.
	maxEntries = 100_000
	// maxHeaders bounds the entry headers anywhere in the zip, before they are
	// parsed: each costs some 250 bytes of memory. Packed archives within the
	// package have headers of their own, hence the room.
	maxHeaders = 4 * maxEntries
	// maxName bounds an entry's path in bytes: PATH_MAX is 4,096 with the path of the mount.
	maxName = 1024
	// maxPart bounds one part of a path in bytes, as Linux does.
	maxPart = 255
	// maxDepth bounds the folders around an entry.
	maxDepth = 100
	// maxTarget bounds a symbolic link's target in bytes.
	maxTarget = 1024
	// copySize is the unit of copying, counting and asking for free space, in bytes.
	copySize = 256 << 10
	// diskBlock is what a file is rounded up to for the cache's account, in bytes.
	diskBlock = 4096
)

// bad is what a package gets that AWS could not unpack; detail is for the log.
func bad(format string, detail ...any) error {
	return fmt.Errorf("%w (%w)",
		lambda.InvalidParameter("Could not unzip uploaded file. Please check your file, then try to upload again."),
		fmt.Errorf(format, detail...))
}

// unpack writes a package's content below root. It trusts nothing that the zip
// says of itself: sizes are counted, names are checked, and links are made last,
// when nothing is written any more that could pass through them.
func unpack(ctx context.Context, root *os.Root, src io.ReaderAt, size int64, free func() error) (*manifest, error) {
	if err := checkHeaders(src, size); err != nil {
		return nil, err
	}
	z, err := zip.NewReader(src, size)
	if err != nil {
		return nil, bad("%w", err)
	}
	if len(z.File) == 0 {
		return nil, bad("it is empty")
	}
	if len(z.File) > maxEntries {
		return nil, bad("it has %d entries; %d are allowed", len(z.File), maxEntries)
	}
	u := &unpacker{ctx: ctx, root: root, free: free, kinds: map[string]fs.FileMode{}, folders: map[string]*zip.File{}, buffer: make([]byte, copySize)}
	for _, f := range z.File {
		if err := u.entry(f); err != nil {
			return nil, err
		}
	}
	if err := u.finish(); err != nil {
		return nil, err
	}
	return &u.manifest, nil
}

// checkHeaders counts the signatures of entry headers.
func checkHeaders(src io.ReaderAt, size int64) error {
	signature := []byte("PK\x01\x02")
	r := io.NewSectionReader(src, 0, size)
	buffer, kept, found := make([]byte, copySize), 0, 0
	for {
		n, err := r.Read(buffer[kept:])
		window := buffer[:kept+n]
		found += bytes.Count(window, signature)
		if found > maxHeaders {
			return bad("it has more than %d entry headers", maxHeaders)
		}
		// A signature may lie across two windows; one within the kept bytes is too short to count twice.
		kept = copy(buffer, window[max(0, len(window)-len(signature)+1):])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

type unpacker struct {
	ctx      context.Context
	root     *os.Root
	free     func() error
	buffer   []byte
	kinds    map[string]fs.FileMode // type of each path that is there; folders too
	folders  map[string]*zip.File   // nil: the folder has no entry of its own
	links    []entry
	manifest manifest
}

func (u *unpacker) entry(f *zip.File) error {
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	if f.Flags&1 != 0 {
		return bad("%.200q is encrypted", f.Name)
	}
	mode := f.Mode()
	name, isDir := strings.CutSuffix(f.Name, "/")
	name, err := cleanName(name)
	if err != nil {
		return err
	}
	if isDir || mode.IsDir() {
		if name == "." {
			return nil
		}
		return u.folder(name, f)
	}
	if name == "." {
		return bad("%.200q names the package itself", f.Name)
	}
	if _, there := u.kinds[name]; there {
		return bad("%.200q appears twice", name)
	}
	if parent := path.Dir(name); parent != "." {
		if err := u.folder(parent, nil); err != nil {
			return err
		}
	}
	switch mode.Type() {
	case 0:
		u.kinds[name] = 0
		return u.file(name, f)
	case fs.ModeSymlink:
		u.kinds[name] = fs.ModeSymlink
		return u.link(name, f)
	}
	return bad("%.200q is neither a file, a folder nor a link: %v", name, mode)
}

// cleanName checks an entry's path. Backslashes are refused rather than guessed:
// they are legal in names, and separators to some.
func cleanName(name string) (string, error) {
	switch {
	case len(name) > maxName:
		return "", bad("a path has %d bytes; %d are allowed", len(name), maxName)
	case strings.HasPrefix(name, "/"):
		return "", bad("%.200q is absolute", name)
	case strings.ContainsAny(name, "\\\x00"):
		return "", bad("%.200q has a backslash or a zero byte", name)
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		depth++
		if part == ".." {
			return "", bad("%.200q leads upwards", name)
		}
		if len(part) > maxPart {
			return "", bad("a part of %.200q has %d bytes; %d are allowed", name, len(part), maxPart)
		}
	}
	if depth > maxDepth {
		return "", bad("%.200q lies in %d folders; %d are allowed", name, depth-1, maxDepth)
	}
	return path.Clean(name), nil
}

// folder makes a folder and those above it. Zips name a folder before its
// content, after it, twice or not at all.
func (u *unpacker) folder(name string, f *zip.File) error {
	if kind, there := u.kinds[name]; there {
		if kind != fs.ModeDir {
			return bad("%.200q is a file and a folder", name)
		}
	} else {
		if parent := path.Dir(name); parent != "." {
			if err := u.folder(parent, nil); err != nil {
				return err
			}
		}
		if len(u.kinds) >= maxEntries {
			return bad("it has more than %d entries with its folders", maxEntries)
		}
		if err := u.root.Mkdir(name, 0o755); err != nil {
			return err
		}
		u.kinds[name], u.folders[name] = fs.ModeDir, nil
	}
	if f != nil {
		u.folders[name] = f
	}
	return nil
}

// fileMode is what a file of the package gets. Only permission bits are kept: a
// set-user-id bit would give a package the rights of whoever unpacked it. The
// sandbox runs as another user than the one who unpacks, so that the owner's
// rights to read and execute are everybody's; packages zipped under umask 077
// work like this, where AWS answers EACCES. Nobody else may write: trees are
// shared by environments. A mode of zero is what Python's zipfile and zips from
// Windows have where nothing was said.
func fileMode(mode fs.FileMode) fs.FileMode {
	mode &= fs.ModePerm
	if mode == 0 {
		return 0o644
	}
	if mode&0o100 != 0 {
		mode |= 0o111
	}
	return mode&0o755 | 0o444
}

func (u *unpacker) file(name string, f *zip.File) error {
	if err := u.free(); err != nil {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return bad("%.200q: %w", name, err)
	}
	defer in.Close()
	out, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	mode, sum, size := fileMode(f.Mode()), sha256.New(), int64(0)
	for {
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		n, rerr := in.Read(u.buffer)
		size, u.manifest.Unpacked = size+int64(n), u.manifest.Unpacked+int64(n)
		if u.manifest.Unpacked > lambda.MaxUnzipped {
			return lambda.UnzippedTooLarge()
		}
		sum.Write(u.buffer[:n])
		if _, err := out.Write(u.buffer[:n]); err != nil {
			return err
		}
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return bad("%.200q: %w", name, rerr)
		}
	}
	if err := errors.Join(out.Chmod(mode), out.Close()); err != nil {
		return err
	}
	if err := u.setTime(name, f); err != nil {
		return err
	}
	u.manifest.add(entry{Name: name, Mode: mode, Size: size, Digest: hex.EncodeToString(sum.Sum(nil))})
	return nil
}

// link notes a symbolic link, to be made at the end.
func (u *unpacker) link(name string, f *zip.File) error {
	in, err := f.Open()
	if err != nil {
		return bad("%.200q: %w", name, err)
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxTarget+1))
	if err != nil {
		return bad("%.200q: %w", name, err)
	}
	target := string(b)
	if target == "" || len(target) > maxTarget || strings.HasPrefix(target, "/") || strings.ContainsRune(target, 0) {
		return bad("the link %.200q points to %.200q", name, target)
	}
	u.links = append(u.links, entry{Name: name, Mode: fs.ModeSymlink | fs.ModePerm, Target: target})
	return nil
}

// finish makes the links, checks where they lead, and gives folders their modes and times.
func (u *unpacker) finish() error {
	for _, l := range u.links {
		if err := u.root.Symlink(l.Target, l.Name); err != nil {
			return err
		}
		u.manifest.add(l)
	}
	for _, l := range u.links {
		// The root follows the link and all that it passes through. A link to
		// nothing is kept; one that leaves the package is not.
		if _, err := u.root.Stat(l.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return bad("the link %.200q points to %.200q: %w", l.Name, l.Target, err)
		}
	}
	// A folder's time changes with its content, so the content comes first: in
	// reverse order it does.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(u.folders))) {
		// Everybody may enter and read a folder, and only its owner write.
		if err := u.root.Chmod(name, 0o755); err != nil {
			return err
		}
		if f := u.folders[name]; f != nil {
			if err := u.setTime(name, f); err != nil {
				return err
			}
		}
		u.manifest.add(entry{Name: name, Mode: fs.ModeDir | 0o755})
	}
	u.manifest.Disk += diskBlock // the manifest, and never 0
	return nil
}

func (u *unpacker) setTime(name string, f *zip.File) error {
	t := f.Modified
	if t.IsZero() || t.Unix() < 0 || t.Unix() > math.MaxUint32 {
		return nil
	}
	return u.root.Chtimes(name, t, t)
}
