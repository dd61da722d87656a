"""What is told to the program, and what the end of a connection means for the next one."""

from __future__ import annotations

import re
from dataclasses import dataclass

ABNORMAL = 1006
UNAUTHORIZED = 4401
FORBIDDEN = 4403
AUTHENTICATION_TIMEOUT = 4408
TOO_MANY = 4429

# Another connection mends nothing, unless the server says when to come.
_FINAL_CODES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})
# The server is short of something: later rather than sooner.
_LATER_CODES = frozenset({1011, 1013, TOO_MANY})
_RETRY_HINT = re.compile(r"\bretry=(\d+(?:\.\d+)?)")
_RETRY_HINT_S_MAX = 3600.0


class UmbelError(Exception):
    """Why something was not done.

    `code` is the server's (`forbidden`, `invalid_topic`, `too_big` and so on), or one of these: `closed`, nothing is sent
    any more; `fate_unknown`, it was sent, and whether it was done is not known; `timed_out`, it was not sent in time;
    `too_many_requests`, as many wait as the client allows. `is_final` says that the client has ended for good.
    """

    def __init__(self, code: str, reason: str, *, is_final: bool = False) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.is_final = is_final


@dataclass(frozen=True)
class Ending:
    """The end of a connection, or a handshake that was refused."""

    code: int
    reason: str

    @property
    def hint_s(self) -> float:
        """How long the server wants to be left alone."""
        found = _RETRY_HINT.search(self.reason)
        return min(float(found[1]), _RETRY_HINT_S_MAX) if found else 0.0

    @property
    def is_final(self) -> bool:
        if _RETRY_HINT.search(self.reason):
            return False
        is_of_programs = 4000 <= self.code <= 4999 and self.code != TOO_MANY
        return is_of_programs or self.code in _FINAL_CODES

    @property
    def is_for_later(self) -> bool:
        return self.code in _LATER_CODES

    @property
    def may_need_token(self) -> bool:
        return self.code in (UNAUTHORIZED, AUTHENTICATION_TIMEOUT)

    def error(self) -> UmbelError:
        codes = {UNAUTHORIZED: "unauthorized", AUTHENTICATION_TIMEOUT: "unauthorized", FORBIDDEN: "forbidden"}
        words = self.reason or "no reason was given"
        return UmbelError(codes.get(self.code, "closed"), f"{words} ({self.code})", is_final=True)
