//! Settings of a run, from its arguments, checked.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use umbel::internals::http::response::is_header;

use super::arguments::Mode;
use super::stamp::{PUBLISHERS_MAX, STAMP_BYTES};
use super::template::{TOPIC, Template, topic_name};
use super::wire::Secured;
#[cfg(feature = "tls")]
use crate::cli::trust;
use crate::cli::url::{DEFAULT_SERVER, Scheme, Url};

/// Connections that one source address is good for: the ports that Linux gives out by default, without a reserve.
const CONNECTIONS_PER_ADDRESS: usize = 27_000;
/// Descriptors beside those of connections.
const OTHER_DESCRIPTORS: u64 = 64;
/// Bytes of a payload.
const SIZE_BYTES_MAX: u64 = 16 << 20;
/// Threads of each kind.
const THREADS_MAX: u64 = 1024;
/// Source addresses, so that they stay in 127.0.0.0/16.
const SOURCE_ADDRESSES_MAX: u64 = 60_000;
/// Connects of storm that may be on their way at a time.
pub const STORM_CONNECTS_MAX: usize = 1024;

/// Pace of messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many a second, all together.
    Rate(f64),
    /// When fewer than so many are on their way.
    InFlight(u64),
}

/// Length of the measured part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So long.
    Time(Duration),
    /// So many messages, all together.
    Count(u64),
}

/// Way of publishing.
#[derive(Clone, Debug)]
pub enum Publish {
    /// As messages like this on the server's URL.
    Message(Template),
    /// With `POST` to this URL, in which [`TOPIC`] stands for the topic.
    Post(String),
}

/// A run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    /// The URL, in which [`TOPIC`] stands for the topic.
    pub url: String,
    pub address: SocketAddr,
    /// Terms of handshakes with it, if it speaks TLS.
    pub secured: Secured,
    pub connections: usize,
    pub topics: usize,
    /// Publishers of each topic.
    pub publishers: usize,
    pub size_bytes: usize,
    pub pace: Pace,
    pub length: Length,
    pub warmup: Duration,
    /// The share of subscribers that stop reading.
    pub stalled: f64,
    pub threads: usize,
    pub connect_rate: f64,
    pub source_addresses: usize,
    pub publish: Publish,
    /// Address of [`Publish::Post`].
    pub publish_address: SocketAddr,
    /// Terms of handshakes with it, if it speaks TLS.
    pub publish_secured: Secured,
    pub subscribe: Option<Template>,
    pub hello: Option<Template>,
    pub is_binary: bool,
    pub searches_frames: bool,
    /// Whether compression is offered.
    pub offers_deflate: bool,
    pub headers: Vec<(String, String)>,
    /// `Authorization` of connections, in turn.
    pub bearers: Vec<String>,
    pub subprotocols: Vec<String>,
    pub pids: Vec<u32>,
    pub is_json: bool,
    pub plot: Option<PathBuf>,
}

impl Settings {
    /// Reads and checks the arguments.
    ///
    /// # Errors
    /// Name the argument and the way out.
    pub fn from_matches(matches: &ArgMatches) -> Result<Settings, String> {
        let mode = *matches.get_one::<Mode>("mode").expect("it is required");
        let text = |name| matches.get_one::<String>(name).map(String::as_str);
        let url = text("url").map_or_else(|| default_url(mode), str::to_owned);
        let is_remote_allowed = matches.get_flag("allow-remote");
        let parsed = topic_url(&url, Scheme::WebSocket, 0)?;
        let (address, secured) = (resolve(&parsed, is_remote_allowed)?, secured(&parsed)?);
        let publish = publish(text("publish").unwrap_or("ws"))?;
        let (publish_address, publish_secured) = match &publish {
            Publish::Post(url) => {
                let parsed = topic_url(url, Scheme::Http, 0)?;
                (
                    resolve(&parsed, is_remote_allowed)?,
                    self::secured(&parsed)?,
                )
            }
            Publish::Message(_) => (address, secured.clone()),
        };
        let connections = count(matches, "connections", u64::from(u32::MAX))?;
        let connections = connections.unwrap_or(default_connections(mode));
        let settings = Settings {
            mode,
            url,
            address,
            secured,
            connections,
            topics: count(matches, "topics", u64::from(u32::MAX))?.unwrap_or(1),
            publishers: count(matches, "publishers", u64::from(u32::MAX))?.unwrap_or(1),
            size_bytes: size_bytes(matches, mode)?,
            pace: pace(matches, mode),
            length: match matches.get_one::<u64>("count") {
                Some(count) => Length::Count(*count),
                None => Length::Time(duration(matches, "duration")),
            },
            warmup: duration(matches, "warmup"),
            stalled: match (mode, matches.get_one::<f64>("stalled")) {
                (Mode::Stall, share) => share.copied().unwrap_or(0.1),
                (_, None) => 0.0,
                (_, Some(_)) => {
                    return Err(format!("--stalled has no meaning for {}", mode.name()));
                }
            },
            threads: count(matches, "threads", THREADS_MAX)?.unwrap_or(1),
            connect_rate: *matches.get_one("connect-rate").expect("it has a default"),
            source_addresses: source_addresses(matches, address, connections)?,
            publish,
            publish_address,
            publish_secured,
            subscribe: template(text("subscribe"), "subscribe")?,
            hello: template(text("hello"), "hello")?,
            is_binary: matches.get_flag("binary"),
            searches_frames: matches.get_flag("search-frames"),
            offers_deflate: matches.get_flag("deflate"),
            headers: headers(matches)?,
            bearers: bearers(matches)?,
            subprotocols: all(matches, "subprotocol"),
            pids: matches
                .get_many("pid")
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            is_json: matches.get_flag("json"),
            plot: matches.get_one::<PathBuf>("plot").cloned(),
        };
        settings.check()?;
        Ok(settings)
    }

