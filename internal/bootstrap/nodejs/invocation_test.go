package nodejs_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	neverSettled = "The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a Promise that was never settled. For more information, see https://nodejs.org/docs/latest/api/process.html#exit-codes"
	twice        = "Invocation has already been reported as done. Cannot call complete more than once per invocation."
	unreadable   = "callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack"
)

// What handlers answer. Every case is invoked twice, so that the first leaves the
// client fit for a second.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const upTo22, from24 = 22, 24
	cases := []struct {
		name    string
		handler string // the value of exports.handler
		want    string // the answer, or
		fails   string // the errorType, a space, and the errorMessage
		last    int    // the last version it holds for, 0 for any
		first   int
	}{
		{name: "async", handler: `async (e) => e`, want: `{"k":1}`},
		{name: "async undefined", handler: `async () => {}`, want: `null`},
		{name: "async null", handler: `async () => null`, want: `null`},
		{name: "async text", handler: `async () => "é😀\u2028\x7f\ud800"`, want: `"é😀` + "\u2028\x7f" + `\ud800"`},
		{name: "async after a timer", handler: `() => new Promise((r) => setTimeout(r, 5, 7))`, want: `7`},
		{name: "date", handler: `async () => new Date(0)`, want: `"1970-01-01T00:00:00.000Z"`},
		{name: "buffer", handler: `async () => Buffer.from("ab")`, want: `{"type":"Buffer","data":[97,98]}`},
		{name: "thenable", handler: `() => ({then(ok) { setTimeout(ok, 1, 3) }})`, want: `3`},
		{name: "rejecting thenable", handler: `() => ({then(ok, no) { no(new TypeError("x")) }})`, fails: `TypeError x`},
		{name: "function", handler: `async () => () => 1`, fails: `TypeError Wrong arguments`},
		{name: "BigInt", handler: `async () => 1n`, fails: `Error Unable to stringify response body`, last: upTo22},
		{name: "BigInt", handler: `async () => 1n`, fails: `Runtime.JSONStringifyError Unable to stringify response body`, first: from24},
		{name: "circular", handler: `async () => { const a = {}; a.a = a; return a }`, fails: `Error Unable to stringify response body`, last: upTo22},
		{name: "throwing toJSON", handler: `async () => ({toJSON() { throw 1 }})`, fails: `Error Unable to stringify response body`, last: upTo22},

		{name: "throw", handler: `() => { throw new RangeError("a\x7fb") }`, fails: `RangeError a%7Fb`},
		{name: "reject", handler: `async () => { throw new (class MyError extends Error { name = "MyError" })("m") }`, fails: `MyError m`},
		{name: "reject text", handler: `() => Promise.reject("text")`, fails: `string text`},
		{name: "reject number", handler: `() => Promise.reject(4)`, fails: `number 4`},
		{name: "reject object", handler: `() => Promise.reject({a: 1})`, fails: `object [object Object]`},
		{name: "reject nothing", handler: `() => Promise.reject()`, fails: `string handled`, last: upTo22},
		{name: "reject null", handler: `() => Promise.reject(null)`, fails: `string handled`, last: upTo22},
		{name: "reject nothing", handler: `() => Promise.reject()`, fails: `undefined undefined`, first: from24},
		{name: "reject null", handler: `() => Promise.reject(null)`, fails: `object null`, first: from24},
		{name: "reject like an error", handler: `() => Promise.reject({name: "N", message: "m", stack: "s"})`, fails: `N m`, last: upTo22},
		{name: "reject like an error", handler: `() => Promise.reject({name: "N", message: "m", stack: "s"})`, fails: `object [object Object]`, first: from24},
		{name: "reject from another realm", handler: `() => Promise.reject(require("vm").runInNewContext("new EvalError('x')"))`, fails: `EvalError x`, last: upTo22},
		{name: "reject from another realm", handler: `() => Promise.reject(require("vm").runInNewContext("new EvalError('x')"))`, fails: `object EvalError: x`, first: from24},
		{name: "throw undefined", handler: `() => { throw undefined }`, want: `null`, last: upTo22},
		{name: "throw undefined", handler: `() => { throw undefined }`, fails: `undefined undefined`, first: from24},
		{name: "this", handler: `async function () { "use strict"; return typeof this === "object" && this !== globalThis }`, want: `true`},
		{name: "error with a throwing getter", handler: `async () => { throw Object.defineProperty(new Error("x"), "message", {get() { throw 1 }}) }`, fails: `handled ` + unreadable},
		{name: "error without stack", handler: `async () => { const e = new Error("x"); e.stack = undefined; throw e }`, fails: `handled ` + unreadable, last: upTo22},
		{name: "error without stack", handler: `async () => { const e = new Error("x"); e.stack = undefined; throw e }`, fails: `Error x`, first: from24},
		{name: "symbol", handler: `async () => { throw Symbol("s") }`, fails: `symbol Symbol(s)`},
		{name: "prototype-less object", handler: `async () => { throw Object.create(null) }`, fails: `handled ` + unreadable},

		{name: "never settles", handler: `() => new Promise(() => {})`, want: `null`, last: upTo22},
		{name: "never settles", handler: `() => new Promise(() => {})`, fails: `Runtime.NodeJsExit ` + neverSettled, first: from24},
		{name: "async never settles", handler: `async () => { await new Promise(() => {}) }`, fails: `Runtime.NodeJsExit ` + neverSettled},

		{name: "plain value", handler: `() => 5`, want: `5`, first: from24},
		{name: "nothing", handler: `() => {}`, want: `null`, first: from24},
		{name: "plain value", handler: `() => 5`, want: `null`, last: upTo22},
		{name: "drained", handler: `(e, c, cb) => { setTimeout(() => {}, 5) }`, want: `null`, last: upTo22},
		{name: "callback", handler: `(e, c, cb) => cb(null, {a: 1})`, want: `{"a":1}`, last: upTo22},
		{name: "callback nothing", handler: `(e, c, cb) => cb()`, want: `null`, last: upTo22},
		{name: "callback later", handler: `(e, c, cb) => { setTimeout(cb, 5, undefined, 2) }`, want: `2`, last: upTo22},
		{name: "callback error", handler: `(e, c, cb) => cb(new Error("no"))`, fails: `Error no`, last: upTo22},
		{name: "callback text", handler: `(e, c, cb) => cb("no")`, fails: `string no`, last: upTo22},
		{name: "callback waits", handler: `(e, c, cb) => { const o = {n: 0}; setTimeout(() => o.n++, 20); cb(null, o) }`, want: `{"n":1}`, last: upTo22},
		{name: "callback need not wait", handler: `(e, c, cb) => { c.callbackWaitsForEmptyEventLoop = false; setInterval(() => {}, 50); cb(null, c.callbackWaitsForEmptyEventLoop) }`, want: `false`, last: upTo22},
		{name: "callback with BigInt", handler: `(e, c, cb) => cb(null, 1n)`, fails: `Error Unable to stringify response body`, last: upTo22},
		{name: "throw after callback", handler: `(e, c, cb) => { cb(null, 1); throw new Error("late") }`, want: `1`, last: upTo22},
		{name: "only the first counts", handler: `(e, c, cb) => { c.succeed(1); c.succeed(2); c.fail("x"); cb("y"); c.done(null, 3) }`, want: `1`, last: upTo22},
		{name: "callback before the promise", handler: `async (e, c, cb) => { cb(null, 1); return 2 }`, want: `1`, last: upTo22},
		{name: "succeed", handler: `(e, c) => { setInterval(() => {}, 50); c.succeed({a: 1}) }`, want: `{"a":1}`, last: upTo22},
		{name: "fail", handler: `(e, c) => c.fail(new TypeError("f"))`, fails: `TypeError f`, last: upTo22},
		{name: "fail without reason", handler: `(e, c) => c.fail()`, fails: `string handled`, last: upTo22},
		{name: "done", handler: `(e, c) => c.done(null, [1])`, want: `[1]`, last: upTo22},
		{name: "done with error", handler: `(e, c) => c.done("e")`, fails: `string e`, last: upTo22},
	}
	each(t, func(t *testing.T, node interpreter) {
		for _, c := range cases {
			if c.last != 0 && node.major > c.last || node.major < c.first {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				p := start(t, function{node: node, code: files{"index.js": `exports.handler = ` + c.handler}})
				for range 2 {
					if c.want != "" {
						p.wantAnswer(`{"k":1}`, c.want)
						continue
					}
					kind, message, _ := strings.Cut(c.fails, " ")
					p.wantError(`{"k":1}`, kind, message)
					p.awaitLog(requestID + "\tERROR\tInvoke Error \t{\"errorType\":\"")
				}
			})
		}
	})
}

