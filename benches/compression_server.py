#!/usr/bin/env python3
"""What compression costs a running server: CPU time and bytes of a delivery, for each way of compressing.

usage: benches/compression_server.py TICKS [--subscribers N] [--messages M] [--rate R] [--rounds K] [--without-ws]

TICKS holds a message a line; `cargo bench --bench compression -- ticks` prints them. Umbel runs with
one reactor, and the npm package ws (that of tests/clients) with its default settings for
permessage-deflate, where each connection has a context of its own. The subscribers read and throw
away, so only the server compresses. CPU is that of all of the server's threads in user space and in
the kernel, over M messages at R a second, after some that are not counted. The kinds take turns, K
rounds of them; the figures are the means. What counts are the ratios: the kernel's part of a
delivery, most of a plain one, is in all of them.

environment: UMBEL_BIN, the server, if not target/release/umbel
"""

import argparse
import base64
import http.client
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UMBEL = os.environ.get("UMBEL_BIN", str(ROOT / "target/release/umbel"))
KEEPS = "permessage-deflate; client_max_window_bits"
KEEPS_NOT = "permessage-deflate; server_no_context_takeover; client_max_window_bits"
WARM_UP_MESSAGES = 20
START_SECONDS_MAX = 10
# Nothing has come for so long: everything is delivered.
QUIET_SECONDS = 0.5
WS_SERVER = """
const { WebSocketServer } = require("ws");
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 4096, perMessageDeflate: true });
server.on("listening", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  for (const socket of server.clients) socket.send(line);
});
"""


class Server:
    """A server in a process of its own."""

    def __init__(self, command, cwd=None):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + START_SECONDS_MAX
        found = None
        while not found and time.monotonic() < deadline:
            time.sleep(0.02)
            self.log.seek(0)
            found = re.search(rb"listening on http://127.0.0.1:(\d+)", self.log.read())
        if not found:
            self.stop()
            sys.exit(f"{command[0]} does not listen")
        self.port = int(found.group(1))

    def cpu_ns(self):
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Umbel(Server):
    path = "/ws/ticks"

    def __init__(self):
        super().__init__([UMBEL, "serve", "--listen", "127.0.0.1:0", "--reactors", "1"])
        self.publisher = http.client.HTTPConnection("127.0.0.1", self.port)

    def publish(self, tick):
        self.publisher.request("POST", "/pub/ticks", tick, {"Content-Type": "text/plain"})
        response = self.publisher.getresponse()
        response.read()
        assert response.status == 200, response.status


class Ws(Server):
    path = "/"

    def __init__(self):
        super().__init__(["node", "-e", WS_SERVER], cwd=ROOT / "tests/clients")

    def publish(self, tick):
        self.process.stdin.write(tick + b"\n")
        self.process.stdin.flush()


class Subscribers:
    """Connections that read, count bytes and forget them."""

    def __init__(self, server, count, offer):
        self.epoll = select.epoll()
        self.sockets = {}
        self.buffer = bytearray(1 << 16)
        extensions = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer else ""
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET {server.path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{extensions}\r\n"
        ).encode()
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(request)
            head = connection.recv(4096)
            assert head.startswith(b"HTTP/1.1 101"), head
            assert (b"permessage-deflate" in head) == bool(offer), head
            connection.setblocking(False)
            self.sockets[connection.fileno()] = connection
            self.epoll.register(connection, select.EPOLLIN)

    def read(self, until):
        """Reads until that moment; gives the bytes that came."""
        total = 0
        while (wait := until - time.monotonic()) > 0:
            for number, _ in self.epoll.poll(wait):
                total += self.sockets[number].recv_into(self.buffer)
        return total

    def read_all(self):
        total = 0
        while came := self.read(time.monotonic() + QUIET_SECONDS):
            total += came
        return total

    def close(self):
        for connection in self.sockets.values():
            connection.close()
        self.epoll.close()


def measure(kind, offer, ticks, arguments):
    """Microseconds of CPU and bytes of a delivery."""
    server = kind()
    try:
        subscribers = Subscribers(server, arguments.subscribers, offer)
        interval = 1 / arguments.rate
        for tick in ticks[:WARM_UP_MESSAGES]:
            server.publish(tick)
            subscribers.read(time.monotonic() + interval)
        subscribers.read_all()
        before, total, next_at = server.cpu_ns(), 0, time.monotonic()
        for tick in ticks[WARM_UP_MESSAGES : WARM_UP_MESSAGES + arguments.messages]:
            server.publish(tick)
            next_at += interval
            total += subscribers.read(next_at)
        total += subscribers.read_all()
        deliveries = arguments.subscribers * arguments.messages
        cpu_us = (server.cpu_ns() - before) / deliveries / 1000
        subscribers.close()
        return cpu_us, total / deliveries
    finally:
        server.stop()


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("ticks")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--without-ws", action="store_true")
    arguments = parser.parse_args()
    ticks = Path(arguments.ticks).read_bytes().splitlines()
    assert len(ticks) >= WARM_UP_MESSAGES + arguments.messages
    kinds = [
        ("Umbel, plain", Umbel, None),
        ("Umbel, each message by itself", Umbel, KEEPS_NOT),
        ("Umbel, cohort", Umbel, KEEPS),
        ("npm ws, plain", Ws, None),
        ("npm ws, a context for each", Ws, KEEPS),
    ]
    kinds = [kind for kind in kinds if not (arguments.without_ws and kind[1] is Ws)]
    sums = {name: [0.0, 0.0] for name, *_ in kinds}
    for _ in range(arguments.rounds):
        for name, kind, offer in kinds:
            for index, figure in enumerate(measure(kind, offer, ticks, arguments)):
                sums[name][index] += figure / arguments.rounds
    plain_us, plain_bytes = sums["Umbel, plain"]
    print(f"{arguments.subscribers} subscribers, {arguments.messages} messages at {arguments.rate:g} a second")
    print("| sent | bytes a delivery | of plain | CPU us a delivery | of plain |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (cpu_us, count) in sums.items():
        print(f"| {name} | {count:.1f} | {count / plain_bytes:.3f} | {cpu_us:.2f} | {cpu_us / plain_us:.2f} |")


if __name__ == "__main__":
    main()
