'use strict';

// Errors in the form in which the Runtime API and X-Ray take them.

const util = require('node:util');
const captured = require('./captured.cjs');
const { Error, String, bufferFrom, cwd, replace, replaceAll, slice, split, stringify } = captured;

const { modern } = require('./contract.cjs');

const { isNativeError } = util.types;

// Larger causes are left out of the header, as AWS's client does.
const MAX_CAUSE = 1 << 20;
// No name of an error or content type is that long in earnest.
const MAX_VALUE = 1024;

// RuntimeError is an error that the client itself raises; name is its errorType.
class RuntimeError extends Error {
  constructor(name, message) {
    super(message);
    // Logs show what is enumerable.
    Object.defineProperty(this, 'name', { value: name, configurable: true, writable: true, enumerable: modern });
  }
}

class UnhandledPromiseRejection extends Error {
  constructor(reason, promise) {
    super(reason === undefined ? '' : String(reason));
    this.reason = reason;
    this.promise = promise;
  }
}
UnhandledPromiseRejection.prototype.name = 'Runtime.UnhandledPromiseRejection';

function isErrorLike(value) {
  if (modern) return value instanceof Error;
  return (
    isNativeError(value) ||
    (value && typeof value.name === 'string' && typeof value.message === 'string' && typeof value.stack === 'string' &&
      value.name !== '' && value.message !== '' && value.stack !== '')
  );
}

// DEL is the one control character that JSON leaves in place and HTTP headers refuse.
const withoutDelete = (text) => replaceAll(text, '\x7f', '%7F');

// errorDocument is what the caller of the function sees.
function errorDocument(error) {
  try {
    if (isErrorLike(error)) {
      return {
        errorType: error.name === undefined ? undefined : withoutDelete(checked(error.name)),
        errorMessage: error.message === undefined ? undefined : withoutDelete(checked(error.message)),
        trace: modern && !error.stack ? [] : split(withoutDelete(checked(error.stack)), '\n'),
      };
    }
    return { errorType: typeof error, errorMessage: String(error), trace: [] };
  } catch {
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack',
      trace: modern ? [] : undefined,
    };
  }
}

function checked(value) {
  if (typeof value !== 'string') throw new TypeError('not a string');
  return value;
}

// errorCause is the X-Ray header for an error, or ''.
function errorCause(error) {
  try {
    const stack = typeof error.stack === 'string' ? split(withoutDelete(error.stack), '\n').slice(1).map(frame) : [];
    const cause = stringify({
      working_directory: cwd(),
      exceptions: [
        {
          type: typeof error.name === 'string' ? withoutDelete(error.name) : undefined,
          message: typeof error.message === 'string' ? withoutDelete(error.message) : undefined,
          stack,
        },
      ],
      paths: [...new Set(stack.map((entry) => entry.path))],
    });
    const header = cause.replace(/[^\x20-\x7e]/g, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
    return header.length < MAX_CAUSE ? header : '';
  } catch {
    return '';
  }
}

// frame reads one line of a stack: "    at label (path:line:column)".
function frame(text) {
  let line = text.trim().replace(/[()]/g, '');
  line = line.slice(line.indexOf(' ') + 1);
  const space = line.lastIndexOf(' ');
  const label = space >= 0 ? line.slice(0, space) : '';
  const [path, number] = (label === '' ? line : line.slice(space + 1)).split(':');
  return { path, line: Number.parseInt(number, 10), label: label || 'anonymous' };
}

// headerValue makes any text fit for a header.
function headerValue(text) {
  return slice(replace(String(text), /[^\x20-\x7e]/g, '?'), 0, MAX_VALUE);
}

function base64(text) {
  const bytes = bufferFrom(text, 'utf8');
  return captured.base64(bytes, 0, bytes.length);
}

module.exports = { RuntimeError, UnhandledPromiseRejection, errorDocument, errorCause, headerValue, base64 };