func TestErrorDocument(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, node interpreter) {
		p := start(t, function{node: node, code: files{"index.js": "exports.handler = async () => {\n  throw Object.assign(new TypeError('a\\nb'), {code: 'E1', extra: [1]})\n}"}})
		d := p.wantError(`{}`, "TypeError", "a\nb")
		if len(d.Trace) < 3 || d.Trace[0] != "TypeError: a" || d.Trace[1] != "b" || !strings.Contains(d.Trace[2], "index.js:2:") {
			t.Errorf("trace %q", d.Trace)
		}
		if n := len(d.Trace); n > 9 {
			t.Errorf("%d lines of the trace are not the function's: %q", n-3, d.Trace)
		}
		line := p.awaitLog("Invoke Error")
		_, object, _ := strings.Cut(line, "Invoke Error \t")
		if want := `{"errorType":"TypeError","errorMessage":"a\nb","code":"E1","extra":[1],"stack":["TypeError: a","b",`; !strings.HasPrefix(object, want) {
			t.Errorf("logged %s, want %s", object, want)
		}
	})
}

func TestContext(t *testing.T) {
	t.Parallel()
	const handler = `exports.handler = async (event, context) => ({
		keys: Object.keys(context), left: context.getRemainingTimeInMillis(), json: JSON.stringify(context),
		client: context.clientContext, identity: context.identity, trace: process.env._X_AMZN_TRACE_ID ?? null,
		env: ["AWS_EXECUTION_ENV", "LAMBDA_TASK_ROOT", "NODE_PATH", "_LAMBDA_TELEMETRY_LOG_FD"].map((n) => process.env[n] ?? null),
		cwd: process.cwd() === process.env.LAMBDA_TASK_ROOT, main: require.main === undefined, argv: process.argv.length, paths: module.paths[0].endsWith("/task/node_modules"),
		seen: Object.keys(require.cache).filter((k) => k.includes("client") && !k.endsWith("index.cjs")), arity: typeof globalThis.awslambda })`
	each(t, func(t *testing.T, node interpreter) {
		p := start(t, function{node: node, code: files{"index.js": handler}})
		inv := invocation(`{}`)
		inv.ClientContext = `{"client":{"app_title":"é"},"custom":{"a":1}}`
		inv.CognitoIdentity = `{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}`
		a, _ := p.exchange(inv)
		var got struct {
			Keys             []string
			Left             float64
			JSON             string
			Client, Identity json.RawMessage
			Trace            string
			Env              []*string
			CWD, Main        bool
			Argv             int
			Paths            bool
			Seen             []string
			Arity            string
		}
		if err := json.Unmarshal(a.Payload, &got); err != nil {
			t.Fatalf("%v in %s", err, a.Payload)
		}
		keys := "callbackWaitsForEmptyEventLoop succeed fail done functionVersion functionName memoryLimitInMB logGroupName logStreamName clientContext identity invokedFunctionArn awsRequestId tenantId getRemainingTimeInMillis"
		object := fmt.Sprintf(`{"callbackWaitsForEmptyEventLoop":true,"functionVersion":"$LATEST","functionName":"fn","memoryLimitInMB":"512","logGroupName":"/aws/lambda/fn","logStreamName":"stream","clientContext":%s,"identity":%s,"invokedFunctionArn":"arn:aws:lambda:us-east-1:000000000000:function:fn","awsRequestId":%q}`, inv.ClientContext, inv.CognitoIdentity, requestID)
		if node.major >= 24 {
			keys = "clientContext identity invokedFunctionArn awsRequestId tenantId xRayTraceId getRemainingTimeInMillis functionName functionVersion memoryLimitInMB logGroupName logStreamName"
			object = fmt.Sprintf(`{"clientContext":%s,"identity":%s,"invokedFunctionArn":"arn:aws:lambda:us-east-1:000000000000:function:fn","awsRequestId":%q,"xRayTraceId":%q,"functionName":"fn","functionVersion":"$LATEST","memoryLimitInMB":"512","logGroupName":"/aws/lambda/fn","logStreamName":"stream"}`, inv.ClientContext, inv.CognitoIdentity, requestID, inv.TraceHeader)
		}
		if s := strings.Join(got.Keys, " "); s != keys {
			t.Errorf("keys %s", s)
		}
		if got.JSON != object {
			t.Errorf("context %s\nwant    %s", got.JSON, object)
		}
		if got.Left <= 0 || got.Left > 3000 {
			t.Errorf("%v ms left of 3 s", got.Left)
		}
		if got.Trace != inv.TraceHeader {
			t.Errorf("trace %q", got.Trace)
		}
		if *got.Env[0] != fmt.Sprintf("AWS_Lambda_nodejs%d.x", node.major) || *got.Env[1] != p.task || got.Env[3] != nil ||
			!strings.Contains(*got.Env[2], fmt.Sprintf("/opt/nodejs/node%d/node_modules:", node.major)) {
			t.Errorf("environment %s", a.Payload)
		}
		if !got.CWD || !got.Main || got.Argv != 2 || !got.Paths || len(got.Seen) != 0 || got.Arity != "object" {
			t.Errorf("surroundings %s", a.Payload)
		}

		plain := invocation(`{}`)
		plain.TraceHeader = ""
		a, _ = p.exchange(plain)
		if !strings.Contains(string(a.Payload), `"trace":null`) || strings.Contains(string(a.Payload), `"client"`) || strings.Contains(string(a.Payload), `"identity":{`) {
			t.Errorf("the next invocation sees what was the last one's: %s", a.Payload)
		}

		for field, set := range map[string]func(string){
			"ClientContext":   func(s string) { inv.ClientContext, inv.CognitoIdentity = s, "" },
			"CognitoIdentity": func(s string) { inv.ClientContext, inv.CognitoIdentity = "", s },
		} {
			set(`{`)
			a, _ = p.exchange(inv)
			if d := decode(t, a.Payload); d.Type != "Error" || !strings.HasPrefix(d.Message, "Cannot parse "+field+" as json: SyntaxError: ") {
				t.Errorf("%s that is not JSON: %s", field, a.Payload)
			}
		}
		a = p.invoke(`{"a":`)
		if d := decode(t, a.Payload); d.Type != "SyntaxError" {
			t.Errorf("event that is not JSON: %s", a.Payload)
		}
	})
}

