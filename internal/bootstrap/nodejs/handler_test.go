package nodejs_test

import (
	"strings"
	"testing"
)

const echo = `exports.handler = async (event) => event;`

// Where the handler setting leads, and what is said when it leads nowhere.
func TestHandlerSetting(t *testing.T) {
	t.Parallel()
	found := []struct {
		name, handler string
		code, layer   files
	}{
		{"CommonJS", "index.handler", files{"index.js": echo}, nil},
		{"folders", "src/lib/app.handler", files{"src/lib/app.js": echo}, nil},
		{"nested property", "index.api.v1.handler", files{"index.js": `exports.api = {v1: {handler: async (e) => e}}`}, nil},
		{"dot after the first dot is nested", "src/app.lambda.handler", files{"src/app.js": `exports.lambda = {handler: async (e) => e}`}, nil},
		{"no extension", "index.handler", files{"index": echo, "index.js": `throw new Error("wrong file")`}, nil},
		{".cjs", "index.handler", files{"index.cjs": echo}, nil},
		{".mjs", "index.handler", files{"index.mjs": `export const handler = async (e) => e`}, nil},
		{".js before .mjs", "index.handler", files{"index.js": echo, "index.mjs": `throw new Error("wrong file")`}, nil},
		{"package of type module", "index.handler", files{"package.json": `{"type":"module"}`, "index.js": `export const handler = async (e) => e`}, nil},
		{"type of the nearest package.json", "a/b.handler", files{"package.json": `{"type":"module"}`, "a/package.json": `{}`, "a/b.js": echo}, nil},
		{"type of a package.json above", "a/b/c.handler", files{"package.json": `{"type":"module"}`, "a/b/c.js": `export const handler = async (e) => e`}, nil},
		{"package.json that is not JSON", "index.handler", files{"package.json": `{`, "index.cjs": echo}, nil},
		{"top-level await", "index.handler", files{"index.mjs": `const x = await new Promise((r) => setTimeout(r, 5, 1)); export const handler = async (e) => x && e`}, nil},
		{"import of a package", "index.handler", files{"index.mjs": `import {f} from "dep"; export const handler = f`, "node_modules/dep/index.mjs": `export const f = async (e) => e`, "node_modules/dep/package.json": `{"main":"index.mjs"}`}, nil},
		{"folder with an index", "app.handler", files{"app/index.js": echo}, nil},
		{"package in node_modules", "dep.handler", files{"node_modules/dep/index.js": echo}, nil},
		{"package in a layer", "dep.handler", nil, files{"nodejs/node_modules/dep/index.js": echo}},
		{"require from a layer", "index.handler", files{"index.js": `exports.handler = require("dep").handler`}, files{"nodejs/node_modules/dep/index.js": echo}},
		{"import from a layer", "index.handler", files{"index.mjs": `import {f} from "dep"; import {e} from "@scope/dep/sub"; export const handler = async (x) => e && f(x)`}, files{
			"nodejs/node_modules/dep/package.json": `{"exports":{"import":"./index.mjs"}}`, "nodejs/node_modules/dep/index.mjs": `import "other"; export const f = async (e) => e`,
			"nodejs/node_modules/other/index.js": ``, "nodejs/node_modules/@scope/dep/package.json": `{"exports":{"./sub":"./s.js"}}`, "nodejs/node_modules/@scope/dep/s.js": `exports.e = true`}},
		{"dynamic import from a layer", "index.handler", files{"index.mjs": `export const handler = async (e) => (await import("dep")).default(e)`}, files{"nodejs/node_modules/dep/index.js": `module.exports = (e) => e`}},
		{"the package's own before the layer's", "index.handler", files{"index.mjs": `export {handler} from "dep"`, "node_modules/dep/index.js": echo}, files{"nodejs/node_modules/dep/index.js": `throw new Error("the layer's")`}},
		{"symbolic link", "index.handler", files{"real/code.js": echo, "index.js": "-> real/code.js"}, nil},
		{"odd characters", "a b#%.handler", files{"a b#%.mjs": `export const handler = async (e) => e`}, nil},
	}
	each(t, func(t *testing.T, node interpreter) {
		for _, c := range found {
			if node.major >= 24 && c.name == "folder with an index" {
				continue // refused
			}
			t.Run(c.name, func(t *testing.T) {
				p := start(t, function{node: node, handler: c.handler, code: c.code, layer: c.layer})
				p.wantAnswer(`{"a":1}`, `{"a":1}`)
			})
		}
	})

	lost := []struct {
		name, handler      string
		code               files
		errorType, message string // the message's beginning
	}{
		{"parent folder", "../index.handler", nil, "Runtime.MalformedHandlerName", "'../index.handler' is not a valid handler name. Use absolute paths when specifying root directories in handler names."},
		{"no dot", "index", files{"index.js": echo}, "Runtime.MalformedHandlerName", "Bad handler"},
		{"no dot in the last part", "a.b/index", files{"index.js": echo}, "Runtime.MalformedHandlerName", "Bad handler"},
		{"no export", "index.other", files{"index.js": echo}, "Runtime.HandlerNotFound", "index.other is undefined or not exported"},
		{"no nested export", "index.a.b.c", files{"index.js": echo}, "Runtime.HandlerNotFound", "index.a.b.c is undefined or not exported"},
		{"not a function", "index.handler", files{"index.js": `exports.handler = {}`}, "Runtime.HandlerNotFound", "index.handler is not a function"},
		{"no module", "index.handler", nil, "Runtime.ImportModuleError", "Error: Cannot find module 'index'\nRequire stack:\n- "},
		{"no dependency", "index.handler", files{"index.js": `require("nowhere")`}, "Runtime.ImportModuleError", "Error: Cannot find module 'nowhere'\nRequire stack:\n- "},
		{"no dependency of a module", "index.handler", files{"index.mjs": `import "nowhere"`}, "Error", "Cannot find package 'nowhere' imported from "},
		{"syntax", "index.handler", files{"index.js": `exports.handler = (`}, "Runtime.UserCodeSyntaxError", "SyntaxError: Unexpected end of input"},
		{"syntax of a module", "index.handler", files{"index.mjs": `export const = 1`}, "Runtime.UserCodeSyntaxError", "SyntaxError: "},
		{"module syntax without saying so", "index.handler", files{"index.js": `export const handler = 1`}, "Runtime.UserCodeSyntaxError", "SyntaxError: Unexpected token 'export'"},
		{"require of a module", "index.handler", files{"index.js": `require("./b.mjs")`, "b.mjs": ``}, "Error", "require() of ES Module "},
		{"throws", "index.handler", files{"index.js": `throw new RangeError("no")`}, "RangeError", "no"},
		{"module throws", "index.handler", files{"index.mjs": `await 1; throw new RangeError("no")`}, "RangeError", "no"},
		{"throws no error", "index.handler", files{"index.js": `throw "no"`}, "string", "no"},
		{"wrong streaming", "index.handler", files{"index.js": `exports.handler = async () => {}; exports.handler[Symbol.for("aws.lambda.runtime.handler.streaming")] = "request"`}, "Runtime.MalformedStreamingHandler", "Only response streaming is supported."},
	}
	each(t, func(t *testing.T, node interpreter) {
		for _, c := range lost {
			t.Run(c.name, func(t *testing.T) {
				p := start(t, function{node: node, handler: c.handler, code: c.code, layer: files{"nodejs/node_modules/other/index.js": ""}})
				d := p.initError()
				if d.Type != c.errorType || !strings.HasPrefix(d.Message, c.message) {
					t.Errorf("failed with %q %q, want %q %q", d.Type, d.Message, c.errorType, c.message)
				}
				line, code := "undefined\tERROR\tUncaught Exception \t", 129
				if node.major >= 24 {
					line, code = "-\tERROR\tInit Error \t", 1
				}
				p.awaitLog(line + `{"errorType":"`)
				p.wantExit(code)
			})
		}
	})
}

func TestDetectionCanBeAskedFor(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, node interpreter) {
		code := files{"index.js": `export const handler = async (e) => e`}
		if node.major == 22 {
			code = files{"index.js": `exports.handler = require("./b.mjs").handler`, "b.mjs": `export const handler = async (e) => e`}
		}
		p := start(t, function{node: node, handler: "app.handler",
			code: files{"app.mjs": `export {handler} from "./index.js"`, "index.js": code["index.js"], "b.mjs": code["b.mjs"]},
			vars: map[string]string{"NODE_OPTIONS": "--experimental-detect-module --experimental-require-module"}})
		p.wantAnswer(`1`, `1`)
	})
}

func TestUnsettledModule(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, node interpreter) {
		p := start(t, function{node: node, code: files{"index.mjs": `await new Promise(() => {}); export const handler = 1`}})
		code := 13
		if node.major >= 24 {
			code = 0
		}
		p.wantExit(code)
	})
}
