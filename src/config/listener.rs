//! Listeners: where a server takes connections, and what each of them shows.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::proxies::{Proxies, parse_flag};
use super::{ClientCertificates, ConfigError};

/// Most listeners of one server.
pub const LISTENERS_MAX: usize = 64;

/// Most bytes of a listener's name, as systemd has it for `FileDescriptorName=`.
const NAME_BYTES_MAX: usize = 255;

/// The permissions of a unix socket, if nothing else is said: its owner and its group may connect.
pub const UNIX_MODE: u32 = 0o660;

/// Address of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenAddress {
    /// An IP address and a port. Port 0 lets the system choose. `[::]` takes IPv4 too.
    Tcp(SocketAddr),
    /// Both addresses of this machine alone, `127.0.0.1` and `::1`, on one port. Where there is no IPv6, the first of them.
    Localhost(u16),
    /// A unix socket.
    Unix {
        /// Where in the file system.
        path: PathBuf,
        /// Who may connect, as permissions of the file.
        mode: u32,
        /// Group of the file, by its name or its number. None: that of the process.
        group: Option<String>,
    },
    /// Sockets that the process has inherited under this name, as from a socket unit of systemd.
    Inherited(String),
}

impl ListenAddress {
    /// A unix socket at this path, with [`UNIX_MODE`].
    pub fn unix(path: impl Into<PathBuf>) -> ListenAddress {
        ListenAddress::Unix {
            path: path.into(),
            mode: UNIX_MODE,
            group: None,
        }
    }

    /// Whether nobody but programs of this machine can reach it over TCP.
    pub fn is_loopback(&self) -> bool {
        match self {
            ListenAddress::Tcp(address) => address.ip().is_loopback(),
            ListenAddress::Localhost(_) => true,
            ListenAddress::Unix { .. } | ListenAddress::Inherited(_) => false,
        }
    }

    /// Whether two listeners may have it: each gets another port.
    fn is_chosen_by_the_system(&self) -> bool {
        match self {
            ListenAddress::Tcp(address) => address.port() == 0,
            ListenAddress::Localhost(port) => *port == 0,
            ListenAddress::Unix { .. } | ListenAddress::Inherited(_) => false,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Localhost(port) => write!(f, "localhost:{port}"),
            ListenAddress::Unix { path, .. } => write!(f, "unix:{}", path.display()),
            ListenAddress::Inherited(name) => write!(f, "fd:{name}"),
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> ListenAddress {
        ListenAddress::Tcp(address)
    }
}

/// Part of the server's resources that a listener shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Surface {
    /// Everything.
    All,
    /// What clients need: topics, own endpoints, `/health` and `/ready`. No console, no `/metrics`, no `/topics`.
    Public,
    /// What operators need: the console, `/metrics`, `/topics`, `/health` and `/ready`; and `/ws` for those who may observe.
    Admin,
}

impl Surface {
    /// The resources in words.
    pub fn words(self) -> &'static str {
        match self {
            Surface::All => "everything",
            Surface::Public => {
                "what clients need: topics and endpoints, no console, figures and lists"
            }
            Surface::Admin => {
                "what operators need: console, figures and lists, and /ws for those who may observe"
            }
        }
    }
}

impl fmt::Display for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Surface::All => "all",
            Surface::Public => "public",
            Surface::Admin => "admin",
        })
    }
}

/// One listener of a server.
///
/// ```
/// use umbel::config::{Listener, Surface};
///
/// # fn main() -> Result<(), String> {
/// let listener: Listener = "127.0.0.1:9000#admin".parse()?;
/// assert_eq!(listener.surface, Some(Surface::Admin));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listener {
    /// Name in the log. No two of a server have the same.
    pub name: String,
    /// Address.
    pub address: ListenAddress,
    /// Resources that it shows. None: all, unless another listener is for operators alone; then what clients need.
    pub surface: Option<Surface>,
    /// Whether an IPv6 address takes no IPv4 peers, which `[::]` does otherwise.
    pub ipv6_only: bool,
    /// Whether it speaks TLS: https:// and wss://. It needs a certificate.
    pub tls: bool,
    /// Proxies in front of it.
    pub proxies: Proxies,
    /// Certificates that it asks of clients, with TLS.
    pub clients: ClientCertificates,
}

impl Listener {
    /// One that is called as its address is.
    pub fn new(address: impl Into<ListenAddress>) -> Listener {
        let address = address.into();
        Listener {
            name: address.to_string(),
            address,
            surface: None,
            ipv6_only: false,
            tls: false,
            proxies: Proxies::default(),
            clients: ClientCertificates::default(),
        }
    }

