//! `GET /topics` and `GET /topics/{topic}`: which topics there are, and how many subscribers each has.
//!
//! A page is gathered step by step, each of which looks at a bounded part of one shard, so that no thread is kept from
//! its work however many topics there are. Topics keep their places, and the cursor is a place: whatever comes and goes
//! meanwhile, a topic that is there all the time is listed once.

use std::sync::Arc;

use super::handle_event;
use super::hosts::check_origin;
use crate::application::publishes::hub_is_full;
use crate::application::{Application, CommandContext, ConnectionContext};
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::connection::{Answer, Awaited, Gathering, Page, Reply};
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::hub::{Command, Listing, Scope};
use crate::peers::ToldCell;
use crate::route::query_of;
use crate::topic::Topic;

/// Topics of a page, where the request does not say how many.
const LIMIT_DEFAULT: u32 = 1000;

/// Steps of one page beyond those that it takes to look at each shard once. A page that has used them up ends early, so
/// that a table that most topics have left costs a request no more than another.
const STEPS_SPARE: u32 = 64;

/// Hexadecimal digits of a cursor.
const CURSOR_DIGITS: usize = 16;

/// Where a page begins: a place in the table of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    shard: u32,
    place: u32,
}

impl Cursor {
    fn parse(text: &str) -> Option<Cursor> {
        let is_hex = text.bytes().all(|digit| digit.is_ascii_hexdigit());
        if text.len() != CURSOR_DIGITS || !is_hex {
            return None;
        }
        let bits = u64::from_str_radix(text, 16).ok()?;
        Some(Cursor {
            shard: (bits >> 32) as u32,
            place: bits as u32,
        })
    }

    fn encode(self) -> String {
        format!("{:08x}{:08x}", self.shard, self.place)
    }

    /// What the hub is asked for: one topic more than there is room for, which tells whether there are more.
    fn scope(self, topics_left: u32) -> Scope {
        Scope::Places {
            shard: self.shard,
            first: self.place,
            topics_max: topics_left.saturating_add(1),
        }
    }
}

/// How a step of a page ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The page is whole; there is more behind it from here on.
    End(Option<Cursor>),
    /// The page has room, and the hub is to be asked for what is here.
    More(Cursor),
}

/// Begins a page.
pub(super) fn list_topics(
    application: &mut Application,
    current: &CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
) -> Result<Answer, Refusal> {
    check_origin(application, head)?;
    application.authorize(caller, Action::Observe)?;
    let query = query_of(head.target);
    let topics_max = application.shared.settings.limits.topics_listed_max;
    let topics_max = u32::try_from(topics_max).unwrap_or(u32::MAX);
    let limit = match query.get("limit")? {
        None => LIMIT_DEFAULT.min(topics_max),
        Some(text) => parse_limit(&text, topics_max)?,
    };
    let shards = application.shared.shards.shard_count();
    let cursor = match query.get("cursor")? {
        None => Cursor::default(),
        Some(text) => Cursor::parse(&text)
            .filter(|cursor| cursor.shard < shards)
            .ok_or_else(|| {
                Refusal::bad_request("the cursor is none: it is what \"next\" of an answer says")
            })?,
    };
    let page = Page {
        shard: cursor.shard,
        topics_left: limit,
        steps_left: shards + STEPS_SPARE,
    };
    let gathering = Gathering {
        body: b"{\"topics\":[".to_vec(),
        page: Some(page),
    };
    ask_for_topics(application, current.id, cursor.scope(limit))?;
    Ok(Answer::Await(Awaited::Topics(gathering)))
}

/// Asks about one topic.
pub(super) fn show_topic(
    application: &mut Application,
    current: &CommandContext<'_>,
    head: &Head<'_>,
    caller: &Caller<'_>,
    topic: Topic,
) -> Result<Answer, Refusal> {
    check_origin(application, head)?;
    application.authorize(caller, Action::Observe)?;
    ask_for_topics(application, current.id, Scope::Topic(topic))?;
    Ok(Answer::Await(Awaited::Topics(Gathering {
        body: Vec::new(),
        page: None,
    })))
}

