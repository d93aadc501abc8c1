'use strict';

// What a function logs, and what the client logs itself. Writing is synchronous:
// a line that was logged before a handler returned is out before its answer is.

const fs = require('node:fs');
const util = require('node:util');
const {
  Date, Error, String, allocate, assign, bufferFrom, copy, replaceAll, split, stringify, toISOString, writeUInt32BE,
} = require('./captured.cjs');

const { modern } = require('./contract.cjs');
const { setStore } = require('./store.cjs');

const { writeSync } = fs;
const { format } = util;
const { wait } = Atomics;
const { floor } = Math;

// A frame on the telemetry descriptor: type, length, time in microseconds, text.
const FRAME_HEADER = 16;
const FRAME_TEXT = 0xa55a0003;
const FRAME_JSON = 0xa55a0002;

const LEVELS = {
  __proto__: null,
  TRACE: { name: 'TRACE', rank: 1, mask: 0x04 },
  DEBUG: { name: 'DEBUG', rank: 2, mask: 0x08 },
  INFO: { name: 'INFO', rank: 3, mask: 0x0c },
  WARN: { name: 'WARN', rank: 4, mask: 0x10 },
  ERROR: { name: 'ERROR', rank: 5, mask: 0x14 },
  FATAL: { name: 'FATAL', rank: 6, mask: 0x18 },
};

let asJSON;
let threshold;
let descriptor;
let framed;

// configure takes what the variables ask for.
function configure(env) {
  asJSON = (env.AWS_LAMBDA_LOG_FORMAT ?? '').toUpperCase() === 'JSON';
  threshold = LEVELS[(env.AWS_LAMBDA_LOG_LEVEL ?? '').toUpperCase()] ?? LEVELS.TRACE;
  descriptor = Number.parseInt(env._LAMBDA_TELEMETRY_LOG_FD ?? '', 10);
  framed = descriptor >= 0;
  delete env._LAMBDA_TELEMETRY_LOG_FD; // on AWS the function does not see it either
}

let requestId = modern ? '-' : undefined;
let tenantId;

// Libraries find the request by these symbols, as they do on AWS.
const REQUEST_ID = Symbol.for('aws.lambda.runtime.requestId');
const TENANT_ID = Symbol.for('aws.lambda.runtime.tenantId');

function setRequest(id, tenant, trace) {
  requestId = id;
  tenantId = tenant;
  if (modern) {
    setStore(id, tenant, trace);
  } else {
    globalThis[REQUEST_ID] = id;
    globalThis[TENANT_ID] = tenant;
  }
}

const pause = new Int32Array(new SharedArrayBuffer(4));

// writeAll waits where the descriptor is a full pipe that something made
// non-blocking (process.stdout does), rather than dropping the line.
function writeAll(fd, bytes) {
  let at = 0;
  while (at < bytes.length) {
    try {
      at += writeSync(fd, bytes, at, bytes.length - at);
    } catch (error) {
      if (error.code !== 'EAGAIN') return; // nobody reads: a handler must not fail for that
      wait(pause, 0, 0, 1);
    }
  }
}

function writeFrame(level, date, text) {
  const body = bufferFrom(text, 'utf8');
  const frame = allocate(FRAME_HEADER + body.length);
  writeUInt32BE(frame, ((asJSON ? FRAME_JSON : FRAME_TEXT) | level.mask) >>> 0, 0);
  writeUInt32BE(frame, body.length, 4);
  const micros = date.getTime() * 1000;
  writeUInt32BE(frame, floor(micros / 2 ** 32), 8);
  writeUInt32BE(frame, micros % 2 ** 32, 12);
  copy(body, frame, FRAME_HEADER, 0, body.length);
  writeAll(descriptor, frame); // one write, so that no other process's frame lands inside
}

function emit(level, message, params) {
  const date = new Date();
  const time = toISOString(date);
  if (asJSON) {
    const line = formatJSON(level, time, message, params);
    if (framed) writeFrame(level, date, line);
    else writeAll(1, bufferFrom(line + '\n', 'utf8'));
    return;
  }
  const text = params.length === 0 && typeof message === 'string' ? message : format(message, ...params);
  const line = `${time}\t${requestId}\t${level.name}\t${text}`;
  if (framed) writeFrame(level, date, line + '\n');
  else writeAll(1, bufferFrom(replaceAll(line, '\n', '\r') + '\n', 'utf8')); // a line feed would end the log event
}

function errorName(error) {
  return error.constructor?.name ?? 'UnknownError';
}

function describeErrors(_key, value) {
  if (!(value instanceof Error)) return value;
  return assign(
    {
      errorType: errorName(value),
      errorMessage: value.message,
      stackTrace: typeof value.stack === 'string' ? split(value.stack, '\n') : value.stack,
    },
    value,
  );
}

function formatJSON(level, timestamp, message, params) {
  const record = { timestamp, level: level.name, requestId };
  if (tenantId !== undefined) record.tenantId = tenantId;
  if (params.length === 0) {
    record.message = message;
    try {
      return stringify(record, describeErrors);
    } catch {
      record.message = format(message); // circular, BigInt, a throwing getter
      return stringify(record);
    }
  }
  record.message = format(message, ...params);
  const error = !modern && message instanceof Error ? message : params.find((param) => param instanceof Error);
  if (error !== undefined) {
    record.errorType = errorName(error);
    record.errorMessage = error.message;
    record.stackTrace = typeof error.stack === 'string' ? split(error.stack, '\n') : [];
  }
  return stringify(record);
}

function patchConsole() {
  const logger = (level) =>
    level.rank < threshold.rank ? (_message, ..._params) => {} : (message, ...params) => emit(level, message, params);
  console.trace = logger(LEVELS.TRACE);
  console.debug = logger(LEVELS.DEBUG);
  console.info = logger(LEVELS.INFO);
  console.log = console.info;
  console.warn = logger(LEVELS.WARN);
  console.error = logger(LEVELS.ERROR);
  console.fatal = logger(LEVELS.FATAL);
}

function log(level, message, ...params) {
  if (level.rank >= threshold.rank) emit(level, message, params);
}

function expandError(_key, value) {
  if (!(value instanceof Error)) return value;
  const expanded = assign({ errorType: value.name, errorMessage: value.message, code: value.code }, value);
  if (typeof value.stack === 'string') expanded.stack = split(value.stack, '\n');
  return expanded;
}

// logError logs an error that ends an invocation, an init or the process.
function logError(label, thrown, document) {
  let error = thrown;
  if (!(thrown instanceof Error)) {
    try {
      error = new Error(String(thrown));
    } catch {
      error = new Error(document.errorMessage);
    }
  }
  if (asJSON) {
    log(LEVELS.ERROR, error);
    return;
  }
  let text;
  try {
    text = stringify(error, expandError);
  } catch {
    text = stringify(document);
  }
  log(LEVELS.ERROR, label, '\t' + text);
}

// complain writes a line of the client itself where there may be no request.
function complain(text) {
  writeAll(2, bufferFrom(String(text) + '\n', 'utf8'));
}

module.exports = { LEVELS, configure, patchConsole, setRequest, log, logError, complain };
