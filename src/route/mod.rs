//! Routes of targets to the server's resources.
//!
//! Paths are compared as they were sent: an escaped letter in `/ws` makes it another path.

pub mod json;
pub mod parameters;
pub mod surface;

use crate::console;
use crate::dialect::{Dialects, Encoding, Entrance};
use crate::http::query::Query;
use crate::http::refusal::{ALLOW_GET_HEAD, ALLOW_POST, Refusal, RefusalHeaders};
use crate::http::request::Method;
use crate::topic::Topic;

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// An upgrade to one topic, whose payloads are the messages.
    TopicUpgrade(Topic),
    /// An upgrade to many topics on one connection, at this path.
    Commands(&'a str),
    /// One topic as a stream.
    TopicStream(Encoding, Topic),
    /// The topic that the sender's token joins, as a stream.
    JoinedStream(Encoding),
    /// `POST /pub/{topic}`: publishes the body.
    Publish(Topic),
    /// `POST /pub`: publishes to the topics that the body names.
    PublishMany,
    /// `GET /topics`: which topics there are.
    Topics,
    /// `GET /topics/{topic}`: where one topic stands, and how many subscribers it has.
    Topic(Topic),
    /// `GET /history/{topic}`: a page of the topic's history.
    History(Topic),
    /// `GET /health`: whether the process runs.
    Health,
    /// `GET /ready`: whether it takes connections.
    Ready,
    /// `GET /metrics`.
    Metrics,
    /// An operation of the control API, whose path this is: all of `/api/v1/`.
    Call(&'a str),
    /// The console: `/`, `/console` and whatever lies under it, as a path.
    Asset(&'a str),
    /// Any other path: an endpoint of the embedding program's, or nothing.
    Path(&'a str),
}

/// Resources at one path each.
static AT_PATHS: [(&str, Route<'static>); 7] = [
    ("/pub", Route::PublishMany),
    ("/topics", Route::Topics),
    ("/metrics", Route::Metrics),
    ("/health", Route::Health),
    ("/ready", Route::Ready),
    ("/", Route::Asset("/")),
    ("/console", Route::Asset("/console")),
];

/// A way from a topic to the resource that it is behind a prefix.
type OfTopic = fn(Topic) -> Route<'static>;

/// Resources behind a prefix each, which a topic follows, and their methods.
const BEFORE_TOPICS: [(&str, &str, OfTopic); 3] = [
    ("/pub/", "POST", Route::Publish),
    ("/history/", "GET", Route::History),
    ("/topics/", "GET", Route::Topic),
];

/// All resources that are to be shown, as in `GET /topics/{topic}`. `own`: the paths of the embedding program's endpoints.
pub fn resources<'o>(
    dialects: &Dialects,
    own: impl Iterator<Item = &'o str>,
    is_shown: impl Fn(&Route<'_>) -> bool,
) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for (_, row) in dialects.rows() {
        let path = match row.entrance {
            Entrance::Topic(prefix) | Entrance::Stream(prefix) => format!("{prefix}{{topic}}"),
            Entrance::Commands { path, .. } => path.to_owned(),
        };
        // Several dialects may share one.
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let before_topics = BEFORE_TOPICS.iter().map(|(prefix, ..)| *prefix);
    paths.extend(before_topics.map(|prefix| format!("{prefix}{{topic}}")));
    paths.extend(AT_PATHS.iter().map(|(path, _)| (*path).to_owned()));
    paths.push("/api/v1/openapi.json".to_owned());
    paths.extend(console::public_paths().map(str::to_owned));
    paths.extend(own.map(str::to_owned));
    let line = |path: String| {
        let target = path.replace("{topic}", "topic");
        let route = Route::parse(&target, dialects).ok()?;
        let method = allowed_methods(&route).split(',').next()?;
        is_shown(&route).then(|| format!("{method} {path}"))
    };
    paths.into_iter().filter_map(line).collect()
}

impl<'a> Route<'a> {
    /// Reads a target in origin-form, as [`Head::target`](crate::http::request::Head::target) is. The dialects bring
    /// routes of their own.
    ///
    /// # Errors
    ///
    /// 404 where a topic is missing, 400 and 414 for what is no topic.
    pub fn parse(target: &'a str, dialects: &Dialects) -> Result<Route<'a>, Refusal> {
        let (path, query) = split_target(target);
        if let Some((_, route)) = AT_PATHS.iter().find(|(own, _)| *own == path) {
            return Ok(route.clone());
        }
        // An absolute-form target may have a query without a path (RFC 3986 section 6.2.3).
        if path.is_empty() {
            return Ok(Route::Asset("/"));
        }
        for (encoding, row) in dialects.rows() {
            match row.entrance {
                Entrance::Topic(prefix) => {
                    if let Some(rest) = path.strip_prefix(prefix) {
                        return parse_topic("GET", prefix, rest, query).map(Route::TopicUpgrade);
                    }
                }
                Entrance::Stream(prefix) => {
                    // The path without its slash can mean nothing else.
                    if path.len() + 1 == prefix.len() && prefix.starts_with(path) {
                        return Ok(Route::JoinedStream(encoding));
                    }
                    if let Some(rest) = path.strip_prefix(prefix) {
                        return parse_topic("GET", prefix, rest, query)
                            .map(|topic| Route::TopicStream(encoding, topic));
                    }
                }
                Entrance::Commands { .. } => {
                    if row.entrance.leads_from(path) {
                        return Ok(Route::Commands(path));
                    }
                }
            }
        }
        for (prefix, method, route) in BEFORE_TOPICS {
            if let Some(rest) = path.strip_prefix(prefix) {
                return parse_topic(method, prefix, rest, query).map(route);
            }
        }
        if path.starts_with("/console/") {
            Ok(Route::Asset(path))
        } else if path.starts_with("/api/v1/") {
            Ok(Route::Call(path))
        } else {
            Ok(Route::Path(path))
        }
    }

    /// The topic that it is about, if it is about one.
    pub fn topic(&self) -> Option<&Topic> {
        match self {
            Route::TopicUpgrade(topic)
            | Route::TopicStream(_, topic)
            | Route::Publish(topic)
            | Route::History(topic)
            | Route::Topic(topic) => Some(topic),
            _ => None,
        }
    }

    /// The header lines of a 405 for this resource.
    fn allow(&self) -> RefusalHeaders {
        match self {
            Route::Publish(_) | Route::PublishMany => ALLOW_POST,
            _ => ALLOW_GET_HEAD,
        }
    }

    /// Checks the method. HEAD goes wherever GET goes (RFC 9110 section 9.1).
    ///
    /// # Errors
    ///
    /// 405 with `Allow`.
    pub fn check_method(&self, method: Method<'_>) -> Result<(), Refusal> {
        if allowed_methods(self)
            .split(", ")
            .any(|allowed| allowed == method.as_str())
        {
            return Ok(());
        }
        let reason = match self {
            Route::Publish(_) | Route::PublishMany => "publishing takes POST",
            _ => "this resource takes GET",
        };
        Err(Refusal::method_not_allowed(reason, self.allow()))
    }
}

/// The topic behind a prefix.
fn parse_topic(
    method: &str,
    prefix: &str,
    rest: &str,
    query: Option<&str>,
) -> Result<Topic, Refusal> {
    if rest.is_empty() {
        let reason =
            format!("the topic is missing: {method} {prefix}{{topic}}, as in {prefix}news");
        return Err(Refusal::not_found(reason));
    }
    Topic::parse(rest, query)
}

/// The methods of a resource, as `Allow` lists them. For [`Route::Path`] that is the method of an upgrade; whether the
/// path is there at all is asked first.
#[must_use]
pub fn allowed_methods(route: &Route<'_>) -> &'static str {
    route.allow()[0].1
}

/// The path of a target, and what follows its first `?`.
#[must_use]
pub fn split_target(target: &str) -> (&str, Option<&str>) {
    target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)))
}

/// The query of a target, for its reserved parameters. Empty if there is none.
#[must_use]
pub fn query_of(target: &str) -> Query<'_> {
    Query(split_target(target).1.unwrap_or(""))
}

/// What clients escape in the path of a URL (WHATWG URL section 1.3), besides controls, blanks and what is not ASCII.
const NEVER_SENT: &[u8] = b"\"#<>\\`{}";

/// Checks that requests can reach an own endpoint at a path. `bytes_max`: the longest target that is taken.
///
/// # Errors
///
/// Says why none can, and which path to take instead.
pub fn check_own_path(path: &str, bytes_max: usize, dialects: &Dialects) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("a path begins with /".to_owned());
    }
    if path.len() > bytes_max {
        return Err(format!(
            "it has {} bytes, and target_bytes_max is {bytes_max}",
            path.len()
        ));
    }
    if path.contains('?') {
        return Err(
            "a path has no query: what follows the ? of a request is not compared".to_owned(),
        );
    }
    let is_sent = |byte: u8| byte.is_ascii_graphic() && !NEVER_SENT.contains(&byte);
    let written: String = path
        .bytes()
        .map(|byte| match is_sent(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect();
    if written != path {
        return Err(format!(
            "paths are compared as requests have them, which is {written}"
        ));
    }
    let mut rows = dialects.rows();
    let row = rows.find(|(_, row)| row.entrance.leads_from(path));
    let prefix = row.map_or(path, |(_, row)| row.entrance.path());
    let owner: &str = match Route::parse(path, dialects) {
        Ok(Route::TopicUpgrade(_)) => &format!("all of {prefix} is WebSockets of topics"),
        Ok(Route::TopicStream(..)) => &format!("all of {prefix} is event streams of topics"),
        Ok(Route::Commands(_)) if prefix.ends_with('/') => {
            &format!("all of {prefix} is WebSockets of a dialect")
        }
        Ok(Route::Path(_)) if console::asset(path).is_some() => "a file of the server's is there",
        // An own endpoint comes before the control API, which is for the listeners that show no own ones then.
        Ok(Route::Path(_) | Route::Call(_)) => return Ok(()),
        Ok(Route::Asset(_)) => "the console is there",
        Ok(Route::Publish(_)) => "all of /pub/ is publishing to topics",
        Ok(Route::Topic(_)) => "all of /topics/ is what is known of topics",
        Ok(Route::History(_)) => "all of /history/ is histories of topics",
        Ok(_) | Err(_) => "the server answers there itself",
    };
    Err(format!(
        "{owner}, so no request would reach this handler; take another path"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(target: &str) -> Result<Route<'_>, Refusal> {
        Route::parse(target, &Dialects::default())
    }

    /// One topic as the stream that the table has.
    fn stream(text: &str) -> Route<'static> {
        let dialects = Dialects::default();
        let mut rows = dialects.rows();
        let found = rows.find(|(_, row)| matches!(row.entrance, Entrance::Stream(_)));
        Route::TopicStream(found.expect("there is one").0, topic(text))
    }

    fn topic(text: &str) -> Topic {
        Topic::from_text(text).expect("the test's topics are topics")
    }

    #[test]
    fn the_table_of_resources() {
        let one = "/ws/tokens?chain_id=100000&token=x";
        for (target, route) in [
            (one, Route::TopicUpgrade(topic("tokens?chain_id=100000"))),
            (
                "/pub/tokens?chain_id=100000",
                Route::Publish(topic("tokens?chain_id=100000")),
            ),
            ("/sse/a/b%20c?last=5", stream("a/b c")),
            ("/ws", Route::Commands("/ws")),
            ("/ws?token=x", Route::Commands("/ws")),
            ("/pub", Route::PublishMany),
            ("/topics", Route::Topics),
            ("/topics?limit=5", Route::Topics),
            (
                "/topics/tokens?chain_id=100000&token=x",
                Route::Topic(topic("tokens?chain_id=100000")),
            ),
            (
                "/history/a?since=x&last=3&umbel_limit=5&b=1",
                Route::History(topic("a?b=1")),
            ),
            ("/health", Route::Health),
            ("/health?x", Route::Health),
            ("/ready", Route::Ready),
            ("/metrics", Route::Metrics),
            ("/", Route::Asset("/")),
            ("?x", Route::Asset("/")),
            ("/?a", Route::Asset("/")),
            ("/console", Route::Asset("/console")),
            ("/console/app.js?v=1", Route::Asset("/console/app.js")),
            ("/api/v1/stats?x", Route::Call("/api/v1/stats")),
            ("/api", Route::Path("/api")),
            ("/api/v2/a", Route::Path("/api/v2/a")),
            ("/echo", Route::Path("/echo")),
            ("/%77s/a", Route::Path("/%77s/a")),
            ("/WS/a", Route::Path("/WS/a")),
            ("/wsx", Route::Path("/wsx")),
            ("//ws/a", Route::Path("//ws/a")),
            ("/./ws/a", Route::Path("/./ws/a")),
            ("*", Route::Path("*")),
        ] {
            assert_eq!(parse(target), Ok(route), "{target}");
        }
    }

    #[test]
    fn a_missing_topic_shows_the_form() {
        for (target, form) in [
            ("/ws/", "/ws/{topic}"),
            ("/ws/?a=1", "/ws/{topic}"),
            ("/pub/", "/pub/{topic}"),
            ("/sse/", "/sse/{topic}"),
            ("/topics/", "/topics/{topic}"),
        ] {
            let refusal = parse(target).expect_err("a topic is missing");
            assert_eq!(refusal.status, 404, "{target}");
            assert!(refusal.reason.contains(form), "{refusal}");
        }
        // uvicorn CVE-2020-7694: control characters reach no topic, and no reason repeats them.
        for target in [
            "/ws/%1b[2J",
            "/pub/%0a",
            "/sse/a?b=%00",
            "/ws//a",
            "/pub/a/",
            "/sse/a%2F",
        ] {
            let refusal = parse(target).expect_err("control characters are refused");
            assert_eq!((refusal.status, refusal.close), (400, false));
            assert!(!refusal.reason.contains(char::is_control));
        }
    }

    #[test]
    fn methods_by_resource() {
        let check = |target: &str, method: Method<'_>| {
            let route = parse(target).expect("the test's targets are routes");
            route
                .check_method(method)
                .map_err(|refusal| (refusal.status, refusal.headers[0].1))
        };
        for target in ["/pub/a", "/pub"] {
            assert_eq!(check(target, Method::Post), Ok(()));
            assert_eq!(check(target, Method::Get), Err((405, "POST")));
            assert_eq!(check(target, Method::Other("post")), Err((405, "POST")));
        }
        for target in [
            "/",
            "/console/x",
            "/health",
            "/ready",
            "/metrics",
            "/topics",
            "/topics/a",
            "/ws/a",
            "/ws",
            "/sse/a",
            "/echo",
        ] {
            assert_eq!(
                (check(target, Method::Get), check(target, Method::Head)),
                (Ok(()), Ok(()))
            );
            assert_eq!(check(target, Method::Delete), Err((405, "GET, HEAD")));
        }
    }

    #[test]
    fn reserved_parameters() {
        let token = query_of("/ws/a?token=x%20y&b=1").get("token");
        assert_eq!(token, Ok(Some("x y".into())));
        assert_eq!(query_of("/ws/a").get("token"), Ok(None));
    }
}
