//! Control of connections: which there are, their subscriptions, and messages to them alone.

use std::fmt;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::{Handle, QueryError};
use crate::config::{Access, Config, Limits};
use crate::connection::Message;
use crate::dialect::Target;
use crate::handler::PeerError;
use crate::hub::Kind;
use crate::shared::jobs::{ConnectionInfo, Cursor, Filter, Job, Notice, Selector, Task};
use crate::topic::{Pattern, Topic};

/// A page of connections, as [`Handle::connections`] gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionPage {
    /// Connections, in no order.
    pub connections: Vec<ConnectionInfo>,
    /// Cursor of the next page, as long as there is more. A page may be short, or empty, and yet have one.
    pub next: Option<Cursor>,
}

/// Reason that a change was not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlError {
    /// What was given is no topic or pattern; the text says why.
    Invalid(String),
    /// It could not be handed to the server's threads.
    Peer(PeerError),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::Invalid(reason) => f.write_str(reason),
            ControlError::Peer(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ControlError {}

impl From<PeerError> for ControlError {
    fn from(error: PeerError) -> ControlError {
        ControlError::Peer(error)
    }
}

/// Settings as JSON, with secrets as `set`. Besides: the number of the reload that brought them, and when that was, in
/// seconds since 1970. `of_files`: each setting with its source, where they come from a command line and a file.
pub(super) fn config_text(
    config: &Config,
    (generation, taken_at): (u64, u64),
    of_files: Option<&str>,
) -> String {
    let mut settings = serde_json::Map::new();
    let access = |access: &Option<Access>| match access {
        None => "not set".to_owned(),
        Some(Access::Token(_)) => "token (set)".to_owned(),
        Some(access) => access.to_string(),
    };
    let mut put = |name: &str, value: serde_json::Value| settings.insert(name.to_owned(), value);
    let listeners = config.listeners.iter().map(ToString::to_string);
    put("generation", generation.into());
    put("taken_at", taken_at.into());
    put("listen", listeners.collect());
    put("reactors", config.reactors.into());
    put("workers", config.workers.into());
    put("publish", access(&config.publish).into());
    put("subscribe", access(&config.subscribe).into());
    put("observe", access(&config.observe).into());
    let names = config.tokens.iter().map(|token| token.name.as_str());
    let tokens = names.map(|name| serde_json::json!({"name": name, "value": "set"}));
    put("token", tokens.collect());
    put("deflate", config.deflate.to_string().into());
    let rules = config.topic_rules.iter().map(ToString::to_string);
    put("topic_rules", rules.collect());
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|it| it.display().to_string());
    put("state_directory", path(&config.state_directory).into());
    put("deny_file", path(&config.deny_file).into());
    let limits = Limits::ALL.iter();
    let limits = limits.map(|info| (info.name.to_owned(), config.limits.get(info.name).into()));
    put("limits", serde_json::Value::Object(limits.collect()));
    if let Some(Ok(of_files)) = of_files.map(serde_json::from_str) {
        put("settings", of_files);
    }
    serde_json::Value::Object(settings).to_string()
}

impl Handle {
    /// Lists connections that pass a filter: so many at most, from a cursor on, or from the beginning. A connection that is
    /// there from the first page to the last is listed once. Waits for the answer, at most for `timeout`. Not for hooks and
    /// handlers: the thread that they run on is asked too.
    ///
    /// ```
    /// use std::time::Duration;
    /// use umbel::{Filter, Server};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder().listen(([127, 0, 0, 1], 0).into()).bind()?.spawn()?;
    /// let (mut cursor, mut count) = (None, 0);
    /// loop {
    ///     let page = server.handle().connections(
    ///         &Filter::default(), cursor, 100, Duration::from_secs(1),
    ///     )?;
    ///     count += page.connections.len();
    ///     cursor = page.next;
    ///     if cursor.is_none() {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(count, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When too much is asked of a reactor, or it does not answer in time; when the server has ended.
    pub fn connections(
        &self,
        filter: &Filter,
        cursor: Option<Cursor>,
        connections_max: usize,
        timeout: Duration,
    ) -> Result<ConnectionPage, QueryError> {
        let (told, outcome) = bounded(1);
        let task = Task::List(filter.clone(), connections_max.max(1));
        let job = Job::new(task, move |outcome| {
            // It fails only if nobody waits any more.
            let _ = told.try_send(outcome);
        });
        if self.is_closed() {
            return Err(QueryError::Closed);
        }
        self.shared.send_job(job.from(cursor.unwrap_or_default()));
        match outcome.recv_timeout(timeout) {
            Ok(Some(outcome)) => Ok(ConnectionPage {
                connections: outcome.rows,
                next: outcome.next,
            }),
            Ok(None) if self.is_closed() => Err(QueryError::Closed),
            Ok(None) => Err(QueryError::Full),
            Err(_) => Err(QueryError::Timeout),
        }
    }

    /// Ends a subscription of all connections of a selector. It is to a topic, or by a pattern. A connection of umbel.v1 is told
    /// `forbidden`; one that lives by the topic is closed with 4403. Never waits.
    ///
    /// # Errors
    /// When the name is no topic and no pattern; or it cannot be begun.
    pub fn unsubscribe(
        &self,
        selector: impl Into<Selector>,
        topic_or_pattern: &str,
    ) -> Result<(), ControlError> {
        let target = match Topic::from_text(topic_or_pattern) {
            Ok(topic) if !topic_or_pattern.contains('*') => Target::Topic(topic),
            Ok(_) => Target::Pattern(
                Pattern::parse(topic_or_pattern)
                    .map_err(|error| ControlError::Invalid(error.to_string()))?,
            ),
            Err(refusal) => return Err(ControlError::Invalid(refusal.reason.into_owned())),
        };
        let notice = Notice {
            code: "forbidden".to_owned(),
            reason: None,
        };
        Ok(self.begin(Task::Unsubscribe(selector.into(), target, notice))?)
    }

    /// Sends a message to all subscribers among the connections of a selector: to these only, without a topic and a
    /// position. On umbel.v1 it has the type `message`. Never waits.
    ///
    /// # Errors
    /// When it cannot be begun.
    pub fn send(
        &self,
        selector: impl Into<Selector>,
        message: Message<'_>,
    ) -> Result<(), PeerError> {
        let kind: Kind = message.kind();
        self.begin(Task::Send(selector.into(), kind, message.payload().into()))
    }

    /// Begins a job whose outcome nobody waits for.
    pub(super) fn begin(&self, task: Task) -> Result<(), PeerError> {
        if self.is_closed() {
            return Err(PeerError::Closed);
        }
        match self.shared.send_job(Job::new(task, |_| {})) {
            true => Ok(()),
            false => Err(PeerError::Busy),
        }
    }
}