    /// Listener that speaks TLS, over TCP.
    ///
    /// ```
    /// use umbel::config::Listener;
    ///
    /// # fn main() -> Result<(), String> {
    /// let listener: Listener = "127.0.0.1:8443".parse()?;
    /// assert_eq!(listener.with_tls(), "https://127.0.0.1:8443".parse()?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_tls(mut self) -> Listener {
        self.tls = true;
        self
    }

    /// Whether a listener that was started as the other does all that this one says. What is asked of clients, and the proxies
    /// in front, can change later.
    pub(crate) fn is_started_as(&self, other: &Listener) -> bool {
        let mut this = self.clone();
        this.clients.clone_from(&other.clients);
        this.proxies.clone_from(&other.proxies);
        this == *other
    }

    /// Listener of another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Listener {
        self.name = name.into();
        self
    }

    /// Listener with this surface.
    #[must_use]
    pub fn with_surface(mut self, surface: Surface) -> Listener {
        self.surface = Some(surface);
        self
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |way_out: &str| Err(ConfigError::new("listen", self, way_out));
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return wrong("its name must have from 1 to 255 bytes");
        }
        if self.tls && cfg!(not(feature = "tls")) {
            return wrong("this build speaks no TLS: build it with the feature tls");
        }
        if self.tls && matches!(self.address, ListenAddress::Unix { .. }) {
            return wrong(
                "TLS is spoken over TCP: whoever reaches a unix socket is on this machine",
            );
        }
        if let Some(problem) = self.proxies.problem() {
            return wrong(problem);
        }
        if let Err(way_out) = self.clients.check(self.tls) {
            return wrong(&way_out);
        }
        match &self.address {
            ListenAddress::Unix { .. } if !cfg!(unix) => wrong("this system has no unix sockets"),
            ListenAddress::Unix { path, .. } if path.as_os_str().is_empty() => {
                wrong("a unix socket needs a path, as in unix:/run/umbel.sock")
            }
            ListenAddress::Unix { mode, .. } if *mode > 0o777 => {
                wrong("the mode of a unix socket is at most 0777")
            }
            ListenAddress::Unix { group, .. } if group.as_deref() == Some("") => {
                wrong("the group of a unix socket has a name or a number")
            }
            ListenAddress::Tcp(SocketAddr::V6(_)) => Ok(()),
            _ if self.ipv6_only => wrong("ipv6_only is for an IPv6 address, such as [::]:8080"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Listener {
    /// As `--listen` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tls {
            f.write_str("https://")?;
        }
        self.address.fmt(f)?;
        let mut options = Vec::new();
        if let ListenAddress::Unix { mode, group, .. } = &self.address {
            options.extend((*mode != UNIX_MODE).then(|| format!("mode={mode:04o}")));
            options.extend(group.iter().map(|group| format!("group={group}")));
        }
        options.extend(self.ipv6_only.then(|| "ipv6_only=true".to_owned()));
        options.extend(self.proxies.options());
        if !options.is_empty() {
            write!(f, "?{}", options.join("&"))?;
        }
        match self.surface {
            None => Ok(()),
            Some(surface) => write!(f, "#{surface}"),
        }
    }
}

impl FromStr for Listener {
    type Err = String;

    /// Reads what `--listen` takes: `ADDRESS:PORT`, `:PORT`, `localhost:PORT`, each with `http://` or `https://` before it,
    /// `unix:PATH` or `fd:NAME`, which may have `https://` before it too; behind it options, as in `?mode=0660&group=www-data` for
    /// a unix socket, `?ipv6_only=true` for an IPv6 address, and `?trusted_proxies=10.0.0.0/8&forwarded_header=forwarded`; and
    /// `#public`, `#admin` or `#all`.
    fn from_str(text: &str) -> Result<Listener, String> {
        let (address, surface) = match text.rsplit_once('#') {
            None => (text, None),
            Some((address, surface)) => (address, Some(parse_surface(surface)?)),
        };
        let (address, options) = match address.rsplit_once('?') {
            Some((address, options)) => (address, options),
            None => (address, ""),
        };
        let (address, tls) = match address.strip_prefix("https://") {
            Some(rest) if !rest.starts_with("http://") => {
                (rest.strip_suffix('/').unwrap_or(rest), true)
            }
            _ => (address, false),
        };
        let mut listener = Listener::new(parse_address(address)?);
        listener.tls = tls;
        listener.surface = surface;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            listener.set_option(option)?;
        }
        Ok(listener)
    }
}

