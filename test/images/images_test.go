package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"kiln/test/kiln"
)

// probe builds the runtime client once: static, so that an image needs nothing else.
var probe = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "kiln-images-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "probe"), "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	return os.ReadFile(filepath.Join(dir, "probe"))
})

// file is one of an image; mode 0 is 0644, links have a target, hard ones too.
type file struct {
	name, target, hard string
	body               []byte
	mode               int64
}

func layerOf(t testing.TB, files ...file) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Size: int64(len(f.body)), Mode: f.mode}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if f.target != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.target
		}
		if f.hard != "" {
			h.Typeflag, h.Linkname = tar.TypeLink, f.hard
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// image has the probe at /app/probe, and what else is given.
func image(t testing.TB, config v1.Config, files ...file) v1.Image {
	t.Helper()
	program, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	i, err := mutate.AppendLayers(empty.Image, layerOf(t, file{name: "app/probe", body: program, mode: 0o500}), layerOf(t, files...))
	if err == nil {
		i, err = mutate.ConfigFile(i, func() *v1.ConfigFile {
			c, cerr := i.ConfigFile()
			if cerr != nil {
				t.Fatal(cerr)
			}
			c = c.DeepCopy()
			c.OS, c.Architecture, c.Config = "linux", runtime.GOARCH, config
			return c
		}())
	}
	if err != nil {
		t.Fatal(err)
	}
	return i
}

var standard = v1.Config{Entrypoint: []string{"/app/probe"}, Cmd: []string{"image.handler"}, WorkingDir: "/srv", Env: []string{"FROM=image", "ONLY=image", "PATH=/app", "AWS_REGION=mars"}}

// registered is a registry that can be out of order.
type registered struct {
	host string
	down atomic.Bool // nothing is there
	// layer, if set, is asked before a blob is sent, and tells whether it is there.
	layer atomic.Pointer[func(digest string) bool]
}

func serve(t testing.TB) *registered {
	t.Helper()
	r := &registered{}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, digest, blob := strings.Cut(q.URL.Path, "/blobs/sha256:")
		there := !r.down.Load()
		if ask := r.layer.Load(); ask != nil && blob && q.Method == http.MethodGet {
			there = there && (*ask)(digest)
		}
		if !there {
			http.NotFound(w, q)
			return
		}
		handler.ServeHTTP(w, q)
	}))
	t.Cleanup(s.Close)
	r.host = strings.TrimPrefix(s.URL, "http://")
	return r
}

