package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/artifact"
	"kiln/internal/state/image"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// entry is one of a layer: name and content; or a link, when to is given.
type entry struct {
	name, body, to string
	kind           byte // 0: a file, a folder (name ends in /) or a symbolic link (to)
	mode           int64
}

var modified = time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)

func packed(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.to, Typeflag: e.kind, Mode: e.mode, ModTime: modified, Size: int64(len(e.body))}
		switch {
		case e.kind != 0:
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		case e.to != "":
			h.Typeflag = tar.TypeSymlink
		default:
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func layerOf(t testing.TB, entries ...entry) v1.Layer { return layerFrom(t, packed(t, entries...)) }

func layerFrom(t testing.TB, b []byte) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	i, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return configured(t, i, func(c *v1.ConfigFile) {
		c.OS, c.Architecture = "linux", runtime.GOARCH
		c.Config.Entrypoint, c.Config.Cmd, c.Config.WorkingDir, c.Config.Env = []string{"/run"}, []string{"app.handler"}, "/srv", []string{"A=1"}
	})
}

func configured(t testing.TB, i v1.Image, change func(*v1.ConfigFile)) v1.Image {
	t.Helper()
	c, err := i.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	change(c)
	if i, err = mutate.ConfigFile(i, c); err != nil {
		t.Fatal(err)
	}
	return i
}

// onDisk writes an image as an OCI layout and returns its reference.
func onDisk(t testing.TB, folder string, i v1.Image) string {
	t.Helper()
	dir, err := os.MkdirTemp(folder, "layout")
	if err != nil {
		t.Fatal(err)
	}
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(i, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "latest"})); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

// noBlobs is a state.Blob that holds nothing: images keep their layers themselves.
type noBlobs struct{}

func (noBlobs) Put(context.Context, string, io.Reader) error       { return errors.ErrUnsupported }
func (noBlobs) Get(context.Context, string) (io.ReadCloser, error) { return nil, state.ErrNotFound }
func (noBlobs) Delete(context.Context, string) error               { return nil }
func (noBlobs) Keys(context.Context) ([]string, error)             { return nil, nil }

// open opens a store, with its cache, in a folder. folders may be named in references.
func open(t testing.TB, dir string, folders ...string) *image.Store {
	t.Helper()
	return openWith(t, dir, image.Config{Folders: folders, MountPoints: []string{"/proc/", "/var/task/", "/etc/passwd"}})
}

