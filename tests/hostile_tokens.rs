//! Hostile tokens, and what each must get. Other people's libraries have signed them: `hostile_tokens/make.py`.
#![cfg(feature = "jwt")]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;
use umbel::OriginList;
use umbel::config::{Config, Jwt, JwtKeys, Origins, QueryToken};
use umbel::internals::auth::Authority;
use umbel::internals::auth::access::{Action, Denied, TokenFault};
use umbel::internals::auth::credential::RequestFacts;
use umbel::internals::auth::identity::Nobody;
use umbel::internals::auth::jwt::error::JwtError;
use umbel::internals::auth::jwt::issuer::{Issuer, Issuers, Keys};
use umbel::internals::auth::jwt::remote::RemoteKeys;
use umbel::internals::auth::jwt::rules::{RequiredClaim, Rules};
use umbel::internals::auth::policy::AccessPolicy;
use umbel::internals::auth::rights::{Decision, Part, decide};
use umbel::internals::http::request::{Head, RequestLimits};
use umbel::internals::signature::algorithm::{Algorithm, Family};
use umbel::internals::signature::jwk::read_key_set;
use umbel::internals::signature::keys::{Key, KeySet};

/// The clock of these tests: 15 January 2027, 08:00:00 UTC.
const NOW_MS: u64 = 1_800_000_000_000;

const SECRET: &[u8] = b"umbel-test-secret-0123456789abcdef";

/// Key of RFC 7515, appendix A.1.
const A1_SECRET: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

#[derive(Deserialize)]
struct Vectors {
    pem: Pem,
    set: Value,
    interop: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Pem {
    #[serde(rename = "RS")]
    rsa: String,
    #[serde(rename = "ES256")]
    p256: String,
    #[serde(rename = "ES384")]
    p384: String,
    #[serde(rename = "EdDSA")]
    ed25519: String,
}

#[derive(Deserialize)]
struct Case {
    row: u32,
    name: String,
    token: String,
    want: String,
    check: String,
    setting: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("hostile_tokens/vectors.json")).expect("vectors")
}

fn configured(keys: Vec<Key>) -> Keys {
    Keys::Configured(Arc::new(KeySet::new(0, keys)))
}

fn issuer(name: &str, algorithms: &[Algorithm], keys: Keys, rules: Rules) -> Issuer {
    Issuer {
        name: name.into(),
        algorithms: algorithms.to_vec(),
        keys,
        rules,
    }
}

fn app(rules: Rules) -> Issuer {
    let algorithms = [Algorithm::Hs256];
    let key = Key::secret(SECRET, &algorithms);
    issuer("app", &algorithms, configured(vec![key]), rules)
}

fn idp(vectors: &Vectors, algorithms: &[Algorithm]) -> Issuer {
    let read = read_key_set(vectors.set.to_string().as_bytes(), algorithms).expect("a set");
    assert_eq!(read.warnings.len(), 2, "{:?}", read.warnings);
    assert!(read.warnings[0].contains("kid \"r1\") is a secret"));
    let rules = Rules {
        issuer: Some("https://idp.example".into()),
        audience: vec!["umbel".into()],
        ..Rules::default()
    };
    issuer("idp", algorithms, configured(read.keys), rules)
}

/// One issuer for each algorithm, with its key as PEM or in a set.
fn interop(vectors: &Vectors, is_set: bool) -> Vec<Issuer> {
    let of = |algorithm: Algorithm| {
        let only = [algorithm];
        let pem = match algorithm.family() {
            Family::Hmac => None,
            Family::Rsa => Some(&vectors.pem.rsa),
            Family::P256 => Some(&vectors.pem.p256),
            Family::P384 => Some(&vectors.pem.p384),
            Family::Ed25519 => Some(&vectors.pem.ed25519),
        };
        let keys = match pem {
            None => vec![Key::secret(&SECRET.repeat(2), &only)],
            Some(_) if is_set => {
                let read = read_key_set(vectors.interop.to_string().as_bytes(), &only);
                let read = read.expect("a set");
                assert_eq!((read.keys.len(), read.passed_over), (1, 8), "{algorithm}");
                read.keys
            }
            Some(pem) => vec![Key::from_pem(pem.as_bytes(), &only).expect("a key")],
        };
        let rules = Rules {
            issuer: Some(format!("https://{algorithm}.example").into()),
            ..Rules::default()
        };
        issuer(algorithm.name(), &only, configured(keys), rules)
    };
    Algorithm::ALL.into_iter().map(of).collect()
}

