//! Fields of a publication besides its payload, and options that set them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::command::ReactorId;
use super::own_event::{OWN_EVENT_PREFIX, OwnEvent, is_own_event};
use super::publication::REFERENCE_COUNTS_BYTES;
use super::receipt::{Receipt, Report};
use crate::caught;

/// Bytes of a publication's key.
pub const KEY_BYTES_MAX: usize = 255;

/// Bytes of a tag's name.
const TAG_NAME_BYTES_MAX: usize = 32;

/// The longest time to live: a year, as that of a history.
pub const TTL_MS_MAX: u64 = 31_536_000_000;

/// The times to live that there are.
const TTL_RANGE: &str = "a time to live is from 1 to 31536000000 milliseconds";

/// The content type of JSON.
pub const JSON: &str = "application/json";

/// Content types of which publications share one copy.
const FREQUENT_CONTENT_TYPES: [&str; 10] = [
    "application/cbor",
    "application/msgpack",
    "application/protobuf",
    "application/xml",
    "application/cloudevents+json",
    "application/ld+json",
    "text/csv",
    "text/html",
    "text/markdown",
    "text/xml",
];

/// Content types that say no more than that a message is text or binary, and those of forms, which is what some
/// programs say when they are told nothing.
const PLAIN_CONTENT_TYPES: [&str; 4] = [
    "text/plain",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
];

/// A tag: its name and its value.
pub type Tag = (Box<str>, Box<str>);

/// Bytes of a publisher, which is a subject.
const PUBLISHER_BYTES_MAX: usize = 255;

/// Fields of a publication that most do without: they share one allocation, which a bare publication has not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    /// Conflation key. Under `latest`, it replaces earlier publications of the same topic and key.
    pub key: Option<Arc<str>>,
    /// Receipt that somebody asked for.
    pub receipt: Option<Arc<Receipt>>,
    /// Name of what the message tells of: the type of the event on an event stream.
    pub event: Option<Box<str>>,
    /// Name that the publisher gave to the message.
    pub id: Option<Box<str>>,
    /// Content type, where it says more than the message's kind. That of JSON is kept elsewhere.
    pub content_type: Option<Cow<'static, str>>,
    /// Subject of who published.
    pub publisher: Option<Arc<str>>,
    /// Names and values, in the publisher's order.
    pub tags: Box<[Tag]>,
    /// Time after the publish for which it is of use, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// The connection that published it, if that wants no echo: its reactor, and the reactor's own name for it.
    pub own: Option<(ReactorId, u64)>,
}

impl Extras {
    /// Bytes that it costs to keep, with its key and receipt and their reference counts.
    pub(super) fn bytes(&self) -> usize {
        let key = self.key.as_ref();
        let key = key.map_or(0, |key| REFERENCE_COUNTS_BYTES + key.len());
        let receipt = self.receipt.as_ref();
        let receipt = receipt.map_or(0, |_| REFERENCE_COUNTS_BYTES + size_of::<Receipt>());
        let publisher = self.publisher.as_ref();
        let publisher = publisher.map_or(0, |subject| REFERENCE_COUNTS_BYTES + subject.len());
        let texts = [&self.event, &self.id].into_iter().flatten();
        let content_type = match &self.content_type {
            Some(Cow::Owned(text)) => text.len(),
            _ => 0,
        };
        let tags = self.tags.iter();
        size_of::<Extras>()
            + key
            + receipt
            + publisher
            + texts.map(|text| text.len()).sum::<usize>()
            + content_type
            + tags
                .map(|(name, value)| size_of::<Tag>() + name.len() + value.len())
                .sum::<usize>()
    }
}

/// Options of a publish: fields that the message carries besides its payload. The default is none of them.
///
/// ```
/// # use std::time::Duration;
/// # use umbel::{Message, PublishOptions, Server};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = Server::builder().listen(([127, 0, 0, 1], 0).into()).bind()?;
/// # let handle = server.handle();
/// # let thread = std::thread::spawn(move || server.run());
/// let tea = PublishOptions::new().key("tea");
/// handle.publish_with("prices", Message::Text("4.20"), tea)?;
///
/// // What became of it, for a program that waits for that.
/// let (options, receipt) = PublishOptions::new().key("tea").with_receipt();
/// handle.publish_with("prices", Message::Text("4.30"), options)?;
/// let report = receipt.wait(Duration::from_secs(5)).expect("nobody subscribes");
/// assert_eq!(report.matched, 0);
/// # handle.shutdown();
/// # thread.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    pub(super) extras: Option<Box<Extras>>,
    pub(super) is_json: bool,
    /// Somebody named the content type of JSON, so that clients which know no fields are not those who are meant.
    pub(super) names_json: bool,
    pub(super) is_tombstone: bool,
}

