//! Answers of the hook: what each means.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::HookResult;
use crate::auth::access::Denied;
use crate::auth::identity::{INFO_BYTES_MAX, Identity, IdentityParts, Source};
use crate::auth::jwt::json::{handed_on, object, present};
use crate::auth::jwt::rights_claims::UmbelClaims;
use crate::auth::verdict::{Decision, Edit, Terms};
use crate::config::HookEvent;
use crate::hub::Kind;

/// Bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Bytes of the reason of a refusal that the peer is told. It fits a Close.
const REASON_BYTES_MAX: usize = 123;

/// Latest second that is taken for a time: the end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

/// Rules by which answers are read.
#[derive(Clone, Debug, Default)]
pub struct AnswerRules {
    /// Text before the subjects.
    pub subject_prefix: Box<str>,
    /// Whether an answer may give the rights to manage and to observe.
    pub may_manage: bool,
}

/// Decision where there is no answer: it is refused for now. `retry_after_s`: each another, so that they do not come
/// together.
pub fn no_answer(event: HookEvent, retry_after_s: u32) -> Decision {
    let denied = Denied::UnavailableFor {
        reason: "the application that decides did not answer; try again".into(),
        retry_after_s,
    };
    refused(event, denied)
}

fn refused(event: HookEvent, denied: Denied) -> Decision {
    match event {
        HookEvent::Connect | HookEvent::Refresh => Decision::Caller(Err(denied)),
        HookEvent::Subscribe | HookEvent::Disconnected => Decision::Access(Err(denied)),
        HookEvent::Publish => Decision::Publication(Err(denied)),
    }
}

/// Decision that an answer means. `retry_after` is its header.
pub fn read_answer(
    event: HookEvent,
    (status, retry_after, body): (u16, Option<&str>, &[u8]),
    rules: &AnswerRules,
    retry_after_s: u32,
) -> (Decision, HookResult) {
    let seconds = || {
        let said = retry_after.and_then(|text| text.trim().parse().ok());
        said.unwrap_or(1)
    };
    let denied = match status {
        204 => return (allowed(event), HookResult::Allowed),
        200 => {
            return match read_allowed(event, body, rules) {
                Ok(decision) => (decision, HookResult::Allowed),
                Err(problem) => {
                    log::error!("the hook's answer to {event} is refused: {problem}");
                    (no_answer(event, retry_after_s), HookResult::Invalid)
                }
            };
        }
        401 if matches!(event, HookEvent::Connect | HookEvent::Refresh) => {
            Denied::Unauthenticated(reason(body, "log in first").into())
        }
        401 | 403 => Denied::Forbidden(reason(body, "the application does not allow it").into()),
        429 => Denied::TooMany {
            reason: reason(body, "too many requests").into(),
            retry_after_s: seconds(),
        },
        503 => {
            let denied = Denied::UnavailableFor {
                reason: reason(body, "the application that decides is not available").into(),
                retry_after_s: seconds(),
            };
            return (refused(event, denied), HookResult::Unavailable);
        }
        _ => {
            log::error!("the hook answered {event} with status {status}");
            return (no_answer(event, retry_after_s), HookResult::Invalid);
        }
    };
    let result = match status {
        429 => HookResult::Unavailable,
        _ => HookResult::Denied,
    };
    (refused(event, denied), result)
}

fn allowed(event: HookEvent) -> Decision {
    match event {
        HookEvent::Connect | HookEvent::Refresh => Decision::Caller(Ok(None)),
        HookEvent::Subscribe => Decision::Subscription(Terms::default()),
        HookEvent::Publish => Decision::Publication(Ok(Edit::None)),
        HookEvent::Disconnected => Decision::Access(Ok(())),
    }
}

fn read_allowed(event: HookEvent, body: &[u8], rules: &AnswerRules) -> Result<Decision, String> {
    let text = std::str::from_utf8(body).map_err(|_| "it is not UTF-8".to_owned())?;
    match event {
        HookEvent::Connect | HookEvent::Refresh => {
            let identity = read_identity(text, rules)?;
            Ok(Decision::Caller(Ok(Some(identity))))
        }
        HookEvent::Subscribe => Ok(Decision::Subscription(read_terms(text)?)),
        HookEvent::Publish => Ok(Decision::Publication(Ok(read_edit(text)?))),
        // It is told, and whatever it says to that is heard.
        HookEvent::Disconnected => Ok(Decision::Access(Ok(()))),
    }
}