fn issuers(vectors: &Vectors, setting: &str) -> Issuers {
    let rules = Rules::default();
    Issuers::new(match setting {
        "base" => vec![app(rules), idp(vectors, &[Algorithm::Rs256])],
        "idp alone" => vec![idp(vectors, &[Algorithm::Rs256])],
        "confused" => vec![idp(vectors, &[Algorithm::Hs256, Algorithm::Rs256])],
        "none required" => vec![app(Rules {
            require: Vec::new(),
            ..rules
        })],
        "32 KiB" => vec![app(Rules {
            token_bytes_max: 32 << 10,
            ..rules
        })],
        "may all" => vec![app(Rules {
            may_manage: true,
            may_outlive: true,
            ..rules
        })],
        "at+jwt" => vec![app(Rules {
            token_type: Some("at+jwt".into()),
            ..rules
        })],
        "a1" => {
            let secret = URL_SAFE_NO_PAD.decode(A1_SECRET).expect("a key");
            let algorithms = [Algorithm::Hs256];
            let keys = configured(vec![Key::secret(&secret, &algorithms)]);
            let require = vec![RequiredClaim::Expires];
            vec![issuer("a1", &algorithms, keys, Rules { require, ..rules })]
        }
        "es256" => {
            let algorithms = [Algorithm::Es256];
            let key = Key::from_pem(vectors.pem.p256.as_bytes(), &algorithms).expect("a key");
            vec![issuer("es", &algorithms, configured(vec![key]), rules)]
        }
        "interop" => interop(vectors, false),
        other => panic!("no setting {other}"),
    })
}

/// What a token gets: what the peer is told, and the check that refused it.
fn outcome(issuers: &Issuers, token: &str) -> (&'static str, &'static str, String) {
    let judged = issuers.verify(token, NOW_MS);
    // The second time, it is known.
    let again = issuers.verify(token, NOW_MS);
    assert_eq!(judged.is_ok(), again.is_ok(), "{token}");
    assert_eq!(judged.as_ref().err(), again.as_ref().err(), "{token}");
    match judged {
        Ok(_) => ("ok", "", String::new()),
        Err(refused) => {
            let told = match refused.error.description() {
                "the token has expired" => "expired",
                "the token is not valid yet" => "not valid yet",
                "the token is invalid" => "invalid",
                other => panic!("{other}"),
            };
            (told, refused.error.check(), refused.error.to_string())
        }
    }
}

#[test]
fn every_row() {
    let vectors = vectors();
    let mut problems = Vec::new();
    let mut rows = BTreeSet::new();
    let settings: BTreeSet<&str> = vectors.cases.iter().map(|it| it.setting.as_str()).collect();
    for setting in settings {
        let issuers = issuers(&vectors, setting);
        for case in vectors.cases.iter().filter(|it| it.setting == setting) {
            rows.insert(case.row);
            let (want, check, words) = outcome(&issuers, &case.token);
            if (want, check) != (&case.want, &case.check) {
                problems.push(format!(
                    "row {} {}: {want} by {check:?} ({words}), not {} by {:?}",
                    case.row, case.name, case.want, case.check
                ));
            }
            // Neither a line break nor a part of the token gets into a log.
            let parts = case.token.split('.').filter(|part| part.len() > 8);
            let leaks = parts.filter(|part| words.contains(part)).count();
            if leaks > 0 || words.contains(char::is_control) || words.len() > 400 {
                problems.push(format!("row {} {}: {words:?}", case.row, case.name));
            }
        }
    }
    let by_form: BTreeSet<u32> = (0..=36).filter(|row| ![9, 32, 35].contains(row)).collect();
    assert_eq!(rows, by_form);
    assert!(vectors.cases.len() > 250, "{}", vectors.cases.len());
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn good_token_says_who_and_what() {
    let vectors = vectors();
    for is_set in [false, true] {
        let issuers = Issuers::new(interop(&vectors, is_set));
        let cases = vectors.cases.iter().filter(|it| it.setting == "interop");
        for (index, case) in cases.enumerate() {
            let verified = issuers.verify(&case.token, NOW_MS);
            let verified = verified.unwrap_or_else(|error| panic!("{}: {error:?}", case.name));
            let name = &issuers.get(verified.issuer).expect("an issuer").name;
            assert!(case.name.ends_with(&**name), "{} {index}", case.name);
            let claims = &verified.claims;
            assert_eq!(claims.subject.as_deref(), Some("42"));
            assert_eq!(claims.issued_at, Some(1_800_000_000));
            assert_eq!(claims.expires_at, Some(1_800_003_600));
            let rights = Part {
                owner: (),
                rights: &claims.rights,
                denies_only: false,
            };
            let decided = decide(
                &std::iter::once(rights),
                Action::Subscribe("news/x"),
                &Nobody,
            );
            assert_eq!(decided, Decision::Allowed((), "news/**"));
        }
    }
}

/// PyJWT and the server judge 10,000 mutations at the same time of day. What the server takes, PyJWT takes.
#[test]
fn mutations_judged_by_pyjwt() {
    let root = env!("CARGO_MANIFEST_DIR");
    let python = std::env::var("TEST_PYTHON")
        .unwrap_or_else(|_| format!("{root}/target/tests/python/bin/python"));
    let judged = Command::new(&python)
        .args([&format!("{root}/tests/hostile_tokens/oracle.py"), "1"])
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}; scripts/setup installs it"));
    let problem = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "{problem}");
    let issuers = Issuers::new(vec![app(Rules {
        require: vec![RequiredClaim::Expires],
        ..Rules::default()
    })]);
    let (mut count, mut both) = (0, 0);
    for line in String::from_utf8(judged.stdout).expect("text").lines() {
        let (word, token) = line.split_once(' ').expect("two words");
        let token = STANDARD.decode(token).expect("base64");
        let is_taken = issuers.judge(&token, NOW_MS).is_ok();
        let is_taken_by_other = word == "yes";
        assert!(
            is_taken_by_other || !is_taken,
            "PyJWT refuses {}",
            String::from_utf8_lossy(&token)
        );
        count += 1;
        both += usize::from(is_taken && is_taken_by_other);
    }
    assert_eq!(count, 10_000);
    assert!(both >= 500, "only {both} are taken by both");
}

