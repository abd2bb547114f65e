// A server of the forward protocol: node server.mjs PORT [SHARED_KEY [CERTIFICATE PRIVATE_KEY]], on loopback. Each entry is a line of
// JSON in the file `entries`, with its tag, its time in seconds and nanoseconds, and its record.
import fs from "node:fs";
import logger from "@fluent-org/logger";

const ENTRIES = "entries";
// Any but the client's.
const HOSTNAME = "server";

const [port, sharedKey, certificate, privateKey] = process.argv.slice(2);
const read = (path) => fs.readFileSync(path);

// A line that a kill cut off was not acknowledged: it comes again.
if (fs.existsSync(ENTRIES)) fs.truncateSync(ENTRIES, read(ENTRIES).lastIndexOf("\n") + 1);
const file = fs.openSync(ENTRIES, "a");

let lines = [];
function keep() {
  const bytes = Buffer.from(lines.join(""));
  lines = [];
  for (let start = 0; start < bytes.length; ) start += fs.writeSync(file, bytes, start);
}

const server = new logger.FluentServer({
  listenOptions: { host: "127.0.0.1", port: Number(port) },
  security: sharedKey ? { serverHostname: HOSTNAME, sharedKey } : undefined,
  tlsOptions: certificate ? { cert: read(certificate), key: read(privateKey) } : undefined,
});

server.on("entry", (tag, time, record) => {
  lines.push(JSON.stringify({ tag, time: [time.epoch, time.nano], record }) + "\n");
});

// It acknowledges a chunk before it hands on the entries, both in one turn: a kill between them would lose what was acknowledged. So what
// it says waits for the end of the turn, and for the file.
server.server.on(certificate ? "secureConnection" : "connection", (socket) => {
  const write = socket.write.bind(socket);
  socket.write = (bytes) => {
    queueMicrotask(() => {
      keep();
      write(bytes);
    });
    return true;
  };
  // A client that was killed resets its connection.
  socket.on("error", (error) => console.error(`client: ${error.message}`));
});

await server.listen();
