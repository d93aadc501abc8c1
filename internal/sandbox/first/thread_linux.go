package first

import (
	"os"
	"runtime"
	"syscall"
)

// Thread is a thread of the daemon's with one purpose: the kernel sends a parent-death
// signal when the parent's thread ends, not its process, and it keeps namespaces by thread.
type Thread struct {
	jobs chan func()
	done chan struct{}
}

// NewThread runs prepare on the thread, and fails with it; nil for none.
func NewThread(prepare func() error) (*Thread, error) {
	t := &Thread{jobs: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	onOwnThread(func() { // ends by Close, which waits
		defer close(t.done)
		var err error
		if prepare != nil {
			err = prepare()
		}
		ready <- err
		for job := range t.jobs {
			job()
		}
	})
	if err := <-ready; err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// onOwnThread runs f in a goroutine on a thread that is its alone and ends with
// it. It is never the process's first thread: that one cannot end, and its mount
// namespace is what /proc/self shows of the whole daemon.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if syscall.Gettid() != os.Getpid() {
			f() // not unlocked: the thread ends with the goroutine
			return
		}
		// Hold the first thread until another has taken the work.
		defer runtime.UnlockOSThread()
		taken := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(taken)
			f()
		}()
		<-taken
	}()
}

// Do runs the job on the thread, and returns after it.
func (t *Thread) Do(job func()) {
	done := make(chan struct{})
	t.jobs <- func() {
		job()
		close(done)
	}
	<-done
}

// Close ends the thread, and with it the processes that die with their parent.
func (t *Thread) Close() {
	close(t.jobs)
	<-t.done
}
