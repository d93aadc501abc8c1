// Command gohandler is a function that does what the event asks for. INIT, a
// variable, says what it does before it starts.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Do      string
	Seconds float64
	Code    int
	Signal  syscall.Signal
	MB      int
	Bytes   int
	Lines   []string
	Gate    string
}

var (
	count int
	kept  [][]byte
)

func main() {
	fmt.Println("module begins")
	switch os.Getenv("INIT") {
	case "exit":
		var code int
		_, _ = fmt.Sscan(os.Getenv("CODE"), &code)
		os.Exit(code)
	case "segfault":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		time.Sleep(time.Minute)
	}
	if os.Getenv("INIT") == "sigterm" {
		lambda.StartWithOptions(handle, lambda.WithEnableSIGTERM(func() { fmt.Println("terminated") }))
	}
	if kind := os.Getenv("KIND"); kind != "" {
		lambda.Start(kinds[kind])
	}
	lambda.Start(handle)
}

func handle(ctx context.Context, e event) (any, error) {
	count++
	switch e.Do {
	case "", "count":
		return count, nil
	case "fail":
		return nil, errors.New("boom ü")
	case "panic":
		panic("at the disco")
	case "sleep":
		time.Sleep(time.Duration(e.Seconds * float64(time.Second)))
		return "slept", nil
	case "exit":
		os.Exit(e.Code)
	case "kill":
		_ = syscall.Kill(os.Getpid(), e.Signal)
		time.Sleep(time.Minute)
	case "allocate":
		kept = append(kept, bytes.Repeat([]byte("x"), e.MB<<20))
		return len(kept), nil
	case "write":
		return nil, os.WriteFile("/tmp/note", []byte("kept"), 0o600)
	case "read":
		b, err := os.ReadFile("/tmp/note")
		return string(b), err
	case "print":
		for _, line := range e.Lines {
			fmt.Println(line)
		}
		fmt.Fprint(os.Stderr, "on stderr\nwithout an end")
		return nil, nil
	case "size":
		return strings.Repeat("x", e.Bytes), nil
	case "env":
		env := map[string]string{}
		for _, v := range os.Environ() {
			name, value, _ := strings.Cut(v, "=")
			env[name] = value
		}
		return env, nil
	case "context":
		c, _ := lambdacontext.FromContext(ctx)
		deadline, _ := ctx.Deadline()
		var custom map[string]string
		if len(c.ClientContext.Custom) > 0 {
			custom = c.ClientContext.Custom
		}
		return map[string]any{
			"id": c.AwsRequestID, "name": lambdacontext.FunctionName, "version": lambdacontext.FunctionVersion, "arn": c.InvokedFunctionArn,
			"memory": fmt.Sprint(lambdacontext.MemoryLimitInMB), "group": lambdacontext.LogGroupName, "stream": lambdacontext.LogStreamName,
			"left": time.Until(deadline).Milliseconds(), "custom": custom, "trace": os.Getenv("_X_AMZN_TRACE_ID"),
		}, nil
	case "pieces":
		return pieces(e.Gate), nil
	case "look":
		return look()
	}
	return nil, errors.New("unknown: " + e.Do)
}

// pieces is read piece by piece; after each it waits until the caller has it, and in
// the end it fails.
func pieces(gate string) io.Reader {
	r, w := io.Pipe()
	go func() { // ended by its reader
		for _, piece := range []string{"one", "two"} {
			_, _ = io.WriteString(w, piece)
			if answer, err := http.Get(gate + "/" + piece); err == nil {
				_ = answer.Body.Close()
			}
		}
		w.CloseWithError(errors.New("boom ü"))
	}()
	return r
}

func look() (any, error) {
	writable := func(path string) bool { return os.WriteFile(path, nil, 0o600) == nil }
	cwd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, err
	}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	files := []string{}
	for _, fd := range list {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			files = append(files, to)
		}
	}
	return map[string]any{
		"cwd": cwd, "uid": os.Getuid(), "read": string(in), "files": files,
		"task": writable(os.Getenv("LAMBDA_TASK_ROOT") + "/new"), "tmp": writable("/tmp/new"), "etc": writable("/etc/new"),
	}, nil
}
