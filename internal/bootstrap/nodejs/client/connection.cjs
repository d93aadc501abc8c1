'use strict';

// HTTP/1.1 over one kept-alive socket, as much of it as the Runtime API needs.
// The http module would cost more than everything else that an invocation does.
//
// Requests are answered in the order of sending; a second one may be sent while
// the first is unanswered. A connection that the server closed between requests
// is opened again, and whatever has no answer is sent again.

const net = require('node:net');
const { AsyncResource } = require('node:async_hooks');
const { Number, allocate, copy, find, indexOf, readUInt32BE, slice, toLowerCase, trim, utf8 } = require('./captured.cjs');

const READ_BUFFER = 64 << 10;
const MAX_HEAD = 2 << 20;
// How often one request is sent when connections end without an answer to it.
const ATTEMPTS = 3;

const HEAD = 0;
const FIXED = 1;
const CHUNK_SIZE = 2;
const CHUNK_DATA = 3;
const CHUNK_END = 4;
const TRAILER = 5;
const UNTIL_CLOSE = 6;
const MESSAGE = 7;

const LINE_FEED = 10;

// What a function changes in the prototypes of sockets, streams or emitters does
// not reach the sockets of this file: they inherit from a copy.
const prototype = Object.create(net.Socket.prototype);
for (let p = net.Socket.prototype; p !== null && p !== Object.prototype; p = Object.getPrototypeOf(p)) {
  for (const key of Reflect.ownKeys(p)) {
    if (!Object.hasOwn(prototype, key)) Object.defineProperty(prototype, key, Object.getOwnPropertyDescriptor(p, key));
  }
}
const { Socket } = net;
const { setPrototypeOf } = Object;

class Connection {
  #host;
  #port;
  #socket = null;
  #referenced = true;
  #queue = []; // unanswered requests, oldest first
  // Connecting inside an invocation must not tie the socket, and with it every
  // later event, to that invocation's asynchronous context.
  #root = new AsyncResource('RuntimeAPI');
  #buffer = allocate(READ_BUFFER);

  #message = null; // who waits for one

  // Of the answer being read.
  #state = HEAD;
  #partial = null; // bytes of an unfinished head or line
  #status = 0;
  #headers = null;
  #left = 0; // bytes to come, of a body or chunk
  #body = null; // of a fixed body that did not come in one piece
  #filled = 0;
  #chunks = null;

  constructor(address) {
    const colon = address.lastIndexOf(':');
    this.#host = address.slice(0, colon).replace(/^\[|\]$/g, '');
    this.#port = Number(address.slice(colon + 1));
  }

