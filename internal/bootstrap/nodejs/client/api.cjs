'use strict';

// The Lambda Runtime API, 2018-06-01.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html

const { Connection } = require('./connection.cjs');
const { bufferFrom, byteLength, encodeURIComponent, slice, stringify } = require('./captured.cjs');
const { base64, headerValue } = require('./errors.cjs');

// Below this a body is joined to its head, for one write; above, encoded by itself,
// because joining would copy it and measuring it would take as long as encoding.
const JOINED = 64 << 10;

// Servers take 4 KiB of trailers, names and base64 included: of an error within a
// stream so many bytes of its document, and characters of its type, are sent.
const MAX_DOCUMENT = 2700;
const MAX_TYPE = 250;

const VERSION = '/2018-06-01/runtime/';

class RuntimeAPI {
  #connection;
  #host;
  #next;
  #unanswered = 0; // posts
  #whenSettled = null;

  constructor(address) {
    this.#connection = new Connection(address);
    this.#host = ` HTTP/1.1\r\nHost: ${address}\r\n`;
    this.#next = `GET ${VERSION}invocation/next${this.#host}\r\n`;
  }

  // open connects, without keeping the process alive for it.
  open() {
    this.#connection.unref();
    this.#connection.open();
  }

  // wait connects, and hands on the message that a spare is sent before all else; an
  // empty one is for rehearsing, and answered when that is done.
  wait(rehearse, done) {
    const next = (message) => {
      if (message !== '') {
        done(message);
        return;
      }
      this.#connection.await(next);
      rehearse(() => this.#connection.say('\n'));
    };
    this.#connection.await(next);
    this.#connection.open();
  }

  // next asks for an event. From then on until it came the process waits for it;
  // afterwards only the handler's own work keeps the process alive, so that an
  // empty event loop can be noticed.
  next(done) {
    this.#connection.ref();
    this.#connection.send({
      head: this.#next,
      body: '',
      wants: true,
      open: false,
      done: (status, headers, text) => {
        this.#connection.unref();
        done(status, headers, text);
      },
    });
  }

  respond(id, body, done) {
    this.#post(this.#path(id, 'response'), 'Content-Type: application/json\r\n', body, done);
  }

  fail(id, document, cause, done) {
    let headers = errorHeaders(document);
    if (cause !== '') headers += `Lambda-Runtime-Function-XRay-Error-Cause: ${cause}\r\n`;
    this.#post(this.#path(id, 'error'), headers, stringify(document), done);
  }

  initError(document, done) {
    this.#post(VERSION + 'init/error', errorHeaders(document), stringify(document), done);
  }

  // stream begins a streamed response and returns the request to write to.
  stream(id, contentType) {
    this.#unanswered++;
    const request = {
      head:
        `POST ${this.#path(id, 'response')}${this.#host}Lambda-Runtime-Function-Response-Mode: streaming\r\n` +
        'Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n' +
        `Content-Type: ${contentType}\r\nTransfer-Encoding: chunked\r\n\r\n`,
      body: '',
      wants: false,
      open: true,
      done: () => this.#posted(() => {}),
    };
    this.#connection.send(request);
    return request;
  }

  // write sends one chunk; byte length first, because HTTP has it so.
  write(request, chunk, done) {
    const connection = this.#connection;
    const ignore = () => {};
    connection.write(request, chunk.length.toString(16) + '\r\n', 'latin1', ignore);
    connection.write(request, chunk, undefined, ignore);
    connection.write(request, '\r\n', 'latin1', done);
  }

  // finish ends a streamed response, as a failed one if there is a document.
  finish(request, document, done) {
    let end = '0\r\n';
    if (document !== null) {
      end +=
        `Lambda-Runtime-Function-Error-Type: ${headerValue(shortType(document))}\r\n` +
        `Lambda-Runtime-Function-Error-Body: ${base64(shortText(document))}\r\n`;
    }
    this.#connection.write(request, end + '\r\n', 'latin1', done);
  }

  // hold keeps the process alive although no event is awaited.
  hold() {
    this.#connection.ref();
  }

  // settled calls done once every post has been answered, or given up.
  settled(done) {
    this.#connection.ref();
    if (this.#unanswered === 0) done();
    else this.#whenSettled = done;
  }

  #posted(done) {
    this.#unanswered--;
    done();
    if (this.#unanswered === 0 && this.#whenSettled !== null) this.#whenSettled();
  }

  #path(id, verb) {
    return `${VERSION}invocation/${encodeURIComponent(id)}/${verb}`;
  }

  #post(path, headers, text, done) {
    const body = text.length < JOINED ? text : bufferFrom(text, 'utf8');
    const length = typeof body === 'string' ? byteLength(body) : body.length;
    this.#unanswered++;
    this.#connection.ref();
    this.#connection.send({
      head: `POST ${path}${this.#host}${headers}Content-Length: ${length}\r\n\r\n`,
      body,
      wants: false,
      open: false,
      done: () => this.#posted(done),
    });
  }
}

function errorHeaders(document) {
  return `Content-Type: application/json\r\nLambda-Runtime-Function-Error-Type: ${headerValue(document.errorType ?? 'Unknown')}\r\n`;
}

function shortType(document) {
  return slice(document.errorType ?? 'Unknown', 0, MAX_TYPE);
}

// shortText is a document without its trace, and as much of its message as fits,
// where it is too long as a whole.
function shortText(document) {
  let text = stringify(document);
  let message = document.errorMessage ?? '';
  while (byteLength(text) > MAX_DOCUMENT) {
    text = stringify({ errorType: shortType(document), errorMessage: message, trace: [] });
    message = slice(message, 0, message.length >> 1);
  }
  return text;
}

module.exports = { RuntimeAPI };
