package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/archive"
	"kiln/internal/state/datadir"
	"kiln/internal/state/jetstream"
	"kiln/internal/telemetry/logs"
)

// The parts of a backup, as its entries are named.
const (
	identityPart = "directory/"
	recordsPart  = "records/"
	eventsPart   = "events/"
	blobsPart    = "blobs/"
	logsPart     = "telemetry/logs.db"
)

// maxPiece is how much of records and events an entry holds, in bytes, roughly:
// they are in memory, once more, while it is written.
const maxPiece = 4 << 20

// backups makes backups of a Kiln that serves.
type backups struct {
	dir     *datadir.Dir
	engine  *jetstream.Engine
	logs    *logs.Store
	version string

	making sync.Mutex // held while one is made
}

// work is where a backup keeps until its end what may be removed or changed meanwhile.
func (b *backups) work() string { return filepath.Join(b.dir.Run(), "backup") }

// sweep removes what a backup has left that was cut off.
func (b *backups) sweep() error { return os.RemoveAll(b.work()) }

// Backup writes one moment of everything. What fails before the first byte is
// returned; what fails later is said in the backup too, so that its reader knows.
func (b *backups) Backup(ctx context.Context, begin func() io.Writer) (err error) {
	if !b.making.TryLock() {
		return lambda.Conflict("Another backup is being made. Try again when it is done.")
	}
	defer b.making.Unlock()
	// The logs are copied first, and the engine must never find the disk full.
	logFile := filepath.Join(b.dir.Telemetry(), path.Base(logsPart))
	size := int64(0)
	for _, name := range []string{logFile, logFile + "-wal"} {
		if info, err := os.Stat(name); err == nil {
			size += info.Size()
		}
	}
	if err := b.dir.Room(size); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	if err := errors.Join(b.sweep(), os.Mkdir(b.work(), 0o700)); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	defer func() { err = errors.Join(err, b.sweep()) }()
	// What was added to runtimes has thousands of files, and no record refers to it.
	if err := b.link(datadir.Runtimes(b.dir.Path())); err != nil {
		return err
	}
	moment := time.Time{}
	snapshot, err := b.engine.Snapshot(ctx, func() error {
		moment = time.Now().UTC()
		return b.link(b.dir.Images())
	})
	if err != nil {
		return err
	}
	defer snapshot.Close()
	copied := filepath.Join(b.work(), "logs.db")
	if err := b.logs.Copy(ctx, copied); err != nil {
		return err
	}
	files, own, err := b.dir.Identity()
	if err != nil {
		return err
	}
	out, err := archive.NewWriter(begin(), archive.Manifest{Kiln: b.version, Time: moment, Node: b.dir.Node(), OpenKey: own})
	if err != nil {
		return err
	}
	for name, content := range files {
		err = errors.Join(err, out.Bytes(identityPart+name, content))
	}
	if err == nil {
		err = writeSnapshot(ctx, out, snapshot)
	}
	if err == nil {
		err = writeFile(out, logsPart, copied)
	}
	for _, part := range datadir.Parts() {
		if from := filepath.Join(b.work(), part); err == nil {
			if err = out.Tree(part, from); errors.Is(err, fs.ErrNotExist) {
				err = nil // nothing was added to runtimes yet
			}
		}
	}
	if err == nil {
		return out.Close()
	}
	_ = out.Fail("Kiln failed to read what it keeps; its log says why.") // the caller is gone if this fails
	return err
}

// writeSnapshot writes what the engine keeps.
func writeSnapshot(ctx context.Context, out *archive.Writer, s *jetstream.Snapshot) error {
	if err := writeLines(out, recordsPart, s.Records); err != nil {
		return err
	}
	if err := writeLines(out, eventsPart, s.Events); err != nil {
		return err
	}
	for _, key := range s.Blobs() {
		blob, size := s.Blob(ctx, key)
		if err := errors.Join(out.File(blobsPart+key, 0o600, size, blob), blob.Close()); err != nil {
			return err
		}
	}
	return nil
}

// writeLines writes values as JSON, one a line, in as many entries as they need.
func writeLines[V any](out *archive.Writer, part string, values []V) error {
	var piece bytes.Buffer
	lines := json.NewEncoder(&piece)
	for i, n := 0, 1; i < len(values); i++ {
		if err := lines.Encode(values[i]); err != nil {
			return err
		}
		if piece.Len() < maxPiece && i < len(values)-1 {
			continue
		}
		if err := out.Bytes(fmt.Sprintf("%s%06d", part, n), piece.Bytes()); err != nil {
			return err
		}
		piece.Reset()
		n++
	}
	return nil
}

func writeFile(out *archive.Writer, name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return out.File(name, 0o600, info.Size(), f)
}

