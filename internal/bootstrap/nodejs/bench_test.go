package nodejs_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// BenchmarkWarm is one invocation of a running client, over real HTTP.
func BenchmarkWarm(b *testing.B) {
	for _, major := range majors {
		for _, size := range []int{1 << 10, 6<<20 - 100} {
			b.Run(fmt.Sprintf("node=%d/bytes=%d", major, size), func(b *testing.B) {
				p := start(b, function{node: find(b, major), code: files{"index.js": echo}})
				event := `"` + strings.Repeat("x", size) + `"`
				p.wantAnswer(event, event)
				for b.Loop() {
					p.exchange(invocation(event))
				}
			})
		}
	}
}

// BenchmarkColdStart is from starting the process to its first request for an
// event, beside the bare interpreter's whole life.
func BenchmarkColdStart(b *testing.B) {
	for _, major := range majors {
		node := find(b, major)
		b.Run(fmt.Sprintf("node=%d/bare", major), func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Command(node.Program, "-e", "0")
				cmd.Env = []string{}
				if err := cmd.Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
		module := files{"index.mjs": `export const handler = async (e) => e`}
		for name, f := range map[string]function{
			"client":           {node: node, code: files{"index.js": echo}},
			"module":           {node: node, code: module},
			"module-and-layer": {node: node, code: module, layer: files{"nodejs/node_modules/x/index.js": ""}},
		} {
			b.Run(fmt.Sprintf("node=%d/%s", major, name), func(b *testing.B) {
				for b.Loop() {
					p := start(b, f)
					<-p.api.Ready()
					b.StopTimer()
					_ = p.cmd.Process.Kill()
					<-p.exited
					b.StartTimer()
				}
			})
		}
	}
}
