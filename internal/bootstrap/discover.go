package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// probeTimeout bounds the question "what are you" to one interpreter; a
	// version manager's shim on a cold disk takes seconds.
	probeTimeout = 10 * time.Second
	// probesAtOnce keeps discovery from taking the machine from its first invocations.
	probesAtOnce = 2
	// maxCandidates bounds the programs probed for one family: a glob in
	// runtime_paths may match a whole disk.
	maxCandidates = 100
	// maxAnswer bounds what an interpreter may say of itself, in bytes.
	maxAnswer = 64 << 10
)

// Problem is a program that looks like an interpreter and cannot be used.
type Problem struct {
	Program string
	Reason  string
}

// found is an installation with its rank: configured ones go before all others.
type found struct {
	Installation
	configured bool
}

type candidate struct {
	path       string // symlinks resolved
	configured bool
}

// discover probes everything that may be an interpreter of the family.
func (c *Catalog) discover(ctx context.Context, f Family) (installed []found, problems []Problem) {
	candidates, problems := c.candidates(f.Programs())
	var mu sync.Mutex // guards installed and problems
	results := make([]*found, len(candidates))
	var g errgroup.Group
	g.SetLimit(probesAtOnce)
	for i, cand := range candidates {
		g.Go(func() error {
			c.probes <- struct{}{}
			defer func() { <-c.probes }()
			in, err := c.probe(ctx, f, cand.path)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				problems = append(problems, Problem{Program: cand.path, Reason: err.Error()})
				c.config.Log.Debug("interpreter cannot be used", "program", cand.path, "reason", err)
				return nil
			}
			results[i] = &found{Installation: in, configured: cand.configured}
			return nil
		})
	}
	_ = g.Wait() // no function of the group fails
	for _, r := range results {
		// Two candidates may lead to one program: a virtual environment and its base.
		if r != nil && !slices.ContainsFunc(installed, func(x found) bool { return x.Program == r.Program }) {
			installed = append(installed, *r)
		}
	}
	slices.SortFunc(problems, func(a, b Problem) int { return strings.Compare(a.Program, b.Program) })
	return installed, problems
}

func (c *Catalog) probe(ctx context.Context, f Family, program string) (Installation, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("gave no answer within %s", probeTimeout))
	defer cancel()
	in, err := f.Probe(ctx, program)
	if err != nil {
		return Installation{}, err
	}
	if len(parseVersion(in.Version)) == 0 {
		return Installation{}, fmt.Errorf("reports no version that can be understood: %q", in.Version)
	}
	if c.config.Usable != nil {
		if err := c.config.Usable(in); err != nil {
			return Installation{}, err
		}
	}
	return in, nil
}

// candidates lists the programs to probe, each once, configured ones first.
func (c *Catalog) candidates(programs []string) (list []candidate, problems []Problem) {
	seen := map[string]bool{}
	add := func(path string, configured bool) bool {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return false
		}
		info, err := os.Stat(real)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return false
		}
		if !seen[real] && len(list) < maxCandidates {
			seen[real] = true
			list = append(list, candidate{path: real, configured: configured})
		}
		return true
	}

	var names, patterns []string
	for _, p := range programs {
		if strings.Contains(p, "/") {
			patterns = append(patterns, p)
		} else {
			names = append(names, p)
		}
	}
	for _, path := range c.config.Paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			problems = append(problems, Problem{Program: path, Reason: "configured in runtime_paths, but: " + err.Error()})
		case info.IsDir():
			for _, name := range names {
				for _, folder := range []string{"", "bin", "*/bin"} {
					for _, match := range glob(filepath.Join(path, folder, name)) {
						add(match, true)
					}
				}
			}
		case slices.ContainsFunc(names, func(name string) bool { return resembles(path, name) }):
			if !add(path, true) {
				problems = append(problems, Problem{Program: path, Reason: "configured in runtime_paths, but it is not executable"})
			}
		}
	}
	for _, dir := range filepath.SplitList(c.config.Getenv("PATH")) {
		if !filepath.IsAbs(dir) || isShims(dir) {
			continue
		}
		for _, name := range names {
			for _, match := range glob(filepath.Join(dir, name)) {
				if !isDialog(match) {
					add(match, false)
				}
			}
		}
	}
	for _, pattern := range patterns {
		if pattern, ok := c.expand(pattern); ok {
			matches := glob(pattern)
			slices.Reverse(matches) // newer versions mostly sort last
			for _, match := range matches {
				add(match, false)
			}
		}
	}
	return list, problems
}

// glob is filepath.Glob over patterns of our own, which are well formed; a folder
// of the user's with a bracket in its name matches nothing.
func glob(pattern string) []string {
	matches, _ := filepath.Glob(pattern)
	return matches
}

// expand makes a pattern absolute.
func (c *Catalog) expand(pattern string) (string, bool) {
	base, rest := c.config.Getenv("HOME"), pattern
	switch {
	case filepath.IsAbs(pattern):
		return pattern, true
	case strings.HasPrefix(pattern, "$"):
		var name string
		name, rest, _ = strings.Cut(pattern[1:], "/")
		base = c.config.Getenv(name)
	}
	return filepath.Join(base, rest), base != ""
}

// resembles tells whether a file is named like a family's program: python3.12 and
// python3-custom like python3 and python3.*.
func resembles(path, name string) bool {
	literal, _, _ := strings.Cut(name, "*")
	literal, _, _ = strings.Cut(literal, "[")
	return strings.HasPrefix(filepath.Base(path), strings.TrimRight(literal, "."))
}

// isShims tells whether a folder holds a version manager's forwarding scripts.
// What they lead to depends on the working directory, and each takes 50 ms to say
// so; the versions themselves are found by their own patterns.
func isShims(dir string) bool {
	dir = filepath.Clean(dir)
	return filepath.Base(dir) == "shims" || strings.HasSuffix(dir, "/.volta/bin")
}

// isDialog tells whether a program is one of macOS's stand-ins, which open a
// window that offers to install developer tools when there are none.
func isDialog(path string) bool {
	if path != "/usr/bin/python3" {
		return false
	}
	_, err := os.Stat("/usr/bin/xcode-select")
	return err == nil
}

// Ask runs a program for a Family's Probe and returns what it printed. The program
// gets a clean environment and no input, and dies with the context, its children too.
func Ask(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LANG=C.UTF-8", "TZ=UTC"}
	var out, errOut limited
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay): // it answered, and left a child with our pipe
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	case err != nil:
		said := strings.TrimSpace(errOut.kept.String())
		if line, _, more := strings.Cut(said, "\n"); more {
			said = line + " …"
		}
		if said != "" {
			return nil, fmt.Errorf("does not run: %w: %s", err, said)
		}
		return nil, fmt.Errorf("does not run: %w", err)
	}
	return out.kept.Bytes(), nil
}

// limited keeps the first maxAnswer bytes and drops the rest. It is no bytes.Buffer,
// whose ReadFrom io.Copy would prefer to Write.
type limited struct{ kept bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxAnswer - l.kept.Len(); room > 0 {
		l.kept.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// cutFolder is the path below a folder.
func cutFolder(path, folder string) (string, bool) {
	return strings.CutPrefix(path, strings.TrimRight(folder, "/")+"/")
}
