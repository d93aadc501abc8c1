package images

import (
	"context"
	"encoding/base64"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"kiln/test/kiln"
)

// pythonImage is the machine's own Python with AWS's published runtime client, laid
// out as AWS's base image for Python is. It returns the version too.
func pythonImage(t *testing.T, files ...file) (i v1.Image, version string) {
	t.Helper()
	clients, _ := filepath.Glob(filepath.Join(kiln.Root(), ".cache", "clients", "python3*"))
	clients = slices.DeleteFunc(clients, func(c string) bool {
		_, err := os.Stat("/usr/bin/" + filepath.Base(c))
		_, err2 := os.Stat(filepath.Join(c, "awslambdaric"))
		return err != nil || err2 != nil
	})
	if len(clients) == 0 || runtime.GOOS != "linux" {
		t.Skip("AWS's runtime client for this machine's Python is not installed here; scripts/test.sh installs it")
	}
	client := clients[0]
	python := filepath.Base(client) // python3.11
	program := "/usr/bin/" + python
	binaries := []string{program, "/bin/bash"}
	take := func(from, to string, skip ...string) {
		err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(from, path)
			if d.IsDir() {
				if slices.Contains(skip, d.Name()) {
					return filepath.SkipDir
				}
				return nil
			}
			body, err := os.ReadFile(path) // what a link leads to
			if err != nil {
				return nil // a link to nothing
			}
			files = append(files, file{name: filepath.Join(to, rel), body: body, mode: 0o644})
			if strings.HasSuffix(path, ".so") {
				binaries = append(binaries, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	take("/usr/lib/"+python, "usr/lib/"+python, "__pycache__", "test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "config-"+strings.TrimPrefix(python, "python"))
	take(client, "var/runtime")
	libraries, err := exec.Command("ldd", binaries...).Output()
	if err != nil {
		t.Skip("ldd: ", err)
	}
	needed := append(regexp.MustCompile(`/(?:usr/)?lib[^ ):\n]*\.so[^ ):\n]*`).FindAllString(string(libraries), -1), program, "/bin/bash")
	slices.Sort(needed)
	for _, name := range slices.Compact(needed) {
		if slices.Contains(binaries[2:], name) {
			continue
		}
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{name: strings.TrimPrefix(name, "/"), body: body, mode: 0o755})
	}
	files = append(files,
		file{name: "lambda-entrypoint.sh", body: []byte(entrypoint), mode: 0o755},
		file{name: "bin/sh", target: "bash"},
		file{name: "var/runtime/bootstrap", mode: 0o755, body: []byte("#!/bin/sh\nexport PYTHONPATH=/var/runtime\nexec " + program + " -m awslambdaric \"$_HANDLER\"\n")},
	)
	return image(t, v1.Config{
		Entrypoint: []string{"/lambda-entrypoint.sh"}, WorkingDir: "/var/task", Cmd: []string{"app.handler"},
		Env: []string{"LANG=C.UTF-8", "PATH=/usr/bin:/bin", "LAMBDA_TASK_ROOT=/var/task", "LAMBDA_RUNTIME_DIR=/var/runtime"},
	}, files...), strings.TrimPrefix(python, "python")
}

const app = `import os, sys, logging
def handler(event, context):
    if "fail" in event: raise ValueError("as asked")
    logging.getLogger().warning("one\ntwo")
    return {"version": "%d.%d" % sys.version_info[:2], "id": context.aws_request_id, "name": context.function_name,
            "env": os.environ.get("AWS_EXECUTION_ENV"), "file": __file__, "runtime": sys.modules["awslambdaric"].__file__}
`

// TestPython runs AWS's published client for Python in images: in a function's own,
// and in a base image that serves a runtime identifier.
func TestPython(t *testing.T) {
	t.Parallel()
	d, r := start(t), serve(t)
	i, version := pythonImage(t, file{name: "var/task/app.py", body: []byte(app)})
	uri, id := r.push(t, "python:"+version, i), "python"+version
	if err := create(t, d, "imaged", uri, nil, nil); err != nil {
		t.Fatal(err)
	}
	if out, ok := command(t, d, "runtime", "add", id, "--image", uri); !ok {
		t.Fatal(out)
	}
	d.Create("zipped", id, "other.handler", kiln.Zip(map[string]string{"other.py": app}), nil)
	for function, want := range map[string][]string{
		"imaged": {`"env": null`, `"file": "/var/task/app.py"`},
		"zipped": {`"env": "AWS_Lambda_` + id + `"`, `"file": "/var/task/other.py"`},
	} {
		out, err := d.Client().Invoke(context.Background(), &lambda.InvokeInput{FunctionName: aws.String(function), Payload: []byte("{}"), LogType: types.LogTypeTail})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range append(want, `"version": "`+version+`"`, `"name": "`+function+`"`, `"runtime": "/var/runtime/awslambdaric/__init__.py"`) {
			if !strings.Contains(string(out.Payload), w) {
				t.Errorf("%s: %s, want %s", function, out.Payload, w)
			}
		}
		if log, _ := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult)); !strings.Contains(string(log), "[WARNING]") || !strings.Contains(string(log), "two") {
			t.Errorf("%s: its log: %s", function, log)
		}
		if got := invoke(t, d, function, `{"fail":1}`); !strings.Contains(got, `"errorType": "ValueError"`) || !strings.Contains(got, `"errorMessage": "as asked"`) {
			t.Errorf("%s: %s", function, got)
		}
	}
}
