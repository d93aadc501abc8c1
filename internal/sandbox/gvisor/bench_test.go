package gvisor_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/gvisor"
	"kiln/internal/sandbox/sandboxtest"
)

func create(b *testing.B, d *gvisor.Driver, i int) sandbox.Sandbox {
	b.Helper()
	s, err := d.Create(b.Context(), sandbox.Spec{
		ID: sandboxtest.ID(fmt.Sprint("b-", i)), Group: group, Task: "/usr", MemoryBytes: 128 << 20, TmpBytes: 512 << 20,
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkColdStart is the whole way to a program's end: Create, Listen, Exec. It
// reports medians, and is written as that of the linux driver, to be compared with it.
func BenchmarkColdStart(b *testing.B) {
	for _, spares := range []int{0, 2} {
		b.Run(fmt.Sprintf("spares=%d", spares), func(b *testing.B) {
			d := newDriver(b, func(c *gvisor.Config) { c.Spares = spares })
			null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer null.Close()
			times := map[string][]time.Duration{}
			for i := 0; b.Loop(); i++ {
				if spares > 0 {
					time.Sleep(time.Second) // for the spares to be ready again
				}
				t0 := time.Now()
				s := create(b, d, i)
				t1 := time.Now()
				l, err := s.Listen(b.Context(), 9001)
				if err != nil {
					b.Fatal(err)
				}
				t2 := time.Now()
				p, err := s.Exec(b.Context(), sandbox.Command{Path: "/bin/true", Args: []string{"true"}, Dir: "/", Stdout: null, Stderr: null})
				if err != nil {
					b.Fatal(err)
				}
				<-p.Done()
				t3 := time.Now()
				_ = l.Close()
				if err := s.Destroy(b.Context()); err != nil {
					b.Fatal(err)
				}
				for name, took := range map[string]time.Duration{
					"create": t1.Sub(t0), "listen": t2.Sub(t1), "exec": t3.Sub(t2), "total": t3.Sub(t0), "destroy": time.Since(t3),
				} {
					times[name] = append(times[name], took)
				}
			}
			for name, d := range times {
				slices.Sort(d)
				b.ReportMetric(float64(d[len(d)/2].Microseconds()), name+"-p50-µs")
			}
		})
	}
}

// BenchmarkRequest is an HTTP request from inside to the daemon and back, as each
// invocation makes two, over a connection that stays.
func BenchmarkRequest(b *testing.B) {
	d := newDriver(b, nil)
	s := create(b, d, 0)
	l, err := s.Listen(b.Context(), 9001)
	if err != nil {
		b.Fatal(err)
	}
	arrived := make(chan time.Time, 16)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- time.Now()
		_, _ = io.WriteString(w, strings.Repeat("x", 1024))
	})}
	go func() { _ = server.Serve(l) }() // ends with the listener
	defer server.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	if _, err := s.Exec(b.Context(), sandbox.Command{Path: "/usr/bin/python3", Args: []string{"python3", "-Ic",
		"import http.client\nc = http.client.HTTPConnection('127.0.0.1', 9001)\nwhile True:\n c.request('GET', '/'); c.getresponse().read()\n",
	}, Dir: "/", Stdout: null, Stderr: null}); err != nil {
		b.Fatal(err)
	}
	<-arrived
	for b.Loop() {
		<-arrived
	}
}
