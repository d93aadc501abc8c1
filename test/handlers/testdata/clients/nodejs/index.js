// What two runtime clients are compared by: each property is one behaviour, named
// by the event. An event without a name is answered with all names.
const { Readable } = require("node:stream");
const { pipeline } = require("node:stream/promises");

const later = (ms, value) => new Promise((done) => setTimeout(done, ms, value));
class Custom extends Error {
  name = "Custom";
}
const failing = (message, get) => Object.defineProperty(new Error("x"), message, { get });

const results = {
  "event": async (event) => event,
  "undefined": async () => {},
  "null": async () => null,
  "text": async () => "é😀\u2028\x7f\ud800",
  "date": async () => new Date(0),
  "buffer": async () => Buffer.from("ab"),
  "map": async () => ({ map: new Map([[1, 2]]), set: new Set([1]), nan: NaN, nothing: undefined, fn() {} }),
  "after a timer": () => later(5, 7),
  "thenable": () => ({ then: (ok) => setTimeout(ok, 1, 3) }),
  "thenable that rejects": () => ({ then: (_, no) => no(new TypeError("x")) }),
  "then that is no function": async () => ({ then: 5 }),
  "function": async () => () => 1,
  "symbol": async () => Symbol("s"),
  "BigInt": async () => 1n,
  "circular": async () => { const a = {}; a.a = a; return a; },
  "toJSON that throws": async () => ({ toJSON() { throw new Error("no"); } }),
  "plain value": () => 5,
  "plain nothing": () => {},
  "never settles": () => new Promise(() => {}),
  "too large": async () => "x".repeat(6 << 20) + "x".repeat(200),
};

const errors = {
  "throw": () => { throw new RangeError("a\x7fb"); },
  "reject": async () => { throw new Custom("m"); },
  "lines": async () => { throw new Error("one\ntwo é"); },
  "properties": async () => { throw Object.assign(new Error("m"), { code: "E1", extra: [1, { a: 2 }] }); },
  "cause": async () => { throw new Error("outer", { cause: new TypeError("inner") }); },
  "aggregate": async () => { throw new AggregateError([new Error("a"), new TypeError("b")], "both"); },
  "text": () => Promise.reject("text"),
  "number": () => Promise.reject(4),
  "object": () => Promise.reject({ a: 1 }),
  "nothing": () => Promise.reject(),
  "null": () => Promise.reject(null),
  "like an error": () => Promise.reject({ name: "N", message: "m", stack: "s" }),
  "another realm": () => Promise.reject(require("node:vm").runInNewContext("new EvalError('x')")),
  "message that throws": async () => { throw failing("message", () => { throw 1; }); },
  "no stack": async () => { throw Object.assign(new Error("x"), { stack: undefined }); },
  "no message": async () => { throw new Error(); },
  "symbol": async () => { throw Symbol("s"); },
  "no prototype": async () => { throw Object.create(null); },
  "throw undefined": () => { throw undefined; },
  "circular": async () => { const e = new Error("x"); e.self = e; throw e; },
};

const ends = {
  "exit 0": () => process.exit(0),
  "exit 3": async () => process.exit(3),
  "kill": async () => { process.kill(process.pid, "SIGKILL"); await later(5000); },
  "uncaught": async () => { setTimeout(() => { throw new RangeError("x"); }); await later(5000); },
  "uncaught text": async () => { setTimeout(() => { throw "x"; }); await later(5000); },
  "rejection": async () => { Promise.reject(new RangeError("x")); await later(5000); },
  "rejection of nothing": async () => { Promise.reject(); await later(5000); },
};

const surroundings = {
  "context": async (_, context) => JSON.parse(JSON.stringify(context)),
  "context keys": async (_, context) => Object.keys(context),
  "context of the caller": async (_, { clientContext, identity }) => ({ clientContext, identity }),
  "remaining": async (_, context) => context.getRemainingTimeInMillis() > 5000 && context.getRemainingTimeInMillis() <= 20000,
  "variables": async () => Object.fromEntries(Object.entries(process.env).filter(([name]) => !/KEY|TOKEN|STREAM|FUNCTION_NAME|LOG_GROUP|API|ENDPOINT/.test(name))),
  "trace": async (_, context) => [process.env._X_AMZN_TRACE_ID.replace(/=[0-9a-f-]+/g, "="), context.xRayTraceId === process.env._X_AMZN_TRACE_ID],
  "folder": async () => process.cwd(),
  "main": async () => require.main === undefined,
  "module": async () => [module.id, module.paths[0], __filename],
  "this": async function () { return this === undefined ? "undefined" : this === globalThis ? "global" : typeof this; },
  "awslambda": async () => Object.keys(awslambda).sort(),
  "store": async (_, context) => {
    if (!awslambda.InvokeStore) return "none";
    const store = await awslambda.InvokeStore;
    return [store.getRequestId() === context.awsRequestId, store.getXRayTraceId() === context.xRayTraceId, store.getTenantId() ?? null, store.hasContext(),
      Object.keys(store.getContext()).length, store.set("mine", 1) ?? store.get("mine"), store.constructor.name,
      (() => { try { store.set(Symbol.for("_AWS_LAMBDA_REQUEST_ID"), 1); } catch (e) { return e.message; } })()];
  },
  "gc": async () => typeof gc,
  "console": async () => Object.keys(console).filter((key) => typeof console[key] === "function").sort(),
  "symbols": async () => Object.getOwnPropertySymbols(globalThis).map(String).filter((s) => s.includes("lambda") && !s.includes("beforeExit")).sort(),
};

