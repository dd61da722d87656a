"""Client of Umbel, a push server.

`AsyncClient` is for asyncio, `Client` for programs without it. Both speak umbel.v1.
"""

from ._blocking import Client, Subscription
from ._client import AsyncClient, Token
from ._errors import UmbelError
from ._messages import (
    Event,
    Gap,
    HistoryPage,
    Join,
    Leave,
    Member,
    Presence,
    PresenceSkipped,
    Publication,
    Published,
    Receipt,
)
from ._sign import sign_url
from ._subscription import AsyncSubscription

__all__ = [
    "AsyncClient",
    "AsyncSubscription",
    "Client",
    "Event",
    "Gap",
    "HistoryPage",
    "Join",
    "Leave",
    "Member",
    "Presence",
    "PresenceSkipped",
    "Publication",
    "Published",
    "Receipt",
    "Subscription",
    "Token",
    "UmbelError",
    "sign_url",
]