func openWith(t testing.TB, dir string, c image.Config) *image.Store {
	t.Helper()
	trees := artifact.New(noBlobs{}, filepath.Join(dir, "cache"), artifact.Config{})
	if err := trees.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Dir, c.Trees = filepath.Join(dir, "store"), trees
	s := image.New(c)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// pull resolves and pulls.
func pull(t testing.TB, s *image.Store, uri string) (image.Image, error) {
	t.Helper()
	i, err := s.Resolve(t.Context(), uri)
	if err == nil {
		err = s.Pull(t.Context(), i)
	}
	return i, err
}

func mustPull(t testing.TB, s *image.Store, uri string) image.Image {
	t.Helper()
	i, err := pull(t, s, uri)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// rooted returns what an image's root holds: mode and content by path, without
// the mount points that open asks for.
func rooted(t testing.TB, s *image.Store, digest string) map[string]string {
	t.Helper()
	root, _, release, err := s.Root(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	all := tree(t, root)
	for _, p := range []string{"proc", "var", "var/task", "etc", "etc/passwd"} {
		if s, ok := all[p]; ok && (s == "drwxr-xr-x" || s == "-rw-r--r-- ") {
			delete(all, p)
		}
	}
	return all
}

func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what = "-> " + to
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += " " + string(b)
		}
		all[strings.TrimPrefix(path, root+"/")] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLayers(t *testing.T) {
	t.Parallel()
	const file, dir = "-rw-r--r-- ", "drwxr-xr-x"
	for name, c := range map[string]struct {
		layers [][]entry
		want   map[string]string
	}{
		"modes": {
			[][]entry{{{name: "./bin/"}, {name: "./bin/su", body: "x", mode: 0o4755}, {name: "bin/secret", body: "s", mode: 0o600}, {name: "/bin/open", mode: 0o666}, {name: "bin/run", mode: 0o100}, {name: "closed/", mode: 0o700}}},
			map[string]string{"bin": dir, "bin/su": "-rwxr-xr-x x", "bin/secret": file + "s", "bin/open": file, "bin/run": "-rwxr-xr-x ", "closed": dir},
		},
		"a later layer replaces": {
			[][]entry{{{name: "a", body: "1"}, {name: "d/x", body: "1"}, {name: "e/y", body: "1"}, {name: "l", to: "a"}}, {{name: "a", body: "2"}, {name: "d", body: "file"}, {name: "e/", mode: 0o755}, {name: "l", body: "no link"}}},
			map[string]string{"a": file + "2", "d": file + "file", "e": dir, "e/y": file + "1", "l": file + "no link"},
		},
		"whiteouts": {
			[][]entry{
				{{name: "a", body: "1"}, {name: "d/x", body: "1"}, {name: "d/s/deep", body: "1"}, {name: "link", to: "d"}, {name: "k", body: "k"}},
				{{name: ".wh.a"}, {name: "d/.wh.x"}, {name: ".wh.k"}, {name: "k", body: "new"}, {name: ".wh.never"}, {name: "no/such/.wh.x"}, {name: ".wh..wh.plnk"}},
				{{name: "link/.wh.s"}},
			},
			map[string]string{"d": dir, "link": "-> d", "k": file + "new"},
		},
		"a whiteout after what it stands beside": {
			[][]entry{{{name: "k/old", body: "1"}}, {{name: "k/new", body: "2"}, {name: ".wh.k"}}},
			map[string]string{"k": dir, "k/new": file + "2"},
		},
		"opaque folders": {
			[][]entry{
				{{name: "d/old", body: "1"}, {name: "d/both/old", body: "1"}, {name: "d/both/deep/old"}, {name: "d/l", to: "old"}},
				{{name: "d/new", body: "2"}, {name: "d/both/new", body: "2"}, {name: "d/.wh..wh..opq"}, {name: "d/late", body: "2"}},
			},
			map[string]string{"d": dir, "d/new": file + "2", "d/both": dir, "d/both/new": file + "2", "d/late": file + "2"},
		},
		"links lead anywhere and are followed in the root only": {
			[][]entry{
				{{name: "out", to: "/etc/passwd"}, {name: "up", to: "../../../../etc"}, {name: "lib", to: "usr/lib"}, {name: "usr/lib/"}, {name: "abs", to: "/usr/lib"}, {name: "self", to: "self"}, {name: "dangling", to: "/made/here"}},
				{{name: "lib/a", body: "1"}, {name: "abs/b", body: "2"}, {name: "up/c", body: "3"}, {name: "dangling/d", body: "4"}},
				{{name: "out", body: "replaced"}},
			},
			map[string]string{"out": file + "replaced", "up": "-> ../../../../etc", "etc/c": file + "3", "lib": "-> usr/lib", "abs": "-> /usr/lib", "usr": dir, "usr/lib": dir, "usr/lib/a": file + "1", "usr/lib/b": file + "2", "self": "-> self", "dangling": "-> /made/here", "made": dir, "made/here": dir, "made/here/d": file + "4"},
		},
		"hard links": {
			[][]entry{
				{{name: "d/a", body: "1"}, {name: "b", to: "d/a", kind: tar.TypeLink}, {name: "c", to: "/d/a", kind: tar.TypeLink}, {name: "l", to: "d/a"}, {name: "m", to: "l", kind: tar.TypeLink}, {name: "d/a", to: "d/a", kind: tar.TypeLink}},
				{{name: "b", body: "2"}, {name: "n", to: "c", kind: tar.TypeLink}},
			},
			map[string]string{"d": dir, "d/a": file + "1", "b": file + "2", "c": file + "1", "n": file + "1", "l": "-> d/a", "m": "-> d/a"},
		},
		"devices are left out": {
			[][]entry{{{name: "dev/null", kind: tar.TypeChar}, {name: "dev/sda", kind: tar.TypeBlock}, {name: "pipe", kind: tar.TypeFifo}, {name: "x", body: "1"}}, {{name: "x", kind: tar.TypeChar}}},
			map[string]string{"dev": dir},
		},
		"mount points take the place of links": {
			[][]entry{{{name: "proc", to: "/elsewhere"}, {name: "etc/passwd", to: "/run/passwd"}, {name: "var", to: "/data"}, {name: "data/task", body: "a file"}}},
			map[string]string{"var": "-> /data", "data": dir, "data/task": dir},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			s := open(t, t.TempDir(), folder)
			var layers []v1.Layer
			for _, l := range c.layers {
				layers = append(layers, layerOf(t, l...))
			}
			i := mustPull(t, s, onDisk(t, folder, imageOf(t, layers...)))
			if diff := cmp.Diff(c.want, rooted(t, s, i.Digest)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	s := open(t, t.TempDir(), folder)
	i := mustPull(t, s, onDisk(t, folder, imageOf(t, layerOf(t, entry{name: "d/"}, entry{name: "d/module.py"}))))
	root, p, release, err := s.Root(t.Context(), i.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for _, name := range []string{"d", "d/module.py"} { // Python compares them with its compiled code
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || !info.ModTime().Equal(modified) {
			t.Errorf("%s: %v %v", name, info.ModTime(), err)
		}
	}
	if want := (image.Process{EntryPoint: []string{"/run"}, Command: []string{"app.handler"}, WorkingDirectory: "/srv", Env: []string{"A=1"}}); cmp.Diff(want, p) != "" {
		t.Error(cmp.Diff(want, p))
	}
}

// bomb is so much in a small layer.
func bomb(t testing.TB, size int64) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "bomb", Size: size, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for n := int64(0); n < size; n += int64(len(zeros)) {
		if _, err := w.Write(zeros[:min(int64(len(zeros)), size-n)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return layerFrom(t, b.Bytes())
}

// sparse is a file that is all hole, in the old GNU form.
func sparse(t testing.TB, size int64) []byte {
	t.Helper()
	b := packed(t, entry{name: "hole"})
	h := b[:512]
	copy(h[257:], "ustar  \x00")
	h[156] = 'S'
	octal := func(at int) { copy(h[at:], fmt.Sprintf("%011o\x00", size)) }
	octal(386)                                    // offset of the only piece, at the end
	copy(h[398:], fmt.Sprintf("%011o\x00", 0))    // of no bytes
	copy(h[483:], fmt.Sprintf("%011o\x00", size)) // real size
	copy(h[148:], "        ")                     // checksum
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func TestHostileLayers(t *testing.T) {
	t.Parallel()
	many := func(n int) []entry {
		list := make([]entry, n)
		for i := range list {
			list[i] = entry{name: fmt.Sprintf("f%d", i)}
		}
		return list
	}
	var deep []string
	for range 300 {
		deep = append(deep, "d")
	}
	for name, c := range map[string]struct {
		layers []v1.Layer
		says   string
	}{
		"upwards":                {[]v1.Layer{layerOf(t, entry{name: "../out", body: "x"})}, "leads upwards"},
		"upwards within":         {[]v1.Layer{layerOf(t, entry{name: "a/../../out"})}, "leads upwards"},
		"absolute and upwards":   {[]v1.Layer{layerOf(t, entry{name: "/../out"})}, "leads upwards"},
		"hard link upwards":      {[]v1.Layer{layerOf(t, entry{name: "l", to: "../../outside", kind: tar.TypeLink})}, "leads upwards"},
		"hard link to nothing":   {[]v1.Layer{layerOf(t, entry{name: "l", to: "/etc/shadow", kind: tar.TypeLink})}, "is no file"},
		"hard link through link": {[]v1.Layer{layerOf(t, entry{name: "s", to: "/"}, entry{name: "l", to: "s/../../outside/secret", kind: tar.TypeLink})}, "leads upwards"},
		"hard link by link":      {[]v1.Layer{layerOf(t, entry{name: "s", to: "/../../.."}, entry{name: "l", to: "s/outside/secret", kind: tar.TypeLink})}, "is no file"},
		"hard link to a folder":  {[]v1.Layer{layerOf(t, entry{name: "d/"}, entry{name: "l", to: "d", kind: tar.TypeLink})}, "is no file"},
		"file as a folder":       {[]v1.Layer{layerOf(t, entry{name: "a"}, entry{name: "a/b"})}, "file and a folder"},
		"link loop as a folder":  {[]v1.Layer{layerOf(t, entry{name: "a", to: "b"}, entry{name: "b", to: "a"}, entry{name: "a/x"})}, "more than 40 links"},
		"whiteout of the parent": {[]v1.Layer{layerOf(t, entry{name: "d/.wh..."})}, "hides nothing"},
		"whiteout of the folder": {[]v1.Layer{layerOf(t, entry{name: "d/.wh.."})}, "hides nothing"},
		"whiteout of nothing":    {[]v1.Layer{layerOf(t, entry{name: "d/.wh."})}, "hides nothing"},
		"long part":              {[]v1.Layer{layerOf(t, entry{name: strings.Repeat("x", 256)})}, "a part of"},
		"long path":              {[]v1.Layer{layerOf(t, entry{name: strings.Repeat("x/", 2000) + "x"})}, "a path has"},
		"deep":                   {[]v1.Layer{layerOf(t, entry{name: strings.Join(deep, "/")})}, "lies in"},
		"deep by links":          {[]v1.Layer{layerOf(t, entry{name: "l", to: strings.Join(deep[:150], "/")}, entry{name: strings.Join(deep[:150], "/") + "/m", to: "/l/" + strings.Join(deep[:150], "/")}, entry{name: "l/m/x"})}, "too deep"},
		"too many":               {[]v1.Layer{layerOf(t, many(1000)...), layerOf(t, many(1001)...)}, "more than 2000 entries"},
		"too large":              {[]v1.Layer{bomb(t, 8<<20+1)}, "8388608 bytes"},
		"a hole too large":       {[]v1.Layer{layerFrom(t, sparse(t, 8<<30-1))}, "8388608 bytes"},
		"no archive":             {[]v1.Layer{layerFrom(t, []byte("no archive at all, but long enough to be read as one"+strings.Repeat(".", 1024)))}, "cannot be read"},
		"unknown type":           {[]v1.Layer{layerOf(t, entry{name: "x", kind: 'Z'})}, "unknown type"},
		"target too long":        {[]v1.Layer{layerOf(t, entry{name: "x", to: strings.Repeat("y", 5000)})}, "points to"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder, outer := t.TempDir(), t.TempDir()
			if err := os.WriteFile(filepath.Join(outer, "secret"), []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(outer, "a", "b")
			s := openWith(t, dir, image.Config{Folders: []string{folder}, MaxBytes: 8 << 20, MaxEntries: 2000})
			before := tree(t, outer)
			_, err := pull(t, s, onDisk(t, folder, imageOf(t, c.layers...)))
			var failure *lambda.Failure
			if !errors.As(err, &failure) || failure.Code != lambda.InvalidImage || !strings.Contains(failure.Reason, c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			if diff := cmp.Diff(before, tree(t, outer)); diff != "" {
				t.Errorf("left behind: %s", diff)
			}
		})
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	app := imageOf(t, layerOf(t, entry{name: "marker", body: "app"}))
	digest, err := app.Digest()
	if err != nil {
		t.Fatal(err)
	}
	id, err := app.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	other := imageOf(t, layerOf(t, entry{name: "marker", body: "other"}))
	foreign := configured(t, app, func(c *v1.ConfigFile) { c.Architecture = "s390x" })
	registry := serve(t)
	push := func(ref string, what remote.Taggable) {
		tag, err := name.NewTag(registry.host + "/" + ref)
		if err != nil {
			t.Fatal(err)
		}
		if i, ok := what.(v1.ImageIndex); ok {
			err = remote.WriteIndex(tag, i)
		} else {
			err = remote.Write(tag, what.(v1.Image))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: foreign, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: app, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}},
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}},
	)
	push("app:latest", app)
	push("app:several", index)
	push("app:foreign", foreign)
	push("app:foreignindex", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: foreign, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}}))
	push("app:windows", mutate.MediaType(mutate.ConfigMediaType(app, "application/vnd.example+json"), types.OCIManifestSchema1))

	one := onDisk(t, folder, app)
	two := onDisk(t, folder, app)
	twoPath := layout.Path(strings.TrimPrefix(two, "oci:"))
	if err := errors.Join(
		twoPath.AppendImage(other, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "other"})),
		twoPath.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "several"})),
	); err != nil {
		t.Fatal(err)
	}
	tag := func(s string) name.Tag { n, err := name.NewTag(s); _ = err; return n }
	archive, archives := filepath.Join(folder, "app.tar"), filepath.Join(folder, "both.tar")
	if err := errors.Join(
		tarball.WriteToFile(archive, tag("app:latest"), app),
		tarball.MultiWriteToFile(archives, map[name.Tag]v1.Image{tag("app:latest"): app, tag("other:v1"): other}),
	); err != nil {
		t.Fatal(err)
	}
	elsewhere := onDisk(t, t.TempDir(), app)
	if err := os.Symlink(strings.TrimPrefix(elsewhere, "oci:"), filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}

	const manifest, byID = "manifest", "id"
	for uri, want := range map[string]string{ // digest by name, or what the refusal says
		registry.host + "/app":                    manifest,
		registry.host + "/app:latest":             manifest,
		registry.host + "/app:several":            manifest,
		registry.host + "/app@" + digest.String(): manifest,
		one:                         manifest,
		one + ":latest":             manifest,
		one + "@" + digest.String(): manifest,
		two + ":latest":             manifest,
		two + ":several":            manifest,
		"docker-archive:" + archive: byID,
		"docker-archive:" + archive + ":app:latest":     byID,
		"docker-archive:" + archives + ":app:latest":    byID,
		"docker-archive:" + archive + "@" + id.String(): byID,

		registry.host + "/app:none":         "Source image " + registry.host + "/app:none does not exist. Provide a valid source image.",
		registry.host + "/none:latest":      "does not exist. Provide a valid source image.",
		registry.host + "/app:foreign":      "is built for linux/s390x, and this machine needs linux/" + runtime.GOARCH,
		registry.host + "/app:foreignindex": "is built for linux/s390x, and this machine needs linux/" + runtime.GOARCH,
		registry.host + "/app:windows":      "The image manifest, config or layer media type for the source image " + registry.host + "/app:windows is not supported.",
		registry.host + "/app@sha256:12":    "is not valid",
		"127.0.0.1:1/app:latest":            "could not be fetched",
		"app:latest":                        "Source image app:latest is not valid. Provide a valid source image. (it must begin with the registry's host",
		"user/app:latest":                   "must begin with the registry's host",
		"":                                  "is not valid",
		two:                                 "holds 3 images",
		two + ":none":                       "does not exist",
		"docker-archive:" + archives:        "holds 2 images",
		"docker-archive:" + archive + ":none:latest":        "not found in tarball",
		"docker-archive:" + folder + "/none.tar":            "does not exist",
		"docker-archive:" + strings.TrimPrefix(one, "oci:"): "a docker archive is a file",
		"oci:" + archive:          "an OCI layout is a folder",
		"oci:relative":            "the path must be absolute",
		elsewhere:                 "lies in none of the folders",
		"oci:" + folder + "/link": "lies in none of the folders",
		"oci:" + folder + "/../" + filepath.Base(filepath.Dir(strings.TrimPrefix(elsewhere, "oci:"))): "lies in none of the folders",
		"oci:/etc":                 "lies in none of the folders",
		"docker-archive:/dev/zero": "lies in none of the folders",
	} {
		t.Run(strings.ReplaceAll(uri, "/", "_"), func(t *testing.T) {
			t.Parallel()
			s := open(t, t.TempDir(), folder)
			i, err := pull(t, s, uri)
			wanted := map[string]v1.Hash{manifest: digest, byID: id}[want]
			if wanted == (v1.Hash{}) {
				var failure *lambda.Failure
				if !errors.As(err, &failure) || !strings.Contains(failure.Reason, want) {
					t.Errorf("%v, want %q", err, want)
				}
				return
			}
			if err != nil || i.Digest != wanted.Hex || !strings.HasSuffix(i.Resolved, "@"+wanted.String()) {
				t.Fatalf("%+v %v, want %s", i, err, wanted)
			}
			if got := rooted(t, s, i.Digest)["marker"]; got != "-rw-r--r-- app" {
				t.Errorf("marker: %q", got)
			}
			if again, err := s.Resolve(t.Context(), i.Resolved); err != nil || again != i {
				t.Errorf("the resolved reference leads to %+v %v", again, err)
			}
		})
	}
	if s := open(t, t.TempDir()); true {
		if _, err := s.Resolve(t.Context(), one); err == nil || !strings.Contains(err.Error(), "image_folders") {
			t.Errorf("without folders: %v", err)
		}
	}
}

