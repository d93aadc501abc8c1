package environment

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
	"kiln/internal/sandbox"
	"kiln/internal/state/image"
	"kiln/internal/telemetry/metrics"
)

// defaultPath is the PATH of an image that sets none, as Docker has it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// checkImage refuses an image, a function's or a runtime's, where no sandbox can have its root.
func (f *Factory) checkImage() error {
	if _, ok := f.Driver.(sandbox.Rooter); !ok {
		return lambda.InvalidParameter("Images need the linux driver, and this Kiln runs the %s driver, which shows functions the machine's own files. kiln doctor says what the linux driver lacks here.", f.Driver.Name())
	}
	return nil
}

// overridden is how a function's image starts: its ImageConfig goes before what
// the image says, each part by itself.
func overridden(p image.Process, c *lambda.ImageConfig) image.Process {
	if c == nil {
		return p
	}
	if len(c.EntryPoint) > 0 {
		p.EntryPoint = c.EntryPoint
	}
	if len(c.Command) > 0 {
		p.Command = c.Command
	}
	if c.WorkingDirectory != "" {
		p.WorkingDirectory = c.WorkingDirectory
	}
	return p
}

// imageLaunch starts an image's own runtime client. The image's variables are
// defaults below the function's; what AWS sets for other OS-only runtimes is set
// below them. The handler is what the base images make of their command.
//
// https://docs.aws.amazon.com/lambda/latest/dg/images-create.html
func imageLaunch(p image.Process, l bootstrap.Layout) bootstrap.Launch {
	defaults := map[string]string{
		"PATH": defaultPath, "TZ": ":UTC",
		"LAMBDA_TASK_ROOT": l.Task, "LAMBDA_RUNTIME_DIR": l.Runtime,
		"AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
	}
	maps.Copy(defaults, p.Variables())
	launch := bootstrap.Launch{Dir: "/", Defaults: defaults, OSOnly: true}
	launch.Args = append(launch.Args, p.EntryPoint...)
	launch.Args = append(launch.Args, p.Command...)
	if len(launch.Args) > 0 {
		launch.Path = launch.Args[0]
	}
	if p.WorkingDirectory != "" {
		launch.Dir = p.WorkingDirectory
	}
	if len(p.Command) > 0 {
		launch.Reserved = map[string]string{"_HANDLER": p.Command[0]}
	}
	return launch
}

// opt is the host's folder of what is /opt inside; "" for none. An image has its
// own, where no layers are mounted over it.
func (e *Environment) opt() string {
	if e.layers == "" && e.root != "" {
		return filepath.Join(e.root, "opt") // a folder: it is a mount point
	}
	return e.layers
}

// errNoEntrypoint is an image without entry point and command.
var errNoEntrypoint = errors.New("the image has no entry point and no command; set ENTRYPOINT in its Dockerfile, or EntryPoint in the function's ImageConfig")

// imageFailure says in AWS's words why an image could not be started.
func (e *Environment) imageFailure(id lambda.RequestID, launch bootstrap.Launch, err error) *failure {
	kind, text := "Runtime.InvalidEntrypoint", err.Error()
	var dir *sandbox.DirError
	var errno syscall.Errno
	switch {
	case errors.As(err, &dir):
		kind, text = "Runtime.InvalidWorkingDir", dir.Text
	case errors.As(err, &errno):
		text = "fork/exec " + launch.Path + ": " + errno.Error()
	case launch.Path == "":
		text = errNoEntrypoint.Error()
	case !strings.Contains(launch.Path, "/"):
		text = (&exec.Error{Name: launch.Path, Err: exec.ErrNotFound}).Error()
	}
	p := e.image
	return &failure{
		kind:      metrics.Init,
		document:  document(kind, "RequestId: %s Error: %s", id, text),
		status:    "error",
		errorType: kind,
		logMessage: fmt.Sprintf("IMAGE\tLaunch error: %s\tEntrypoint: [%s]\tCmd: [%s]\tWorkingDir: [%s]\nRequestId: %s Error: %s\n%s",
			text, strings.Join(p.EntryPoint, ","), strings.Join(p.Command, ","), p.WorkingDirectory, id, text, kind),
	}
}
