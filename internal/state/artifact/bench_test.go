package artifact_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"kiln/internal/state/artifact"
)

func BenchmarkAdd(b *testing.B) {
	s := openStore(b, engine(b), b.TempDir(), artifact.Config{})
	code := pack(b, file{"index.js", strings.Repeat("exports.handler = 1\n", 100), 0o644})
	for b.Loop() {
		p := add(b, s, code)
		b.StopTimer()
		if err := s.Remove(context.Background(), p.Digest); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkDir(b *testing.B) {
	s := openStore(b, engine(b), b.TempDir(), artifact.Config{})
	p := add(b, s, pack(b, file{"index.js", strings.Repeat("exports.handler = 1\n", 100), 0o644}))
	for b.Loop() {
		_, release := dirOf(b, s, p.Digest)
		release()
	}
}

// BenchmarkMerged merges five packages of 4,000 files each.
func BenchmarkMerged(b *testing.B) {
	s := openStore(b, &memory{}, b.TempDir(), artifact.Config{})
	var digests []string
	var zips [][]byte
	for l := range 5 {
		var files []file
		for i := range 4000 {
			files = append(files, file{fmt.Sprintf("python/package%d/module%d/f%d.py", l, i/100, i), "pass", 0o644})
		}
		zips = append(zips, pack(b, files...))
		digests = append(digests, add(b, s, zips[l]).Digest)
	}
	for b.Loop() {
		_, release, err := s.Merged(context.Background(), digests)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		release()
		if err := s.Remove(context.Background(), digests[0]); err != nil { // and with it the merged tree
			b.Fatal(err)
		}
		add(b, s, zips[0])
		b.StartTimer()
	}
}
