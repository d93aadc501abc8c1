'use strict';

// Handlers that answer by a stream: awslambda.streamifyResponse. Loaded only for
// functions that do.
// https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html

const { Writable } = require('node:stream');
const { Error, PromiseResolve, apply, assign, parse, stringify, then } = require('./captured.cjs');
const { RuntimeError, errorDocument, headerValue } = require('./errors.cjs');
const { LEVELS, log, logError } = require('./log.cjs');
const { fillContext } = require('./context.cjs');
const { NEVER_SETTLED, isThenable } = require('./runtime.cjs');
const { modern } = require('./contract.cjs');

// See the Receiver of runtime.cjs.
const Receiver = modern ? class StreamingInvokeProcessor {} : class Runtime {};

// ResponseStream is what a handler writes its answer to. Nothing is sent before
// the first write, so that the content type can still be chosen.
class ResponseStream extends Writable {
  #api;
  #id;
  #contentType = 'application/octet-stream';
  #request = null;
  #touched = false;
  #failure = null;
  #finished = false;

  constructor(api, id, highWaterMark) {
    super({ highWaterMark });
    this.#api = api;
    this.#id = id;
  }

  setContentType(type) {
    if (this.#touched) throw new RuntimeError('Runtime.InvalidStreamingOperation', 'Cannot set content-type, too late.');
    this.#contentType = headerValue(type);
  }

  write(chunk, encoding, done) {
    this.#touch();
    if (typeof chunk !== 'string' && !(chunk instanceof Uint8Array)) chunk = stringify(chunk);
    return super.write(chunk, encoding, done);
  }

  end(chunk, encoding, done) {
    this.#touch();
    if (typeof chunk === 'function') {
      super.end(chunk);
    } else {
      if (chunk !== undefined && chunk !== null) this.write(chunk, typeof encoding === 'string' ? encoding : undefined);
      super.end(typeof encoding === 'function' ? encoding : done);
    }
    return modern ? this : undefined; // as on AWS: handlers that return it are warned from 24 on only
  }

  // fail ends the answer as an error, after whatever of it was written before.
  fail(document, done) {
    this.#failure = document;
    if (this.writableFinished || this.#finished) done();
    else if (this.destroyed) this._final(done);
    else if (this.writableEnded) this.once('close', done);
    else super.end(() => done());
  }

  _write(chunk, _encoding, done) {
    if (chunk.length === 0) done(); // an empty chunk would end the body
    else this.#api.write(this.#open(), chunk, done);
  }

  _final(done) {
    this.#finished = true;
    this.#api.finish(this.#open(), this.#failure, done);
  }

  // touch writes what must precede the first byte: the prelude of an HTTP answer.
  #touch() {
    if (this.#touched) return;
    this.#touched = true;
    if (typeof this._onBeforeFirstWrite === 'function') this._onBeforeFirstWrite((chunk) => super.write(chunk));
  }

  #open() {
    if (this.#request === null) this.#request = this.#api.stream(this.#id, this.#contentType);
    return this.#request;
  }
}

// StreamedInvocation is one event for a handler that answers by a stream.
class StreamedInvocation {
  #runtime;
  #stream;
  #over = false;
  #waits = true; // for an empty event loop before the next event, up to 22

  constructor(runtime, id, highWaterMark) {
    this.#runtime = runtime;
    this.#stream = new ResponseStream(runtime.api, id, highWaterMark);
    runtime.lifecycle.whenIdle = () => {
      if (this.#stream.writableFinished) this.#end();
      else this.#fail(new RuntimeError('Runtime.NodeJsExit', NEVER_SETTLED));
    };
    runtime.lifecycle.fail = (_error, document, done) => {
      this.#over = true;
      this.#stream.fail(document, () => runtime.api.settled(done));
    };
  }

  start(handler, self, headers, body) {
    try {
      const context = fillContext(this.#context(), headers);
      const result = apply(handler, self, [parse(body), this.#stream, context]);
      if (!isThenable(result)) {
        this.#fail(this.#complaint('Streaming does not support non-async handlers.'));
        return;
      }
      then(
        PromiseResolve(result),
        (value) => this.#returned(value),
        (error) => this.#fail(error),
      );
    } catch (error) {
      this.#fail(error);
    }
  }

  #context() {
    if (modern) return {};
    const invocation = this;
    return {
      get callbackWaitsForEmptyEventLoop() {
        return invocation.#waits;
      },
      set callbackWaitsForEmptyEventLoop(value) {
        invocation.#waits = value;
      },
    };
  }

  // complaint is a string up to 22, as it is on AWS.
  #complaint(message) {
    return modern ? new Error(message) : message;
  }

  // returned: the handler is through, but something may still write to the stream.
  #returned(value) {
    if (value !== undefined) log(LEVELS.WARN, 'Streaming handlers ignore return values.');
    if (this.#over) return;
    if (this.#stream.writableFinished) {
      this.#end();
      return;
    }
    this.#runtime.lifecycle.whenIdle = () => this.#fail(this.#complaint('Response stream is not finished.'));
    this.#stream.once('close', () => {
      if (this.#stream.writableFinished) this.#end();
      else this.#fail(this.#stream.errored ?? this.#complaint('Response stream is not finished.'));
    });
  }

  #fail(error) {
    if (this.#over) return;
    const document = errorDocument(error);
    logError('Invoke Error', error, document);
    this.#over = true;
    this.#stream.fail(document, () => this.#next());
  }

  #end() {
    if (this.#over) return;
    this.#over = true;
    this.#next();
  }

  #next() {
    const { lifecycle } = this.#runtime;
    if (!modern && this.#waits) lifecycle.whenIdle = () => this.#runtime.takeNext();
    else {
      lifecycle.whenIdle = null;
      this.#runtime.takeNext();
    }
  }
}

// streamed returns how to begin an invocation of a handler that streams.
function streamed(handler, highWaterMark) {
  const self = assign(new Receiver(), { handler });
  return (runtime, id, headers, body) => new StreamedInvocation(runtime, id, highWaterMark).start(handler, self, headers, body);
}

module.exports = { streamed };