// The signature with a callback is announced to end up to 22 and refused from 24 on.
func TestCallbackSignature(t *testing.T) {
	t.Parallel()
	const announcement = "undefined\tWARN\tAWS Lambda plans to remove support for callback-based function handlers starting with Node.js 24."
	each(t, func(t *testing.T, node interpreter) {
		for _, c := range []struct {
			name, handler string
			vars          map[string]string
			announced     bool
			refused       bool
		}{
			{name: "callback", handler: `(e, c, cb) => cb()`, announced: true, refused: true},
			{name: "async with three", handler: `async (e, c, cb) => 1`, refused: true},
			{name: "two", handler: `async (e, c) => 1`},
			{name: "default", handler: `async (e, c, cb = null) => 1`},
			{name: "quiet", handler: `(e, c, cb) => cb()`, vars: map[string]string{"AWS_LAMBDA_NODEJS_DISABLE_CALLBACK_WARNING": ""}, refused: true},
			{name: "streaming", handler: `awslambda.streamifyResponse(async (e, s, c) => { s.end() })`},
		} {
			t.Run(c.name, func(t *testing.T) {
				p := start(t, function{node: node, code: files{"index.js": `exports.handler = ` + c.handler}, vars: c.vars})
				if node.major >= 24 && c.refused {
					d := p.initError()
					if d.Type != "Runtime.CallbackHandlerDeprecated" || !strings.HasPrefix(d.Message, "ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24.") {
						t.Errorf("refused with %+v", d)
					}
					return
				}
				if a := p.invoke(`{}`); a.ErrorType != "" {
					t.Errorf("failed: %s", a.Payload)
				}
				if node.major < 24 && c.announced {
					p.awaitLog(announcement)
				} else if logs := p.logs(); len(logs) > 0 {
					t.Errorf("logged %q", logs)
				}
			})
		}
	})
}

