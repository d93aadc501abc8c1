package powerloss

import (
	"context"
	"maps"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount makes the disk a folder. unmount ends that, after which the disk can be mounted
// again; the end of the test does it otherwise. The test is skipped where that cannot be
// done.
func Mount(t testing.TB, d *Disk) (dir string, unmount func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a disk that loses power")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("a disk that loses power needs FUSE: %v", err)
	}
	dir = t.TempDir()
	server, err := fs.Mount(dir, &node{disk: d, entry: d.root}, &fs.Options{
		MountOptions: fuse.MountOptions{AllowOther: true, Options: []string{"default_permissions"}, DirectMountStrict: true, FsName: "kiln-test", Name: "powerloss", DisableXAttrs: true, MaxWrite: 1 << 20},
	})
	if err != nil {
		t.Skipf("a disk that loses power needs FUSE: %v", err)
	}
	unmounted := false
	unmount = func() {
		t.Helper()
		if unmounted {
			return
		}
		unmounted = true
		// By force: a program whose disk has failed may have left files open, and a mount
		// namespace that another process has made meanwhile holds this mount, too.
		// Nobody may wait for us for ever, not even the end of this process.
		if err := syscall.Unmount(dir, syscall.MNT_FORCE|syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
		server.Wait()
	}
	t.Cleanup(unmount)
	return dir, unmount
}

// node is an entry as go-fuse wants it.
type node struct {
	fs.Inode
	disk  *Disk
	entry *entry
}

var (
	_ fs.NodeLookuper   = (*node)(nil)
	_ fs.NodeReaddirer  = (*node)(nil)
	_ fs.NodeGetattrer  = (*node)(nil)
	_ fs.NodeSetattrer  = (*node)(nil)
	_ fs.NodeCreater    = (*node)(nil)
	_ fs.NodeMkdirer    = (*node)(nil)
	_ fs.NodeSymlinker  = (*node)(nil)
	_ fs.NodeReadlinker = (*node)(nil)
	_ fs.NodeUnlinker   = (*node)(nil)
	_ fs.NodeRmdirer    = (*node)(nil)
	_ fs.NodeRenamer    = (*node)(nil)
	_ fs.NodeLinker     = (*node)(nil)
	_ fs.NodeOpener     = (*node)(nil)
	_ fs.NodeReader     = (*node)(nil)
	_ fs.NodeWriter     = (*node)(nil)
	_ fs.NodeFsyncer    = (*node)(nil)
	_ fs.NodeStatfser   = (*node)(nil)
)

// open is a file that is open.
type open struct{ sync bool }

func (n *node) child(ctx context.Context, e *entry, out *fuse.EntryOut) *fs.Inode {
	n.attributes(e, &out.Attr)
	return n.NewInode(ctx, &node{disk: n.disk, entry: e}, fs.StableAttr{Mode: out.Attr.Mode & syscall.S_IFMT, Ino: e.number})
}

func (n *node) attributes(e *entry, out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink, out.Size = e.number, e.mode|syscall.S_IFREG, 1, uint64(len(e.content))
	out.Owner = e.owner
	switch {
	case e.folder:
		out.Mode = e.mode | syscall.S_IFDIR
	case e.link != "":
		out.Mode, out.Size = 0o777|syscall.S_IFLNK, uint64(len(e.link))
	}
	out.Blocks = (out.Size + 511) / 512
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.read(); errno != 0 {
		return nil, errno
	}
	e := n.entry.names[name]
	if e == nil {
		return nil, syscall.ENOENT
	}
	return n.child(ctx, e, out), 0
}

func (n *node) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	l := &listing{of: n}
	return l, l.Seekdir(ctx, 0)
}

// listing is what a folder holds, looked at anew when it is read from its start again.
type listing struct {
	fs.DirStream
	of *node
}

