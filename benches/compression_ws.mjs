// Bytes on the wire of the npm package ws, which compresses for each connection in a context of its own, with its
// default settings for permessage-deflate: usage: node benches/compression_ws.mjs TICKS, a message a line.
// benches/compression.rs prints the ticks. The package is that of tests/clients.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../tests/clients/package.json", import.meta.url));
const { WebSocket, WebSocketServer } = require("ws");

const ticks = readFileSync(process.argv[2], "utf8").trimEnd().split("\n");
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: true });
await new Promise((resolve) => server.on("listening", resolve));
server.on("connection", (socket) => ticks.forEach((tick) => socket.send(tick)));

const client = new WebSocket(`ws://127.0.0.1:${server.address().port}`);
let upgradeBytes = 0;
let received = 0;
client.on("upgrade", (response) => (upgradeBytes = response.socket.bytesRead));
client.on("message", () => {
  received += 1;
  if (received < ticks.length) return;
  const bytes = client._socket.bytesRead - upgradeBytes;
  console.log(`ws, dedicated: ${(bytes / ticks.length).toFixed(1)} bytes a delivery`);
  client.terminate();
  server.close();
});