  // open connects ahead of the first request.
  open() {
    if (this.#socket === null) this.#root.runInAsyncScope(this.#connect, this);
  }

  // await takes a message that comes before any request: its length in 4 bytes,
  // big-endian, and as much text. A connection that ends without leaves nothing to
  // wait for, and the process ends.
  await(done) {
    this.#message = done;
    this.#state = MESSAGE;
  }

  // say sends what is no request.
  say(text) {
    this.#socket.write(text, 'latin1');
  }

  // ref and unref say whether the connection alone keeps the process running.
  ref() {
    this.#referenced = true;
    if (this.#socket !== null) this.#socket.ref();
  }

  unref() {
    this.#referenced = false;
    if (this.#socket !== null) this.#socket.unref();
  }

  // send sends {head, body, wants, open, done}, body being text or bytes; done(status, headers, text) is called once,
  // with status 0 when there was no answer. wants says that text is wanted, open
  // that more of the body follows through write.
  send(request) {
    request.attempts = 0;
    request.socket = null;
    this.#queue[this.#queue.length] = request;
    if (this.#socket === null) this.open();
    else this.#write(request);
  }

  // write sends more of the body of an open request, and is void when the
  // request has been answered or lost its connection.
  write(request, chunk, encoding, done) {
    if (request.socket === null || request.socket !== this.#socket) done();
    else request.socket.write(chunk, encoding, () => done());
  }

  #connect() {
    const socket = new Socket({ onread: { buffer: this.#buffer, callback: (n, buffer) => this.#read(socket, buffer, n) } });
    setPrototypeOf(socket, prototype);
    this.#socket = socket;
    this.#state = this.#message === null ? HEAD : MESSAGE;
    this.#partial = null;
    socket.on('error', () => {}); // the close that follows decides
    socket.on('close', () => this.#closed(socket));
    socket.connect({ host: this.#host, port: this.#port, noDelay: true });
    if (!this.#referenced) socket.unref();
    for (let i = 0; i < this.#queue.length; i++) this.#write(this.#queue[i]);
  }

  #write(request) {
    const { head, body } = request;
    request.attempts++;
    request.socket = this.#socket;
    if (typeof body === 'string') {
      this.#socket.write(head + body, 'utf8');
    } else {
      this.#socket.write(head, 'latin1');
      this.#socket.write(body);
    }
  }

  #closed(socket) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    if (this.#state === MESSAGE) return;
    if (this.#state === UNTIL_CLOSE) this.#answered();
    const broken = this.#state !== HEAD || this.#partial !== null;
    const waiting = this.#queue;
    this.#queue = [];
    for (let i = 0; i < waiting.length; i++) {
      const request = waiting[i];
      request.socket = null;
      if ((i === 0 && broken) || request.open || request.attempts >= ATTEMPTS) {
        request.done(0, null, '');
      } else {
        this.#queue[this.#queue.length] = request;
      }
    }
    if (this.#queue.length > 0) this.open();
  }

  #drop() {
    const socket = this.#socket;
    if (socket !== null) {
      socket.destroy();
      this.#closed(socket);
    }
  }

  // read takes what arrived; the buffer is the socket's and used again.
  #read(socket, buffer, n) {
    if (socket !== this.#socket) return true;
    let data = buffer;
    let end = n;
    let at = 0;
    if (this.#partial !== null) {
      data = joined(this.#partial, buffer, n);
      end = data.length;
      this.#partial = null;
    }
    while (at < end && socket === this.#socket) {
      switch (this.#state) {
        case HEAD: {
          const blank = find(data, '\r\n\r\n', at, 'latin1');
          if (blank < 0 || blank + 4 > end) return this.#keep(data, at, end);
          this.#readHead(utf8(data, at, blank));
          at = blank + 4;
          break;
        }
        case FIXED: {
          const n = Math.min(this.#left, end - at);
          const request = this.#queue[0];
          if (!request.wants) {
            // skip it
          } else if (this.#body === null && n === this.#left) {
            this.#left = 0;
            this.#answered(utf8(data, at, at + n));
            at += n;
            break;
          } else {
            if (this.#body === null) {
              this.#body = allocate(this.#left);
              this.#filled = 0;
            }
            copy(data, this.#body, this.#filled, at, at + n);
            this.#filled += n;
          }
          at += n;
          this.#left -= n;
          if (this.#left === 0) this.#answered(this.#body === null ? '' : utf8(this.#body, 0, this.#filled));
          break;
        }
        case MESSAGE: {
          const size = end - at < 4 ? Infinity : readUInt32BE(data, at);
          if (end - at < 4 + size) return this.#keep(data, at, end);
          const done = this.#message;
          this.#message = null;
          this.#state = HEAD;
          done(utf8(data, at + 4, at + 4 + size));
          at += 4 + size;
          break;
        }
        case CHUNK_DATA: {
          const n = Math.min(this.#left, end - at);
          this.#chunk(data, at, n);
          at += n;
          this.#left -= n;
          if (this.#left === 0) this.#state = CHUNK_END;
          break;
        }
        case UNTIL_CLOSE:
          this.#chunk(data, at, end - at);
          at = end;
          break;
        default: {
          const feed = find(data, LINE_FEED, at);
          if (feed < 0 || feed >= end) return this.#keep(data, at, end);
          this.#readLine(trim(utf8(data, at, feed)));
          at = feed + 1;
        }
      }
    }
    return true;
  }

  // keep puts an unfinished head or line aside until more comes.
  #keep(data, at, end) {
    if (end - at > MAX_HEAD) {
      this.#drop();
      return true;
    }
    this.#partial = allocate(end - at);
    copy(data, this.#partial, 0, at, end);
    return true;
  }

  #chunk(data, at, n) {
    if (!this.#queue[0].wants) return;
    const piece = allocate(n);
    copy(data, piece, 0, at, at + n);
    this.#chunks[this.#chunks.length] = piece;
  }

  #readHead(text) {
    const status = Number(slice(text, 9, 12));
    if (slice(text, 0, 7) !== 'HTTP/1.' || !(status >= 100) || this.#queue.length === 0) {
      this.#drop();
      return;
    }
    const headers = parseHeaders(text);
    if (status < 200) return; // an interim answer; the real one follows
    this.#status = status;
    this.#headers = headers;
    this.#body = null;
    if (status === 204 || status === 304) {
      this.#answered('');
    } else if (indexOf(toLowerCase(headers['transfer-encoding'] ?? ''), 'chunked') >= 0) {
      this.#chunks = [];
      this.#state = CHUNK_SIZE;
    } else if (headers['content-length'] !== undefined) {
      this.#left = Number(headers['content-length']);
      if (!(this.#left >= 0)) this.#drop();
      else if (this.#left === 0) this.#answered('');
      else this.#state = FIXED;
    } else {
      this.#chunks = [];
      this.#state = UNTIL_CLOSE;
    }
  }

  #readLine(line) {
    if (this.#state === CHUNK_SIZE) {
      const semicolon = indexOf(line, ';');
      const digits = trim(semicolon < 0 ? line : slice(line, 0, semicolon));
      this.#left = Number('0x' + digits);
      if (!(this.#left >= 0)) this.#drop();
      else this.#state = this.#left === 0 ? TRAILER : CHUNK_DATA;
    } else if (this.#state === CHUNK_END) {
      this.#state = CHUNK_SIZE;
    } else if (line === '') {
      this.#answered();
    }
  }

  // answered ends the answer that is being read and tells who asked.
  #answered(text) {
    const request = this.#queue[0];
    const headers = this.#headers;
    if (text === undefined) text = request.wants ? decode(this.#chunks) : '';
    for (let i = 1; i < this.#queue.length; i++) this.#queue[i - 1] = this.#queue[i];
    this.#queue.length--;
    request.socket = null;
    this.#state = HEAD;
    this.#headers = this.#body = this.#chunks = null;
    if (toLowerCase(headers.connection ?? '') === 'close') this.#drop();
    request.done(this.#status, headers, text);
  }
}

function joined(first, second, n) {
  const all = allocate(first.length + n);
  copy(first, all, 0, 0, first.length);
  copy(second, all, first.length, 0, n);
  return all;
}

function decode(chunks) {
  let size = 0;
  for (let i = 0; i < chunks.length; i++) size += chunks[i].length;
  const all = allocate(size);
  let at = 0;
  for (let i = 0; i < chunks.length; i++) {
    copy(chunks[i], all, at, 0, chunks[i].length);
    at += chunks[i].length;
  }
  return utf8(all, 0, size);
}

// parseHeaders returns the headers of a head by lower-case name.
function parseHeaders(text) {
  const headers = { __proto__: null };
  let at = indexOf(text, '\r\n');
  while (at >= 0) {
    const start = at + 2;
    at = indexOf(text, '\r\n', start);
    const line = at < 0 ? slice(text, start) : slice(text, start, at);
    const colon = indexOf(line, ':');
    if (colon > 0) headers[toLowerCase(slice(line, 0, colon))] = trim(slice(line, colon + 1));
  }
  return headers;
}

module.exports = { Connection };
