//! Arguments of `umbel sub`: a URL, or topics and patterns.

use umbel::internals::http::escape::escape;
use umbel::internals::http::query::{POSITION_PARAMETERS, Query};
use umbel::internals::hub::Position;
use umbel::internals::topic::{Pattern, Topic};

use super::super::url::{Scheme, Url, check_bare};

/// Target of a subscription.
#[derive(Debug)]
pub enum Target {
    /// A WebSocket, whose messages are publications.
    Socket(Url),
    /// An event stream.
    Stream(Url),
    /// Topics and patterns, on a server's `/ws`.
    Many(Url, Vec<Subscription>),
}

/// The name of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// One topic.
    Topic(String),
    /// All topics that match.
    Pattern(String),
}

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        match self {
            Name::Topic(name) | Name::Pattern(name) => name,
        }
    }
}

/// One of several subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// To what.
    pub name: Name,
    /// Number of earlier publications to begin with.
    pub last: Option<u32>,
    /// Position of the last publication so far.
    pub position: Option<String>,
}

impl Target {
    /// Reads the arguments. Names without a URL are on `server`.
    ///
    /// # Errors
    /// Says what is wrong and what to write instead.
    pub fn parse(arguments: &[&str], server: &str) -> Result<Target, String> {
        if let Some(url) = arguments.iter().find(|text| text.contains("://")) {
            let url = Url::parse(url, Scheme::WebSocket, server)?;
            return match arguments.len() {
                1 => by_url(url),
                _ => Err(several_topics(&url)),
            };
        }
        let mut parameters: Vec<&str> = Vec::new();
        let mut subscriptions: Vec<Subscription> = Vec::new();
        for text in arguments {
            let subscription = Subscription::parse(text)?;
            for parameter in of_connection(text) {
                let is_there = |own: &&str| name_of(own) == name_of(parameter);
                if !parameters.iter().any(is_there) {
                    parameters.push(parameter);
                }
            }
            if !subscriptions
                .iter()
                .any(|own| own.name == subscription.name)
            {
                subscriptions.push(subscription);
            }
        }
        let mark = if parameters.is_empty() { "" } else { "?" };
        let target = format!("/ws{mark}{}", parameters.join("&"));
        let url = Url::on_server(server, Scheme::WebSocket, &target)?;
        Ok(Target::Many(url, subscriptions))
    }

    /// Whether a line of what is printed has to say its topic.
    pub fn has_topics(&self) -> bool {
        match self {
            Target::Socket(_) | Target::Stream(_) => false,
            Target::Many(_, subscriptions) => {
                let first = subscriptions.first().map(|own| &own.name);
                subscriptions.len() > 1 || matches!(first, Some(Name::Pattern(_)))
            }
        }
    }
}

fn several_topics(url: &Url) -> String {
    format!(
        "several topics are named without a URL: umbel sub --server {} TOPIC 'PATTERN/*'",
        url.server()
    )
}

/// The parameters behind a topic that are the connection's: its token and what others see of it.
fn of_connection(text: &str) -> impl Iterator<Item = &str> {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    let is_own = |parameter: &&str| matches!(name_of(parameter), "token" | "access_token" | "info");
    query.split('&').filter(is_own)
}

fn name_of(parameter: &str) -> &str {
    parameter.split('=').next().unwrap_or_default()
}

/// Suggestion for a URL without a topic.
pub fn which_topic(url: &Url) -> String {
    let (http, ws) = (url.origin(Scheme::Http), url.origin(Scheme::WebSocket));
    let server = url.server();
    format!(
        "which topic? Write {ws}/ws/TOPIC or {http}/sse/TOPIC, or umbel sub --server {server} TOPIC"
    )
}

/// What is at a URL, by its path.
fn by_url(url: Url) -> Result<Target, String> {
    let (http, ws) = (url.origin(Scheme::Http), url.origin(Scheme::WebSocket));
    let path = url.target.split('?').next().unwrap_or_default().to_owned();
    let (room, rest) = match path[1..].split_once('/') {
        Some((room, rest)) => (room, rest),
        None => (&path[1..], ""),
    };
    let both = |topic: &str| format!("{ws}/ws/{topic} or {http}/sse/{topic}");
    match (room, rest, url.scheme) {
        ("", "", Scheme::Http) => Err(format!("{url}: {}", which_topic(&url))),
        ("ws", "", _) => Err(format!("{url}: {}", several_topics(&url))),
        ("sse", "", _) => Err(format!("{url}: the topic is missing: {}", both("TOPIC"))),
        ("pub", "", _) => Err(format!("{url} is where to publish; use {}", both("TOPIC"))),
        ("pub", topic, _) => Err(format!("{url} is where to publish; use {}", both(topic))),
        ("topics" | "metrics" | "health" | "ready", ..) => {
            Err(format!("{url} is no subscription; use {}", both("TOPIC")))
        }
        ("ws", topic, Scheme::Http) => Err(format!(
            "{url} is a WebSocket: use {ws}/ws/{topic}, or {http}/sse/{topic} for events"
        )),
        ("sse", topic, Scheme::WebSocket) => Err(format!(
            "{url} is an event stream: use {http}/sse/{topic}, or {ws}/ws/{topic}"
        )),
        (_, _, Scheme::Http) => Ok(Target::Stream(url)),
        (_, _, Scheme::WebSocket) => Ok(Target::Socket(url)),
    }
}