    /// Checks what depends on more than one argument.
    fn check(&self) -> Result<(), String> {
        if self.size_bytes < STAMP_BYTES {
            return Err(format!(
                "--size {}: a payload holds a stamp of {STAMP_BYTES} bytes; give at least that",
                self.size_bytes
            ));
        }
        let names_topic = self.url.contains(TOPIC)
            || self
                .subscribe
                .as_ref()
                .is_some_and(|template| template.names_topic());
        if self.topics > 1 && !names_topic {
            return Err(
                "--topics: nothing tells the server which; put {topic} into URL or --subscribe"
                    .to_owned(),
            );
        }
        if self.topics > self.connections {
            return Err(format!(
                "--topics {}: there are only {} connections to subscribe to them",
                self.topics, self.connections
            ));
        }
        if self.publisher_count() > PUBLISHERS_MAX {
            return Err(format!(
                "{} publishers are too many; {PUBLISHERS_MAX} are allowed",
                self.publisher_count()
            ));
        }
        if self.mode == Mode::Idle && self.plot.is_some() {
            return Err("--plot: idle sends nothing that could be drawn; leave it out".to_owned());
        }
        if matches!(self.mode, Mode::Idle | Mode::Storm) && matches!(self.length, Length::Count(_))
        {
            return Err(format!(
                "--count has no meaning for {}; give --duration",
                self.mode.name()
            ));
        }
        Ok(())
    }

    /// Publishers of all topics; of echo, the connections.
    pub fn publisher_count(&self) -> usize {
        match self.mode {
            Mode::Echo => self.connections,
            Mode::Fanout | Mode::Stall => self.topics.saturating_mul(self.publishers),
            Mode::Idle | Mode::Storm => 0,
        }
    }

    /// Sockets that may be open at a time.
    pub fn sockets(&self) -> usize {
        let more = match self.mode {
            Mode::Echo | Mode::Idle => 0,
            Mode::Storm => STORM_CONNECTS_MAX,
            Mode::Fanout | Mode::Stall => self.publisher_count(),
        };
        self.connections.saturating_add(more)
    }

    /// Raises the limit of descriptors as far as needed.
    ///
    /// # Errors
    /// When the hard limit is too low.
    pub fn raise_descriptors(&self) -> Result<(), String> {
        let wanted = self.sockets() as u64 + OTHER_DESCRIPTORS;
        let allowed = rlimit::increase_nofile_limit(wanted)
            .map_err(|error| format!("the limit of open files cannot be raised: {error}"))?;
        if allowed < wanted {
            let other = wanted - self.connections as u64;
            return Err(format!(
                "--connections {}: they need {wanted} descriptors, and this process may have {allowed}; give at most \
                 {}, or raise the hard limit (ulimit -Hn, LimitNOFILE=, prlimit)",
                self.connections,
                allowed.saturating_sub(other)
            ));
        }
        Ok(())
    }
}

/// The URL of one topic.
pub fn topic_url(url: &str, scheme: Scheme, topic: usize) -> Result<Url, String> {
    if !url.contains("://") {
        return Err(format!(
            "{url:?} is no URL: write ws://HOST:PORT/PATH, and http:// for --publish"
        ));
    }
    let parsed = Url::parse(
        &url.replace(TOPIC, &topic_name(topic)),
        scheme,
        DEFAULT_SERVER,
    )?;
    match (scheme, parsed.scheme == scheme) {
        (_, true) => Ok(parsed),
        (Scheme::WebSocket, false) => Err(format!(
            "{parsed}: the server's URL begins with ws:// or wss://"
        )),
        (Scheme::Http, false) => Err(format!(
            "{parsed}: the URL to publish to begins with http:// or https://"
        )),
    }
}