fn ask_for_topics(
    application: &Application,
    id: ConnectionId,
    scope: Scope,
) -> Result<(), Refusal> {
    let command = Command::List {
        scope,
        reactor: application.reactor,
        connection: id.to_bits(),
    };
    application.submit(command).map_err(|_| hub_is_full())
}

/// Adds this reactor's counts to a listing. It is handed on unless it has those of all. Gives one that is whole,
/// and the connection that asked.
pub fn handle_listed(
    application: &mut Application,
    mut listing: Box<Listing>,
) -> Option<(ConnectionId, Box<Listing>)> {
    let topics = &application.topics;
    let is_whole = listing.add(|topic| topics.subscriber_count(topic));
    let id = ConnectionId::from_bits(listing.asker().0, listing.connection);
    if is_whole {
        return Some((id, listing));
    }
    if let Err(command) = application.submit(Command::PassOn { listing }) {
        application.defer(id, command);
    }
    None
}

/// Adds a whole listing to its connection's answer, which it may end.
pub fn gather(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    listing: &Listing,
) {
    let shards = application.shared.shards.shard_count();
    // A page that the peer is slow to take has to fit into its outbox.
    let bytes_max = application.shared.settings.limits.outbox_bytes_max / 2;
    // One that waited for too long has been closed, so this is the request that was asked for.
    let Some(gathering) = context.connection.gathering() else {
        return;
    };
    let Some(page) = &mut gathering.page else {
        return end_gathering(application, context, show(listing));
    };
    let end = match take_in(page, &mut gathering.body, listing, shards, bytes_max) {
        Step::End(next) => Some(next),
        Step::More(next) if page.steps_left == 0 => Some(Some(next)),
        Step::More(next) => {
            page.steps_left -= 1;
            page.shard = next.shard;
            let scope = next.scope(page.topics_left);
            // A full hub ends the page early.
            let asked = ask_for_topics(application, context.id, scope);
            asked.is_err().then_some(Some(next))
        }
    };
    let Some(next) = end else { return };
    let mut body = std::mem::take(&mut gathering.body);
    body.push(b']');
    if let Some(next) = next {
        body.extend_from_slice(format!(",\"next\":\"{}\"", next.encode()).as_bytes());
    }
    body.push(b'}');
    end_gathering(application, context, respond(body));
}

fn end_gathering(
    application: &mut Application,
    context: &mut ConnectionContext<'_>,
    answer: Answer,
) {
    let settings = Arc::clone(&application.shared.settings);
    let mut current = CommandContext {
        id: context.id,
        peer_address: &|| Ok(None),
        told: &ToldCell::default(),
        certificate: &|| None,
        identity: context.identity,
        listener: context.listener,
        subscribed: context.subscribed,
        deflate: None,
        may_keep_context: false,
    };
    let now_ms = context.now_ms;
    context
        .connection
        .end_gathering(&settings, now_ms, answer, context.out, &mut |event, out| {
            handle_event(application, &mut current, event, out)
        });
}

/// Adds what a listing brought to a page.
fn take_in(
    page: &mut Page,
    body: &mut Vec<u8>,
    listing: &Listing,
    shards: u32,
    bytes_max: usize,
) -> Step {
    for listed in listing.topics.iter().filter(|listed| !listed.is_unused()) {
        let is_first = body.ends_with(b"[");
        if page.topics_left == 0 || (body.len() >= bytes_max && !is_first) {
            return Step::End(Some(Cursor {
                shard: page.shard,
                place: listed.place,
            }));
        }
        if !is_first {
            body.push(b',');
        }
        crate::route::json::encode_listed(body, listed);
        page.topics_left -= 1;
    }
    match listing.next {
        Some(place) => Step::More(Cursor {
            shard: page.shard,
            place,
        }),
        None if page.shard + 1 < shards => Step::More(Cursor {
            shard: page.shard + 1,
            place: 0,
        }),
        None => Step::End(None),
    }
}

