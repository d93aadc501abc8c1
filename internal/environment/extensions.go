package environment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
	"kiln/internal/sandbox"
	"kiln/internal/telemetry/delivery"
	"kiln/internal/telemetry/metrics"
)

// extensionsDir is where /opt has the external extensions.
const extensionsDir = "extensions"

// extension is an external extension that runs.
type extension struct {
	sandbox.Process
	name  string
	pipes *pipes
}

// externalExtensions lists the programs that a folder of the host, which is /opt
// inside, has as extensions: every file. What it links to outside is not followed.
func externalExtensions(opt string) (names []string, err error) {
	if opt == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(opt)
	if err == nil {
		defer root.Close()
		var files []fs.DirEntry
		files, err = fs.ReadDir(root.FS(), extensionsDir)
		for _, f := range files {
			if !f.IsDir() {
				names = append(names, f.Name())
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for extensions: %w", err)
	}
	return names[:min(len(names), runtimeapi.MaxExtensions+1)], nil // one too many is enough to refuse
}

// launchExtensions starts the external extensions, and waits for none.
func (e *Environment) launchExtensions(ctx context.Context, id lambda.RequestID, names []string, env []string) (*failure, error) {
	p := e.process
	p.crashed = make(chan *extension, len(names)) // never full
	for i, name := range names {
		path := e.box.Paths().Opt + "/" + extensionsDir + "/" + name
		if i == runtimeapi.MaxExtensions {
			p.api.ExtensionEnded(name, runtimeapi.ExtensionLaunchError, "TooManyExtensions")
			return extensionFailure(id, "Extension.LaunchError", "Extension limit ("+strconv.Itoa(runtimeapi.MaxExtensions)+") reached"), nil
		}
		pipes, err := newPipes(source{e.out, delivery.Extension})
		if err != nil {
			return nil, fmt.Errorf("open the output of an extension of %s: %w", e.function.ARN, err)
		}
		x := &extension{name: name, pipes: pipes}
		x.Process, err = e.box.Exec(ctx, sandbox.Command{
			Path: path, Args: []string{path}, Dir: "/", Env: env, Stdout: pipes.writers[0], Stderr: pipes.writers[1],
		})
		pipes.closeWriters()
		if err != nil {
			pipes.close()
			reason, errorType := err.Error(), "UnknownError"
			if number, ok := errors.AsType[syscall.Errno](err); ok {
				reason = "fork/exec " + path + ": " + number.Error()
			}
			if errors.Is(err, fs.ErrPermission) {
				errorType = "PermissionDenied"
			}
			p.api.ExtensionEnded(name, runtimeapi.ExtensionLaunchError, errorType)
			return extensionFailure(id, "Extension.LaunchError", reason), nil
		}
		p.extensions = append(p.extensions, x)
		p.watch.Go(func() {
			<-x.Done()
			p.crashed <- x
		})
	}
	return nil, nil
}

// extensionCrashed describes an extension that ended when it should not have.
func (e *Environment) extensionCrashed(id lambda.RequestID, x *extension) *failure {
	select {
	case r := <-e.process.reported: // it said why, and then it ended
		return extensionReported(id, r)
	default:
	}
	e.process.api.ExtensionEnded(x.name, runtimeapi.ExtensionExited, "Extension.Crash")
	reason := "exit code 0"
	switch how := x.Exit(); {
	case how.Signal != 0:
		reason = "signal: " + how.Signal.String()
	case how.Code != 0:
		reason = "exit status " + strconv.Itoa(how.Code)
	}
	return extensionFailure(id, "Extension.Crash", reason)
}

// extensionReported describes an extension that said that it failed.
func extensionReported(id lambda.RequestID, r runtimeapi.ExtensionReport) *failure {
	errorType := "Extension.ExitError"
	if r.Extension.State == runtimeapi.ExtensionInitError {
		errorType = "Extension.InitError"
	}
	reason := "extension " + r.Extension.Name + " reported " + r.Extension.ErrorType
	if r.Message != "" {
		reason += ": " + r.Message
	}
	return extensionFailure(id, errorType, reason)
}

func extensionFailure(id lambda.RequestID, errorType, reason string) *failure {
	return &failure{
		kind:       metrics.Extension,
		document:   document(errorType, "RequestId: %s Error: %s", id, reason),
		status:     "error",
		errorType:  errorType,
		logMessage: fmt.Sprintf("RequestId: %s Error: %s\n%s", id, reason, errorType),
	}
}
