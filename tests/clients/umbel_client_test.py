"""The Python package umbel-client (scripts/package/python) against servers of its own.

Run by tests/clients/run. Closes with `N passed, N failed`.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import jwt

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/package/python/src"))

from umbel_client import (  # noqa: E402
    AsyncClient,
    Client,
    Gap,
    Join,
    Leave,
    Publication,
    UmbelError,
    sign_url,
)

BINARY = os.environ.get("UMBEL_BIN", str(ROOT / "target/release/umbel"))
DEADLINE_S = 15
SECRET = "a secret of both sides, 32 bytes"
SOON = {"backoff_min_s": 0.01, "backoff_max_s": 0.05}


class Server:
    """An Umbel that may be ended and started again at the same address."""

    def __init__(self, *flags):
        self.flags = flags
        self.address = "127.0.0.1:0"
        self.start()

    def start(self):
        # It refuses variables that are none of its settings.
        environment = {name: text for name, text in os.environ.items() if not name.startswith("UMBEL_")}
        arguments = [BINARY, "serve", "--listen", self.address, "--log-format", "json", *self.flags]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
        for line in self.process.stderr:
            words = json.loads(line)["message"]
            if words.startswith("listening on http://"):
                self.url = words.split()[2]
                self.address = self.url.removeprefix("http://").rstrip("/")
                return
        raise AssertionError(f"the server ended with {self.process.wait()}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(DEADLINE_S)
        self.process.stderr.close()


class CuttingProxy:
    """Stands before a server. `cut` breaks all connections; while `is_mute` the server's answers get lost."""

    def __init__(self, server):
        self.host, _, self.port = server.address.partition(":")
        self.writers = []
        self.is_mute = False
        self.sent = 0

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.listener.close()
        self.cut()

    def cut(self):
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()
        self.is_mute = False

    async def carry(self, reader, writer):
        to_reader, to_writer = await asyncio.open_connection(self.host, int(self.port))
        self.writers += [writer, to_writer]
        await asyncio.gather(self.pass_on(reader, to_writer, True), self.pass_on(to_reader, writer, False))

    async def pass_on(self, reader, writer, is_to_server):
        try:
            while data := await reader.read(65536):
                if is_to_server:
                    self.sent += len(data)
                elif self.is_mute:
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()


def within(awaitable):
    return asyncio.wait_for(awaitable, DEADLINE_S)


async def take(subscription, count):
    return [await within(subscription.__anext__()) for _ in range(count)]


async def until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not become true in time")
        await asyncio.sleep(0.005)


