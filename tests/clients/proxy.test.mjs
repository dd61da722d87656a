// nginx and HAProxy in front of a server on a loopback address.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request as requestTo } from "node:http";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { UmbelProcess } from "./umbel_process.mjs";

const DEADLINE_MS = 20_000;
const THROUGH_PROXY = "this came through a proxy, and Umbel is open to this machine only: say who may publish and subscribe (--publish, --subscribe)\n";
const RIGHTS = ["--publish", "anyone", "--subscribe", "anyone", "--origin", "https://push.example.com"];

async function freePort() {
  const socket = createServer();
  await new Promise((resolve) => socket.listen(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(resolve));
  return port;
}

/** Resolves once somebody listens there. */
async function listens(port, proxy) {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    const connected = await new Promise((resolve) => {
      const socket = connect(port, "127.0.0.1", () => resolve(socket.destroy() && true));
      socket.on("error", () => resolve(false));
    });
    if (connected) return;
    assert.equal(proxy.exitCode, null, `it has ended: ${proxy.said}`);
    assert.ok(Date.now() < deadline, `it does not listen: ${proxy.said}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Runs a proxy in the foreground while `use` gets its port. `settings` makes its file from port and folder. */
async function behind(program, settings, use) {
  const folder = mkdtempSync(join(tmpdir(), "umbel-proxy-"));
  const port = await freePort();
  const file = join(folder, "proxy.conf");
  writeFileSync(file, settings(port, folder));
  const path = `${process.env.PATH}:/usr/sbin`;
  const flags = program === "nginx" ? ["-p", folder, "-e", "stderr", "-c", file] : ["-db", "-f", file];
  const proxy = spawn(program, flags, { env: { ...process.env, PATH: path }, stdio: ["ignore", "pipe", "pipe"] });
  proxy.said = "";
  for (const stream of [proxy.stdout, proxy.stderr]) stream.on("data", (bytes) => (proxy.said += bytes));
  const ended = new Promise((resolve) => proxy.on("close", resolve));
  await new Promise((resolve, reject) => {
    proxy.on("spawn", resolve);
    proxy.on("error", (error) => reject(new Error(`${program}, which scripts/setup installs: ${error}`)));
  });
  try {
    await listens(port, proxy);
    return await use(port);
  } finally {
    proxy.kill("SIGTERM");
    await ended;
    rmSync(folder, { recursive: true });
  }
}

const nginx = (server, lines, use) => {
  const settings = (port, folder) => `
daemon off; worker_processes 1; pid ${folder}/pid;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  server { listen 127.0.0.1:${port}; location / { proxy_pass ${server.url}; ${lines} } }
}`;
  return behind("nginx", settings, use);
};

const haproxy = (server, { defaults = "", line = "" }, use) => {
  const settings = (port) => `
global
  maxconn 64
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
  ${defaults}
frontend front
  bind 127.0.0.1:${port}
  default_backend back
backend back
  server umbel ${new URL(server.url).host} ${line}
`;
  return behind("haproxy", settings, use);
};

/** Asks the proxy as a client elsewhere does. */
function ask(port, method, path, headers = {}) {
  return new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port, method, path, headers: { host: "push.example.com", ...headers } };
    const request = requestTo(options, (response) => {
      let body = "";
      response.on("data", (bytes) => (body += bytes));
      response.on("end", () => resolve([response.statusCode, body]));
    });
    request.setTimeout(DEADLINE_MS, () => request.destroy(new Error("no answer")));
    request.on("error", reject);
    request.end(method === "POST" ? "hello" : undefined);
  });
}

function open(port, headers = {}) {
  return new Promise((resolve) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/ws/a`, {
      headers: { host: "push.example.com", ...headers },
    });
    socket.on("open", () => resolve(101) ?? socket.terminate());
    socket.on("unexpected-response", (request, response) => resolve(response.statusCode) ?? request.destroy());
    socket.on("error", () => resolve("failed"));
  });
}

const WEBSOCKET =
  "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;";

let openServer;
let closedServer;
before(async () => {
  openServer = await UmbelProcess.start();
  closedServer = await UmbelProcess.start(...RIGHTS, "--observe", "anyone", "--hosts", "push.example.com");
});
after(() => Promise.all([openServer?.stop(), closedServer?.stop()]));

const limits = { timeout: 3 * DEADLINE_MS };

test("a proxy that tells of itself gets nothing of an open server", limits, async () => {
  for (const lines of [
    "proxy_set_header Host $host;",
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "proxy_set_header X-Real-IP $remote_addr;",
    `${WEBSOCKET} proxy_set_header X-Forwarded-Proto $scheme;`,
    `${WEBSOCKET} proxy_set_header Host $host;`,
  ]) {
    await nginx(openServer, lines, async (port) => {
      assert.deepEqual(await ask(port, "GET", "/topics"), [403, THROUGH_PROXY], lines);
      assert.deepEqual(await ask(port, "POST", "/pub/a"), [403, THROUGH_PROXY], lines);
      assert.equal(await open(port), 403, lines);
    });
  }
  for (const settings of [{}, { defaults: "option forwardfor" }]) {
    await haproxy(openServer, settings, async (port) => {
      assert.deepEqual(await ask(port, "GET", "/topics"), [403, THROUGH_PROXY]);
      assert.equal(await open(port), 403);
    });
  }
  await haproxy(openServer, { line: "send-proxy-v2" }, async (port) => {
    const [status] = await ask(port, "GET", "/topics", { host: "localhost" });
    assert.ok([400, 502].includes(status), `${status}`);
  });
});

test("a proxy that does not tell may read, and the log warns of it", limits, async () => {
  await nginx(openServer, "", async (port) => {
    // HTTP/1.0 with the server's own address as the host.
    assert.equal((await ask(port, "GET", "/topics"))[0], 200);
    assert.deepEqual(await ask(port, "POST", "/pub/a"), [403, THROUGH_PROXY]);
    assert.notEqual(await open(port), 101);
  });
  const warned = `open to everything that reaches 127.0.0.1:${openServer.port}, a proxy in front included`;
  assert.ok(openServer.log.includes(warned), openServer.log);
});

test("a server with rights is served through the proxy of the guide", limits, async () => {
  const forwarded = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
  await nginx(closedServer, `proxy_set_header Host $host; ${forwarded} ${WEBSOCKET}`, async (port) => {
    assert.equal((await ask(port, "GET", "/topics"))[0], 200);
    assert.equal((await ask(port, "POST", "/pub/a"))[0], 200);
    assert.equal(await open(port), 101);
    assert.equal(await open(port, { origin: "https://push.example.com" }), 101);
    assert.equal(await open(port, { origin: "https://evil.example" }), 403);
    assert.equal((await ask(port, "GET", "/topics", { host: "evil.example" }))[0], 421);
  });
});
