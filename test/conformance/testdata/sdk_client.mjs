// Carries out the requests of the test, a line of JSON each, with the AWS SDK for
// JavaScript, which lies in the folder that the first argument names.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const sdk = createRequire(process.argv[2] + "/")("@aws-sdk/client-lambda");
const clients = new Map();

function client({ endpoint, key, secret, region }) {
  const id = JSON.stringify([endpoint, key, secret, region]);
  if (!clients.has(id)) {
    clients.set(id, new sdk.LambdaClient({ endpoint, region, credentials: { accessKeyId: key, secretAccessKey: secret }, maxAttempts: 1 }));
  }
  return clients.get(id);
}

function decode(value) {
  if (Array.isArray(value)) return value.map(decode);
  if (value === null || typeof value !== "object") return value;
  if ("$bytes" in value) return Buffer.from(value.$bytes, "base64");
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, decode(v)]));
}

function encode(value) {
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return value.map(encode);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).filter(([k]) => k !== "$metadata").map(([k, v]) => [k, encode(v)]));
}

async function carryOut(request) {
  const c = client(request);
  switch (request.do) {
    case "call":
      return encode(await c.send(new sdk[request.name + "Command"](decode(request.in))));
    case "wait":
      await sdk["waitUntil" + request.name]({ client: c, maxWaitTime: 60, minDelay: 1, maxDelay: 1 }, { FunctionName: request.in.FunctionName });
      return {};
    default: {
      const pages = [];
      for await (const page of sdk.paginateListFunctions({ client: c, pageSize: request.in.PageSize }, {})) {
        pages.push(page.Functions.map((f) => f.FunctionName));
      }
      return { Pages: pages };
    }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { out: await carryOut(JSON.parse(line)) };
  } catch (e) {
    const body = Object.fromEntries(Object.entries(e).filter(([, v]) => typeof v === "string"));
    answer = { error: { Class: e.constructor.name, Code: e.name, Message: e.message, Status: e.$metadata?.httpStatusCode ?? 0, Body: body } };
  }
  console.log(JSON.stringify(answer));
}
