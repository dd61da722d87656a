//! Questions about topics: which there are, what was published, and who is present.

use std::fmt;
use std::time::{Duration, Instant};

use super::Handle;
use super::inside::ReceivedPublication;
use crate::handler::ConnectionId;
use crate::hub::{Listed, Position, Start};
use crate::inside::{self, Refused, Reply};
use crate::topic::Topic;

/// Topics that one step asks a shard for.
const TOPICS_PER_STEP_MAX: usize = 1000;

/// Reason that a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryError {
    /// What was given is no topic; the text says why.
    InvalidTopic(String),
    /// The answer did not come in time. Some threads of the server are very busy, or the question is asked on one of them.
    Timeout,
    /// More is being asked of the hub than it takes; try again a little later.
    Full,
    /// The server has ended.
    Closed,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QueryError::InvalidTopic(reason) => reason,
            QueryError::Timeout => "the answer did not come in time",
            QueryError::Full => "more is being asked of the hub than it takes; try again",
            QueryError::Closed => "the server has ended",
        })
    }
}

impl std::error::Error for QueryError {}

/// One topic, as [`Handle::topics`] tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Its name, in canonical form.
    pub topic: String,
    /// Position of its newest publication; offset 0: there was none.
    pub position: Position,
    /// Subscriptions to it, those of the program too. Those by patterns are not among them.
    pub subscribers: u64,
    /// Publications in its history, and their bytes. None: its rule gives it none.
    pub history: Option<(usize, usize)>,
    /// Number of those present. None: its rule has no presence.
    pub present: Option<u32>,
}

impl From<Listed> for TopicInfo {
    fn from(listed: Listed) -> TopicInfo {
        TopicInfo {
            topic: listed.topic.as_str().to_owned(),
            position: listed.position,
            subscribers: listed.subscribers,
            history: listed.history.map(|size| (size.publications, size.bytes)),
            present: listed.present,
        }
    }
}

/// Those present on a topic, as [`Handle::presence`] tells of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// Members, of whom others are told.
    pub members: Vec<PresentMember>,
    /// Number of all that are present, those beyond `presence_members_max` too.
    pub total: u32,
}

/// A connection that is present on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresentMember {
    /// The connection.
    pub connection: ConnectionId,
    /// JSON that it gave of itself.
    pub info: Option<String>,
    /// Subject of its identity, or its hash, as the topic's rule says.
    pub subject: Option<String>,
    /// JSON that its credential vouches for.
    pub verified: Option<String>,
}

/// Part of a topic's history, as [`Handle::history`] gives it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct History {
    /// Position of the topic's newest publication; offset 0: there was none. None: nobody knows the topic.
    pub position: Option<Position>,
    /// Whether `publications` begins right behind the position that was asked for. None: none was asked for.
    pub recovered: Option<bool>,
    /// Publications, the oldest first.
    pub publications: Vec<ReceivedPublication>,
    /// More publications follow.
    pub has_more: bool,
}

/// Start of a part of a topic's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryStart {
    /// Behind this position.
    Since(Position),
    /// With the last so many publications, or as many as there are.
    Last(u32),
}

impl Handle {
    /// Lists topics that have subscribers, members or a history, in no order: so many at most. Waits for the answer, at most
    /// for `timeout`. Not for hooks and handlers: the thread that they run on is asked too.
    ///
    /// # Errors
    /// When the hub takes no question, or does not answer in time; when the server has ended.
    pub fn topics(
        &self,
        topics_max: usize,
        timeout: Duration,
    ) -> Result<Vec<TopicInfo>, QueryError> {
        let until = Instant::now().checked_add(timeout);
        let mut topics = Vec::new();
        for shard in 0..self.shared.shards.shard_count() {
            let mut first = Some(0);
            while let Some(place) = first.take() {
                let wanted = (topics_max - topics.len()).min(TOPICS_PER_STEP_MAX) as u32;
                if wanted == 0 {
                    return Ok(topics);
                }
                let list = |number| inside::list(shard, place, wanted, number);
                let Reply::Listing(listing) = self.ask(list, until)? else {
                    return Err(QueryError::Timeout);
                };
                first = listing.next;
                let used = listing.topics.into_iter().filter(|it| !it.is_unused());
                topics.extend(used.map(TopicInfo::from));
            }
        }
        Ok(topics)
    }

