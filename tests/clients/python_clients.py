"""The Python packages websockets and aiohttp, each held to the same list, against UMBEL_URL.

Run by tests/clients/run. Closes with `N passed, N failed`.
"""

import asyncio
import base64
import json
import os
import secrets
import sys
import unittest
import urllib.request

import aiohttp
import websockets
from websockets.asyncio.client import connect

URL = os.environ["UMBEL_URL"].rstrip("/")
WEBSOCKET_URL = "ws" + URL.removeprefix("http")
DEADLINE_SECONDS = 20
MESSAGE_BYTES_MAX = 32 * 1024 * 1024

ALL_BYTES = bytes(range(256))
BINARY_16_MIB = ALL_BYTES * (16 * 4096)
# One byte, then characters of three: no power of two falls between two characters.
TEXT_1_MIB = "a" + "€" * 349_525
PUBLICATIONS_EACH = 20


STREAM_LENGTH = 10_000
STREAM_LOT = 250


def stream_message(n):
    """Message n of a stream: mostly alike, and between these such as go out uncompressed."""
    if n % 31 == 30:
        return bytes((index * 7 + n) % 256 for index in range(300))
    if n % 7 == 6:
        return f"short {n}"
    fields = {
        "type": "ticker",
        "sequence": 58_000_000_000 + n * 3,
        "price": f"{64_000 + n % 900}.{n * 37 % 100}",
        "volume": n * 2_654_435_761 % 2**32,
        "side": "sell" if n % 2 else "buy",
        "venue": "what stays the same is what compression in a context saves",
        "note": "¼ of what a tick says is the same in each of them, and some of it is long",
    }
    return json.dumps(fields, ensure_ascii=False)


def post_lot(topic, first):
    """Publishes a lot of the stream in one request."""
    lines = []
    for n in range(first, first + STREAM_LOT):
        message = stream_message(n)
        if isinstance(message, str):
            lines.append({"topic": topic, "data": message})
        else:
            lines.append({"topic": topic, "base64": base64.b64encode(message).decode()})
    body = "\n".join(map(json.dumps, lines)).encode()
    request = urllib.request.Request(f"{URL}/pub", data=body, method="POST")
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
        answers = response.read().decode().splitlines()
    if len(answers) != STREAM_LOT or any("error" in answer for answer in answers):
        raise AssertionError(answers[:3])


def within_deadline(awaitable):
    return asyncio.wait_for(awaitable, DEADLINE_SECONDS)


class WebsocketsConnection:
    """One connection of the package `websockets`."""

    @classmethod
    async def open(cls, path):
        self = cls()
        self.socket = await within_deadline(
            connect(WEBSOCKET_URL + path, max_size=MESSAGE_BYTES_MAX)
        )
        return self

    @staticmethod
    async def refusal_status(path):
        try:
            await within_deadline(connect(WEBSOCKET_URL + path))
        except websockets.exceptions.InvalidStatus as refusal:
            return refusal.response.status_code
        return 101

    async def send(self, message):
        await within_deadline(self.socket.send(message))

    async def send_fragments(self, fragments):
        await within_deadline(self.socket.send(fragments))

    async def receive(self):
        return await within_deadline(self.socket.recv())

    async def ping(self, payload):
        """Returns once a pong with this payload has come."""
        await within_deadline(await self.socket.ping(payload))

    async def close(self, code, reason):
        """Returns the code of the close frame that answers."""
        await within_deadline(self.socket.close(code, reason))
        try:
            await self.receive()
        except websockets.exceptions.ConnectionClosed as closed:
            return closed.rcvd and closed.rcvd.code
        raise AssertionError("a message came after the close")


