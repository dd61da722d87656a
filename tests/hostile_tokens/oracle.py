"""Judges 10,000 mutations of tokens by PyJWT, at the time of the tests.

Prints a line for each: `yes` or `no`, a blank, and the token in base64, which may hold any byte.
"""

import base64
import json
import random
import sys
from datetime import datetime, timezone

import jwt
from jwt.algorithms import HMACAlgorithm

NOW = 1800000000
SECRET = b"umbel-test-secret-0123456789abcdef"
COUNT = 10_000


class FixedClock(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(NOW, tz or timezone.utc)


jwt.api_jwt.datetime = FixedClock

rng = random.Random(int(sys.argv[1]))
times = [NOW, NOW + 3600, NOW - 29, NOW - 30, NOW - 31, NOW + 29, NOW + 30, NOW + 31, NOW + 29.5, NOW + 30.5, NOW - 29.5]
numbers = times + [0, -1, 1, 253402300799, 253402300800, 2**63, 2**64, 1e19, 1e300, 1.8e9]
others = [None, True, False, "", "x", "1800003600", [], {}, [1], "umbel", ["umbel"], 42, {"a": [1, {"b": None}]}]
subjects = ["42", "s" * 255, "s" * 256, "a b", "a\nb", "\u00e4", "", "{sub}", "**"]
rights = [
    {"v": 1, "subscribe": ["news/**"]},
    {"v": 1},
    {},
    {"v": 2},
    {"v": 1, "publish": ["user/{sub}/out"], "deny": {"publish": ["a"]}, "info": {"name": "Anna"}},
    {"v": 1, "subscribe": ["a**"]},
    {"v": 1, "allow": []},
]
headers = ["{\"alg\":\"HS256\",\"typ\":\"JWT\"}"] * 8 + [
    '{"alg":"HS256"}',
    ' {"typ":"at+jwt","alg":"HS256","kid":"k"} ',
    '{"alg":"HS256","kid":5}',
    '{"alg":"HS256","crit":["x"],"x":1}',
    '{"alg":"HS256","b64":true}',
    '{"alg":"HS384"}',
    '{"alg":"none"}',
    '{"alg":"HS256","alg":"HS256"}',
    '{"alg":"HS256","jwk":{"kty":"oct"}}',
]
pieces = ['"', ",", ":", "{", "}", "[", "]", "\\", "\\u0022", " ", "\n", "1", "e9", ".5", "-", "null", "\ufeff", "\u00e4", '"exp":1800003600,', '"sub":"x",', "\0"]
letters = b"ABab01-_+/=. \n\x00\xff"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def payload():
    claims = {"sub": "42", "iat": NOW, "exp": NOW + 3600}
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        name = rng.choice(["exp", "nbf", "iat", "sub", "aud", "iss", "jti", "umbel", "x"])
        pool = {"sub": subjects, "umbel": rights, "jti": subjects}.get(name, numbers if name in ("exp", "nbf", "iat") else others)
        claims[name] = rng.choice(pool if rng.random() < 0.8 else others)
        if rng.random() < 0.1:
            del claims[rng.choice(list(claims))]
    return json.dumps(claims, ensure_ascii=rng.random() < 0.5)


def mutated_text(text):
    for _ in range(rng.choice([1, 1, 2, 3])):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice([0, 0, 1, 1, 2, 5]))
        text = text[:start] + rng.choice(pieces + [""]) + text[end:]
    return text


def mutated_bytes(token):
    token = bytearray(token)
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.randrange(len(token) or 1)
        kind = rng.randrange(4)
        if kind == 0 and token:
            token[at] = rng.choice(letters)
        elif kind == 1:
            token.insert(at, rng.choice(letters))
        elif kind == 2:
            del token[at : at + rng.choice([1, 1, 2, 10])]
        elif token:
            token[at] ^= 1 << rng.randrange(8)
    return bytes(token)


def make():
    header, claims = rng.choice(headers), payload()
    kind = rng.random()
    if kind < 0.15:
        header = mutated_text(header)
    elif kind < 0.4:
        claims = mutated_text(claims)
    signed = b64(header.encode(errors="surrogatepass")) + b"." + b64(claims.encode(errors="surrogatepass"))
    token = signed + b"." + b64(HMACAlgorithm(HMACAlgorithm.SHA256).sign(signed, SECRET))
    return mutated_bytes(token) if kind > 0.8 else token


def is_taken(token):
    try:
        jwt.decode(token, SECRET, algorithms=["HS256"], leeway=30, options={"require": ["exp"]})
        return True
    # Whatever it trips over is no token that it takes.
    except Exception:
        return False


for _ in range(COUNT):
    token = make()
    print("yes" if is_taken(token) else "no", base64.b64encode(token).decode())