/// Answer to a subscription. A member that is none of these might mean to restrict what is allowed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsMembers {
    #[serde(default, deserialize_with = "present")]
    expires_at: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    info: Option<Box<RawValue>>,
}

fn read_terms(text: &str) -> Result<Terms, String> {
    let members: Option<TermsMembers> = read_object(text)?;
    let TermsMembers { expires_at, info } = members.ok_or("it is no object")?;
    if expires_at.is_some_and(|seconds| seconds > SECONDS_MAX) {
        return Err("expires_at is behind the year 9999: it is in seconds".to_owned());
    }
    let info = info.map(|info| handed_on(&info, INFO_BYTES_MAX));
    let info = info.transpose().map_err(|why| format!("info: {why}"))?;
    Ok(Terms {
        expires_at_ms: expires_at.map(|seconds| seconds * 1000),
        info: info.flatten().map(|info| info.get().into()),
    })
}

/// Answer to a publish.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EditMembers {
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    base64: Option<String>,
    #[serde(default)]
    skip: bool,
}

fn read_edit(text: &str) -> Result<Edit, String> {
    let members: Option<EditMembers> = read_object(text)?;
    let members = members.ok_or("it is no object")?;
    match (members.data, members.base64, members.skip) {
        (None, None, true) => Ok(Edit::Skip),
        (None, None, false) => Ok(Edit::None),
        (Some(data), None, false) => {
            let is_json = !data.get().starts_with('"');
            let payload = match is_json {
                false => serde_json::from_str::<String>(data.get())
                    .map_err(|error| format!("data is no text: {error}"))?,
                true => {
                    // One that other readers refuse, as nested too deep, is not sent on to them.
                    serde_json::from_str::<serde_json::Value>(data.get())
                        .map_err(|error| format!("data is no JSON: {error}"))?;
                    data.get().to_owned()
                }
            };
            Ok(Edit::Replace {
                kind: Kind::Text,
                is_json,
                payload: payload.into_bytes().into(),
            })
        }
        (None, Some(base64), false) => {
            let payload = BASE64_STANDARD.decode(base64);
            let payload = payload.map_err(|error| format!("base64 does not decode: {error}"))?;
            Ok(Edit::Replace {
                kind: Kind::Binary,
                is_json: false,
                payload: payload.into(),
            })
        }
        _ => Err("it has more than one of data, base64 and skip".to_owned()),
    }
}

/// Reads a derived struct from an object alone.
fn read_object<'t, T: Deserialize<'t>>(text: &'t str) -> Result<Option<T>, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = object(&mut deserializer).and_then(|read| deserializer.end().map(|()| read));
    read.map_err(|error| error.to_string())
}

/// Reason of a refusal, if the answer has one.
fn reason(body: &[u8], otherwise: &str) -> String {
    #[derive(Deserialize)]
    struct Refused {
        reason: String,
    }
    let said = serde_json::from_slice::<Refused>(body).map(|it| it.reason);
    let said = said.ok().filter(|text| !text.is_empty());
    let text = said.as_deref().unwrap_or(otherwise);
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end]
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

/// Members of an answer that are no claims.
const OWN_MEMBERS: [&str; 2] = ["subject", "expires_at"];

fn read_identity(text: &str, rules: &AnswerRules) -> Result<Arc<Identity>, String> {
    let members: Members<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut own: BTreeMap<&str, &RawValue> = BTreeMap::new();
    let mut claims = String::from("{");
    for (name, value) in &members.0 {
        if OWN_MEMBERS.contains(&&**name) {
            if own.insert(name, value).is_some() {
                return Err(format!("{name} stands twice"));
            }
            continue;
        }
        if claims.len() > 1 {
            claims.push(',');
        }
        let name = serde_json::to_string(name).map_err(|error| error.to_string())?;
        claims.push_str(&name);
        claims.push(':');
        claims.push_str(value.get());
    }
    claims.push('}');
    let claims: UmbelClaims = serde_json::from_str(&claims).map_err(|error| error.to_string())?;
    if claims.connection_expires_at.is_some() {
        return Err("connection_expires_at is for tokens: say expires_at".to_owned());
    }
    let rights = claims.rights(rules.may_manage)?;
    let subject: Option<String> = match own.get("subject") {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| "subject is no text")?,
        None => None,
    };
    let expires_at: Option<u64> = match own.get("expires_at") {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| "expires_at is no time")?,
        None => None,
    };
    if expires_at.is_some_and(|seconds| seconds > SECONDS_MAX) {
        return Err("expires_at is behind the year 9999: it is in seconds".to_owned());
    }
    if subject.as_deref() == Some("") {
        return Err("subject is empty; leave it out for nobody in particular".to_owned());
    }
    let prefixed = subject.map(|subject| format!("{}{subject}", rules.subject_prefix));
    let parts = IdentityParts {
        subject: prefixed.map(Into::into),
        expires_at_ms: expires_at.map(|seconds| seconds * 1000),
        rights,
        roles: claims.roles,
        join: claims.join,
        limits: claims.limits,
        info: claims.info,
        meta: claims.meta,
        ..IdentityParts::of(Source::Hook)
    };
    Identity::new(parts).map_err(|problem| problem.to_string())
}

