"""Makes vectors.json: hostile and good tokens, signed by PyJWT, jwcrypto, npm jose and golang-jwt.

usage: make.py [NODE_MODULES_WITH_JOSE] > vectors.json

The clock of the tests stands at 1800000000. A token's `want` is what the peer is told, and `check` the check that refuses
it. Private keys are made anew at each run and kept nowhere.
"""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import tempfile

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils
from jwcrypto import jwe, jwk, jws
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, RSAAlgorithm

NOW = 1800000000
SECRET = b"umbel-test-secret-0123456789abcdef"
H = '{"alg":"HS256","typ":"JWT"}'
P = '{"sub":"42","iat":1800000000,"exp":1800003600,"umbel":{"v":1,"subscribe":["news/**"]}}'
# The text's own tokens: the good one, and rows 1, 17 and 11.
TEXT = [
    ("good", "ok", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MiIsImlhdCI6MTgwMDAwMDAwMCwiZXhwIjoxODAwMDAzNjAwLCJ1bWJlbCI6eyJ2IjoxLCJzdWJzY3JpYmUiOlsibmV3cy8qKiJdfX0.GBF7nN023klpUQzAkbDeFKbynmYKu57s35MO4UZKQ38"),
    (1, "alg", "eyJhbGciOiJub25lIn0.eyJzdWIiOiI0MiIsImlhdCI6MTgwMDAwMDAwMCwiZXhwIjoxODAwMDAzNjAwLCJ1bWJlbCI6eyJ2IjoxLCJzdWJzY3JpYmUiOlsibmV3cy8qKiJdfX0."),
    (17, "claims", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MiIsInN1YiI6ImFkbWluIiwiZXhwIjoxODAwMDAzNjAwfQ.5WoyYbq_stcumYkeZlPunrINHdpua3Ozh9U79QX-ZLg"),
    (11, "header", "eyJhbGciOiJIUzI1NiIsImNyaXQiOlsiYjY0Il0sImI2NCI6dHJ1ZX0.eyJzdWIiOiI0MiIsImlhdCI6MTgwMDAwMDAwMCwiZXhwIjoxODAwMDAzNjAwLCJ1bWJlbCI6eyJ2IjoxLCJzdWJzY3JpYmUiOlsibmV3cy8qKiJdfX0.TMzxI9bP31fzhzbRHQCnoxvW_GfuoBaSb7EAGusjQ9w"),
]
A1 = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
p256_key = ec.generate_private_key(ec.SECP256R1())
p384_key = ec.generate_private_key(ec.SECP384R1())
ed_key = ed25519.Ed25519PrivateKey.generate()
KEYS = {"RS": rsa_key, "PS": rsa_key, "ES256": p256_key, "ES384": p384_key, "EdDSA": ed_key}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

cases = []


def b64(data):
    data = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def add(row, name, token, want="invalid", check="", setting="base"):
    cases.append({"row": row, "name": name, "token": token, "want": want, "check": check, "setting": setting})


def hs(header=H, payload=P, key=SECRET, hash_alg=HMACAlgorithm.SHA256):
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(HMACAlgorithm(hash_alg).sign(signed.encode(), key))}"


def any_key(header, payload, key):
    """HS256 with a key that PyJWT would refuse to sign with."""
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def rs(payload, header='{"alg":"RS256","typ":"JWT","kid":"r1"}'):
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(RSAAlgorithm(RSAAlgorithm.SHA256).sign(signed.encode(), rsa_key))}"


def claims(**more):
    """P with other members; those that are None go."""
    value = json.loads(P)
    value.update(more)
    return json.dumps({name: it for name, it in value.items() if it is not None}, separators=(",", ":"))


def idp(**more):
    return claims(**{"iss": "https://idp.example", "aud": "umbel", **more})


def umbel(members):
    return P.replace('{"v":1,"subscribe":["news/**"]}', members)


def public_pem(key):
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form).decode()


def public_jwk(key, **more):
    return {**json.loads(jwk.JWK.from_pyca(key.public_key()).export_public()), **more}


