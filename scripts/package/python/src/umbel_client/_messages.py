"""Messages of umbel.v1 as the program sees them, and as they stand on the wire."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union

_MISSING: Any = object()


class ProtocolError(Exception):
    """A message that is not one of umbel.v1."""


@dataclass(frozen=True)
class Publication:
    """One message of a topic.

    `data` is the parsed value where the content type says JSON, else a string or bytes; `text` is what stood on the wire,
    if it was text. `position` is what `since` takes.
    """

    topic: str
    position: str
    data: Any
    text: str | None = None
    pattern: str | None = None
    key: str | None = None
    event: str | None = None
    id: str | None = None
    content_type: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    publisher: str | None = None
    time_ms: int | None = None
    is_tombstone: bool = False


@dataclass(frozen=True)
class Gap:
    """Publications that did not come: what was built from earlier ones is to be loaded anew.

    `reason` is `unrecovered` (the server no longer has what was missed; a pattern has no history, so there is one after
    each reconnect), `dropped` (this connection was too slow, and the topic's rule drops then, or they were too old) or
    `order` (the server left something out without a word; the subscription is made anew).
    """

    reason: str
    topic: str | None = None
    pattern: str | None = None
    first: str | None = None
    last: str | None = None


@dataclass(frozen=True)
class Member:
    """A connection, or a user, on a topic."""

    connection: str
    subject: str | None = None
    verified: Any = None
    info: Any = None


@dataclass(frozen=True)
class Join:
    """Somebody who came to a topic."""

    topic: str
    member: Member


@dataclass(frozen=True)
class Leave:
    """Somebody who left a topic."""

    topic: str
    connection: str


@dataclass(frozen=True)
class PresenceSkipped:
    """Joins and leaves were left out: ask `presence` who is there."""

    topic: str
    members: int


Event = Union[Publication, Gap, Join, Leave, PresenceSkipped]


@dataclass(frozen=True)
class Receipt:
    """A publication's way to its subscribers. Moments are microseconds since the publish."""

    matched: int
    written: int
    queued: int
    dropped: int
    first_write_us: int | None
    last_write_us: int | None


@dataclass(frozen=True)
class Published:
    """The answer to a publish. `is_duplicate`: it was published before, by the same idempotency key."""

    position: str
    is_duplicate: bool = False
    receipt: Receipt | None = None


@dataclass(frozen=True)
class Presence:
    """Who is on a topic. `members` may be fewer than `total`."""

    total: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class HistoryPage:
    """A part of what a topic keeps, the oldest first. `next` is the `since` of the next page."""

    publications: tuple[Publication, ...]
    position: str | None
    recovered: bool | None
    next: str | None


def parse_position(text: str) -> tuple[str, int]:
    """Splits `epoch:offset`."""
    epoch, _, offset = text.partition(":")
    if len(epoch) != 16 or not offset.isdigit():
        raise ValueError(f"a position is epoch:offset, not {text!r}")
    return epoch, int(offset)


def required(message: Mapping[str, Any], name: str, kind: type) -> Any:
    """A field that has to be there, of a type."""
    value = message.get(name, _MISSING)
    if not isinstance(value, kind):
        raise ProtocolError(f"{message.get('type')} without {name}")
    return value


def _is_json(content_type: str) -> bool:
    essence = content_type.split(";", 1)[0].strip().lower()
    return essence == "application/json" or essence.endswith("+json")


def publication(message: Mapping[str, Any], topic: str) -> Publication:
    """What the program gets of a publication."""
    position = required(message, "position", str)
    parse_position(position)
    text = message.get("data")
    content_type = message.get("content_type")
    data: Any = text
    if text is None:
        try:
            data = base64.b64decode(required(message, "base64", str), validate=True)
        except binascii.Error as error:
            raise ProtocolError("base64 that is none") from error
    elif content_type is not None and _is_json(content_type):
        try:
            data = json.loads(text)
        except ValueError:
            # What is no JSON after all comes as the text that it is.
            data = text
    return Publication(
        topic=topic,
        position=position,
        data=data,
        text=text,
        pattern=message.get("pattern"),
        key=message.get("key"),
        event=message.get("event"),
        id=message.get("message_id"),
        content_type=content_type,
        tags=message.get("tags") or {},
        publisher=message.get("publisher"),
        time_ms=message.get("time"),
        is_tombstone=message.get("tombstone") is True,
    )


def member(message: Mapping[str, Any]) -> Member:
    """A member as joins and lists have it."""
    return Member(
        connection=required(message, "connection", str),
        subject=message.get("subject"),
        verified=message.get("verified"),
        info=message.get("info"),
    )


def published(message: Mapping[str, Any]) -> Published:
    """The answer to a publish."""
    report = message.get("receipt")
    receipt = None
    if report is not None:
        counts = {name: required(report, name, int) for name in ("matched", "written", "queued", "dropped")}
        receipt = Receipt(
            **counts,
            first_write_us=report.get("first_write_us"),
            last_write_us=report.get("last_write_us"),
        )
    return Published(required(message, "position", str), message.get("duplicate") is True, receipt)


def presence(message: Mapping[str, Any]) -> Presence:
    """The answer to a question who is there."""
    members = tuple(member(each) for each in message.get("members") or ())
    return Presence(required(message, "total", int), members)


def history(message: Mapping[str, Any]) -> HistoryPage:
    """The answer to a question for history."""
    topic = required(message, "topic", str)
    publications = tuple(publication(each, topic) for each in required(message, "publications", list))
    return HistoryPage(publications, message.get("position"), message.get("recovered"), message.get("next"))


def payload(data: Any, content_type: str | None) -> dict[str, Any]:
    """The payload of a publish: text as it is, bytes as bytes, anything else as its JSON."""
    if isinstance(data, str):
        fields: dict[str, Any] = {"data": data}
    elif isinstance(data, (bytes, bytearray, memoryview)):
        fields = {"base64": base64.b64encode(data).decode()}
    else:
        # As text, with the type beside it: what the program's `json` makes of it stays as it is.
        fields = {"data": json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)}
        content_type = content_type or "application/json"
    if content_type is not None:
        fields["content_type"] = content_type
    return fields
