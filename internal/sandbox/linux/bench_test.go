package linux_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/linux"
)

// BenchmarkColdStart is the whole way to a program's end: Create, Listen, Exec.
// Destroy is not in the figures. It reports medians.
func BenchmarkColdStart(b *testing.B) {
	const tmp = 512 << 20
	for _, v := range []struct {
		network string
		spares  int
	}{{sandbox.NetworkNone, 0}, {sandbox.NetworkNone, 2}, {sandbox.NetworkHost, 0}} {
		b.Run(fmt.Sprintf("network=%s,spares=%d", v.network, v.spares), func(b *testing.B) {
			d := newDriver(b, func(c *linux.Config) { c.Network, c.Spares, c.SpareTmpBytes = v.network, v.spares, tmp })
			null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer null.Close()
			var create, listen, exec, total, destroy []time.Duration
			task := b.TempDir()
			for i := 0; b.Loop(); i++ {
				if v.spares > 0 {
					time.Sleep(40 * time.Millisecond) // for the spares to be ready again
				}
				t0 := time.Now()
				s, err := d.Create(b.Context(), sandbox.Spec{
					ID: fmt.Sprintf("b-%d", i), Group: "000000000000/us-east-1/benchmark", Task: task, MemoryBytes: 128 << 20, TmpBytes: tmp,
				})
				if err != nil {
					b.Fatal(err)
				}
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
				create, listen, exec = append(create, t1.Sub(t0)), append(listen, t2.Sub(t1)), append(exec, t3.Sub(t2))
				total, destroy = append(total, t3.Sub(t0)), append(destroy, time.Since(t3))
			}
			for _, m := range []struct {
				name string
				d    []time.Duration
			}{{"create", create}, {"listen", listen}, {"exec", exec}, {"total", total}, {"destroy", destroy}} {
				slices.Sort(m.d)
				b.ReportMetric(float64(m.d[len(m.d)/2].Microseconds()), m.name+"-p50-µs")
			}
		})
	}
}