const circle = { c: 1 };
circle.self = circle;
const logs = {
  "log levels": async () => { for (const level of ["trace", "debug", "info", "log", "warn", "error", "fatal"]) console[level](level, 1); },
  "log formats": async () => { console.log("%s %d %i %f %j %o %O %%", "a", 1.5, 1.5, 1.5, { a: 1 }, [1], { b: 2 }, "more"); },
  "log values": async () => { for (const value of [undefined, null, 5, true, 1n, Symbol("s"), [1, "a"], { a: { b: { c: { d: 1 } } } }, new Date(0), /x/, "", "text é"]) console.log(value); },
  "log nothing": async () => { console.log(); console.error(); },
  "log objects": async () => { console.log({ a: 1 }, new Map([[1, 2]])); console.log(circle); console.log("circle", circle); },
  "log lines": async () => { console.log("one\ntwo\n"); console.warn("one\r\ntwo"); },
  "log errors": async () => { console.error(new Custom("m")); console.error("text", new Custom("m")); console.log(Object.assign(new Error("m"), { code: 7 })); console.warn(new Custom("first"), new TypeError("second")); },
  "log nested errors": async () => { console.log({ error: new TypeError("n") }); },
  "log others": async () => { console.group("group"); console.log("in it"); console.groupEnd(); console.assert(false, "asserted"); console.count(); },
  "log unformatted": async () => console.dir({ a: 1 }),
  "log table": async () => console.table([{ a: 1 }]),
  "log to stdout": async () => { process.stdout.write("out\nnext\n"); },
  "log to stderr": async () => { process.stderr.write("err\nnext\n"); },
  "log large": async () => { console.log("x".repeat(70000)); },
};

const callbacks = {
  "callback": (_e, _c, done) => done(null, { a: 1 }),
  "callback nothing": (_e, _c, done) => done(),
  "callback error": (_e, _c, done) => done(new Custom("no")),
  "callback text": (_e, _c, done) => done("no"),
  "callback false": (_e, _c, done) => done(false),
  "callback later": (_e, _c, done) => { setTimeout(done, 5, undefined, 2); },
  "callback waits": (_e, _c, done) => { const o = { n: 0 }; setTimeout(() => o.n++, 20); done(null, o); },
  "callback does not wait": (_e, c, done) => { c.callbackWaitsForEmptyEventLoop = false; const t = setTimeout(() => {}, 2000); t.unref(); done(null, c.callbackWaitsForEmptyEventLoop); },
  "callback BigInt": (_e, _c, done) => done(null, 1n),
  "callback and throw": (_e, _c, done) => { done(null, 1); throw new Error("late"); },
  "callback twice": (_e, c, done) => { c.callbackWaitsForEmptyEventLoop = false; done(null, 1); done(null, 2); },
  "callback error twice": (_e, _c, done) => { done(new Error("first")); done(new Error("second")); },
  "callback and promise": async (_e, _c, done) => { done(null, 1); return 2; },
  "promise and callback": async (_e, _c, done) => { setTimeout(done, 5, null, 1); return 2; },
  "succeed": (_e, c) => { const t = setInterval(() => {}, 50); t.unref(); c.succeed({ a: 1 }); },
  "succeed nothing": (_e, c) => c.succeed(),
  "fail": (_e, c) => c.fail(new TypeError("f")),
  "fail nothing": (_e, c) => c.fail(),
  "done": (_e, c) => c.done(null, [1]),
  "done with error": (_e, c) => c.done("e"),
  "first of many": (_e, c, done) => { c.succeed(1); c.fail("x"); done("y"); c.done(null, 3); },
  "drained": () => { setTimeout(() => {}, 5); },
};