/// The answer about one topic.
fn show(listing: &Listing) -> Answer {
    match listing.topics.iter().find(|listed| !listed.is_unused()) {
        Some(listed) => {
            let mut body = Vec::with_capacity(128);
            crate::route::json::encode_listed(&mut body, listed);
            respond(body)
        }
        None => Answer::Refuse(Refusal::not_found(
            "nobody subscribes to this topic, and nothing of it is kept",
        )),
    }
}

fn respond(mut body: Vec<u8>) -> Answer {
    body.push(b'\n');
    Answer::Respond(Reply {
        status: 200,
        content_type: "application/json",
        headers: vec![("Cache-Control", "no-store".to_owned())],
        body: body.into(),
    })
}

fn parse_limit(text: &str, topics_max: u32) -> Result<u32, Refusal> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
    let limit = text.parse().ok().filter(|_| is_number);
    let limit = limit.filter(|limit| (1..=topics_max).contains(limit));
    limit.ok_or_else(|| {
        let reason = format!("limit is how many topics are listed: 1 to {topics_max}");
        Refusal::bad_request(reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Listed, Position, ReactorId};

    fn listing(places: &[u32], next: Option<u32>) -> Listing {
        let listed = |&place: &u32| Listed {
            topic: Topic::from_text(&format!("t{place}")).expect("a topic"),
            place,
            position: Position {
                epoch: 1,
                offset: 0,
            },
            subscribers: u64::from(place % 2),
            history: None,
            present: None,
        };
        let topics = places.iter().map(listed).collect();
        Listing::new(ReactorId(0), 0, topics, next, std::iter::empty())
    }

    fn page(topics_left: u32) -> Page {
        Page {
            shard: 1,
            topics_left,
            steps_left: 0,
        }
    }

    fn at(shard: u32, place: u32) -> Cursor {
        Cursor { shard, place }
    }

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        for cursor in [at(0, 0), at(1, 0xa0), at(u32::MAX, u32::MAX)] {
            assert_eq!(Cursor::parse(&cursor.encode()), Some(cursor));
        }
        for text in [
            "",
            "0",
            "000000000000000",
            "+000000000000000",
            "000000000000000g",
        ] {
            assert_eq!(Cursor::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_page_ends_at_the_first_topic_that_it_has_no_room_for() {
        let (mut page, mut body) = (page(2), b"[".to_vec());
        // Of those of even numbers nobody is a subscriber.
        let step = take_in(
            &mut page,
            &mut body,
            &listing(&[1, 2, 3, 4, 5], None),
            2,
            1000,
        );
        assert_eq!(step, Step::End(Some(at(1, 5))));
        let text = String::from_utf8(body).expect("JSON");
        assert!(
            text.contains("\"t1\"") && text.contains("},{\"topic\":\"t3\""),
            "{text}"
        );
        assert!(!text.contains("t2") && !text.contains("t5"), "{text}");
    }

    #[test]
    fn a_long_page_ends_early_but_never_without_a_topic() {
        let (mut page, mut body) = (page(100), b"[".to_vec());
        let step = take_in(&mut page, &mut body, &listing(&[1, 3], None), 2, 1);
        assert_eq!(step, Step::End(Some(at(1, 3))));
        assert_eq!(page.topics_left, 99);
    }

    #[test]
    fn a_page_with_room_goes_on_to_the_end_of_the_last_shard() {
        let (mut page, mut body) = (page(1), b"[".to_vec());
        let mut step = |listing, shards| take_in(&mut page, &mut body, &listing, shards, 1000);
        assert_eq!(step(listing(&[1], Some(7)), 3), Step::More(at(1, 7)));
        assert_eq!(step(listing(&[8], None), 3), Step::More(at(2, 0)));
        assert_eq!(step(listing(&[], None), 2), Step::End(None));
    }

    #[test]
    fn limits_are_numbers_in_their_range() {
        assert_eq!(parse_limit("1", 5), Ok(1));
        assert_eq!(parse_limit("5", 5), Ok(5));
        for text in ["", "0", "6", "+1", "-1", "1.0", "99999999999"] {
            let refusal = parse_limit(text, 5).expect_err("it is none");
            assert_eq!(refusal.status, 400, "{text:?}");
        }
    }
}
