'use strict';

// What libraries learn of the invocation from awslambda.InvokeStore, and what they
// keep there until the next one.
// https://github.com/awslabs/aws-lambda-invoke-store

const { Error, String } = require('./captured.cjs');

const REQUEST_ID = Symbol.for('_AWS_LAMBDA_REQUEST_ID');
const X_RAY_TRACE_ID = Symbol.for('_AWS_LAMBDA_X_RAY_TRACE_ID');
const TENANT_ID = Symbol.for('_AWS_LAMBDA_TENANT_ID');

let current;

class InvokeStoreSingle {
  static PROTECTED_KEYS = { REQUEST_ID, X_RAY_TRACE_ID, TENANT_ID };

  isProtectedKey(key) {
    return key === REQUEST_ID || key === X_RAY_TRACE_ID || key === TENANT_ID;
  }

  getRequestId() {
    return this.get(REQUEST_ID) ?? '-';
  }

  getXRayTraceId() {
    return this.get(X_RAY_TRACE_ID);
  }

  getTenantId() {
    return this.get(TENANT_ID);
  }

  getContext() {
    return current;
  }

  hasContext() {
    return current !== undefined;
  }

  get(key) {
    return current?.[key];
  }

  set(key, value) {
    if (this.isProtectedKey(key)) throw new Error(`Cannot modify protected Lambda context field: ${String(key)}`);
    current ??= {};
    current[key] = value;
  }

  run(context, f) {
    current = context;
    return f();
  }
}

function setStore(id, tenant, trace) {
  current = { [REQUEST_ID]: id, [X_RAY_TRACE_ID]: trace };
  if (tenant !== undefined) current[TENANT_ID] = tenant;
}

module.exports = { setStore, store: new InvokeStoreSingle() };
