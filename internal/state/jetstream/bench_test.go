package jetstream_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

func BenchmarkCommit(b *testing.B) {
	for _, changes := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("changes=%d", changes), func(b *testing.B) {
			s := open(b, b.TempDir()).State()
			value := bytes.Repeat([]byte("v"), 1024)
			expect := make([]state.Revision, changes)
			for b.Loop() {
				list := make([]state.Change, changes)
				for i := range list {
					list[i] = state.Change{Key: fmt.Sprint("function.1.eu.", i), Value: value, Expect: expect[i]}
				}
				expect = commit(b, s, list...)
			}
		})
	}
}

func BenchmarkCommitParallel(b *testing.B) {
	s := open(b, b.TempDir()).State()
	value := bytes.Repeat([]byte("v"), 1024)
	var n atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			commit(b, s, state.Change{Key: fmt.Sprint("function.1.eu.", n.Add(1)), Value: value})
		}
	})
}

func BenchmarkPublish(b *testing.B) {
	q := open(b, b.TempDir()).Queue()
	event := bytes.Repeat([]byte("e"), 1024)
	for b.Loop() {
		if err := q.Publish(context.Background(), "async.1.eu.f", event); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBlob(b *testing.B) {
	const size = 50 << 20
	content := noise(1, size)
	b.Run("put", func(b *testing.B) {
		blob := open(b, b.TempDir()).Blob()
		b.SetBytes(size)
		for b.Loop() {
			if err := blob.Put(context.Background(), "package", bytes.NewReader(content)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		blob := open(b, b.TempDir()).Blob()
		if err := blob.Put(context.Background(), "package", bytes.NewReader(content)); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(size)
		for b.Loop() {
			r, err := blob.Get(context.Background(), "package")
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				b.Fatal(err)
			}
			r.Close()
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	for _, records := range []int{0, 1000, 20000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			dir := b.TempDir()
			e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
			if err := e.Open(context.Background()); err != nil {
				b.Fatal(err)
			}
			for i := 0; i < records; i += 1000 {
				var list []state.Change
				for j := range 1000 {
					list = append(list, state.Change{Key: fmt.Sprintf("function.1.eu.%d-%d", i, j), Value: bytes.Repeat([]byte("v"), 1024)})
				}
				commit(b, e.State(), list...)
			}
			closeEngine(b, e)
			for b.Loop() {
				e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
				if err := e.Open(context.Background()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				closeEngine(b, e)
				b.StartTimer()
			}
		})
	}
}