/// The issuers of the table, as a configuration has them.
fn authority(vectors: &Vectors) -> Authority {
    let mut app = Jwt::new("app");
    app.algorithms = vec![Algorithm::Hs256];
    app.subject_prefix = Some(String::new());
    app.keys = Some(JwtKeys::secret(std::str::from_utf8(SECRET).expect("text")));
    let mut idp = Jwt::new("idp");
    idp.algorithms = vec![Algorithm::Rs256];
    idp.subject_prefix = Some(String::new());
    idp.issuer = Some("https://idp.example".to_owned());
    idp.audience = vec!["umbel".to_owned()];
    idp.keys = Some(JwtKeys::KeySet(vectors.set.to_string()));
    let mut config = Config::default();
    let origins = OriginList::parse(&["https://app.example"]).expect("an origin");
    config.origins = Some(Origins::List(origins));
    config.query_token = Some(QueryToken::Allow);
    config.cookie = Some("umbel".to_owned());
    config.jwts = vec![app, idp];
    config.check().expect("it can stand");
    let rights = config.rights().expect("all is said");
    Authority::Policy(AccessPolicy::new(&rights, Arc::default()))
}

/// Each place that a token can stand in gets the same answer for it.
#[test]
fn every_row_in_every_place() {
    let vectors = vectors();
    let authority = authority(&vectors);
    let limits = RequestLimits {
        head_bytes_max: 64 << 10,
        headers_max: 20,
        target_bytes_max: 64 << 10,
        body_bytes_max: 0,
    };
    let in_head = |request: &str| {
        let head = Head::parse(request.as_bytes(), &limits).ok()?;
        let facts = RequestFacts {
            cookie_counts: true,
            ..RequestFacts::at(NOW_MS)
        };
        Some(authority.authenticate(&head, &facts).map(|_| ()))
    };
    let mut problems = Vec::new();
    let mut count = 0;
    for case in vectors.cases.iter().filter(|it| it.setting == "base") {
        let token = &case.token;
        let fault = match &*case.want {
            "ok" => None,
            "expired" => Some(Denied::Invalid(TokenFault::Expired)),
            "not valid yet" => Some(Denied::Invalid(TokenFault::NotYetValid)),
            _ => Some(Denied::Invalid(TokenFault::Invalid)),
        };
        let want = fault.map_or(Ok(()), Err);
        let first_frame = authority.identify(token, NOW_MS).map(|_| ());
        // A header and a query have letters that a token cannot have there: 400.
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let is_plain = !token.is_empty() && token.chars().all(is_plain);
        let with = |target: &str, line: &str| {
            in_head(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n{line}\r\n"))
        };
        let encoded = URL_SAFE_NO_PAD.encode(token);
        let mut got = vec![("first frame", Some(first_frame))];
        if !token.is_empty() {
            let line = format!("Sec-WebSocket-Protocol: umbel.v1, umbel.token64.{encoded}\r\n");
            got.push(("subprotocol, encoded", with("/ws", &line)));
        }
        if is_plain {
            let line = format!("Authorization: Bearer {token}\r\n");
            got.push(("header", with("/ws", &line)));
            got.push(("query", with(&format!("/ws?token={token}"), "")));
            let line = format!("Sec-WebSocket-Protocol: umbel.v1, umbel.token.{token}\r\n");
            got.push(("subprotocol", with("/ws", &line)));
            let line = format!("Cookie: umbel={token}\r\n");
            got.push(("cookie", with("/sse/a", &line)));
        }
        for (place, got) in got {
            count += 1;
            if got.as_ref() != Some(&want) {
                problems.push(format!(
                    "row {} {} in {place}: {got:?}",
                    case.row, case.name
                ));
            }
        }
    }
    assert!(count > 1200, "{count}");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The previous secret verifies until its end, and one generation of keys is not another's.
#[test]
fn secret_rotation() {
    let algorithms = [Algorithm::Hs256];
    let with = |until_ms| {
        let current = Key::secret(b"another-secret-0123456789abcdef-01", &algorithms);
        let previous = Key::secret(SECRET, &algorithms).until_ms(until_ms);
        let keys = configured(vec![current, previous]);
        Issuers::new(vec![issuer("app", &algorithms, keys, Rules::default())])
    };
    let vectors = vectors();
    let good = &vectors.cases[0].token;
    for (until_ms, check) in [
        (None, ""),
        (Some(NOW_MS + 1), ""),
        (Some(NOW_MS), "signature"),
    ] {
        assert_eq!(outcome(&with(until_ms), good).1, check, "{until_ms:?}");
    }
}

/// What is known of a token holds neither beyond its time nor beyond its keys.
#[test]
fn known_token_is_asked_for_time_and_keys() {
    let algorithms = [Algorithm::Hs256];
    let previous = Key::secret(SECRET, &algorithms).until_ms(Some(NOW_MS + 100_000));
    let current = Key::secret(b"another-secret-0123456789abcdef-01", &algorithms);
    let keys = configured(vec![current, previous]);
    let issuers = Issuers::new(vec![issuer("app", &algorithms, keys, Rules::default())]);
    let vectors = vectors();
    let good = &vectors.cases[0].token;
    assert!(issuers.verify(good, NOW_MS).is_ok());
    assert!(issuers.verify(good, NOW_MS + 99_999).is_ok());
    let error = issuers.verify(good, NOW_MS + 100_000).expect_err("no key");
    assert_eq!(error.error, JwtError::Signature);
    let issuers = self::issuers(&vectors, "base");
    assert!(issuers.verify(good, NOW_MS).is_ok());
    let error = |now_ms| issuers.verify(good, now_ms).expect_err("not now").error;
    assert_eq!(error(NOW_MS + 3_630_000), JwtError::Expired);
    assert_eq!(error(NOW_MS - 30_001), JwtError::IssuedInFuture);
    assert!(issuers.verify(good, NOW_MS + 3_629_999).is_ok());
}

/// A `kid` that no fetched set has may be of one that comes; without a set, nothing is decided.
#[test]
fn keys_that_come_later() {
    let vectors = vectors();
    let remote = Arc::new(RemoteKeys::default());
    let mut issuer = idp(&vectors, &[Algorithm::Rs256]);
    issuer.keys = Keys::Remote(Arc::clone(&remote));
    let issuers = Issuers::new(vec![issuer]);
    let good = vectors.cases.iter().find(|it| it.name == "aud of two");
    let good = &*good.expect("row 25").token;
    let unknown = vectors
        .cases
        .iter()
        .find(|it| it.name.ends_with("environ for idp"));
    let unknown = &*unknown.expect("row 7").token;
    let error = |token: &str| issuers.verify(token, NOW_MS).expect_err("undecided").error;
    assert_eq!(error(good), JwtError::KeysUnavailable);
    assert!(error(good).is_undecided());
    let put = |generation| {
        let read = read_key_set(vectors.set.to_string().as_bytes(), &[Algorithm::Rs256]);
        remote.put(Arc::new(KeySet::new(generation, read.expect("a set").keys)));
    };
    put(7);
    assert_eq!(remote.fetched(), 1);
    assert_eq!(issuers.verify(good, NOW_MS).expect("good").generation, 7);
    assert_eq!(error(unknown), JwtError::KeyNotKnownYet);
    put(8);
    assert_eq!(issuers.verify(good, NOW_MS).expect("good").generation, 8);
    remote.expire();
    assert_eq!(error(good), JwtError::KeysUnavailable);
}

#[test]
fn wrong_keys_are_told() {
    let vectors = vectors();
    let pem = &vectors.pem;
    let broken = pem.rsa.replace("MII", "MIJ");
    let twice = format!("{}{}", pem.rsa, pem.p256);
    let certificate = pem.rsa.replace("PUBLIC KEY", "CERTIFICATE");
    let private = pem.rsa.replace("PUBLIC KEY", "PRIVATE KEY");
    let pkcs1 = pem.rsa.replace("PUBLIC KEY", "RSA PUBLIC KEY");
    for (text, algorithm, told) in [
        ("", Algorithm::Rs256, "holds no public key"),
        ("secret", Algorithm::Rs256, "openssl pkey -pubout"),
        (&twice, Algorithm::Rs256, "more than one key"),
        (&certificate, Algorithm::Rs256, "it is a certificate: "),
        (&private, Algorithm::Rs256, "it is a private key: "),
        (&pkcs1, Algorithm::Rs256, "openssl rsa -RSAPublicKey_in"),
        (&broken, Algorithm::Rs256, "it is no key of RSA"),
        (
            &pem.p256,
            Algorithm::Rs256,
            "RS256 needs a key of RSA, and this is a key of P-256",
        ),
        (
            &pem.rsa,
            Algorithm::Hs256,
            "HS256 needs a secret, and this is a key of RSA",
        ),
        (
            &pem.p384,
            Algorithm::Es256,
            "ES256 needs a key of P-256, and this is a key of P-384",
        ),
    ] {
        let error = Key::from_pem(text.as_bytes(), &[algorithm]).err();
        let error = error.unwrap_or_default();
        assert!(error.contains(told), "{told}: {error}");
    }
    for set in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[]}x"] {
        assert!(
            read_key_set(set.as_bytes(), &Algorithm::ALL).is_err(),
            "{set}"
        );
    }
    let many = format!("{{\"keys\":[{}1]}}", "1,".repeat(100));
    assert!(read_key_set(many.as_bytes(), &Algorithm::ALL).is_err());
}

