'use strict';

// The runtime client for Node.js: it loads a function's module and serves
// invocations to its handler, as AWS's client does. It is started by the
// environment with the variables of a Lambda environment and nothing else; or as a
// spare, before it is known for which function, with _KILN_SPARE in their place.

require('./captured.cjs'); // first: before anything could have changed the built-ins
const { LEVELS, configure, log, patchConsole } = require('./log.cjs');
const { describe } = require('./context.cjs');
const { RuntimeAPI } = require('./api.cjs');
const { Lifecycle } = require('./lifecycle.cjs');
const { HIGH_WATER_MARK, isStreaming, load } = require('./handler.cjs');
const { Runtime, buffered, isAsync } = require('./runtime.cjs');
const { RuntimeError } = require('./errors.cjs');
const { modern } = require('./contract.cjs');
const { store } = require('./store.cjs');
const { become, rehearse } = require('./spare.cjs');

const { env } = process;

// checkSignature refuses, or up to 22 announces the end of, handlers with a callback.
function checkSignature(handler) {
  if (modern) {
    if (handler.length < 3) return;
    throw new RuntimeError(
      'Runtime.CallbackHandlerDeprecated',
      'ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24. ' +
        'You need to modify this function to use a supported handler signature to use Node.js 24 or later. ' +
        'For more information see https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.',
    );
  }
  if (handler.length !== 3 || isAsync(handler) || env.AWS_LAMBDA_NODEJS_DISABLE_CALLBACK_WARNING !== undefined) return;
  log(
    LEVELS.WARN,
    'AWS Lambda plans to remove support for callback-based function handlers starting with Node.js 24. ' +
      'You will need to update this function to use an async handler to use Node.js 24 or later. ' +
      'For more information and to provide feedback on this change, see ' +
      'https://github.com/aws/aws-lambda-nodejs-runtime-interface-client/issues/137. ' +
      'To disable this warning, set the AWS_LAMBDA_NODEJS_DISABLE_CALLBACK_WARNING environment variable.',
  );
}

function defineGlobals() {
  const off = env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA;
  if (off === '1' || off === 'true') return;
  const { streamifyResponse, HttpResponseStream } = require('./awslambda.cjs');
  globalThis.awslambda = { ...(modern ? { InvokeStore: store } : undefined), ...globalThis.awslambda, streamifyResponse, HttpResponseStream };
}

async function main(api, lifecycle) {
  configure(env);
  describe(env);
  patchConsole();
  process.mainModule = undefined; // require.main is undefined in functions on AWS
  api.open(); // while the module loads
  defineGlobals();
  try {
    const handler = await load(env.LAMBDA_TASK_ROOT || process.cwd(), env._HANDLER);
    let begin;
    if (isStreaming(handler)) {
      begin = require('./streaming.cjs').streamed(handler, handler[HIGH_WATER_MARK]);
    } else {
      checkSignature(handler);
      begin = buffered(handler);
    }
    const runtime = new Runtime(api, lifecycle, begin);
    setImmediate(() => runtime.run()); // what the module left for this turn can still fail the init
  } catch (error) {
    lifecycle.failInit(error);
  }
}

const api = new RuntimeAPI(env._KILN_SPARE ?? env.AWS_LAMBDA_RUNTIME_API);
const lifecycle = new Lifecycle(api);
if (env._KILN_SPARE === undefined) {
  main(api, lifecycle);
} else {
  api.wait(
    (done) => {
      configure(env);
      patchConsole();
      defineGlobals();
      rehearse(buffered, done);
    },
    (message) => {
      become(message);
      delete globalThis.awslambda;
      main(api, lifecycle);
    },
  );
}
