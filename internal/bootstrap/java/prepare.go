package java

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"kiln/internal/bootstrap"
)

// oldestArchiver is the first Java that writes an archive of what it has loaded when
// it ends; java11 starts with the JDK's own archive alone.
const oldestArchiver = 13

// trainingHandler is a method of the JDK's that takes the client along its usual
// way: an event is read as an object, and a result written.
const trainingHandler = "java.util.HashMap::get"

// Prepare writes the launcher, and has the client answer one event in order to
// archive the classes that it loads, which is most of what it does at start.
func (Family) Prepare(ctx context.Context, in bootstrap.Installation, dir string) (err error) {
	if err := writeLauncher(dir); err != nil {
		return fmt.Errorf("write the launcher: %w", err)
	}
	if major(in.Version) < oldestArchiver {
		return nil
	}
	// The archive holds for a class path of these words only.
	work, err := os.MkdirTemp("", "kiln-java-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	task := filepath.Join(work, "task")
	if err := errors.Join(os.Mkdir(task, 0o755), os.Symlink(dir, filepath.Join(work, "runtime"))); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	api := &training{answered: make(chan struct{}), over: make(chan struct{})}
	server := http.Server{Handler: api, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	defer func() {
		close(api.over)
		_ = server.Close()
		<-served
	}()

	launch := New().Adjust(New().Launch("java", in, bootstrap.Layout{Task: "/var/task", Runtime: dir}), map[string]string{
		"_HANDLER": trainingHandler, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
	})
	args := []string{"-XX:ArchiveClassesAtExit=" + fromTask + archiveFile}
	for _, arg := range launch.Args[1:] {
		if arg != sharedArchive+fromTask+archiveFile {
			args = append(args, arg)
		}
	}
	cmd := exec.CommandContext(ctx, in.Program, args...)
	cmd.Dir = task
	cmd.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + listener.Addr().String(), "AWS_LAMBDA_FUNCTION_NAME=f", "AWS_LAMBDA_FUNCTION_VERSION=1",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=512", "AWS_LAMBDA_LOG_GROUP_NAME=g", "AWS_LAMBDA_LOG_STREAM_NAME=s",
		"LANG=en_US.UTF-8", "TZ=UTC", "PATH=/usr/bin:/bin", "HOME=" + work,
	}
	output, err := os.Create(filepath.Join(work, "output"))
	if err != nil {
		return err
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-api.answered:
		_ = cmd.Process.Signal(syscall.SIGTERM) // it archives, and ends
		err = <-ended
	case err = <-ended:
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, stat := os.Stat(filepath.Join(dir, archiveFile)); stat != nil {
		said, _ := os.ReadFile(output.Name())
		return fmt.Errorf("AWS's client does not run on it (%w): %.2000s", err, said)
	}
	return nil
}

// training is a Runtime API with one event.
type training struct{ answered, over chan struct{} }

func (t *training) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-t.answered:
		<-t.over
		return
	default:
	}
	h := w.Header()
	if r.Method == http.MethodPost {
		w.WriteHeader(http.StatusAccepted)
		close(t.answered)
		return
	}
	h.Set("Content-Type", "application/json")
	h.Set("Lambda-Runtime-Aws-Request-Id", "00000000-0000-4000-8000-000000000000")
	h.Set("Lambda-Runtime-Deadline-Ms", "1")
	h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:f")
	_, _ = w.Write([]byte(`{"text": "a", "number": 1.5, "list": [true, null]}`)) // the client says what came
}
