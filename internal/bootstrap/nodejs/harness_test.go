package nodejs_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/nodejs"
	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
)

// patience is how long anything in a test may take before it counts as stuck.
const patience = 20 * time.Second

// interpreter is a Node.js that the tests run against, as its own identifier.
type interpreter struct {
	major int
	id    lambda.RuntimeID
	bootstrap.Installation
}

var majors = []int{20, 22, 24}

// interpreters finds one Node.js of each major version: those listed in
// KILN_TEST_NODES, .cache/node/<major>/bin/node under the repository's root, or
// the one on PATH.
var interpreters = sync.OnceValue(func() map[int]interpreter {
	found := map[int]interpreter{}
	candidates := filepath.SplitList(os.Getenv("KILN_TEST_NODES"))
	for _, major := range majors {
		candidates = append(candidates, fmt.Sprintf("../../../.cache/node/%d/bin/node", major))
	}
	candidates = append(candidates, "node", "nodejs")
	for _, c := range candidates {
		path, err := exec.LookPath(c)
		if err != nil {
			continue
		}
		path, _ = filepath.Abs(path)
		if path, err = filepath.EvalSymlinks(path); err != nil {
			continue
		}
		in, err := nodejs.New().Probe(context.Background(), path)
		if err != nil {
			continue
		}
		var major int
		fmt.Sscan(strings.SplitN(in.Version, ".", 2)[0], &major)
		if _, ok := found[major]; !ok {
			found[major] = interpreter{major, lambda.RuntimeID(fmt.Sprintf("nodejs%d.x", major)), in}
		}
	}
	return found
})

// each runs a test against every major version that the client supports.
func each(t *testing.T, test func(t *testing.T, node interpreter)) {
	t.Helper()
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			test(t, find(t, major))
		})
	}
}

func find(t testing.TB, major int) interpreter {
	t.Helper()
	node, ok := interpreters()[major]
	if !ok {
		t.Skipf("no Node.js %d: set KILN_TEST_NODES, or install one at .cache/node/%d/bin/node", major, major)
	}
	return node
}

// clientDir holds the client's files, placed as the catalog places them.
var clientDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kiln-nodejs-client-")
	if err != nil {
		return "", err
	}
	return dir, os.CopyFS(dir, nodejs.New().Client())
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := clientDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// files are a function's code, by path.
type files map[string]string

// function is what a process of the client is started with.
type function struct {
	node     interpreter
	id       lambda.RuntimeID // node's own if empty
	code     files
	handler  string // index.handler if empty
	vars     map[string]string
	layer    files    // in /opt
	stdout   *os.File // for an unframed one, instead of a buffer
	unframed bool     // logs go to standard output
	api      string   // another server than the harness's own
}

// process is a running client with its Runtime API.
type process struct {
	t      testing.TB
	api    *runtimeapi.Server
	cmd    *exec.Cmd
	task   string
	stdout bytes.Buffer // read after wait
	stderr bytes.Buffer
	exited chan struct{}
	copied sync.WaitGroup
	last   <-chan struct{} // closed when the last exchange is idle

	mu     sync.Mutex
	frames []frame // guarded by mu
	grown  *sync.Cond
}

// frame is one record on the telemetry descriptor.
type frame struct {
	kind uint32
	at   time.Time
	text string
}

func write(t testing.TB, dir string, code files) {
	t.Helper()
	for name, content := range code {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func start(t testing.TB, f function) *process {
	t.Helper()
	client, err := clientDir()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	layout := bootstrap.Layout{
		Task: filepath.Join(root, "task"), Opt: filepath.Join(root, "opt"), Tmp: filepath.Join(root, "tmp"),
		Runtime: client, Lang: f.node.Prefix,
	}
	for _, dir := range []string{layout.Task, layout.Opt, layout.Tmp} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, layout.Task, f.code)
	write(t, layout.Opt, f.layer)

	p := &process{t: t, api: runtimeapi.New(runtimeapi.Config{Room: plenty, Log: slog.New(slog.DiscardHandler)}), task: layout.Task, exited: make(chan struct{})}
	p.grown = sync.NewCond(&p.mu)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.api.Serve(l) }()

	id := f.id
	if id == "" {
		id = f.node.id
	}
	vars := map[string]string{
		"AWS_LAMBDA_RUNTIME_API":          l.Addr().String(),
		"AWS_LAMBDA_FUNCTION_NAME":        "fn",
		"AWS_LAMBDA_FUNCTION_VERSION":     "$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
		"AWS_LAMBDA_LOG_GROUP_NAME":       "/aws/lambda/fn",
		"AWS_LAMBDA_LOG_STREAM_NAME":      "stream",
		"_HANDLER":                        f.handler,
	}
	if f.handler == "" {
		vars["_HANDLER"] = "index.handler"
	}
	if f.api != "" {
		vars["AWS_LAMBDA_RUNTIME_API"] = f.api
	}
	launch := nodejs.New().Launch(id, f.node.Installation, layout)
	for name, value := range launch.Defaults {
		vars[name] = value
	}
	for name, value := range f.vars {
		vars[name] = value
	}
	for name, value := range launch.Reserved {
		vars[name] = value
	}
	launch = nodejs.New().Adjust(launch, vars)
	p.cmd = exec.Command(launch.Path, launch.Args[1:]...)
	p.cmd.Dir = launch.Dir
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if f.stdout != nil {
		p.cmd.Stdout = f.stdout
	}
	if !f.unframed {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p.cmd.ExtraFiles = []*os.File{w}
		vars["_LAMBDA_TELEMETRY_LOG_FD"] = "3"
		defer w.Close()
		p.copied.Go(func() { p.readFrames(r) })
	}
	for name, value := range vars {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // its state says how it ended
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // may be gone already
		<-p.exited
		p.copied.Wait()
		_ = p.api.Close()
		<-served
		if t.Failed() {
			t.Logf("stdout: %s\nstderr: %s\nframes: %q", p.stdout.String(), p.stderr.String(), p.logs())
		}
	})
	return p
}

