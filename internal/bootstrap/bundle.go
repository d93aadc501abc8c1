package bootstrap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"kiln/internal/lambda"
)

const (
	bundlePrefix = "bundle-"
	// installTimeout bounds one installation: hundreds of packages over a slow line.
	installTimeout = 15 * time.Minute
	// stillInterval is how often a long installation says that it goes on.
	stillInterval = 5 * time.Second
	// maxPackages bounds what may be asked for at once; AWS's SDKs have some 400 clients.
	maxPackages = 1000
	// maxSaid bounds what of a package client's complaint is passed on, in bytes, of
	// its beginning and of its end: the one or the other says what is wrong.
	maxSaid = 1 << 10
)

// Bundler is an optional capability of a Family: it installs the packages that AWS
// puts beside the language.
type Bundler interface {
	// Bundle lists them for an identifier, each pinned to a version, in the
	// notation of the language's package client.
	Bundle(id lambda.RuntimeID) []string
	// Install fetches packages with that client, as it is configured for the
	// daemon's user, into the empty folder dir, which is then laid over the runtime
	// client's. The client's own files must not be among what it leaves there.
	Install(ctx context.Context, in Installation, packages []string, dir string) error
}

// Requirer is an optional capability of a Family whose identifiers cannot run with
// an interpreter alone.
type Requirer interface {
	// Require says what an identifier lacks beside what was added to it, and what
	// to do about it; "" when it can run.
	Require(have Addition) string
}

// Order is what is to be added to a runtime identifier.
type Order struct {
	ID lambda.RuntimeID
	// Packages are installed beside those that the family lists.
	Packages []string
	// Image, if not nil, is the reference of a base image, and no package is installed.
	Image *string
}

// packagePattern is what package clients call packages of their registry, with a
// version or without. Nothing of it can be taken for an option, a path or an address:
// from those, clients build and run what they find, with the daemon's rights.
var packagePattern = regexp.MustCompile(`^(@[\w.-]+/)?\w[\w.-]*([@:]?[<>=~^!]{0,3}[\w.+-]+)?$|^\w[\w.-]*:[\w.-]+:[\w.-]+$`)

// ErrNotAdded is the code of a package client's failure.
const ErrNotAdded = "RuntimeNotAddedException"

func notAdded(id lambda.RuntimeID, err error) error {
	return &lambda.Error{Code: ErrNotAdded, Status: http.StatusBadGateway,
		Message: fmt.Sprintf("Nothing was added to %s: %v.", id, err)}
}

// Add installs the packages of an identifier's bundle and records it; environments
// that start afterwards have it. say is told of each step, and at least every few
// seconds, from one goroutine at a time. Where anything fails, all is as before.
func (c *Catalog) Add(ctx context.Context, o Order, say func(string)) error {
	if o.Image != nil {
		return c.addImage(ctx, o, say)
	}
	s, ident, ok := c.shelfOf(o.ID)
	if !ok {
		return unavailable(o.ID, c.config.Now())
	}
	if c.config.Additions == nil {
		return errors.New("this catalog keeps no additions")
	}
	if c.based(o.ID) != nil {
		return lambda.InvalidParameter("%s is served by a base image, which brings what AWS bundles. Remove it first: kiln runtime remove %s", o.ID, o.ID)
	}
	family, ok := s.Family.(Bundler)
	if !ok {
		if r, ok := s.Family.(Requirer); ok {
			if lack := r.Require(Addition{ID: o.ID}); lack != "" {
				return lambda.InvalidParameter("%s", lack)
			}
		}
		return lambda.InvalidParameter("There is nothing to add to %s: its functions bring all that they need.", o.ID)
	}
	packages := slices.Concat(family.Bundle(o.ID), o.Packages)
	if len(packages) > maxPackages {
		return lambda.InvalidParameter("%d packages are too many; %d can be added at once.", len(packages), maxPackages)
	}
	for _, p := range o.Packages {
		if !packagePattern.MatchString(p) {
			return lambda.InvalidParameter("%q is not the name of a package.", p)
		}
	}
	release, err := c.exclusively()
	if err != nil {
		return err
	}
	defer release()
	in, err := c.interpreter(ctx, s, ident)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(strings.Join(slices.Concat([]string{s.Name(), in.Program, in.Version}, packages), "\n")))
	b := &Bundle{
		Packages: packages, For: in.Version, Added: c.config.Now().UTC().Truncate(time.Second),
		Folder: bundlePrefix + string(o.ID) + "-" + hex.EncodeToString(sum[:16]),
	}
	had := c.config.Additions.Get(o.ID).Bundle
	if had != nil && had.Folder == b.Folder {
		if _, err := os.Stat(c.config.Additions.folder(had)); err == nil {
			say("it was added before, and is complete")
			return nil
		}
	}
	say(fmt.Sprintf("installing %d packages for %s %s", len(packages), s.Name(), in.Version))
	if err := c.install(ctx, family, in, b, say); err != nil {
		return notAdded(o.ID, err)
	}
	if err := c.change(ctx, s, o.ID, func(a *Addition) { a.Bundle = b }); err != nil {
		return errors.Join(err, os.RemoveAll(c.config.Additions.folder(b)))
	}
	say(fmt.Sprintf("installed %.1f MB, now making it ready", float64(b.Bytes)/1e6))
	if err := whileSaying(say, func() error { _, err := c.Resolve(ctx, o.ID); return err }); err != nil {
		undo := c.change(context.WithoutCancel(ctx), s, o.ID, func(a *Addition) { a.Bundle = had })
		return errors.Join(notAdded(o.ID, err), undo, os.RemoveAll(c.config.Additions.folder(b)))
	}
	if had != nil && had.Folder != b.Folder {
		return os.RemoveAll(c.config.Additions.folder(had))
	}
	return nil
}

