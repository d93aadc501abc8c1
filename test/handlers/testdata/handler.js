// Does what the event asks for. INIT, a variable, says what loading it does.
const fs = require("node:fs");

console.log("module begins");

switch (process.env.INIT) {
  case "fail":
    throw new TypeError("no init");
  case "exit":
    process.exit(Number(process.env.CODE));
    break;
  case "segfault":
    process.kill(process.pid, "SIGSEGV");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60000);
    break;
  case "once":
    if (!fs.existsSync("/tmp/tried")) {
      fs.writeFileSync("/tmp/tried", "");
      throw new TypeError("the first time");
    }
}

let count = 0;
const kept = [];
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const writable = (path) => {
  try {
    fs.writeFileSync(path, "");
    return true;
  } catch {
    return false;
  }
};

const actions = {
  count: () => count,
  fail: () => {
    throw new TypeError("boom ü");
  },
  sleep: async ({ seconds }) => {
    await sleep(seconds);
    return "slept";
  },
  exit: ({ code }) => process.exit(code),
  kill: async ({ signal }) => {
    process.kill(process.pid, signal);
    await sleep(60);
  },
  allocate: ({ mb }) => kept.push(Buffer.alloc(mb << 20, "x")),
  write: () => fs.writeFileSync("/tmp/note", "kept"),
  read: () => fs.readFileSync("/tmp/note", "utf8"),
  print: ({ lines }) => {
    for (const line of lines) process.stdout.write(line + "\n");
    process.stderr.write("on stderr\nwithout an end");
  },
  flood: ({ mb }) => {
    const line = "y".repeat(1023);
    for (let i = 0; i < mb << 10; i++) console.log(line);
  },
  record: () => console.error("one\ntwo"),
  size: ({ bytes }) => "x".repeat(bytes),
  env: () => process.env,
  zone: () => String(new Date(0).getHours()).padStart(2, "0"),
  context: (_, c) => ({
    id: c.awsRequestId, name: c.functionName, version: c.functionVersion, arn: c.invokedFunctionArn, memory: c.memoryLimitInMB,
    group: c.logGroupName, stream: c.logStreamName, left: c.getRemainingTimeInMillis(), custom: c.clientContext?.custom ?? null,
    trace: process.env._X_AMZN_TRACE_ID,
  }),
  look: () => ({
    cwd: process.cwd(), uid: process.getuid(), read: fs.readFileSync(0, "utf8"),
    task: writable(process.env.LAMBDA_TASK_ROOT + "/new"), tmp: writable("/tmp/new"), etc: writable("/etc/new"),
    files: fs.readdirSync("/proc/self/fd").map((fd) => {
      try {
        return fs.readlinkSync("/proc/self/fd/" + fd);
      } catch {
        return "";
      }
    }).filter(Boolean).sort(),
  }),
};

exports.handler = async (event, context) => {
  count++;
  return actions[event.do ?? "count"](event, context);
};
