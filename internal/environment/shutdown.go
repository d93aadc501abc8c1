package environment

import (
	"context"
	"syscall"
	"time"

	"kiln/internal/telemetry/metrics"
)

// Why an environment's processes are ended, as extensions are told.
const (
	shutdownSpindown = "spindown" // it is not needed any more
	shutdownTimeout  = "timeout"
	shutdownFailure  = "failure"
)

// How long the processes get to end by themselves: AWS's figures. Without
// extensions they get none.
// https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
const (
	internalBudget = 500 * time.Millisecond  // of a runtime with internal extensions
	externalBudget = 2000 * time.Millisecond // of all, where there are external ones
	runtimeShare   = 300 * time.Millisecond  // of the runtime in that
	// flushTimeout bounds, in that, the wait for the last telemetry to be taken.
	flushTimeout = 200 * time.Millisecond
)

// killTimeout bounds the waiting for a killed process; the kernel needs
// microseconds, unless the process hangs in a dead file system.
const killTimeout = 10 * time.Second

// terminate begins the end of the runtime: without extensions it is dead at once,
// else it has a SIGTERM and the time to obey it. No answer counts any more.
func (e *Environment) terminate() {
	p := e.process
	if p == nil || p.ending {
		return
	}
	p.ending = true
	p.api.EndRuntime()
	budget, share := p.budget()
	if budget == 0 {
		e.kill()
		return
	}
	now := time.Now()
	p.grace, p.deadline = now.Add(share), now.Add(budget)
	if p.Process == nil {
		return
	}
	signal := syscall.SIGTERM
	select {
	case <-p.Done():
		signal = syscall.SIGKILL // for what it left, which might hold its connections
	default:
	}
	_ = p.Signal(signal) // one that is gone is no error, and others end in kill
}

// halt ends the runtime. Extensions live on until shutDown.
func (e *Environment) halt() {
	e.terminate()
	p := e.process
	if p == nil || p.Process == nil || waitDone(p, p.grace) {
		return
	}
	_ = p.Signal(syscall.SIGKILL)
	waitDone(p, time.Now().Add(killTimeout))
}

// lingers tells whether the processes get time to end.
func (p *process) lingers() bool { budget, _ := p.budget(); return budget > 0 }

// budget is how long the processes get to end, and the runtime first.
func (p *process) budget() (all, runtime time.Duration) {
	switch {
	case len(p.extensions) > 0:
		return externalBudget, runtimeShare
	case len(p.api.Extensions()) > 0:
		return internalBudget, internalBudget
	}
	return 0, 0
}

// waitDone waits for a process until the deadline, and reports whether it is gone.
func waitDone(p interface{ Done() <-chan struct{} }, deadline time.Time) bool {
	select {
	case <-p.Done():
		return true
	default:
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-p.Done():
		return true
	case <-timer.C:
		return false
	}
}

// shutDown ends the runtime, the extensions, and everything that they started. The
// sandbox and its /tmp stay.
func (e *Environment) shutDown(reason string) {
	p := e.process
	if p == nil {
		return
	}
	e.halt()
	p.drain()
	if len(p.extensions) > 0 {
		e.shutDownExtensions(reason)
	}
	e.kill()
	e.process, e.state = nil, Down
	p.drain()
	e.out.follow(nil)
	p.feed.Close()
	p.hangUp()
	p.closePipes()
	p.watch.Wait()
}

// shutDownExtensions lets the external extensions that registered for it end by
// themselves, with the last telemetry.
func (e *Environment) shutDownExtensions(reason string) {
	p := e.process
	ctx, cancel := context.WithDeadline(context.Background(), p.deadline)
	defer cancel()
	flush, done := context.WithTimeout(ctx, flushTimeout)
	defer done()
	p.feed.Flush(flush)
	p.api.Shutdown(reason, p.deadline)
	wants := map[string]bool{}
	for _, x := range p.api.Extensions() {
		wants[x.Name] = x.External && x.WantsShutdown()
	}
	for _, x := range p.extensions {
		if !wants[x.name] {
			_ = x.Signal(syscall.SIGKILL) // one that is gone is no error, and others end in kill
		}
	}
	for _, x := range p.extensions {
		waitDone(x, p.deadline)
	}
}

// kill ends every process at once. What they said may still be on its way.
func (e *Environment) kill() {
	p := e.process
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if err := e.box.KillAll(ctx); err != nil {
		e.unfit = survives
		e.log.Error("processes of an environment survive", "error", err)
	}
	deadline := time.Now().Add(killTimeout)
	if p.Process != nil && !waitDone(p, deadline) {
		e.unfit = survives
		e.log.Error("a killed runtime does not end", "waited", killTimeout)
	}
	for _, x := range p.extensions {
		if !waitDone(x, deadline) {
			e.unfit = survives
			e.log.Error("a killed extension does not end", "extension", x.name, "waited", killTimeout)
		}
	}
}

const survives = "what ran in it cannot be killed"

// maxResets is how often in a row an environment is reset instead of replaced: what
// makes every invocation fail may lie in its /tmp, which a reset leaves.
const maxResets = 3

// fail notes that an invocation has cost the environment its runtime.
func (e *Environment) fail(f *failure) {
	e.resets++
	switch {
	case e.unfit != "":
	case f.kind == metrics.Platform:
		e.unfit = "Kiln failed in it"
	case e.resets >= maxResets:
		e.unfit = "its runtime was lost several times in a row"
	}
}

// Lost tells whether an idle environment has no runtime any more, or has lost an
// extension, so that its next invocation would begin with an init.
func (e *Environment) Lost() bool {
	p := e.process
	if p == nil {
		return true
	}
	select {
	case <-p.gone():
		return true
	default:
		return len(p.crashed) > 0 || len(p.reported) > 0 // who takes them ends the environment
	}
}

// Unfit says why the environment should not be used again; "": it may be.
func (e *Environment) Unfit() string { return e.unfit }

// hangUp ends the runtime API and frees its port. Nobody talks to it any more.
func (p *process) hangUp() {
	_ = p.api.Close()
	_ = p.listener.Close() // the server closes only what it serves already
}

// drain makes everything that the processes wrote so far an event.
func (p *process) drain() {
	if p.pipes != nil {
		p.pipes.drain()
	}
	for _, x := range p.extensions {
		x.pipes.drain()
	}
}

func (p *process) closePipes() {
	if p.pipes != nil {
		p.pipes.close()
	}
	for _, x := range p.extensions {
		x.pipes.close()
	}
}
