package invoke

import (
	"fmt"
	"strings"
	"time"

	"kiln/internal/lambda"
)

// Trace passes the caller's trace on, with what it lacks, or begins one that is
// not sampled: Kiln keeps no traces yet. Tracing libraries want all three parts.
func Trace(incoming string, now time.Time) string {
	hex := strings.ReplaceAll(lambda.NewUUID()+lambda.NewUUID(), "-", "")
	trace := fmt.Sprintf("Root=1-%08x-%s", now.Unix(), hex[:24])
	if strings.Contains(incoming, "Root=") && len(incoming) < 1024 && !strings.ContainsAny(incoming, "\r\n") {
		trace = incoming
	}
	if !strings.Contains(trace, "Parent=") {
		trace += ";Parent=" + hex[32:48]
	}
	if !strings.Contains(trace, "Sampled=") {
		trace += ";Sampled=0"
	}
	return trace
}
