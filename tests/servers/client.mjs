// A Node client for the opinion tier: node client.mjs PORT CASE. Prints nothing; fails if an answer is wrong.
import http from "node:http";

const port = Number(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: 2 });

function ask(method, path, { body, headers, chunked } = {}) {
  return new Promise((done, failed) => {
    const request = http.request({ host: "127.0.0.1", port, method, path, headers, agent, insecureHTTPParser: true });
    request.on("error", failed);
    request.on("response", (response) => {
      response.on("error", failed);
      response.resume();
      response.on("end", () => done(response.statusCode));
    });
    if (chunked) for (const piece of chunked) request.write(piece);
    request.end(body);
  });
}

const cases = {
  async mixed() {
    await Promise.all([ask("GET", "/size/1000"), ask("GET", "/chunked/3/700"), ask("HEAD", "/size/5000")]);
    await ask("POST", "/echo", { body: "x".repeat(3000) });
    await ask("PUT", "/echo", { chunked: ["one", "two".repeat(1000), "three"] });
    await ask("DELETE", "/status/204");
    await ask("PATCH", "/echo", { body: "{}" });
    await ask("OPTIONS", "*");
    await ask("PROPFIND", "/echo", { body: "<propfind/>" });
    await ask("GET", "/status/304");
    await ask("GET", "/status/500?why=test");
  },
  async odd() {
    await ask("GET", "/early/5");
    await ask("GET", "/trailers/2000");
    await ask("GET", "/headers/100/100");
    await ask("GET", "/size/10", { headers: { "X-Long": "l".repeat(20000) } });
    await ask("GET", "/events/4/2");
    await ask("GET", "/slow/20/1");
    await ask("REPORT", "/echo", { body: "r" });
  },
};

await cases[process.argv[3]]();
agent.destroy();
