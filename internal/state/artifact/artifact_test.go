package artifact_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/artifact"
	"kiln/internal/state/jetstream"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("KILN_TEST_ADD"); dir != "" {
		addForever(dir)
	}
	goleak.VerifyTestMain(m)
}

// file is one entry of a zip.
type file struct {
	name string
	body string
	mode fs.FileMode // 0: none is said
}

func pack(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)}
		if f.mode != 0 {
			h.SetMode(f.mode)
		}
		e, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(e, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func engine(t testing.TB) *jetstream.Blob {
	t.Helper()
	e := jetstream.New(jetstream.Config{Dir: t.TempDir(), Node: "n1"})
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e.Blob()
}

func openStore(t testing.TB, blob state.Blob, dir string, cfg artifact.Config) *artifact.Store {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	s := artifact.New(blob, dir, cfg)
	if err := s.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t testing.TB, s *artifact.Store, zip []byte) artifact.Package {
	t.Helper()
	p, err := s.Add(context.Background(), section(zip))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// section is a package as the store takes it.
func section(zip []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(zip), 0, int64(len(zip)))
}

func dirOf(t testing.TB, s *artifact.Store, digest string) (string, func()) {
	t.Helper()
	path, release, err := s.Dir(context.Background(), digest)
	if err != nil {
		t.Fatal(err)
	}
	return path, release
}

// tree describes a folder: a line for each entry.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			got[name] = "link to " + target
			return err
		case d.IsDir():
			got[name] = info.Mode().String()
		default:
			b, err := os.ReadFile(path)
			got[name] = info.Mode().String() + " " + string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPackage(t *testing.T) {
	t.Parallel()
	blob, dir := engine(t), t.TempDir()
	s := openStore(t, blob, dir, artifact.Config{})
	code := pack(t,
		file{"bootstrap", "#!/bin/sh", 0o755},
		file{"lib/", "", fs.ModeDir | 0o700},
		file{"lib/private.py", "p", 0o600},
		file{"lib/run", "r", 0o700},
		file{"lib/open", "o", 0o666},
		file{"lib/strange", "s", fs.ModeSetuid | fs.ModeSticky | 0o755},
		file{"deep/er/index.js", "d", 0},
		file{"deep/link", "er/index.js", fs.ModeSymlink | 0o777},
		file{"up", "deep/../bootstrap", fs.ModeSymlink | 0o777},
		file{"dangling", "nothing", fs.ModeSymlink | 0o777},
		file{"Bootstrap", "case", 0o644},
		file{"./dot", "", 0o644})
	p := add(t, s, code)
	sum := sha256.Sum256(code)
	want := artifact.Package{Digest: hex.EncodeToString(sum[:]), SHA256: base64.StdEncoding.EncodeToString(sum[:]),
		Size: int64(len(code)), UnpackedBytes: int64(len("#!/bin/shprosdcase"))}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
	wantTree := map[string]string{
		"bootstrap":        "-rwxr-xr-x #!/bin/sh",
		"lib":              "drwxr-xr-x",
		"lib/private.py":   "-rw-r--r-- p",
		"lib/run":          "-rwxr-xr-x r",
		"lib/open":         "-rw-r--r-- o",
		"lib/strange":      "-rwxr-xr-x s",
		"deep":             "drwxr-xr-x",
		"deep/er":          "drwxr-xr-x",
		"deep/er/index.js": "-rw-r--r-- d",
		"deep/link":        "link to er/index.js",
		"up":               "link to deep/../bootstrap",
		"dangling":         "link to nothing",
		"Bootstrap":        "-rw-r--r-- case",
		"dot":              "-rw-r--r-- ",
	}
	for _, how := range []string{"added", "reopened", "rebuilt"} {
		path, release := dirOf(t, s, p.Digest)
		if diff := cmp.Diff(wantTree, tree(t, path)); diff != "" {
			t.Errorf("%s: %s", how, diff)
		}
		for _, name := range []string{"bootstrap", "lib"} {
			info, err := os.Stat(filepath.Join(path, name))
			if err != nil || !info.ModTime().Equal(time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)) {
				t.Errorf("%s: %s has the time %v", how, name, info.ModTime())
			}
		}
		r, size, err := s.Zip(context.Background(), p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(b, code) || size != p.Size {
			t.Errorf("%s: the zip came back changed: %d of %d bytes, %v", how, len(b), size, err)
		}
		r.Close()
		release()
		release()
		if how == "reopened" {
			if err := os.RemoveAll(filepath.Join(dir, p.Digest)); err != nil {
				t.Fatal(err)
			}
		}
		s = openStore(t, blob, dir, artifact.Config{})
	}
	if diff := cmp.Diff(p, add(t, s, code)); diff != "" {
		t.Errorf("added again: %s", diff)
	}
	nothingLeft(t, dir)
}

// nothingLeft checks that no build is left in the cache.
func nothingLeft(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "tmp-") {
			t.Errorf("left: %s", e.Name())
		}
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	ctx, blob, dir := context.Background(), engine(t), t.TempDir()
	s := openStore(t, blob, dir, artifact.Config{})
	p := add(t, s, pack(t, file{"a", "a", 0o644}))
	path, release := dirOf(t, s, p.Digest)
	if err := s.Remove(ctx, p.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "a")); err != nil {
		t.Errorf("a tree in use was removed: %v", err)
	}
	for range 2 {
		if _, _, err := s.Dir(ctx, p.Digest); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("a removed package: %v", err)
		}
		if _, _, err := s.Zip(ctx, p.Digest); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("a removed package: %v", err)
		}
		release()
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	for _, digest := range []string{"", "..", "../../etc", strings.Repeat("A", 64), strings.Repeat("g", 64)} {
		if _, _, err := s.Dir(ctx, digest); err == nil || errors.Is(err, state.ErrNotFound) {
			t.Errorf("digest %q: %v", digest, err)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	blob, dir := engine(t), t.TempDir()
	const one = 64 << 10 // each package is about this large on disk
	cfg := artifact.Config{MaxCache: 5*one + one/2}
	s := openStore(t, blob, dir, cfg)
	var digests []string
	for i := range 4 {
		digests = append(digests, add(t, s, pack(t, file{"f", strings.Repeat(fmt.Sprint(i), one-8192), 0o644})).Digest)
	}
	path, release := dirOf(t, s, digests[1])
	_, releaseFirst := dirOf(t, s, digests[0]) // used later than 2 and 3
	releaseFirst()
	for i := range 5 {
		add(t, s, pack(t, file{"g", strings.Repeat(fmt.Sprint(i), one-8192), 0o644}))
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the tree in use was evicted: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("%d trees in the cache, %v", len(entries), err)
	}
	release()
	for _, d := range digests { // evicted ones come back
		path, release := dirOf(t, s, d)
		if len(tree(t, path)) != 1 {
			t.Errorf("%s came back as %v", d, tree(t, path))
		}
		release()
	}
	openStore(t, blob, dir, artifact.Config{MaxCache: 2 * one})
	if entries, _ := os.ReadDir(dir); len(entries) > 2 {
		t.Errorf("%d trees after opening with a smaller bound", len(entries))
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	blob, dir := engine(t), t.TempDir()
	s := openStore(t, blob, dir, artifact.Config{MaxCache: 30 << 10})
	var digests []string
	for i := range 4 {
		digests = append(digests, add(t, s, pack(t, file{"f", strings.Repeat(fmt.Sprint(i), 5000), 0o644})).Digest)
	}
	var running sync.WaitGroup
	for i := range 16 {
		running.Go(func() {
			for j := range 20 {
				n := (i + j) % len(digests)
				path, release, err := s.Dir(context.Background(), digests[n])
				if err != nil {
					t.Error(err)
					return
				}
				b, err := os.ReadFile(filepath.Join(path, "f"))
				if err != nil || string(b) != strings.Repeat(fmt.Sprint(n), 5000) {
					t.Errorf("a tree in use is not whole: %d bytes, %v", len(b), err)
				}
				release()
			}
		})
	}
	running.Wait()
	nothingLeft(t, dir)
}

func TestDamagedTrees(t *testing.T) {
	t.Parallel()
	blob := engine(t)
	code := pack(t, file{"a/f", "content", 0o755}, file{"l", "a/f", fs.ModeSymlink | 0o777})
	for _, test := range []struct {
		name  string
		full  bool // only a full check sees it
		spoil func(code string) error
	}{
		{"missing file", false, func(c string) error { return os.Remove(filepath.Join(c, "a/f")) }},
		{"shorter file", false, func(c string) error { return os.Truncate(filepath.Join(c, "a/f"), 3) }},
		{"other mode", false, func(c string) error { return os.Chmod(filepath.Join(c, "a/f"), 0o644) }},
		{"extra file", false, func(c string) error { return os.WriteFile(filepath.Join(c, "x"), nil, 0o644) }},
		{"other link", false, func(c string) error {
			return errors.Join(os.Remove(filepath.Join(c, "l")), os.Symlink("/etc/passwd", filepath.Join(c, "l")))
		}},
		{"folder for file", false, func(c string) error {
			return errors.Join(os.Remove(filepath.Join(c, "a/f")), os.Mkdir(filepath.Join(c, "a/f"), 0o755))
		}},
		{"no manifest", false, func(c string) error { return os.Remove(filepath.Join(c, "../manifest.json")) }},
		{"cut manifest", false, func(c string) error { return os.Truncate(filepath.Join(c, "../manifest.json"), 300) }},
		{"no tree", false, os.RemoveAll},
		{"other bytes", true, func(c string) error {
			return os.WriteFile(filepath.Join(c, "a/f"), []byte("CONTENT"), 0o755)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p := add(t, openStore(t, blob, dir, artifact.Config{}), code)
			path := filepath.Join(dir, p.Digest, "code")
			want := tree(t, path)
			if err := test.spoil(path); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, blob, dir, artifact.Config{})
			if test.full {
				if err := s.Check(context.Background(), p.Digest); err != nil {
					t.Fatal(err)
				}
			}
			path, release := dirOf(t, s, p.Digest)
			defer release()
			if diff := cmp.Diff(want, tree(t, path)); diff != "" {
				t.Error(diff)
			}
			nothingLeft(t, dir)
		})
	}
}

// Zips as other programs write them.
func TestForeignZips(t *testing.T) {
	t.Parallel()
	s := openStore(t, engine(t), t.TempDir(), artifact.Config{})
	python := func(script string) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			return run(t, "python3", "-c", "import sys,io,zipfile\nb=io.BytesIO()\n"+script+"\nsys.stdout.buffer.write(b.getvalue())")
		}
	}
	for name, test := range map[string]struct {
		make func(t *testing.T) []byte
		want map[string]string
	}{
		"python writestr": {python("z=zipfile.ZipFile(b,'w')\nz.writestr('a/f.py','x')\nz.close()"),
			map[string]string{"a": "drwxr-xr-x", "a/f.py": "-rw-r--r-- x"}},
		"python mode 0": {python("z=zipfile.ZipFile(b,'w')\ni=zipfile.ZipInfo('f.py')\ni.external_attr=0\nz.writestr(i,'x')\nz.close()"),
			map[string]string{"f.py": "-rw-r--r-- x"}},
		"python made on windows": {python("z=zipfile.ZipFile(b,'w')\ni=zipfile.ZipInfo('d/f.py')\ni.create_system=0\ni.external_attr=0x20\nz.writestr(i,'x')\nz.close()"),
			map[string]string{"d": "drwxr-xr-x", "d/f.py": "-rw-r--r-- x"}},
		"python zip64": {python("z=zipfile.ZipFile(b,'w')\nwith z.open('f.py','w',force_zip64=True) as f: f.write(b'x')\nz.close()"),
			map[string]string{"f.py": "-rw-r--r-- x"}},
		"python with a prefix": {python("b.write(b'#!/bin/sh\\nexit\\n')\nz=zipfile.ZipFile(b,'a')\nz.writestr('f.py','x')\nz.close()"),
			map[string]string{"f.py": "-rw-r--r-- x"}},
		"stored": {python("z=zipfile.ZipFile(b,'w',zipfile.ZIP_STORED)\nz.writestr('f.py','x'*10)\nz.close()"),
			map[string]string{"f.py": "-rw-r--r-- xxxxxxxxxx"}},
		"zip": {func(t *testing.T) []byte {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "d", "bootstrap"), []byte("x"), 0o700); err != nil {
				t.Fatal(err)
			}
			run(t, "sh", "-c", "cd "+dir+" && zip -qr out.zip d")
			b, err := os.ReadFile(filepath.Join(dir, "out.zip"))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}, map[string]string{"d": "drwxr-xr-x", "d/bootstrap": "-rwxr-xr-x x"}},
		"go with data descriptors": {func(t *testing.T) []byte { return pack(t, file{"f", "x", 0o755}) },
			map[string]string{"f": "-rwxr-xr-x x"}},
		"folder after its content": {func(t *testing.T) []byte {
			return pack(t, file{"d/f", "x", 0o644}, file{"d/", "", fs.ModeDir | 0o755}, file{"d/", "", fs.ModeDir | 0o755})
		}, map[string]string{"d": "drwxr-xr-x", "d/f": "-rw-r--r-- x"}},
		"only folders": {func(t *testing.T) []byte { return pack(t, file{"d/", "", fs.ModeDir | 0o755}) },
			map[string]string{"d": "drwxr-xr-x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, release := dirOf(t, s, add(t, s, test.make(t)).Digest)
			defer release()
			if diff := cmp.Diff(test.want, tree(t, path)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		if name == "sh" {
			t.Skipf("%v: %v", args, err)
		}
		t.Fatal(err)
	}
	return out
}

const unzipMessage = "Could not unzip uploaded file. Please check your file, then try to upload again."

func TestHostilePackages(t *testing.T) {
	t.Parallel()
	link := fs.ModeSymlink | 0o777
	good := pack(t, file{"f", strings.Repeat("x", 1000), 0o644})
	bomb := strings.Repeat("\x00", 1<<20)
	for name, test := range map[string]struct {
		zip     []byte
		code    string // InvalidParameterValueException unless given
		message string // unzipMessage unless given
	}{
		"nothing":          {zip: nil},
		"text":             {zip: []byte("exports.handler = 1")},
		"empty":            {zip: pack(t)},
		"cut":              {zip: good[:len(good)-10]},
		"cut at the front": {zip: good[20:]},
		"flipped":          {zip: flip(good, 45)},
		"encrypted":        {zip: setFlag(good)},
		"absolute":         {zip: pack(t, file{"/etc/passwd", "x", 0o644})},
		"upwards":          {zip: pack(t, file{"../x", "x", 0o644})},
		"upwards inside":   {zip: pack(t, file{"a/../../x", "x", 0o644})},
		"upwards folder":   {zip: pack(t, file{"../d/", "", fs.ModeDir | 0o755})},
		"backslash":        {zip: pack(t, file{`a\b`, "x", 0o644})},
		"zero byte":        {zip: pack(t, file{"a\x00b", "x", 0o644})},
		"twice":            {zip: pack(t, file{"a", "x", 0o644}, file{"a", "y", 0o644})},
		"twice by dots":    {zip: pack(t, file{"a", "x", 0o644}, file{"./a", "y", 0o644})},
		"file as folder":   {zip: pack(t, file{"a", "x", 0o644}, file{"a/b", "y", 0o644})},
		"folder as file":   {zip: pack(t, file{"a/b", "x", 0o644}, file{"a", "y", 0o644})},
		"through a link":   {zip: pack(t, file{"a", ".", link}, file{"a/b", "y", 0o644})},
		"link over folder": {zip: pack(t, file{"a/b", "x", 0o644}, file{"a", "/etc", link})},
		"no name":          {zip: pack(t, file{".", "x", 0o644})},
		"absolute link":    {zip: pack(t, file{"a", "/etc/passwd", link})},
		"link upwards":     {zip: pack(t, file{"a", "../x", link})},
		"link by links":    {zip: pack(t, file{"a/b/c", "../..", link}, file{"d", "a/b/c/../../etc", link})},
		"link to itself":   {zip: pack(t, file{"a", "a", link})},
		"empty link":       {zip: pack(t, file{"a", "", link})},
		"long link":        {zip: pack(t, file{"a", strings.Repeat("x/", 1000), link})},
		"device":           {zip: pack(t, file{"a", "", fs.ModeDevice | fs.ModeCharDevice | 0o644})},
		"fifo":             {zip: pack(t, file{"a", "", fs.ModeNamedPipe | 0o644})},
		"socket":           {zip: pack(t, file{"a", "", fs.ModeSocket | 0o644})},
		"long name":        {zip: pack(t, file{strings.Repeat("n", 256), "", 0o644})},
		"long path":        {zip: pack(t, file{strings.Repeat("name/", 205) + "x", "", 0o644})},
		"deep":             {zip: pack(t, file{strings.Repeat("d/", 101) + "x", "", 0o644})},
		"many files":       {zip: repeat(t, pack(t, file{"f", "", 0o644}), 100_001)},
		"many headers":     {zip: bytes.Repeat([]byte("PK\x01\x02"), 400_001)},
		"large":            {zip: make([]byte, lambda.MaxUnzipped+1), message: "Unzipped size must be smaller than 262144000 bytes"},
		"bomb":             {zip: repeat(t, pack(t, file{"b", bomb, 0o644}), 251), message: "Unzipped size must be smaller than 262144000 bytes"},
		"header lies":      {zip: lieAboutSize(pack(t, file{"b", bomb, 0o644}))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, blob := t.TempDir(), &memory{}
			outside := filepath.Dir(dir)
			before := tree(t, outside)
			s := openStore(t, blob, dir, artifact.Config{})
			_, err := s.Add(context.Background(), section(test.zip))
			got := lambda.AsError(err)
			if got == nil {
				t.Fatalf("%v", err)
			}
			if test.message == "" {
				test.message = unzipMessage
				if !strings.Contains(err.Error(), "(") {
					t.Errorf("%q has no detail for the log", err)
				}
			}
			if test.code == "" {
				test.code = "InvalidParameterValueException"
			}
			if got.Code != test.code || got.Message != test.message {
				t.Errorf("%s: %s", got.Code, got.Message)
			}
			if len(blob.content) != 0 {
				t.Error("it was stored")
			}
			if diff := cmp.Diff(before, tree(t, outside)); diff != "" {
				t.Errorf("it left something: %s", diff)
			}
		})
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x55
	return b
}

// repeat packs the one file of a zip many times, without compressing it again.
func repeat(t testing.TB, code []byte, times int) []byte {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(code), int64(len(code)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := range times {
		h := r.File[0].FileHeader
		h.Name = fmt.Sprint("f", i)
		to, err := w.CreateRaw(&h)
		if err != nil {
			t.Fatal(err)
		}
		from, err := r.File[0].OpenRaw()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, from); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// setFlag marks the first entry as encrypted, in both of its headers.
func setFlag(b []byte) []byte {
	b = bytes.Clone(b)
	b[6] |= 1
	b[bytes.Index(b, []byte("PK\x01\x02"))+8] |= 1
	return b
}

// lieAboutSize says in the directory that the entry has one byte.
func lieAboutSize(b []byte) []byte {
	b = bytes.Clone(b)
	at := bytes.LastIndex(b, []byte("PK\x01\x02"))
	copy(b[at+24:], []byte{1, 0, 0, 0})
	return b
}

// memory is a Blob for tests that are not about the engine.
type memory struct {
	mu      sync.Mutex
	content map[string][]byte
}

func (m *memory) Put(_ context.Context, key string, r io.Reader) error {
	b, err := io.ReadAll(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.content == nil {
		m.content = map[string][]byte{}
	}
	m.content[key] = b
	return err
}

func (m *memory) Get(_ context.Context, key string) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.content[key]
	if !ok {
		return nil, state.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.content, key)
	return nil
}

func (m *memory) Keys(context.Context) ([]string, error) { return nil, nil }

func TestStoredDamageIsNoticed(t *testing.T) {
	t.Parallel()
	blob, dir := &memory{}, t.TempDir()
	code := pack(t, file{"f", "x", 0o644})
	p := add(t, openStore(t, blob, dir, artifact.Config{}), code)
	if err := os.RemoveAll(filepath.Join(dir, p.Digest)); err != nil {
		t.Fatal(err)
	}
	blob.content[p.Digest][40] ^= 1
	s := openStore(t, blob, dir, artifact.Config{})
	if _, _, err := s.Dir(context.Background(), p.Digest); err == nil || lambda.AsError(err) != nil {
		t.Errorf("a damaged package: %v", err)
	}
	nothingLeft(t, dir)
	add(t, s, code) // repairs it
	_, release := dirOf(t, s, p.Digest)
	release()
}

func TestFloor(t *testing.T) {
	t.Parallel()
	blob, dir := &memory{}, t.TempDir()
	s := openStore(t, blob, dir, artifact.Config{Free: func() error { return fmt.Errorf("floor: %w", state.ErrFull) }})
	if _, err := s.Add(context.Background(), section(pack(t, file{"f", "x", 0o644}))); !errors.Is(err, state.ErrFull) {
		t.Errorf("below the floor: %v", err)
	}
	if len(blob.content) != 0 {
		t.Error("it was stored")
	}
	nothingLeft(t, dir)
}

// FuzzUnpack: whatever the bytes, nothing is written outside of the cache and an
// error leaves nothing behind.
func FuzzUnpack(f *testing.F) {
	f.Add(pack(f, file{"a/f", "content", 0o755}, file{"l", "a/f", fs.ModeSymlink | 0o777}))
	f.Add(pack(f, file{"../f", "content", 0o755}))
	f.Add(pack(f, file{"l", "../..", fs.ModeSymlink | 0o777}, file{"l/x", "y", 0o644}))
	f.Add(pack(f))
	f.Fuzz(func(t *testing.T, zip []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "x", "cache")
		s := openStore(t, &memory{}, dir, artifact.Config{})
		p, err := s.Add(context.Background(), section(zip))
		if err != nil {
			if lambda.AsError(err) == nil {
				t.Errorf("not the package's fault: %v", err)
			}
			if len(tree(t, outer)) != 2 {
				t.Errorf("left: %v", tree(t, outer))
			}
			return
		}
		for name := range tree(t, outer) {
			if name != "x" && name != "x/cache" && !strings.HasPrefix(name, "x/cache/"+p.Digest) {
				t.Errorf("written outside: %s", name)
			}
		}
		if err := s.Check(context.Background(), p.Digest); err != nil {
			t.Error(err)
		}
	})
}
