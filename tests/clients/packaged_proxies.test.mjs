// The configurations of scripts/package/proxies, run by nginx, HAProxy and Caddy in front of a server.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, request as requestTo } from "node:https";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { UmbelProcess } from "./umbel_process.mjs";

const PACKAGED = join(import.meta.dirname, "../../scripts/package/proxies");
const DEADLINE_MS = 20_000;
// The token `operator`, by its SHA-256.
const TOKEN =
  "operator sha256=06e55b633481f7bb072957eabcf110c972e86691c3cfedabe088024bffe42f23 manage=** observe=true publish=** subscribe=**";
/** Where the client connects from. The proxies connect from 127.0.0.1, which is trusted. */
const CLIENT = "127.0.0.7";
const LIMITS = { timeout: 3 * DEADLINE_MS };

let folder;
let server;
let ports;

async function freePorts(count) {
  const sockets = Array.from({ length: count }, () => createServer());
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.listen(0, "127.0.0.1", resolve))));
  const free = sockets.map((socket) => socket.address().port);
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.close(resolve))));
  return free;
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "umbel-packaged-"));
  const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
  execFileSync("openssl", [
    ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=push.example.com".split(" "),
    ...["-addext", "subjectAltName=DNS:push.example.com", "-keyout", key, "-out", certificate],
  ], { stdio: "ignore" });
  writeFileSync(join(folder, "both.pem"), readFileSync(certificate) + readFileSync(key));
  const [http, proxied, front, second] = await freePorts(4);
  ports = { http, proxied, front, second };
  server = await UmbelProcess.start(
    ...["--listen", `127.0.0.1:${http}?trusted_proxies=127.0.0.1`],
    ...["--listen", `127.0.0.1:${proxied}?trusted_proxies=127.0.0.1&proxy_protocol=true`],
    ...["--token", TOKEN, "--cookie", "__Host-umbel", "--origin", "https://other.example"],
  );
});
after(async () => {
  await server?.stop();
  rmSync(folder, { recursive: true });
});

/** A packaged file with other places in it, each of which has to be there. */
function settings(name, places) {
  let text = readFileSync(join(PACKAGED, name), "utf8");
  for (const [from, to] of places) {
    assert.ok(text.includes(from), `${name} has ${from}`);
    text = text.replaceAll(from, to);
  }
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

/** Runs a proxy while `use` asks it. */
async function behind(program, flags, use) {
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin`, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
  const proxy = spawn(program, flags, { env, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [proxy.stdout, proxy.stderr]) stream.on("data", (bytes) => (said += bytes));
  const ended = new Promise((resolve) => proxy.on("close", resolve));
  await new Promise((resolve, reject) => {
    proxy.on("spawn", resolve);
    proxy.on("error", (error) => reject(new Error(`${program}, which scripts/setup installs: ${error}`)));
  });
  try {
    const deadline = Date.now() + DEADLINE_MS;
    while (!(await listens(ports.front))) {
      assert.equal(proxy.exitCode, null, `it has ended: ${said}`);
      assert.ok(Date.now() < deadline, `it does not listen: ${said}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await use();
  } catch (error) {
    error.message += `\n${program}: ${said}\n${server.log.slice(-2000)}`;
    throw error;
  } finally {
    proxy.kill("SIGTERM");
    await ended;
  }
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => resolve(socket.destroy() && true));
    socket.on("error", () => resolve(false));
  });
}

function options(port, headers) {
  return {
    host: "127.0.0.1",
    port,
    localAddress: CLIENT,
    servername: "push.example.com",
    rejectUnauthorized: false,
    headers: { host: `push.example.com:${port}`, ...headers },
  };
}

/** Asks as a client elsewhere does; resolves with the answer, whose body is yet to come. */
function ask(port, path, headers = {}, method = "GET") {
  return new Promise((resolve, reject) => {
    const agent = new Agent({ keepAlive: false });
    const request = requestTo({ ...options(port, headers), path, method, agent }, resolve);
    request.setTimeout(DEADLINE_MS, () => request.destroy(new Error("no answer")));
    request.on("error", reject);
    request.end(method === "POST" ? "hello" : undefined);
  });
}

async function body(answer) {
  let text = "";
  for await (const bytes of answer) text += bytes;
  return text;
}

