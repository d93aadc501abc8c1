package nodejs_test

import (
	"bytes"
	"strings"
	"testing"
)

func TestStreaming(t *testing.T) {
	t.Parallel()
	const prelude = "application/vnd.awslambda.http-integration-response"
	cases := []struct {
		name, handler     string
		want, contentType string
		errorType         string // and then want is its message
		logs              string
	}{
		{name: "writes", handler: `async (e, s) => { s.write("a"); s.write(Buffer.from("b")); s.write(new Uint8Array([99])); s.end("é") }`, want: "abcé"},
		{name: "values", handler: `async (e, s) => { s.write({a: 1}); s.write([2]); s.end() }`, want: `{"a":1}[2]`},
		{name: "nothing", handler: `async (e, s) => s.end()`, want: ""},
		{name: "empty chunks", handler: `async (e, s) => { s.write(""); s.write("a"); s.end("") }`, want: "a"},
		{name: "content type", handler: `async (e, s) => { s.setContentType("text/html"); s.end("x") }`, want: "x", contentType: "text/html"},
		{name: "content type that would split the head", handler: `async (e, s) => { s.setContentType("text/html\r\nX-Evil: 1"); s.end("x") }`, want: "x", contentType: "text/html??X-Evil: 1"},
		{name: "content type too late", handler: `async (e, s) => { s.write("a"); s.setContentType("x"); s.end() }`, errorType: "Runtime.InvalidStreamingOperation", want: "Cannot set content-type, too late."},
		{name: "prelude", handler: `async (e, s) => { s = awslambda.HttpResponseStream.from(s, {statusCode: 201, headers: {a: "b"}, cookies: ["c=d"]}); s.write("x"); s.end() }`,
			want: `{"statusCode":201,"headers":{"a":"b"},"cookies":["c=d"]}` + strings.Repeat("\x00", 8) + "x", contentType: prelude},
		{name: "prelude without body", handler: `async (e, s) => { s = awslambda.HttpResponseStream.from(s, {statusCode: 204}); s.end() }`,
			want: `{"statusCode":204}` + strings.Repeat("\x00", 8), contentType: prelude},
		{name: "pipeline", handler: `async (e, s) => { await require("stream/promises").pipeline(require("stream").Readable.from(["a", "b"]), require("zlib").createGzip(), require("zlib").createGunzip(), s) }`, want: "ab"},
		{name: "pipe that nobody awaits", handler: `async (e, s) => { require("stream").Readable.from(["a", "b"]).pipe(s) }`, want: "ab"},
		{name: "large", handler: `async (e, s) => { for (let i = 0; i < 40; i++) if (!s.write(Buffer.alloc(100_000, 97))) await require("events").once(s, "drain"); s.end() }`, want: strings.Repeat("a", 4_000_000)},
		{name: "large at once", handler: `async (e, s) => { s.end("b".repeat(5_000_000)) }`, want: strings.Repeat("b", 5_000_000)},
		{name: "finish is told", handler: `async (e, s) => { const done = require("events").once(s, "finish"); s.end("x"); await done }`, want: "x"},
		{name: "returned value", handler: `async (e, s) => { s.end("x"); return 1 }`, want: "x", logs: "WARN\tStreaming handlers ignore return values."},
		{name: "throws at once", handler: `async () => { throw new TypeError("t") }`, errorType: "TypeError", want: "t", logs: "ERROR\tInvoke Error \t"},
		{name: "throws midway", handler: `async (e, s) => { s.write("a"); await null; throw new TypeError("é") }`, errorType: "TypeError", want: "é"},
		{name: "a long trace", handler: `async (e, s) => { s.write("a"); const error = new Error("m"); error.stack = "x\n".repeat(3000); throw error }`, errorType: "Error", want: "m"},
		{name: "a long message", handler: `async (e, s) => { s.write("a"); throw new Error("é".repeat(4000)) }`, errorType: "Error", want: strings.Repeat("é", 1000)},
		{name: "a long type", handler: `async (e, s) => { s.write("a"); const error = new Error("m"); error.name = "N".repeat(3000); throw error }`, errorType: strings.Repeat("N", 250), want: "m"},
		{name: "pipeline fails", handler: `async (e, s) => { await require("stream/promises").pipeline(async function* () { yield "a"; throw new TypeError("p") }, s) }`, errorType: "TypeError", want: "p"},
		{name: "never settles", handler: `async (e, s) => { s.write("a"); await new Promise(() => {}) }`, errorType: "Runtime.NodeJsExit", want: neverSettled},
		{name: "ends and never settles", handler: `async (e, s) => { s.end("a"); await new Promise(() => {}) }`, want: "a"},
	}
	each(t, func(t *testing.T, node interpreter) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				p := start(t, function{node: node, code: files{"index.js": `exports.handler = awslambda.streamifyResponse(` + c.handler + `)`}})
				for range 2 {
					if c.errorType != "" {
						p.wantError(`{}`, c.errorType, c.want)
					} else {
						a := p.invoke(`{}`)
						contentType := c.contentType
						if contentType == "" {
							contentType = "application/octet-stream"
						}
						if a.ErrorType != "" || !bytes.Equal(a.Payload, []byte(c.want)) || a.ContentType != contentType {
							t.Errorf("answered %s %s %.200q (%d bytes)", a.ErrorType, a.ContentType, a.Payload, len(a.Payload))
						}
					}
					if c.logs != "" {
						p.awaitLog(c.logs)
					}
				}
			})
		}
		for name, c := range map[string]struct{ handler, message string }{
			"not async":    {`() => {}`, "Streaming does not support non-async handlers."},
			"not finished": {`async (e, s) => { s.write("a") }`, "Response stream is not finished."},
		} {
			t.Run(name, func(t *testing.T) {
				p := start(t, function{node: node, code: files{"index.js": `exports.handler = awslambda.streamifyResponse(` + c.handler + `)`}})
				errorType := "string"
				if node.major >= 24 {
					errorType = "Error"
				}
				for range 2 {
					p.wantError(`{}`, errorType, c.message)
				}
			})
		}
		t.Run("exception midway", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.js": `exports.handler = awslambda.streamifyResponse(async (e, s) => { s.write("a"); setTimeout(() => { throw new RangeError("x") }, 5); await new Promise((r) => setTimeout(r, 1000)) })`}})
			if node.major >= 24 {
				p.api.Offer(invocation(`{}`)) // cut off by the exit, of which the answer may come first or not
				p.wantExit(1)
				return
			}
			p.wantError(`{}`, "RangeError", "x")
			p.wantExit(129)
		})
		t.Run("without the global", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.js": `exports.handler = async () => typeof awslambda`}, vars: map[string]string{"AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA": "1"}})
			p.wantAnswer(`{}`, `"undefined"`)
		})
	})
}
