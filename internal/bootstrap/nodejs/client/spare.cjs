'use strict';

// A process that was started ahead of time becomes a function's.

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

module.exports = { become };
