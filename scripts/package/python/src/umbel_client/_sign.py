"""Signed URLs of topics."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import quote, unquote, urlsplit

_ACTIONS = {"sse": "subscribe", "ws": "subscribe", "pub": "publish"}


def sign_url(url: str, *, kid: str, secret: str | bytes, expires_at: float, subject: str = "") -> str:
    """Sign the URL of a topic, so that it needs no token.

    Its path is /sse/TOPIC, /ws/TOPIC or /pub/TOPIC, and it has no parameters: put yours behind the signature's.
    The server knows the key by ``[[url_key]]``. ``expires_at`` is in seconds since 1970. Whoever opens the URL is
    ``subject``; without one, nobody in particular.
    """
    parts = urlsplit(url)
    place, _, topic = parts.path.removeprefix("/").partition("/")
    if place not in _ACTIONS or not topic:
        raise ValueError("the path of a URL to sign is /sse/TOPIC, /ws/TOPIC or /pub/TOPIC")
    if "?" in url or "#" in url:
        raise ValueError("a URL is signed without parameters: put yours behind the signature's")
    key = secret.encode() if isinstance(secret, str) else secret
    expires = int(expires_at)
    text = "\n".join(["umbel1", _ACTIONS[place], unquote(topic), str(expires), subject, kid])
    digest = hmac.new(key, text.encode(), hashlib.sha256).digest()
    signature = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    named = f"&umbel_sub={quote(subject, safe='')}" if subject else ""
    return f"{url}?umbel_exp={expires}{named}&umbel_kid={quote(kid, safe='')}&umbel_sig={signature}"
