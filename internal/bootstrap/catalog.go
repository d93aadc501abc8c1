package bootstrap

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kiln/internal/lambda"
)

// Config is what a Catalog needs to know.
type Config struct {
	// AnyRuntime lets the nearest other version of a language serve an
	// identifier whose own version is not installed.
	AnyRuntime bool
	// Paths are interpreters, or folders of them, to look at before all others.
	Paths []string
	// Dir is where runtime clients are written. Functions read them there:
	// every folder on the way must be open to the users that functions run as.
	Dir string
	// Additions are what was added to the runtimes; nil for nothing, and for ever.
	Additions *Additions
	// Images brings base images here; nil for none.
	Images Images
	// Getenv gives PATH, HOME and the folders of version managers; nil knows none.
	Getenv func(string) string
	// Usable is the sandbox driver's veto of an installation; nil takes all.
	Usable func(Installation) error
	// Now is the time by which AWS's table is read; nil is time.Now.
	Now func() time.Time
	// Log is for what was found; nil is silence.
	Log *slog.Logger
}

// Catalog knows which runtimes this machine offers. Its methods are safe for
// concurrent use. It looks for a family's interpreters once: in Run, or in the
// first call that needs them.
type Catalog struct {
	config   Config
	families []*shelf
	probes   chan struct{} // a token for each probe under way, over all families
	adding   chan struct{} // a token while something is added or removed
}

// shelf is one family with what was found for it.
type shelf struct {
	Family
	// lock holds one token; whoever has it may touch the fields below. It is a
	// channel so that waiting for a discovery ends with the waiter's context.
	lock      chan struct{}
	done      bool
	installed []found
	problems  []Problem
	resolved  map[lambda.RuntimeID]*Runtime
}

// New returns a Catalog that has looked at nothing yet.
func New(families []Family, config Config) *Catalog {
	if config.Getenv == nil {
		config.Getenv = func(string) string { return "" }
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	c := &Catalog{config: config, probes: make(chan struct{}, probesAtOnce), adding: make(chan struct{}, 1)}
	for _, f := range families {
		c.families = append(c.families, &shelf{
			Family:   f,
			lock:     make(chan struct{}, 1),
			resolved: map[lambda.RuntimeID]*Runtime{},
		})
	}
	return c
}

// Sweep removes what an earlier daemon left: additions that were not finished, and
// clients with bundles that were removed. It is called once, before anything else.
func (c *Catalog) Sweep() error {
	if c.config.Additions == nil {
		return nil
	}
	err := c.config.Additions.sweep()
	used := c.config.Additions.folders()
	for _, list := range glob(filepath.Join(c.config.Dir, "*.sums")) {
		b, readErr := os.ReadFile(list)
		if readErr != nil {
			err = errors.Join(err, readErr)
			continue
		}
		first, _, _ := strings.Cut(string(b), "\n")
		if folder, ok := strings.CutPrefix(first, bundleLine); ok && !used[folder] {
			err = errors.Join(err, os.Remove(list), os.RemoveAll(strings.TrimSuffix(list, ".sums")))
		}
	}
	return err
}

// Run looks for the interpreters of every family, and returns when all are known
// or ctx ends. It is called once, in the background of a daemon that serves already.
func (c *Catalog) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range c.families {
		g.Go(func() error {
			if err := c.take(ctx, s); err != nil {
				return err
			}
			s.release()
			return nil
		})
	}
	return g.Wait()
}

