package artifact_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/artifact"
)

// merged merges packages of these files.
func merged(t testing.TB, s *artifact.Store, layers ...[]file) (dir string, digests []string, release func()) {
	t.Helper()
	for _, files := range layers {
		digests = append(digests, add(t, s, pack(t, files...)).Digest)
	}
	dir, release, err := s.Merged(context.Background(), digests)
	if err != nil {
		t.Fatal(err)
	}
	return dir, digests, release
}

func TestMerged(t *testing.T) {
	t.Parallel()
	link := fs.ModeSymlink | 0o777
	for name, test := range map[string]struct {
		layers [][]file
		want   map[string]string
	}{
		"side by side": {
			[][]file{{{"bin/a", "A", 0o755}}, {{"bin/b", "B", 0o644}}, {{"lib/c", "C", 0o600}}},
			map[string]string{"bin": "drwxr-xr-x", "bin/a": "-rwxr-xr-x A", "bin/b": "-rw-r--r-- B", "lib": "drwxr-xr-x", "lib/c": "-rw-r--r-- C"},
		},
		"the later file": {
			[][]file{{{"d/f", "one", 0o755}}, {{"d/f", "two", 0o644}}, {{"other", "", 0o644}}},
			map[string]string{"d": "drwxr-xr-x", "d/f": "-rw-r--r-- two", "other": "-rw-r--r-- "},
		},
		"a file over a folder": {
			[][]file{{{"d/e/f", "one", 0o644}, {"x", "x", 0o644}}, {{"d", "file", 0o644}}},
			map[string]string{"d": "-rw-r--r-- file", "x": "-rw-r--r-- x"},
		},
		"a folder over a file": {
			[][]file{{{"d", "file", 0o644}}, {{"d/e/f", "two", 0o644}}},
			map[string]string{"d": "drwxr-xr-x", "d/e": "drwxr-xr-x", "d/e/f": "-rw-r--r-- two"},
		},
		"what a file hid stays away": {
			[][]file{{{"d/old", "1", 0o644}}, {{"d", "2", 0o644}}, {{"d/new", "3", 0o644}}},
			map[string]string{"d": "drwxr-xr-x", "d/new": "-rw-r--r-- 3"},
		},
		"an empty folder over a file": {
			[][]file{{{"d", "file", 0o644}}, {{"d/", "", fs.ModeDir | 0o700}}},
			map[string]string{"d": "drwxr-xr-x"},
		},
		"a folder over a link": { // nothing is written through it
			[][]file{{{"lib64/a", "1", 0o644}, {"lib", "lib64", link}}, {{"lib/b", "2", 0o644}}},
			map[string]string{"lib64": "drwxr-xr-x", "lib64/a": "-rw-r--r-- 1", "lib": "drwxr-xr-x", "lib/b": "-rw-r--r-- 2"},
		},
		"a link over a folder": {
			[][]file{{{"lib/a", "1", 0o644}}, {{"lib64/b", "2", 0o644}, {"lib", "lib64", link}}},
			map[string]string{"lib64": "drwxr-xr-x", "lib64/b": "-rw-r--r-- 2", "lib": "link to lib64"},
		},
		"a link over a link": {
			[][]file{{{"a", "1", 0o644}, {"l", "a", link}}, {{"b", "2", 0o644}, {"l", "b", link}}},
			map[string]string{"a": "-rw-r--r-- 1", "b": "-rw-r--r-- 2", "l": "link to b"},
		},
		"a link into another layer": {
			[][]file{{{"bin/tool", "../lib/tool", link}}, {{"lib/tool", "t", 0o755}}},
			map[string]string{"bin": "drwxr-xr-x", "bin/tool": "link to ../lib/tool", "lib": "drwxr-xr-x", "lib/tool": "-rwxr-xr-x t"},
		},
		"links in a circle, and through a file": {
			[][]file{{{"a", "b", link}, {"c", "d/e", link}}, {{"b", "a", link}, {"d", "file", 0o644}}},
			map[string]string{"a": "link to b", "b": "link to a", "c": "link to d/e", "d": "-rw-r--r-- file"},
		},
		"the same twice": {
			[][]file{{{"f", "1", 0o644}}, {{"f", "1", 0o644}}},
			map[string]string{"f": "-rw-r--r-- 1"},
		},
		"one": {
			[][]file{{{"f", "1", 0o644}}},
			map[string]string{"f": "-rw-r--r-- 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, blob := t.TempDir(), &memory{}
			s := openStore(t, blob, dir, artifact.Config{})
			path, digests, release := merged(t, s, test.layers...)
			if diff := cmp.Diff(test.want, tree(t, path)); diff != "" {
				t.Errorf("merged (-want +got):\n%s", diff)
			}
			for i, digest := range digests { // the packages' own trees are as they were
				if err := s.Check(context.Background(), digest); err != nil {
					t.Errorf("layer %d: %v", i, err)
				}
			}
			release()
			// Taken over by the next process as it is.
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			again, _, release := merged(t, openStore(t, blob, dir, artifact.Config{}), test.layers...)
			defer release()
			if now, err := os.Stat(again); err != nil || len(digests) > 1 && !os.SameFile(info, now) {
				t.Errorf("after a restart the tree was made again: %v", err)
			}
			if keys, err := s.Keys(context.Background()); err != nil || slices.ContainsFunc(keys, func(k string) bool { return !slices.Contains(digests, k) }) {
				t.Errorf("the packages are %v, %v", keys, err)
			}
			nothingLeft(t, dir)
		})
	}
}