    /// Tells who is present on a topic; nobody where its rule has no presence. Waits for the answer, at most for `timeout`.
    ///
    /// # Errors
    /// When the topic cannot stand, or as of [`topics`](Handle::topics).
    pub fn presence(&self, topic: &str, timeout: Duration) -> Result<Presence, QueryError> {
        let topic = Topic::from_text(topic)
            .map_err(|refusal| QueryError::InvalidTopic(refusal.reason.into_owned()))?;
        let present = |number| inside::present(topic, number);
        match self.ask(present, Instant::now().checked_add(timeout))? {
            Reply::Present(members, total) => Ok(Presence {
                members: members
                    .iter()
                    .map(|member| PresentMember {
                        connection: ConnectionId::from_bits(member.reactor.0, member.connection),
                        info: member.info.as_deref().map(str::to_owned),
                        subject: member
                            .identity
                            .as_ref()
                            .and_then(|it| it.subject.as_deref())
                            .map(str::to_owned),
                        verified: member
                            .identity
                            .as_ref()
                            .and_then(|it| it.info.as_deref())
                            .map(str::to_owned),
                    })
                    .collect(),
                total,
            }),
            Reply::Listing(_) | Reply::Page(_) => Err(QueryError::Timeout),
        }
    }

    /// Reads a part of a topic's history: the publications behind a position ([`since`](HistoryStart::Since)), or the last so
    /// many ([`last`](HistoryStart::Last)), at most `publications_max` and what the limits of a recovery allow. Where
    /// [`has_more`](History::has_more) is set, the next part begins behind the last one's position. Waits for the answer, at
    /// most for `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use umbel::{HistoryStart, Message, Server};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder()
    ///     .listen(([127, 0, 0, 1], 0).into())
    ///     .topic_rule("log/** history=100 presence=on".parse()?)
    ///     .bind()?
    ///     .spawn()?;
    /// let (handle, timeout) = (server.handle(), Duration::from_secs(1));
    /// for line in ["one", "two", "three"] {
    ///     handle.publish("log/a", Message::Text(line))?;
    /// }
    /// let history = handle.history("log/a", HistoryStart::Last(2), 10, timeout)?;
    /// assert_eq!(history.publications[0].message(), Message::Text("two"));
    /// let start = HistoryStart::Since(history.publications[0].position());
    /// let history = handle.history("log/a", start, 10, timeout)?;
    /// assert_eq!((history.publications.len(), history.recovered), (1, Some(true)));
    /// assert_eq!(handle.topics(10, timeout)?[0].history.unwrap().0, 3);
    /// assert_eq!(handle.presence("log/a", timeout)?.total, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the topic cannot stand, or as of [`topics`](Handle::topics).
    pub fn history(
        &self,
        topic: &str,
        start: HistoryStart,
        publications_max: u32,
        timeout: Duration,
    ) -> Result<History, QueryError> {
        let topic = Topic::from_text(topic)
            .map_err(|refusal| QueryError::InvalidTopic(refusal.reason.into_owned()))?;
        let start = match start {
            HistoryStart::Since(position) => Start::Since(position),
            HistoryStart::Last(count) => Start::Last(count),
        };
        let (page, now_us) = ((start, publications_max), self.clock.now_us());
        let read = |number| inside::read(topic, page, now_us, number);
        let Reply::Page(page) = self.ask(read, Instant::now().checked_add(timeout))? else {
            return Err(QueryError::Timeout);
        };
        let publications = page.publications.into_iter();
        Ok(History {
            position: page.position,
            recovered: page.recovered,
            publications: publications.map(ReceivedPublication::from).collect(),
            has_more: page.has_more,
        })
    }

    /// Asks the hub, and waits for the answer until then. None: without an end.
    fn ask(
        &self,
        command: impl FnOnce(u64) -> crate::hub::Command,
        until: Option<Instant>,
    ) -> Result<Reply, QueryError> {
        if self.is_closed() {
            return Err(QueryError::Closed);
        }
        let question = self.shared.inside.ask(command);
        let question = question.map_err(|refused| match refused {
            _ if self.is_closed() => QueryError::Closed,
            Refused::TooMany | Refused::HubFull => QueryError::Full,
        })?;
        let left = until.map_or(Duration::MAX, |until| {
            until.saturating_duration_since(Instant::now())
        });
        question.wait(left).ok_or(match self.is_closed() {
            true => QueryError::Closed,
            false => QueryError::Timeout,
        })
    }
}
