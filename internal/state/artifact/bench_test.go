package artifact_test

import (
	"context"
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