class AiohttpConnection:
    """One connection of the package `aiohttp`, which cannot send fragments."""

    @classmethod
    async def open(cls, path):
        self = cls()
        self.http = aiohttp.ClientSession()
        self.socket = await within_deadline(
            self.http.ws_connect(
                WEBSOCKET_URL + path, max_msg_size=MESSAGE_BYTES_MAX, autoping=False
            )
        )
        return self

    @staticmethod
    async def refusal_status(path):
        async with aiohttp.ClientSession() as http:
            try:
                await within_deadline(http.ws_connect(WEBSOCKET_URL + path))
            except aiohttp.WSServerHandshakeError as refusal:
                return refusal.status
        return 101

    async def send(self, message):
        if isinstance(message, str):
            await within_deadline(self.socket.send_str(message))
        else:
            await within_deadline(self.socket.send_bytes(message))

    async def receive(self):
        message = await self.receive_any()
        if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            raise AssertionError(f"not a message: {message}")
        return message.data

    async def receive_any(self):
        """The next message or control frame; the server's pings are answered on the way."""
        while True:
            message = await within_deadline(self.socket.receive())
            if message.type != aiohttp.WSMsgType.PING:
                return message
            await self.socket.pong(message.data)

    async def ping(self, payload):
        await within_deadline(self.socket.ping(payload))
        message = await self.receive_any()
        if (message.type, bytes(message.data)) != (aiohttp.WSMsgType.PONG, payload):
            raise AssertionError(f"not the pong: {message}")

    async def close(self, code, reason):
        await within_deadline(self.socket.close(code=code, message=reason.encode()))
        await self.http.close()
        return self.socket.close_code


def post(path, body):
    """Publishes over HTTP; returns the offset that the answer names."""
    request = urllib.request.Request(
        URL + path, data=body.encode(), headers={"Content-Type": "text/plain; charset=utf-8"}
    )
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
        answer = json.load(response)
    assert isinstance(answer["epoch"], str), answer
    return answer["offset"]


class Expectations:
    """What every client is to see. `connection` is one of the classes above."""

    connection = None

    async def open(self, path):
        connection = await self.connection.open(path)
        self.addAsyncCleanup(connection.close, 1000, "")
        return connection

    async def assert_echo(self, message):
        connection = await self.open("/echo")
        await connection.send(message)
        echoed = await connection.receive()
        self.assertIs(type(echoed), type(message))
        # Not assertEqual: its report on megabytes that differ would take minutes.
        self.assertTrue(echoed == message, f"{len(echoed)} of {len(message)} came back, or others")

    async def test_text(self):
        await self.assert_echo("one in, many out: ein Stängel, viele Blüten, 傘")

    async def test_empty_text(self):
        await self.assert_echo("")

    async def test_empty_binary(self):
        await self.assert_echo(b"")

    async def test_all_byte_values(self):
        await self.assert_echo(ALL_BYTES)

    async def test_binary_of_16_mib(self):
        await self.assert_echo(BINARY_16_MIB)

    async def test_text_of_1_mib(self):
        await self.assert_echo(TEXT_1_MIB)

    async def test_many_messages_stay_in_order(self):
        connection = await self.open("/echo")
        sent = [f"{n}" for n in range(1000)]
        for message in sent:
            await connection.send(message)
        self.assertEqual([await connection.receive() for _ in sent], sent)

    async def test_ping(self):
        connection = await self.open("/echo")
        await connection.ping(b"\x00 anyone? \xff")
        await connection.ping(bytes(125))

    async def test_close_code_comes_back(self):
        connection = await self.connection.open("/echo")
        self.assertEqual(await connection.close(3001, "bye"), 3001)

    async def test_unknown_path_is_refused(self):
        self.assertEqual(await self.connection.refusal_status("/no-such-endpoint"), 404)

    async def test_subscribers_see_one_order(self):
        topic = f"clients/{secrets.token_hex(8)}"
        first = await self.open(f"/ws/{topic}")
        second = await self.open(f"/ws/{topic}")
        over_websocket = [f"websocket {n}" for n in range(PUBLICATIONS_EACH)]
        over_http = [f"http {n}" for n in range(PUBLICATIONS_EACH)]

        async def publish_over_websocket():
            for payload in over_websocket:
                await first.send(payload)
                await asyncio.sleep(0)

        async def publish_over_http():
            return [await asyncio.to_thread(post, f"/pub/{topic}", body) for body in over_http]

        _, offsets = await asyncio.gather(publish_over_websocket(), publish_over_http())
        self.assertEqual(offsets, sorted(set(offsets)), "offsets rise")
        count = 2 * PUBLICATIONS_EACH
        seen_by_first = [await first.receive() for _ in range(count)]
        seen_by_second = [await second.receive() for _ in range(count)]
        self.assertEqual(seen_by_first, seen_by_second)
        self.assertEqual([p for p in seen_by_first if p in over_websocket], over_websocket)
        self.assertEqual([p for p in seen_by_first if p in over_http], over_http)

    async def test_order_of_query_does_not_matter(self):
        topic = f"clients/{secrets.token_hex(8)}"
        subscriber = await self.open(f"/ws/{topic}?b=2&a=1")
        await asyncio.to_thread(post, f"/pub/{topic}?a=1&b=2", "met")
        self.assertEqual(await subscriber.receive(), "met")