// server is a registry that counts, can be out of order and asks for a password.
type server struct {
	*httptest.Server
	host     string
	asked    atomic.Int64
	down     atomic.Bool
	noBlobs  atomic.Bool
	password atomic.Pointer[string]
}

func serve(t testing.TB) *server {
	t.Helper()
	s := &server{}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		want := s.password.Load()
		_, got, _ := r.BasicAuth()
		switch {
		case want != nil && got != *want:
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		case s.down.Load(), s.noBlobs.Load() && strings.Contains(r.URL.Path, "/blobs/"):
			w.WriteHeader(http.StatusNotFound)
		default:
			handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	s.host = strings.TrimPrefix(s.URL, "http://")
	return s
}

func (s *server) push(t testing.TB, ref string, i v1.Image) string {
	t.Helper()
	tag, err := name.NewTag(s.host + "/" + ref)
	if err == nil {
		err = remote.Write(tag, i)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tag.String()
}

// TestOutlivesItsRegistry restarts and evicts with the registry gone.
func TestOutlivesItsRegistry(t *testing.T) {
	t.Parallel()
	r := serve(t)
	uri := r.push(t, "app:v1", imageOf(t, layerOf(t, entry{name: "marker", body: "1"}), layerOf(t, entry{name: "second"})))
	dir := t.TempDir()
	s := open(t, dir)
	i := mustPull(t, s, uri)

	// Another image under the same tag is another image.
	r.push(t, "app:v1", imageOf(t, layerOf(t, entry{name: "marker", body: "2"})))
	next, err := s.Resolve(t.Context(), uri)
	if err != nil || next.Digest == i.Digest {
		t.Errorf("after a push: %+v %v", next, err)
	}
	r.down.Store(true)
	if _, err := s.Resolve(t.Context(), uri); err == nil {
		t.Error("a tag can be resolved without its registry")
	}
	asked := r.asked.Load()
	for name, prepare := range map[string]func(){
		"again":   func() {},
		"restart": func() { s = open(t, dir) },
		"evicted": func() {
			if err := os.RemoveAll(filepath.Join(dir, "cache")); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
		},
	} {
		prepare()
		if again, err := s.Resolve(t.Context(), i.Resolved); err != nil || again != i {
			t.Errorf("%s: %+v %v", name, again, err)
		}
		if err := s.Pull(t.Context(), i); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := rooted(t, s, i.Digest); got["marker"] != "-rw-r--r-- 1" {
			t.Errorf("%s: %v", name, got)
		}
	}
	if r.asked.Load() != asked {
		t.Error("the registry was asked for an image that is here")
	}
	if err := s.Pull(t.Context(), next); err == nil {
		t.Error("an image is pulled from nowhere")
	}
	if got := s.Images(); !slices.Equal(got, []image.Image{i}) {
		t.Errorf("images %v", got)
	}
}

// TestRemove keeps the layers that another image has, and the root that is in use.
func TestRemove(t *testing.T) {
	t.Parallel()
	folder, dir := t.TempDir(), t.TempDir()
	base := layerOf(t, entry{name: "base", body: "b"})
	s := open(t, dir, folder)
	one := mustPull(t, s, onDisk(t, folder, imageOf(t, base, layerOf(t, entry{name: "one"}))))
	two := mustPull(t, s, onDisk(t, folder, imageOf(t, base, layerOf(t, entry{name: "two"}))))
	root, _, release, err := s.Root(t.Context(), one.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Remove(t.Context(), one.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "base")); err != nil {
		t.Errorf("a root in use: %v", err)
	}
	release()
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a removed root stays: %v", err)
	}
	if _, _, _, err := s.Root(t.Context(), one.Digest); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a removed image: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "cache")); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, folder)
	if got := slices.Sorted(maps.Keys(rooted(t, s, two.Digest))); !slices.Equal(got, []string{"base", "two"}) {
		t.Errorf("the other image: %q", got)
	}
	layers, _ := filepath.Glob(filepath.Join(dir, "store", "layers", "*"))
	if len(layers) != 2 {
		t.Errorf("layers %q", layers)
	}
	if err := s.Remove(t.Context(), two.Digest); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "store", "*", "*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestCrowd pulls, reads and removes images that share a layer, all at once.