def rows_of_headers():
    for row, check, token in TEXT:
        good = row == "good"
        add(0 if good else row, "of the text", token, "ok" if good else "invalid", "" if good else check)
    add(0, "RFC 7515 A.1", A1, "expired", "exp", "a1")
    for none in ("None", "NONE", "nOnE", "none"):
        add(2, none, hs(f'{{"alg":"{none}"}}'), check="alg")
    der = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    number = rsa_key.public_key().public_numbers().n
    for name, key in (
        ("PEM", public_pem(rsa_key).encode()),
        ("DER", rsa_key.public_key().public_bytes(*der)),
        ("modulus", number.to_bytes(256, "big")),
    ):
        add(3, name, any_key('{"alg":"HS256","kid":"r1"}', idp(), key), check="alg")
    add(4, "oct in the set", hs('{"alg":"HS256","kid":"r1"}', idp(), b"oct-secret-of-the-set-0123456789abcdef"), check="alg")
    add(4, "oct, and HS256 configured", hs('{"alg":"HS256","kid":"o1"}', idp(), b"oct-secret-of-the-set-0123456789abcdef"), check="kid", setting="confused")
    add(5, "HS384", hs(H.replace("256", "384"), hash_alg=HMACAlgorithm.SHA384), check="alg")
    add(5, "HS512", hs(H.replace("256", "512"), hash_alg=HMACAlgorithm.SHA512), check="alg")
    add(6, "ES256 for idp", jwt.encode(json.loads(idp()), p256_key, "ES256", {"kid": "r1"}), check="alg")
    add(6, "RS256 for app", rs(P), check="alg")
    for kid in ("../../../../dev/null", "/proc/self/environ", "x' or '1'='1", "\\u0000"):
        header = f'{{"alg":"HS256","kid":"{kid}"}}'
        add(7, kid, any_key(header, P, b""), check="signature")
        add(7, f"{kid} for idp", rs(idp(), header.replace("HS256", "RS256")), check="kid")
    add(8, "10,000 bytes", hs(f'{{"alg":"HS256","kid":"{"k" * 10000}"}}'), check="length")
    add(8, "257 bytes", hs(f'{{"alg":"HS256","kid":"{"k" * 257}"}}'), check="header")
    add(8, "256 bytes", hs(f'{{"alg":"HS256","kid":"{"k" * 256}"}}'), "ok")
    add(8, "1,025 bytes of a header", hs(f'{{"alg":"HS256","x":"{"k" * 1003}"}}'), check="header")
    add(8, "a number", hs('{"alg":"HS256","kid":1}'), check="header")
    add(8, "null", hs('{"alg":"HS256","kid":null}'), check="header")
    attacker = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for name, more in (
        ("jwk", {"jwk": public_jwk(attacker)}),
        ("jku", {"jku": "http://127.0.0.1:9/keys"}),
        ("x5u", {"x5u": "http://127.0.0.1:9/chain"}),
        ("x5c", {"x5c": ["MIIB"]}),
    ):
        add(10, name, jwt.encode(json.loads(idp()), attacker, "RS256", {"kid": "r1", **more}), check="signature")
    for header in ('{"alg":"HS256","crit":["exp"]}', '{"alg":"HS256","crit":[]}', '{"alg":"HS256","zip":"DEF"}', '{"alg":"HS256","enc":"A128GCM"}'):
        add(11, header, hs(header), check="header")
    raw = b64('{"alg":"HS256","b64":false,"crit":["b64"]}') + "." + P
    add(11, "b64 false, raw payload", f"{raw}.{b64(HMACAlgorithm(HMACAlgorithm.SHA256).sign(raw.encode(), SECRET))}", check="header")
    add(11, "b64 false without crit", hs('{"alg":"HS256","b64":false}'), check="header")
    add(17, "two alg", hs('{"alg":"HS256","alg":"HS256"}'), check="header")
    add(17, "two alg, none first", hs('{"alg":"none","alg":"HS256"}'), check="alg")
    add(17, "two of a header that nobody reads", hs('{"alg":"HS256","x":1,"x":1}'), check="header")
    for header in ("[]", "null", '"x"', '{"typ":"JWT"}', '{"alg":5}', '{"alg":"HS256"}x', "\ufeff" + H, '["HS256"]'):
        add(11, f"header {header}", hs(header), check="header")