impl Subscription {
    /// Reads a topic, with where to begin in its query as in `news?last=10`, or a pattern.
    fn parse(text: &str) -> Result<Subscription, String> {
        check_bare(text)?;
        let shown = escape(text);
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let parameter = |name| {
            let value = Query(query).get(name);
            value.map_err(|refusal| format!("{shown}: {}", refusal.reason))
        };
        let last = parameter("last")?
            .map(|last| last.parse())
            .transpose()
            .map_err(|_| format!("{shown}: last= is a whole number, as in last=10"))?;
        let mut since = parameter("since")?.map(String::from);
        for name in POSITION_PARAMETERS {
            let position = parameter(name)?.filter(|position| !position.is_empty());
            since = since.or(position.map(String::from));
        }
        if since
            .as_deref()
            .is_some_and(|since| Position::parse(since).is_none())
        {
            return Err(format!(
                "{shown}: since= is a position as --json prints it, such as 00000000000000a1:17"
            ));
        }
        if since.is_some() && last.is_some() {
            return Err(format!(
                "{shown}: since= and last= contradict each other; give one of the two"
            ));
        }
        if !path.contains('*') {
            let topic = Topic::from_text(text).map_err(|refusal| {
                format!(
                    "\"{shown}\" is neither a URL (ws://, http://) nor a topic: {}",
                    refusal.reason
                )
            })?;
            return Ok(Subscription {
                name: Name::Topic(topic.as_str().to_owned()),
                last,
                position: since,
            });
        }
        if since.or(last.map(|_| String::new())).is_some() {
            return Err(format!(
                "{shown}: a pattern begins with what comes next, so it has no since= and no last="
            ));
        }
        let pattern = Pattern::parse(text).map_err(|error| format!("{shown}: {error}"))?;
        Ok(Subscription {
            name: Name::Pattern(pattern.as_str().to_owned()),
            last: None,
            position: None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Target, String> {
        Target::parse(arguments, "127.0.0.1:8080")
    }

    #[test]
    fn topics_and_patterns_on_server() {
        let since = "t?since=00000000000000a1:17&b=2&a=1";
        let target = parse(&["news?last=10", "a/*", since, "a/*"]).unwrap();
        assert!(target.has_topics());
        let Target::Many(url, subscriptions) = target else {
            panic!("they share a connection");
        };
        assert_eq!(url.to_string(), "ws://127.0.0.1:8080/ws");
        let subscription = |name, last, position: Option<&str>| Subscription {
            name,
            last,
            position: position.map(str::to_owned),
        };
        let expected = [
            subscription(Name::Topic("news".to_owned()), Some(10), None),
            subscription(Name::Pattern("a/*".to_owned()), None, None),
            subscription(
                Name::Topic("t?a=1&b=2".to_owned()),
                None,
                Some("00000000000000a1:17"),
            ),
        ];
        assert_eq!(subscriptions, expected);
        assert!(!parse(&["news"]).unwrap().has_topics());
        let Ok(Target::Many(url, _)) = parse(&["a", "b?token=x y&c&info=me", "d?token=z"]) else {
            panic!("a topic may have a token behind it");
        };
        assert_eq!(url.target, "/ws?token=x%20y&info=me");
        let Ok(Target::Many(_, subscriptions)) = parse(&["a?lastEventId=00000000000000a1:17"])
        else {
            panic!("a position has several names");
        };
        assert_eq!(
            subscriptions,
            [subscription(
                Name::Topic("a".to_owned()),
                None,
                Some("00000000000000a1:17")
            )]
        );
        assert!(parse(&["**"]).unwrap().has_topics());
    }

    #[test]
    fn kinds_of_urls() {
        for url in [
            "ws://a/ws/x?last=5",
            "ws://a/echo",
            "ws://a/metrics/x",
            "ws://a/wsx",
        ] {
            let is_socket = matches!(parse(&[url]), Ok(Target::Socket(_)));
            assert_eq!(is_socket, !url.contains("metrics"), "{url}");
        }
        for url in ["http://a/sse/x", "http://a/events", "HTTP://a/x?y"] {
            assert!(matches!(parse(&[url]), Ok(Target::Stream(_))), "{url}");
        }
    }

    #[test]
    fn error_remedies() {
        for (arguments, part) in [
            (&["http://a/ws/x"][..], "use ws://a/ws/x, or http://a/sse/x"),
            (&["ws://a/sse/x/y"], "use http://a/sse/x/y"),
            (
                &["http://a:1/pub/x"],
                "use ws://a:1/ws/x or http://a:1/sse/x",
            ),
            (&["http://a:8080"], "umbel sub --server a:8080 TOPIC"),
            (&["ws://a/ws"], "umbel sub --server a TOPIC"),
            (&["ws://a/ws/x", "y"], "umbel sub --server a TOPIC"),
            (&["http://a/sse/"], "http://a/sse/TOPIC"),
            (&["https://a/ws/x"], "use wss://a/ws/x, or https://a/sse/x"),
            (&["localhost:8080/ws/news"], "ws://localhost:8080/ws/news"),
            (&["a/*?last=5"], "no last="),
            (&["a/b*"], "whole segment"),
            (&["a?last=x"], "last=10"),
            (&["a?since=5"], "00000000000000a1:17"),
            (&["a?since=00000000000000a1:17&last=1"], "contradict"),
            (&[""], "the topic is empty"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    }
}
