package python_test

import (
	"os/exec"
	"testing"
	"time"

	"kiln/internal/bootstrap"
	"kiln/internal/environment/clienttest"
	"kiln/internal/lambda"
)

const echo = "def handler(event, context):\n    return event"

// BenchmarkBareStart is the yardstick of BenchmarkColdStart.
func BenchmarkBareStart(b *testing.B) {
	everyVersion(b, func(b *testing.B, rt *bootstrap.Runtime) {
		for b.Loop() {
			cmd := exec.Command(rt.Installation.Program, "-c", "pass")
			cmd.Env = []string{"LC_CTYPE=C.UTF-8", "PATH=/usr/bin:/bin"}
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkColdStart is from starting the process to its asking for an event.
func BenchmarkColdStart(b *testing.B) {
	everyVersion(b, func(b *testing.B, rt *bootstrap.Runtime) {
		for b.Loop() {
			r := clienttest.Start(b, rt, code(echo))
			select {
			case <-r.Server.Ready():
			case <-r.Exited:
				b.Fatal(r.Output.String())
			case <-time.After(clienttest.Patience):
				b.Fatal("not ready")
			}
			b.StopTimer()
			<-r.Stop()
			b.StartTimer()
		}
	})
}

// BenchmarkWarm is one event, there and back, until the runtime is ready again.
func BenchmarkWarm(b *testing.B) {
	everyVersion(b, func(b *testing.B, rt *bootstrap.Runtime) {
		for _, size := range []struct {
			name  string
			bytes int
		}{{"1KB", 1000}, {"6MB", lambda.MaxRequestPayload - 100}} {
			b.Run(size.name, func(b *testing.B) {
				r := clienttest.Start(b, rt, code(echo))
				payload := make([]byte, size.bytes)
				for i := range payload {
					payload[i] = 'x'
				}
				payload[0], payload[len(payload)-1] = '"', '"'
				inv := clienttest.Event(string(payload))
				b.SetBytes(int64(size.bytes))
				for b.Loop() {
					if _, err := r.Try(inv); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	})
}

func everyVersion(b *testing.B, bench func(*testing.B, *bootstrap.Runtime)) {
	for _, id := range []lambda.RuntimeID{"python3.9", "python3.11", "python3.12", "python3.13"} {
		b.Run(string(id), func(b *testing.B) { bench(b, resolve(b, id)) })
	}
}
