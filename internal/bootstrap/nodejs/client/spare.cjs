'use strict';

// A process that was started ahead of time becomes a function's.

const Module = require('node:module');
const { load } = require('./handler.cjs');

// become takes the variables in the place of all that are there, in their order, and
// enters the function's folder anew: it was mounted since.
function become(message) {
  const { env } = process;
  for (const name of Object.keys(env)) delete env[name];
  for (const variable of message.split('\0')) {
    const equals = variable.indexOf('=');
    env[variable.slice(0, equals)] = variable.slice(equals + 1);
  }
  process.chdir(env.LAMBDA_TASK_ROOT);
}

// rehearse does once what is to be done for the function, so that the interpreter has
// compiled it by then: loads a handler, and has it serve an event that nobody sent.
async function rehearse(buffered, done) {
  const handler = await load(__dirname, 'rehearsal.handler');
  delete Module._cache[`${__dirname}/rehearsal.cjs`]; // the function sees what was loaded
  const runtime = { lifecycle: {}, api: { respond() {} }, takeNext: () => setImmediate(done) };
  buffered(handler)(runtime, '', { 'lambda-runtime-deadline-ms': '0' }, '{"key":"value"}');
}

module.exports = { become, rehearse };