func (l *listing) Seekdir(ctx context.Context, at uint64) syscall.Errno {
	if at > 0 {
		return l.DirStream.(fs.FileSeekdirer).Seekdir(ctx, at)
	}
	n := l.of
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	var list []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.entry.names)) {
		var a fuse.Attr
		n.attributes(n.entry.names[name], &a)
		list = append(list, fuse.DirEntry{Name: name, Ino: a.Ino, Mode: a.Mode})
	}
	l.DirStream = fs.NewListDirStream(list)
	return n.disk.read()
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.attributes(n.entry, &out.Attr)
	return n.disk.read()
}

func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.change(); errno != 0 {
		return errno
	}
	if mode, ok := in.GetMode(); ok {
		n.entry.mode = mode & 0o7777
	}
	if uid, ok := in.GetUID(); ok {
		n.entry.owner.Uid = uid
	}
	if gid, ok := in.GetGID(); ok {
		n.entry.owner.Gid = gid
	}
	if size, ok := in.GetSize(); ok {
		if errno := n.disk.resize(n.entry, int64(size)); errno != 0 {
			return errno
		}
	}
	n.attributes(n.entry, &out.Attr)
	return 0
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	inode, errno := n.add(ctx, name, n.disk.make, mode, false, out)
	return inode, opened(flags), 0, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.add(ctx, name, n.disk.make, mode, true, out)
}

func (n *node) add(ctx context.Context, name string, make func(bool, uint32) *entry, mode uint32, folder bool, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.change(); errno != 0 {
		return nil, errno
	}
	if n.entry.names[name] != nil {
		return nil, syscall.EEXIST
	}
	e := make(folder, mode)
	n.entry.names[name] = e
	return n.child(ctx, e, out), 0
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	link := func(_ bool, mode uint32) *entry {
		e := n.disk.make(false, mode)
		e.link = target
		return e
	}
	return n.add(ctx, name, link, 0, false, out)
}

func (n *node) Readlink(context.Context) ([]byte, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	return []byte(n.entry.link), n.disk.read()
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno { return n.remove(name) }
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno  { return n.remove(name) }

func (n *node) remove(name string) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	switch e := n.entry.names[name]; {
	case n.disk.off:
		return syscall.EIO
	case n.disk.fault == syscall.EROFS:
		return syscall.EROFS // a full disk lets files be removed
	case e == nil:
		return syscall.ENOENT
	case len(e.names) > 0:
		return syscall.ENOTEMPTY
	}
	delete(n.entry.names, name)
	return 0
}

func (n *node) Rename(_ context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.change(); errno != 0 {
		return errno
	}
	if flags != 0 {
		return syscall.ENOSYS
	}
	to := parent.(*node).entry
	to.names[newName] = n.entry.names[name]
	if to != n.entry || newName != name {
		delete(n.entry.names, name)
	}
	return 0
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	e := target.(*node).entry
	return n.add(ctx, name, func(bool, uint32) *entry { return e }, 0, false, out)
}

func opened(flags uint32) *open { return &open{sync: flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0} }

func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.read(); errno != 0 {
		return nil, 0, errno
	}
	if n.disk.fault == syscall.EROFS && flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	return opened(flags), 0, 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.read(); errno != 0 {
		return nil, errno
	}
	if at >= int64(len(n.entry.content)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, n.entry.content[at:])]), 0
}

func (n *node) Write(_ context.Context, f fs.FileHandle, data []byte, at int64) (uint32, syscall.Errno) {
	o, ok := f.(*open)
	if errno := n.disk.write(n.entry, data, at, ok && o.sync); errno != 0 {
		return 0, errno
	}
	return uint32(len(data)), 0
}

func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.change(); errno != 0 {
		return errno
	}
	n.disk.sync(n.entry)
	return 0
}

func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	free := uint64(maxBytes - n.disk.used)
	if n.disk.fault == syscall.ENOSPC && n.disk.left == 0 {
		free = 0
	}
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	out.Blocks, out.Bfree, out.Bavail = maxBytes/pageSize, free/pageSize, free/pageSize
	return 0
}
