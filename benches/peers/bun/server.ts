// A server on Bun: /echo sends each message back, /ws/... are topics. Bun's WebSockets are those of uWebSockets.
//
//     bun server.ts PORT [CERTIFICATE KEY]
//
// With the files of a certificate and its key it speaks TLS.
//
// Topics are Bun's own, whose publications leave in one write for each turn of the event loop.

type Data = { topic: string };

const BYTES_MAX = 16 * 1024 * 1024;

const [port, certificate, key] = process.argv.slice(2);
const tls = certificate && { cert: Bun.file(certificate), key: Bun.file(key) };

const server = Bun.serve<Data>({
  hostname: "127.0.0.1",
  port: Number(port),
  ...(tls && { tls }),
  fetch(request, server) {
    const topic = new URL(request.url).pathname;
    if (server.upgrade(request, { data: { topic } })) return undefined;
    return new Response("a WebSocket handshake is expected\n", { status: 426 });
  },
  websocket: {
    backpressureLimit: BYTES_MAX,
    closeOnBackpressureLimit: true,
    idleTimeout: 0,
    maxPayloadLength: BYTES_MAX,
    perMessageDeflate: false,
    open(connection) {
      if (connection.data.topic !== "/echo") connection.subscribe(connection.data.topic);
    },
    message(connection, message) {
      if (connection.data.topic === "/echo") connection.send(message);
      else server.publish(connection.data.topic, message);
    },
  },
});
