'use strict';

// Built-ins that the client relies on after the function's code has been loaded.
// A function may replace any of them (polyfills, mocks and tracers do); taking
// them now keeps such a function's next invocation working.

const { apply } = Reflect;
const { bind, call } = Function.prototype;

// method(f)(self, ...args) is f called on self, whatever became of f.call since.
const method = (f) => apply(bind, call, [f]);

module.exports = {
  apply,
  method,

  parse: JSON.parse,
  stringify: JSON.stringify,
  assign: Object.assign,
  now: Date.now,
  Date,
  Error,
  TypeError,
  toISOString: method(Date.prototype.toISOString),

  String,
  Number,
  indexOf: method(String.prototype.indexOf),
  slice: method(String.prototype.slice),
  split: method(String.prototype.split),
  trim: method(String.prototype.trim),
  toLowerCase: method(String.prototype.toLowerCase),
  replace: method(String.prototype.replace),
  replaceAll: method(String.prototype.replaceAll),
  encodeURIComponent,

  PromiseResolve: method(Promise.resolve).bind(null, Promise),
  then: method(Promise.prototype.then),
  queueMicrotask,
  setImmediate,
  process,
  exit: process.exit.bind(process),
  cwd: process.cwd.bind(process),

  byteLength: Buffer.byteLength,
  allocate: Buffer.allocUnsafeSlow, // never from the pool: a slice of it would keep 8 KiB alive
  bufferFrom: Buffer.from,
  copy: method(Buffer.prototype.copy),
  find: method(Buffer.prototype.indexOf),
  utf8: method(Buffer.prototype.utf8Slice),
  base64: method(Buffer.prototype.base64Slice),
  readUInt32BE: method(Buffer.prototype.readUInt32BE),
  writeUInt32BE: method(Buffer.prototype.writeUInt32BE),
};
