'use strict';

// Imports of bare names from NODE_PATH, where layers and the SDK lie: Node.js itself
// looks there for require only, AWS's for both. Loaded only for ES modules.
// https://docs.aws.amazon.com/lambda/latest/dg/nodejs-layers.html

const fs = require('node:fs');
const Module = require('node:module');
const { delimiter } = require('node:path');
const { pathToFileURL } = require('node:url');

// The code and this client, which every NODE_PATH names, hold no packages themselves.
const OWN = [process.env.LAMBDA_TASK_ROOT, __dirname];
const BARE = /^(?!\.{0,2}\/|#|[a-z][a-z0-9+.-]*:)/i;

// install makes imports that are found nowhere else look into NODE_PATH. It costs
// nothing where no folder of it is there.
function install() {
  const folders = (process.env.NODE_PATH ?? '').split(delimiter).filter((f) => f !== '' && !OWN.includes(f) && fs.existsSync(f));
  if (folders.length === 0) return;
  // A package is found from beside the node_modules that holds it.
  const parents = folders.map((folder) => pathToFileURL(folder).href);
  if (Module.registerHooks === undefined) {
    Module.register('data:text/javascript,' + encodeURIComponent(IN_A_THREAD), { data: { parents, bare: BARE } });
    return;
  }
  const { resolve } = Module.createRequire('/');
  Module.registerHooks({
    resolve(name, context, next) {
      try {
        return next(name, context);
      } catch (error) {
        if (error?.code !== 'ERR_MODULE_NOT_FOUND' || !BARE.test(name)) throw error;
        for (const parentURL of parents) {
          try {
            return next(name, { ...context, parentURL });
          } catch {} // then in another
        }
        try {
          return { url: pathToFileURL(resolve(name)).href, shortCircuit: true };
        } catch {
          throw error;
        }
      }
    },
  });
}

// The same for versions whose hooks run in a thread of their own.
const IN_A_THREAD = `
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const { resolve: find } = createRequire('/');
let parents, bare;
export function initialize(data) { ({ parents, bare } = data); }
export async function resolve(name, context, next) {
  try {
    return await next(name, context);
  } catch (error) {
    if (error?.code !== 'ERR_MODULE_NOT_FOUND' || !bare.test(name)) throw error;
    for (const parentURL of parents) try { return await next(name, { ...context, parentURL }); } catch {}
    try { return { url: pathToFileURL(find(name)).href, shortCircuit: true }; } catch { throw error; }
  }
}`;

module.exports = { install };
