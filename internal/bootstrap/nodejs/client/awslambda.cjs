'use strict';

// The global that functions find on AWS: how a handler says that it streams.

const { bufferFrom, stringify } = require('./captured.cjs');
const { HIGH_WATER_MARK, STREAMING } = require('./handler.cjs');

// HttpResponseStream gives a streamed answer a status, headers and cookies.
class HttpResponseStream {
  static from(stream, prelude) {
    stream.setContentType('application/vnd.awslambda.http-integration-response');
    const head = stringify(prelude);
    stream._onBeforeFirstWrite = (write) => {
      write(head);
      write(bufferFrom([0, 0, 0, 0, 0, 0, 0, 0]));
    };
    return stream;
  }
}

function streamifyResponse(handler, options) {
  handler[STREAMING] = 'response';
  if (typeof options?.highWaterMark === 'number') handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
  return handler;
}

module.exports = { streamifyResponse, HttpResponseStream };
