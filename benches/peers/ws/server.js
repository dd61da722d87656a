// A server on Node.js with npm ws: /echo sends each message back, /ws/... are topics.
//
//     node server.js PORT
//
// A publication goes to each connection of its topic, by the loop of the package's own documentation.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const http = createServer();
const server = new WebSocketServer({ server: http, perMessageDeflate: false });
const topics = new Map();

server.on("connection", (connection, request) => {
  const path = request.url;
  if (path === "/echo") {
    connection.on("message", (data, isBinary) => connection.send(data, { binary: isBinary }));
    return;
  }
  let subscribers = topics.get(path);
  if (!subscribers) topics.set(path, (subscribers = new Set()));
  subscribers.add(connection);
  connection.on("close", () => subscribers.delete(connection));
  connection.on("message", (data, isBinary) => {
    for (const subscriber of subscribers) subscriber.send(data, { binary: isBinary });
  });
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
