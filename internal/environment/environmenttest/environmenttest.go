// Package environmenttest makes real execution environments for tests: the
// process driver and functions that are bash scripts, so that nothing has to be
// installed. The tests of the environment and scheduler packages use it, and
// test/kiln its script.
package environmenttest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/provided"
	"kiln/internal/environment"
	"kiln/internal/lambda"
	"kiln/internal/sandbox/process"
	"kiln/internal/state/image"
)

// Bootstrap is a bootstrap for the provided runtimes, a bash script. answer is run
// for each event, which is in $event, its request id in $id, and sets $answer; or
// it streams its answer with begin, chunk TEXT … and finish [TRAILERS], and then
// continues. What it prints is the function's log. before runs once, at init.
func Bootstrap(before, answer string) string {
	return head + before + loop + answer + tail
}

const head = `#!/bin/bash
LC_ALL=C
host=${AWS_LAMBDA_RUNTIME_API%:*} port=${AWS_LAMBDA_RUNTIME_API#*:}
api=/2018-06-01/runtime
exec 9<>/dev/tcp/$host/$port
# headers reads those of an answer: its length, and the request id.
headers() {
	length=0
	while IFS= read -r line <&9 && line=${line%$'\r'} && [ -n "$line" ]; do
		case ${line,,} in
		lambda-runtime-aws-request-id:*) id=${line#*: } ;;
		content-length:*) length=${line#*: } ;;
		esac
	done
}
body() { event=; [ "$length" = 0 ] || IFS= read -r -N "$length" event <&9; }
post() {
	printf 'POST %s/%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s' "$api" "$1" "$host" "${#2}" "$2" >&9
	headers
	body
}
begin() {
	printf 'POST %s/invocation/%s/response HTTP/1.1\r\nHost: %s\r\nContent-Type: text/x\r\nTransfer-Encoding: chunked\r\n' "$api" "$id" "$host" >&9
	printf 'Lambda-Runtime-Function-Response-Mode: streaming\r\nTrailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n' >&9
}
chunk() { printf '%x\r\n%s\r\n' "${#1}" "$1" >&9; }
finish() {
	printf '0\r\n%s\r\n' "$1" >&9
	headers
	body
}
`

const loop = `
while printf 'GET %s/invocation/next HTTP/1.1\r\nHost: %s\r\n\r\n' "$api" "$host" >&9; do
	headers
	body
	answer=null
`

const tail = `
	post "invocation/$id/response" "$answer"
done
`

// Fixture is a factory of environments with what the tests need to see of it.
type Fixture struct {
	*environment.Factory
	Dir string // for the test's own use; functions reach it

	t testing.TB

	mu     sync.Mutex
	lines  []string          // guarded by mu; of every log, in order
	issued map[string]string // guarded by mu; environments that have credentials, by key
	broken error             // guarded by mu; what Dir fails with
	used   int               // guarded by mu; directories that are not released
}

// New returns a fixture whose driver is closed when the test ends, with a check
// that nothing of an environment is left.
func New(t testing.TB) *Fixture {
	t.Helper()
	if _, err := os.Stat("/bin/bash"); err != nil {
		t.Skip("functions of this test are bash scripts: ", err)
	}
	f := &Fixture{Dir: t.TempDir(), t: t, issued: map[string]string{}}
	driver, err := process.New(process.Config{Dir: filepath.Join(f.Dir, "sandboxes"), KeepUser: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	f.Factory = &environment.Factory{
		Driver:     driver,
		Runtimes:   bootstrap.New([]bootstrap.Family{provided.New()}, bootstrap.Config{Dir: filepath.Join(f.Dir, "clients")}),
		Packages:   packages{f},
		Identities: identities{f},
		Logs:       func(lambda.Scope, string, string) environment.Sink { return sink{f} },
		Endpoint:   drop,
		Endpoints:  map[string]string{"logs": "http://logs.example"},
		Room:       func(context.Context, int64) (func(), error) { return func() {}, nil },
		Log:        slog.New(slog.DiscardHandler),
	}
	t.Cleanup(func() {
		if err := driver.Close(); err != nil {
			t.Error(err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.issued) > 0 || f.used > 0 {
			t.Errorf("%d credentials and %d directories were not given back", len(f.issued), f.used)
		}
	})
	return f
}

// drop serves an endpoint that nobody is to call.
func drop(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_ = c.Close()
	}
}

// Function returns a function with that bootstrap; "" for none.
func (f *Fixture) Function(name, bootstrap string) *lambda.Function {
	f.t.Helper()
	dir := filepath.Join(f.Dir, "code-"+name+lambda.NewUUID())
	err := os.Mkdir(dir, 0o755)
	if err == nil && bootstrap != "" {
		err = writeProgram(filepath.Join(dir, "bootstrap"), bootstrap)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return &lambda.Function{
		ARN:     lambda.FunctionARN{Scope: lambda.Scope{Account: lambda.DefaultAccount, Region: lambda.DefaultRegion}, Name: lambda.FunctionName(name)},
		Version: lambda.Latest,
		Settings: lambda.Settings{
			Runtime: "provided.al2023", Handler: "x", Timeout: time.Minute, MemoryMB: 128, EphemeralMB: 512,
			Architecture: environment.MachineArchitecture(), Logging: lambda.Logging{Format: "Text", Group: lambda.DefaultLogGroup(lambda.FunctionName(name))},
		},
		Code:  lambda.Code{SHA256: dir},
		Build: lambda.NewUUID(),
	}
}

// writeProgram writes a file that can be executed at once: a process that is being
// started meanwhile would have a copy of the descriptor, and the file be busy.
func writeProgram(path, text string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(text), 0o755)
}

// Invocation returns an invocation of the function.
func Invocation(fn *lambda.Function, event string) *lambda.Invocation {
	return &lambda.Invocation{ID: lambda.NewRequestID(), ARN: fn.ARN, Payload: []byte(event)}
}

// Log returns what was logged so far, a line each.
func (f *Fixture) Log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.lines...)
}

// Break makes every attempt to get a function's code fail; nil ends that.
func (f *Fixture) Break(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
}

// Environments counts those that have credentials: made and not closed.
func (f *Fixture) Environments() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.issued)
}

type packages struct{ *Fixture }

func (p packages) Dir(_ context.Context, c lambda.Code) (string, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return "", nil, p.broken
	}
	p.used++
	return c.SHA256, sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.used--
	}), nil
}

// Root has none: the driver takes no images.
func (packages) Root(context.Context, lambda.Code) (string, image.Process, func(), error) {
	return "", image.Process{}, nil, errors.ErrUnsupported
}

// Layers takes the folder of the last layer for that of all.
func (p packages) Layers(ctx context.Context, layers []lambda.Layer) (string, func(), error) {
	if len(layers) == 0 {
		return "", func() {}, nil
	}
	return p.Dir(ctx, layers[len(layers)-1].Code)
}

type identities struct{ *Fixture }

func (i identities) Issue(_ *lambda.Function, id string) environment.Credentials {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.issued[id] = id
	return environment.Credentials{AccessKeyID: id, SecretAccessKey: "secret", SessionToken: "token"}
}

func (i identities) Revoke(c environment.Credentials) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.issued, c.AccessKeyID)
}

type sink struct{ *Fixture }

func (s sink) Append(_ time.Time, message []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, strings.TrimSuffix(string(message), "\n"))
}

// ErrBroken is for Break.
var ErrBroken = errors.New("the disk is broken")
