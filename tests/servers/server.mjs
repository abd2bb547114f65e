// A Node server for the opinion tier: node server.mjs PORT. The targets are those of tests/servers/README.md.
import http from "node:http";

const text = (size) => Buffer.alloc(size, "0123456789abcdef");
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function answer(request, response) {
  // A proxy is asked with the whole URL.
  const [, what, first, second] = request.url.replace(/^http:\/\/[^/]*/, "").split(/[/?]/);
  const number = Number(first ?? 0);
  switch (what) {
    case "size":
      return response.end(text(number));
    case "chunked":
      for (let i = 0; i < number; i++) response.write(text(Number(second)));
      return response.end();
    case "status":
      response.writeHead(number, { "X-Case": "status" });
      return response.end([204, 304].includes(number) ? undefined : `status ${number}`);
    case "slow":
      response.writeHead(200, { "Content-Length": number });
      for (let i = 0; i < number; i++) {
        response.write("x");
        await wait(Number(second));
      }
      return response.end();
    case "trailers":
      response.writeHead(200, { Trailer: "X-Sum" });
      response.write(text(number));
      response.addTrailers({ "X-Sum": "1234", "X-More": "yes" });
      return response.end();
    case "early":
      response.writeEarlyHints({ link: "</style.css>; rel=preload" });
      await wait(number);
      return response.end("after the hints");
    case "events":
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      for (let i = 0; i < number; i++) {
        response.write(`id: ${i}\ndata: tick\n\n`);
        await wait(Number(second));
      }
      return response.end();
    case "headers":
      for (let i = 0; i < number; i++) response.setHeader(`X-Header-${i}`, "v".repeat(Number(second)));
      return response.end("many");
    case "redirect":
      response.writeHead(302, { Location: "/size/10" });
      return response.end("over there");
    case "cut":
      response.writeHead(200, { "Content-Length": number * 2 });
      response.write(text(number), () => response.destroy());
      return undefined;
    case "refuse":
      response.writeHead(413, { Connection: "close" });
      return response.end("too much");
    case "echo": {
      const pieces = [];
      for await (const piece of request) pieces.push(piece);
      return response.end(Buffer.concat(pieces));
    }
    default:
      for await (const piece of request) void piece;
      response.statusCode = 404;
      return response.end("no such thing");
  }
}

const server = http.createServer({ maxHeaderSize: 60000, insecureHTTPParser: true }, answer);

// What follows in the tunnel is sent back until the client finishes.
function tunnel(answer) {
  return (request, socket, head) => {
    socket.write(answer);
    socket.write(head);
    socket.on("data", (data) => socket.write(data));
    socket.on("end", () => socket.end());
    socket.on("error", () => {});
  };
}
server.on("upgrade", tunnel("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhello"));
server.on("connect", tunnel("HTTP/1.1 200 Connection established\r\n\r\n"));
server.listen(Number(process.argv[2]), "127.0.0.1");