// The identifier decides about the rules, not the interpreter that serves it.
func TestSubstitute(t *testing.T) {
	t.Parallel()
	p := start(t, function{node: find(t, 24), id: "nodejs22.x", code: files{"index.js": `exports.handler = (e, c, cb) => cb(null, 1)`}})
	p.wantAnswer(`{}`, `1`)
	p = start(t, function{node: find(t, 20), id: "nodejs24.x", code: files{"index.js": `exports.handler = (e) => e`}})
	p.wantAnswer(`2`, `2`)
}

func TestLateCallback(t *testing.T) {
	t.Parallel()
	for _, major := range []int{20, 22} {
		p := start(t, function{node: find(t, major), code: files{"index.js": `
			let late
			exports.handler = (e, c, cb) => { if (late) { late(null, "late"); cb(null, 2) } else late = cb }`}})
		p.wantAnswer(`{}`, `null`)
		p.wantAnswer(`{}`, `2`)
		p.awaitLog("ERROR\t" + twice)
	}
}

// Errors that nothing caught end the process: up to 22 after the answer has been
// posted, from 24 on at once, as Node.js itself has it.
func TestUncaught(t *testing.T) {
	t.Parallel()
	t.Run("modern", func(t *testing.T) {
		t.Parallel()
		for name, code := range map[string]string{
			"exception":                     `exports.handler = async () => { setTimeout(() => { throw new RangeError("x") }); await new Promise((r) => setTimeout(r, 9000)) }`,
			"rejection":                     `exports.handler = async () => { Promise.reject(new RangeError("x")); await new Promise((r) => setTimeout(r, 9000)) }`,
			"rejection left by a module":    `Promise.reject(); exports.handler = async () => 1`,
			"rejection between invocations": `exports.handler = async () => { setTimeout(() => Promise.reject(1), 5) }`,
		} {
			p := start(t, function{node: find(t, 24), code: files{"index.js": code}})
			p.api.Offer(invocation(`{}`))
			if got := p.exit(); got != 1 || !strings.Contains(p.stderr.String(), "Node.js v24") {
				t.Errorf("%s: exit status %d, %s", name, got, p.stderr.String())
			}
		}
	})
	const wait = `new Promise((r) => setTimeout(r, 1000))`
	each(t, func(t *testing.T, node interpreter) {
		if node.major >= 24 {
			t.Skip("there is no report")
		}
		for _, c := range []struct {
			name, code, errorType, message, label string
			exit                                  int
			init                                  bool
		}{
			{"exception", `exports.handler = async () => { setTimeout(() => { throw new RangeError("x") }); await ` + wait + ` }`, "RangeError", "x", "Uncaught Exception", 129, false},
			{"exception that is no error", `exports.handler = async () => { setTimeout(() => { throw "x" }); await ` + wait + ` }`, "string", "x", "Uncaught Exception", 129, false},
			{"rejection", `exports.handler = async () => { Promise.reject(new RangeError("x")); await ` + wait + ` }`, "Runtime.UnhandledPromiseRejection", "RangeError: x", "Unhandled Promise Rejection", 128, false},
			{"exception in init", `setTimeout(() => { throw new RangeError("x") }); exports.handler = 1; const until = Date.now() + 1; while (Date.now() < until); throw new RangeError("x")`, "RangeError", "x", "", 129, true},
		} {
			t.Run(c.name, func(t *testing.T) {
				p := start(t, function{node: node, code: files{"index.js": c.code}})
				if c.init {
					if d := p.initError(); d.Type != c.errorType || d.Message != c.message {
						t.Errorf("init failed with %+v", d)
					}
				} else {
					p.wantError(`{}`, c.errorType, c.message)
					p.awaitLog("\tERROR\t" + c.label + " \t{\"errorType\":\"")
				}
				p.wantExit(c.exit)
			})
		}
		t.Run("rejection while a module loads", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.mjs": `Promise.reject(new Error("x")); await new Promise((r) => setTimeout(r, 1000)); export const handler = 1`}})
			if d := p.initError(); d.Type != "Runtime.UnhandledPromiseRejection" || d.Message != "Error: x" {
				t.Errorf("init failed with %+v", d)
			}
			p.wantExit(128)
		})
		t.Run("rejection left by a module", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.js": `Promise.reject(); exports.handler = async () => 1`}})
			if d := p.initError(); d.Type != "Runtime.UnhandledPromiseRejection" || d.Message != "" {
				t.Errorf("init failed with %+v", d)
			}
			p.wantExit(128)
		})
		t.Run("rejection between invocations", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.js": `exports.handler = async () => { setTimeout(() => Promise.reject(1), 5) }`}})
			p.wantAnswer(`{}`, `null`)
			p.wantExit(128)
		})
		t.Run("exit in the handler", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.js": `exports.handler = async () => process.exit(3)`}})
			p.api.Offer(invocation(`{}`))
			p.wantExit(3)
		})
		t.Run("exit in the module", func(t *testing.T) {
			p := start(t, function{node: node, code: files{"index.js": `process.exit(0)`}})
			p.wantExit(0)
		})
	})
}

// What is left running goes on, and what one invocation stored stays with it.
func TestBetweenInvocations(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, node interpreter) {
		p := start(t, function{node: node, code: files{"index.js": `
			const { AsyncLocalStorage } = require("async_hooks")
			const storage = new AsyncLocalStorage()
			let n = 0, ticks = 0
			exports.handler = async () => {
				const stored = storage.getStore() ?? null
				storage.enterWith(++n)
				await null
				setImmediate(() => console.log("same invocation"))
				setInterval(() => ticks++, 1)
				return { n, stored, ticked: ticks > 0 }
			}`}})
		p.wantAnswer(`{}`, `{"n":1,"stored":null,"ticked":false}`)
		p.awaitLog("same invocation")
		time.Sleep(20 * time.Millisecond) // lets the interval run: it is what is tested
		p.wantAnswer(`{}`, `{"n":2,"stored":null,"ticked":true}`)
	})
}
