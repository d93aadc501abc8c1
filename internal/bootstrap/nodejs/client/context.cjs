'use strict';

// The context object of an invocation.
// https://docs.aws.amazon.com/lambda/latest/dg/nodejs-context.html

const { Error, Number, String, now, parse, process } = require('./captured.cjs');
const { modern } = require('./contract.cjs');

// What does not change from one invocation to the next, in AWS's order.
let functionVersion;
let functionName;
let memory;
let logGroup;
let logStream;

// describe takes what the variables say of the function.
function describe(env) {
  functionVersion = env.AWS_LAMBDA_FUNCTION_VERSION;
  functionName = env.AWS_LAMBDA_FUNCTION_NAME;
  memory = env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE;
  logGroup = env.AWS_LAMBDA_LOG_GROUP_NAME;
  logStream = env.AWS_LAMBDA_LOG_STREAM_NAME;
}

function parseHeader(text, name) {
  if (text === undefined) return undefined;
  try {
    return parse(text);
  } catch (error) {
    throw new Error(`Cannot parse ${name} as json: ${String(error)}`);
  }
}

// setTrace shows the tracing header where X-Ray's SDK and OpenTelemetry look for it.
function setTrace(header) {
  const current = process.env;
  if (current === null || typeof current !== 'object') return; // the function removed it
  if (header === undefined) delete current._X_AMZN_TRACE_ID;
  else current._X_AMZN_TRACE_ID = header;
}

// fillContext adds everything but the ways to answer, which 24 no longer has.
function fillContext(context, headers) {
  setTrace(headers['lambda-runtime-trace-id']);
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const clientContext = parseHeader(headers['lambda-runtime-client-context'], 'ClientContext');
  const identity = parseHeader(headers['lambda-runtime-cognito-identity'], 'CognitoIdentity');
  const getRemainingTimeInMillis = () => deadline - now();
  if (modern) {
    context.clientContext = clientContext;
    context.identity = identity;
    context.invokedFunctionArn = headers['lambda-runtime-invoked-function-arn'];
    context.awsRequestId = headers['lambda-runtime-aws-request-id'];
    context.tenantId = headers['lambda-runtime-aws-tenant-id'];
    context.xRayTraceId = headers['lambda-runtime-trace-id'];
    context.getRemainingTimeInMillis = getRemainingTimeInMillis;
    context.functionName = functionName;
    context.functionVersion = functionVersion;
    context.memoryLimitInMB = memory;
    context.logGroupName = logGroup;
    context.logStreamName = logStream;
  } else {
    context.functionVersion = functionVersion;
    context.functionName = functionName;
    context.memoryLimitInMB = memory;
    context.logGroupName = logGroup;
    context.logStreamName = logStream;
    context.clientContext = clientContext;
    context.identity = identity;
    context.invokedFunctionArn = headers['lambda-runtime-invoked-function-arn'];
    context.awsRequestId = headers['lambda-runtime-aws-request-id'];
    context.tenantId = headers['lambda-runtime-aws-tenant-id'];
    context.getRemainingTimeInMillis = getRemainingTimeInMillis;
  }
  return context;
}

module.exports = { describe, fillContext };