def rows_of_form():
    good = hs()
    header, payload, signature = good.split(".")
    key = jwk.JWK(kty="oct", k=b64(SECRET))
    sealed = jwe.JWE(good.encode(), json.dumps({"alg": "A256KW", "enc": "A128GCM", "cty": "JWT"}))
    sealed.add_recipient(jwk.JWK(kty="oct", k=b64(SECRET[:32])))
    add(13, "JWE", sealed.serialize(compact=True), check="parts")
    nested = jws.JWS(good)
    nested.add_signature(key, None, json.dumps({"alg": "HS256", "cty": "JWT"}))
    add(13, "nested JWS", nested.serialize(compact=True), check="header")
    plain = jws.JWS(good)
    plain.add_signature(key, None, json.dumps({"alg": "HS256"}))
    add(13, "nested JWS without cty", plain.serialize(compact=True), check="payload")
    for name, token, check in (
        ("1 part", payload, "parts"),
        ("2 parts", f"{header}.{payload}", "parts"),
        ("4 parts", f"{good}.{signature}", "parts"),
        ("5 parts", f"{header}..{payload}.{payload}.{signature}", "parts"),
        ("..", "..", "header"),
        ("empty", "", "parts"),
        (". in the payload", f"{header}.{payload[:9]}.{payload[9:]}.{signature}", "parts"),
    ):
        add(12, name, token, check=check)
    add(14, "padding", good + "=", check="base64")
    add(14, "padded payload", f"{header}.{payload}=.{signature}", check="base64")
    standard = payload[:-4] + base64.b64encode(b"\xfb\xff\xfe").decode()
    add(14, "+ and /", f"{header}.{standard}.{signature}", check="base64")
    for blank in ("\n", "\r\n", " ", "\t"):
        add(14, f"{blank!r} inside", f"{header}.{payload[:8]}{blank}{payload[8:]}.{signature}", check="base64")
        add(14, f"{blank!r} behind", good + blank, check="base64")
    assert good.endswith("8")
    add(14, "trailing bits", good[:-1] + "9", check="base64")
    raw = base64.urlsafe_b64decode(signature + "=")
    for name, other in (
        ("one bit off", bytes([raw[0] ^ 1]) + raw[1:]),
        ("last bit off", raw[:-1] + bytes([raw[-1] ^ 1])),
        ("empty", b""),
        ("31 bytes", raw[:31]),
        ("33 bytes", raw + b"\0"),
    ):
        add(15, name, f"{header}.{payload}.{b64(other)}", check="signature")
    add(15, "that of another payload", f"{header}.{payload}.{hs(payload=claims(sub='43')).split('.')[2]}", check="signature")


def rows_of_ecdsa():
    header = '{"alg":"ES256"}'
    signed = f"{b64(header)}.{b64(P)}"
    der = p256_key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    r, s = utils.decode_dss_signature(der)
    s = min(s, P256_ORDER - s)
    both = lambda r, s: r.to_bytes(32, "big") + s.to_bytes(32, "big")
    for name, signature, want in (
        ("DER", der, "invalid"),
        ("r = s = 0", bytes(64), "invalid"),
        ("r = n", both(P256_ORDER, s), "invalid"),
        ("s = n", both(r, P256_ORDER), "invalid"),
        ("low s", both(r, s), "ok"),
        ("high s", both(r, P256_ORDER - s), "ok"),
        ("63 bytes", both(r, s)[:63], "invalid"),
        ("65 bytes", both(r, s) + b"\0", "invalid"),
    ):
        add(16, name, f"{signed}.{b64(signature)}", want, "" if want == "ok" else "signature", "es256")