// Remove takes away what was added to an identifier. Environments that run keep it.
func (c *Catalog) Remove(ctx context.Context, id lambda.RuntimeID) error {
	had := c.config.Additions.Get(id)
	s, _, ok := c.shelfOf(id)
	if !ok && had.Image == nil {
		return unavailable(id, c.config.Now())
	}
	release, err := c.exclusively()
	if err != nil {
		return err
	}
	defer release()
	had = c.config.Additions.Get(id)
	if had.empty() {
		return lambda.NotFound("Nothing was added to %s.", id)
	}
	if err := c.change(ctx, s, id, func(a *Addition) { *a = Addition{ID: id} }); err != nil {
		return err
	}
	if had.Image != nil {
		c.config.Images.Unpin(context.WithoutCancel(ctx), had.Image.Digest)
	}
	if had.Bundle == nil {
		return nil
	}
	return os.RemoveAll(c.config.Additions.folder(had.Bundle))
}

// change records what was added to an identifier, and forgets what the identifier
// was resolved to; s is nil for one that no family offers.
func (c *Catalog) change(ctx context.Context, s *shelf, id lambda.RuntimeID, change func(*Addition)) error {
	if s != nil {
		if err := c.take(ctx, s); err != nil {
			return err
		}
		defer s.release()
		delete(s.resolved, id)
	}
	return c.config.Additions.Change(id, change)
}

// interpreter is the one that an identifier's packages are installed for.
func (c *Catalog) interpreter(ctx context.Context, s *shelf, ident Identifier) (Installation, error) {
	if err := c.take(ctx, s); err != nil {
		return Installation{}, err
	}
	defer s.release()
	in, _, err := c.pick(s, ident)
	return in, err
}

// install fills a bundle's folder, whole or not at all.
func (c *Catalog) install(ctx context.Context, family Bundler, in Installation, b *Bundle, say func(string)) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, installTimeout, fmt.Errorf("it took longer than %s", installTimeout))
	defer cancel()
	a := c.config.Additions
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(a.dir, unfinished)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := whileSaying(say, func() error { return family.Install(ctx, in, b.Packages, tmp) }); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	if err := readable(tmp); err != nil {
		return err
	}
	if b.Bytes, err = settle(tmp); err != nil {
		return err
	}
	if b.Bytes == 0 {
		return errors.New("the package client installed nothing")
	}
	if err := os.RemoveAll(a.folder(b)); err != nil { // one whose record was lost
		return err
	}
	if err := os.Rename(tmp, a.folder(b)); err != nil {
		return err
	}
	return syncFile(a.dir)
}

// whileSaying does something that may take minutes, and says that it goes on.
func whileSaying(say func(string), do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }() // ends with do, which is waited for
	began, tick := time.Now(), time.NewTicker(stillInterval)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			say(fmt.Sprintf("still at it after %d s", int(time.Since(began).Seconds())))
		}
	}
}

// settle brings a tree to the disk and measures it. Links that lead out of it are
// refused: they would mean something else inside a sandbox.
func settle(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if rel, _ := cutFolder(path, dir); filepath.IsAbs(to) || !filepath.IsLocal(filepath.Join(filepath.Dir(rel), to)) {
				return fmt.Errorf("the package client made a link out of its folder, %s to %s", path, to)
			}
			return nil
		}
		info, err := d.Info()
		if err == nil && d.Type().IsRegular() {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return size, syncTree(dir)
}

// overlay lays a bundle over a client's folder, by hard links where the disk can.
func overlay(bundle laid, dir string) error {
	for _, name := range bundle.names {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("the bundle %s and the runtime client both have %s", bundle.Folder, name)
		}
	}
	return filepath.WalkDir(bundle.dir, func(path string, d fs.DirEntry, err error) error {
		rel, below := cutFolder(path, bundle.dir)
		if err != nil || !below {
			return err
		}
		to := filepath.Join(dir, rel)
		switch {
		case d.IsDir():
			return os.Mkdir(to, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, to)
		case os.Link(path, to) == nil:
			return nil
		default:
			return copyFile(path, to)
		}
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Fetch runs a package client for a Family's Install, in dir, with the daemon's own
// environment, where its configuration is. The client dies with the context, its
// children too; what it complained of is the error.
func Fetch(ctx context.Context, dir, program string, args ...string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return fmt.Errorf("%s is needed for that, and is not on the PATH of kiln up", program)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var said limited
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s failed (%w):\n%s", filepath.Base(program), err, abridged(said.kept.Bytes()))
	}
	return nil
}

// abridged is a complaint without its middle.
func abridged(text []byte) []byte {
	text = bytes.TrimSpace(text)
	if len(text) <= 2*maxSaid {
		return text
	}
	return slices.Concat(text[:maxSaid], []byte(" …\n… "), text[len(text)-maxSaid:])
}
