package sandboxtest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"kiln/internal/sandbox"
)

// environments of a soak, unless KILN_SOAK_ENVIRONMENTS says otherwise.
const environments = 200

// Soak makes sandboxes, several at once, each with a listener and a process that
// leaves another behind, and destroys them. Nothing is left, and memory does not
// grow: after the first quarter everything is there that is kept for long.
func Soak(t *testing.T, newDriver New) {
	n := environments
	if soak := os.Getenv("KILN_SOAK_ENVIRONMENTS"); soak != "" {
		var err error
		if n, err = strconv.Atoi(soak); err != nil {
			t.Fatalf("KILN_SOAK_ENVIRONMENTS: %v", err)
		}
	}
	before := Snapshot(t)
	t.Run("driver", func(t *testing.T) {
		b := newBench(t, newDriver)
		warm := n / 4
		b.pass(t, warm)
		inUse, slab := heap(), kernelMemory(t)
		settled := Snapshot(t)
		b.pass(t, n-warm)
		settled.Unchanged(t)
		grown, slabGrown := heap()-inUse, kernelMemory(t)-slab
		t.Logf("%d sandboxes: this process's heap grew by %d KB, the kernel's own memory by %d MB", n, grown>>10, slabGrown>>20)
		if grown > 1<<20+int64(n)*100 {
			t.Errorf("the heap grew by %d bytes in %d sandboxes", grown, n-warm)
		}
	})
	before.Unchanged(t)
}

// pass makes and destroys n sandboxes.
func (b *bench) pass(t *testing.T, n int) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var all sync.WaitGroup
	turns := make(chan struct{}, n)
	for range n {
		turns <- struct{}{}
	}
	close(turns)
	for range 2 * runtime.NumCPU() {
		all.Go(func() {
			for range turns {
				if err := b.live(t, null); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// live is the life of one sandbox.
func (b *bench) live(t *testing.T, null *os.File) (err error) {
	s, err := b.Create(t.Context(), b.spec())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Destroy(t.Context())) }()
	if _, err := s.Listen(t.Context(), 9001); err != nil {
		return err
	}
	p, err := s.Exec(t.Context(), sandbox.Command{
		Path: "/bin/bash", Args: []string{"bash", "-c", "sleep 1000 & echo x >/tmp/x"}, Dir: "/", Stdout: null, Stderr: null,
	})
	if err != nil {
		return err
	}
	<-p.Done()
	if e := p.Exit(); e != (sandbox.Exit{}) {
		return fmt.Errorf("its process ended with %+v", e)
	}
	_, err = s.Usage(t.Context())
	return err
}

// kernelMemory is what the kernel keeps for itself and cannot give back, in bytes.
func kernelMemory(t *testing.T) (sum int64) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Log(err)
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == "SUnreclaim:" || f[0] == "KernelStack:" || f[0] == "Percpu:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			sum += kb << 10
		}
	}
	return sum
}

// heap is what this process's objects need.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one's finalizers freed
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
