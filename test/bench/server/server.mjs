// The bare HTTP server in Node.js that benchmarks compare with: echoes bodies, and
// under /stream?mb=N writes so many megabytes, piece by piece.
import { once } from "node:events";
import http from "node:http";

const piece = Buffer.alloc(1 << 20, "x");

async function stream(response, mb) {
  for (let i = 0; i < mb; i++) if (!response.write(piece)) await once(response, "drain");
  response.end();
}

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const url = new URL(request.url, "http://server");
    if (url.pathname === "/stream") return stream(response, Number(url.searchParams.get("mb")));
    const event = JSON.parse(Buffer.concat(chunks));
    const body = JSON.stringify(event);
    response.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
    response.end(body);
  });
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
