package images

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"kiln/test/kiln"
)

// entrypoint is what the script of AWS's base images does, in the test's words.
const entrypoint = `#!/bin/sh
[ $# -eq 1 ] || { echo "give the handler, and only that" >&2; exit 142; }
export _HANDLER="$1"
[ -n "$AWS_LAMBDA_RUNTIME_API" ] || exec /usr/local/bin/emulator /var/runtime/bootstrap
exec /var/runtime/bootstrap
`

// base is an image laid out as AWS's base images are: a shell, the script, and a
// runtime client that finds the function in /var/task.
func base(t testing.TB) v1.Image {
	t.Helper()
	libraries, err := exec.Command("ldd", "/bin/bash").Output()
	if err != nil {
		t.Skip("no dynamically linked bash here: ", err)
	}
	files := []file{
		{name: "lambda-entrypoint.sh", body: []byte(entrypoint), mode: 0o755},
		{name: "var/runtime/bootstrap", hard: "app/probe"},
		{name: "var/lang/bin/node", hard: "app/probe"},
		{name: "bin/sh", target: "bash"},
		{name: "etc/passwd", body: []byte("root:x:0:0::/root:/bin/sh\n")},
	}
	for _, name := range append(regexp.MustCompile(`/[^ )]+`).FindAllString(string(libraries), -1), "/bin/bash") {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{name: strings.TrimPrefix(name, "/"), body: body, mode: 0o755})
	}
	return image(t, v1.Config{
		Entrypoint: []string{"/lambda-entrypoint.sh"}, WorkingDir: "/var/task",
		Env: []string{"LANG=en_US.UTF-8", "PATH=/var/lang/bin:/bin", "LAMBDA_TASK_ROOT=/var/task", "ONLY=image", "FROM=image"},
	}, files...)
}

// command runs kiln against a daemon and returns what it printed.
func command(t testing.TB, d *kiln.Daemon, args ...string) (out string, ok bool) {
	t.Helper()
	cmd := exec.Command(kiln.Binary(t), args...)
	cmd.Env = d.Environ()
	b, err := cmd.CombinedOutput()
	return string(b), err == nil
}