def rows_of_claims():
    for name, payload in (
        ("two exp", P.replace('"exp"', '"exp":1800003600,"exp"')),
        ("two umbel", P.replace('"umbel"', '"umbel":{},"umbel"')),
        ("two of a list", umbel('{"v":1,"subscribe":["a"],"subscribe":["b"]}')),
        ("two below deny", umbel('{"v":1,"deny":{"subscribe":["a"],"subscribe":[]}}')),
        ("two in info", umbel('{"v":1,"info":{"a":1,"a":2}}')),
        ("two by an escape", P.replace('"sub":"42"', '"sub":"42","s\\u0075b":"admin"')),
    ):
        add(17, name, hs(payload=payload), check="claims")
    for claim in ("exp", "nbf", "iat"):
        base = claims(**{claim: 4711}).replace("4711", "%s")
        for value in ('"1800003600"', "[1800003600]", "{}", "null", "true", "false", '""'):
            add(18, f"{claim} {value}", hs(payload=base % value), check="claims")
        for value in ("1e300", "-1", "18446744073709551616", "1e19", "1e18", "253402300800", "1e400", "-0.5", "NaN", "Infinity", "01800003600", "0x6b49d200"):
            check = "payload" if value in ("NaN", "Infinity", "01800003600", "0x6b49d200") else "claims"
            add(19, f"{claim} {value}", hs(payload=base % value), check=check)
    add(20, "a fraction", hs(payload=P.replace("1800003600", "1800003600.7")), "ok")
    add(20, "an exponent", hs(payload=P.replace("1800003600", "1.8000036e9")), "ok")
    add(21, "no exp", hs(payload=claims(exp=None)), check="claims")
    add(21, "no exp, none required", hs(payload=claims(exp=None)), "ok", setting="none required")
    for ago, want in ((29, "ok"), (30, "expired"), (31, "expired")):
        add(22, f"{ago} s ago", hs(payload=claims(exp=NOW - ago)), want, "" if want == "ok" else "exp")
    add(22, "29.5 s ago", hs(payload=claims(exp=NOW - 29.5)), "expired", "exp")
    for claim, check in (("nbf", "nbf"), ("iat", "iat")):
        for ahead, want in ((29, "ok"), (30, "ok"), (30.5, "not valid yet"), (31, "not valid yet")):
            row = 24 if want == "ok" else 23
            add(row, f"{claim} in {ahead} s", hs(payload=claims(**{claim: NOW + ahead})), want, "" if want == "ok" else check)
    add(23, 'nbf "x"', hs(payload=claims(nbf="x")), check="claims")
    add(25, "aud of two", rs(idp(aud=["a", "umbel"])), "ok")
    add(25, "aud", rs(idp()), "ok")
    add(26, "aud absent", rs(idp(aud=None)), check="aud")
    for value in ([], "Umbel", "umbel ", ["a"], [["umbel"]], 5, ["umbel", 5], {"umbel": 1}, True):
        check = "aud" if value in ([], "Umbel", "umbel ", ["a"]) else "claims"
        add(26, f"aud {json.dumps(value)}", rs(idp(aud=value)), check=check)
    add(26, "aud null", rs(idp(aud=4711).replace("4711", "null")), check="claims")
    add(26, "two aud", rs(idp().replace('"aud"', '"aud":"x","aud"')), check="claims")
    add(26, "aud where none is configured", hs(payload=claims(aud="umbel")), check="aud")
    add(27, "iss absent", rs(idp(iss=None)), check="alg")
    for value in ("https://idp.example/", "https://IDP.example", "https://idp.exampl"):
        add(27, f"iss {value}", rs(idp(iss=value)), check="alg")
    for value in (["https://idp.example", "x"], 5, {"https://idp.example": 1}):
        add(27, f"iss {json.dumps(value)}", rs(idp(iss=value)), check="payload")
    add(27, "iss null", rs(idp(iss=4711).replace("4711", "null")), check="payload")
    add(27, "two iss", rs(idp().replace('"iss"', '"iss":"https://idp.example","iss"')), check="payload")
    add(28, "token of app with iss of idp", hs('{"alg":"HS256","kid":"r1"}', idp()), check="alg")
    add(28, "token of idp without iss", rs(claims()), check="alg")
    add(28, "iss of nobody", hs(payload=claims(iss="https://nobody.example")), check="iss", setting="idp alone")
    for value, check in ((42, "claims"), ("", "claims"), ("s" * 256, "claims"), ("a\nb", "claims"), ("a\0b", "claims"), ("a\u0085b", "claims"), (["42"], "claims"), (None, "claims")):
        add(29, f"sub {json.dumps(value)[:20]}", hs(payload=claims(sub=value)), check=check)
    add(29, "sub null", hs(payload=claims(sub=4711).replace("4711", "null")), check="claims")
    add(29, "sub of 255 bytes", hs(payload=claims(sub="s" * 255)), "ok")
    for value in (5, "", "j" * 256, "a\nb", ["b1c2"]):
        add(29, f"jti {json.dumps(value)[:20]}", hs(payload=claims(jti=value)), check="claims")
    for value in ("*", "**", "a/b", "a.b", "{sub}", ".."):
        add(30, f"sub {value}", hs(payload=claims(sub=value)), "ok")


