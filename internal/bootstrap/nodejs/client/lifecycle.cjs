'use strict';

// How the process ends or carries on: errors that nothing caught, and an event
// loop that ran empty. From 24 on AWS leaves both to Node.js, which ends; only an
// event loop that ran empty is told here, because the caller would learn nothing.

const { UnhandledPromiseRejection, errorDocument } = require('./errors.cjs');
const { complain, logError } = require('./log.cjs');
const { exit, setImmediate } = require('./captured.cjs');
const { modern } = require('./contract.cjs');

// AWS's exit codes.
const UNHANDLED_REJECTION = 128;
const UNCAUGHT_EXCEPTION = 129;
const UNSETTLED_AWAIT = 13;

class Lifecycle {
  // whenIdle is called once when the event loop is empty, and then forgotten.
  whenIdle = modern
    ? null
    : () => {
        complain('Warning: Detected unsettled top-level await');
        exit(UNSETTLED_AWAIT);
      };
  // fail reports an error that ends the process to whoever waits for an answer,
  // and calls done afterwards. There are two: for the init, and for an invocation.
  fail;
  #dying = false;

  constructor(api) {
    this.fail = (_error, document, done) => api.initError(document, done);
    if (!modern) {
      process.on('uncaughtException', (error) => this.die('Uncaught Exception', error, UNCAUGHT_EXCEPTION));
      process.on('unhandledRejection', (reason, promise) => {
        this.die('Unhandled Promise Rejection', new UnhandledPromiseRejection(reason, promise), UNHANDLED_REJECTION);
      });
    }
    process.on('beforeExit', () => {
      const idle = this.whenIdle;
      this.whenIdle = null;
      if (idle === null) return;
      idle();
      setImmediate(() => {}); // another turn: this may only have said what is to happen when idle again
    });
  }

  // failInit ends the process over a handler that cannot be loaded.
  failInit(error) {
    if (!modern) {
      this.die('Uncaught Exception', error, UNCAUGHT_EXCEPTION);
      return;
    }
    const document = errorDocument(error);
    logError('Init Error', error, document);
    this.#dying = true;
    this.fail(error, document, () => Promise.reject(error)); // Node.js prints it, and ends with status 1
  }

  get dying() {
    return this.#dying;
  }

  die(label, error, code) {
    const document = errorDocument(error);
    logError(label, error, document);
    if (this.#dying) return;
    this.#dying = true;
    this.fail(error, document, () => exit(code));
  }
}

module.exports = { Lifecycle };