// take gets the shelf's lock, with its discovery done.
func (c *Catalog) take(ctx context.Context, s *shelf) error {
	select {
	case s.lock <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.done {
		return nil
	}
	began := time.Now()
	installed, problems := c.discover(ctx, s.Family)
	if ctx.Err() != nil { // half of it failed for the caller's reason: the next caller starts over
		s.release()
		return context.Cause(ctx)
	}
	s.installed, s.problems, s.done = installed, problems, true
	if len(s.Programs()) > 0 {
		c.config.Log.Debug("interpreters discovered", "family", s.Name(), "found", versions(installed),
			"problems", len(problems), "took", time.Since(began))
	}
	return nil
}

func (s *shelf) release() { <-s.lock }

// Resolve finds the interpreter for an identifier and places its client, waiting
// for discovery. A *lambda.Error says what is missing and what to do about it.
func (c *Catalog) Resolve(ctx context.Context, id lambda.RuntimeID) (*Runtime, error) {
	if r := c.based(id); r != nil {
		return r, nil
	}
	s, ident, ok := c.shelfOf(id)
	if !ok {
		return nil, unavailable(id, c.config.Now())
	}
	if err := c.take(ctx, s); err != nil {
		return nil, fmt.Errorf("resolve runtime %s: %w", id, err)
	}
	defer s.release()
	if r := s.resolved[id]; r != nil {
		return r, nil
	}
	in, substitute, err := c.choose(s, ident)
	if err != nil {
		return nil, err
	}
	files, err := readClient(s.Client())
	if err != nil {
		return nil, fmt.Errorf("resolve runtime %s: %w", id, err)
	}
	r := &Runtime{ID: id, Family: s.Family, Installation: in, Substitute: substitute}
	bundle := c.config.Additions.Get(id).Bundle
	if in.Version != "" {
		branch := max(1, len(parseVersion(ident.Version)))
		r.Label = label(s.Name(), parseVersion(in.Version), branch)
		sum := sha256.Sum256([]byte(strings.Join([]string{
			"kiln runtime", s.Name(), in.Version, runtime.GOOS, runtime.GOARCH, files.digest(), bundle.id()}, "\n")))
		r.Digest = hex.EncodeToString(sum[:])
	}
	if len(files) > 0 || bundle != nil {
		if r.Client, err = c.place(ctx, s.Family, in, files, bundle); err != nil {
			return nil, fmt.Errorf("place the client of runtime %s: %w", id, err)
		}
	}
	s.resolved[id] = r
	return r, nil
}

func (c *Catalog) shelfOf(id lambda.RuntimeID) (*shelf, Identifier, bool) {
	for _, s := range c.families {
		for _, ident := range s.Identifiers() {
			if ident.ID == id {
				return s, ident, true
			}
		}
	}
	return nil, Identifier{}, false
}

// choose is what an identifier runs with: an installation, and what its family
// requires beside it.
func (c *Catalog) choose(s *shelf, ident Identifier) (in Installation, substitute string, err error) {
	in, substitute, err = c.pick(s, ident)
	if r, ok := s.Family.(Requirer); ok && err == nil {
		if lack := r.Require(c.config.Additions.Get(ident.ID)); lack != "" {
			return Installation{}, "", lambda.InvalidParameter("%s", lack)
		}
	}
	return in, substitute, err
}

// pick finds the installation for an identifier: its own version, or with
// AnyRuntime the nearest newer one, or else the nearest older one.
func (c *Catalog) pick(s *shelf, ident Identifier) (in Installation, substitute string, err error) {
	if len(s.Programs()) == 0 {
		return Installation{}, "", nil
	}
	want := parseVersion(ident.Version)
	if in, ok := best(s.installed, want); ok {
		return in, "", nil
	}
	if c.config.AnyRuntime {
		if branch := nearest(s.installed, want); branch != nil {
			in, _ := best(s.installed, branch)
			return in, fmt.Sprintf("%s %s stands in for %s", s.Name(), in.Version, ident.ID), nil
		}
	}
	return Installation{}, "", s.missing(ident)
}

// best is the newest installation of a branch; configured ones win.
func best(installed []found, branch version) (in Installation, ok bool) {
	var top found
	for _, x := range installed {
		v := parseVersion(x.Version)
		if v.branch(len(branch)).compare(branch) != 0 {
			continue
		}
		better := !ok || x.configured && !top.configured ||
			x.configured == top.configured && v.compare(parseVersion(top.Version)) > 0
		if better {
			top, ok = x, true
		}
	}
	return top.Installation, ok
}

func nearest(installed []found, want version) version {
	var newer, older version
	for _, x := range installed {
		b := parseVersion(x.Version).branch(len(want))
		switch {
		case b.compare(want) > 0 && (newer == nil || b.compare(newer) < 0):
			newer = b
		case b.compare(want) < 0 && (older == nil || b.compare(older) > 0):
			older = b
		}
	}
	if newer != nil {
		return newer
	}
	return older
}

// missing says what to do about an interpreter that is not there.
func (s *shelf) missing(ident Identifier) error {
	have := "none was found"
	if len(s.installed) > 0 {
		have = "found: " + versions(s.installed)
	}
	for _, p := range s.problems {
		if strings.Contains(p.Program, ident.Version) {
			have += "; " + p.Program + " " + p.Reason
		}
	}
	remedy := "or put its folder into runtime_paths in kiln.toml"
	if len(s.installed) > 0 {
		remedy = "put its folder into runtime_paths in kiln.toml, or start Kiln with --any-runtime to use the nearest version"
	}
	return lambda.InvalidParameter("The runtime %s needs %s %s on this machine (%s). Install %s %s, %s.",
		ident.ID, s.Name(), ident.Version, have, s.Name(), ident.Version, remedy)
}

func versions(installed []found) string {
	list := make([]version, 0, len(installed))
	for _, x := range installed {
		list = append(list, parseVersion(x.Version))
	}
	slices.SortFunc(list, version.compare)
	names := make([]string, 0, len(list))
	for _, v := range slices.CompactFunc(list, slices.Equal) {
		names = append(names, v.String())
	}
	return strings.Join(names, ", ")
}
