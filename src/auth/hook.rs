//! Questions to the application's hook.

pub mod answer;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::access::Action;
use super::identity::Identity;
use super::verdict::Pending;
use crate::config::HookEvent;
use crate::hub::Kind;
use crate::topic::Pattern;

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
    /// Position behind which a subscription begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Message that is to be published.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
}

/// Message about which the application is asked.
#[derive(Debug, Serialize)]
pub struct Message {
    /// Conflation key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `text` or `binary`.
    pub kind: &'static str,
    /// The message, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The message in base64, if it is binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

impl Message {
    /// A message as it was sent.
    pub fn new(kind: Kind, payload: &[u8], key: Option<&str>) -> Message {
        let text = match kind {
            Kind::Text => std::str::from_utf8(payload).ok(),
            Kind::Binary => None,
        };
        Message {
            key: key.map(str::to_owned),
            kind: match text {
                Some(_) => "text",
                None => "binary",
            },
            data: text.map(str::to_owned),
            base64: text.is_none().then(|| BASE64_STANDARD.encode(payload)),
        }
    }

    /// Bytes of the message as it is kept here.
    pub fn bytes(&self) -> usize {
        let texts = [&self.data, &self.base64].into_iter().flatten();
        texts.map(String::len).sum()
    }
}

/// End of a connection, of which the application is told.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Name of the connection.
    pub connection: String,
    /// Its identity.
    pub identity: Option<Arc<Identity>>,
    /// Address of its peer, where that is known still.
    pub peer: Option<IpAddr>,
    /// Code of its Close.
    pub code: u16,
    /// Reason of its end, by its label in metrics.
    pub reason: &'static str,
    /// When, in milliseconds of the Unix epoch.
    pub at_ms: u64,
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
            since: None,
            message: None,
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

    /// Tells of the end of a connection, as well as it can.
    fn tell(&self, ended: Ended);
}

/// Whether the hook is asked about this action. About a publish it is asked with the message.
pub fn is_about(hook: &dyn Hook, action: Action<'_>) -> bool {
    let topics = hook.topics();
    let has_topic = |topic| topics.iter().any(|it| it.matches_name(topic));
    match action {
        // Who is there, and what was published, follow the subscription.
        Action::Subscribe(topic) | Action::Presence(topic) | Action::History(topic) => {
            hook.has(HookEvent::Subscribe) && has_topic(topic)
        }
        // Else a pattern as wide as `**` would walk past it.
        Action::SubscribePattern(pattern) => {
            hook.has(HookEvent::Subscribe)
                && match Pattern::parse(pattern) {
                    Ok(wanted) => topics.iter().any(|it| it.meets(&wanted)),
                    Err(_) => true,
                }
        }
        Action::Publish(topic) => hook.has(HookEvent::Publish) && has_topic(topic),
        // Each of its lines is asked about in turn.
        Action::PublishMany => hook.has(HookEvent::Publish),
        _ => false,
    }
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
