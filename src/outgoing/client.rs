//! Requests by HTTP to one target, with hard limits.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use ureq::config::Config;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, Error, Proxy};

use super::address::{self, Plain};
use super::target::Target;

/// Age of an unused connection at which it is closed: less than the five seconds after which common servers close theirs,
/// so that no request meets such an end.
const IDLE_AGE: Duration = Duration::from_secs(4);

/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Settings of a client.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// URL that is asked.
    pub target: Target,
    /// Time for all of a request, redirects included.
    pub timeout: Duration,
    /// Bytes of an answer's body.
    pub body_bytes_max: usize,
    /// Redirects within the origin that are followed.
    pub redirects_max: u32,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Proxy that requests go by. None: whatever the environment says, by none.
    pub proxy: Option<String>,
    /// Connections that are kept.
    pub idle_max: usize,
}

/// Client of one target.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    settings: ClientSettings,
}

/// Answer to a request, whole.
#[derive(Debug)]
pub struct Answered {
    /// The status code.
    pub status: u16,
    /// Its header lines.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answered {
    /// Value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Failure of a request: there is no answer.
#[derive(Debug)]
pub enum RequestError {
    /// There was none in time.
    TimedOut,
    /// It was longer than it may be.
    TooLong,
    /// It was a redirect that is not followed.
    Redirected(String),
    /// Whatever else went wrong.
    Failed(String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::TimedOut => f.write_str("there was no answer in time"),
            RequestError::TooLong => f.write_str("the answer was longer than it may be"),
            RequestError::Redirected(why) | RequestError::Failed(why) => f.write_str(why),
        }
    }
}

impl From<Error> for RequestError {
    fn from(error: Error) -> RequestError {
        match error {
            Error::Timeout(_) => RequestError::TimedOut,
            Error::BodyExceedsLimit(_) => RequestError::TooLong,
            other => RequestError::Failed(other.to_string()),
        }
    }
}

