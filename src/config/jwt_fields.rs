//! Keys of `[[jwt]]`, as rows of a table.

use super::fields::FieldInfo;
use super::jwt::{JWT_BYTES, LEEWAY_MS, LIFE_MS_MAX};
use super::kind::Kind;

const fn text(name: &'static str, example: &'static str, doc: &'static str) -> FieldInfo {
    FieldInfo {
        name,
        kind: Kind::Text,
        unset: "",
        example,
        is_required: false,
        doc,
    }
}

const fn of_kind(
    (name, kind): (&'static str, Kind),
    unset: &'static str,
    doc: &'static str,
) -> FieldInfo {
    FieldInfo {
        name,
        kind,
        unset,
        example: "",
        is_required: false,
        doc,
    }
}

/// Keys of `[[jwt]]`.
pub const JWT_FIELDS: &[FieldInfo] = &[
    FieldInfo {
        is_required: true,
        ..text("name", "\"app\"", "Name in logs, metrics and grants.")
    },
    FieldInfo {
        kind: Kind::Texts,
        is_required: true,
        ..text(
            "algorithms",
            "[\"ES256\"]",
            "Algorithms that its tokens may have, of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 \
             and EdDSA: those of one kind of key, but where the keys are a set.",
        )
    },
    of_kind(
        ("secret", Kind::Secret),
        "",
        "Secret of both sides, for HS256 to HS512, of at least 32, 48 or 64 bytes: a string, or { file = \"PATH\" }, \
         { credential = \"NAME\" } or { env = \"NAME\" }.",
    ),
    of_kind(
        ("secret_previous", Kind::Secret),
        "",
        "Secret before this one, whose tokens are still about.",
    ),
    of_kind(
        ("secret_previous_until", Kind::Time),
        "",
        "End of the secret before this one, as in 2027-01-01T00:00:00Z.",
    ),
    text(
        "public_key_file",
        "",
        "File with the public key, which begins with BEGIN PUBLIC KEY, in place of a secret.",
    ),
    text(
        "jwks_file",
        "",
        "File with a set of public keys (RFC 7517), in place of a secret.",
    ),
    text(
        "jwks_url",
        "\"https://app.example/keys.json\"",
        "Address of a set of public keys, which is fetched, in place of a secret: https, or http to this machine.",
    ),
    text(
        "ca_file",
        "",
        "Certificates that the one of jwks_url is verified by, in PEM. Without it those that the system trusts.",
    ),
    text(
        "issuer",
        "\"https://app.example\"",
        "The iss of its tokens. One [[jwt]] may lack it: it gets those whose iss is absent, or no other's.",
    ),
    FieldInfo {
        kind: Kind::Texts,
        ..text(
            "audience",
            "[\"umbel\"]",
            "Names of this server, of which aud must have one. Only with a secret may it be left out; then aud must be absent.",
        )
    },
    text(
        "token_type",
        "",
        "The typ of headers, as in \"at+jwt\". Without it any, or none.",
    ),
    of_kind(
        (
            "leeway_ms",
            Kind::Number {
                min: 0,
                max: LEEWAY_MS.1,
            },
        ),
        "\"30s\"",
        "Time by which clocks may differ.",
    ),
    of_kind(
        ("require", Kind::Texts),
        "[\"exp\", \"sub\"]",
        "Claims that must be there, of exp, sub, iat, nbf and jti.",
    ),
    text(
        "claims_at",
        "",
        "Name of the claim below which rights stand. Without it \"umbel\".",
    ),
    of_kind(
        (
            "token_bytes_max",
            Kind::Number {
                min: JWT_BYTES.1,
                max: JWT_BYTES.2,
            },
        ),
        "\"8KiB\"",
        "Bytes of a token.",
    ),
    text(
        "subject_prefix",
        "\"\"",
        "Text before its subjects. Needed where another source names subjects too; \"\" where they are the same users.",
    ),
    of_kind(
        (
            "life_max_ms",
            Kind::Number {
                min: 0,
                max: LIFE_MS_MAX,
            },
        ),
        "0",
        "Time that a token may live, from iat to exp; 0 is any.",
    ),
    of_kind(
        ("may_manage", Kind::Bool),
        "false",
        "Whether tokens may give manage and observe.",
    ),
    of_kind(
        ("may_outlive", Kind::Bool),
        "false",
        "Whether a connection may outlive its token, by connection_expires_at.",
    ),
];