impl PartialEq for PublishOptions {
    /// Whether they say the same, in whatever way.
    fn eq(&self, other: &PublishOptions) -> bool {
        let said = |it: &PublishOptions| (it.is_json, it.is_tombstone);
        self.extras == other.extras && said(self) == said(other)
    }
}

/// Limits of the fields of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLimits {
    /// Bytes of an event.
    pub event_bytes_max: usize,
    /// Bytes of an id.
    pub id_bytes_max: usize,
    /// Bytes of a content type.
    pub content_type_bytes_max: usize,
    /// Tags of one publication.
    pub tags_max: usize,
    /// Bytes of their names and values together.
    pub tags_bytes_max: usize,
}

impl FieldLimits {
    /// Those of a configuration that says nothing else.
    pub const DEFAULT: FieldLimits = FieldLimits {
        event_bytes_max: 200,
        id_bytes_max: 128,
        content_type_bytes_max: 128,
        tags_max: 16,
        tags_bytes_max: 1024,
    };
}

/// Reason that a field of a publication cannot stand, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError(pub Cow<'static, str>);

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FieldError {}

type Checked = Result<(), FieldError>;

fn error(reason: impl Into<Cow<'static, str>>) -> FieldError {
    FieldError(reason.into())
}

/// Whether a text can be the conflation key of publications: 1 to [`KEY_BYTES_MAX`] bytes without control characters.
///
/// # Errors
/// A sentence that says why it is none.
pub fn check_key(key: &str) -> Result<(), &'static str> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err("a key has 1 to 255 bytes");
    }
    if key.chars().any(char::is_control) {
        return Err("the key holds a control character");
    }
    Ok(())
}