impl Client {
    /// A client. It has no connection yet.
    ///
    /// # Errors
    /// The proxy is none, or the certificates cannot be read; with the setting that is wrong.
    pub fn new(settings: ClientSettings) -> Result<Client, (&'static str, String)> {
        let proxy = settings.proxy.as_deref().map(parse_proxy).transpose();
        let proxy = proxy.map_err(|why| ("outgoing_proxy", why))?;
        let via_proxy = proxy.as_ref().map(|it| it.host().to_owned());
        let mut config = Agent::config_builder()
            .proxy(proxy)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("umbel/", env!("CARGO_PKG_VERSION")))
            .accept("application/json")
            .max_response_header_size(HEAD_BYTES_MAX)
            .max_idle_age(IDLE_AGE)
            .max_idle_connections(settings.idle_max)
            .max_idle_connections_per_host(settings.idle_max)
            .timeout_global(Some(settings.timeout));
        if settings.target.plain().is_none() {
            config = config.tls_config(tls(settings.ca_file.as_deref())?);
        }
        let agent = agent(config.build(), &settings.target, via_proxy);
        Ok(Client { agent, settings })
    }

    /// URL that is asked.
    pub fn target(&self) -> &Target {
        &self.settings.target
    }

    /// Sends a body of JSON to a path below the target's.
    ///
    /// # Errors
    /// There is no answer.
    pub fn post(
        &self,
        segment: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answered, RequestError> {
        let mut request = self
            .agent
            .post(self.settings.target.join(segment))
            .header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.read(request.send(body)?)
    }

    /// Fetches the target itself.
    ///
    /// # Errors
    /// There is no answer, or one that leads to another origin.
    pub fn get(&self, headers: &[(&str, &str)]) -> Result<Answered, RequestError> {
        let (target, begun) = (&self.settings.target, Instant::now());
        let mut uri: Uri = target.uri().clone();
        for _ in 0..=self.settings.redirects_max {
            let left = self.settings.timeout.checked_sub(begun.elapsed());
            let left = left.ok_or(RequestError::TimedOut)?;
            let mut request = self.agent.get(uri.clone());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.config().timeout_global(Some(left)).build();
            let response = request.call()?;
            let location = response.headers().get("location");
            let location = location.filter(|_| is_redirect(response.status().as_u16()));
            let Some(location) = location else {
                return self.read(response);
            };
            let location = location.to_str().unwrap_or_default();
            let redirected = target.redirected(&uri, location);
            uri = redirected.map_err(RequestError::Redirected)?;
        }
        let why = format!(
            "it redirects more than {} times",
            self.settings.redirects_max
        );
        Err(RequestError::Redirected(why))
    }

    fn read(&self, response: Response<Body>) -> Result<Answered, RequestError> {
        let (parts, body) = response.into_parts();
        let limit = self.settings.body_bytes_max as u64;
        let body = body.into_with_config().limit(limit).read_to_vec()?;
        Ok(Answered {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

fn agent(config: Config, target: &Target, via_proxy: Option<String>) -> Agent {
    let resolver = CheckedResolver {
        plain: target.plain(),
        via_proxy,
        resolver: DefaultResolver::default(),
    };
    #[cfg(unix)]
    if let Some(path) = target.unix() {
        let path = path.clone();
        return Agent::with_parts(config, super::unix::UnixConnector { path }, resolver);
    }
    Agent::with_parts(config, DefaultConnector::default(), resolver)
}

/// Reads the URL of a proxy.
///
/// # Errors
/// It is none that speaks HTTP.
pub fn parse_proxy(text: &str) -> Result<Proxy, String> {
    let form = "it must be http://HOST:PORT";
    if !text.starts_with("http://") {
        return Err(form.to_owned());
    }
    Proxy::new(text).map_err(|_| form.to_owned())
}

/// TLS with our provider, which trusts the certificates of the file, or those of the system.
fn tls(ca_file: Option<&Path>) -> Result<TlsConfig, (&'static str, String)> {
    let of_der = |der: CertificateDer<'static>| Certificate::from_der(&der).to_owned();
    let certificates: Vec<_> = match ca_file {
        Some(file) => {
            let wrong = |error: rustls_pki_types::pem::Error| {
                let why = format!("{} cannot be read: {error}", file.display());
                ("ca_file", why)
            };
            let certificates = CertificateDer::pem_file_iter(file).map_err(wrong)?;
            let certificates = certificates.map(|it| it.map(of_der).map_err(wrong));
            certificates.collect::<Result<_, _>>()?
        }
        None => {
            let native = rustls_native_certs::load_native_certs();
            native.certs.into_iter().map(of_der).collect()
        }
    };
    if certificates.is_empty() {
        let why = match ca_file {
            Some(file) => format!("{} holds no certificate in PEM", file.display()),
            None => "the system has no certificates that could be trusted; install them (ca-certificates), or name a file"
                .to_owned(),
        };
        return Err(("ca_file", why));
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .root_certs(RootCerts::from(certificates))
        .build())
}

/// Resolves names, and passes over the addresses that may not be asked.
#[derive(Debug)]
struct CheckedResolver {
    plain: Option<Plain>,
    /// Host of the proxy, which is asked for the proxy alone.
    via_proxy: Option<String>,
    resolver: DefaultResolver,
}

impl Resolver for CheckedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        });
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        // An address needs no thread to look it up.
        let found = match literal.parse::<IpAddr>() {
            Ok(address) => {
                let mut one = self.empty();
                one.push(SocketAddr::new(address, port));
                one
            }
            Err(_) => self.resolver.resolve(uri, config, timeout)?,
        };
        let is_proxy = self.via_proxy.as_deref() == Some(host);
        let plain = self.plain.filter(|_| !is_proxy);
        let (mut allowed, mut why) = (self.empty(), None);
        for found in &found {
            match address::check(found.ip(), plain) {
                Ok(()) => allowed.push(*found),
                Err(refused) => why = Some((found.ip(), refused)),
            }
        }
        match (allowed.is_empty(), why) {
            (false, _) => Ok(allowed),
            (true, Some((address, why))) => {
                let why = format!("{host} is {address}: {why}");
                Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why).into())
            }
            (true, None) => Err(Error::HostNotFound),
        }
    }
}

#[cfg(test)]
mod tests;