// plenty is room for any answer.
func plenty(context.Context, int64) (func(), error) { return func() {}, nil }

func (p *process) readFrames(r io.ReadCloser) {
	defer r.Close()
	for {
		var head [16]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		text := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(r, text); err != nil {
			return
		}
		p.mu.Lock()
		p.frames = append(p.frames, frame{
			kind: binary.BigEndian.Uint32(head[:]),
			at:   time.UnixMicro(int64(binary.BigEndian.Uint64(head[8:]))),
			text: string(text),
		})
		p.grown.Broadcast()
		p.mu.Unlock()
	}
}

func (p *process) logged() []frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]frame(nil), p.frames...)
}

// logs are the frames' texts without their timestamps.
func (p *process) logs() (list []string) {
	for _, f := range p.logged() {
		text := f.text
		if len(text) > 25 && text[24] == '\t' {
			text = text[25:]
		}
		list = append(list, strings.TrimSuffix(text, "\n"))
	}
	return list
}

// awaitLog waits for a frame that contains a text, which may arrive after the answer.
func (p *process) awaitLog(text string) string {
	p.t.Helper()
	stop := time.AfterFunc(patience, p.grown.Broadcast)
	defer stop.Stop()
	deadline := time.Now().Add(patience)
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for _, f := range p.frames {
			if strings.Contains(f.text, text) {
				return f.text
			}
		}
		if time.Now().After(deadline) {
			p.t.Errorf("no log line contains %q", text)
			return ""
		}
		p.grown.Wait()
	}
}

const requestID = "8f5b1e10-0b6a-4c43-9d5c-3f1f6a6c7d11"

func invocation(event string) *lambda.Invocation {
	return &lambda.Invocation{
		ID:          requestID,
		ARN:         lambda.FunctionARN{Scope: lambda.Scope{Account: lambda.DefaultAccount, Region: lambda.DefaultRegion}, Name: "fn"},
		Payload:     []byte(event),
		TraceHeader: "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
		Deadline:    time.Now().Add(3 * time.Second),
	}
}

// invoke sends one event and returns the answer, without waiting for the next request.
func (p *process) invoke(event string) runtimeapi.Answer {
	p.t.Helper()
	answer, _ := p.exchange(invocation(event))
	return answer
}

func (p *process) exchange(inv *lambda.Invocation) (runtimeapi.Answer, runtimeapi.Exchange) {
	p.t.Helper()
	p.awaitIdle()
	x := p.api.Offer(inv)
	p.last = x.Idle()
	select {
	case a := <-x.Answer():
		return a, x
	case <-time.After(patience):
		p.t.Fatal("no answer")
	case <-p.exited:
		select {
		case a := <-x.Answer():
			return a, x
		default:
			p.t.Fatalf("the client ended without an answer: %s", p.cmd.ProcessState)
		}
	}
	panic("not reached")
}

// awaitIdle waits until the client has asked for another event.
func (p *process) awaitIdle() {
	p.t.Helper()
	if p.last == nil {
		return
	}
	select {
	case <-p.last:
	case <-time.After(patience):
		p.t.Fatal("the client does not ask for its next event")
	case <-p.exited:
		p.t.Fatalf("the client ended: %s", p.cmd.ProcessState)
	}
}

// initError waits for the error that the client reports of its init.
func (p *process) initError() document {
	p.t.Helper()
	select {
	case report := <-p.api.InitFailed():
		return decode(p.t, report.Payload)
	case <-p.api.Ready():
		p.t.Fatal("the init succeeded")
	case <-time.After(patience):
		p.t.Fatal("no end of the init")
	}
	panic("not reached")
}

// exit waits for the end of the process.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatal("the client does not end")
	}
	panic("not reached")
}

// document is an error as the caller sees it.
type document struct {
	Type    string   `json:"errorType"`
	Message string   `json:"errorMessage"`
	Trace   []string `json:"trace"`
}

func decode(t testing.TB, payload []byte) (d document) {
	t.Helper()
	if err := json.Unmarshal(payload, &d); err != nil {
		t.Fatalf("%v in %s", err, payload)
	}
	return d
}

func (p *process) wantAnswer(event, want string) {
	p.t.Helper()
	if a := p.invoke(event); a.ErrorType != "" || string(a.Payload) != want {
		p.t.Errorf("%s was answered %q %.300s, want %.300s", event, a.ErrorType, a.Payload, want)
	}
}

func (p *process) wantError(event, errorType, message string) document {
	p.t.Helper()
	a := p.invoke(event)
	if a.ErrorType == "" {
		p.t.Errorf("%s was answered %.300s, want an error", event, a.Payload)
		return document{}
	}
	d := decode(p.t, a.Payload)
	if d.Type != errorType || d.Message != message {
		p.t.Errorf("%s failed with %q %q, want %q %q", event, d.Type, d.Message, errorType, message)
	}
	return d
}

func (p *process) wantExit(code int) {
	p.t.Helper()
	if got := p.exit(); got != code {
		p.t.Errorf("exit status %d, want %d", got, code)
	}
}