func TestBaseImage(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	d, r := start(t, "--image-folders", folder), serve(t)
	i := base(t)
	path := filepath.Join(folder, "node")
	p, err := layout.Write(path, empty.Index)
	if err == nil {
		err = p.AppendImage(i)
	}
	if err != nil {
		t.Fatal(err)
	}
	add := func(args ...string) (string, bool) {
		t.Helper()
		return command(t, d, append([]string{"runtime", "add"}, args...)...)
	}
	plain := r.push(t, "plain:v1", image(t, standard, file{name: "srv/x"}))
	for what, c := range map[string]struct {
		args []string
		says string
	}{
		"no reference":  {[]string{"nodejs22.x", "--image", ""}, "AWS publishes one for each runtime"},
		"no registry":   {[]string{"nodejs22.x", "--image", "nodejs:22"}, "must begin with the registry's host"},
		"no base image": {[]string{"nodejs22.x", "--image", plain}, "it has no /var/runtime/bootstrap"},
		"missing":       {[]string{"nodejs22.x", "--image", r.host + "/none:22"}, "does not exist"},
		"no runtime":    {[]string{"cobol", "--image", "oci:" + path}, "cobol"},
		"packages":      {[]string{"nodejs22.x", "--image", "oci:" + path, "--package", "x"}, "brings its packages"},
	} {
		if out, ok := add(c.args...); ok || !strings.Contains(out, c.says) {
			t.Errorf("%s: %s, want %q", what, out, c.says)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(d.Data, "images", "*", "*")); len(left) > 0 {
		t.Errorf("refused images are left: %q", left)
	}

	resolved := "oci:" + path + "@" + digest(t, i).String()
	for _, id := range []string{"nodejs22.x", "nodejs16.x"} { // AWS lets nobody create the latter any more, and Kiln has nothing of its own for it
		if out, ok := add(id, "--image", "oci:"+path); !ok || !strings.Contains(out, id+": image "+resolved) {
			t.Fatalf("added: %s", out)
		}
	}
	list, _ := command(t, d, "runtime", "list")
	if !regexp.MustCompile(`(?m)^nodejs22.x +image `+regexp.QuoteMeta(resolved)+` .*-$`).MatchString(list) || !strings.Contains(list, "nodejs16.x") {
		t.Errorf("list: %s", list)
	}
	if out, ok := add("nodejs22.x"); ok || !strings.Contains(out, "served by a base image") {
		t.Errorf("a bundle beside an image: %s", out)
	}

	l, err := d.Client().PublishLayerVersion(context.Background(), &lambda.PublishLayerVersionInput{
		LayerName: aws.String("lib"), Content: &types.LayerVersionContentInput{ZipFile: kiln.Zip(map[string]string{"lib.txt": "layer"})},
	})
	if err != nil {
		t.Fatal(err)
	}
	code := kiln.Zip(map[string]string{"app.txt": "code"})
	d.Create("zipped", "nodejs22.x", "app.handler", code, func(in *lambda.CreateFunctionInput) {
		in.Layers = []string{*l.LayerVersionArn}
		in.Environment = &types.Environment{Variables: map[string]string{"FROM": "function"}}
	})
	d.Create("old", "nodejs16.x", "old.handler", code, nil)
	works := func(when string) {
		t.Helper()
		for event, want := range map[string]string{
			`{}`:                           `"args":\["/var/runtime/bootstrap"\],"dir":"/var/task","handler":"app.handler"`,
			`{"read":"/var/task/app.txt"}`: `"text":"code"`,
			`{"read":"/opt/lib.txt"}`:      `"text":"layer"`,
			`{"read":"/etc/passwd"}`:       `sbx_user1051.*root`,
			`{"env":"AWS_EXECUTION_ENV"}`:  `^"AWS_Lambda_nodejs22.x"$`,
			`{"env":"FROM"}`:               `^"function"$`,
			`{"env":"ONLY"}`:               `^"image"$`,
			`{"env":"PATH"}`:               `^"/var/lang/bin:/bin"$`,
			`{"env":"TZ"}`:                 `^":UTC"$`,
			`{"write":"/var/runtime/x"}`:   `read-only file system`,
			`{"write":"/tmp/x"}`:           `"error":"\\u003cnil\\u003e"`,
		} {
			if got := invoke(t, d, "zipped", event); !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("%s: %s: %s, want %s", when, event, got, want)
			}
		}
		if got := invoke(t, d, "old", "{}"); !strings.Contains(got, `"handler":"old.handler"`) {
			t.Errorf("%s: %s", when, got)
		}
	}
	works("at first")
	out, err := d.Client().Invoke(context.Background(), &lambda.InvokeInput{FunctionName: aws.String("zipped"), Payload: []byte(`{"log":"one\ntwo"}`), LogType: types.LogTypeTail})
	if err != nil {
		t.Fatal(err)
	}
	if log, _ := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult)); !strings.Contains(string(log), "one\ntwo") || strings.Contains(string(log), "no descriptor") {
		t.Errorf("a record of two lines: %s", log)
	}

	// Offline, without the layout and the cache.
	if err := create(t, d, "same", "oci:"+path, &types.ImageConfig{Command: []string{"same.handler"}}, nil); err != nil {
		t.Fatal(err)
	}
	d.Stop()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(d.Data, "code")); err != nil {
		t.Fatal(err)
	}
	d.Start()
	works("after a restart, without layout and cache")

	// An image stays as long as anything has it.
	if _, ok := command(t, d, "runtime", "remove", "nodejs16.x"); !ok {
		t.Error("it cannot be removed")
	}
	if got := invoke(t, d, "zipped", `{}`); !strings.Contains(got, "app.handler") {
		t.Errorf("after another runtime lost the image: %s", got)
	}
	if _, ok := command(t, d, "runtime", "remove", "nodejs22.x"); !ok {
		t.Error("it cannot be removed")
	}
	d.Stop()
	d.Start() // which looks for what nothing has
	if got := invoke(t, d, "same", `{}`); !strings.Contains(got, `"handler":"same.handler"`) {
		t.Errorf("a function of the image that runtimes lost: %s", got)
	}
	if _, err := d.Client().DeleteFunction(context.Background(), &lambda.DeleteFunctionInput{FunctionName: aws.String("same")}); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(d.Data, "images", "*", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	var listed struct {
		Runtimes []struct {
			ID    string
			Image *struct{ Digest string }
		}
	}
	js, _ := command(t, d, "runtime", "list", "--json")
	if err := json.Unmarshal([]byte(js), &listed); err != nil || len(listed.Runtimes) == 0 {
		t.Fatalf("%v in %s", err, js)
	}
	for _, r := range listed.Runtimes {
		if r.Image != nil {
			t.Errorf("%s still has an image", r.ID)
		}
	}

	processes := kiln.Start(t, "--driver", "process")
	if out, ok := command(t, processes, "runtime", "add", "nodejs22.x", "--image", plain); ok || !strings.Contains(out, "need the linux driver") {
		t.Errorf("the process driver: %s", out)
	}
}