class Open(unittest.IsolatedAsyncioTestCase):
    """Against a server that is open to this machine."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server(
            "--topic-rule",
            "kept/** history=1000 presence=on",
            "--topic-rule",
            "latest/** slow_consumer=latest keep=latest history=100",
        )

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    async def test_values_and_fields(self):
        async with AsyncClient(self.server.url) as client:
            subscription = await within(client.subscribe("values"))
            sent = ["text", b"\x00\xff", {"price": 3, "name": "傘"}, [1, None], 7, None, ""]
            for value in sent:
                await within(client.publish("values", value))
            got = await take(subscription, len(sent))
            self.assertEqual([each.data for each in got], sent)
            answer = await within(
                client.publish(
                    "values", "x", key="k", event="price", id="7", content_type="text/csv",
                    tags={"region": "eu"}, receipt=True,
                )
            )
            (got,) = await take(subscription, 1)
            self.assertEqual(
                (got.key, got.event, got.id, got.content_type, got.tags, got.position),
                ("k", "price", "7", "text/csv", {"region": "eu"}, answer.position),
            )
            self.assertEqual(answer.receipt.matched, 1)
            self.assertEqual(subscription.position, answer.position)

    async def test_missed_publications_are_recovered(self):
        async with CuttingProxy(self.server) as proxy, AsyncClient(proxy.url, **SOON) as client, AsyncClient(
            self.server.url
        ) as other:
            subscription = await within(client.subscribe("kept/recovered"))
            for n in range(30):
                await within(other.publish("kept/recovered", n))
                if n % 10 == 5:
                    proxy.cut()
            self.assertEqual([each.data for each in await take(subscription, 30)], list(range(30)))

    async def test_since_and_last(self):
        async with AsyncClient(self.server.url) as client:
            positions = [(await within(client.publish("kept/since", n))).position for n in range(10)]
            last = await within(client.subscribe("kept/since", last=3))
            self.assertEqual([each.data for each in await take(last, 3)], [7, 8, 9])
            await last.unsubscribe()
            since = await within(client.subscribe("kept/since", since=positions[5]))
            self.assertEqual([each.data for each in await take(since, 4)], [6, 7, 8, 9])
            await since.unsubscribe()
            self.assertEqual([event async for event in since], [])
            unknown = await within(client.subscribe("kept/since", since="00000000000000a1:3"))
            (gap,) = await take(unknown, 1)
            self.assertEqual((gap.reason, gap.last), ("unrecovered", positions[9]))

    async def test_last_holds_over_a_loss_before_it_came(self):
        async with CuttingProxy(self.server) as proxy, AsyncClient(proxy.url, **SOON) as client, AsyncClient(
            self.server.url
        ) as other:
            for n in range(5):
                await within(other.publish("kept/last", n))
            subscription = await within(client.subscribe("kept/last", last=2))
            proxy.cut()
            got = await take(subscription, 2)
            await within(other.publish("kept/last", 5))
            got += await take(subscription, 1)
            self.assertEqual([each.data for each in got], [3, 4, 5])

    async def test_snapshot_comes_first(self):
        async with AsyncClient(self.server.url) as client:
            for n in range(6):
                await within(client.publish("latest/a", n, key=f"key {n % 2}"))
            subscription = await within(client.subscribe("latest/a"))
            self.assertEqual([each.data for each in await take(subscription, 2)], [4, 5])

    async def test_publish_is_carried_out_once(self):
        async with CuttingProxy(self.server) as proxy, AsyncClient(proxy.url, **SOON) as client:
            await within(client.publish("kept/once", 0))
            proxy.is_mute = True
            before = proxy.sent
            waiting = [asyncio.create_task(client.publish("kept/once", n)) for n in range(1, 4)]
            await until(lambda: proxy.sent > before)
            async with AsyncClient(self.server.url) as other:
                while len((await within(other.history("kept/once"))).publications) < 4:
                    await asyncio.sleep(0.005)
                proxy.cut()
                answers = await within(asyncio.gather(*waiting))
                self.assertTrue(all(answer.is_duplicate for answer in answers))
                page = await within(other.history("kept/once"))
            self.assertEqual([each.data for each in page.publications], [0, 1, 2, 3])

    async def test_publish_without_key_has_unknown_fate(self):
        async with CuttingProxy(self.server) as proxy, AsyncClient(proxy.url, **SOON) as client:
            await within(client.wait_open())
            proxy.is_mute = True
            before = proxy.sent
            waiting = asyncio.create_task(client.publish("values", "x", idempotency_key=None))
            await until(lambda: proxy.sent > before)
            proxy.cut()
            with self.assertRaises(UmbelError) as caught:
                await within(waiting)
            self.assertEqual(caught.exception.code, "fate_unknown")

    async def test_pattern_tells_a_gap_after_a_loss(self):
        async with CuttingProxy(self.server) as proxy, AsyncClient(proxy.url, **SOON) as client:
            subscription = await within(client.subscribe(pattern="patterns/*"))
            await within(client.publish("patterns/a", 1))
            (got,) = await take(subscription, 1)
            self.assertEqual((got.topic, got.pattern, got.data), ("patterns/a", "patterns/*", 1))
            proxy.cut()
            (gap,) = await take(subscription, 1)
            self.assertEqual(gap, Gap("unrecovered", pattern="patterns/*"))

    async def test_slow_program_misses_nothing(self):
        async with AsyncClient(self.server.url) as client, AsyncClient(self.server.url) as other:
            subscription = await within(client.subscribe("kept/slow", queue_max=8))
            for n in range(100):
                await within(other.publish("kept/slow", n))
            await until(lambda: subscription.is_paused)
            # Its own answers still come.
            await within(client.publish("values", "x"))
            got = await take(subscription, 100)
            self.assertEqual([each.data for each in got], list(range(100)))

    async def test_presence_and_history(self):
        async with AsyncClient(self.server.url) as client, AsyncClient(self.server.url, info={"name": "anna"}) as anna:
            subscription = await within(client.subscribe("kept/chat", presence=True))
            hers = await within(anna.subscribe("kept/chat"))
            (join,) = await take(subscription, 1)
            self.assertIsInstance(join, Join)
            self.assertEqual(join.member.info, {"name": "anna"})
            self.assertEqual((await within(client.presence("kept/chat"))).total, 2)
            await hers.unsubscribe()
            (leave,) = await take(subscription, 1)
            self.assertEqual(leave, Leave("kept/chat", join.member.connection))
            for n in range(5):
                await within(client.publish("kept/chat", n))
            page = await within(client.history("kept/chat", last=4, limit=2))
            self.assertEqual([each.data for each in page.publications], [1, 2])
            page = await within(client.history("kept/chat", since=page.next))
            self.assertEqual(([each.data for each in page.publications], page.next), ([3, 4], None))

    async def test_errors_name_their_code(self):
        async with AsyncClient(self.server.url, requests_max=2) as client:
            with self.assertRaises(UmbelError) as caught:
                await within(client.publish("a//b", "x"))
            self.assertEqual(caught.exception.code, "invalid_topic")
            with self.assertRaises(UmbelError) as caught:
                await within(client.subscribe("a//b"))
            self.assertEqual(caught.exception.code, "invalid_topic")
            await within(client.subscribe("twice"))
            with self.assertRaises(UmbelError) as caught:
                await within(client.subscribe("twice"))
            self.assertEqual(caught.exception.code, "already_subscribed")
        with self.assertRaises(UmbelError) as caught:
            await client.publish("values", "x")
        self.assertEqual((caught.exception.code, caught.exception.is_final), ("closed", True))

    async def test_what_cannot_be_sent_harms_nothing_else(self):
        async with AsyncClient(self.server.url, message_bytes_max=4096) as client:
            for value, error in (("\ud800", ValueError), ({1, 2}, TypeError), (float("nan"), ValueError)):
                with self.assertRaises(error):
                    await within(client.publish("values", value))
            with self.assertRaises(UmbelError) as caught:
                await within(client.publish("values", "x" * 5000))
            self.assertEqual(caught.exception.code, "too_big")
            await within(asyncio.gather(*(client.publish("values", "x" * 3000) for _ in range(300))))

    async def test_no_such_path_is_final(self):
        async with AsyncClient(f"{self.server.url}/no/such/path", **SOON) as client:
            with self.assertRaises(UmbelError) as caught:
                await within(client.publish("a", "x"))
        self.assertTrue(caught.exception.is_final)

    async def test_waiting_publishes_are_bounded_in_number_and_time(self):
        async with AsyncClient("http://127.0.0.1:9", requests_max=1, request_timeout_s=0.2) as client:
            waiting = asyncio.create_task(client.publish("a", "x"))
            await asyncio.sleep(0)
            with self.assertRaises(UmbelError) as caught:
                await client.publish("a", "y")
            self.assertEqual(caught.exception.code, "too_many_requests")
            with self.assertRaises(UmbelError) as caught:
                await within(waiting)
            self.assertEqual(caught.exception.code, "timed_out")

    async def test_blocking_client(self):
        def work():
            with Client(self.server.url) as client:
                with client.subscribe("kept/blocking") as subscription:
                    with self.assertRaises(TimeoutError):
                        subscription.get(0.05)
                    for n in range(3):
                        client.publish("kept/blocking", {"n": n})
                    got = [subscription.get(DEADLINE_S).data["n"] for _ in range(3)]
                    self.assertEqual(got, [0, 1, 2])
                again = client.subscribe("kept/blocking", last=2)
                taken = []
                for event in again:
                    taken.append(event.data["n"])
                    if len(taken) == 2:
                        again.unsubscribe()
                self.assertEqual(taken, [1, 2])
                self.assertEqual(client.presence("kept/blocking").total, 0)
                self.assertEqual(len(client.history("kept/blocking").publications), 3)
                with self.assertRaises(UmbelError):
                    client.publish("a//b", "x")
            with self.assertRaises(ValueError):
                client.publish("values", "x")

        await within(asyncio.to_thread(work))


class Restart(unittest.IsolatedAsyncioTestCase):
    async def test_restart_is_a_gap(self):
        server = Server("--topic-rule", "** history=100", "--drain-timeout-ms", "500")
        self.addCleanup(server.stop)
        async with AsyncClient(server.url, **SOON) as client:
            subscription = await within(client.subscribe("news"))
            await within(client.publish("news", 1))
            await asyncio.to_thread(server.stop)
            waiting = asyncio.create_task(client.publish("news", 2))
            await asyncio.to_thread(server.start)
            await within(waiting)
            got = await take(subscription, 3)
        self.assertEqual([type(each) for each in got], [Publication, Gap, Publication])
        self.assertEqual((got[0].data, got[1].reason, got[2].data), (1, "unrecovered", 2))


class SignedUrls(unittest.TestCase):
    def test_signed_url_is_the_one_that_the_server_knows(self):
        key = {"kid": "k1", "secret": "umbel-test-secret-0123456789abcdef", "expires_at": 1800003600}
        url = sign_url("https://push.example.com/sse/news/eu", subject="42", **key)
        self.assertEqual(
            url,
            "https://push.example.com/sse/news/eu?umbel_exp=1800003600&umbel_sub=42&umbel_kid=k1"
            "&umbel_sig=rmRqnPsuvAnZL8GjGAi7Ig3A_-BIs2pGmej_Jn06VMM",
        )
        for wrong in ("https://x/topics/a", "https://x/sse/", "https://x/sse/a?last=1"):
            with self.assertRaises(ValueError):
                sign_url(wrong, **key)


class Tokens(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        path = Path(cls.folder.name) / "umbel.toml"
        path.write_text(
            f"""
