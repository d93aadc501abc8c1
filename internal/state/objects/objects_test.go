package objects_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state/objects"
	"kiln/internal/state/objects/inside"
)

// TestMain is also the process of the buckets.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "objects" {
		os.Exit(inside.Serve(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// TestProcesses asks for buckets of two accounts: each has a process of its own, which
// ends when nobody asks, and is there again when somebody does.
func TestProcesses(t *testing.T) {
	t.Parallel()
	dir, run := t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("a long name/", 12))
	if err := os.MkdirAll(run, 0o700); err != nil {
		t.Fatal(err)
	}
	s := objects.New(objects.Config{Dir: dir, Run: run, Idle: 40 * time.Millisecond, Program: []string{os.Args[0], "objects"}, Log: slog.New(slog.DiscardHandler)})
	one, two := lambda.Scope{Account: "111111111111", Region: "eu-west-1"}, lambda.Scope{Account: "222222222222", Region: "us-east-1"}
	ask := func(scope lambda.Scope, method, path string) int {
		t.Helper()
		answer, err := s.Do(scope, (&http.Request{Method: method, URL: &url.URL{Path: path}, Header: http.Header{}}).WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	var asking sync.WaitGroup
	for range 8 { // at once, one process is started
		asking.Go(func() { ask(one, "GET", "/") })
	}
	asking.Wait()
	if got := ask(one, "PUT", "/bucket"); got != 200 {
		t.Fatal(got)
	}
	if got := ask(two, "HEAD", "/bucket"); got != 404 {
		t.Errorf("another account finds it: %d", got)
	}
	if region, found := s.Region(lambda.Scope{Account: one.Account, Region: "us-east-1"}, "bucket"); !found || region != one.Region {
		t.Errorf("it is in %q", region)
	}
	ctx, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	for _, scope := range []lambda.Scope{one, two} {
		lock, err := os.Open(filepath.Join(dir, string(scope.Account), string(scope.Region), "lock"))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // once its process has ended
			t.Fatal(err)
		}
		lock.Close()
	}
	end()
	running.Wait()
	if got := ask(one, "HEAD", "/bucket"); got != 200 {
		t.Errorf("when it is asked again: %d", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(run, "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
