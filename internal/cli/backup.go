package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"

	"golang.org/x/term"

	"kiln/internal/daemon"
	"kiln/internal/state/archive"
)

type backup struct {
	remote
	File string `arg:"" help:"File to make; - is standard output."`
}

// partial ends the name of a backup that is not complete.
const partial = ".partial"

// Run checks what comes while it is written, and what was written once more.
func (b backup) Run(ctx context.Context, s *streams) (err error) {
	if b.File == "-" {
		if s.interactive {
			return errors.New("a backup is no text: write it to a file, or into a pipe")
		}
		_, err := b.fetch(ctx, s, s.out)
		return err
	}
	if _, err := os.Lstat(b.File); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already: choose another name", b.File)
	}
	name := b.File + partial
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(name)) }()
	defer f.Close()
	if _, err := b.fetch(ctx, s, f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	m, err := check(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return fmt.Errorf("what was written is not what was sent: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := os.Link(name, b.File); err != nil { // unlike a renaming, it replaces nothing
		return err
	}
	if b.JSON {
		return writeJSON(s.out, m)
	}
	fmt.Fprintf(s.out, "%s is Kiln as of %s (%.1f MB)\n", b.File, m.Time.Local().Format(time.DateTime), float64(info.Size())/1e6)
	if m.OpenKey {
		fmt.Fprintln(s.out, "It holds the master key: whoever can read it can read every secret in it.")
	} else {
		fmt.Fprintln(s.out, "Its secrets are sealed under your master key, which it does not hold: keep both.")
	}
	return nil
}

// fetch copies a backup from the daemon, and fails unless it is whole.
func (b backup) fetch(ctx context.Context, s *streams, to io.Writer) (m archive.Manifest, err error) {
	c, err := b.connect(ctx, s.getenv)
	if err != nil {
		return m, err
	}
	body, err := c.call(ctx, http.MethodPost, "/_kiln/backup", nil)
	if err != nil {
		return m, c.explain(err)
	}
	defer body.Close()
	written := &progress{to: to}
	if f, ok := s.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		written.show = f
	}
	all := io.TeeReader(body, written)
	m, err = check(all)
	if err == nil {
		_, err = io.Copy(io.Discard, all) // the padding at its end
	}
	written.done()
	switch {
	case written.failed != nil:
		err = written.failed
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	}
	return m, err
}

func check(r io.Reader) (m archive.Manifest, err error) {
	err = archive.Read(r, func(of archive.Manifest) error { m = of; return nil }, func(archive.Entry) error { return nil })
	return m, err
}

// progress writes, and shows how much.
type progress struct {
	to     io.Writer
	show   io.Writer // nil for nowhere
	bytes  int64
	shown  time.Time
	failed error // of to
}

func (p *progress) Write(b []byte) (int, error) {
	n, err := p.to.Write(b)
	p.failed = err
	p.bytes += int64(n)
	if p.show != nil && time.Since(p.shown) > time.Second/4 {
		p.shown = time.Now()
		fmt.Fprintf(p.show, "\r%.1f MB", float64(p.bytes)/1e6)
	}
	return n, err
}

func (p *progress) done() {
	if p.show != nil {
		fmt.Fprint(p.show, "\r\x1b[K")
	}
}

// restore works on the files: there is no daemon yet.
type restore struct {
	settings
	File string `arg:"" help:"A file that kiln backup made; - is standard input."`
}

func (r restore) Run(ctx context.Context, s *streams) error {
	c, err := r.load(s.getenv)
	if err != nil {
		return err
	}
	in := s.in
	if r.File != "-" {
		f, err := os.Open(r.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	m, err := daemon.Restore(ctx, c.Data, bufio.NewReaderSize(in, 1<<20))
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s is Kiln as of %s. Start it with: kiln up --data %[1]s\n", c.Data, m.Time.Local().Format(time.DateTime))
	if !m.OpenKey {
		fmt.Fprintln(s.out, "Its secrets are sealed under the master key that it had: configure that one.")
	}
	return nil
}