/** What every proxy has to bring through. */
async function check(port) {
  const bearer = { authorization: "Bearer operator" };
  // Whatever the client says of itself.
  const forged = { "x-forwarded-for": "203.0.113.9, 198.51.100.7", forwarded: "for=203.0.113.9", "x-real-ip": "203.0.113.9" };
  for (const headers of [{}, forged]) {
    const answer = await ask(port, "/api/v1/connections", { ...bearer, ...headers });
    const text = await body(answer);
    assert.equal(answer.statusCode, 200, text);
    const peers = JSON.parse(text).connections.map((connection) => connection.peer);
    assert.ok(peers.includes(CLIENT), text);
    assert.ok(!text.includes("203.0.113.9") && !text.includes("198.51.100.7"), text);
  }

  const stream = await ask(port, "/sse/a", bearer);
  assert.equal(stream.statusCode, 200);
  // A cookie counts for the page of the server itself: by the scheme and the host that the browser sees.
  const page = { cookie: "__Host-umbel=operator", origin: `https://push.example.com:${port}` };
  const open = (headers) =>
    new Promise((resolve) => {
      const socket = new WebSocket(`wss://127.0.0.1:${port}/ws/a`, options(port, headers));
      socket.on("open", () => resolve(socket));
      socket.on("unexpected-response", (request, response) => resolve(response.statusCode) ?? request.destroy());
      socket.on("error", (error) => resolve(error.message));
    });
  const socket = await open(page);
  assert.ok(socket instanceof WebSocket, `a page of the server itself: ${socket}`);
  assert.equal(await open({ ...page, origin: `http://push.example.com:${port}` }), 403);
  assert.equal(await open({ ...page, origin: "https://evil.example", "x-forwarded-host": "evil.example" }), 403);

  const message = new Promise((resolve) => socket.on("message", (bytes) => resolve(String(bytes))));
  const event = (async () => {
    let text = "";
    for await (const bytes of stream) {
      text += bytes;
      if (text.includes("data: hello")) return "hello";
    }
    return text;
  })();
  const published = await ask(port, "/pub/a", bearer, "POST");
  assert.equal(published.statusCode, 200, await body(published));
  assert.deepEqual(await Promise.all([message, event]), ["hello", "hello"]);
  socket.terminate();
  stream.destroy();
}

test("nginx, as packaged", LIMITS, async () => {
  const site = settings("nginx.conf", [
    ["127.0.0.1:8080", `127.0.0.1:${ports.http}`],
    ["listen 443 ssl", `listen 127.0.0.1:${ports.front} ssl`],
    ["/etc/letsencrypt/live/push.example.com/fullchain.pem", join(folder, "certificate.pem")],
    ["/etc/letsencrypt/live/push.example.com/privkey.pem", join(folder, "key.pem")],
  ]);
  const whole = join(folder, "whole.conf");
  writeFileSync(whole, `daemon off; worker_processes 1; pid ${folder}/pid;\nevents { worker_connections 64; }\nhttp {\naccess_log off;\n`);
  for (const kind of ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]) appendFileSync(whole, `${kind}_temp_path ${folder}/${kind};\n`);
  appendFileSync(whole, `include ${site};\n}\n`);
  await behind("nginx", ["-p", folder, "-e", "stderr", "-c", whole], () => check(ports.front));
});

test("HAProxy, as packaged: by headers, and by the PROXY protocol", LIMITS, async () => {
  const file = settings("haproxy.cfg", [
    ["127.0.0.1:8080", `127.0.0.1:${ports.http}`],
    ["127.0.0.1:8081", `127.0.0.1:${ports.proxied}`],
    ["bind :443", `bind 127.0.0.1:${ports.front}`],
    ["bind :8443", `bind 127.0.0.1:${ports.second}`],
    ["/etc/haproxy/push.example.com.pem", join(folder, "both.pem")],
    ["maxconn 100000", "maxconn 64"],
  ]);
  await behind("haproxy", ["-db", "-f", file], async () => {
    await check(ports.front);
    await check(ports.second);
  });
});

test("Caddy, as packaged", LIMITS, async () => {
  const file = settings("Caddyfile", [
    ["127.0.0.1:8080", `127.0.0.1:${ports.http}`],
    [
      "push.example.com {\n",
      `{\n\tadmin off\n\tauto_https off\n\tgrace_period 100ms\n}\n\nhttps://push.example.com:${ports.front} {\n\tbind 127.0.0.1\n\ttls ${folder}/certificate.pem ${folder}/key.pem\n`,
    ],
  ]);
  await behind("caddy", ["run", "--config", file, "--adapter", "caddyfile"], () => check(ports.front));
});