// A file of a merged tree is the package's own, with its time, and costs nothing.
func TestMergedShares(t *testing.T) {
	t.Parallel()
	s := openStore(t, &memory{}, t.TempDir(), artifact.Config{})
	dir, digests, release := merged(t, s, []file{{"d/", "", fs.ModeDir | 0o755}, {"d/f", "1", 0o644}}, []file{{"e/g", "2", 0o644}})
	defer release()
	own, releaseOwn := dirOf(t, s, digests[0])
	defer releaseOwn()
	for name, same := range map[string]bool{"d/f": true, "d": false} {
		a, err := os.Stat(filepath.Join(own, name))
		b, berr := os.Stat(filepath.Join(dir, name))
		if err := errors.Join(err, berr); err != nil || os.SameFile(a, b) != same || !a.ModTime().Equal(b.ModTime()) {
			t.Errorf("%s: the same: %v, times %v and %v, %v", name, os.SameFile(a, b), a.ModTime(), b.ModTime(), err)
		}
	}
	one, releaseOne, err := s.Merged(context.Background(), digests[:1])
	if err != nil || one != own {
		t.Errorf("one package merged is %s, not %s: %v", one, own, err)
	}
	releaseOne()
}

// Any layers, compared with a model that applies them to a map.
func TestMergedModel(t *testing.T) {
	t.Parallel()
	s := openStore(t, &memory{}, t.TempDir(), artifact.Config{})
	part := rapid.SampledFrom([]string{"a", "b", "c"})
	name := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "parts"), "/")
	})
	rapid.Check(t, func(rt *rapid.T) {
		model := map[string]string{}
		var layers [][]file
		for l := range rapid.IntRange(1, 5).Draw(rt, "layers") {
			kinds := map[string]fs.FileMode{} // of this layer's paths
			var files []file
			for i := range rapid.IntRange(1, 8).Draw(rt, "files") {
				n, kind := name.Draw(rt, "name"), rapid.SampledFrom([]fs.FileMode{0o644, 0o755, fs.ModeDir | 0o755, fs.ModeSymlink | 0o777}).Draw(rt, "kind")
				if _, there := kinds[n]; there || slices.ContainsFunc(above(n), func(d string) bool { k, there := kinds[d]; return there && !k.IsDir() }) {
					continue // not within one zip
				}
				for _, d := range above(n) {
					kinds[d] = fs.ModeDir
				}
				kinds[n] = kind
				f := file{n, fmt.Sprint(l, i), kind}
				switch kind.Type() {
				case fs.ModeDir:
					f.name, f.body = n+"/", ""
				case fs.ModeSymlink:
					f.body = "nowhere" + f.body
				}
				files = append(files, f)
			}
			layers = append(layers, files)
			for _, f := range files {
				n := strings.TrimSuffix(f.name, "/")
				folders := above(n)
				if f.mode.IsDir() {
					folders = append(folders, n)
				}
				for _, d := range folders {
					model[d] = "drwxr-xr-x"
				}
				if f.mode.IsDir() {
					continue
				}
				for other := range model {
					if strings.HasPrefix(other, n+"/") {
						delete(model, other)
					}
				}
				if model[n] = f.mode.String() + " " + f.body; f.mode.Type() == fs.ModeSymlink {
					model[n] = "link to " + f.body
				}
			}
		}
		dir, _, release := merged(t, s, layers...)
		defer release()
		if diff := cmp.Diff(model, tree(t, dir)); diff != "" {
			rt.Fatalf("of %v (-model +got):\n%s", layers, diff)
		}
	})
}

// above are the folders around a path, the outermost first.
func above(name string) (list []string) {
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		list = append(list, d)
	}
	slices.Reverse(list)
	return list
}