/// Whether a text has 1 to `bytes_max` bytes and no control character.
fn check_text(what: &str, text: &str, bytes_max: usize) -> Checked {
    if text.is_empty() || text.len() > bytes_max {
        return Err(error(format!("{what} has 1 to {bytes_max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(error(format!("{what} holds no control character")));
    }
    Ok(())
}

impl FieldLimits {
    /// Whether a text can be an event.
    ///
    /// # Errors
    /// When it is empty, too long, holds a control character or is a name of the server's own.
    pub fn check_event(&self, event: &str) -> Result<(), FieldError> {
        check_text("an event", event, self.event_bytes_max)?;
        if is_own_event(event) {
            let names = OwnEvent::ALL.map(OwnEvent::name).join(", ");
            return Err(error(format!(
                "the event `{event}` is the server's own: {names} and all that begins with {OWN_EVENT_PREFIX} are"
            )));
        }
        Ok(())
    }

    /// Whether a text can be an id.
    ///
    /// # Errors
    /// When it is empty, too long or holds a control character.
    pub fn check_id(&self, id: &str) -> Result<(), FieldError> {
        check_text("an id", id, self.id_bytes_max)
    }

    /// Whether a text can be a content type: visible ASCII and spaces, with a slash.
    ///
    /// # Errors
    /// When it is empty, too long or none.
    pub fn check_content_type(&self, content_type: &str) -> Result<(), FieldError> {
        check_text("a content type", content_type, self.content_type_bytes_max)?;
        let is_ascii = content_type.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let is_type = content_type
            .split_once('/')
            .is_some_and(|(kind, rest)| !kind.trim().is_empty() && !rest.trim().is_empty());
        match is_ascii && is_type {
            true => Ok(()),
            false => Err(error("a content type is as in `application/json`")),
        }
    }

    /// Whether these can be the tags of a publication.
    ///
    /// # Errors
    /// When there are too many or they are too long, or a name is none or stands twice.
    pub fn check_tags(&self, tags: &[Tag]) -> Result<(), FieldError> {
        if tags.len() > self.tags_max {
            let reason = format!("a publication has at most {} tags", self.tags_max);
            return Err(error(reason));
        }
        let bytes: usize = tags
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > self.tags_bytes_max {
            return Err(error(format!(
                "the tags of a publication have at most {} bytes together",
                self.tags_bytes_max
            )));
        }
        for (at, (name, value)) in tags.iter().enumerate() {
            let is_name = (1..=TAG_NAME_BYTES_MAX).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
            if !is_name {
                let reason = "the name of a tag is 1 to 32 of a-z, 0-9, _ and -";
                return Err(error(reason));
            }
            if tags[..at].iter().any(|(other, _)| other == name) {
                return Err(error(format!("the tag {name} stands twice")));
            }
            if value.chars().any(char::is_control) {
                return Err(error("the value of a tag holds no control character"));
            }
        }
        Ok(())
    }
}

/// The milliseconds of a time to live, from their digits.
///
/// # Errors
/// When they are no number from 1 to [`TTL_MS_MAX`].
pub fn parse_ttl_ms(digits: &str) -> Result<u64, FieldError> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let ttl_ms = digits.parse().ok().filter(|_| is_number);
    let ttl_ms = ttl_ms.ok_or_else(|| error(TTL_RANGE))?;
    check_ttl_ms(ttl_ms).map(|()| ttl_ms)
}

/// Whether so many milliseconds can be a time to live.
///
/// # Errors
/// When they are none from 1 to [`TTL_MS_MAX`].
pub fn check_ttl_ms(ttl_ms: u64) -> Result<(), FieldError> {
    match (1..=TTL_MS_MAX).contains(&ttl_ms) {
        true => Ok(()),
        false => Err(error(TTL_RANGE)),
    }
}

/// Whether a content type says that a message is JSON.
pub fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or("").trim();
    media_type.eq_ignore_ascii_case(JSON)
        || media_type
            .len()
            .checked_sub("+json".len())
            .and_then(|at| media_type.get(at..))
            .is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

impl PublishOptions {
    fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// The fields that are set, but for the content type of JSON.
    pub fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// Content type that was set, where it says more than the kind.
    pub fn given_content_type(&self) -> Option<&str> {
        match self.is_json {
            true => Some(JSON),
            false => self.extras.as_ref()?.content_type.as_deref(),
        }
    }

    /// Sets the conflation key: 1 to 255 bytes without control characters. Of publications of one topic and key, a slow
    /// consumer under [`SlowConsumer::Latest`](crate::SlowConsumer::Latest) gets the newest.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> PublishOptions {
        self.extras_mut().key = Some(key.into());
        self
    }

    /// Sets the event: a name of what the message tells of, and the type of the event on an event stream. `binary`,
    /// `expired`, `gap`, `unavailable` and names that begin with `umbel` are refused.
    #[must_use]
    pub fn event(mut self, event: impl Into<Box<str>>) -> PublishOptions {
        self.extras_mut().event = Some(event.into());
        self
    }

    /// Sets the message's id, a name by which subscribers know the message. It is no position, and two may be the same.
    #[must_use]
    pub fn id(mut self, id: impl Into<Box<str>>) -> PublishOptions {
        self.extras_mut().id = Some(id.into());
        self
    }

    /// Sets the content type. One that says no more than the message's kind (`text/plain`, `application/octet-stream`) or
    /// that is a form's is forgotten.
    #[must_use]
    pub fn content_type(mut self, content_type: &str) -> PublishOptions {
        self.set_content_type(content_type);
        self
    }

    /// Says that the message is JSON: as the content type `application/json`, and without a byte.
    #[must_use]
    pub fn json(mut self) -> PublishOptions {
        self.is_json = true;
        self
    }

    /// Says that the message's key is deleted. Where a topic's rule keeps the newest of each key, whoever subscribes from now on
    /// gets nothing of it.
    #[must_use]
    pub fn tombstone(mut self) -> PublishOptions {
        self.is_tombstone = true;
        self
    }

    /// Whether the message says that its key is deleted.
    pub fn is_tombstone(&self) -> bool {
        self.is_tombstone
    }

    /// Adds a tag. Its name is 1 to 32 of `a-z`, `0-9`, `_` and `-`.
    #[must_use]
    pub fn tag(mut self, name: impl Into<Box<str>>, value: impl Into<Box<str>>) -> PublishOptions {
        let extras = self.extras_mut();
        let mut tags = std::mem::take(&mut extras.tags).into_vec();
        tags.push((name.into(), value.into()));
        extras.tags = tags.into();
        self
    }

    /// Sets all tags.
    #[must_use]
    pub fn tags(mut self, tags: Vec<Tag>) -> PublishOptions {
        if !tags.is_empty() {
            self.extras_mut().tags = tags.into();
        }
        self
    }

    /// Sets who published, by a subject: 1 to 255 bytes without control characters. The server sets it itself for what comes by
    /// connections, where the topic's rule shows subjects.
    #[must_use]
    pub fn publisher(mut self, subject: impl Into<Arc<str>>) -> PublishOptions {
        self.extras_mut().publisher = Some(subject.into());
        self
    }

    /// With this publisher, unless it has one.
    pub(crate) fn with_publisher_of(mut self, publisher: Option<Arc<str>>) -> PublishOptions {
        if let Some(publisher) = publisher {
            self.extras_mut().publisher.get_or_insert(publisher);
        }
        self
    }

    /// Sets the time to live, in milliseconds from the publish: 1 to 31,536,000,000. After it the message is kept in no
    /// history and recovered by nobody, and of what waits for slow consumers it goes where their topic's rule lets
    /// publications go.
    #[must_use]
    pub fn ttl_ms(mut self, ttl_ms: u64) -> PublishOptions {
        self.extras_mut().ttl_ms = Some(ttl_ms);
        self
    }

    /// Sets code that gets the report once everything is written or queued. It is called once at most, on a thread of the
    /// server's or in the call that publishes, so it must not wait; a panic of
    /// it is caught, logged and counted. It is for one publish, and replaces an earlier one.
    #[must_use]
    pub fn on_receipt(mut self, take: impl FnOnce(Report) + Send + 'static) -> PublishOptions {
        let receipt = Receipt::new(Box::new(move |report| {
            caught::call("a receipt's callback", || take(report));
        }));
        self.extras_mut().receipt = Some(Arc::new(receipt));
        self
    }

    /// With this receipt, or without one.
    pub(crate) fn with_receipt_of(mut self, receipt: Option<Arc<Receipt>>) -> PublishOptions {
        if receipt.is_some() || self.extras.is_some() {
            self.extras_mut().receipt = receipt;
        }
        self
    }

    /// Sets the content type of a request's body, as [`PublishOptions::set_content_type`]. That of JSON says no more here
    /// than that the body is JSON, as it always did.
    pub(crate) fn set_body_type(&mut self, content_type: &str) {
        self.set_content_type(content_type);
        self.names_json = false;
    }

    /// Sets the content type where it says more than the kind.
    pub(crate) fn set_content_type(&mut self, content_type: &str) {
        let content_type = content_type.trim();
        let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let is = |known: &str| media_type.trim().eq_ignore_ascii_case(known);
        let parameters = parameters.trim();
        let says_utf8 = parameters.is_empty()
            || parameters.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("charset")
                    && ["utf-8", "utf8", "us-ascii"]
                        .iter()
                        .any(|known| value.trim().trim_matches('"').eq_ignore_ascii_case(known))
            });
        self.is_json = is(JSON) && says_utf8;
        self.names_json = self.is_json;
        let says_no_more = self.is_json
            || PLAIN_CONTENT_TYPES.into_iter().any(is) && (says_utf8 || !is("text/plain"));
        if says_no_more {
            if let Some(extras) = &mut self.extras {
                extras.content_type = None;
            }
            return;
        }
        let known = FREQUENT_CONTENT_TYPES
            .into_iter()
            .find(|it| *it == content_type);
        let content_type = known.map_or_else(|| Cow::Owned(content_type.to_owned()), Cow::Borrowed);
        self.extras_mut().content_type = Some(content_type);
    }

    /// Checks every field.
    ///
    /// # Errors
    /// When one cannot stand.
    pub fn check(&self, limits: &FieldLimits) -> Result<(), FieldError> {
        let Some(extras) = &self.extras else {
            return Ok(());
        };
        if let Some(key) = &extras.key {
            check_key(key).map_err(error)?;
        }
        if let Some(event) = &extras.event {
            limits.check_event(event)?;
        }
        if let Some(id) = &extras.id {
            limits.check_id(id)?;
        }
        if let Some(publisher) = &extras.publisher {
            check_text("a publisher", publisher, PUBLISHER_BYTES_MAX)?;
        }
        if let Some(content_type) = &extras.content_type {
            limits.check_content_type(content_type)?;
        }
        extras.ttl_ms.map_or(Ok(()), check_ttl_ms)?;
        limits.check_tags(&extras.tags)
    }
}
