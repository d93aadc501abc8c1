'use strict';

// The loop: take an event, call the handler, post what came of it.

const { Error, PromiseResolve, TypeError, apply, assign, exit, parse, queueMicrotask, setImmediate, stringify, then } = require('./captured.cjs');
const { RuntimeError, errorCause, errorDocument } = require('./errors.cjs');
const { fillContext } = require('./context.cjs');
const { modern } = require('./contract.cjs');
const { LEVELS, complain, log, logError, setRequest } = require('./log.cjs');

const NEVER_SETTLED =
  'The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a Promise ' +
  'that was never settled. For more information, see https://nodejs.org/docs/latest/api/process.html#exit-codes';

// What a handler has as this: an object of the runtime's, which holds it as handler,
// and never the global one. Traces name it, so its class is called as on AWS.
const Receiver = modern ? class BufferedInvokeProcessor {} : class Runtime {};

function isAsync(handler) {
  return Object.prototype.toString.call(handler) === '[object AsyncFunction]';
}

const ANSWERED_TWICE =
  'Invocation has already been reported as done. Cannot call complete more than once per invocation.';

class Runtime {
  api;
  lifecycle;
  #begin;

  // begin(runtime, headers, body) starts one invocation and calls
  // runtime.takeNext when it is over.
  constructor(api, lifecycle, begin) {
    this.api = api;
    this.lifecycle = lifecycle;
    this.#begin = begin;
  }

  run() {
    this.lifecycle.whenIdle = null;
    this.lifecycle.fail = (_error, _document, done) => done();
    this.#next();
  }

  // takeNext asks for the next event after one turn of the event loop, so that
  // what the handler left for that turn still belongs to its own invocation.
  takeNext() {
    this.api.hold();
    setImmediate(() => this.#next());
  }

  #next() {
    if (this.lifecycle.dying) return;
    this.api.next((status, headers, body) => {
      if (status !== 200) {
        if (status === 0) complain('The Runtime API does not answer; ending.');
        else complain(`The Runtime API refused to give an event (HTTP ${status}); ending.`);
        exit(1);
      }
      const id = headers['lambda-runtime-aws-request-id'];
      setRequest(id, headers['lambda-runtime-aws-tenant-id'], headers['lambda-runtime-trace-id']);
      // A microtask has an asynchronous context of its own, so that what the
      // handler stores in AsyncLocalStorage does not reach the next invocation, and
      // a short stack, so that the ten lines of an error's trace are the function's.
      queueMicrotask(() => this.#begin(this, id, headers, body));
    });
  }
}

// serialise is the JSON of a result; it throws what AWS reports when there is none.
function serialise(result) {
  let body;
  try {
    body = stringify(result === undefined ? null : result);
  } catch {
    const message = 'Unable to stringify response body';
    throw modern ? new RuntimeError('Runtime.JSONStringifyError', message) : new Error(message);
  }
  // A function or symbol has no JSON; AWS's native client refuses it in these words.
  if (body === undefined) throw new TypeError('Wrong arguments');
  return body;
}

function isThenable(value) {
  return value !== null && (typeof value === 'object' || typeof value === 'function') && typeof value.then === 'function';
}

// Invocation is one event for a handler that answers at once rather than by a stream.
class Invocation {
  #runtime;
  #id;
  #answered = false; // something was posted
  #decided = false; // callback, done, succeed, fail or the result was used: only the first counts
  #fails; // when nothing is left that could answer, or else null is the answer

  constructor(runtime, id, fails) {
    this.#runtime = runtime;
    this.#id = id;
    this.#fails = fails;
    runtime.lifecycle.whenIdle = () => this.#drained();
    runtime.lifecycle.fail = (error, document, done) => this.#die(error, document, done);
  }

