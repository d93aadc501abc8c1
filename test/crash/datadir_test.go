package crash

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/google/go-cmp/cmp"

	"kiln/test/kiln"
)

// go test ./test/crash -run TestOldDataDirectory -update writes the archive anew.
// Do that for a new format only, under a new name, and keep the old ones: they
// are what users have.
var update = flag.Bool("update", false, "write testdata/datadir-v1.tar.gz with the current Kiln")

// archive is a data directory of format 1. It holds its own master key, without
// which its sealed variables could not be read; it protects nothing else.
const archive = "testdata/datadir-v1.tar.gz"

// kept is what the archive's functions were made of.
var kept = []struct {
	name, description, greeting string
	variables, tags             map[string]string
	memory, timeout             int32
}{
	{"first", "the first", "hello", map[string]string{"SECRET": "sealed & kept", "EMPTY": ""}, map[string]string{"team": "a", "stage": "test"}, 256, 7},
	{"second", "", "bonjour", nil, nil, 128, 3},
	{"updated", "updated once", "new", map[string]string{"SECRET": "changed"}, nil, 128, 3},
}

func TestOldDataDirectory(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	if *update {
		fill(t, data)
	}
	unpack(t, data)
	d := kiln.StartIn(t, data, nil, "--account", kiln.Account())
	d.Stop() // its account must not matter to functions of another
	d = kiln.StartIn(t, data, nil)
	client := d.Client()
	for _, want := range kept {
		f, err := client.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: &want.name})
		if err != nil {
			t.Errorf("%s: %v", want.name, err)
			continue
		}
		c := f.Configuration
		var variables map[string]string
		if c.Environment != nil {
			variables = c.Environment.Variables
		}
		if diff := cmp.Diff(want.variables, variables) + cmp.Diff(want.tags, f.Tags); diff != "" {
			t.Errorf("%s: variables or tags: %s", want.name, diff)
		}
		if *c.Description != want.description || *c.MemorySize != want.memory || *c.Timeout != want.timeout || !settled(c.State, c.LastUpdateStatus) {
			t.Errorf("%s is %+v", want.name, c)
		}
		out, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &want.name, Payload: []byte(`"now"`)})
		if err != nil {
			t.Errorf("invoke %s: %v", want.name, err)
		} else if got, want := string(out.Payload), `"`+want.greeting+" "+want.variables["SECRET"]+`"`; got != want {
			t.Errorf("it answers %s, want %s", got, want)
		}
		_, logs := kiln.Run(t, "logs", want.name, "--endpoint", d.URL)
		for _, event := range []string{"then", "now"} {
			if !strings.Contains(logs, want.greeting+` logs "`+event+`"`) {
				t.Errorf("the log of %s lacks the event %s:\n%s", want.name, event, logs)
			}
		}
	}
	list, err := client.ListFunctions(t.Context(), &lambda.ListFunctionsInput{})
	if err != nil || len(list.Functions) != len(kept) {
		t.Errorf("%d functions are listed, want %d: %v", len(list.Functions), len(kept), err)
	}
	// It is not only readable.
	if _, err := client.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{
		FunctionName: aws.String("first"), Environment: &types.Environment{Variables: map[string]string{"SECRET": "other"}}}); err != nil {
		t.Error(err)
	}
	if _, err := client.DeleteFunction(t.Context(), &lambda.DeleteFunctionInput{FunctionName: aws.String("second")}); err != nil {
		t.Error(err)
	}
}

// fill makes the archive with the current Kiln.
func fill(t *testing.T, data string) {
	d := kiln.StartIn(t, data, nil)
	client := d.Client()
	for _, f := range kept {
		code := kiln.Bash(`echo "` + f.greeting + ` logs $event"; answer="\"` + f.greeting + ` $SECRET\""`)
		d.Create(f.name, "provided.al2023", "x", code, func(in *lambda.CreateFunctionInput) {
			in.Description, in.MemorySize, in.Timeout, in.Tags = &f.description, &f.memory, &f.timeout, f.tags
			if f.variables != nil {
				in.Environment = &types.Environment{Variables: f.variables}
			}
		})
		if f.name == "updated" {
			if _, err := client.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{FunctionName: &f.name, Timeout: aws.Int32(f.timeout)}); err != nil {
				t.Fatal(err)
			}
			w := lambda.NewFunctionUpdatedV2Waiter(client)
			if err := w.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: &f.name}, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &f.name, Payload: []byte(`"then"`)}); err != nil {
			t.Fatal(err)
		}
	}
	d.Stop()
	if err := errors.Join(os.MkdirAll(filepath.Dir(archive), 0o755), pack(data)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
}

// pack writes the archive, without run, which has no meaning later, and code,
// which is made again from the packages.
func pack(data string) error {
	file, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	z, _ := gzip.NewWriterLevel(file, gzip.BestCompression)
	w := tar.NewWriter(z)
	err = filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(data, path)
		if err != nil || name == "." {
			return err
		}
		if name == "run" || name == "code" {
			return fs.SkipDir
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm()), Typeflag: tar.TypeDir}
		if !e.IsDir() {
			h.Typeflag, h.Size = tar.TypeReg, info.Size()
		}
		if err := w.WriteHeader(h); err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	return errors.Join(err, w.Close(), z.Close(), file.Close())
}

func unpack(t *testing.T, data string) {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(data, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else {
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, content, fs.FileMode(h.Mode))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
