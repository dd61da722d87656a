"""The client for programs without asyncio: the other one, on a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, TypeVar

from ._client import AsyncClient, Token
from ._messages import Event, HistoryPage, Presence, Published
from ._subscription import AsyncSubscription

T = TypeVar("T")


class Subscription:
    """What comes of a topic or by a pattern: iterate over it with `for`, or call `get`."""

    def __init__(self, client: Client, inner: AsyncSubscription) -> None:
        self._client = client
        self._inner = inner
        self._pending: concurrent.futures.Future[Event] | None = None

    @property
    def position(self) -> str | None:
        """The position of the publication that the program took last."""
        return self._inner.position

    def get(self, timeout_s: float | None = None) -> Event:
        """The next event. Raises `TimeoutError` after `timeout_s`; nothing is lost by that."""
        if self._pending is None:
            self._pending = self._client.submit(self._inner.__anext__())
        try:
            event = self._pending.result(timeout_s)
        except concurrent.futures.TimeoutError:
            if self._pending.done():
                self._pending = None
            raise TimeoutError("nothing came in time") from None
        except BaseException:
            if self._pending.done():
                self._pending = None
            raise
        self._pending = None
        return event

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                yield self.get()
            except StopAsyncIteration:
                return

    def unsubscribe(self) -> None:
        """Ends it."""
        self._client.call(self._inner.unsubscribe())

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unsubscribe()


class Client:
    """A connection to Umbel that lasts. The arguments are those of `AsyncClient`; a token function runs on the client's
    own thread. Use it by `with`, or call `close` at the end. Threads may share it.
    """

    def __init__(self, url: str, *, token: Token = None, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="umbel-client", daemon=True)
        self._thread.start()
        self._is_closed = False
        try:
            self._inner = self.call(self._make(url, token, options))
        except BaseException:
            self._stop()
            raise

    @staticmethod
    async def _make(url: str, token: Token, options: dict[str, Any]) -> AsyncClient:
        return AsyncClient(url, token=token, **options)

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._is_closed:
            work.close()
            raise ValueError("the client is closed")
        return self.submit(work).result()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that has signed in."""
        return self._inner.is_open

    def wait_open(self) -> None:
        """Returns once there is a connection."""
        self.call(self._inner.wait_open())

    def subscribe(self, topic: str | None = None, **options: Any) -> Subscription:
        """As `AsyncClient.subscribe`."""
        return Subscription(self, self.call(self._inner.subscribe(topic, **options)))

    def publish(self, topic: str, data: Any, **options: Any) -> Published:
        """As `AsyncClient.publish`."""
        return self.call(self._inner.publish(topic, data, **options))

    def presence(self, topic: str) -> Presence:
        """As `AsyncClient.presence`."""
        return self.call(self._inner.presence(topic))

    def history(self, topic: str, **options: Any) -> HistoryPage:
        """As `AsyncClient.history`."""
        return self.call(self._inner.history(topic, **options))

    def close(self) -> None:
        """Closes for good."""
        if not self._is_closed:
            self.call(self._inner.close())
            self._stop()

    def _stop(self) -> None:
        self._is_closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
