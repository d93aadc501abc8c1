'use strict';

// Whose rules hold: the major version of the function's runtime identifier. The
// interpreter may be another version, which stands in for it.

const match = /^AWS_Lambda_nodejs(\d+)\.x$/.exec(process.env.AWS_EXECUTION_ENV ?? '');
const contract = Number.parseInt(match === null ? process.versions.node : match[1], 10);

// From 24 on AWS has another client, without callbacks.
const FIRST_WITHOUT_CALLBACKS = 24;

module.exports = { modern: contract >= FIRST_WITHOUT_CALLBACKS };