  // start calls the handler as from 24 on.
  start(handler, self, headers, body) {
    try {
      const event = parse(body);
      const context = fillContext({}, headers);
      const result = apply(handler, self, [event, context]);
      if (isThenable(result)) this.#follow(result);
      else this.#settle(null, result);
    } catch (error) {
      this.#reject(error);
    }
  }

  // startWithCallback calls it as up to 22, where a plain result does not count.
  startWithCallback(handler, self, headers, body) {
    const { object, waits } = this.#callbackContext();
    const callback = (error, result) => this.#called(error, result, waits());
    try {
      const event = parse(body);
      const context = fillContext(object, headers);
      const result = apply(handler, self, [event, context, callback]);
      if (isThenable(result)) this.#follow(result);
    } catch (error) {
      callback(error); // so that throwing null succeeds, as on AWS
    }
  }

  #follow(promise) {
    then(
      PromiseResolve(promise),
      (result) => this.#settle(null, result),
      (error) => this.#reject(error),
    );
  }

  #callbackContext() {
    let waits = true;
    const object = {
      get callbackWaitsForEmptyEventLoop() {
        return waits;
      },
      set callbackWaitsForEmptyEventLoop(value) {
        waits = value;
      },
      succeed: (result) => this.#settle(null, result),
      fail: (error) => this.#reject(error),
      done: (error, result) => this.#settle(error, result),
    };
    return { object, waits: () => waits };
  }

  // reject is a failure whose reason may be nothing.
  #reject(error) {
    if (!modern) {
      this.#settle(error === undefined || error === null ? 'handled' : error, undefined);
    } else if (!this.#decided && !this.#answered) {
      this.#decided = true;
      this.#fail(error);
    }
  }

  // called is the callback: its result waits for an empty event loop unless told otherwise.
  #called(error, result, waits) {
    if (this.#decided || this.#answered || !waits || (error !== undefined && error !== null)) {
      this.#settle(error, result);
      return;
    }
    this.#decided = true;
    this.#runtime.lifecycle.whenIdle = () => this.#succeed(result);
  }

  // settle is the end by any other way.
  #settle(error, result) {
    if (this.#decided) return;
    this.#decided = true;
    if (this.#answered) {
      if (!this.#runtime.lifecycle.dying) log(LEVELS.ERROR, ANSWERED_TWICE);
    } else if (error !== undefined && error !== null) {
      this.#fail(error);
    } else {
      this.#succeed(result);
    }
  }

  #succeed(result) {
    let body;
    try {
      body = serialise(result);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#end();
    this.#runtime.api.respond(this.#id, body, () => {});
    this.#runtime.takeNext();
  }

  #fail(error) {
    const document = errorDocument(error);
    logError('Invoke Error', error, document);
    this.#end();
    this.#runtime.api.fail(this.#id, document, errorCause(error), () => {});
    this.#runtime.takeNext();
  }

  // drained: nothing is left that could still answer.
  #drained() {
    if (this.#fails) this.#fail(new RuntimeError('Runtime.NodeJsExit', NEVER_SETTLED));
    else this.#succeed(null);
  }

  #end() {
    this.#answered = true;
    this.#runtime.lifecycle.whenIdle = null;
  }

  #die(error, document, done) {
    if (this.#answered) {
      this.#runtime.api.settled(done);
      return;
    }
    this.#end();
    this.#runtime.api.fail(this.#id, document, errorCause(error), done);
  }
}

// buffered returns how to begin an invocation of a handler that answers at once.
function buffered(handler) {
  if (modern) {
    const self = assign(new Receiver(), { handler });
    return (runtime, id, headers, body) => new Invocation(runtime, id, true).start(handler, self, headers, body);
  }
  const self = assign(new Receiver(), { handler });
  const fails = isAsync(handler); // others may have answered by not calling back
  return (runtime, id, headers, body) => new Invocation(runtime, id, fails).startWithCallback(handler, self, headers, body);
}

module.exports = { NEVER_SETTLED, Runtime, buffered, isAsync, isThenable };
