package scratch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// formatTimeout bounds mkfs, which needs milliseconds: the file is sparse.
	formatTimeout = 30 * time.Second
	// bytesPerInode decides how many files fit, as mkfs does for a disk.
	bytesPerInode = 16384
	// loopBlock is the block size of the loop devices: the file system's own.
	loopBlock = 4096
	// loopTries bounds how often another process may be faster to a free device.
	loopTries = 64
)

// Maker makes the file systems behind /tmp: a sparse file without a name, on
// a loop device that the kernel frees with the last mount of it. Nothing of one
// is in the host's mount table or directories, and nothing outlives a killed daemon.
type Maker struct {
	dir    string // ours alone
	format string // mkfs.ext4

	mu        sync.Mutex
	templates map[int64]*template // guarded by mu; by size
}

// template is an empty file system to be copied; its holes are not.
type template struct {
	once sync.Once
	file *os.File
	err  error
}

// FileSystem is one file system that is mounted nowhere yet.
type FileSystem struct {
	mount *os.File
	Bytes int64 // its size
}

// Close lets go of it. When it is mounted nowhere, the kernel undoes all of it.
func (s *FileSystem) Close() {
	if s != nil {
		_ = s.mount.Close()
	}
}

// Files are what is passed on of it.
func (s *FileSystem) Files() []*os.File {
	if s == nil {
		return nil
	}
	return []*os.File{s.mount}
}

// New returns a maker that keeps its files in dir, which is its alone. The error
// says why where this machine cannot make any.
func New(dir string) (*Maker, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &Maker{dir: dir, templates: map[int64]*template{}}
	for _, name := range []string{"mkfs.ext4", "/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"} {
		if path, err := exec.LookPath(name); err == nil {
			s.format = path
			break
		}
	}
	if s.format == "" {
		return nil, errors.New("install e2fsprogs, which has mkfs.ext4")
	}
	probe, err := s.Make(16 << 20)
	if err != nil {
		return nil, err
	}
	probe.Close()
	return s, nil
}

// Close forgets the templates. File systems in use stay.
func (s *Maker) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.templates {
		if t.file != nil {
			_ = t.file.Close() // it has no name, and holds nothing of anybody
		}
	}
	clear(s.templates)
}

// Make returns an empty file system with room for so many bytes.
func (s *Maker) Make(bytes int64) (_ *FileSystem, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make a file system of %d bytes for /tmp: %w", bytes, err)
		}
	}()
	t := s.template(bytes)
	if t.err != nil {
		return nil, t.err
	}
	file, err := s.unnamed()
	if err != nil {
		return nil, err
	}
	defer file.Close() // the loop device has it
	if err := copySparse(file, t.file); err != nil {
		return nil, err
	}
	loop, err := attachLoop(file)
	if err != nil {
		return nil, err
	}
	defer loop.Close() // the mount has it
	mount, err := mountScratch(loop.Name())
	if err != nil {
		return nil, err
	}
	return &FileSystem{mount, bytes}, nil
}

func (s *Maker) template(bytes int64) *template {
	s.mu.Lock()
	t := s.templates[bytes]
	if t == nil {
		t = &template{}
		s.templates[bytes] = t
	}
	s.mu.Unlock()
	t.once.Do(func() { t.file, t.err = s.formatted(bytes) })
	return t
}

// unnamed makes a file that goes with its last user. Its name tells `losetup` whose it was.
func (s *Maker) unnamed() (*os.File, error) {
	f, err := os.CreateTemp(s.dir, fmt.Sprintf("scratch-%d-", os.Getpid()))
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// formatted makes an empty ext4 with room for so many bytes. There is no journal:
// nothing of it outlives a crash.
func (s *Maker) formatted(size int64) (_ *os.File, err error) {
	f, err := s.unnamed()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	// Inodes take 1/64, and what the kernel holds back for growing metadata 2 %
	// or at most 16 MiB; bitmaps and descriptors next to nothing.
	if err := f.Truncate(size + size/60 + min(size/40, 16<<20) + 2<<20); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), formatTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.format, "-q", "-F", "-m", "0", "-b", fmt.Sprint(loopBlock), "-i", fmt.Sprint(bytesPerInode),
		"-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard", "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", s.format, err, bytes.TrimSpace(out))
	}
	return f, nil
}

// copySparse copies what src holds; its holes stay holes.
func copySparse(dst, src *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return err
	}
	for at := int64(0); ; {
		// Not through src's own offset: several copies may be under way.
		from, to, err := nextData(src, at)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, from), io.NewSectionReader(src, from, to-from)); err != nil {
			return err
		}
		at = to
	}
}

// nextData finds the first bytes at or behind an offset that are no hole. The
// file's offset means nothing to anybody.
func nextData(f *os.File, at int64) (from, to int64, err error) {
	if from, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA); err != nil {
		return 0, 0, err
	}
	to, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
	return from, to, err
}

// attachLoop puts a file behind a free loop device, which is freed when its last
// user closes it.
func attachLoop(file *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop, err := openLoop(n)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Size: loopBlock, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, fmt.Errorf("configure %s: %w", loop.Name(), err)
		}
	}
	return nil, fmt.Errorf("find a free loop device: other programs took %d of them meanwhile", loopTries)
}

// openLoop opens /dev/loopN, which it makes where nobody else does.
func openLoop(n int) (*os.File, error) {
	const loopMajor = 7
	path := filepath.Join("/dev", fmt.Sprintf("loop%d", n))
	loop, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return loop, err
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// mountScratch mounts the file system at no place yet, and makes its root a /tmp.
func mountScratch(device string) (_ *os.File, err error) {
	fs, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open ext4: %w", err)
	}
	defer unix.Close(fs)
	if err := errors.Join(
		unix.FsconfigSetString(fs, "source", device),
		unix.FsconfigSetFlag(fs, "noinit_itable"), // zeros of a sparse file need no writing
		unix.FsconfigSetFlag(fs, "nobarrier"),     // it never outlives the machine
	); err != nil {
		return nil, fmt.Errorf("configure ext4: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("mount %s: %w", device, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", device, err)
	}
	mount := os.NewFile(uintptr(fd), "scratch")
	defer func() {
		if err != nil {
			_ = mount.Close()
		}
	}()
	if err := unix.Unlinkat(fd, "lost+found", unix.AT_REMOVEDIR); err != nil {
		return nil, fmt.Errorf("empty %s: %w", device, err)
	}
	if err := unix.Fchmodat(fd, ".", 0o777|unix.S_ISVTX, 0); err != nil {
		return nil, fmt.Errorf("open %s to all: %w", device, err)
	}
	return mount, nil
}
