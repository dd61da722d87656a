"""The client for asyncio: one connection at a time, and what must outlive it."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import math
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Union
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from . import _messages as messages
from ._errors import ABNORMAL, UNAUTHORIZED, Ending, UmbelError
from ._subscription import AsyncSubscription

log = logging.getLogger("umbel_client")

TokenFunction = Callable[[str], Union[str, None, Awaitable[Union[str, None]]]]
Token = Union[str, TokenFunction, None]

DIALECT = Subprotocol("umbel.v1")
_TOKEN_S_MAX = 10.0
_STABLE_AFTER_S = 5.0
_LATER_BOUND_S = 4.0
# Of one message, unless a single command is more.
_COMMANDS_MAX = 100
_BATCH_LETTERS_MAX = 256 * 1024
_MOMENT_MS_MAX = 0xFFFF_FFFE
_PASSING_ERRORS = frozenset({"unavailable", "rate_limited"})
_PASSING_RETRY_S = 1.0


@dataclass
class _Request:
    """A command that waits for its answer, sent or not."""

    text: str
    answer: asyncio.Future[Mapping[str, Any]]
    is_repeatable: bool
    # Whether it says its age when it is sent again.
    has_age: bool
    first_sent_s: float | None = None


@dataclass
class _Link:
    """One connection."""

    socket: ClientConnection
    opened_s: float
    # Commands that are to be sent, in order.
    outbox: deque[str] = field(default_factory=deque)
    has_outbox: asyncio.Event = field(default_factory=asyncio.Event)
    # What waits for an answer with this id, besides requests.
    subscribing: dict[int, AsyncSubscription] = field(default_factory=dict)
    catching_up: dict[int, tuple[AsyncSubscription, str]] = field(default_factory=dict)
    signing_in: dict[int, str] = field(default_factory=dict)
    routes: dict[tuple[str, str], AsyncSubscription] = field(default_factory=dict)
    is_ready: bool = False

    def send(self, command: dict[str, Any]) -> None:
        self.send_text(_encode(command))

    def send_text(self, text: str) -> None:
        self.outbox.append(text)
        self.has_outbox.set()

    def take_batch(self) -> str:
        """As many commands as go into one message."""
        texts = [self.outbox.popleft()]
        letters = len(texts[0])
        while self.outbox and len(texts) < _COMMANDS_MAX:
            letters += len(self.outbox[0])
            if letters > _BATCH_LETTERS_MAX:
                break
            texts.append(self.outbox.popleft())
        return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


class AsyncClient:
    """A connection to Umbel that lasts: it is made anew as often as need be.

    `url` is `wss://host`, `https://host`, `ws://…` or `http://…`; without a path it is `/ws`. Use it by `async with`, or
    call `close` at the end.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        info: Any = None,
        requests_max: int = 1000,
        request_timeout_s: float = 300.0,
        queue_max: int = 1000,
        message_bytes_max: int = 16 * 1024 * 1024,
        backoff_min_s: float = 1.0,
        backoff_max_s: float = 30.0,
        open_timeout_s: float = 20.0,
        websocket_options: Mapping[str, Any] | None = None,
    ) -> None:
        """`requests_max` bounds what waits for an answer, `queue_max` what a subscription keeps for the program, and
        `message_bytes_max` what a message has, either way; `websocket_options` go to `websockets` (`ssl`, `proxy`, `additional_headers` and so on).
        """
        self._url = _address(url, info)
        self._token = token
        self._requests_max = requests_max
        self._request_timeout_s = request_timeout_s
        self._queue_max = queue_max
        self._message_bytes_max = message_bytes_max
        self._backoff_s = (backoff_min_s, backoff_max_s)
        self._options = {
            "max_size": message_bytes_max,
            "open_timeout": open_timeout_s,
            **(websocket_options or {}),
        }
        self._key_prefix = secrets.token_hex(8)
        self._next_id = 0
        self._requests: dict[int, _Request] = {}
        self._subscriptions: dict[tuple[str, str], AsyncSubscription] = {}
        self._link: _Link | None = None
        self._opened = asyncio.Event()
        self._error: UmbelError | None = None
        self._runner: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._asked_again = False
        self._subject: str | None = None
        self._has_signed_in = False

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that has signed in."""
        return self._link is not None and self._link.is_ready

    async def __aenter__(self) -> AsyncClient:
        self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def wait_open(self) -> None:
        """Returns once there is a connection; raises the `UmbelError` with which the client has ended."""
        self._start()
        await self._opened.wait()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Closes for good. What has no answer fails with `closed`, or `fate_unknown` if it was sent."""
        runner, self._runner = self._runner, None
        self._end(UmbelError("closed", "it was closed here", is_final=True), is_quiet=True)
        for task in [*self._tasks, *([runner] if runner else [])]:
            task.cancel()
        await asyncio.gather(*self._tasks, *([runner] if runner else []), return_exceptions=True)

    async def subscribe(
        self,
        topic: str | None = None,
        *,
        pattern: str | None = None,
        since: str | None = None,
        last: int | None = None,
        echo: bool = True,
        presence: bool = False,
        queue_max: int | None = None,
    ) -> AsyncSubscription:
        """Subscribes to a topic or a pattern, now or once there is a connection; returns when the server has said so.

        `since` is the position behind which to begin, `last` how many of the latest publications. Without `echo` nothing
        comes that this connection publishes. With `presence` joins and leaves are among the events.
        """
        if (topic is None) == (pattern is None):
            raise ValueError("a topic or a pattern")
        if since is not None and last is not None:
            raise ValueError("since or last")
        if pattern is not None and (since is not None or last is not None):
            raise ValueError("a pattern has no since and no last")
        if since is not None:
            messages.parse_position(since)
        target = ("topic", topic) if topic is not None else ("pattern", pattern or "")
        self._check_not_over()
        if target in self._subscriptions:
            raise UmbelError("already_subscribed", f"twice to {target[1]}")
        kept = queue_max if queue_max is not None else self._queue_max
        subscription = AsyncSubscription(self, target, since, last, echo, presence, kept)
        self._subscriptions[target] = subscription
        self._start()
        if self._link is not None and self._link.is_ready:
            self._send_subscribe(self._link, subscription)
        try:
            await asyncio.shield(subscription.first_answer)
        except asyncio.CancelledError:
            await subscription.unsubscribe()
            raise
        return subscription

    async def publish(
        self,
        topic: str,
        data: Any,
        *,
        key: str | None = None,
        event: str | None = None,
        id: str | None = None,
        content_type: str | None = None,
        tags: Mapping[str, str] | None = None,
        ttl_ms: int | None = None,
        tombstone: bool = False,
        receipt: bool = False,
        idempotency_key: str | None = "",
    ) -> messages.Published:
        """Publishes text, bytes, or anything else as JSON, now or once there is a connection.

        It is sent again after a loss, and published once: by an idempotency key of its own, or the given one. None is for
        none: then it is `fate_unknown` where the connection ends before the answer.
        """
        command: dict[str, Any] = {"type": "publish", "topic": topic}
        command.update(messages.payload(data, content_type))
        optional = {"key": key, "event": event, "message_id": id, "tags": tags and dict(tags), "ttl_ms": ttl_ms}
        command.update({name: value for name, value in optional.items() if value is not None})
        if tombstone:
            command["tombstone"] = True
        if receipt:
            command["receipt"] = True
        if idempotency_key is not None:
            command["idempotency_key"] = idempotency_key or f"{self._key_prefix}.{self._next_id}"
        return messages.published(await self._ask(command, is_repeatable=idempotency_key is not None))

    async def presence(self, topic: str) -> messages.Presence:
        """Who is on a topic."""
        return messages.presence(await self._ask({"type": "presence", "topic": topic}, is_repeatable=True))

    async def history(
        self, topic: str, *, since: str | None = None, last: int | None = None, limit: int | None = None
    ) -> messages.HistoryPage:
        """A page of what a topic keeps, the newest without `since` and `last`."""
        asked = {"since": since, "last": last, "limit": limit}
        command: dict[str, Any] = {"type": "history", "topic": topic}
        command.update({name: value for name, value in asked.items() if value is not None})
        return messages.history(await self._ask(command, is_repeatable=True))

    # Requests.

    def _new_id(self) -> int:
        self._next_id = (self._next_id + 1) % 2**32
        return self._next_id

    def _check_not_over(self) -> None:
        if self._error is not None:
            raise self._error

    async def _ask(self, command: dict[str, Any], *, is_repeatable: bool) -> Mapping[str, Any]:
        self._check_not_over()
        if len(self._requests) >= self._requests_max:
            raise UmbelError("too_many_requests", f"{self._requests_max} wait for an answer")
        command_id = self._new_id()
        text = _encode({**command, "id": command_id})
        if len(text.encode()) > self._message_bytes_max:
            raise UmbelError("too_big", f"a message has at most {self._message_bytes_max} bytes")
        self._start()
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        request = _Request(text, answer, is_repeatable, "idempotency_key" in command)
        self._requests[command_id] = request
        if self._link is not None and self._link.is_ready:
            self._send_request(self._link, request)
        try:
            return await asyncio.wait_for(answer, self._request_timeout_s)
        except (TimeoutError, asyncio.TimeoutError):
            if request.first_sent_s is None:
                raise UmbelError("timed_out", "there was no connection in time") from None
            raise UmbelError("fate_unknown", "no answer came in time") from None
        finally:
            self._requests.pop(command_id, None)

    def _send_request(self, link: _Link, request: _Request) -> None:
        text = request.text
        if request.first_sent_s is None:
            request.first_sent_s = asyncio.get_running_loop().time()
        elif request.has_age:
            age_ms = math.ceil((link.opened_s - request.first_sent_s) * 1000)
            text = f'{text[:-1]},"first_sent_ms":{min(max(age_ms, 0), _MOMENT_MS_MAX)}}}'
        link.send_text(text)

    # Subscriptions.

    def _send_subscribe(self, link: _Link, subscription: AsyncSubscription) -> None:
        command_id = self._new_id()
        link.subscribing[command_id] = subscription
        link.send(subscription.command(command_id))

    def _send_unsubscribe(self, link: _Link, subscription: AsyncSubscription) -> None:
        kind, name = subscription.route
        for route in [route for route, other in link.routes.items() if other is subscription]:
            del link.routes[route]
        for waiting in (link.subscribing, link.catching_up):
            for command_id in [number for number, other in waiting.items() if _subscription_of(other) is subscription]:
                del waiting[command_id]
        link.send({"type": "unsubscribe", kind: name})

    def forget(self, subscription: AsyncSubscription) -> None:
        """The program wants nothing more of it."""
        self._subscriptions.pop(subscription.route, None)
        if self._link is not None and self._link.is_ready and not subscription.is_paused:
            self._send_unsubscribe(self._link, subscription)

    def pause(self, subscription: AsyncSubscription) -> None:
        """The program takes too slowly: it leaves the topic for a while."""
        if self._link is not None:
            self._send_unsubscribe(self._link, subscription)

    def resubscribe(self, subscription: AsyncSubscription) -> None:
        """The program has taken everything: it comes back to the topic."""
        if self._link is not None and self._link.is_ready:
            self._send_subscribe(self._link, subscription)

    # The connection.

    def _start(self) -> None:
        if self._runner is None and self._error is None:
            self._runner = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            opened_s = math.inf
            loop = asyncio.get_running_loop()
            try:
                reason = "rejected" if self._asked_again else "start"
                token = await self._ask_for_token(reason)
                if not token and self._has_signed_in:
                    ending = Ending(UNAUTHORIZED, "there is no token any more")
                else:
                    async with connect(self._url, subprotocols=[DIALECT], **self._options) as socket:
                        opened_s = loop.time()
                        ending = await self._serve(socket, token)
            except InvalidStatus as refused:
                status = refused.response.status_code
                is_final = 400 <= status < 500 and status not in (408, 425, 429)
                ending = Ending(4000 + status if is_final else ABNORMAL, f"the handshake was refused with {status}")
            except (OSError, InvalidHandshake, ConnectionClosed, UmbelError) as error:
                ending = Ending(ABNORMAL, f"no connection: {error}")
            if not await self._handle_ending(ending, loop.time() - opened_s >= _STABLE_AFTER_S):
                return

    async def _handle_ending(self, ending: Ending, was_stable: bool) -> bool:
        """Waits until the next attempt is due. False: there is none."""
        self._leave_link()
        log.info("connection ended: %d %s", ending.code, ending.reason)
        may_ask_again = ending.may_need_token and callable(self._token) and not self._asked_again
        if may_ask_again:
            self._asked_again = True
            return True
        if ending.is_final:
            self._end(ending.error())
            return False
        least_s, most_s = self._backoff_s
        self._failures = 0 if was_stable else self._failures
        bound_s = min(least_s * 2.0**self._failures, most_s)
        if ending.is_for_later:
            bound_s = max(bound_s, _LATER_BOUND_S)
        self._failures = min(self._failures + 1, 32)
        await asyncio.sleep(ending.hint_s + random.uniform(0.0, bound_s))
        return True

    def _leave_link(self) -> None:
        link, self._link = self._link, None
        self._opened.clear()
        if link is None:
            return
        for request in list(self._requests.values()):
            if request.first_sent_s is not None and not request.is_repeatable:
                _fail(request, UmbelError("fate_unknown", "the connection ended before the answer"))

    def _end(self, error: UmbelError, *, is_quiet: bool = False) -> None:
        """For good."""
        self._error = self._error or error
        for request in list(self._requests.values()):
            was_sent = request.first_sent_s is not None
            unknown = UmbelError("fate_unknown", f"{error.reason}, before the answer", is_final=True)
            _fail(request, unknown if was_sent else error)
        for subscription in list(self._subscriptions.values()):
            subscription.end(None if is_quiet and subscription.first_answer.done() else error)
        self._subscriptions.clear()
        self._opened.set()

    async def _ask_for_token(self, reason: str) -> str | None:
        token = self._token
        if token is None or isinstance(token, str):
            return token or None
        given = token(reason)
        if inspect.isawaitable(given):
            try:
                given = await asyncio.wait_for(given, _TOKEN_S_MAX)
            except (TimeoutError, asyncio.TimeoutError):
                raise UmbelError("unauthorized", "the token did not come in time") from None
            except UmbelError:
                raise
            except Exception as error:
                raise UmbelError("unauthorized", f"the token function failed: {error}") from error
        return given or None

    async def _serve(self, socket: ClientConnection, token: str | None) -> Ending:
        """Speaks on a connection until it ends."""
        if socket.subprotocol != DIALECT:
            return Ending(ABNORMAL, f"the server speaks no {DIALECT}")
        link = _Link(socket, asyncio.get_running_loop().time())
        self._link = link
        if token is None:
            self._begin(link)
        else:
            self._has_signed_in = True
            self._send_auth(link, token, "start")
        writer = asyncio.create_task(self._write(link))
        try:
            async for text in socket:
                if isinstance(text, bytes):
                    raise messages.ProtocolError("a binary message")
                await self._handle(link, text)
        except ConnectionClosed:
            pass
        except messages.ProtocolError as error:
            await socket.close(1002, str(error)[:100])
            return Ending(ABNORMAL, f"not understood: {error}")
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        code = socket.close_code
        return Ending(ABNORMAL if code is None else code, socket.close_reason or "")

    async def _write(self, link: _Link) -> None:
        while True:
            await link.has_outbox.wait()
            text = link.take_batch()
            if not link.outbox:
                link.has_outbox.clear()
            await link.socket.send(text)

    def _begin(self, link: _Link) -> None:
        """All that must be said first on a new connection: subscriptions, then requests in their order."""
        link.is_ready = True
        self._asked_again = False
        for subscription in self._subscriptions.values():
            if not subscription.is_paused:
                self._send_subscribe(link, subscription)
        for request in self._requests.values():
            self._send_request(link, request)
        self._opened.set()

    def _send_auth(self, link: _Link, token: str, reason: str) -> None:
        command_id = self._new_id()
        link.signing_in[command_id] = reason
        link.send({"type": "auth", "id": command_id, "token": token})

    async def _refresh(self, link: _Link, reason: str) -> None:
        """Shows a newer token on a connection that stays. Without one, the identity ends, and the connection with it."""
        try:
            token = await self._ask_for_token(reason)
        except UmbelError as error:
            log.warning("no newer token: %s", error)
            return
        if token is not None and link is self._link:
            self._send_auth(link, token, reason)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What the server says.

    async def _handle(self, link: _Link, text: str) -> None:
        try:
            message = json.loads(text)
        except ValueError as error:
            raise messages.ProtocolError("no JSON") from error
        if not isinstance(message, dict):
            raise messages.ProtocolError("no object")
        kind = message.get("type")
        if kind == "publication":
            self._handle_publication(link, message)
        elif kind == "subscribed":
            self._handle_subscribed(link, message)
        elif kind == "unsubscribed":
            self._handle_unsubscribed(link, message)
        elif kind == "gap":
            subscription = self._subscription_of(link, message)
            if subscription is not None:
                subscription.handle_gap(message.get("from"), message.get("to"))
        elif kind in ("join", "leave", "presence_skipped"):
            self._handle_presence(link, kind, message)
        elif kind in ("published", "presence", "history"):
            self._settle(message)
        elif kind == "pong":
            caught_up = link.catching_up.pop(message.get("id", -1), None)
            if caught_up is not None:
                caught_up[0].handle_caught_up(caught_up[1])
        elif kind in ("authenticated", "welcome"):
            self._handle_authenticated(link, message)
        elif kind == "expiring":
            if callable(self._token):
                self._spawn(self._refresh(link, "expiring"))
        elif kind == "error":
            await self._handle_error(link, message)

    def _subscription_of(self, link: _Link, message: Mapping[str, Any]) -> AsyncSubscription | None:
        pattern = message.get("pattern")
        route = ("topic", message.get("topic", "")) if pattern is None else ("pattern", pattern)
        return link.routes.get(route)

    def _handle_publication(self, link: _Link, message: Mapping[str, Any]) -> None:
        subscription = self._subscription_of(link, message)
        if subscription is None:
            return
        topic = messages.required(message, "topic", str)
        publication = messages.publication(message, topic)
        if not subscription.handle_publication(publication):
            subscription.handle_order_gap(publication.position)
            if not subscription.is_paused:
                self._send_unsubscribe(link, subscription)
                self._send_subscribe(link, subscription)

    def _handle_subscribed(self, link: _Link, message: Mapping[str, Any]) -> None:
        subscription = link.subscribing.pop(message.get("id", -1), None)
        if subscription is None:
            return
        kind = "topic" if "topic" in message else "pattern"
        link.routes[kind, messages.required(message, kind, str)] = subscription
        position = subscription.handle_subscribed(message)
        if position is not None:
            command_id = self._new_id()
            link.catching_up[command_id] = (subscription, position)
            link.send({"type": "ping", "id": command_id})

    def _handle_unsubscribed(self, link: _Link, message: Mapping[str, Any]) -> None:
        code = message.get("code")
        subscription = self._subscription_of(link, message)
        if code is None or subscription is None:
            return
        kind = "topic" if "topic" in message else "pattern"
        link.routes.pop((kind, message[kind]), None)
        self._subscriptions.pop(subscription.route, None)
        subscription.end(UmbelError(str(code), "the server ended the subscription"))

    def _handle_presence(self, link: _Link, kind: str, message: Mapping[str, Any]) -> None:
        subscription = self._subscription_of(link, message)
        if subscription is None or not subscription.wants_presence:
            return
        topic = messages.required(message, "topic", str)
        if kind == "join":
            subscription.handle_presence(messages.Join(topic, messages.member(message)))
        elif kind == "leave":
            connection = messages.required(message, "connection", str)
            subscription.handle_presence(messages.Leave(topic, connection))
        else:
            members = messages.required(message, "members", int)
            subscription.handle_presence(messages.PresenceSkipped(topic, members))

    def _settle(self, message: Mapping[str, Any]) -> None:
        request = self._requests.get(message.get("id", -1))
        if request is not None and not request.answer.done():
            request.answer.set_result(message)

    def _handle_authenticated(self, link: _Link, message: Mapping[str, Any]) -> None:
        subject = message.get("subject")
        if self._subject is not None and subject != self._subject:
            # What another subject has sent is not sent again as this one.
            for request in list(self._requests.values()):
                if request.first_sent_s is not None:
                    _fail(request, UmbelError("fate_unknown", "it was sent as somebody else"))
        self._subject = subject
        reason = link.signing_in.pop(message.get("id", -1), None)
        if reason is not None and not link.is_ready:
            self._begin(link)

    async def _handle_error(self, link: _Link, message: Mapping[str, Any]) -> None:
        command_id = message.get("id")
        error = UmbelError(str(message.get("code")), str(message.get("reason", "")))
        if not isinstance(command_id, int):
            log.warning("the server refused a message: %s", error)
            return
        reason = link.signing_in.pop(command_id, None)
        if reason is not None:
            await self._handle_token_refused(link, error, reason)
            return
        subscription = link.subscribing.pop(command_id, None)
        if subscription is not None:
            self._handle_subscribe_refused(link, subscription, error)
            return
        request = self._requests.get(command_id)
        if request is not None:
            _fail(request, error)

    async def _handle_token_refused(self, link: _Link, error: UmbelError, reason: str) -> None:
        if error.code == "subject_changed":
            # Another identity has a connection of its own.
            await link.socket.close(1000)
            return
        if link.is_ready and reason == "expiring":
            self._spawn(self._refresh(link, "rejected"))

    def _handle_subscribe_refused(self, link: _Link, subscription: AsyncSubscription, error: UmbelError) -> None:
        if self._subscriptions.get(subscription.route) is not subscription:
            return
        if error.code == "already_subscribed":
            # The server has subscribed of itself: made anew, it begins where the program wants it.
            kind, name = subscription.route
            link.send({"type": "unsubscribe", kind: name})
            self._send_subscribe(link, subscription)
            return
        if error.code in _PASSING_ERRORS:
            self._spawn(self._subscribe_later(link, subscription))
            return
        del self._subscriptions[subscription.route]
        subscription.end(error)

    async def _subscribe_later(self, link: _Link, subscription: AsyncSubscription) -> None:
        await asyncio.sleep(_PASSING_RETRY_S)
        is_wanted = self._subscriptions.get(subscription.route) is subscription
        if link is self._link and is_wanted and not subscription.is_paused:
            self._send_subscribe(link, subscription)


def _encode(command: dict[str, Any]) -> str:
    return json.dumps(command, ensure_ascii=False, separators=(",", ":"))


def _subscription_of(waiting: Any) -> Any:
    return waiting[0] if isinstance(waiting, tuple) else waiting


def _fail(request: _Request, error: UmbelError) -> None:
    if not request.answer.done():
        request.answer.set_exception(error)


def _address(url: str, info: Any) -> str:
    """The address of the WebSocket."""
    parts = urlsplit(url)
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.netloc:
        raise ValueError(f"an address such as https://host, not {url!r}")
    query = parts.query
    if info is not None:
        query = "&".join(filter(None, [query, urlencode({"info": json.dumps(info, ensure_ascii=False)})]))
    path = parts.path if parts.path not in ("", "/") else "/ws"
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, query, ""))
