package scheduler_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kiln/internal/environment/environmenttest"
	"kiln/internal/lambda"
	"kiln/internal/scheduler"
	"kiln/internal/telemetry/metrics"
)

// run has the scheduler do its work in the background until the test ends.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { r.Run(ctx) })
	r.t.Cleanup(func() { cancel(); run.Wait() })
}

// published returns a version of a function with that bootstrap.
func (r *rig) published(name, bootstrap string) *lambda.Function {
	fn := r.Function(name, bootstrap)
	fn.Version = "1"
	return fn
}

func (r *rig) provision(fn *lambda.Function, by lambda.Qualifier, n int) {
	r.Provision(fn.ARN, []scheduler.Allotment{{Owner: fn.ARN.Qualified(by), Function: fn, Environments: n}})
}

// awaitReady waits until that many environments are provisioned, all ready.
func (r *rig) awaitReady(fn *lambda.Function, by lambda.Qualifier, n int) {
	r.t.Helper()
	r.await(fmt.Sprintf("%d provisioned environments", n), func() bool {
		allocated, available, failed := r.Provisioned(fn.ARN.Qualified(by))
		return allocated == n && available == n && failed == ""
	})
}

// by invokes the function by a qualifier and returns the answer.
func (r *rig) by(fn *lambda.Function, q lambda.Qualifier, event string) string {
	r.t.Helper()
	inv := environmenttest.Invocation(fn, event)
	inv.ARN.Qualifier = q
	result, err := r.Invoke(r.t.Context(), fn, inv, func() {})
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Trim(string(result.Payload), `"`)
}

const typed = `answer="\"$AWS_LAMBDA_INITIALIZATION_TYPE $AWS_LAMBDA_LOG_STREAM_NAME\""`

// What is provisioned is initialised before anybody asks, used by the owner's
// invocations alone and before all else, and what there is too little of is made as
// for any function.
func TestProvisioned(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	fn := r.published("ready", environmenttest.Bootstrap("echo module", `
name=${event//\"/}
[ -p "$name" ] && read -r said <"$name"
`+typed))
	r.provision(fn, "live", 2)
	if allocated, _, _ := r.Provisioned(fn.ARN.Qualified("live")); allocated != 0 {
		t.Error("environments are started before all is set up")
	}
	r.run()
	r.awaitReady(fn, "live", 2)
	before := r.Log()
	if n := len(slices.DeleteFunc(slices.Clone(before), func(l string) bool { return !strings.HasPrefix(l, "INIT_REPORT Init Duration: ") })); n != 2 || slices.Contains(before, "START") {
		t.Errorf("the log of two inits: %q", before)
	}
	if got := r.by(fn, "live", `"x"`); !strings.HasPrefix(got, "provisioned-concurrency ") {
		t.Errorf("the first invocation ran in %s", got)
	}
	r.awaitIdle(fn, 2)
	lines := r.Log()[len(before):]
	report := regexp.MustCompile(`Duration: ([\d.]+) ms\tBilled Duration: (\d+) ms\t.*\tInit Duration: [\d.]+ ms`).FindStringSubmatch(strings.Join(lines, "\n"))
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "START ") || report == nil {
		t.Fatalf("the log of a first invocation, which has no init in it: %q", lines)
	}
	var took, billed float64
	if _, err := fmt.Sscan(report[1]+" "+report[2], &took, &billed); err != nil || billed >= took+1 {
		t.Errorf("%v ms are billed for %v", billed, took)
	}
	if got := r.by(fn, "1", "1"); !strings.HasPrefix(got, "on-demand ") {
		t.Errorf("an invocation by the version ran in %s", got)
	}
	r.awaitIdle(fn, 3)
	holds := []*hold{r.holdBy(fn, "live"), r.holdBy(fn, "live")}
	r.await("invocations that run", func() bool { return r.states(fn)[metrics.Busy] == 2 })
	if got := r.by(fn, "live", "1"); !strings.HasPrefix(got, "on-demand ") {
		t.Errorf("an invocation that spills over ran in %s", got)
	}
	for _, h := range holds {
		h.letGo(t)
		<-h.result
	}
	r.awaitReady(fn, "live", 2)
	totals := r.counts.Function(fn.ARN).Totals()
	if totals.Inits != 3 || totals.Colds != 1 || totals.Provisioned != 3 || totals.SpilledOver != 1 {
		t.Errorf("counted %+v", totals)
	}
	r.provision(fn, "live", 1)
	r.awaitReady(fn, "live", 1)
	r.Provision(fn.ARN, nil)
	r.awaitIdle(fn, 1) // the one on demand
	if got := r.by(fn, "live", "1"); !strings.HasPrefix(got, "on-demand ") {
		t.Errorf("after all, an invocation ran in %s", got)
	}
}