/// Keys of another use, kind, curve or algorithm are passed over, as are broken ones.
#[test]
fn keys_that_do_not_fit_are_passed_over() {
    let vectors = vectors();
    let all = vectors.interop["keys"].as_array().expect("keys");
    let named = |kid: &str| all.iter().find(|key| key["kid"] == kid).expect("a key");
    let count = |key: &Value, algorithms: &[Algorithm]| {
        let set = serde_json::json!({ "keys": [key] }).to_string();
        let read = read_key_set(set.as_bytes(), algorithms).expect("a set");
        read.keys.len()
    };
    for (kid, algorithm, member, value) in [
        ("RS256", Algorithm::Rs256, "use", "enc".into()),
        (
            "RS256",
            Algorithm::Rs256,
            "key_ops",
            serde_json::json!(["sign"]),
        ),
        ("RS256", Algorithm::Rs256, "alg", "PS256".into()),
        ("RS256", Algorithm::Rs256, "alg", "rs256".into()),
        ("RS256", Algorithm::Rs256, "kty", "EC".into()),
        ("RS256", Algorithm::Rs256, "n", "AQAB".into()),
        ("RS256", Algorithm::Rs256, "e", "".into()),
        ("RS256", Algorithm::Rs256, "kid", "k".repeat(257).into()),
        ("ES256", Algorithm::Es256, "crv", "P-384".into()),
        ("ES256", Algorithm::Es256, "crv", "secp256k1".into()),
        (
            "ES256",
            Algorithm::Es256,
            "x",
            URL_SAFE_NO_PAD.encode([1; 32]).into(),
        ),
        (
            "ES256",
            Algorithm::Es256,
            "x",
            URL_SAFE_NO_PAD.encode([1; 33]).into(),
        ),
        ("EdDSA", Algorithm::EdDsa, "crv", "X25519".into()),
        (
            "EdDSA",
            Algorithm::EdDsa,
            "x",
            URL_SAFE_NO_PAD.encode([1; 31]).into(),
        ),
    ] {
        let mut key = named(kid).clone();
        assert_eq!(count(&key, &[algorithm]), 1, "{kid}");
        key[member] = value;
        assert_eq!(count(&key, &[algorithm]), 0, "{kid} {member}");
    }
    assert_eq!(
        count(named("RS256"), &[Algorithm::Ps256]),
        0,
        "alg binds it"
    );
    let mut any = named("RS256").clone();
    any.as_object_mut().expect("an object").remove("alg");
    assert_eq!(count(&any, &[Algorithm::Ps256]), 1);
}
