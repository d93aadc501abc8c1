'use strict';

// From the handler setting to the function to call.
// https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html

const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');
const { pathToFileURL } = require('node:url');
const { RuntimeError } = require('./errors.cjs');
const { LEVELS, log } = require('./log.cjs');
const { modern } = require('./contract.cjs');

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');

// Nothing lies at this path: it is what "Require stack" names on AWS.
const requireFunction = createRequire(path.join(__dirname, 'index.mjs'));

async function load(taskRoot, setting) {
  if (setting.includes('..')) {
    throw new RuntimeError(
      'Runtime.MalformedHandlerName',
      `'${setting}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`,
    );
  }
  const slash = setting.lastIndexOf('/') + 1;
  const match = /^([^.]*)\.(.*)$/.exec(setting.slice(slash));
  if (match === null) throw new RuntimeError('Runtime.MalformedHandlerName', 'Bad handler');
  const [, file, name] = match;

  const loaded = await loadModule(taskRoot, setting.slice(0, slash), file);
  let handler = property(loaded, name);
  // From 24 on AWS imports every module, where exports may be in default.
  if (!handler && modern && loaded) handler = property(loaded.default, name);
  if (!handler) throw new RuntimeError('Runtime.HandlerNotFound', `${setting} is undefined or not exported`);
  if (typeof handler !== 'function') throw new RuntimeError('Runtime.HandlerNotFound', `${setting} is not a function`);
  return handler;
}

function property(object, name) {
  return name.split('.').reduce((value, key) => value && value[key], object);
}

async function loadModule(taskRoot, folder, name) {
  try {
    return await findModule(taskRoot, folder, name);
  } catch (error) {
    if (error instanceof SyntaxError) {
      const syntax = new RuntimeError('Runtime.UserCodeSyntaxError', String(error));
      if (modern) syntax.stack = error.stack;
      throw syntax;
    }
    if (error?.code === 'MODULE_NOT_FOUND') {
      let text = String(error);
      // AWS imports modules from 24 on: then nothing requires the first of them.
      if (modern) text = text.replace(/(\n- .*)\n- [^\n]*\/index\.mjs$/, '$1');
      throw new RuntimeError('Runtime.ImportModuleError', text);
    }
    throw error;
  }
}

async function findModule(taskRoot, folder, name) {
  const file = path.resolve(taskRoot, folder, name);
  const required = (extension) => (fs.existsSync(file + extension) ? requireFunction(file + extension) : undefined);
  const imported = (extension) => {
    if (!fs.existsSync(file + extension)) return undefined;
    require('./imports.cjs').install();
    return import(pathToFileURL(file + extension).href);
  };

  if (modern && fs.statSync(file, { throwIfNoEntry: false })?.isDirectory()) return imported(''); // refused, as on AWS
  const modules = fs.existsSync(file + '.js') && isModuleFolder(path.dirname(file));
  return (
    required('') ||
    (modules ? await imported('.js') : required('.js')) ||
    (await imported('.mjs')) ||
    required('.cjs') ||
    requireFunction(requireFunction.resolve(name, { paths: [taskRoot, path.resolve(taskRoot, folder)] }))
  );
}

// isModuleFolder says whether the package.json that governs a folder makes its .js files modules.
function isModuleFolder(folder) {
  for (; ; folder = path.dirname(folder)) {
    if (folder.endsWith('/node_modules')) return false;
    const file = path.join(folder, 'package.json');
    if (fs.existsSync(file)) {
      try {
        const content = JSON.parse(fs.readFileSync(file, 'utf8'));
        if (content) return content.type === 'module';
      } catch (error) {
        if (!modern) log(LEVELS.WARN, `${file} cannot be read, it will be ignored for ES module detection purposes.`, error);
        return false;
      }
    }
    if (folder === '/') return false;
  }
}

// streaming says whether the handler was wrapped by streamifyResponse.
function isStreaming(handler) {
  const mode = handler[STREAMING];
  if (mode === undefined || mode === null || mode === false) return false;
  if (mode === 'response') return true;
  throw new RuntimeError('Runtime.MalformedStreamingHandler', 'Only response streaming is supported.');
}

module.exports = { STREAMING, HIGH_WATER_MARK, load, isStreaming };