fn default_url(mode: Mode) -> String {
    match mode {
        Mode::Echo => format!("ws://{DEFAULT_SERVER}/echo"),
        _ => format!("ws://{DEFAULT_SERVER}/ws/{TOPIC}"),
    }
}

fn default_connections(mode: Mode) -> usize {
    match mode {
        Mode::Fanout | Mode::Storm => 1000,
        Mode::Echo => 100,
        Mode::Idle => 10_000,
        Mode::Stall => 50,
    }
}

fn resolve(url: &Url, is_remote_allowed: bool) -> Result<SocketAddr, String> {
    let mut addresses = (&*url.host, url.port)
        .to_socket_addrs()
        .map_err(|error| format!("{url}: the host's name has no address: {error}"))?;
    let address = addresses
        .next()
        .ok_or_else(|| format!("{url}: the host's name has no address"))?;
    if !address.ip().is_loopback() && !is_remote_allowed {
        return Err(format!(
            "{url} is on another machine; if that machine is yours to load, add --allow-remote"
        ));
    }
    Ok(address)
}

/// Terms of handshakes with a server, each of which is a full one.
#[cfg(feature = "tls")]
fn secured(url: &Url) -> Result<Secured, String> {
    if !url.is_secure {
        return Ok(None);
    }
    let name = rustls::pki_types::ServerName::try_from(url.host.clone());
    let name = name.map_err(|_| format!("{url}: this host has no name that TLS knows"))?;
    Ok(Some((trust::client_config_without_resumption()?, name)))
}

#[cfg(not(feature = "tls"))]
#[expect(clippy::unnecessary_wraps, reason = "the other build may fail")]
fn secured(_: &Url) -> Result<Secured, String> {
    Ok(())
}

fn publish(how: &str) -> Result<Publish, String> {
    if how == "ws" {
        return Ok(Publish::Message(Template::bare()));
    }
    if how.starts_with("http://") || how.starts_with("https://") {
        return Ok(Publish::Post(how.to_owned()));
    }
    let template = Template::parse(how).map_err(|error| format!("--publish: {error}"))?;
    if !template.names_payload() {
        return Err(format!(
            "--publish {how:?}: it is neither ws nor http://..., and as a template lacks {{payload}}"
        ));
    }
    Ok(Publish::Message(template))
}

fn template(text: Option<&str>, name: &str) -> Result<Option<Template>, String> {
    let template = text.map(Template::parse).transpose();
    template.map_err(|error| format!("--{name}: {error}"))
}

fn count(matches: &ArgMatches, name: &str, max: u64) -> Result<Option<usize>, String> {
    let Some(&count) = matches.get_one::<u64>(name) else {
        return Ok(None);
    };
    match count <= max {
        true => Ok(Some(count as usize)),
        false => Err(format!("--{name} {count}: at most {max} are allowed")),
    }
}

fn size_bytes(matches: &ArgMatches, mode: Mode) -> Result<usize, String> {
    let default = match mode {
        Mode::Stall => 4096,
        _ => 64,
    };
    Ok(count(matches, "size", SIZE_BYTES_MAX)?.unwrap_or(default))
}

fn pace(matches: &ArgMatches, mode: Mode) -> Pace {
    let rate = matches.get_one::<f64>("rate").copied();
    let in_flight = matches.get_one::<u64>("in-flight").copied();
    match (rate, in_flight, mode) {
        (Some(rate), _, _) => Pace::Rate(rate),
        (None, Some(in_flight), _) => Pace::InFlight(in_flight),
        (None, None, Mode::Storm) => Pace::Rate(1000.0),
        (None, None, Mode::Stall) => Pace::Rate(500.0),
        (None, None, _) => Pace::InFlight(1),
    }
}

fn duration(matches: &ArgMatches, name: &str) -> Duration {
    *matches.get_one(name).expect("it has a default")
}

fn source_addresses(
    matches: &ArgMatches,
    address: SocketAddr,
    connections: usize,
) -> Result<usize, String> {
    let wanted = connections.div_ceil(CONNECTIONS_PER_ADDRESS);
    let is_local = address.is_ipv4() && address.ip().is_loopback();
    match count(matches, "source-addresses", SOURCE_ADDRESSES_MAX)? {
        Some(given) if given > 1 && !is_local => Err(format!(
            "--source-addresses {given}: only to a server in 127.0.0.0/8 can connections come from several"
        )),
        Some(given) => Ok(given),
        None if is_local => Ok(wanted),
        None => Ok(1),
    }
}