func TestMergedRefusals(t *testing.T) {
	t.Parallel()
	link := fs.ModeSymlink | 0o777
	for name, test := range map[string]struct {
		layers [][]file
		want   string
	}{
		"links that lead out only together": {
			[][]file{{{"x", "d/../../../etc/passwd", link}}, {{"d/f", "", 0o644}}},
			`The layers cannot be merged: with all of them, the link "x" to "d/../../../etc/passwd" leads out of /opt.`,
		},
		"by another's link": {
			[][]file{{{"a/", "", fs.ModeDir | 0o755}, {"x", "d/../../etc", link}}, {{"d", "a", link}}},
			`The layers cannot be merged: with all of them, the link "x" to "d/../../etc" leads out of /opt.`,
		},
		"too many files": {
			[][]file{{{"a/b", "", 0o644}}, {{"c/d", "", 0o644}}, {{"e", "", 0o644}}},
			"The layers have more than 4 files and folders together.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			outside := filepath.Dir(dir)
			s := openStore(t, &memory{}, dir, artifact.Config{MaxMerged: 4})
			var digests []string
			for _, files := range test.layers {
				digests = append(digests, add(t, s, pack(t, files...)).Digest)
			}
			before, err := os.ReadDir(outside)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = s.Merged(context.Background(), digests)
			if e := lambda.AsError(err); e == nil || e.Code != "InvalidParameterValueException" || e.Message != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
			nothingLeft(t, dir)
			if after, err := os.ReadDir(outside); err != nil || len(after) != len(before) {
				t.Errorf("outside there are now %v, %v", after, err)
			}
		})
	}
	s := openStore(t, &memory{}, t.TempDir(), artifact.Config{})
	known := add(t, s, pack(t, file{"f", "", 0o644})).Digest
	for what, digests := range map[string][]string{"unknown": {known, strings.Repeat("0", 64)}, "no digest": {known, "../x"}} {
		if path, _, err := s.Merged(context.Background(), digests); err == nil || what == "unknown" && !errors.Is(err, state.ErrNotFound) {
			t.Errorf("%s: %s, %v", what, path, err)
		}
	}
}

// Merged trees count for the cache's bound, go when nobody uses them, and when
// one of their packages is removed; damaged ones are made again.
func TestMergedTreesInTheCache(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	big := strings.Repeat("x", 100<<10)
	blob := &memory{}
	s := openStore(t, blob, dir, artifact.Config{MaxCache: 1 << 20})
	path, digests, release := merged(t, s, []file{{"a", big, 0o644}}, []file{{"b", big, 0o644}})
	for i := range 20 {
		_, _, other := merged(t, s, []file{{"c", fmt.Sprint(i, big), 0o644}}, []file{{"d", fmt.Sprint(i, big), 0o644}})
		other()
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 12 {
		t.Errorf("%d trees are in the cache, %v", len(entries), err)
	}
	if got := tree(t, path); len(got) != 2 {
		t.Errorf("while it was used it became %v", got)
	}

	// Removed while it is used: it stays that long, and no longer.
	if err := s.Remove(ctx, digests[0]); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, path); len(got) != 2 {
		t.Errorf("while it was used it became %v", got)
	}
	release()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a merged tree outlives its package: %v", err)
	}
	if _, _, err := s.Merged(ctx, digests); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a removed package is merged: %v", err)
	}
	// Removed while nobody uses it, and added again.
	path, digests, release = merged(t, s, []file{{"a", big, 0o644}}, []file{{"b", big, 0o644}})
	release()
	if err := s.Remove(ctx, digests[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a merged tree outlives its package: %v", err)
	}
	// Added again while the tree is still used.
	path, digests, release = merged(t, s, []file{{"a", big, 0o644}}, []file{{"b", big, 0o644}})
	if err := s.Remove(ctx, digests[1]); err != nil {
		t.Fatal(err)
	}
	again, _, releaseAgain := merged(t, s, []file{{"a", big, 0o644}}, []file{{"b", big, 0o644}})
	release()
	if got := tree(t, again); again != path || len(got) != 2 {
		t.Errorf("merged again: %v", got)
	}
	releaseAgain()

	if err := os.Remove(filepath.Join(path, "a")); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, blob, dir, artifact.Config{})
	path, release, err := s.Merged(ctx, digests)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if got := tree(t, path); len(got) != 2 {
		t.Errorf("damaged, it stays %v", got)
	}
	nothingLeft(t, dir)
}

// Many at once merge the same and overlapping packages, and remove them.
func TestMergedAtOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := openStore(t, &memory{}, t.TempDir(), artifact.Config{MaxCache: 1 << 20})
	var digests []string
	zips := map[string][]byte{}
	for i := range 4 {
		zip := pack(t, file{fmt.Sprint("f", i), strings.Repeat("x", 100<<10), 0o644}, file{"shared", fmt.Sprint(i), 0o644})
		p := add(t, s, zip)
		digests, zips[p.Digest] = append(digests, p.Digest), zip
	}
	var wait sync.WaitGroup
	for w := range 8 {
		wait.Go(func() {
			for i := range 30 {
				a, b := digests[(w+i)%4], digests[(w*i+1)%4]
				path, release, err := s.Merged(ctx, []string{a, b})
				if errors.Is(err, state.ErrNotFound) {
					continue // just removed
				}
				if err != nil {
					t.Error(err)
					continue
				}
				if got, err := os.ReadFile(filepath.Join(path, "shared")); err != nil || string(got) != fmt.Sprint(slices.Index(digests, b)) {
					t.Errorf("the later package has %v; got %s, %v", slices.Index(digests, b), got, err)
				}
				release()
				if i%7 == 0 {
					if err := s.Remove(ctx, a); err != nil && !errors.Is(err, state.ErrNotFound) {
						t.Error(err)
					}
					if _, err := s.Add(ctx, section(zips[a])); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wait.Wait()
}