origins = ["https://app.example"]
[[jwt]]
name = "app"
algorithms = ["HS256"]
secret = "{SECRET}"
leeway_ms = 0
[[grant]]
when.source = "app"
publish = ["**"]
subscribe = ["news/**"]
"""
        )
        path.chmod(0o600)
        cls.server = Server("--config", str(path))

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        cls.folder.cleanup()

    @staticmethod
    def token(seconds=60, subject="42"):
        return jwt.encode({"sub": subject, "exp": int(time.time()) + seconds}, SECRET, "HS256")

    async def test_token_opens_and_bounds(self):
        async with AsyncClient(self.server.url, token=self.token(600)) as client:
            subscription = await within(client.subscribe("news/a"))
            await within(client.publish("news/a", "x"))
            self.assertEqual((await take(subscription, 1))[0].data, "x")
            with self.assertRaises(UmbelError) as caught:
                await within(client.subscribe("other"))
            self.assertEqual((caught.exception.code, caught.exception.is_final), ("forbidden", False))

    async def test_token_function_is_asked_again_before_the_end(self):
        reasons = []

        async def token(reason):
            reasons.append(reason)
            return self.token(3 if len(reasons) == 1 else 600)

        async with AsyncClient(self.server.url, token=token) as client:
            subscription = await within(client.subscribe("news/b"))
            await until(lambda: len(reasons) == 2)
            await within(client.publish("news/b", "still there"))
            self.assertEqual((await take(subscription, 1))[0].data, "still there")
        self.assertEqual(reasons, ["start", "expiring"])

    async def test_refused_token_is_asked_for_once_more(self):
        reasons = []

        def token(reason):
            reasons.append(reason)
            return "wrong" if reason == "start" else self.token(600)

        async with AsyncClient(self.server.url, token=token, **SOON) as client:
            await within(client.publish("news/c", "x"))
        self.assertEqual(reasons, ["start", "rejected"])

    async def test_no_good_token_is_final(self):
        async with AsyncClient(self.server.url, token=lambda reason: "wrong", **SOON) as client:
            with self.assertRaises(UmbelError) as caught:
                await within(client.publish("news/d", "x"))
            self.assertEqual((caught.exception.code, caught.exception.is_final), ("unauthorized", True))
            with self.assertRaises(UmbelError):
                await within(client.subscribe("news/d"))


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed", flush=True)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
