// Streams its answer as the event asks for. pass waits until the caller has the
// piece before: the test answers at event.gate when it does.
const { once } = require("node:events");

const pass = async ({ gate }, name) => (await fetch(`${gate}/${name}`)).text();
const large = Buffer.alloc(1 << 20, "0123456789abcdef");

async function write(stream, mb) {
  for (let i = 0; i < mb; i++) if (!stream.write(large)) await once(stream, "drain");
}

const actions = {
  pieces: async (event, stream) => {
    stream.setContentType("text/pieces");
    for (const piece of ["one", "two", "three"]) {
      stream.write(piece);
      await pass(event, piece);
    }
  },
  prelude: async (event, stream) => {
    stream = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { a: "b" } });
    stream.write("body");
    stream.end();
  },
  large: ({ mb }, stream) => write(stream, mb),
  early: async () => {
    throw new TypeError("early");
  },
  late: async (event, stream) => {
    stream.write("one");
    await pass(event, "one");
    throw new TypeError("l".repeat(event.length ?? 4));
  },
  timeout: async (event, stream) => {
    stream.write("one");
    await pass(event, "one");
    await new Promise((done) => setTimeout(done, 60000));
  },
  exit: async (event, stream) => {
    stream.write("one");
    await pass(event, "one");
    process.exit(3);
  },
  // What is written when nobody takes it is dropped, and the handler runs on.
  left: async (event, stream) => {
    stream.write("one");
    await pass(event, "one");
    await write(stream, 30);
    await pass(event, "end");
  },
};

exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  await actions[event.do](event, stream);
  stream.end();
});