func (r *registered) push(t testing.TB, ref string, i v1.Image) (uri string) {
	t.Helper()
	tag, err := name.NewTag(r.host + "/" + ref)
	if err == nil {
		err = remote.Write(tag, i)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tag.String()
}

func digest(t testing.TB, i v1.Image) v1.Hash {
	t.Helper()
	d, err := i.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// start starts a daemon with the linux driver, or skips the test.
func start(t *testing.T, args ...string) *kiln.Daemon {
	t.Helper()
	d := kiln.Start(t, args...)
	if !strings.Contains(d.Log.String(), "(driver linux,") {
		t.Skip("images need the linux driver, which this machine does not have")
	}
	return d
}

// create makes a function from an image and waits until it is settled.
func create(t *testing.T, d *kiln.Daemon, function, uri string, config *types.ImageConfig, env map[string]string) error {
	t.Helper()
	in := &lambda.CreateFunctionInput{
		FunctionName: &function, Role: aws.String(kiln.Role), PackageType: types.PackageTypeImage,
		Code: &types.FunctionCode{ImageUri: &uri}, ImageConfig: config,
	}
	if env != nil {
		in.Environment = &types.Environment{Variables: env}
	}
	out, err := d.Client().CreateFunction(context.Background(), in)
	if err != nil {
		return err
	}
	if out.State != types.StatePending {
		t.Errorf("created %s", out.State)
	}
	f := settled(t, d, function)
	if f.State != types.StateActive {
		return errors.New(string(f.StateReasonCode) + ": " + aws.ToString(f.StateReason))
	}
	return nil
}

// settled waits until no change of a function is under way.
func settled(t testing.TB, d *kiln.Daemon, function string) *lambda.GetFunctionConfigurationOutput {
	t.Helper()
	var f *lambda.GetFunctionConfigurationOutput
	kiln.Await(t, function+" to settle", func() bool {
		var err error
		if f, err = d.Client().GetFunctionConfiguration(context.Background(), &lambda.GetFunctionConfigurationInput{FunctionName: &function}); err != nil {
			t.Fatal(err)
		}
		return f.State != types.StatePending && f.LastUpdateStatus != types.LastUpdateStatusInProgress
	})
	return f
}

func update(t testing.TB, d *kiln.Daemon, function, uri string) *lambda.GetFunctionConfigurationOutput {
	t.Helper()
	if _, err := d.Client().UpdateFunctionCode(context.Background(), &lambda.UpdateFunctionCodeInput{FunctionName: &function, ImageUri: &uri}); err != nil {
		t.Fatal(err)
	}
	return settled(t, d, function)
}

func invoke(t testing.TB, d *kiln.Daemon, function, event string) string {
	t.Helper()
	out, err := d.Client().Invoke(context.Background(), &lambda.InvokeInput{FunctionName: &function, Payload: []byte(event), LogType: types.LogTypeTail})
	if err != nil {
		t.Fatalf("invoke %s: %v", function, err)
	}
	return string(out.Payload)
}

// TestDeploy goes through boto3, from the registry to the answer.
func TestDeploy(t *testing.T) {
	t.Parallel()
	d, r := start(t), serve(t)
	i := image(t, standard, file{name: "srv/x"})
	uri := r.push(t, "team/app:v1", i)
	python := filepath.Join(kiln.Root(), ".cache", "venv", "bin", "python3")
	if exec.Command(python, "-c", "import boto3").Run() != nil {
		t.Skip("boto3 is not installed here; scripts/test.sh installs it")
	}
	cmd := exec.Command(python, "testdata/deploy.py", "app", uri, kiln.Role)
	cmd.Env, cmd.Stderr = d.Environ(), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"answer", "again"} {
		if uid := got[a].(map[string]any)["uid"]; os.Geteuid() == 0 && uid == 0.0 {
			t.Error("the image runs as root")
		}
		delete(got[a].(map[string]any), "uid")
	}
	want := map[string]any{
		"created": "Pending", "package": "Image", "absent": []any{}, "size": 0.0, "sha256": digest(t, i).Hex,
		"settings": map[string]any{"Command": []any{"app.handler", "second"}},
		"code":     map[string]any{"RepositoryType": "ECR", "ImageUri": uri, "ResolvedImageUri": r.host + "/team/app@" + digest(t, i).String()},
		"answer":   map[string]any{"args": []any{"/app/probe", "app.handler", "second"}, "dir": "/srv", "handler": "app.handler"},
		"without":  false,
		"again":    map[string]any{"args": []any{"/app/probe", "image.handler"}, "dir": "/srv", "handler": "image.handler"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestInside looks at what a function in an image sees.
func TestInside(t *testing.T) {
	t.Parallel()
	d, r := start(t), serve(t)
	uri := r.push(t, "app:v1", image(t, standard,
		file{name: "srv/secret", body: []byte("s"), mode: 0o600}, file{name: "etc/passwd", body: []byte("appuser:x:7:7::/:/bin/sh\n")},
		file{name: "out", target: "/../../../../../etc/hostname"}, file{name: "var/task/app.txt", body: []byte("task")},
		file{name: "opt/extensions/probe", hard: "app/probe"}))
	if err := create(t, d, "inside", uri, nil, map[string]string{"FROM": "function"}); err != nil {
		t.Fatal(err)
	}
	for event, want := range map[string]string{
		`{"env":"FROM"}`:                     `^"function"$`,
		`{"env":"ONLY"}`:                     `^"image"$`,
		`{"env":"PATH"}`:                     `^"/app"$`,
		`{"env":"AWS_REGION"}`:               `^"us-east-1"$`,
		`{"env":"LAMBDA_TASK_ROOT"}`:         `^"/var/task"$`,
		`{"env":"TZ"}`:                       `^":UTC"$`,
		`{"env":"AWS_ENDPOINT_URL"}`:         `^"http://127.0.0.1:4566"$`,
		`{"env":"_LAMBDA_TELEMETRY_LOG_FD"}`: `^""$`,
		`{"read":"/srv/secret"}`:             `"text":"s"`,
		`{"read":"/var/task/app.txt"}`:       `"text":"task"`,
		`{"read":"/out"}`:                    `"text":"sandbox\\n"`,
		`{"read":"/etc/passwd"}`:             `sbx_user1051.*appuser`,
		`{"read":"/etc/hosts"}`:              `sandbox.localdomain`,
		`{"read":"/tmp/extension"}`:          `"text":"registered"`,
		`{"read":"/usr/bin/env"}`:            `no such file`,
		`{"write":"/srv/new"}`:               `read-only file system`,
		`{"write":"/tmp/new"}`:               `"error":"\\u003cnil\\u003e"`,
	} {
		if got := invoke(t, d, "inside", event); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: %s, want %s", event, got, want)
		}
	}
	// Its own credentials do not make the daemon call a registry.
	variable := func(name string) string { return strings.Trim(invoke(t, d, "inside", `{"env":"`+name+`"}`), `"`) }
	own := lambda.New(lambda.Options{
		Region: "us-east-1", BaseEndpoint: &d.URL, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"), variable("AWS_SESSION_TOKEN")),
	})
	_, err := own.UpdateFunctionCode(context.Background(), &lambda.UpdateFunctionCodeInput{FunctionName: aws.String("inside"), ImageUri: &uri})
	_, err2 := own.CreateFunction(context.Background(), &lambda.CreateFunctionInput{
		FunctionName: aws.String("more"), Role: aws.String(kiln.Role), PackageType: types.PackageTypeImage, Code: &types.FunctionCode{ImageUri: &uri},
	})
	for _, err := range []error{err, err2} {
		if err == nil || !strings.Contains(err.Error(), "AccessDeniedException") {
			t.Errorf("a function deploys an image: %v", err)
		}
	}
	if left := d.Living().Mounts; len(left) > 0 {
		t.Errorf("mounts that the host sees: %q", left)
	}
}

// TestLaunchErrors are images that cannot start, with AWS's documents.
func TestLaunchErrors(t *testing.T) {
	t.Parallel()
	d, r := start(t), serve(t)
	plain := r.push(t, "plain:v1", image(t, standard, file{name: "srv/x"}, file{name: "text", body: []byte("no program"), mode: 0o755}))
	bare := r.push(t, "bare:v1", image(t, v1.Config{}))
	for function, c := range map[string]struct {
		uri, want string
		config    *types.ImageConfig
	}{
		"missing":  {plain, `"Runtime.InvalidEntrypoint","errorMessage":"RequestId: ID Error: fork/exec /no/such: no such file or directory"`, &types.ImageConfig{EntryPoint: []string{"/no/such"}}},
		"format":   {plain, `"Runtime.InvalidEntrypoint","errorMessage":"RequestId: ID Error: fork/exec /text: exec format error"`, &types.ImageConfig{EntryPoint: []string{"/text"}}},
		"nopath":   {plain, `"Runtime.InvalidEntrypoint","errorMessage":"RequestId: ID Error: exec: \"npx\": executable file not found in $PATH"`, &types.ImageConfig{EntryPoint: []string{"npx"}}},
		"bare":     {bare, `"Runtime.InvalidEntrypoint","errorMessage":"RequestId: ID Error: the image has no entry point and no command`, nil},
		"dir":      {plain, `"Runtime.InvalidWorkingDir","errorMessage":"RequestId: ID Error: the working directory doesn't exist: /no"`, &types.ImageConfig{WorkingDirectory: aws.String("/no")}},
		"relative": {plain, `"Runtime.InvalidWorkingDir","errorMessage":"RequestId: ID Error: the working directory 'srv' is invalid, it needs to be an absolute path"`, &types.ImageConfig{WorkingDirectory: aws.String("srv")}},
		"found":    {plain, `"dir":"/srv"`, &types.ImageConfig{EntryPoint: []string{"probe"}}},
		"default":  {bare, `"dir":"/"`, &types.ImageConfig{EntryPoint: []string{"/app/probe"}}},
	} {
		if err := create(t, d, function, c.uri, c.config, nil); err != nil {
			t.Error(err)
			continue
		}
		got := regexp.MustCompile(`RequestId: [0-9a-f-]{36}`).ReplaceAllString(invoke(t, d, function, "{}"), "RequestId: ID")
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", function, got, c.want)
		}
	}
}

// TestUpdates moves a tag, breaks pulls, takes the registry away, restarts and
// empties the cache.
func TestUpdates(t *testing.T) {
	t.Parallel()
	d, r := start(t), serve(t)
	numbered := func(n string) v1.Image { return image(t, standard, file{name: "srv/n", body: []byte(n)}) }
	one := numbered("1")
	uri := r.push(t, "app:latest", one)
	if err := create(t, d, "app", uri, nil, nil); err != nil {
		t.Fatal(err)
	}
	serves := func(n, when string) {
		t.Helper()
		if got := invoke(t, d, "app", `{"read":"/srv/n"}`); !strings.Contains(got, `"text":"`+n+`"`) {
			t.Errorf("%s: %s", when, got)
		}
	}
	serves("1", "at first")
	r.push(t, "app:latest", numbered("2"))
	serves("1", "after the tag moved")
	d.Stop()
	if err := os.RemoveAll(filepath.Join(d.Data, "code")); err != nil {
		t.Fatal(err)
	}
	r.down.Store(true)
	d.Start()
	serves("1", "after a restart, without registry and cache")
	_, err := d.Client().UpdateFunctionCode(context.Background(), &lambda.UpdateFunctionCodeInput{FunctionName: aws.String("app"), ImageUri: &uri})
	if err == nil || !strings.Contains(err.Error(), "does not exist. Provide a valid source image.") {
		t.Errorf("without the registry: %v", err)
	}
	r.down.Store(false)

	// Layers are asked for after the answer; the configuration before it.
	top := func(i v1.Image) string {
		layers, err := i.Layers()
		if err != nil {
			t.Fatal(err)
		}
		d, err := layers[len(layers)-1].Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.Hex
	}
	three := numbered("3")
	next := r.push(t, "app:three", three)
	gate := make(chan struct{})
	r.layer.Store(new(func(digest string) bool {
		if digest == top(three) {
			<-gate
			return false
		}
		return true
	}))
	if _, err := d.Client().UpdateFunctionCode(context.Background(), &lambda.UpdateFunctionCodeInput{FunctionName: aws.String("app"), ImageUri: &next}); err != nil {
		t.Fatal(err)
	}
	serves("1", "while the next is pulled")
	close(gate)
	f := settled(t, d, "app")
	if f.State != types.StateActive || f.LastUpdateStatus != types.LastUpdateStatusFailed || f.LastUpdateStatusReasonCode != types.LastUpdateStatusReasonCodeImageDeleted || aws.ToString(f.CodeSha256) != digest(t, one).Hex {
		t.Errorf("a layer that is gone: %s %s %s %s", f.State, f.LastUpdateStatus, f.LastUpdateStatusReasonCode, aws.ToString(f.CodeSha256))
	}
	serves("1", "after a failed update")
	if err := create(t, d, "other", next, nil, nil); err == nil || !strings.HasPrefix(err.Error(), "ImageDeleted: Source image ") {
		t.Errorf("created from an image whose layer is gone: %v", err)
	}
	if _, err := d.Client().Invoke(context.Background(), &lambda.InvokeInput{FunctionName: aws.String("other")}); err == nil || !strings.Contains(err.Error(), "following state: Failed") {
		t.Errorf("invoking it: %v", err)
	}
	r.layer.Store(nil)
	for _, function := range []string{"app", "other"} {
		if f := update(t, d, function, next); f.State != types.StateActive || f.LastUpdateStatus != types.LastUpdateStatusSuccessful || f.StateReason != nil {
			t.Errorf("%s updated: %s %s %s", function, f.State, f.LastUpdateStatus, aws.ToString(f.LastUpdateStatusReason))
		}
	}
	serves("3", "updated")

	// Killed while it pulls: the next start goes on.
	four := r.push(t, "app:four", numbered("4"))
	blocked := make(chan struct{})
	r.layer.Store(new(func(digest string) bool {
		if digest == top(numbered("4")) {
			<-blocked
		}
		return true
	}))
	if _, err := d.Client().UpdateFunctionCode(context.Background(), &lambda.UpdateFunctionCodeInput{FunctionName: aws.String("app"), ImageUri: &four}); err != nil {
		t.Fatal(err)
	}
	d.Kill()
	r.layer.Store(nil)
	close(blocked)
	d.Start()
	if f := settled(t, d, "app"); f.LastUpdateStatus != types.LastUpdateStatusSuccessful {
		t.Errorf("after a kill: %s %s", f.LastUpdateStatus, aws.ToString(f.LastUpdateStatusReason))
	}
	serves("4", "after a kill")

	for _, function := range []string{"app", "other"} {
		if _, err := d.Client().DeleteFunction(context.Background(), &lambda.DeleteFunctionInput{FunctionName: &function}); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(d.Data, "images", "*", "*")); len(left) > 0 {
		t.Errorf("left in the data directory: %q", left)
	}
}

// TestRefusals are what cannot be deployed, in AWS's words where AWS has any.
func TestRefusals(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	allowed := filepath.Join(folder, "allowed")
	d, r := start(t, "--image-folders", allowed), serve(t)
	good := image(t, standard, file{name: "srv/x"})
	p, err := layout.Write(allowed, empty.Index)
	if err == nil {
		err = p.AppendImage(good)
	}
	if err != nil {
		t.Fatal(err)
	}
	uri := r.push(t, "app:v1", good)
	hostile := r.push(t, "hostile:v1", image(t, standard, file{name: "../../out"}))
	for name, c := range map[string]struct {
		says   string
		change func(*lambda.CreateFunctionInput)
	}{
		"none":    {"Please provide ImageUri", func(in *lambda.CreateFunctionInput) { in.Code.ImageUri = nil }},
		"zip too": {"Please provide ImageUri, and no other source", func(in *lambda.CreateFunctionInput) { in.Code.ZipFile = []byte("x") }},
		"handler": {"Please don't provide Handler or Runtime or Layer when the intended function PackageType is Image.", func(in *lambda.CreateFunctionInput) { in.Handler = aws.String("x") }},
		"layers": {"", func(in *lambda.CreateFunctionInput) {
			in.Layers = []string{"arn:aws:lambda:us-east-1:000000000000:layer:x:1"}
		}},
		"package type": {"Please don't provide ImageUri when the intended function PackageType is Zip.", func(in *lambda.CreateFunctionInput) { in.PackageType = "" }},
		"missing":      {"Source image " + r.host + "/app:v2 does not exist. Provide a valid source image.", func(in *lambda.CreateFunctionInput) { in.Code.ImageUri = aws.String(r.host + "/app:v2") }},
		"unqualified":  {"must begin with the registry's host", func(in *lambda.CreateFunctionInput) { in.Code.ImageUri = aws.String("app:v1") }},
		"a file":       {"lies in none of the folders", func(in *lambda.CreateFunctionInput) { in.Code.ImageUri = aws.String("docker-archive:/etc/passwd") }},
		"architecture": {"cannot run a function for", func(in *lambda.CreateFunctionInput) {
			in.Architectures = []types.Architecture{map[string]types.Architecture{"amd64": "arm64", "arm64": "x86_64"}[runtime.GOARCH]}
		}},
	} {
		in := &lambda.CreateFunctionInput{
			FunctionName: aws.String("refused"), Role: aws.String(kiln.Role), PackageType: types.PackageTypeImage, Code: &types.FunctionCode{ImageUri: &uri},
		}
		c.change(in)
		if _, err := d.Client().CreateFunction(context.Background(), in); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	if err := create(t, d, "hostile", hostile, nil, nil); err == nil || !strings.Contains(err.Error(), "InvalidImage: ") || !strings.Contains(err.Error(), "leads upwards") {
		t.Errorf("a hostile layer: %v", err)
	}
	if err := create(t, d, "local", "oci:"+allowed, nil, nil); err != nil {
		t.Errorf("an OCI layout: %v", err)
	}
	if got := invoke(t, d, "local", "{}"); !strings.Contains(got, "image.handler") {
		t.Errorf("an OCI layout: %s", got)
	}
	d.Create("zipped", "provided.al2023", "x", kiln.Bash("answer={}"), nil)
	_, err = d.Client().UpdateFunctionCode(context.Background(), &lambda.UpdateFunctionCodeInput{FunctionName: aws.String("zipped"), ImageUri: &uri})
	_, err2 := d.Client().UpdateFunctionCode(context.Background(), &lambda.UpdateFunctionCodeInput{FunctionName: aws.String("local"), ZipFile: kiln.Bash("")})
	if err == nil || err2 == nil || !strings.Contains(err.Error(), "Please don't provide ImageUri when updating a function with packageType Zip.") ||
		!strings.Contains(err2.Error(), "Please provide ImageUri when updating a function with packageType Image.") {
		t.Errorf("code of the other kind: %v; %v", err, err2)
	}

	processes := kiln.Start(t, "--driver", "process")
	err = create(t, processes, "refused", uri, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "need the linux driver") {
		t.Errorf("the process driver: %v", err)
	}
}