// An environment that is lost, idle or busy, is replaced by a new one that is ready.
func TestProvisionedIsReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *scheduler.Config) { c.IdleTimeout = time.Millisecond; c.MaxEnvironments = 1 })
	r.run()
	fn := r.published("lost", environmenttest.Bootstrap(`echo $$ >"`+r.Dir+`/pid.$$"`, `[ "$event" = '"die"' ] && exit 1`+"\n"+typed))
	r.provision(fn, "1", 1)
	r.awaitReady(fn, "1", 1)
	first := r.by(fn, "1", "1")
	pid, err := filepath.Glob(filepath.Join(r.Dir, "pid.*"))
	if err != nil || len(pid) != 1 {
		t.Fatal(pid, err)
	}
	var n int
	if _, err := fmt.Sscanf(filepath.Base(pid[0]), "pid.%d", &n); err != nil {
		t.Fatal(err)
	}
	r.awaitIdle(fn, 1)
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.await("another process", func() bool { pids, _ := filepath.Glob(filepath.Join(r.Dir, "pid.*")); return len(pids) == 2 })
	r.awaitReady(fn, "1", 1)
	second := r.by(fn, "1", "1")
	if second == first || !strings.HasPrefix(second, "provisioned-concurrency ") {
		t.Errorf("after it was killed: %s, was %s", second, first)
	}
	r.awaitIdle(fn, 1)
	r.by(fn, "1", `"die"`)
	r.await("another process", func() bool { pids, _ := filepath.Glob(filepath.Join(r.Dir, "pid.*")); return len(pids) == 3 })
	r.awaitReady(fn, "1", 1)
	// Neither idleness nor others take it away.
	other := r.Function("other", environmenttest.Bootstrap("", held))
	r.do(other)
	r.await("end of the other", func() bool { return len(r.states(other)) == 0 })
	third := r.by(fn, "1", "1")
	if third == second || !strings.HasPrefix(third, "provisioned-concurrency ") {
		t.Errorf("after it died: %s, was %s", third, second)
	}
}

// What cannot be made is tried again, and what it fails with is told until it succeeds.
func TestProvisionedFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.run()
	gate := filepath.Join(r.Dir, "opened")
	fn := r.published("fails", environmenttest.Bootstrap(`[ -e "`+gate+`" ] || exit 1`, typed))
	broken := r.published("broken", environmenttest.Bootstrap("", typed))
	failed := func(fn *lambda.Function, why string) {
		t.Helper()
		r.await(why, func() bool {
			_, available, failed := r.Provisioned(fn.ARN.Qualified("1"))
			return available == 0 && failed == why
		})
	}
	r.provision(fn, "1", 2)
	failed(fn, "FUNCTION_ERROR_INIT_FAILURE")
	if got := r.by(fn, "1", "1"); !strings.Contains(got, "Runtime.ExitError") { // on demand
		t.Errorf("an invocation meanwhile: %s", got)
	}
	r.Break(environmenttest.ErrBroken)
	r.provision(broken, "1", 1)
	failed(broken, "INTERNAL_ERROR")
	r.Break(nil)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.awaitReady(fn, "1", 2)
	r.awaitReady(broken, "1", 1)
}

// Another build takes the place of the one that an alias led to; what is busy ends first.
func TestProvisionedMoves(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.run()
	old := r.published("moves", environmenttest.Bootstrap("", `[ -p "${event//\"/}" ] && read -r said <"${event//\"/}"; answer='"old"'`))
	next := r.published("moves", environmenttest.Bootstrap("", `answer='"new"'`))
	next.Version = "2"
	r.provision(old, "live", 2)
	r.awaitReady(old, "live", 2)
	pipe := filepath.Join(r.Dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string, 1)
	go func() { answer <- r.by(old, "live", `"`+pipe+`"`) }() // ended below
	r.await("invocation that runs", func() bool { return r.states(old)[metrics.Busy] == 1 })
	r.Provision(old.ARN, []scheduler.Allotment{
		{Owner: old.ARN.Qualified("live"), Function: next, Environments: 2},
		{Owner: old.ARN.Qualified("other"), Function: next, Environments: 1},
	})
	r.awaitReady(old, "other", 1)
	r.awaitReady(old, "live", 2) // else the next invocation would have one that is not provisioned
	if got := r.by(next, "live", "1"); got != "new" {
		t.Errorf("it ran %s", got)
	}
	if err := os.WriteFile(pipe, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got != "old" {
		t.Errorf("the old one answered %s", got)
	}
	r.awaitReady(old, "live", 2)
	r.awaitIdle(old, 3)
	r.Retire(next.VersionARN(), "") // the version is deleted
	r.await("end of all", func() bool { return len(r.states(old)) == 0 })
}