// link makes a folder of the same files, which stay when they are removed from the
// first. Those that are being written are left out: nothing refers to them yet.
func (b *backups) link(from string) error {
	to := filepath.Join(b.work(), filepath.Base(from))
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		unfinished := strings.HasPrefix(d.Name(), "tmp-") || strings.HasPrefix(d.Name(), ".new-")
		at := filepath.Join(to, inside)
		switch {
		case unfinished && d.IsDir():
			return fs.SkipDir
		case unfinished:
			return nil
		case d.IsDir():
			info, err := d.Info()
			if err != nil {
				return err
			}
			return errors.Join(os.Mkdir(at, 0o700), os.Chmod(at, info.Mode().Perm()|0o700))
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			return os.Symlink(target, at)
		}
		return os.Link(name, at)
	})
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Stat(from); errors.Is(serr, fs.ErrNotExist) {
			return nil
		}
	}
	return err
}

// maxChanges is how many records are restored at once.
const maxChanges = 200

// Restore makes a data directory of a backup, whole or not at all, and says what
// it was of.
func Restore(ctx context.Context, data string, backup io.Reader) (m archive.Manifest, err error) {
	err = datadir.Restore(data, func(dir string) error {
		var r *restoring
		err := archive.Read(backup, func(of archive.Manifest) (err error) {
			m = of
			r, err = newRestoring(ctx, dir, m.Node)
			return err
		}, func(e archive.Entry) error { return r.entry(ctx, e) })
		if r != nil {
			err = errors.Join(err, r.close(ctx, err == nil))
		}
		return err
	})
	return m, err
}

// restoring is a data directory that a backup is being read into.
type restoring struct {
	dir     string
	root    *os.Root
	engine  *jetstream.Engine
	changes []state.Change // not made yet
}

func newRestoring(ctx context.Context, dir, node string) (*restoring, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	r := &restoring{dir: dir, root: root, engine: jetstream.New(jetstream.Config{Dir: dir, Node: node})}
	if err := r.engine.Open(ctx); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return r, nil
}

func (r *restoring) close(ctx context.Context, complete bool) (err error) {
	if complete {
		err = r.commit(ctx)
	}
	return errors.Join(err, r.engine.Close(), r.root.Close())
}

func (r *restoring) entry(ctx context.Context, e archive.Entry) error {
	part, name, _ := strings.Cut(e.Name, "/")
	if name == "" && !e.Mode.IsDir() || path.Clean(e.Name) != e.Name {
		return fmt.Errorf("the backup is damaged: it has an entry %q", e.Name)
	}
	switch part += "/"; {
	case !e.Mode.IsRegular():
	case part == identityPart:
		content, err := io.ReadAll(io.LimitReader(e, maxPiece))
		if err != nil {
			return err
		}
		return datadir.RestoreIdentity(r.dir, name, content)
	case part == recordsPart:
		return eachLine(e, func(record state.Record) error {
			r.changes = append(r.changes, state.Change{Key: record.Key, Value: record.Value})
			if len(r.changes) < maxChanges {
				return nil
			}
			return r.commit(ctx)
		})
	case part == eventsPart:
		return eachLine(e, func(event jetstream.Event) error { return r.engine.Queue().Restore(ctx, event) })
	case part == blobsPart:
		return r.engine.Blob().Put(ctx, name, e)
	case e.Name == logsPart:
		if err := os.MkdirAll(datadir.TelemetryIn(r.dir), 0o700); err != nil {
			return err
		}
	}
	for _, kept := range append(datadir.Parts(), path.Dir(logsPart)) {
		if part == kept+"/" {
			return r.put(e)
		}
	}
	return fmt.Errorf("the backup has an entry %q that this Kiln does not know: upgrade kiln", e.Name)
}

// commit makes the changes that have come together.
func (r *restoring) commit(ctx context.Context) error {
	_, err := r.engine.State().Commit(ctx, r.changes...)
	r.changes = r.changes[:0]
	return err
}

// put makes what an entry is, in the directory and nowhere else.
func (r *restoring) put(e archive.Entry) error {
	switch {
	case e.Mode.IsDir():
		if err := r.root.Mkdir(e.Name, 0o700); err != nil {
			return err
		}
		return r.root.Chmod(e.Name, e.Mode.Perm()|0o700)
	case e.Mode&fs.ModeSymlink != 0:
		return r.root.Symlink(e.Target, e.Name)
	}
	f, err := r.root.OpenFile(e.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, e)
	return errors.Join(err, f.Chmod(e.Mode.Perm()), f.Sync(), f.Close())
}

// eachLine reads the values of writeLines.
func eachLine[V any](r io.Reader, each func(V) error) error {
	for lines := json.NewDecoder(r); ; {
		var v V
		err := lines.Decode(&v)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the backup is damaged: %w", err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
}
