//! Settings of tokens, grants and other sources of identities.

use super::heading::ACCESS;
use super::{Key, Kind, PLAIN, SettingInfo, Unset, key};
use crate::config::{Reload, SIGNED_URL_AGE_MAX_MS};

const fn of_identity(name: &'static str) -> Key {
    Key {
        table: "identity",
        name,
    }
}

/// The settings, in the order of the help.
pub(super) const SETTINGS: &[SettingInfo] = &[
    SettingInfo {
        name: "token",
        key: key("token"),
        heading: ACCESS,
        kind: Kind::Tokens,
        reload: Reload::Live,
        value_name: "TOKEN",
        doc: "A token with a name and rights of its own, as in \"feed sha256=... publish=prices/**\"; repeat it",
        long_doc: "A token with a name and rights of its own; repeat it, or separate by ;. `umbel token new NAME` makes one. The \
                   token itself can stand in [[token]] of the file alone. Behind the name, patterns with commas between them:\n\
                   sha256=DIGEST               the SHA-256 of the token\n\
                   publish=PATTERN,...         topics that it may publish to\n\
                   subscribe=PATTERN,...       topics that it may subscribe to\n\
                   presence=, history=, manage= as publish=: members, histories, the control API\n\
                   deny.publish=PATTERN,...    of those, such that it may not; deny.subscribe= and so on\n\
                   observe=true                it may see the console, metrics and topics\n\
                   subject=NAME                the subject of whoever shows it; subject_prefix= stands before it\n\
                   expires=TIME                its end, as in 2027-01-01T00:00:00Z\n\
                   What is not allowed is denied.",
        ..PLAIN
    },
    SettingInfo {
        name: "grant",
        key: key("grant"),
        heading: ACCESS,
        kind: Kind::Grants,
        reload: Reload::Live,
        value_name: "GRANT",
        doc: "Rights for all whom a condition fits, as in \"subject=true subscribe=user/{sub}/**\"; repeat it",
        long_doc: "Rights for all whom a condition fits; repeat it, or separate by ; in UMBEL_GRANTS. All that fit are added \
                   together. The condition is one or more of:\n\
                   subject=true                whoever has signed in with a subject\n\
                   anonymous=true              whoever showed no credential\n\
                   source=NAME                 whoever has it from this [[token]], [[jwt]], hook, certificate or signed_url\n\
                   role=NAME                   whoever has this role\n\
                   claim=NAME has=TEXT         whoever has this in a claim\n\
                   Behind it stand rights as in --token. A segment of a pattern may be {sub}, {meta.NAME} or {claim.NAME}.",
        ..PLAIN
    },
    SettingInfo {
        name: "jwt",
        key: key("jwt"),
        heading: ACCESS,
        kind: Kind::Jwts,
        reload: Reload::Live,
        value_name: "ISSUER",
        doc: "An issuer of JSON web tokens, as in \"idp algorithms=RS256 issuer=... audience=... jwks_url=...\"; repeat it",
        long_doc: "An issuer whose JSON web tokens say who somebody is; repeat it, or separate by ; in UMBEL_JWTS. Behind the name \
                   stand keys of [[jwt]] with their values: algorithms=, jwks_url=, ca_file=, issuer=, audience=, token_type=, \
                   leeway_ms=, require=, claims_at=, token_bytes_max=, subject_prefix=, life_max_ms=, may_manage= and \
                   may_outlive=. Secrets, and keys from files, stand in the configuration file alone.",
        is_advanced: true,
        ..PLAIN
    },
    SettingInfo {
        name: "url_key",
        key: key("url_key"),
        heading: ACCESS,
        kind: Kind::UrlKeys,
        reload: Reload::Live,
        value_name: "KEY",
        doc: "A key that signs URLs of topics; it stands in [[url_key]] of the file alone",
        is_advanced: true,
        ..PLAIN
    },
    SettingInfo {
        name: "jwks_required_at_start",
        key: of_identity("jwks_required_at_start"),
        heading: ACCESS,
        kind: Kind::Bool,
        unset: Unset::Value("false"),
        value_name: "BOOL",
        doc: "End at the start where the keys of a jwks_url cannot be fetched, and there is no copy of them: true or false",
        is_advanced: true,
        ..PLAIN
    },
    SettingInfo {
        name: "query_token",
        key: of_identity("query_token"),
        heading: ACCESS,
        kind: Kind::Choice(&["allow", "short", "off"]),
        unset: Unset::Words("allow where the server is open to this machine, else short"),
        example: "\"short\"",
        reload: Reload::Live,
        value_name: "WHICH",
        doc: "Tokens that may stand in ?token=, where proxies log them: allow, short (those that live for 5 minutes at most, and \
              no static ones) or off",
        ..PLAIN
    },
    SettingInfo {
        name: "signed_url_age_max_ms",
        key: of_identity("signed_url_age_max_ms"),
        heading: ACCESS,
        kind: Kind::Number {
            min: 1000,
            max: 31_536_000_000,
        },
        unset: Unset::Number(SIGNED_URL_AGE_MAX_MS),
        reload: Reload::Live,
        value_name: "MS",
        doc: "How far ahead the end of a signed URL may be",
        is_advanced: true,
        ..PLAIN
    },
    SettingInfo {
        name: "cookie",
        key: of_identity("cookie"),
        heading: ACCESS,
        kind: Kind::Text,
        example: "\"__Host-umbel\"",
        reload: Reload::Live,
        value_name: "NAME",
        doc: "Name of a cookie that holds a token; it counts for pages of listed origins and of the server's own",
        ..PLAIN
    },
    SettingInfo {
        name: "presence_key",
        key: of_identity("presence_key"),
        heading: ACCESS,
        kind: Kind::Secret,
        example: "{ file = \"/etc/umbel/presence.key\" }",
        reload: Reload::Restart,
        value_name: "KEY",
        doc: "Key of the hashes of subjects by presence_subject=hash, of 16 bytes or more: the same on all nodes, so that one \
              subject is one hash everywhere. Without it each process has a random one",
        is_advanced: true,
        ..PLAIN
    },
    SettingInfo {
        name: "auth_refusal",
        key: of_identity("auth_refusal"),
        heading: ACCESS,
        kind: Kind::Choice(&["auto", "status", "close"]),
        unset: Unset::Value("auto"),
        reload: Reload::Live,
        value_name: "HOW",
        doc: "Refuse handshakes for umbel.v1 by a status, by a Close behind them, or as each peer can see: auto",
        is_advanced: true,
        ..PLAIN
    },
];
