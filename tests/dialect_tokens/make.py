"""Makes jwt.json: tokens of Centrifugo's and Mercure's clients, signed by PyJWT 2.15. usage: make.py > jwt.json"""

import json
import sys

import jwt

SECRET = "!ChangeThisMercureHubJWTSecretKey!"
NOW = 1800000000
detail = "https://mercure.rocks/authorization-detail"
claims = {
    "centrifugo": {
        "sub": "42",
        "exp": NOW + 60,
        "expire_at": NOW + 7200,
        "info": {"name": "Anna"},
        "meta": {"tenant": "t7"},
        "channels": ["chat:a", "news"],
    },
    "centrifugo_subs": {
        "sub": "",
        "expire_at": 0,
        "b64info": "eyJuYW1lIjoiQW5uYSJ9",
        "subs": {"chat:a": {"info": {"x": 1}, "data": {"y": 2}, "override": {"presence": {"value": True}}}},
        "caps": [
            {"channels": ["news", "a.b"], "match": "", "allow": ["sub", "hst"]},
            {"channels": ["rooms/*", "plain"], "match": "wildcard", "allow": ["pub", "prs"]},
        ],
    },
    "centrifugo_channel": {"sub": "42", "channel": "chat:a", "exp": NOW + 60, "info": {"x": 1}, "allow": ["pub", "hst"]},
    "mercure": {"mercure": {"publish": ["*"], "subscribe": ["books/{id}", "foo", "users/{id}/inbox"], "payload": {"u": 1}}},
    "mercure_access": {
        "iss": "https://as.example",
        "aud": "https://hub.example/.well-known/mercure",
        "sub": "42",
        "exp": NOW + 60,
        "authorization_details": [
            {"type": "https://other.example/type", "anything": [1]},
            {
                "type": detail,
                "actions": ["subscribe"],
                "topics": [{"match": "foo"}, {"match": "books/:id", "match_type": "urlpattern"}, {"match": "users/42/*", "match_type": "urlpattern"}],
                "payload": {"u": 1},
            },
            {"type": detail, "actions": ["publish"], "topics": [{"match": "*"}]},
        ],
    },
}
typ = lambda name: {"typ": "at+jwt"} if name == "mercure_access" else {}
json.dump({name: jwt.encode(it, SECRET, "HS256", typ(name)) for name, it in claims.items()}, sys.stdout, indent=1)