impl Listener {
    /// Reads one option of `--listen`.
    fn set_option(&mut self, option: &str) -> Result<(), String> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if self.proxies.set_option(name, value)? {
            return Ok(());
        }
        match (name, &mut self.address) {
            ("mode", ListenAddress::Unix { mode, .. }) => *mode = parse_mode(value)?,
            ("group", ListenAddress::Unix { group, .. }) => *group = Some(value.to_owned()),
            ("ipv6_only", ListenAddress::Tcp(_)) => self.ipv6_only = parse_flag(name, value)?,
            ("mode" | "group", _) => return Err(format!("{name} is for unix sockets")),
            _ => {
                return Err(
                    "what stands behind ? is mode=0660 or group=NAME of a unix socket, ipv6_only=true, or of proxies \
                     trusted_proxies=NETWORK (repeat it), forwarded_header=NAME, forwarded_host=true, proxy_protocol=true"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// Reads permissions of a file, which are octal.
///
/// # Errors
/// It is none.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "mode is permissions in octal, as in 0660".to_owned())
}

fn parse_surface(text: &str) -> Result<Surface, String> {
    match text {
        "all" => Ok(Surface::All),
        "public" => Ok(Surface::Public),
        "admin" => Ok(Surface::Admin),
        _ => Err("what stands behind # is the surface: #public, #admin or #all".to_owned()),
    }
}

fn parse_address(text: &str) -> Result<ListenAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        // `unix:///run/a` is how URLs write it.
        let path = path
            .strip_prefix("//")
            .filter(|path| path.starts_with('/'))
            .unwrap_or(path);
        return match path.chars().next() {
            None => Err("a unix socket needs a path, as in unix:/run/umbel.sock".to_owned()),
            Some('@') => Err(
                "abstract sockets have no permissions: give a path, as in unix:/run/umbel.sock"
                    .to_owned(),
            ),
            Some(_) => Ok(ListenAddress::unix(path)),
        };
    }
    if let Some(name) = text.strip_prefix("fd:") {
        return match name.is_empty() || name.contains(':') {
            true => Err("an inherited socket has a name without colons, as in fd:web".to_owned()),
            false => Ok(ListenAddress::Inherited(name.to_owned())),
        };
    }
    let address = text
        .strip_prefix("http://")
        .map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
    if let Some(port) = address
        .strip_prefix("localhost:")
        .and_then(|port| port.parse().ok())
    {
        return Ok(ListenAddress::Localhost(port));
    }
    // A port alone means every address.
    if let Some(port) = address.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok(ListenAddress::Tcp((Ipv6Addr::UNSPECIFIED, port).into()));
    }
    address.parse().map(ListenAddress::Tcp).map_err(|_| {
        "it must be an IP address and a port, as in 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080; :PORT; localhost:PORT; or \
         unix:PATH; with #admin or #public behind it for what it shows"
            .to_owned()
    })
}

/// All listeners of a server, which are at least one.
#[derive(Clone, Debug)]
pub struct Listeners(Vec<Listener>);

impl Listeners {
    /// Those that were asked for; without any, 127.0.0.1:8080.
    pub fn of(asked: &[Listener]) -> Listeners {
        match asked {
            [] => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
                Listeners(vec![Listener::new(address)])
            }
            asked => Listeners(asked.to_vec()),
        }
    }

    /// Each, with what it shows.
    pub fn with_surfaces(&self) -> impl Iterator<Item = (&Listener, Surface)> {
        let has_admin = self.0.iter().any(|it| it.surface == Some(Surface::Admin));
        let unsaid = if has_admin {
            Surface::Public
        } else {
            Surface::All
        };
        self.0
            .iter()
            .map(move |it| (it, it.surface.unwrap_or(unsaid)))
    }

    /// Whether one stands behind proxies.
    pub fn have_proxies(&self) -> bool {
        let defaults = Proxies::default();
        self.0.iter().any(|it| it.proxies != defaults)
    }

    /// Whether programs of this machine alone can reach it, and over TCP.
    pub fn are_loopback(&self) -> bool {
        self.0.iter().all(|it| it.address.is_loopback())
    }

    /// Whether what is not set is open to this machine: there is one listener, on a loopback address.
    pub fn are_open(&self) -> bool {
        self.why_rights_must_be_set().is_none()
    }

    /// Reason why rights have to be set. None where everything may be left open to this machine: there is one listener,
    /// on a loopback address, without TLS.
    pub fn why_rights_must_be_set(&self) -> Option<String> {
        match &self.0[..] {
            [one] if one.tls => Some(format!("{one} speaks TLS, so others are meant to reach it")),
            [one] if one.address.is_loopback() => None,
            [
                Listener {
                    address: ListenAddress::Tcp(address),
                    ..
                },
            ] => Some(format!("{address} is not a loopback address")),
            [one] => Some(format!("{} is not open by itself", one.address)),
            more => Some(format!("there are {} listeners", more.len())),
        }
    }

    /// Checks each, and that they differ.
    ///
    /// # Errors
    /// Names the first that cannot stand.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.0.len() > LISTENERS_MAX {
            let way_out = format!("there can be at most {LISTENERS_MAX} listeners");
            return Err(ConfigError::new("listen", self.0.len(), way_out));
        }
        let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
        for listener in &self.0 {
            listener.check()?;
            let address = &listener.address;
            if !addresses.insert(address) && !address.is_chosen_by_the_system() {
                return Err(ConfigError::new(
                    "listen",
                    listener,
                    "it is listened on twice; leave one of them out",
                ));
            }
            if !names.insert(&listener.name) && listener.name != address.to_string() {
                let way_out = format!(
                    "another listener is called {} too; give it another name",
                    listener.name
                );
                return Err(ConfigError::new("listen", listener, way_out));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