fn headers(matches: &ArgMatches) -> Result<Vec<(String, String)>, String> {
    let lines = all(matches, "header");
    let parsed = lines.iter().map(|line| {
        let parts = line
            .split_once(':')
            .map(|(name, value)| (name, value.trim()));
        match parts.filter(|(name, value)| is_header(name, value)) {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!("--header {line:?}: write it as 'Name: value'")),
        }
    });
    parsed.collect()
}

/// `Authorization` of each token. They are shown to nobody else, so none is taken from the command line.
fn bearers(matches: &ArgMatches) -> Result<Vec<String>, String> {
    let Some(given) = matches.get_one::<String>("token") else {
        return Ok(Vec::new());
    };
    let Some(path) = given.strip_prefix('@') else {
        return Err(
            "--token: write it as @FILE, for others see what stands on a command line".to_owned(),
        );
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("--token @{path}: {error}"))?;
    let tokens = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let bearers: Vec<String> = tokens.map(|token| format!("Bearer {token}")).collect();
    let is_bad = |bearer: &String| !is_header("Authorization", bearer);
    match bearers.iter().position(is_bad) {
        Some(line) => Err(format!("--token @{path}: token {} is none", line + 1)),
        None if bearers.is_empty() => Err(format!("--token @{path}: there is no token in it")),
        None => Ok(bearers),
    }
}

fn all(matches: &ArgMatches, name: &str) -> Vec<String> {
    let values = matches.get_many::<String>(name);
    values.into_iter().flatten().cloned().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bench::arguments::command;

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        let line = std::iter::once("bench").chain(arguments.iter().copied());
        Settings::from_matches(&command().get_matches_from(line))
    }

    #[test]
    fn defaults_depend_on_the_mode() {
        let fanout = parse(&["fanout"]).unwrap();
        assert_eq!(fanout.url, "ws://127.0.0.1:8080/ws/{topic}");
        assert_eq!((fanout.connections, fanout.pace), (1000, Pace::InFlight(1)));
        assert_eq!((fanout.source_addresses, fanout.sockets()), (1, 1001));
        let echo = parse(&["echo", "-r", "5k"]).unwrap();
        assert_eq!(echo.pace, Pace::Rate(5000.0));
        assert_eq!((echo.publisher_count(), echo.sockets()), (100, 100));
        let storm = parse(&["storm", "--connections", "60k"]).unwrap();
        assert_eq!(
            (storm.pace, storm.source_addresses),
            (Pace::Rate(1000.0), 3)
        );
        let stall = parse(&["stall", "--topics", "5", "--publishers", "2"]).unwrap();
        assert_eq!((stall.publisher_count(), stall.size_bytes), (10, 4096));
    }

    #[test]
    fn errors_name_the_argument_and_the_way_out() {
        for (arguments, parts) in [
            (
                &["fanout", "ws://192.0.2.1/"][..],
                &["192.0.2.1", "--allow-remote"][..],
            ),
            (&["fanout", "-s", "19"], &["--size 19", "20"]),
            (
                &["fanout", "ws://[::1]/x", "--topics", "2"],
                &["--topics", "{topic}"],
            ),
            (
                &["fanout", "-c", "2", "--topics", "3"],
                &["--topics 3", "2 connections"],
            ),
            (&["fanout", "news"], &["news", "ws://HOST:PORT/PATH"]),
            (&["fanout", "http://127.0.0.1/"], &["ws://"]),
            (&["fanout", "--publish", "{x}"], &["--publish", "{payload}"]),
            (
                &["fanout", "--publish", "wss://127.0.0.1/"],
                &["--publish", "{payload}"],
            ),
            (&["fanout", "--header", "x"], &["--header", "'Name: value'"]),
            (&["echo", "--stalled", "0.5"], &["--stalled", "echo"]),
            (&["idle", "--plot", "x.svg"], &["--plot", "idle"]),
            (&["idle", "-n", "5"], &["--count", "--duration"]),
            (
                &["idle", "ws://[::1]/x", "--source-addresses", "2"],
                &["--source-addresses 2", "127.0.0.0/8"],
            ),
        ] {
            let error = parse(arguments).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{arguments:?}: {error}");
            }
        }
    }

    #[test]
    fn too_many_connections_are_refused_with_what_would_be_allowed() {
        let error = parse(&["idle", "-c", "2000M"]).unwrap().raise_descriptors();
        let error = error.unwrap_err();
        assert!(
            error.contains("give at most") && error.contains("ulimit -Hn"),
            "{error}"
        );
    }
}
