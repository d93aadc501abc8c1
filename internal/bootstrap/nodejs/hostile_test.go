package nodejs_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// Handlers that change the world around them; the invocation after must not notice.
func TestHostileHandlers(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"JSON":        `JSON.stringify = () => "broken"; JSON.parse = () => { throw 1 }`,
		"sockets":     `const p = require("net").Socket.prototype; for (const k of ["write", "ref", "unref", "destroy", "_write", "_writeGeneric", "connect"]) p[k] = () => { throw new Error("patched") }`,
		"streams":     `const { Writable, Readable, Duplex } = require("stream"); for (const k of ["write", "_write", "end"]) { Writable.prototype[k] = Duplex.prototype[k] = () => { throw new Error("patched") } } Readable.prototype.push = () => { throw 1 }`,
		"emitters":    `const E = require("events"); E.prototype.emit = () => { throw new Error("patched") }; E.prototype.on = E.prototype.once = () => { throw 1 }`,
		"console":     `console.log = console.error = () => { throw 1 }; globalThis.console = undefined`,
		"process":     `process.exit = () => {}; process.cwd = () => { throw 1 }; process.env = undefined; process.nextTick`,
		"environment": `for (const k of Object.keys(process.env)) delete process.env[k]`,
		"promises":    `Promise.prototype.then = () => { throw 1 }; Promise.resolve = () => { throw 1 }; globalThis.Promise = undefined`,
		"timers":      `globalThis.setImmediate = globalThis.setTimeout = () => { throw 1 }; require("timers").setImmediate = () => { throw 1 }`,
		"strings":     `for (const k of ["indexOf", "slice", "split", "trim", "toLowerCase", "replaceAll", "includes", "replace"]) String.prototype[k] = () => { throw 1 }`,
		"arrays":      `for (const k of ["push", "shift", "map", "forEach"]) Array.prototype[k] = () => { throw 1 }`,
		"buffers":     `for (const k of ["indexOf", "copy", "utf8Slice", "toString"]) Buffer.prototype[k] = () => { throw 1 }; Buffer.from = Buffer.concat = Buffer.byteLength = Buffer.allocUnsafeSlow = () => { throw 1 }`,
		"globals":     `for (const k of ["Date", "Error", "Number", "String", "Reflect", "Atomics", "encodeURIComponent", "Buffer", "process", "queueMicrotask"]) globalThis[k] = undefined`,
		"time":        `Date.now = () => { throw 1 }; globalThis.Date = class { constructor() { throw 1 } }`,
		"functions":   `Function.prototype.call = Function.prototype.apply = Function.prototype.bind = () => { throw 1 }`,
		"pollution":   `Object.prototype.status = 500; Object.prototype.open = true; Object.prototype.host = "nowhere"`,
		"fs":          `const fs = require("fs"); fs.writeSync = fs.existsSync = () => { throw 1 }; require("util").format = () => { throw 1 }`,
		"the cache":   `for (const k of Object.keys(require.cache)) delete require.cache[k]`,
		"symbols":     `delete globalThis.awslambda; globalThis[Symbol.for("aws.lambda.runtime.requestId")] = 1`,
	}
	each(t, func(t *testing.T, node interpreter) {
		for name, code := range cases {
			t.Run(name, func(t *testing.T) {
				p := start(t, function{node: node, code: files{"index.js": `let n = 0, log = console.log; exports.handler = async (event) => {
					if (n++ === 0) { ` + code + ` }
					else if (n > 2) log("line")
					return {event, n} }`}})
				for i := 1; i <= 3; i++ {
					p.wantAnswer(`{"é":[1]}`, fmt.Sprintf(`{"event":{"é":[1]},"n":%d}`, i))
				}
				p.awaitLog(requestID + "\tINFO\tline")
			})
		}
		t.Run("errors after it", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.js": `exports.handler = async (event) => {
				console.error = () => { throw 1 }; process.cwd = JSON.stringify = () => { throw 2 }
				throw new RangeError("x") }`}})
			for range 2 {
				p.wantError(`1`, "RangeError", "x")
			}
		})
	})
}

func TestLargePayloads(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, node interpreter) {
		for name, text := range map[string]string{"ASCII": "a", "Latin": "é", "emoji": "😀"} {
			t.Run(name, func(t *testing.T) {
				p := start(t, function{node: node, code: files{"index.js": echo}})
				event := `"` + strings.Repeat(text, (6<<20-2)/len(text)) + `"`
				for range 2 {
					if a := p.invoke(event); !bytes.Equal(a.Payload, []byte(event)) {
						t.Errorf("%d bytes came back as %d: %.100s", len(event), len(a.Payload), a.Payload)
					}
				}
			})
		}
		t.Run("too large", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.js": `exports.handler = async (e) => "x".repeat(e)`}})
			p.wantError(`6291555`, "Function.ResponseSizeTooLarge", "Response payload size (6291557 bytes) exceeded maximum allowed payload size (6291556 bytes).")
			p.wantError(`20000000`, "Function.ResponseSizeTooLarge", "Response payload size (20000002 bytes) exceeded maximum allowed payload size (6291556 bytes).")
			p.wantAnswer(`1`, `"x"`)
		})
		t.Run("huge error", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.js": `exports.handler = async (e) => { throw new Error("é".repeat(e)) }`}})
			p.wantError(`300000`, "Error", strings.Repeat("é", 300000))
			p.wantError(`-1`, "RangeError", "Invalid count value: -1")
		})
		t.Run("huge output", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.js": `exports.handler = async (e) => { for (let i = 0; i < 50; i++) console.log("x".repeat(1e6)); return 1 }`}})
			p.wantAnswer(`1`, `1`)
			p.wantAnswer(`1`, `1`)
		})
	})
}

// The heap does not grow with the number of invocations.
func TestNoLeak(t *testing.T) {
	t.Parallel()
	rounds := 10_000
	if testing.Short() {
		rounds = 1_000
	}
	each(t, func(t *testing.T, node interpreter) {
		p := start(t, function{node: node, vars: map[string]string{"NODE_OPTIONS": ""}, code: files{"index.js": `
			require("v8").setFlagsFromString("--expose-gc"); const gc = require("vm").runInNewContext("gc")
			exports.handler = async (event) => { if (event !== "measure") return event; gc(); gc(); return process.memoryUsage().heapUsed }`}})
		measure := func() (bytes int) {
			a := p.invoke(`"measure"`)
			fmt.Sscan(string(a.Payload), &bytes)
			return bytes
		}
		for range rounds / 10 {
			p.wantAnswer(`{"a":1}`, `{"a":1}`)
		}
		before := measure()
		for range rounds {
			p.wantAnswer(`{"a":1}`, `{"a":1}`)
		}
		if grown := measure() - before; grown > 300_000 {
			t.Errorf("the heap grew by %d bytes in %d invocations", grown, rounds)
		} else {
			t.Logf("heap %d, grown by %d", before, grown)
		}
	})
}
