package load

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kiln/test/kiln"
)

type entry struct {
	name, content string
	mode          fs.FileMode
}

func zipped(entries ...entry) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(e.mode)
		f, err := w.CreateHeader(h)
		if err == nil && !strings.HasSuffix(e.name, "/") {
			_, err = io.WriteString(f, e.content)
		}
		if err != nil {
			panic(err) // writing to memory does not fail
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// bomb is a zip whose one entry unpacks to so many bytes and says that it has few.
func bomb(size int64, lie bool) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("bootstrap")
	if err == nil {
		_, err = io.CopyN(f, zeros{}, size)
	}
	if err != nil || w.Close() != nil {
		panic("writing to memory does not fail")
	}
	out := b.Bytes()
	if lie {
		at := bytes.LastIndex(out, []byte("PK\x01\x02"))
		binary.LittleEndian.PutUint32(out[at+24:], 10)
	}
	return out
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func many(n int) []byte {
	list := make([]entry, n)
	for i := range list {
		list[i] = entry{name: fmt.Sprintf("f%d", i), mode: 0o644}
	}
	return zipped(list...)
}

// tree lists the files of a data directory but for those that change all the time.
func tree(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		name, err := filepath.Rel(dir, path)
		top, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		if e != nil && e.IsDir() && (top == "jetstream" || top == "telemetry" || top == "run") {
			return fs.SkipDir
		}
		list = append(list, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestHostilePackages(t *testing.T) {
	d, c, calm := start(t)
	good := kiln.Bash("answer=$event")
	noise := make([]byte, 50*megabyte+1)
	_, _ = rand.Read(noise)
	const (
		invalid  = "400 InvalidParameterValueException"
		unzip    = "Could not unzip uploaded file. Please check your file, then try to upload again."
		unzipped = "Unzipped size must be smaller than 262144000 bytes"
	)
	cases := map[string]struct {
		zip           []byte
		code, message string
	}{
		"empty":            {[]byte{}, invalid, ""},
		"not a zip":        {[]byte("#!/bin/sh\n"), invalid, unzip},
		"truncated":        {good[:len(good)/2], invalid, unzip},
		"without its end":  {good[:len(good)-1], invalid, unzip},
		"flipped byte":     {flipped(good, 200), invalid, unzip},
		"zip without file": {zipped(), invalid, unzip},
		"upwards":          {zipped(entry{"../evil", "x", 0o644}), invalid, unzip},
		"upwards inside":   {zipped(entry{"a/../../evil", "x", 0o644}), invalid, unzip},
		"backslashes":      {zipped(entry{`..\evil`, "x", 0o644}), invalid, unzip},
		"absolute":         {zipped(entry{"/etc/evil", "x", 0o644}), invalid, unzip},
		"absolute link":    {zipped(entry{"passwd", "/etc/passwd", fs.ModeSymlink | 0o777}), invalid, unzip},
		"link upwards":     {zipped(entry{"up", "../../..", fs.ModeSymlink | 0o777}), invalid, unzip},
		"through a link":   {zipped(entry{"up", "..", fs.ModeSymlink | 0o777}, entry{"up/evil", "x", 0o644}), invalid, unzip},
		"link chain":       {zipped(entry{"a", "b/..", fs.ModeSymlink | 0o777}, entry{"b", "..", fs.ModeSymlink | 0o777}), invalid, unzip},
		"twice":            {zipped(entry{"a", "1", 0o644}, entry{"a", "2", 0o644}), invalid, unzip},
		"file and folder":  {zipped(entry{"a", "1", 0o644}, entry{"a/b", "2", 0o644}), invalid, unzip},
		"device":           {zipped(entry{"null", "", fs.ModeDevice | fs.ModeCharDevice | 0o666}), invalid, unzip},
		"named pipe":       {zipped(entry{"pipe", "", fs.ModeNamedPipe | 0o666}), invalid, unzip},
		"long name":        {zipped(entry{strings.Repeat("n", 300), "x", 0o644}), invalid, unzip},
		"deep":             {zipped(entry{strings.Repeat("d/", 400) + "f", "x", 0o644}), invalid, unzip},
		"zero in name":     {zipped(entry{"a\x00b", "x", 0o644}), invalid, unzip},
		"bomb":             {bomb(251*megabyte, false), invalid, unzipped},
		"bomb that lies":   {bomb(251*megabyte, true), invalid, ""},
		"many files":       {many(100_001), invalid, unzip},
		"50 MiB and 1":     {noise, "413 RequestEntityTooLargeException", ""},
		"Windows program":  {zipped(entry{"bootstrap", "MZ\x90\x00\x03", 0o755}), invalid, "Windows"},
	}
	before := tree(t, d.Data)
	for name, x := range cases {
		body := fmt.Appendf(nil, `{"FunctionName":"hostile","Runtime":"provided.al2023","Handler":"x","Role":%q,"Code":{"ZipFile":%q}}`, kiln.Role, base64.StdEncoding.EncodeToString(x.zip))
		r, err := c.do(context.Background(), http.MethodPost, "/2015-03-31/functions", body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := fmt.Sprint(r.status, " ", r.code()); got != x.code || !strings.Contains(r.body, x.message) {
			t.Errorf("%s: %v, want %s %s", name, r, x.code, x.message)
		}
		if strings.Contains(r.body, d.Data) {
			t.Errorf("%s: the answer tells where Kiln keeps its data: %s", name, r.body)
		}
		r, err = c.do(context.Background(), http.MethodPut, api+"warm/code", fmt.Appendf(nil, `{"ZipFile":%q}`, base64.StdEncoding.EncodeToString(x.zip)))
		if err != nil || r.status < 400 || r.status >= 500 {
			t.Errorf("%s: an update gets %v, %v", name, r, err)
		}
	}
	for name, body := range map[string]string{
		"base64 garbage": `{"FunctionName":"hostile","Runtime":"provided.al2023","Handler":"x","Role":"` + kiln.Role + `","Code":{"ZipFile":"!!!not base64!!!"}}`,
		"no code":        `{"FunctionName":"hostile","Runtime":"provided.al2023","Handler":"x","Role":"` + kiln.Role + `","Code":{}}`,
		"not JSON":       `{"FunctionName":`,
		"deep JSON":      strings.Repeat("[", 1_000_000),
	} {
		r, err := c.do(context.Background(), http.MethodPost, "/2015-03-31/functions", []byte(body))
		if err != nil || r.status != http.StatusBadRequest {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if diff := cmp.Diff(before, tree(t, d.Data)); diff != "" {
		t.Errorf("refused packages left (+):\n%s", diff)
	}
	if got := c.must("warm", "1"); got != "1" {
		t.Errorf("afterwards warm answers %s", got)
	}
	r, err := c.do(context.Background(), http.MethodGet, api, nil)
	if err != nil || strings.Contains(r.body, "hostile") {
		t.Errorf("functions: %v, %v", r, err)
	}
	calm()
}

// A bootstrap that is no program is found out by the first invocation, as on AWS.
func TestBootstrapThatIsNone(t *testing.T) {
	d, c, calm := start(t)
	for name, code := range map[string][]byte{
		"folder":         zipped(entry{"bootstrap/", "", fs.ModeDir | 0o755}, entry{"bootstrap/x", "", 0o644}),
		"missing":        zipped(entry{"other", "", 0o755}),
		"not-executable": zipped(entry{"bootstrap", "#!/bin/sh\n", 0o644}),
		"interpreter":    zipped(entry{"bootstrap", "#!/no/such/interpreter\n", 0o755}),
		"nonsense":       zipped(entry{"bootstrap", "\x01\x02\x03\x04", 0o755}),
		"link-loop":      zipped(entry{"bootstrap", "b", fs.ModeSymlink | 0o777}, entry{"b", "bootstrap", fs.ModeSymlink | 0o777}),
	} {
		if err := d.TryCreate(name, "provided.al2023", "x", code, nil); err != nil {
			t.Logf("%s is refused: %v", name, err)
			continue
		}
		r, err := c.invoke(context.Background(), name, "1")
		if err != nil || r.status != http.StatusOK || r.header.Get("X-Amz-Function-Error") != "Unhandled" || !strings.Contains(r.body, "Runtime.InvalidEntrypoint") && !strings.Contains(r.body, "Runtime.ExitError") {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	calm()
}

func flipped(zip []byte, at int) []byte {
	out := bytes.Clone(zip)
	out[at] ^= 0xff
	return out
}
