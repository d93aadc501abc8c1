package environment

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kiln/internal/lambda"
	"kiln/internal/telemetry/delivery"
)

func TestApplicationLevel(t *testing.T) {
	t.Parallel()
	const stamp = `"timestamp":"2026-01-31T12:34:56.789Z"`
	lines := []string{
		`{"level":"DEBUG",` + stamp + `}`,
		`{"level":"INFO",` + stamp + `}`,
		`{"level":"warn",` + stamp + `}`,
		`{"level":"WARNING",` + stamp + `}`,
		`{"level":"FATAL",` + stamp + `}`,
		`{"level":"ERROR","timestamp":"yesterday"}`, // counts as INFO, as the following do
		`{"level":"ERROR"}`,
		`{"level":40,` + stamp + `}`,
		`{"level":"loud",` + stamp + `}`,
		`{"no":"level"}`,
		`{"_aws":{"Timestamp":1}}`,
		`{half`,
		`plain text`,
		``,
	}
	always := lines[10:]
	for _, c := range []struct {
		logging lambda.Logging
		want    []string
	}{
		{lambda.Logging{Format: "Text"}, lines},
		{lambda.Logging{Format: "JSON", ApplicationLevel: "TRACE"}, lines},
		{lambda.Logging{Format: "JSON", ApplicationLevel: "INFO"}, lines[1:]},
		{lambda.Logging{Format: "JSON", ApplicationLevel: "WARN"}, append(lines[2:5:5], always...)},
		{lambda.Logging{Format: "JSON", ApplicationLevel: "FATAL"}, append(lines[4:5:5], always...)},
	} {
		for kind, want := range map[delivery.Kind][]string{delivery.Function: c.want, delivery.Extension: lines} {
			var e events
			s := source{&output{sink: &e, least: leastLevel(c.logging)}, kind}
			splitLines(s, []byte(strings.Join(lines, "\n")+"\n"), true)
			if diff := cmp.Diff(want, e.messages()); diff != "" {
				t.Errorf("%+v, %s: %s", c.logging, kind, diff)
			}
		}
	}
	// What the runtime's own logger framed, it has filtered.
	var e events
	s := source{&output{sink: &e, least: fatalLevel}, delivery.Function}
	if splitFrames(s, frame(time.Now(), lines[0])); len(e) != 1 {
		t.Errorf("a frame: %v", e)
	}
}
