"""A subscription: what came and is not taken yet, and where it goes on after a loss."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._errors import UmbelError
from ._messages import Event, Gap, Publication, parse_position

if TYPE_CHECKING:
    from ._client import AsyncClient


class AsyncSubscription:
    """What comes of a topic or by a pattern: iterate over it with `async for`.

    It lives on over reconnects. It ends by `unsubscribe` (then the iteration ends), or with an `UmbelError` when the
    server ends it or the client does.
    """

    def __init__(
        self,
        client: AsyncClient,
        target: tuple[str, str],
        since: str | None,
        last: int | None,
        echo: bool,
        presence: bool,
        queue_max: int,
    ) -> None:
        self._client = client
        self._kind, self._name = target
        self._echo = echo
        self.wants_presence = presence
        self._queue_max = queue_max
        self._queue: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._error: UmbelError | None = None
        self._is_over = False
        # Where it begins on the next connection: behind this position, or with so many of the latest.
        self._since = since
        self._last = last
        self._asked_since: str | None = None
        # Whether offsets have to rise by one each, as they do unless the topic's rule leaves publications out.
        self._is_dense = False
        self._was_subscribed = False
        # It has left the topic because the program takes too slowly, and comes back when all is taken.
        self.is_paused = False
        self._position: str | None = since
        self.first_answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Nobody needs to ask for it.
        self.first_answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    @property
    def topic(self) -> str | None:
        """The topic, unless it is one of a pattern."""
        return self._name if self._kind == "topic" else None

    @property
    def pattern(self) -> str | None:
        """The pattern, if it is one of a pattern."""
        return self._name if self._kind == "pattern" else None

    @property
    def position(self) -> str | None:
        """The position of the publication that the program took last, for `since` some other time."""
        return self._position

    @property
    def route(self) -> tuple[str, str]:
        return self._kind, self._name

    def __aiter__(self) -> AsyncSubscription:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._error is not None:
                raise self._error
            if self._is_over:
                raise StopAsyncIteration
            if self.is_paused:
                self.is_paused = False
                self._client.resubscribe(self)
            self._arrived.clear()
            await self._arrived.wait()
        event = self._queue.popleft()
        if isinstance(event, Publication) and self._kind == "topic":
            self._position = event.position
        elif isinstance(event, Gap) and event.last is not None:
            self._position = event.last
        return event

    async def unsubscribe(self) -> None:
        """Ends it: nothing more is handed out."""
        if not self._is_over:
            self._client.forget(self)
        self._queue.clear()
        self.end(None)

    async def __aenter__(self) -> AsyncSubscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.unsubscribe()

    # What the client calls.

    def command(self, command_id: int) -> dict[str, Any]:
        """The command that subscribes."""
        command: dict[str, Any] = {"type": "subscribe", "id": command_id, self._kind: self._name}
        self._asked_since = None
        if self._kind == "topic" and self._since is not None:
            command["since"] = self._asked_since = self._since
        elif self._kind == "topic" and self._last is not None:
            command["last"] = self._last
        if not self._echo:
            command["echo"] = False
        return command

    def handle_subscribed(self, message: Mapping[str, Any]) -> str | None:
        """Takes the answer. Returns the position that holds once all that was asked for has come."""
        position: str | None = message.get("position")
        recovered = message.get("recovered")
        is_again, self._was_subscribed = self._was_subscribed, True
        self._is_dense = False
        if self._kind == "pattern":
            if is_again:
                self._push(Gap("unrecovered", pattern=self._name))
        elif recovered is False:
            self._push(Gap("unrecovered", topic=self._name, first=None, last=position))
            # A gap that had no room is told when it comes back from where it was.
            if not self.is_paused:
                self._since, self._last = position, None
        elif recovered is None and self._last is None and "snapshot" not in message:
            self._since = position
        if not self.first_answer.done():
            self.first_answer.set_result(None)
        is_whole = self._echo and "slow_consumer" not in message and "snapshot" not in message
        # Between `last` publications there may be old ones that are left out by their age: a gap says so.
        self._is_dense = self._kind == "topic" and is_whole and recovered is not False
        waits = recovered is True or (self._last is not None and self._since is None) or "snapshot" in message
        return position if waits else None

    def handle_caught_up(self, position: str) -> None:
        """All that was asked for has come: from now on it goes on behind this position at least."""
        if self._since is None or self._since == self._asked_since:
            self._since = position
        self._last = None

    def handle_publication(self, publication: Publication) -> bool:
        """Keeps it for the program. False: offsets have leapt, and it has to subscribe anew."""
        if self.is_paused:
            return True
        if self._kind == "pattern":
            self._push(publication)
            return True
        if self._is_dense and self._since is not None:
            epoch, offset = parse_position(publication.position)
            expected_epoch, before = parse_position(self._since)
            if epoch != expected_epoch or offset != before + 1:
                return False
        self._push(publication)
        if not self.is_paused:
            self._since, self._last = publication.position, None
        return True

    def handle_gap(self, first: str | None, last: str | None) -> None:
        """The server has left publications out, and says which."""
        if self.is_paused:
            return
        self._push(Gap("dropped", self.topic, self.pattern, first, last))
        if self._kind == "topic" and last is not None and not self.is_paused:
            self._since, self._last = last, None

    def handle_order_gap(self, position: str) -> None:
        """Offsets have leapt without a word."""
        self._push(Gap("order", self.topic, None, self._since, position))

    def handle_presence(self, event: Event) -> None:
        if self.wants_presence and not self.is_paused:
            self._push(event)

    def _push(self, event: Event) -> None:
        # One that is too many is not kept: it comes again when the rest is taken, or a gap does in its place.
        if len(self._queue) >= self._queue_max:
            self.is_paused = True
            self._client.pause(self)
            return
        self._queue.append(event)
        self._arrived.set()

    def end(self, error: UmbelError | None) -> None:
        """Nothing more comes. What has come is still handed out, and then the error."""
        self._is_over = True
        self._error = self._error or error
        if not self.first_answer.done():
            if error is None:
                self.first_answer.cancel()
            else:
                self.first_answer.set_exception(error)
        self._arrived.set()