func TestCrowd(t *testing.T) {
	t.Parallel()
	r := serve(t)
	base := layerOf(t, entry{name: "base", body: "b"})
	var uris []string
	for n := range 3 {
		uris = append(uris, r.push(t, fmt.Sprintf("app:v%d", n), imageOf(t, base, layerOf(t, entry{name: fmt.Sprint("n", n)}))))
	}
	dir := t.TempDir()
	s := open(t, dir)
	var work sync.WaitGroup
	for n := range 12 {
		work.Go(func() {
			for round := range 5 {
				i, err := s.Resolve(t.Context(), uris[n%len(uris)])
				if err == nil {
					err = s.Pull(t.Context(), i)
				}
				if err != nil && !errors.Is(err, state.ErrNotFound) { // removed again and again
					t.Error(err)
				}
				if n%4 == round%4 {
					if err := s.Remove(t.Context(), i.Digest); err != nil {
						t.Error(err)
					}
				} else if root, _, release, err := s.Root(t.Context(), i.Digest); err == nil {
					if b, err := os.ReadFile(filepath.Join(root, "base")); string(b) != "b" {
						t.Errorf("in use: %q %v", b, err)
					}
					release()
				}
			}
		})
	}
	work.Wait()
	for _, uri := range uris {
		i := mustPull(t, s, uri)
		if got := rooted(t, s, i.Digest); len(got) != 2 {
			t.Errorf("%s: %v", uri, got)
		}
		if err := s.Remove(t.Context(), i.Digest); err != nil {
			t.Error(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "store", "*", "*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "cache", "*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestInterrupted fails pulls on their way, and looks at what a crash leaves.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	r := serve(t)
	app := imageOf(t, layerOf(t, entry{name: "marker", body: "1"}))
	uri := r.push(t, "app:v1", app)
	dir := t.TempDir()
	s := open(t, dir)
	i, err := s.Resolve(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	left := func() []string { l, _ := filepath.Glob(filepath.Join(dir, "store", "*", "*")); return l }
	// The configuration is a blob too; the layer's is asked for when it was found.
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Pull(stopped, i); !errors.Is(err, context.Canceled) {
		t.Errorf("a pull that was stopped: %v", err)
	}
	r.noBlobs.Store(true)
	var failure *lambda.Failure
	if err := s.Pull(t.Context(), i); !errors.As(err, &failure) || failure.Code != lambda.ImageDeleted {
		t.Errorf("blobs that are gone: %v", err)
	}
	r.noBlobs.Store(false)
	full := openWith(t, t.TempDir(), image.Config{Free: func() error { return state.ErrFull }})
	if err := full.Pull(t.Context(), i); !errors.Is(err, state.ErrFull) {
		t.Errorf("a full disk: %v", err)
	}
	if l := left(); len(l) != 0 {
		t.Errorf("left: %q", l)
	}
	for _, f := range []string{"layers/tmp-1", "layers/" + strings.Repeat("a", 64), "images/tmp-2"} {
		if err := os.WriteFile(filepath.Join(dir, "store", f), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	if l := left(); len(l) != 0 {
		t.Errorf("left after a crash: %q", l)
	}
	if err := s.Pull(t.Context(), i); err != nil {
		t.Fatal(err)
	}

	// A layer that was damaged on the disk is found out; deploying again repairs it.
	blobs, _ := filepath.Glob(filepath.Join(dir, "store", "layers", "*"))
	b, err := os.ReadFile(blobs[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-6] ^= 1
	if err := errors.Join(os.WriteFile(blobs[0], b, 0o600), os.RemoveAll(filepath.Join(dir, "cache"))); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if _, _, _, err := s.Root(t.Context(), i.Digest); err == nil {
		t.Error("a damaged layer is unpacked")
	}
	_ = s.Pull(t.Context(), i)
	if err := s.Pull(t.Context(), i); err != nil {
		t.Errorf("pulled again: %v", err)
	}
	// A record that is damaged stops the start, and says which.
	records, _ := filepath.Glob(filepath.Join(dir, "store", "images", "*.json"))
	if err := os.WriteFile(records[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	trees := artifact.New(noBlobs{}, filepath.Join(dir, "cache"), artifact.Config{})
	if err := image.New(image.Config{Dir: filepath.Join(dir, "store"), Trees: trees}).Open(t.Context()); err == nil || !strings.Contains(err.Error(), records[0]) {
		t.Errorf("a damaged record: %v", err)
	}
}

// TestCredentials uses those of docker login; wrong ones and none are told apart from a missing image.
func TestCredentials(t *testing.T) {
	r := serve(t)
	uri := r.push(t, "private:v1", imageOf(t, layerOf(t, entry{name: "marker"})))
	password := "correct"
	r.password.Store(&password)
	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	login := func(password string) {
		auth := base64.StdEncoding.EncodeToString([]byte("user:" + password))
		if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(`{"auths":{"`+r.host+`":{"auth":"`+auth+`"}}}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, t.TempDir())
	var failure *lambda.Failure
	if _, err := s.Resolve(t.Context(), uri); !errors.As(err, &failure) || failure.Code != lambda.ImageAccessDenied {
		t.Errorf("without credentials: %v", err)
	}
	login("wrong")
	if _, err := s.Resolve(t.Context(), uri); !errors.As(err, &failure) || failure.Code != lambda.ImageAccessDenied || failure.Refusal().Code != "AccessDeniedException" {
		t.Errorf("with wrong credentials: %v", err)
	}
	login(password)
	mustPull(t, s, uri)
}

func TestCompressions(t *testing.T) {
	t.Parallel()
	plain := packed(t, entry{name: "marker", body: strings.Repeat("z", 1000)})
	var z bytes.Buffer
	w, err := zstd.NewWriter(&z)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	zipped := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(z.Bytes())), nil }
	l, err := tarball.LayerFromOpener(zipped, tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	s := open(t, t.TempDir(), folder)
	i := mustPull(t, s, onDisk(t, folder, imageOf(t, l)))
	if got := rooted(t, s, i.Digest)["marker"]; len(got) != 1011 {
		t.Errorf("marker: %.40q", got)
	}
}

// FuzzUnpack puts two layers of any bytes on top of each other.
func FuzzUnpack(f *testing.F) {
	for _, seed := range [][]entry{
		{{name: "a/b", body: "x"}, {name: "l", to: "../../x"}, {name: "l/y", body: "y"}},
		{{name: ".wh.a"}, {name: "a/.wh..wh..opq"}, {name: "h", to: "a/b", kind: tar.TypeLink}},
		{{name: "../x"}, {name: "a", to: "/"}, {name: "a/a/a/b", body: "z"}},
	} {
		f.Add(packed(f, seed...), packed(f, seed[1:]...))
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "x", "root")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		c := image.Config{MaxBytes: 1 << 20, MaxEntries: 1000, Free: func() error { return nil }, MountPoints: []string{"/proc/", "/etc/passwd"}}
		if err := image.Unpack(t.Context(), root, c, one, two); err != nil && !image.Blamed(err) {
			t.Errorf("not the image's fault: %v", err)
		}
		for path, what := range tree(t, outer) {
			if path != "x" && path != "x/root" && !strings.HasPrefix(path, "x/root/") {
				t.Errorf("written outside: %s", path)
			}
			if !strings.HasPrefix(what, "->") && strings.Trim(what[:10], "-drwx") != "" {
				t.Errorf("%s is %s", path, what)
			}
		}
	})
}