def rows_of_umbel():
    many = json.dumps([f"a/{number}" for number in range(257)])
    long = json.dumps([f"{number:03}" + "p" * 240 for number in range(72)])
    for name, members in (
        ("subscribe is a string", '{"v":1,"subscribe":"news"}'),
        ("a number in the list", '{"v":1,"subscribe":[5]}'),
        ("** in the middle", '{"v":1,"subscribe":["a/**/b"]}'),
        ("empty patterns", '{"v":1,"subscribe":["",""]}'),
        ("null for a list", '{"v":1,"subscribe":null}'),
        ("257 entries", f'{{"v":1,"subscribe":{many}}}'),
        ("a list for umbel", "[]"),
        ("a list of its members", '[1,["**"]]'),
        ("null for umbel", "null"),
        ("a string for umbel", '"news/**"'),
        ("v 2", '{"v":2,"subscribe":["news/**"]}'),
        ("v as a string", '{"v":"1"}'),
        ("v null", '{"v":null}'),
        ("an unknown key", '{"v":1,"allow":["news/**"]}'),
        ("an unknown key below deny", '{"v":1,"deny":{"all":["news/**"]}}'),
        ("deny is a list", '{"v":1,"deny":[["news/x"]]}'),
        ("manage", '{"v":1,"manage":["**"]}'),
        ("observe", '{"v":1,"observe":true}'),
        ("a limit that nobody enforces", '{"v":1,"limits":{"bytes_per_second":50}}'),
        ("limits is a list", '{"v":1,"limits":[]}'),
        ("an end of its own", '{"v":1,"connection_expires_at":1800007200}'),
        ("join of a pattern", '{"v":1,"join":["news/*"]}'),
        ("roles is a string", '{"v":1,"roles":"trader"}'),
        ("info of 1,025 bytes", f'{{"v":1,"info":"{"i" * 1023}"}}'),
        ("meta of 4,097 bytes", f'{{"v":1,"meta":"{"m" * 4095}"}}'),
    ):
        add(31, name, hs(payload=umbel(members)), check="claims")
    add(31, "17 KiB", hs(payload=umbel(f'{{"v":1,"subscribe":{long}}}')), check="claims", setting="32 KiB")
    add(31, "manage where it is taken", hs(payload=umbel('{"v":1,"manage":["**"],"observe":true}')), "ok", setting="may all")
    add(31, "an end where it is taken", hs(payload=umbel('{"v":1,"connection_expires_at":0}')), "ok", setting="may all")
    add(31, "all that may stand", hs(payload=umbel('{"v":1,"subscribe":["news/**","user/{sub}/**"],"publish":["user/{sub}/out"],"presence":[],"history":["news/**"],"deny":{"subscribe":["news/internal/**"]},"roles":["trader"],"join":["user/{sub}/inbox"],"info":{"name":"Anna"},"meta":{"tenant":"t7"},"limits":{}}')), "ok")
    add(31, "info null", hs(payload=umbel('{"v":1,"info":null}')), "ok")
    add(31, "no umbel", hs(payload=claims(umbel=None)), "ok")
    deep = lambda levels: "[" * levels + "]" * levels
    for name, payload, check in (
        ("an array", "[" + P + "]", "payload"),
        ("a string", '"x"', "payload"),
        ("null", "null", "payload"),
        ("not UTF-8", P.encode().replace(b"42", b"4\xff"), "payload"),
        ("a BOM", "\ufeff" + P, "payload"),
        ("garbage behind", '{"exp":1800003600}garbage', "payload"),
        ("a second object behind", P + P, "payload"),
        ("a comma too many", P[:-1] + ",}", "payload"),
        ("a lone surrogate", P.replace("42", "\\ud800"), "claims"),
        ("info 33 deep", umbel(f'{{"v":1,"info":{deep(33)}}}'), "claims"),
    ):
        add(33, name, hs(payload=payload), check=check)
    add(33, "info 32 deep", hs(payload=umbel(f'{{"v":1,"info":{deep(32)}}}')), "ok")
    add(33, "blanks around", hs(payload=f" \r\n\t{P}\n "), "ok")
    add(33, "an unknown claim 3,000 deep", hs(payload=P[:-1] + f',"x":{deep(2900)}}}'), "ok")
    for size, want in ((8192, "ok"), (8193, "invalid")):
        # Only two of three lengths can be had by a payload alone.
        token = next(it for it in (hs(H + " " * n, P[:-1] + f',"x":"{"x" * m}"}}') for n in range(3) for m in range(5600, 6100)) if len(it) == size)
        add(34, f"{size} bytes", token, want, "" if want == "ok" else "length")
    add(36, "an ID token", hs(), check="typ", setting="at+jwt")
    add(36, "no typ", hs('{"alg":"HS256"}'), check="typ", setting="at+jwt")
    add(36, "application/AT+JWT", hs('{"alg":"HS256","typ":"application/AT+JWT"}'), "ok", setting="at+jwt")
    add(36, "at+jwt", hs('{"alg":"HS256","typ":"at+jwt"}'), "ok", setting="at+jwt")


