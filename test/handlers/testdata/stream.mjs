// Calls a function with the SDK for JavaScript, which lies in the folder that the
// first argument names, and prints each event of its answer as it comes, a line of JSON each.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";

const [folder, FunctionName, Payload, LogType] = process.argv.slice(2);
const { LambdaClient, InvokeWithResponseStreamCommand } = createRequire(folder + "/")("@aws-sdk/client-lambda");
const show = (event) => console.log(JSON.stringify(event));
const digest = createHash("sha256");
let size = 0;
try {
  const client = new LambdaClient({ maxAttempts: 1 });
  let Type = "";
  const look = (next) => async (args) => {
    const result = await next(args);
    Type = result.response.headers["x-amzn-remapped-content-type"] ?? "";
    return result;
  };
  client.middlewareStack.add(look, { step: "deserialize", priority: "low" });
  const answer = await client.send(new InvokeWithResponseStreamCommand({ FunctionName, Payload, LogType }));
  show({ Head: true, Status: answer.StatusCode, Version: answer.ExecutedVersion, Type });
  for await (const event of answer.EventStream) {
    if (event.PayloadChunk) {
      const piece = event.PayloadChunk.Payload;
      size += piece.length;
      digest.update(piece);
      show({ Text: Buffer.from(piece.subarray(0, 20)).toString("latin1") });
    } else {
      show({ Complete: true, Size: size, SHA256: digest.digest("hex"), ...event.InvokeComplete });
    }
  }
} catch (e) {
  show({ Refused: e.name });
}