const streams = {
  "writes": async (_e, s) => { s.write("a"); s.write(Buffer.from("b")); s.write(new Uint8Array([99])); s.end("é"); },
  "values": async (_e, s) => { s.write({ a: 1 }); s.write([2]); s.end(); },
  "nothing": async (_e, s) => s.end(),
  "empty": async (_e, s) => { s.write(""); s.write("a"); s.end(""); },
  "type": async (_e, s) => { s.setContentType("text/html"); s.end("x"); },
  "prelude": async (_e, s) => { s = awslambda.HttpResponseStream.from(s, { statusCode: 201, headers: { a: "b" }, cookies: ["c=d"] }); s.write("x"); s.end(); },
  "prelude without body": async (_e, s) => { s = awslambda.HttpResponseStream.from(s, { statusCode: 204 }); s.end(); },
  "pipeline": (_e, s) => pipeline(Readable.from(["a", "b"]), s),
  "pipeline fails": (_e, s) => pipeline(async function* () { yield "a"; throw new TypeError("p"); }, s),
  "large": async (_e, s) => { for (let i = 0; i < 20; i++) if (!s.write(Buffer.alloc(100_000, 97))) await require("node:events").once(s, "drain"); s.end(); },
  "finish": async (_e, s) => { const done = require("node:events").once(s, "finish"); s.end("x"); await done; },
  "properties": async (_e, s) => { const seen = [s.writable, s.writableEnded, s.writableFinished, s.destroyed, typeof s.cork, typeof s.setContentType, s.writableHighWaterMark, s.writableNeedDrain, s.writableLength, s.writableObjectMode, s.writableCorked]; s.end(JSON.stringify(seen)); },
  "backpressure": async (_e, s) => { const full = [s.write("a".repeat(10)), s.write("b".repeat(2000)), s.write("c".repeat(20000))]; s.end(JSON.stringify(full)); },
  "events": async (_e, s) => { const seen = []; for (const e of ["drain", "finish", "close", "error", "pipe"]) s.on(e, () => seen.push(e)); s.write("x".repeat(100000)); s.end(); await later(50); console.log(seen); },
  "cork": async (_e, s) => { s.cork(); s.write("a"); s.write("b"); s.uncork(); s.end("c"); },
  "callbacks": async (_e, s) => { await new Promise((done) => s.write("a", done)); await new Promise((done) => s.write("b", "utf8", done)); await new Promise((done) => s.end("c", done)); },
  "encodings": async (_e, s) => { s.write("61", "hex"); s.end("Yg==", "base64"); },
  "value": async (_e, s) => { s.end("x"); return 1; },
  "never ends": async (_e, s) => { s.write("a"); },
  "context": async (_e, s, context) => s.end(JSON.stringify(Object.keys(context))),
};

// From 24 on AWS's published client asks for the next event while the error of a stream
// is on its way, and may end over that.
const failures = {
  "not async": () => {},
  "type too late": async (_e, s) => { s.write("a"); s.setContentType("x"); s.end(); },
  "throws": async () => { throw new Custom("t"); },
  "write after end": async (_e, s) => { s.end("a"); await later(50); s.write("b"); await later(50); },
};

const within = (groups) => {
  const all = {};
  for (const [group, cases] of Object.entries(groups)) for (const [name, f] of Object.entries(cases)) all[`${group}: ${name}`] = f;
  return (event, ...rest) => (event.do === undefined ? Object.keys(all) : all[event.do].call(undefined, event, ...rest));
};

const modern = within({ results, errors, ends, surroundings, logs });
exports.modern = (event, context) => (event.do === undefined ? Promise.resolve(modern(event)) : modern(event, context));
const old = within({ results, errors, ends, surroundings, logs, callbacks });
exports.handler = (event, context, callback) => (event.do === undefined ? callback(null, old(event)) : old(event, context, callback));
const streamed = within({ streams, failures });
if (globalThis.awslambda) {
  exports.low = awslambda.streamifyResponse(async (_event, stream) => stream.end(String(stream.writableHighWaterMark)), { highWaterMark: 10 });
  exports.streamed = awslambda.streamifyResponse((event, stream, context) =>
    event.do === undefined ? Promise.resolve(stream.end(JSON.stringify(streamed(event)))) : streamed(event, stream, context));
}
exports.nested = { deep: { handler: exports.modern } };
exports.number = 5;
exports.three = async (_event, _context, _callback) => 3;
exports.request = async () => 1;
exports.request[Symbol.for("aws.lambda.runtime.handler.streaming")] = "request";
exports.variables = surroundings.variables;