/// Members of an object, in their order and with those that stand twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Visitor).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(status: u16, retry_after: Option<&str>, body: &str) -> (Decision, HookResult) {
        let rules = AnswerRules {
            subject_prefix: "h:".into(),
            may_manage: false,
        };
        let answer = (status, retry_after, body.as_bytes());
        read_answer(HookEvent::Connect, answer, &rules, 3)
    }

    fn identity(body: &str) -> Option<Arc<Identity>> {
        match connect(200, None, body) {
            (Decision::Caller(Ok(identity)), HookResult::Allowed) => identity,
            (Decision::Caller(Err(denied)), HookResult::Invalid) => {
                let late = matches!(
                    denied,
                    Denied::UnavailableFor {
                        retry_after_s: 3,
                        ..
                    }
                );
                assert!(late, "{denied:?}");
                None
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn identity_of_an_answer() {
        let body = r#"{"subject":"42","expires_at":1800003600,"info":{"a":1},"meta":{"b":2},"subscribe":["news/**"],"roles":["trader"]}"#;
        let identity = identity(body).expect("an identity");
        assert_eq!(identity.subject(), Some("h:42"));
        assert_eq!(identity.expires_at_ms(), Some(1_800_003_600_000));
        assert_eq!(identity.info(), Some(r#"{"a":1}"#));
        assert_eq!(identity.meta(), Some(r#"{"b":2}"#));
        assert!(identity.has_role("trader"));
        assert_eq!(identity.source(), &Source::Hook);
        let nobody = super::tests::identity("{}").expect("an identity");
        assert_eq!((nobody.subject(), nobody.expires_at_ms()), (None, None));
    }

    #[test]
    fn answers_that_mean_nothing_let_nobody_in() {
        for body in [
            "",
            "no",
            "[]",
            "null",
            "{\"subject\":5}",
            "{\"subject\":\"\"}",
            "{\"subject\":\"a\\nb\"}",
            "{\"subject\":\"a\",\"subject\":\"b\"}",
            "{\"subscribe\":[\"a\"],\"subscribe\":[\"**\"]}",
            "{\"subscribe\":\"**\"}",
            "{\"subscribe\":[\"a/**/b\"]}",
            "{\"subscribe\":[\"a\"],\"denny\":{}}",
            "{\"expires_at\":\"soon\"}",
            "{\"expires_at\":-1}",
            "{\"expires_at\":1800003600000}",
            "{\"manage\":[\"**\"]}",
            "{\"observe\":true}",
            "{\"join\":[\"*\"]}",
            "{} {}",
        ] {
            assert!(identity(body).is_none(), "{body}");
        }
        for status in [100, 201, 301, 302, 307, 400, 404, 500, 502, 504] {
            let (decision, result) = connect(status, None, "{}");
            assert!(matches!(decision, Decision::Caller(Err(_))), "{status}");
            assert_eq!(result, HookResult::Invalid, "{status}");
        }
    }

    #[test]
    fn statuses_are_passed_on() {
        let denied = |status, retry_after, body| match connect(status, retry_after, body) {
            (Decision::Caller(Err(denied)), _) => denied,
            other => panic!("{other:?}"),
        };
        assert!(matches!(
            connect(204, None, "").0,
            Decision::Caller(Ok(None))
        ));
        let told = denied(401, None, "{\"reason\":\"who\\nare you\"}");
        assert_eq!(told, Denied::Unauthenticated("who are you".into()));
        let told = denied(403, None, "not JSON");
        assert!(matches!(told, Denied::Forbidden(_)));
        let long = format!("{{\"reason\":\"{}\"}}", "ü".repeat(100));
        match denied(403, None, &long) {
            Denied::Forbidden(reason) => assert_eq!(reason.len(), 122),
            other => panic!("{other:?}"),
        }
        for (status, header, seconds) in [(429, Some("7"), 7), (503, None, 1), (503, Some("x"), 1)]
        {
            match denied(status, header, "{}") {
                Denied::TooMany { retry_after_s, .. }
                | Denied::UnavailableFor { retry_after_s, .. } => {
                    assert_eq!(retry_after_s, seconds);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn subscriptions_are_allowed_or_forbidden() {
        let subscribe = |status: u16, body: &str| {
            let answer = (status, None, body.as_bytes());
            let rules = AnswerRules::default();
            match read_answer(HookEvent::Subscribe, answer, &rules, 1).0 {
                Decision::Access(Err(denied)) => Err(denied),
                Decision::Subscription(terms) => Ok(terms),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(subscribe(204, ""), Ok(Terms::default()));
        assert_eq!(subscribe(200, "{}"), Ok(Terms::default()));
        let terms = subscribe(200, r#"{"expires_at":1800003600,"info":{"a":1}}"#);
        let expected = Terms {
            expires_at_ms: Some(1_800_003_600_000),
            info: Some(r#"{"a":1}"#.into()),
        };
        assert_eq!(terms, Ok(expected));
        let long = format!("{{\"info\":\"{}\"}}", "x".repeat(1023));
        for status in [401, 403] {
            assert!(matches!(subscribe(status, ""), Err(Denied::Forbidden(_))));
        }
        for (status, body) in [
            (200, "{\"x\":1}"),
            (200, "{\"expires_at\":null}"),
            (200, "{\"expires_at\":1800003600000}"),
            (200, &long),
            (200, "[null,null]"),
            (200, "{}{}"),
            (200, ""),
            (500, "{}"),
            (302, "{}"),
        ] {
            let outcome = subscribe(status, body);
            assert!(
                matches!(outcome, Err(Denied::UnavailableFor { .. })),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn publications_are_allowed_changed_skipped_or_forbidden() {
        let publish = |status: u16, body: &str| {
            let answer = (status, None, body.as_bytes());
            match read_answer(HookEvent::Publish, answer, &AnswerRules::default(), 1).0 {
                Decision::Publication(outcome) => outcome,
                other => panic!("{other:?}"),
            }
        };
        let replaced = |kind, is_json, payload: &[u8]| {
            Ok(Edit::Replace {
                kind,
                is_json,
                payload: payload.into(),
            })
        };
        for (body, edit) in [
            ("{}", Ok(Edit::None)),
            ("{\"skip\":true}", Ok(Edit::Skip)),
            ("{\"skip\":false}", Ok(Edit::None)),
            ("{\"data\":\"a\\nb\"}", replaced(Kind::Text, false, b"a\nb")),
            (
                "{\"data\":{\"a\":1}}",
                replaced(Kind::Text, true, b"{\"a\":1}"),
            ),
            ("{\"data\":null}", replaced(Kind::Text, true, b"null")),
            (
                "{\"base64\":\"AAE=\"}",
                replaced(Kind::Binary, false, b"\0\x01"),
            ),
        ] {
            assert_eq!(publish(200, body), edit, "{body}");
        }
        assert_eq!(publish(204, ""), Ok(Edit::None));
        for status in [401, 403] {
            assert!(matches!(publish(status, ""), Err(Denied::Forbidden(_))));
        }
        let deep = format!("{{\"data\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for body in [
            "",
            "[]",
            "{\"skip\":1}",
            "{\"skip\":true,\"data\":\"a\"}",
            "{\"data\":1,\"base64\":\"\"}",
            "{\"data\":1,\"data\":2}",
            "{\"base64\":null}",
            "{\"base64\":\"?\"}",
            "{\"topic\":\"other\"}",
            &deep,
        ] {
            let outcome = publish(200, body);
            assert!(
                matches!(outcome, Err(Denied::UnavailableFor { .. })),
                "{body}"
            );
        }
    }
}