class Websockets(Expectations, unittest.IsolatedAsyncioTestCase):
    connection = WebsocketsConnection

    async def test_fragments(self):
        connection = await self.open("/echo")
        await connection.send_fragments(["um", "", "bel"])
        self.assertEqual(await connection.receive(), "umbel")
        await connection.send_fragments([b"\x00", ALL_BYTES, b"\xff"])
        self.assertEqual(await connection.receive(), b"\x00" + ALL_BYTES + b"\xff")


    async def test_messages_are_compressed_both_ways(self):
        connection = await self.open("/echo")
        deflates = [extension.name for extension in connection.socket.protocol.extensions]
        self.assertEqual(deflates, ["permessage-deflate"])
        for number in range(20):
            message = json.dumps([{"index": i, "name": f"tick {number}"} for i in range(100)])
            await connection.send(message)
            self.assertEqual(await connection.receive(), message)
        await connection.send_fragments(["um" * 1000, "bel" * 1000])
        self.assertEqual(await connection.receive(), "um" * 1000 + "bel" * 1000)

    async def test_cohort_stream_arrives_whole(self):
        """Subscribers that share a deflate context: some join, some leave, one reads slowly."""
        topic = f"clients/{secrets.token_hex(8)}"
        readers = []

        async def join(first):
            # Fewer messages wait in it than usual, so that what is read slowly is slow for the server.
            socket = await within_deadline(
                connect(f"{WEBSOCKET_URL}/ws/{topic}", max_queue=16, write_limit=1024)
            )
            extensions = socket.response.headers["Sec-WebSocket-Extensions"]
            self.assertTrue(extensions.startswith("permessage-deflate"))
            readers.append((socket, asyncio.create_task(read(socket, first))))

        async def read(socket, first):
            message = await within_deadline(socket.recv())
            # Who joins may get some that were published before, but not delivered to the others yet.
            earlier = range(first, max(first - STREAM_LOT, 0) - 1, -1)
            start = next((n for n in earlier if stream_message(n) == message), None)
            self.assertIsNotNone(start, f"message {first}")
            for n in range(start + 1, STREAM_LENGTH):
                if n == 5000 and first == 0:
                    await asyncio.sleep(0.3)
                message = await socket.recv()
                self.assertTrue(message == stream_message(n), f"message {n}")

        for _ in range(3):
            await join(0)
        for first in range(0, STREAM_LENGTH, STREAM_LOT):
            if first % 2000 == 500:
                await join(first)
            if first % 4000 == 3000:
                socket, reader = readers.pop()
                reader.cancel()
                await within_deadline(socket.close())
            await asyncio.to_thread(post_lot, topic, first)
        await within_deadline(asyncio.gather(*(reader for _, reader in readers)))
        for socket, _ in readers:
            await within_deadline(socket.close())


class Aiohttp(Expectations, unittest.IsolatedAsyncioTestCase):
    connection = AiohttpConnection


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed", flush=True)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