def interop(modules):
    key_of = lambda name: SECRET * 2 if name.startswith("HS") else KEYS.get(name) or KEYS[name[:2]]
    names = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
    for name in names:
        payload = claims(iss=f"https://{name}.example")
        add(0, f"PyJWT {name}", jwt.encode(json.loads(payload), key_of(name), name, {"kid": name}), "ok", setting="interop")
        key = jwk.JWK(kty="oct", k=b64(SECRET * 2)) if name.startswith("HS") else jwk.JWK.from_pyca(key_of(name))
        made = jws.JWS(payload)
        made.add_signature(key, name, json.dumps({"alg": name, "kid": name}))
        add(0, f"jwcrypto {name}", made.serialize(compact=True), "ok", setting="interop")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            key = key_of(name)
            form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            data = key if isinstance(key, bytes) else key.private_bytes(*form)
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
        here = os.path.dirname(os.path.abspath(__file__))
        env = {**os.environ, "JOSE": os.path.join(modules, "jose"), "GOPATH": "/usr/share/gocode", "GO111MODULE": "off"}
        for label, command in (
            ("jose", ["node", os.path.join(here, "make.mjs"), folder, *names]),
            ("golang-jwt", ["go", "run", os.path.join(here, "make.go"), folder, *names]),
        ):
            made = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
            for line in made.splitlines():
                name, token = line.split()
                add(0, f"{label} {name}", token, "ok", setting="interop")


rows_of_headers()
rows_of_form()
rows_of_ecdsa()
rows_of_claims()
rows_of_umbel()
interop(sys.argv[1] if len(sys.argv) > 1 else "node_modules")
octet = {"kty": "oct", "kid": "r1", "k": b64(b"oct-secret-of-the-set-0123456789abcdef")}
json.dump(
    {
        "pem": {name: public_pem(key) for name, key in KEYS.items()},
        "set": {"keys": [octet, {**octet, "kid": "o1"}, public_jwk(rsa_key, kid="r1", use="sig", alg="RS256"), public_jwk(p256_key, kid="e1")]},
        "interop": {"keys": [public_jwk(KEYS.get(name) or KEYS[name[:2]], kid=name, alg=name) for name in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]]},
        "cases": cases,
    },
    sys.stdout,
    indent=0,
)
