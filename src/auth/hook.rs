//! Questions to the application's hook, and what its answers mean.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::access::{Action, Denied};
use super::identity::{Identity, IdentityParts, Source};
use super::jwt::rights_claims::UmbelClaims;
use super::verdict::{Decision, Pending};
use crate::config::HookEvent;
use crate::topic::Pattern;

/// Bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Bytes of the reason of a refusal that the peer is told. It fits a Close.
const REASON_BYTES_MAX: usize = 123;

/// Latest second that is taken for a time: the end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

/// Question to the application, as its JSON has it. `id` and `node` are filled in when it is sent.
#[derive(Debug, Serialize)]
pub struct Question {
    /// Version of this form.
    pub version: u8,
    /// Name of the event.
    pub event: &'static str,
    /// Name of the question: no other has it.
    pub id: String,
    /// Name of the machine.
    pub node: String,
    /// Name of the connection.
    pub connection: String,
    /// Address of the peer. None: it has none.
    pub peer: Option<IpAddr>,
    /// Whether the connection to the peer is encrypted here.
    pub tls: bool,
    /// Path of the request, as it was sent.
    pub path: String,
    /// Dialect of the connection.
    pub dialect: &'static str,
    /// `Origin` of the request.
    pub origin: Option<String>,
    /// Headers that the settings hand on.
    pub headers: BTreeMap<String, String>,
    /// Parameters of the query, without tokens.
    pub query: BTreeMap<String, String>,
    /// Token that the peer shows, if the server does not know it.
    pub token: Option<String>,
    /// Subject of the connection.
    pub subject: Option<String>,
    /// Meta of the connection.
    pub meta: Option<Box<RawValue>>,
    /// Topic that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Pattern that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

impl Question {
    /// A question about a connection of which nothing is known yet.
    pub fn new(event: HookEvent, connection: String) -> Question {
        Question {
            version: 1,
            event: event.name(),
            id: String::new(),
            node: String::new(),
            connection,
            peer: None,
            tls: false,
            path: String::new(),
            dialect: "",
            origin: None,
            headers: BTreeMap::new(),
            query: BTreeMap::new(),
            token: None,
            subject: None,
            meta: None,
            topic: None,
            pattern: None,
        }
    }
}

/// The application, asked without waiting.
pub trait Hook: Send + Sync {
    /// Whether it is asked about an event.
    fn has(&self, event: HookEvent) -> bool;

    /// Headers of the peer's request that are handed on, in lower case.
    fn headers(&self) -> &[String];

    /// Patterns of topics that it is asked about.
    fn topics(&self) -> &[Pattern];

    /// Asks. The answer comes by the [`Pending`], from another thread.
    fn ask(&self, event: HookEvent, question: Question) -> Pending;
}

/// Whether the hook is asked about this action.
pub fn is_about(hook: &dyn Hook, action: Action<'_>) -> bool {
    let topics = hook.topics();
    match action {
        _ if !hook.has(HookEvent::Subscribe) => false,
        Action::Subscribe(topic) => topics.iter().any(|it| it.matches_name(topic)),
        // Else a pattern as wide as `**` would walk past it.
        Action::SubscribePattern(pattern) => match Pattern::parse(pattern) {
            Ok(wanted) => topics.iter().any(|it| it.meets(&wanted)),
            Err(_) => true,
        },
        _ => false,
    }
}

/// Rules by which answers are read.
#[derive(Clone, Debug, Default)]
pub struct AnswerRules {
    /// Text before the subjects.
    pub subject_prefix: Box<str>,
    /// Whether an answer may give the rights to manage and to observe.
    pub may_manage: bool,
}

/// Result of a question, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookResult {
    /// It was allowed.
    Allowed,
    /// It was refused.
    Denied,
    /// The application said that it cannot decide now.
    Unavailable,
    /// There was an answer that means nothing.
    Invalid,
    /// There was no answer in time.
    TimedOut,
    /// There was no answer.
    Failed,
    /// It was not asked, for it does not answer others.
    Open,
    /// It was not asked, for too many wait.
    Full,
}

impl HookResult {
    /// All results, in order.
    pub const ALL: [HookResult; 8] = [
        HookResult::Allowed,
        HookResult::Denied,
        HookResult::Unavailable,
        HookResult::Invalid,
        HookResult::TimedOut,
        HookResult::Failed,
        HookResult::Open,
        HookResult::Full,
    ];

    /// Label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            HookResult::Allowed => "allowed",
            HookResult::Denied => "denied",
            HookResult::Unavailable => "unavailable",
            HookResult::Invalid => "invalid",
            HookResult::TimedOut => "timeout",
            HookResult::Failed => "failed",
            HookResult::Open => "open",
            HookResult::Full => "full",
        }
    }

    /// Whether the application does not do what it is there for.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            HookResult::Invalid | HookResult::TimedOut | HookResult::Failed
        )
    }
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
        HookEvent::Connect => Decision::Caller(Err(denied)),
        HookEvent::Subscribe => Decision::Access(Err(denied)),
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
        401 if event == HookEvent::Connect => {
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
        HookEvent::Connect => Decision::Caller(Ok(None)),
        HookEvent::Subscribe => Decision::Access(Ok(())),
    }
}

fn read_allowed(event: HookEvent, body: &[u8], rules: &AnswerRules) -> Result<Decision, String> {
    let text = std::str::from_utf8(body).map_err(|_| "it is not UTF-8".to_owned())?;
    match event {
        HookEvent::Connect => {
            let identity = read_identity(text, rules)?;
            Ok(Decision::Caller(Ok(Some(identity))))
        }
        HookEvent::Subscribe => {
            let Nothing {} = serde_json::from_str(text).map_err(|error| error.to_string())?;
            Ok(Decision::Access(Ok(())))
        }
    }
}

/// An object without members. One with any other might mean to restrict what is allowed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

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
                Decision::Access(outcome) => outcome,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(subscribe(204, ""), Ok(()));
        assert_eq!(subscribe(200, "{}"), Ok(()));
        for status in [401, 403] {
            assert!(matches!(subscribe(status, ""), Err(Denied::Forbidden(_))));
        }
        for (status, body) in [(200, "{\"x\":1}"), (200, ""), (500, "{}"), (302, "{}")] {
            let outcome = subscribe(status, body);
            assert!(
                matches!(outcome, Err(Denied::UnavailableFor { .. })),
                "{status}"
            );
        }
    }
}
