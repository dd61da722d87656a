//! Which of the server's resources a target names.
//!
//! Paths are compared as they were sent: an escaped letter in `/ws` makes it another path.

use crate::console;
use crate::http::query::Query;
use crate::http::refusal::{ALLOW_GET, ALLOW_GET_HEAD, ALLOW_POST, Refusal, RefusalHeaders};
use crate::http::request::Method;
use crate::topic::Topic;

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `GET /ws/{topic}` with an upgrade: one topic's payloads as messages.
    WebSocket(Topic),
    /// `GET /ws` with an upgrade: many topics on one connection.
    WebSocketMany,
    /// `GET /sse/{topic}`: one topic as an event stream.
    Sse(Topic),
    /// `POST /pub/{topic}`: publishes the body.
    Publish(Topic),
    /// `POST /pub`: publishes to the topics that the body names.
    PublishMany,
    /// `GET /topics`: which topics there are.
    Topics,
    /// `GET /topics/{topic}`: where one topic stands, and how many subscribers it has.
    Topic(Topic),
    /// `GET /health`: whether the process runs.
    Health,
    /// `GET /ready`: whether it takes connections.
    Ready,
    /// `GET /metrics`.
    Metrics,
    /// The console: `/`, `/console` and whatever lies under it, as a path.
    Asset(&'a str),
    /// Any other path: an endpoint of the embedding program's, or nothing.
    Path(&'a str),
}

impl<'a> Route<'a> {
    /// Reads a target in origin-form, as [`Head::target`](super::request::Head::target) is.
    ///
    /// # Errors
    ///
    /// 404 where a topic is missing, 400 and 414 for what is no topic.
    pub fn parse(target: &'a str) -> Result<Route<'a>, Refusal> {
        let (path, query) = split_target(target);
        let topic = |rest: &str, missing: &'static str| match rest {
            "" => Err(Refusal::not_found(missing)),
            _ => Topic::parse(rest, query),
        };
        match path {
            "/ws" => return Ok(Route::WebSocketMany),
            "/pub" => return Ok(Route::PublishMany),
            "/health" => return Ok(Route::Health),
            "/ready" => return Ok(Route::Ready),
            "/metrics" => return Ok(Route::Metrics),
            "/" | "/console" => return Ok(Route::Asset(path)),
            "/topics" => return Ok(Route::Topics),
            "/sse" => return Err(Refusal::not_found(MISSING_SSE)),
            _ => {}
        }
        if let Some(rest) = path.strip_prefix("/ws/") {
            topic(
                rest,
                "the topic is missing: GET /ws/{topic}, as in /ws/news",
            )
            .map(Route::WebSocket)
        } else if let Some(rest) = path.strip_prefix("/sse/") {
            topic(rest, MISSING_SSE).map(Route::Sse)
        } else if let Some(rest) = path.strip_prefix("/pub/") {
            topic(
                rest,
                "the topic is missing: POST /pub/{topic}, as in /pub/news",
            )
            .map(Route::Publish)
        } else if let Some(rest) = path.strip_prefix("/topics/") {
            topic(rest, "the topic is missing: GET /topics/{topic}, as in /topics/news; for all of them: GET /topics")
                .map(Route::Topic)
        } else if path.starts_with("/console/") {
            Ok(Route::Asset(path))
        } else {
            Ok(Route::Path(path))
        }
    }

    /// The header lines of a 405 for this resource.
    fn allow(&self) -> RefusalHeaders {
        match self {
            Route::WebSocket(_) | Route::WebSocketMany | Route::Sse(_) | Route::Path(_) => {
                ALLOW_GET
            }
            Route::Publish(_) | Route::PublishMany => ALLOW_POST,
            Route::Topics
            | Route::Topic(_)
            | Route::Health
            | Route::Ready
            | Route::Metrics
            | Route::Asset(_) => ALLOW_GET_HEAD,
        }
    }

    /// Checks the method. HEAD goes wherever a plain GET goes, so not to upgrades and streams.
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

const MISSING_SSE: &str = "the topic is missing: GET /sse/{topic}, as in /sse/news";

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
pub fn check_own_path(path: &str, bytes_max: usize) -> Result<(), String> {
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
    let owner = match Route::parse(path) {
        Ok(Route::Path(_)) if console::asset(path).is_some() => "a file of the server's is there",
        Ok(Route::Path(_)) => return Ok(()),
        Ok(Route::Asset(_)) => "the console is there",
        Ok(Route::WebSocket(_)) => "all of /ws/ is WebSockets of topics",
        Ok(Route::Sse(_)) => "all of /sse/ is event streams of topics",
        Ok(Route::Publish(_)) => "all of /pub/ is publishing to topics",
        Ok(Route::Topic(_)) => "all of /topics/ is what is known of topics",
        Ok(_) | Err(_) => "the server answers there itself",
    };
    Err(format!(
        "{owner}, so no request would reach this handler; take another path"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::from_text(text).expect("the test's topics are topics")
    }

    #[test]
    fn the_table_of_resources() {
        let one = "/ws/tokens?chain_id=100000&token=x";
        for (target, route) in [
            (one, Route::WebSocket(topic("tokens?chain_id=100000"))),
            (
                "/pub/tokens?chain_id=100000",
                Route::Publish(topic("tokens?chain_id=100000")),
            ),
            ("/sse/a/b%20c?last=5", Route::Sse(topic("a/b c"))),
            ("/ws/%2F", Route::WebSocket(topic("/"))),
            ("/ws//", Route::WebSocket(topic("/"))),
            ("/ws", Route::WebSocketMany),
            ("/ws?token=x", Route::WebSocketMany),
            ("/pub", Route::PublishMany),
            ("/topics", Route::Topics),
            ("/topics?limit=5", Route::Topics),
            (
                "/topics/tokens?chain_id=100000&token=x",
                Route::Topic(topic("tokens?chain_id=100000")),
            ),
            ("/health", Route::Health),
            ("/health?x", Route::Health),
            ("/ready", Route::Ready),
            ("/metrics", Route::Metrics),
            ("/", Route::Asset("/")),
            ("/?a", Route::Asset("/")),
            ("/console", Route::Asset("/console")),
            ("/console/app.js?v=1", Route::Asset("/console/app.js")),
            ("/echo", Route::Path("/echo")),
            ("/%77s/a", Route::Path("/%77s/a")),
            ("/WS/a", Route::Path("/WS/a")),
            ("/wsx", Route::Path("/wsx")),
            ("//ws/a", Route::Path("//ws/a")),
            ("/./ws/a", Route::Path("/./ws/a")),
            ("*", Route::Path("*")),
            ("", Route::Path("")),
        ] {
            assert_eq!(Route::parse(target), Ok(route), "{target}");
        }
    }

    #[test]
    fn a_missing_topic_shows_the_form() {
        for (target, form) in [
            ("/ws/", "/ws/{topic}"),
            ("/ws/?a=1", "/ws/{topic}"),
            ("/pub/", "/pub/{topic}"),
            ("/sse/", "/sse/{topic}"),
            ("/sse", "/sse/{topic}"),
            ("/topics/", "/topics/{topic}"),
        ] {
            let refusal = Route::parse(target).expect_err("a topic is missing");
            assert_eq!(refusal.status, 404, "{target}");
            assert!(refusal.reason.contains(form), "{refusal}");
        }
        // uvicorn CVE-2020-7694: control characters reach no topic, and no reason repeats them.
        for target in ["/ws/%1b[2J", "/pub/%0a", "/sse/a?b=%00"] {
            let refusal = Route::parse(target).expect_err("control characters are refused");
            assert_eq!((refusal.status, refusal.close), (400, false));
            assert!(!refusal.reason.contains(char::is_control));
        }
    }

    #[test]
    fn methods_by_resource() {
        let check = |target: &str, method: Method<'_>| {
            let route = Route::parse(target).expect("the test's targets are routes");
            route
                .check_method(method)
                .map_err(|refusal| (refusal.status, refusal.headers[0].1))
        };
        for target in ["/ws/a", "/ws", "/sse/a", "/echo"] {
            assert_eq!(check(target, Method::Get), Ok(()));
            assert_eq!(check(target, Method::Head), Err((405, "GET")));
            assert_eq!(check(target, Method::Post), Err((405, "GET")));
        }
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
